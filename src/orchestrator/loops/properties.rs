//! The detectors as properties: no circle escapes, and honest work is let through.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::progress::{Effort, idle};
use super::tests::{question, refused, request};
use super::*;
use crate::wire::{ContentHash, Role};

const WIDE: LoopBounds = LoopBounds { exchanges_max: 100_000, hops_max: 100_000 };
/// What a letter of a pattern says.
const SAYINGS: [&str; 8] = [
    "write the parser",
    "test the parser",
    "review it",
    "explain it",
    "look it up",
    "plan it",
    "say it again",
    "mend it",
];
/// Other work, before a circle or beside it: each task is asked for once.
const OTHERS_FROM: usize = 1_000;

/// A circle, how often it was gone round, and where its messages stand.
#[derive(Clone, Debug)]
struct Circle {
    messages: Vec<Message>,
    /// Where the third copy ends, counted from 1.
    third: usize,
}

/// Words that differ from copy to copy in nothing that matters.
fn varied(words: &str, copy: usize, vary: bool) -> String {
    match vary {
        false => words.to_owned(),
        true => {
            format!("{}{}{}  at 12:0{copy}:33, id {copy:08x}", words.to_uppercase(), " ".repeat(copy + 1), copy * 17)
        }
    }
}

fn circles() -> impl Strategy<Value = Circle> {
    let letters = prop::collection::vec(0..SAYINGS.len(), 1..=PERIOD_MESSAGES_MAX);
    (letters, 0..80_usize, any::<bool>(), any::<bool>()).prop_map(|(letters, before, vary, one_task)| {
        let other = |number: usize| request(OTHERS_FROM + number, "another part of the work");
        let mut messages: Vec<Message> = (0..before).map(other).collect();
        let mut third = 0;
        for copy in 0..5 {
            for letter in &letters {
                let task = if one_task { 1 } else { 1 + letter };
                messages.push(request(task, &varied(SAYINGS[*letter], copy, vary)));
                third = if copy < 3 { messages.len() } else { third };
            }
        }
        Circle { messages, third }
    })
}

/// Honest work: two hundred different tasks in nearly the same words, each reworked up to three times with new evidence,
/// and now and then a question that several tasks ask in the same words. In any order.
fn honest() -> impl Strategy<Value = Vec<Message>> {
    let task = |number: usize| {
        (0..4_u8, any::<bool>(), 0..SAYINGS.len()).prop_map(move |(rework, asks, saying)| {
            let attempt = |attempt: u8| {
                let mut message = request(number, &format!("{} {number}", SAYINGS[saying]));
                message.metadata.input = Some(ContentHash::of(format!("{number} {attempt}").as_bytes()));
                message
            };
            let asked =
                asks.then(|| question(number, Role::Coder, Role::Researcher, "Which version of Python is it for?"));
            (0..=rework).map(attempt).chain(asked).collect::<Vec<_>>()
        })
    };
    let tasks: Vec<_> = (1..=200).map(task).collect();
    tasks.prop_map(|tasks| tasks.concat()).prop_shuffle()
}

/// Efforts that come to one of a few versions and one of a few outcomes.
fn efforts() -> impl Strategy<Value = Vec<Effort>> {
    let one = (0..4_u8, 0..3_u8).prop_map(|(made, came)| Effort {
        attempt: 0,
        made: vec![format!("t1 made.py {made}")],
        came: vec![format!("failed {came}")],
        said: String::new(),
    });
    prop::collection::vec(one, 0..12)
}

proptest! {
    #![proptest_config(Config { cases: 500, failure_persistence: None, ..Config::default() })]

    #[test]
    fn no_circle_is_gone_round_more_than_two_times_again(circle in circles()) {
        let found = refused(WIDE, &circle.messages);
        let Some((at, LoopFound::RepeatedPattern { pattern, .. })) = found else {
            return Err(TestCaseError::fail(format!("escaped: {found:?}")));
        };
        prop_assert!(at <= circle.third, "refused at {at}, after {}", circle.third);
        prop_assert!(pattern.contains("orchestrator to coder"), "{pattern}");
    }

    #[test]
    fn no_ring_of_questions_goes_round_more_than_two_times_again(
        roles in prop::collection::vec(prop::sample::select(Role::ALL.to_vec()), 1..=PERIOD_MESSAGES_MAX),
        vary in any::<bool>(),
        between in 0..30_usize,
    ) {
        let mut messages = Vec::new();
        let mut third = 0;
        for turn in 0..5 * roles.len() {
            let (from, to) = (roles[turn % roles.len()], roles[(turn + 1) % roles.len()]);
            let copy = turn / roles.len();
            messages.push(question(turn + 1, from, to, &varied("What do you want?", copy, vary)));
            third = if copy < 3 { messages.len() } else { third };
            messages.extend((0..between).map(|other| request(OTHERS_FROM + 30 * turn + other, "answer it")));
        }
        let found = refused(WIDE, &messages);
        prop_assert!(found.as_ref().is_some_and(|(at, _)| *at <= third), "{found:?}, after {third}");
    }

    #[test]
    fn efforts_are_idle_when_nothing_in_them_is_new(efforts in efforts()) {
        let new = |index: usize| {
            let before: BTreeSet<_> = efforts[..index].iter().map(|effort| &effort.made).collect();
            let outcomes: BTreeSet<_> = efforts[..index].iter().map(|effort| &effort.came).collect();
            !before.contains(&efforts[index].made) || !outcomes.contains(&efforts[index].came)
        };
        let expected = (0..efforts.len()).rev().take_while(|index| !new(*index)).count();
        prop_assert_eq!(idle(&efforts).len(), expected);
    }
}

proptest! {
    #![proptest_config(Config { cases: 60, failure_persistence: None, ..Config::default() })]

    #[test]
    fn honest_work_is_never_refused(messages in honest()) {
        let found = refused(WIDE, &messages);
        prop_assert!(found.is_none(), "{} messages: {found:?}", messages.len());
    }
}
