//! The filter language: text to terms. What is wrong is told as a message for the caller.

use super::{Field, FieldKind, Op, Term};

/// More than anybody writes; each costs every row that is looked at.
const MAX_TERMS: usize = 32;

/// What joins terms, or may in a later release: no value without quotes.
const JOINS: [&str; 3] = ["AND", "OR", "NOT"];

/// Whether a text may be a value without quotes.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_bare) && !JOINS.contains(&text)
}

/// Whether a character may stand in a value without quotes. What is left out may mean something in a later release.
fn is_bare(c: char) -> bool {
    !c.is_whitespace()
        && !c.is_control()
        && !matches!(c, '"' | '\'' | '\\' | '=' | '!' | '~' | '<' | '>' | '(' | ')' | ',')
}

pub(super) fn terms(fields: &'static [Field], text: &str) -> Result<Vec<Term>, String> {
    let mut at = Cursor { rest: text.trim() };
    let mut terms = Vec::new();
    while !at.rest.is_empty() {
        if !terms.is_empty() {
            at.and()?;
        }
        terms.push(at.term(fields)?);
        if terms.len() > MAX_TERMS {
            return Err(format!("has more than {MAX_TERMS} terms"));
        }
        if !at.rest.is_empty() && !at.rest.starts_with(char::is_whitespace) {
            return Err(format!("a space must follow each term, before {}", at.here()));
        }
        at.space();
    }
    Ok(terms)
}

struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// What comes next, for messages.
    fn here(&self) -> String {
        let some: String = self.rest.chars().take(20).collect();
        if some.is_empty() { "the end".to_owned() } else { format!("`{some}`") }
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let (taken, rest) = self.rest.split_at(self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// `AND` may stand between terms.
    fn and(&mut self) -> Result<(), String> {
        if let Some(rest) = self.rest.strip_prefix("AND").filter(|rest| rest.starts_with(char::is_whitespace)) {
            self.rest = rest.trim_start();
        }
        if JOINS.contains(&self.rest) || self.rest.starts_with("OR ") || self.rest.starts_with("NOT ") {
            return Err(format!("terms are joined by spaces or AND, and {} is no term", self.here()));
        }
        Ok(())
    }

    fn term(&mut self, fields: &'static [Field]) -> Result<Term, String> {
        let name = self.take(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        if name.is_empty() {
            return Err(format!("a field is missing before {}: terms are such as `name=web-01`", self.here()));
        }
        let known = || fields.iter().map(Field::help).collect::<Vec<_>>().join(", ");
        let Some(field) = fields.iter().find(|f| f.name == name) else {
            let short: String = name.chars().take(40).collect();
            return Err(format!("there is no field `{short}` to filter by: known are {}", known()));
        };
        let key = match self.rest.strip_prefix('.') {
            Some(rest) if field.kind == FieldKind::Labels => {
                self.rest = rest;
                Some(self.value().map_err(|wrong| format!("`{name}`: a key {wrong}"))?)
            }
            Some(_) => return Err(format!("`{name}` has no fields of its own: known are {}", known())),
            None if field.kind == FieldKind::Labels => {
                return Err(format!("`{name}` needs a key, as in `{name}.tier=web`"));
            }
            None => None,
        };
        self.space();
        let op = self.op().ok_or_else(|| format!("`{name}`: one of = != ~ must follow, before {}", self.here()))?;
        self.space();
        let value = self.value().map_err(|wrong| format!("`{name}`: a value {wrong}"))?;
        let text = matches!(field.kind, FieldKind::Text | FieldKind::Labels);
        if op == Op::Like && !text {
            return Err(format!("`{name}` is not text, so it has no `~`: use = or !="));
        }
        let value = field.stored(&value).map_err(|wrong| format!("`{name}`: {wrong}"))?;
        Ok(Term { field, key, op, value })
    }

    fn op(&mut self) -> Option<Op> {
        for (text, op) in [("!=", Op::IsNot), ("=", Op::Is), ("~", Op::Like)] {
            if let Some(rest) = self.rest.strip_prefix(text) {
                self.rest = rest;
                return Some(op);
            }
        }
        None
    }

    /// A word or a text in quotes, in which `\"` and `\\` stand for the second character.
    fn value(&mut self) -> Result<String, String> {
        let Some(rest) = self.rest.strip_prefix('"') else {
            let start = self.here();
            let word = self.take(is_bare);
            if !is_word(word) {
                return Err(format!("is missing before {start}: put it in double quotes if it is not a word"));
            }
            return Ok(word.to_owned());
        };
        let mut text = String::new();
        let mut chars = rest.char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = rest.get(i + 1..).unwrap_or_default();
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, c @ ('"' | '\\'))) => text.push(c),
                    _ => return Err("in quotes may have a backslash only before a quote or a backslash".to_owned()),
                },
                c => text.push(c),
            }
        }
        Err("has no closing quote".to_owned())
    }
}
