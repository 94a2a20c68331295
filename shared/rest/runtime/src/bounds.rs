//! How long an error may be. Over gRPC all of it travels in headers, and common clients break the connection, with every other call on it, when
//! those are longer than 8 KiB. So an error that quotes what was sent quotes the beginning of it.

/// Bytes of a message; each may take three in a header.
pub const MESSAGE: usize = 900;
/// Bytes of a violation's description.
pub const DESCRIPTION: usize = 200;
/// Bytes of a field's path, of a name, or of any other single fact.
pub const FACT: usize = 100;
/// How many violations are listed. What is wrong beyond them shows when these are mended.
pub const VIOLATIONS: usize = 8;

/// The text, or its beginning and `…` where it is longer than so many bytes.
#[must_use]
pub fn short(text: impl Into<String>, bytes: usize) -> String {
    let mut text = text.into();
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(short("abc", 3), "abc");
        assert_eq!(short("abcd", 3), "abc…");
        assert_eq!(short("aéé", 2), "a…");
        assert_eq!(short("", 0), "");
    }
}
