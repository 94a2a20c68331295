//! Resume tokens: `<epoch>.<revision>`. All up to the revision was told; the epoch says of which database.

use std::fmt;

use crate::CoreError;

/// The request's field.
const FIELD: &str = "resume_token";

/// Where a watch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// Of which database: it changes when one is restored.
    pub(super) epoch: u64,
    /// Up to which transaction.
    pub(super) revision: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.revision)
    }
}

impl Token {
    /// Reads a token.
    pub(super) fn parse(text: &str) -> Result<Self, CoreError> {
        // Only as it is written: `+1` and `01` are numbers to Rust.
        let number = |text: &str| {
            let number: u64 = text.parse().ok()?;
            (number.to_string() == text).then_some(number)
        };
        let parse = || {
            let (epoch, revision) = text.split_once('.')?;
            Some(Self { epoch: number(epoch)?, revision: number(revision)? })
        };
        parse().ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            CoreError::invalid(
                FIELD,
                format!("`{shown}` is no resume token: use one as it came, or none to start anew"),
            )
        })
    }

    /// Whether a database of this epoch that stands at `now` and has purged up to `purged` can continue from here.
    pub(super) fn check(self, epoch: u64, now: u64, purged: u64) -> Result<(), CoreError> {
        let why = if self.epoch != epoch {
            format!("is of epoch {} of the database, which is at epoch {epoch}: it was restored since", self.epoch)
        } else if self.revision > now {
            format!("is of revision {}, and the database is at {now}", self.revision)
        } else if self.revision < purged {
            format!("is of revision {}, and what came up to {purged} is purged", self.revision)
        } else {
            return Ok(());
        };
        Err(CoreError::CannotResume(format!("the resume token {why}; watch without one to start anew")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_written() {
        let token = Token { epoch: 3, revision: u64::MAX };
        assert_eq!(Token::parse(&token.to_string()).unwrap(), token);
        for text in ["3", "3.", ".3", "3.4.5", "+3.4", "3.04", "3.-1", "a.b", "3.18446744073709551616", "3 .4", "𝟛.4"]
        {
            assert!(matches!(Token::parse(text), Err(CoreError::Invalid { field: FIELD, .. })), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_continued_says_to_start_anew() {
        let token = Token { epoch: 3, revision: 50 };
        assert!(token.check(3, 50, 50).is_ok() && token.check(3, 90, 0).is_ok());
        for (epoch, now, purged, part) in [(4, 90, 0, "epoch"), (3, 49, 0, "at 49"), (3, 90, 51, "purged")] {
            let error = token.check(epoch, now, purged).unwrap_err();
            assert!(matches!(error, CoreError::CannotResume(_)), "{error}");
            assert!(error.to_string().contains(part) && error.to_string().contains("without one"), "{error}");
        }
    }
}
