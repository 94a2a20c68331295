//! The fields that a kind of row can be filtered by.

/// What a field holds, and so what it can be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// Any text.
    Text,
    /// A whole number that is not negative.
    Whole,
    /// `true` or `false`.
    Flag,
    /// One of these words: as the contract has it, and as the row does.
    Word(&'static [(&'static str, &'static str)]),
    /// Texts by key: `labels.<key>`.
    Labels,
}

/// A field.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in the contract.
    pub name: &'static str,
    /// What it holds.
    pub kind: FieldKind,
    /// Where it is in the row's JSON.
    pub path: &'static [&'static str],
    /// The column that holds the same, where one does. It is never NULL.
    pub column: Option<&'static str>,
}

/// A row's id.
pub const ID: Field = Field { name: "id", kind: FieldKind::Text, path: &["meta", "id"], column: Some("id") };
/// A row's name.
pub const NAME: Field = Field { name: "name", kind: FieldKind::Text, path: &["meta", "name"], column: Some("name") };
/// Words of the user's own.
pub const LABELS: Field = Field { name: "labels", kind: FieldKind::Labels, path: &["meta", "labels"], column: None };

/// What events can be filtered by.
pub const EVENT: &[Field] = &[
    Field::new("kind", FieldKind::Text, &["kind"]).column("kind"),
    Field::new("resource_id", FieldKind::Text, &["resource"]).column("resource_id"),
    Field::new("resource_name", FieldKind::Text, &["name"]).column("resource_name"),
    Field::new("action", FieldKind::Text, &["action"]).column("action"),
    Field::new("actor", FieldKind::Text, &["actor"]).column("actor"),
    Field::new("source", FieldKind::Text, &["source"]).column("source"),
    Field::new("outcome", FieldKind::Text, &["outcome"]).column("outcome"),
    Field::new("request_id", FieldKind::Text, &["request_id"]).column("request_id"),
];

impl Field {
    /// A field that stands in the row's JSON only.
    #[must_use]
    pub const fn new(name: &'static str, kind: FieldKind, path: &'static [&'static str]) -> Self {
        Self { name, kind, path, column: None }
    }

    /// The same, where the column of this name holds it too.
    #[must_use]
    pub const fn column(mut self, column: &'static str) -> Self {
        self.column = Some(column);
        self
    }

    /// The text that a row would hold for a caller's value, or what is wrong with it.
    pub(super) fn stored(&self, value: &str) -> Result<String, String> {
        match self.kind {
            FieldKind::Text | FieldKind::Labels => Ok(value.to_owned()),
            FieldKind::Whole => match value.parse::<u64>() {
                Ok(number) => Ok(number.to_string()),
                Err(_) => Err(format!("`{value}` is not a whole number")),
            },
            FieldKind::Flag if matches!(value, "true" | "false") => Ok(value.to_owned()),
            FieldKind::Flag => Err(format!("`{value}` is neither true nor false")),
            FieldKind::Word(words) => match words.iter().find(|(word, _)| word.eq_ignore_ascii_case(value)) {
                Some((_, stored)) => Ok((*stored).to_owned()),
                None => {
                    let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                    Err(format!("there is no `{value}`: known are {}", known.join(", ")))
                }
            },
        }
    }

    /// A row's text as callers write it.
    pub(super) fn shown<'a>(&self, stored: &'a str) -> &'a str {
        match self.kind {
            FieldKind::Word(words) => words.iter().find(|(_, row)| *row == stored).map_or(stored, |(word, _)| word),
            _ => stored,
        }
    }

    /// Its name as the help lists it.
    pub(super) fn help(&self) -> String {
        if self.kind == FieldKind::Labels { format!("{}.<key>", self.name) } else { self.name.to_owned() }
    }
}
