//! From what a server says to text that may be shown: bounded, and without characters that act instead of being read.

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};

use super::ToolAnswer;
use crate::wire::{limits, one_line, readable};

/// Bytes of one result's text that are kept.
pub const RESULT_BYTES_MAX: usize = 16 * 1024;
/// Characters of a name, address or error in a result.
const WORD_CHARS_MAX: usize = 300;

/// A result as text.
pub(super) fn answer(result: &CallToolResult) -> ToolAnswer {
    let mut parts: Vec<String> = result.content.iter().map(block).collect();
    if let (true, Some(value)) = (parts.is_empty(), &result.structured_content) {
        parts.push(readable(&value.to_string()));
    }
    let whole = parts.join("\n");
    let text = if whole.trim().is_empty() { "(no text)".to_owned() } else { limits::cut(&whole, RESULT_BYTES_MAX) };
    ToolAnswer { text, bytes: whole.len(), ok: result.is_error != Some(true) }
}

fn block(block: &ContentBlock) -> String {
    match block {
        ContentBlock::Text(text) => readable(&text.text),
        ContentBlock::Image(image) => not_text("an image", &image.mime_type, image.data.len()),
        ContentBlock::Audio(audio) => not_text("a sound", &audio.mime_type, audio.data.len()),
        ContentBlock::Resource(resource) => match &resource.resource {
            ResourceContents::TextResourceContents { uri, text, .. } => {
                format!("{}:\n{}", one_line(uri, WORD_CHARS_MAX), readable(text))
            }
            ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
                not_text(&one_line(uri, WORD_CHARS_MAX), mime_type.as_deref().unwrap_or("unknown type"), blob.len())
            }
            _ => "(content of an unknown kind, left out)".to_owned(),
        },
        ContentBlock::ResourceLink(link) => {
            format!("{} <{}>", one_line(&link.name, WORD_CHARS_MAX), one_line(&link.uri, WORD_CHARS_MAX))
        }
        _ => "(content of an unknown kind, left out)".to_owned(),
    }
}

fn not_text(what: &str, kind: &str, bytes: usize) -> String {
    format!("({what}, {}, {bytes} bytes in base64, left out)", one_line(kind, WORD_CHARS_MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(result: serde_json::Value) -> ToolAnswer {
        answer(&serde_json::from_value(result).unwrap())
    }

    #[test]
    fn what_acts_instead_of_being_read_is_taken_out() {
        let answer = of(json!({"content": [
            {"type": "text", "text": "a\u{1b}[31mred\r\nb\u{0}\u{202e}c\u{e0041}\u{200b}\td"},
            {"type": "image", "data": "QUJD", "mimeType": "image/png\u{7}"},
            {"type": "resource_link", "uri": "file:///x", "name": "x"},
        ]}));
        assert_eq!(answer.text, "a[31mred\nbc\td\n(an image, image/png, 4 bytes in base64, left out)\nx <file:///x>");
        assert!(answer.ok);
    }

    #[test]
    fn a_huge_result_is_cut_and_says_so() {
        let answer = of(json!({"content": [{"type": "text", "text": "é".repeat(100_000)}], "isError": true}));
        assert!(
            answer.text.len() <= RESULT_BYTES_MAX + 40 && answer.text.ends_with("bytes more)"),
            "{}",
            answer.text.len()
        );
        assert_eq!((answer.bytes, answer.ok), (200_000, false));
    }

    #[test]
    fn a_result_without_words_is_its_data_or_says_that_there_is_none() {
        assert_eq!(of(json!({"content": [], "structuredContent": {"sum": 5}})).text, "{\"sum\":5}");
        assert_eq!(of(json!({"content": []})).text, "(no text)");
    }
}
