//! What lists and watches show: the filter language, and the order of lists.
//!
//! # Theory of operation
//!
//! A filter is text of the caller's, such as `status=RUNNING labels.tier=web name~"web-*"`. It is parsed here, once, against the fields that
//! a kind of row says it has, into a [`Filter`]: terms that must all hold. Two things evaluate it, and must agree (a property test of the
//! gateway says that they do): the store, in SQL, for lists; and [`Filter::matches`], on a row at hand, for watches.
//!
//! What makes them agree is that both compare text. A field's value is what stands in the row's JSON: a string as it is, a number in decimal,
//! a truth as `true` or `false`; what is not there (a label that the row does not have) is empty text. A caller's value is brought into that
//! form when it is parsed, so neither side knows more than `=`, `!=` and globs.
//!
//! The grammar is in `docs/api.md`.

mod fields;
mod matches;
mod order;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write};

pub use fields::{EVENT, Field, FieldKind, ID, LABELS, NAME};
pub use order::{Order, OrderBy};

use crate::CoreError;

/// How a term compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `=`: the same text.
    Is,
    /// `!=`: another text.
    IsNot,
    /// `~`: a glob, in which `*` stands for any text, none included.
    Like,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// What is compared.
    pub field: &'static Field,
    /// Of labels: which one.
    pub key: Option<String>,
    /// How.
    pub op: Op,
    /// With what: the text that a row would hold.
    pub value: String,
}

/// Comparisons that must all hold. None: every row is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    terms: Vec<Term>,
}

impl Filter {
    /// The filter that a text says, on rows with these fields.
    ///
    /// # Errors
    /// Invalid `filter`, naming the field that is not known or cannot be compared so, or the place where the text is not understood.
    pub fn parse(fields: &'static [Field], text: &str) -> Result<Self, CoreError> {
        let terms = parse::terms(fields, text).map_err(|message| CoreError::invalid("filter", message))?;
        Ok(Self { terms })
    }

    /// The filter of these terms.
    #[must_use]
    pub fn of(terms: Vec<Term>) -> Self {
        Self { terms }
    }

    /// Its terms.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether every row is meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }
}

impl Op {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Is => "=",
            Self::IsNot => "!=",
            Self::Like => "~",
        }
    }
}

/// As a caller could have written it: parsed again, it is the same filter.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            if i > 0 {
                f.write_char(' ')?;
            }
            write!(f, "{term}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.field.name)?;
        if let Some(key) = &self.key {
            f.write_char('.')?;
            quoted(f, key)?;
        }
        f.write_str(self.op.as_str())?;
        quoted(f, self.field.shown(&self.value))
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    if parse::is_word(text) {
        return f.write_str(text);
    }
    f.write_char('"')?;
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    f.write_char('"')
}
