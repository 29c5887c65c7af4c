//! What it costs to look at one message: against a full window of 64, in the cases that need the most comparing.
//! `cargo bench --bench loops` prints the rows of docs/benchmarks.md, and fails above 50 µs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that meets the unexpected should stop there"
)]

use std::hint::black_box;
use std::time::Instant;

use oarlock::orchestrator::{LoopBounds, LoopDetector};
use oarlock::wire::{ContentHash, Message, MessageType, Metadata, Party, Role, RunId, TaskId};

/// Messages that the detector has seen before the one that is timed: more than its window.
const BEFORE: usize = 80;
/// Checks that are timed.
const CHECKS: usize = 2_000;
/// The same, of detectors that have compared nothing yet.
const TAKEOVERS: usize = 200;
/// Words of the longest message that can be: 16 KiB.
const LONGEST_WORDS: usize = 3_276;
/// What one check may take, at the median, in microseconds: above that a busy machine is measured.
const CHECK_US_MAX: f64 = 50.0;
/// Words of a long message.
const LONG_WORDS: usize = 200;

fn main() {
    println!("| what | min | p50 | p99 | max |\n|---|---|---|---|---|");
    let requests = |number: usize| message(MessageType::Request, number, &format!("write chapter {number}"), number);
    time("a request, 200 different tasks", requests);
    let rework = |number: usize| message(MessageType::Request, 1, "write the parser and its tests", number);
    time("a request, one task with other evidence each time", rework);
    let short = |number: usize| message(MessageType::Question, number, &words(number, 12), 0);
    time("a question of 12 words, the same two parties", short);
    let long = |number: usize| message(MessageType::Question, 1, &words(number, LONG_WORDS), 0);
    time("a question of 200 words, the same two parties and task", long);
    let nearly = |number: usize| message(MessageType::Question, 1, &nearly(number), 0);
    time("the same, six words of each its own", nearly);
    let longest = |number: usize| message(MessageType::Question, 1, &words(number, LONGEST_WORDS), 0);
    time("a question of 16 KiB, the same two parties and task", longest);
}

/// Text that has words in common with all others, and is like none of them.
fn words(number: usize, count: usize) -> String {
    let word = |index: usize| {
        let letters = if index.is_multiple_of(4) { number * 31 + index } else { index };
        let letter = |place: u32| char::from(b'a' + u8::try_from(letters / 26_usize.pow(place) % 26).unwrap());
        (0..4).map(letter).collect::<String>()
    };
    (0..count).map(word).collect::<Vec<_>>().join(" ")
}

/// A long text of which six words are its own, spread so that two of them are not quite alike.
fn nearly(number: usize) -> String {
    let all = words(0, LONG_WORDS);
    let mut all: Vec<&str> = all.split(' ').collect();
    let own = words(4 * number, 1);
    (20..LONG_WORDS).step_by(30).for_each(|place| all[place] = &own);
    all.join(" ")
}

fn message(kind: MessageType, task: usize, content: &str, input: usize) -> Message {
    let input = (input > 0).then(|| ContentHash::of(&input.to_be_bytes()));
    let (run, task, bytes) = (RunId::from_key("t", "bench"), TaskId::planned(task), content.len() as u64);
    let metadata = Metadata { run, task, attempt: 1, input, bytes, notes: 0, hops: 1, reference: None, budget: None };
    Message::new(Party::Role(Role::Coder), Party::Role(Role::Reviewer), kind, content.to_owned(), metadata)
}

fn time(what: &str, number: impl Fn(usize) -> Message) {
    let before: Vec<Message> = (1..=BEFORE).map(&number).collect();
    let next = number(BEFORE + 1);
    let check = |detector: &mut LoopDetector| {
        let bounds = LoopBounds { exchanges_max: 1_000, hops_max: 1_000 };
        let began = Instant::now();
        black_box(detector.admit(black_box(&next), bounds)).expect("an honest message");
        began.elapsed().as_secs_f64() * 1e6
    };
    let mut seen = LoopDetector::default();
    seen.catch_up(before.iter());
    // A holder has compared what is in its window when the next message comes.
    check(&mut seen.clone());
    let p50 = row(&format!("{what} (µs)"), (0..CHECKS).map(|_| check(&mut seen.clone())).collect());
    let cold = |_| {
        let mut detector = LoopDetector::default();
        detector.catch_up(before.iter());
        check(&mut detector)
    };
    row("the same, the first one of a holder that took over (µs)", (0..TAKEOVERS).map(cold).collect());
    assert!(p50 <= CHECK_US_MAX, "{what}: {p50:.1} µs at the median, more than {CHECK_US_MAX}");
}

fn row(what: &str, mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    println!("| {what} | {:.2} | {:.2} | {:.2} | {:.2} |", at(0.0), at(0.5), at(0.99), at(1.0));
    at(0.5)
}
