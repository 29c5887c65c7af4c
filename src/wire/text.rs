//! Foreign text that is read and does nothing: characters that act are left out.

/// True for a character that a reader does not see as one: control characters, and those that are invisible or turn the
/// direction of writing (Unicode's format characters, as far as a text can lie with them). Line breaks and tabs are control
/// characters too.
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// `text` without characters that act, but for line breaks and tabs: what a person sees of it is what a model reads.
pub fn readable(text: &str) -> String {
    text.replace("\r\n", "\n").chars().filter(|c| *c == '\n' || *c == '\t' || !acts(*c)).collect()
}

/// The first `chars_max` characters of a text, on one line and without characters that act; `…` stands for what is cut.
pub fn one_line(text: &str, chars_max: usize) -> String {
    let start: String = text.chars().take(chars_max.saturating_mul(4)).collect();
    let line = readable(&start).split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Bytes of a text inside JSON, without its quotes: a control character takes six.
pub fn json_bytes(text: &str) -> usize {
    serde_json::Value::from(text).to_string().len().saturating_sub(2)
}
