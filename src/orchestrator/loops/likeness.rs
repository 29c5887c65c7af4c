//! When two messages are the same, and when they are nearly the same.
//!
//! A model that goes in circles seldom repeats itself to the letter: a number is counted up, a time or an id is another
//! one, a word is changed. So a message is kept as a print, made once: its words as they are, its words without what
//! counts, times and names things, and its shingles. Cheap and deterministic, for every holder of a run decides by it.

use std::sync::OnceLock;

use crate::wire::{ContentHash, Message, MessageType, Party, TaskId, limits};

/// Words in a row that make one shingle.
const SHINGLE_WORDS: usize = 3;
/// Bins of a sketch. Each shingle falls into one, and each bin keeps the smallest: as good as so many drawn by lot.
const SKETCH_BINS: usize = 128;
/// Bytes of a message in which likeness is looked for, from its beginning: what one look costs is bounded by it.
const LIKENESS_BYTES_MAX: usize = 4 * 1024;
/// Shared shingles of 100 in either that make two texts nearly the same: one word in some sixty.
const ALIKE_PERCENT: u32 = 90;
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
    /// The smallest shingle of each bin, 0 where there is none.
    sketch: Box<[u32; SKETCH_BINS]>,
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
        let whole = self.content.len().max(other.content.len()) <= LIKENESS_BYTES_MAX;
        let alike = || whole && self.likeness().words == other.likeness().words;
        self.comparable(other) && (self.content == other.content || alike())
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
        one.normal == two.normal || alike(&one.sketch, &two.sketch)
    }

    fn comparable(&self, other: &Self) -> bool {
        (self.from, self.to, self.kind) == (other.from, other.to, other.kind) && self.input == other.input
    }

    fn likeness(&self) -> &Likeness {
        let end = self.content.floor_char_boundary(LIKENESS_BYTES_MAX);
        self.likeness.get_or_init(|| Likeness::of(&self.content[..end]))
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
        let mut sketch = Box::new([0; SKETCH_BINS]);
        for shingle in normal.windows(size).map(combined) {
            let (bin, lot) = lot(shingle);
            let kept: &mut u32 = &mut sketch[bin];
            *kept = if *kept == 0 { lot } else { lot.min(*kept) };
        }
        Self { words, normal: combined(&normal), sketch }
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

/// The bin of a shingle, and what it is compared by there, never 0.
fn lot(shingle: u64) -> (usize, u32) {
    let mut hash = shingle;
    // The last step of MurmurHash3: every bit of the words has a part in every bit.
    for multiplier in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(multiplier);
    }
    hash ^= hash >> 33;
    let [.., bin] = hash.to_be_bytes();
    (usize::from(bin) % SKETCH_BINS, u32::try_from(hash >> 32).unwrap_or(u32::MAX) | 1)
}

/// Whether of the shingles that either has, both share [`ALIKE_PERCENT`] (the measure of Jaccard), judged by those that are
/// kept. Without a branch, so that it takes as long for all texts, and not long.
fn alike(one: &[u32; SKETCH_BINS], two: &[u32; SKETCH_BINS]) -> bool {
    let (mut both, mut either) = (0, 0);
    for (left, right) in one.iter().zip(two) {
        both += u32::from(left == right && *left != 0);
        either += u32::from(left | right != 0);
    }
    both * 100 >= either * ALIKE_PERCENT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(one: &str, two: &str) -> bool {
        let (one, two) = (Likeness::of(one), Likeness::of(two));
        one.normal == two.normal || alike(&one.sketch, &two.sketch)
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

    /// The measure that is drawn by lot stays near the true one, however long the texts are.
    #[test]
    fn the_sketch_tells_alike_from_not_alike_in_texts_of_all_lengths() {
        let text = |from: usize, to: usize| {
            let letters = |number: usize| number.to_string().bytes().map(|digit| char::from(digit + 49)).collect();
            (from..to).map(letters).collect::<Vec<String>>().join(" ")
        };
        for size in [100, 200, 400, 800, 1_200] {
            let part = |percent: usize| size * percent / 100;
            assert!(near(&text(0, size), &text(part(1), size)), "99 of 100 of {size} words");
            assert!(!near(&text(0, size), &text(part(20), size + part(20))), "80 of 120 of {size} words");
            assert!(!near(&text(0, size), &text(size, 2 * size)), "nothing of {size} words");
        }
    }

    #[test]
    fn of_a_long_message_the_beginning_is_looked_at_and_the_same_is_the_same_to_its_end() {
        let print = |text: &str| Print::of(&super::super::tests::request(1, text));
        let long = "word ".repeat(LIKENESS_BYTES_MAX / 5 + 1);
        let (one, two) = (print(&format!("{long} one")), print(&format!("{long} two")));
        assert!(one.alike(&two) && !one.same(&two) && one.same(&one.clone()));
    }
}
