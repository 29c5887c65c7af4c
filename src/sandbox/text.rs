//! Makes foreign text safe to print and to put into a prompt: a terminal must not obey what untrusted code printed.

use crate::wire::acts;

/// What stands for a character that acts.
const REPLACEMENT: char = '\u{fffd}';

/// Foreign bytes as text without control characters, except line feed and tab.
pub(super) fn neutralised(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .replace("\r\n", "\n")
        .chars()
        .map(|c| if acts(c) && c != '\n' && c != '\t' { REPLACEMENT } else { c })
        .collect()
}

/// The first `chars_max` characters, marked when something was cut.
pub(super) fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{} [shortened]", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_reordering_are_neutralised() {
        assert_eq!(neutralised(b"a\x1b[31mb\r\nc\td\x00"), "a\u{fffd}[31mb\nc\td\u{fffd}");
        assert_eq!(neutralised("x\u{202e}y".as_bytes()), "x\u{fffd}y");
        assert_eq!(neutralised(&[0xff, b'z']), "\u{fffd}z");
    }

    #[test]
    fn shortening_respects_characters() {
        assert_eq!(shortened("äöü", 2), "äö [shortened]");
        assert_eq!(shortened("äöü", 3), "äöü");
    }
}
