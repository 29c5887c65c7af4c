//! URLs in plain text, as people and models write them.

use std::collections::HashSet;

use linkify::{LinkFinder, LinkKind};
use reqwest::Url;

/// URLs of one text that are kept.
const FOUND_MAX: usize = 500;
/// Bytes of a text that are looked through.
const TEXT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Characters of the words around a URL.
const AROUND_CHARS_MAX: usize = 300;

/// A URL in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The URL, without its fragment.
    pub(super) url: Url,
    /// The line that it stands in, cut.
    pub(super) around: String,
}

/// The URLs of `text` with a scheme, in their order, each once. Punctuation after them is not taken for a part.
pub(super) fn in_text(text: &str) -> Vec<Found> {
    let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    let mut finder = LinkFinder::new();
    finder.kinds(&[LinkKind::Url]);
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for link in finder.links(text) {
        let Ok(mut url) = Url::parse(link.as_str()) else { continue };
        url.set_fragment(None);
        if seen.insert(url.clone()) {
            found.push(Found { url, around: line_at(text, link.start()) });
        }
        if found.len() >= FOUND_MAX {
            break;
        }
    }
    found
}

fn line_at(text: &str, at: usize) -> String {
    // A line without an end is cut close to the URL, not at its own beginning, which may be far.
    let near = text.ceil_char_boundary(at.saturating_sub(AROUND_CHARS_MAX / 2));
    let start = text[near..at].rfind('\n').map_or(near, |newline| near + newline + 1);
    text[start..].chars().take(AROUND_CHARS_MAX).take_while(|c| !['\n', '\r'].contains(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_found_as_people_write_them() {
        let text = "See <https://a.example/x>, (http://b.example/y?z=1), [c](http://c.example/#top).\n\
                    And ftp://d.example/f or http://e.example. Also a.example, x@y.example and http://a.example/ß.";
        let found: Vec<String> = in_text(text).into_iter().map(|found| found.url.to_string()).collect();
        assert_eq!(
            found,
            [
                "https://a.example/x",
                "http://b.example/y?z=1",
                "http://c.example/",
                "ftp://d.example/f",
                "http://e.example/",
                "http://a.example/%C3%9F"
            ]
        );
        assert!(in_text(text)[4].around.starts_with("And ftp://"), "{:?}", in_text(text)[4]);
    }

    #[test]
    fn a_text_of_nothing_but_urls_is_bounded() {
        let text: String = (0..5_000).map(|n| format!("http://example.com/{n} ")).collect();
        assert_eq!(in_text(&text).len(), FOUND_MAX);
        assert!(in_text(&"http://".repeat(100_000)).len() <= FOUND_MAX);
        let one_line = format!("{}http://example.com/x{}", "é ".repeat(1_000), " é".repeat(1_000));
        let around = in_text(&one_line)[0].around.clone();
        assert!(around.contains("é http://example.com/x é") && around.chars().count() == AROUND_CHARS_MAX, "{around}");
    }
}
