//! The order of lists.

use std::fmt;

use crate::CoreError;

/// What a list is ordered by. Rows that are alike in it follow each other by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OrderBy {
    /// When the row was made.
    #[default]
    CreatedAt,
    /// Its name.
    Name,
}

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Order {
    /// By what.
    pub by: OrderBy,
    /// The last first.
    pub descending: bool,
}

impl Order {
    /// The order that a text says: a field, and `desc` or `asc` behind it.
    ///
    /// # Errors
    /// Invalid `order_by`, saying what is known.
    pub fn parse(text: &str) -> Result<Self, CoreError> {
        let mut words = text.split_whitespace();
        let Some(field) = words.next() else { return Ok(Self::default()) };
        let wrong = |message: String| CoreError::invalid("order_by", message);
        let by = match field {
            "created_at" => OrderBy::CreatedAt,
            "name" => OrderBy::Name,
            other => {
                let short: String = other.chars().take(40).collect();
                return Err(wrong(format!(
                    "lists have no order by `{short}`: use created_at or name, and desc behind it"
                )));
            }
        };
        let descending = match words.next() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(_) => return Err(wrong(format!("asc or desc may follow `{field}`, nothing else"))),
        };
        if words.next().is_some() {
            return Err(wrong("a list is ordered by one field; rows that are alike in it follow by id".to_owned()));
        }
        Ok(Self { by, descending })
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.by {
            OrderBy::CreatedAt => "created_at",
            OrderBy::Name => "name",
        })?;
        f.write_str(if self.descending { " desc" } else { "" })
    }
}
