//! How things are called.
use heck::{ToShoutySnakeCase, ToUpperCamelCase};

/// `lower_snake`, of letters and digits.
pub fn is_snake(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.split('_').all(part)
}

/// `UpperCamel`, acronyms as words: `VpcId`, not `VPCId`.
pub fn is_camel(name: &str) -> bool {
    name.to_upper_camel_case() == name
}

/// `UPPER_SNAKE`.
pub fn is_shouty(name: &str) -> bool {
    is_snake(&name.to_ascii_lowercase()) && name == name.to_ascii_uppercase()
}

/// What an enum's zero value is called.
pub fn zero_value(name: &str) -> String {
    format!("{}_UNSPECIFIED", name.to_shouty_snake_case())
}
