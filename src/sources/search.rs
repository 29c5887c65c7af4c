//! Search in texts that are in memory: the lines around the words of a task, with their numbers, so that a finding can say
//! `path:line`.

use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkMatch};

use super::words;

/// Lines before and after a hit that are shown with it.
const AROUND_LINES: usize = 3;
/// Lines of one passage; a longer one is divided.
const PASSAGE_LINES_MAX: usize = 40;
/// Lines of a file in which nothing was found.
const HEAD_LINES: usize = 20;
/// Characters of a line that are shown.
const LINE_CHARS_MAX: usize = 400;
/// Passages of one text that are judged.
const PASSAGES_MAX: usize = 1_000;

/// Consecutive lines of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Number of the first line, from 1.
    pub line: u64,
    /// The lines, long ones cut.
    pub lines: Vec<String>,
}

/// A passage of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The file.
    pub path: String,
    /// What stands there.
    pub passage: Passage,
}

impl Passage {
    /// Number of the last line.
    pub fn last_line(&self) -> u64 {
        self.line + (self.lines.len() as u64).saturating_sub(1)
    }

    /// The lines with their numbers.
    pub fn numbered(&self) -> String {
        let numbered = self.lines.iter().zip(self.line..).map(|(line, number)| format!("{number}: {line}\n"));
        numbered.collect()
    }

    fn bytes(&self) -> usize {
        self.lines.iter().map(|line| line.len() + 8).sum()
    }

    fn score(&self, words: &[String]) -> usize {
        words::count(words, &self.lines.join("\n"))
    }
}

/// What `files` say to `words`, in at most `bytes_max` bytes: all lines of all of them when they fit, the passages with most
/// of the words otherwise. Files that are no text have none.
pub fn excerpts(files: &[(&str, &[u8])], words: &[String], bytes_max: usize) -> Vec<Excerpt> {
    let texts = files.iter().filter_map(|(path, bytes)| Some((*path, std::str::from_utf8(bytes).ok()?)));
    let texts: Vec<(&str, &str)> = texts.filter(|(_, text)| !text.trim().is_empty()).collect();
    let whole: Vec<Excerpt> = texts
        .iter()
        .filter(|(_, text)| text.len() <= bytes_max)
        .map(|(path, text)| Excerpt { path: (*path).to_owned(), passage: all_of(text) })
        .collect();
    if whole.len() == texts.len() && whole.iter().map(|excerpt| excerpt.passage.bytes()).sum::<usize>() <= bytes_max {
        return whole;
    }
    let found = texts.iter().flat_map(|(path, text)| {
        passages(text, words).into_iter().map(|passage| Excerpt { path: (*path).to_owned(), passage })
    });
    let mut found: Vec<(usize, Excerpt)> = found.map(|excerpt| (excerpt.passage.score(words), excerpt)).collect();
    found.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    // A file in which nothing was found is shown by its beginning, when there is room.
    let heads = texts.iter().map(|(path, text)| {
        let lines = text.lines().take(HEAD_LINES).map(cut).collect();
        (0, Excerpt { path: (*path).to_owned(), passage: Passage { line: 1, lines } })
    });
    let mut left = bytes_max;
    let mut kept: Vec<Excerpt> = Vec::new();
    for (score, excerpt) in found.into_iter().chain(heads) {
        if score == 0 && kept.iter().any(|other| other.path == excerpt.path) {
            continue;
        }
        let bytes = excerpt.passage.bytes() + excerpt.path.len();
        if bytes <= left {
            left -= bytes;
            kept.push(excerpt);
        }
    }
    kept.sort_by(|one, other| (&one.path, one.passage.line).cmp(&(&other.path, other.passage.line)));
    kept
}

/// `text` in at most about `bytes_max` bytes: its beginning, and the passages after it that have most of the words.
pub fn condensed(text: &str, words: &[String], bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let head = &text[..text.floor_char_boundary(bytes_max / 2)];
    let mut out = format!("{head}\n[…]\n");
    let rest = &text[head.len()..];
    let mut found: Vec<(usize, Passage)> =
        passages(rest, words).into_iter().map(|passage| (passage.score(words), passage)).collect();
    found.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    let mut left = bytes_max - head.len();
    let mut kept: Vec<Passage> = Vec::new();
    for (_, passage) in found {
        if passage.bytes() <= left {
            left -= passage.bytes();
            kept.push(passage);
        }
    }
    kept.sort_by_key(|passage| passage.line);
    for passage in kept {
        out.push_str(&passage.lines.join("\n"));
        out.push_str("\n[…]\n");
    }
    out
}

