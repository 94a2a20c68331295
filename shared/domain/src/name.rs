//! Names that users and operators choose.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty or more than 63 characters.
    #[error("must have 1 to 63 characters, has {0}")]
    Length(usize),
    /// Something else than a-z, 0-9 and `-`.
    #[error("may have lower-case letters, digits and `-` only, has {0:?}")]
    Character(char),
    /// Starts with something else than a letter.
    #[error("must start with a letter")]
    Start,
    /// Ends with a hyphen.
    #[error("must end with a letter or a digit")]
    End,
    /// A UUID, which could be mistaken for an id.
    #[error("must not be a UUID")]
    Uuid,
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() || text.len() > 63 {
        return Err(NameError::Length(text.chars().count()));
    }
    if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(NameError::Character(bad));
    }
    if Uuid::try_parse(text).is_ok() {
        return Err(NameError::Uuid);
    }
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(NameError::Start);
    }
    if text.ends_with('-') {
        return Err(NameError::End);
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                check(&text).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// The name of a resource: 1 to 63 characters of `a-z`, `0-9` and `-`, starting with a letter, ending with a letter or a digit, never a
    /// UUID. A valid host name label (RFC 1123), so an instance's name can be its guest's host name.
    ResourceName;
    /// The name of a host, under the same rules.
    HostName;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bad_names_say_what_is_wrong() {
        let uuid = "a50e8400-e29b-41d4-a716-446655440000";
        for (text, error) in [
            ("", NameError::Length(0)),
            (&"a".repeat(64), NameError::Length(64)),
            ("Web", NameError::Character('W')),
            ("a_b", NameError::Character('_')),
            ("1a", NameError::Start),
            ("-a", NameError::Start),
            ("a-", NameError::End),
            (uuid, NameError::Uuid),
        ] {
            assert_eq!(text.parse::<ResourceName>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_label_is_a_name(text in "[a-z]([a-z0-9-]{0,30}[a-z0-9])?") {
            let name: ResourceName = text.parse().unwrap();
            prop_assert_eq!(name.as_str(), text);
        }

        #[test]
        fn nothing_else_is(text in ".*") {
            if let Ok(name) = text.parse::<ResourceName>() {
                prop_assert!(name.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            }
        }
    }
}
