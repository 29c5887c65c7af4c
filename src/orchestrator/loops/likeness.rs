//! When two messages are the same, and when they are nearly the same.
//!
//! A model that goes in circles seldom repeats itself to the letter: a number is counted up, a time or an id is another
//! one, a word is changed. So a message is kept as a print, made once: its words as they are, its words without what
//! counts, times and names things, and its shingles. Cheap and deterministic, for every holder of a run decides by it.

use std::sync::OnceLock;

use crate::wire::{ContentHash, Message, MessageType, Party, TaskId, limits};

/// Words in a row that make one shingle.
const SHINGLE_WORDS: usize = 3;
/// Shingles of one message that are kept, those with the smallest hashes: all of a short one.
const SKETCH_SHINGLES: usize = 128;
/// Shared shingles of 100 in either that make two texts nearly the same: one word in some sixty.
const ALIKE_PERCENT: usize = 90;
/// Bytes of one message that an error shows.
const SHOWN_BYTES: usize = 80;
/// What stands for a number, an id, a hash or a time.
const NUMBER: u64 = 1;
/// Where the hash of a word begins, and what each byte is multiplied by (FNV-1a, 64 bits).
const FNV: (u64, u64) = (0xcbf2_9ce4_8422_2325, 0x0100_0000_01b3);

/// What is remembered of one message.
#[derive(Clone, Debug)]
pub(super) struct Print {
    pub(super) from: Party,
    pub(super) to: Party,
    pub(super) kind: MessageType,
    pub(super) task: TaskId,
    input: Option<ContentHash>,
    content: String,
    /// Made when they are first compared: what differs in its parties or its input never is.
    likeness: OnceLock<Likeness>,
    shown: String,
}

#[derive(Clone, Debug)]
struct Likeness {
    /// The words, as they are but for the space between them.
    words: u64,
    /// The words in lower case, numbers, ids, hashes and times left out.
    normal: u64,
    /// The smallest of their shingles, sorted, each once.
    shingles: Vec<u64>,
}

impl Print {
    pub(super) fn of(message: &Message) -> Self {
        let about = &message.metadata;
        let words = limits::cut(&message.content, SHOWN_BYTES);
        Self {
            from: message.from,
            to: message.to,
            kind: message.kind,
            task: asker(message).unwrap_or_else(|| about.task.clone()),
            input: about.input.clone(),
            content: message.content.clone(),
            likeness: OnceLock::new(),
            shown: format!("{} to {} ({} #{}): {words:?}", message.from, message.to, about.task, about.attempt),
        }
    }

    /// The message in few words, for people.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// The same parties say the same about the same input, to the letter.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.comparable(other) && (self.content == other.content || self.likeness().words == other.likeness().words)
    }

    /// The same parties say nearly the same about the same input.
    pub(super) fn alike(&self, other: &Self) -> bool {
        if !self.comparable(other) {
            return false;
        }
        if self.content == other.content {
            return true;
        }
        let (one, two) = (self.likeness(), other.likeness());
        one.normal == two.normal || alike(&one.shingles, &two.shingles)
    }

    fn comparable(&self, other: &Self) -> bool {
        (self.from, self.to, self.kind) == (other.from, other.to, other.kind) && self.input == other.input
    }

    fn likeness(&self) -> &Likeness {
        self.likeness.get_or_init(|| Likeness::of(&self.content))
    }
}

/// Whose question a message is: each is a task of its own, and what one task asks is compared.
fn asker(message: &Message) -> Option<TaskId> {
    let question = message.kind == MessageType::Question;
    message.metadata.task.asker().filter(|_| question).map(|(asker, _)| asker)
}

