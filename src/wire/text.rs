//! Characters that act instead of being read.

/// True for a character that a reader does not see as one: control characters, and those that are invisible or turn the
/// direction of writing (Unicode's format characters, as far as a text can lie with them). Line breaks and tabs are control
/// characters too.
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