fn all_of(text: &str) -> Passage {
    Passage { line: 1, lines: text.lines().map(cut).collect() }
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(LINE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// The passages of `text` around `words`, in order.
fn passages(text: &str, words: &[String]) -> Vec<Passage> {
    let Some(matcher) = matcher(words) else { return Vec::new() };
    let mut searcher = SearcherBuilder::new()
        .line_number(true)
        .before_context(AROUND_LINES)
        .after_context(AROUND_LINES)
        .binary_detection(BinaryDetection::quit(0))
        .build();
    let mut collector = Collector::default();
    if let Err(error) = searcher.search_slice(&matcher, text.as_bytes(), &mut collector) {
        tracing::debug!("a search ended early: {error}");
    }
    collector.passages
}

fn matcher(words: &[String]) -> Option<RegexMatcher> {
    if words.is_empty() {
        return None;
    }
    let matcher = RegexMatcherBuilder::new().case_insensitive(true).build_literals(words);
    matcher.inspect_err(|error| tracing::debug!("no search: {error}")).ok()
}

#[derive(Default)]
struct Collector {
    passages: Vec<Passage>,
}

impl Collector {
    fn line(&mut self, number: Option<u64>, bytes: &[u8]) -> bool {
        let number = number.unwrap_or(1);
        let text = String::from_utf8_lossy(bytes);
        let text = cut(text.trim_end_matches(['\n', '\r']));
        match self.passages.last_mut() {
            Some(last) if last.last_line() + 1 == number && last.lines.len() < PASSAGE_LINES_MAX => {
                last.lines.push(text);
            }
            _ => self.passages.push(Passage { line: number, lines: vec![text] }),
        }
        self.passages.len() <= PASSAGES_MAX
    }
}

impl Sink for Collector {
    type Error = std::io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> Result<bool, Self::Error> {
        Ok(self.line(found.line_number(), found.bytes()))
    }

    fn context(&mut self, _: &Searcher, context: &SinkContext<'_>) -> Result<bool, Self::Error> {
        Ok(self.line(context.line_number(), context.bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::words_of;

    #[test]
    fn small_files_are_shown_whole_with_their_numbers() {
        let files: [(&str, &[u8]); 3] = [("a.py", b"one\ntwo\n"), ("empty.txt", b""), ("pic.png", b"\x89PNG\xff\0")];
        let found = excerpts(&files, &words_of("anything"), 1_000);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].path.as_str(), found[0].passage.numbered().as_str()), ("a.py", "1: one\n2: two\n"));
    }

    #[test]
    fn of_large_files_the_lines_around_the_words_are_shown() {
        let mut text: Vec<String> = (1..=5_000).map(|n| format!("line {n} of nothing")).collect();
        text[2_999] = "the RETRY of a task waits for its deadline".into();
        text[4_000] = "a deadline alone".into();
        let text = text.join("\n");
        let files: [(&str, &[u8]); 2] = [("long.txt", text.as_bytes()), ("other.txt", b"nothing here\nat all\n")];
        let words = words_of("How does the deadline of a retry work?");
        let found = excerpts(&files, &words, 4_000);
        let places: Vec<(&str, u64, u64)> =
            found.iter().map(|found| (found.path.as_str(), found.passage.line, found.passage.last_line())).collect();
        assert_eq!(places, [("long.txt", 2_997, 3_003), ("long.txt", 3_998, 4_004), ("other.txt", 1, 2)]);
        assert!(found[0].passage.numbered().contains("3000: the RETRY of"));
        let tight = excerpts(&files, &words, 260);
        assert_eq!(tight.iter().filter(|found| found.path == "long.txt").count(), 1, "{tight:?}");
        assert_eq!(tight[0].passage.line, 2_997, "the passage with more of the words comes first");
    }

    #[test]
    fn a_long_text_is_its_head_and_what_matters_in_it() {
        let text: String =
            (0..20_000).map(|n| if n == 15_000 { "the answer is 42\n".into() } else { format!("row {n}\n") }).collect();
        let short = condensed(&text, &words_of("What is the answer?"), 2_000);
        assert!(
            short.starts_with("row 0\n") && short.contains("the answer is 42") && short.len() < 2_500,
            "{}",
            short.len()
        );
        assert_eq!(condensed("short", &[], 10), "short");
    }

    #[test]
    fn hostile_texts_and_words_are_bounded() {
        let words = words_of("(a+)+$ .* [ \\ task_retry deadline");
        for text in ["deadline ".repeat(400_000), "deadline\n".repeat(200_000), "\u{fffd}deadline\0\n".repeat(1_000)] {
            let found = excerpts(&[("x", text.as_bytes())], &words, 10_000);
            let bytes: usize = found.iter().map(|found| found.passage.numbered().len()).sum();
            assert!(bytes <= 12_000, "{bytes}");
        }
    }
}