impl Likeness {
    fn of(text: &str) -> Self {
        let mut words = FNV.0;
        let mut normal = Vec::new();
        for chunk in text.split_whitespace() {
            words = chunk.bytes().chain([b' ']).fold(words, mixed);
            let names = chunk.bytes().any(|byte| byte.is_ascii_digit());
            for part in chunk.split(|letter: char| !letter.is_alphanumeric()).filter(|part| !part.is_empty()) {
                let word = word(part, names);
                if word != NUMBER || normal.last() != Some(&NUMBER) {
                    normal.push(word);
                }
            }
        }
        let combined =
            |words: &[u64]| words.iter().fold(FNV.0, |hash, word| (hash ^ word).wrapping_mul(FNV.1).rotate_left(23));
        let size = SHINGLE_WORDS.min(normal.len()).max(1);
        let mut shingles: Vec<u64> = normal.windows(size).map(combined).collect();
        shingles.sort_unstable();
        shingles.dedup();
        shingles.truncate(SKETCH_SHINGLES);
        Self { words, normal: combined(&normal), shingles }
    }
}

/// A word's hash, in lower case; [`NUMBER`] for what holds a digit, and beside digits for what may be a hash's letters.
fn word(part: &str, beside_digits: bool) -> u64 {
    let named = |byte: u8| byte.is_ascii_digit() || (beside_digits && byte.is_ascii_hexdigit());
    if part.bytes().any(|byte| byte.is_ascii_digit()) || (beside_digits && part.bytes().all(named)) {
        return NUMBER;
    }
    match part.is_ascii() {
        true => part.bytes().map(|byte| byte.to_ascii_lowercase()).fold(FNV.0, mixed),
        false => part.to_lowercase().bytes().fold(FNV.0, mixed),
    }
}

fn mixed(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(FNV.1)
}

/// What a text says, whatever its numbers, ids, times, case and space: equal for texts that differ in these alone.
pub(in crate::orchestrator) fn normal(text: &str) -> u64 {
    Likeness::of(text).normal
}

/// Whether of the shingles that either has, both share [`ALIKE_PERCENT`] (the measure of Jaccard), judged by the smallest
/// [`SKETCH_SHINGLES`] of them, which are as good as drawn by lot. Texts that are not alike show it early.
fn alike(one: &[u64], two: &[u64]) -> bool {
    let (mut left, mut right, mut seen, mut alone) = (0, 0, 0, 0);
    let alone_max = SKETCH_SHINGLES * (100 - ALIKE_PERCENT) / 100;
    while left < one.len() && right < two.len() && seen < SKETCH_SHINGLES && alone <= alone_max {
        let order = one[left].cmp(&two[right]);
        left += usize::from(order.is_le());
        right += usize::from(order.is_ge());
        alone += usize::from(order.is_ne());
        seen += 1;
    }
    let rest = (one.len() - left + two.len() - right).min(SKETCH_SHINGLES - seen);
    (alone + rest) * 100 <= (seen + rest) * (100 - ALIKE_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(one: &str, two: &str) -> bool {
        let (one, two) = (Likeness::of(one), Likeness::of(two));
        one.normal == two.normal || alike(&one.shingles, &two.shingles)
    }

    #[test]
    fn numbers_ids_times_hashes_case_and_space_make_no_difference() {
        for (one, two) in [
            ("attempt 3 of 10", "Attempt  4 of 10"),
            ("failed at 2026-11-23T01:00:55Z in 0.03s", "failed at 2026-11-24T11:59:01Z in 12.5s"),
            ("see f47ac10b-58cc-4372-a567-0e02b2c3d479", "see feedbeef-58cc-4372-abcd-0e02b2c3d470"),
            ("object at 0x7f3a21c0 is odd", "object at 0x7fffbeef is odd"),
            ("Which database?", "which   DATABASE"),
        ] {
            assert!(near(one, two), "{one:?} and {two:?}");
        }
    }

    #[test]
    fn other_words_make_a_difference_in_short_texts_and_one_does_not_in_long_ones() {
        assert!(!near("Which database?", "Which broker?"));
        assert!(!near("write the tests", "write the code"));
        assert!(!near("", "a"));
        let long: Vec<String> = (0..120_u8)
            .map(|number| format!("w{}", (b'a' + number % 26) as char).repeat(1 + usize::from(number) / 26))
            .collect();
        let mut other = long.clone();
        other[60] = "different".into();
        assert!(near(&long.join(" "), &other.join(" ")), "one word of 120");
        other[20] = "quite".into();
        other[90] = "different".into();
        other[100] = "indeed".into();
        assert!(!near(&long.join(" "), &other.join(" ")), "four words of 120");
    }
}
