//! The detector as a table: messages in, verdict out. Random ones are in `properties.rs`.

use super::*;
use crate::wire::{ContentHash, Metadata, Role, RunId, TaskId};

const WIDE: LoopBounds = LoopBounds { exchanges_max: 10_000, hops_max: 10_000 };

/// A request for task `number`.
pub(super) fn request(number: usize, content: &str) -> Message {
    let (from, to) = (Party::Role(Role::Orchestrator), Party::Role(Role::Coder));
    let task = TaskId::planned(number);
    let run = RunId::from_key("t", "loops");
    let metadata =
        Metadata { run, task, attempt: 1, input: None, bytes: 0, notes: 0, hops: 1, reference: None, budget: None };
    Message::new(from, to, MessageType::Request, content.into(), metadata)
}

/// A question about task `number`.
pub(super) fn question(number: usize, from: Role, to: Role, content: &str) -> Message {
    let (from, to, kind) = (Party::Role(from), Party::Role(to), MessageType::Question);
    Message { from, to, kind, ..request(number, content) }
}

/// One request a letter, a task of its own for each letter.
fn of(letters: &str) -> Vec<Message> {
    letters.bytes().map(|letter| request(usize::from(letter), &char::from(letter).to_string())).collect()
}

/// The message (from 1) that is refused, and why.
pub(super) fn refused(bounds: LoopBounds, messages: &[Message]) -> Option<(usize, LoopFound)> {
    let mut detector = LoopDetector::default();
    let verdicts = messages.iter().map(|message| detector.admit(message, bounds));
    verdicts.enumerate().find_map(|(index, verdict)| Some((index + 1, verdict.err()?)))
}

/// The message that is refused as a pattern, and the pattern's period.
fn pattern(messages: &[Message]) -> Option<(usize, usize)> {
    refused(WIDE, messages).map(|(at, found)| match found {
        LoopFound::RepeatedPattern { period, .. } => (at, period),
        other => panic!("{other}"),
    })
}

#[test]
fn the_message_over_the_limit_is_refused_and_counts_with_its_reply() {
    let messages: Vec<_> = (1..=15).map(|number| request(number, "write")).collect();
    let bounds = LoopBounds { exchanges_max: 10, ..WIDE };
    let (at, found) = refused(bounds, &messages).unwrap();
    assert_eq!((at, &found), (6, &LoopFound::MaxIterations { count: 12, max: 10 }));
    assert!(found.to_string().contains("exchanges_max is 10"), "{found}");
    assert_eq!(refused(LoopBounds { exchanges_max: 30, ..WIDE }, &messages), None);
}

#[test]
fn a_message_too_far_from_the_goal_is_refused_and_shown() {
    let mut messages: Vec<_> = (1..=6).map(|number| request(number, "write")).collect();
    (1..).zip(&mut messages).for_each(|(hops, message)| message.metadata.hops = hops);
    let (at, found) = refused(LoopBounds { hops_max: 4, ..WIDE }, &messages).unwrap();
    assert_eq!(at, 5);
    let text = found.to_string();
    assert!(text.contains("hops_max is 4") && text.contains("coder (t5 #1): \"write\" is 5 hops"), "{text}");
    assert_eq!(Failure::from(found).kind, FailureKind::MaxIterations);
}

#[test]
fn a_b_a_b_is_shown_as_a_pattern() {
    let (at, found) = refused(WIDE, &of("xyABAB")).unwrap();
    assert_eq!(at, 6);
    let text = found.to_string();
    assert!(text.contains("period 2") && text.contains("\"A\" → ") && text.contains("\"B\""), "{text}");
}

#[test]
fn every_period_is_seen_at_its_second_copy_and_honest_runs_are_not() {
    for (index, letters) in ["AB", "ABC", "ABCD", "ABCDE", "ABCDEF", "ABCDEFG", "ABCDEFGH"].iter().enumerate() {
        let period = index + 2;
        assert_eq!(pattern(&of(&letters.repeat(3))), Some((2 * period, period)), "{letters}");
    }
    assert_eq!(pattern(&of("AAA")), Some((3, 1)));
    for honest in ["", "A", "AA", "ABA", "ABCAB", "ABBC", "ABACBD"] {
        assert_eq!(pattern(&of(honest)), None, "{honest}");
    }
}

#[test]
fn a_question_that_keeps_coming_back_is_seen_between_others() {
    let ask = |words: &str| question(1, Role::Coder, Role::Researcher, words);
    let asked = ["Which broker?", "Is it 3?", "Which database?", "is it 4", "Since when?", "Is it  5?"].map(ask);
    assert_eq!(pattern(&asked), Some((6, 2)));
    let (_, found) = refused(WIDE, &asked).unwrap();
    for part in ["Is it 3?", "is it 4", "Is it  5?"] {
        assert!(found.to_string().contains(part), "{found}");
    }
}

/// A reviewer of two coders sends one back with new words each time; the other one's qa sees the same files again.
#[test]
fn a_check_that_sees_the_same_again_while_others_advance_is_none() {
    let round = |round: usize| {
        let mut messages = [1, 2, 3, 4].map(|number| request(number, "part"));
        messages[..3].iter_mut().for_each(|message| {
            message.metadata.input = Some(ContentHash::of(&round.to_be_bytes()));
        });
        messages
    };
    assert_eq!(pattern(&(0..10).flat_map(round).collect::<Vec<_>>()), None);
}

#[test]
fn other_input_is_another_message() {
    let mut messages = of("ABAB");
    messages[3].metadata.input = Some(ContentHash::of(b"new evidence"));
    assert_eq!(pattern(&messages), None);
}

#[test]
fn planned_tasks_that_differ_by_a_number_are_different_tasks() {
    let chapters: Vec<_> = (1..=200).map(|number| request(number, &format!("write chapter {number}"))).collect();
    assert_eq!(pattern(&chapters), None);
    let one: Vec<_> = (1..=200).map(|number| request(7, &format!("write chapter {number}"))).collect();
    assert_eq!(pattern(&one), Some((3, 1)), "one task, asked for in nearly the same words");
}

/// Each question makes a task for its answer, and is asked by the task of the question before.
fn asking(round: &[Role], words: impl Fn(usize) -> String) -> Vec<Message> {
    let ask = |turn: usize| {
        let (from, to) = (round[turn % round.len()], round[(turn + 1) % round.len()]);
        let answer = Message { to: Party::Role(to), ..request(turn + 2, &words(turn)) };
        [question(turn + 1, from, to, &words(turn)), answer]
    };
    (0..20).flat_map(ask).collect()
}

#[test]
fn agents_that_ask_each_other_round_and_round_are_stopped() {
    let two = [Role::Coder, Role::Reviewer];
    let three = [Role::Coder, Role::Reviewer, Role::Researcher];
    let same = |_| "What do you want?".to_owned();
    // The second question of the second round; every other message is a request for an answer.
    assert_eq!(pattern(&asking(&two, same)), Some((7, 2)));
    assert_eq!(pattern(&asking(&three, same)), Some((11, 3)));
    assert_eq!(pattern(&asking(&[Role::Coder], same)), Some((5, 1)), "itself");
    let counted = |turn| format!("What do you want, for the {turn}th time?");
    assert_eq!(pattern(&asking(&two, counted)), Some((11, 2)), "nearly the same is seen one round later");
    assert_eq!(pattern(&asking(&three, counted)), Some((17, 3)));
}

#[test]
fn honest_questions_of_several_tasks_are_none_of_it() {
    let ask = |number: usize| question(number, Role::Coder, Role::Researcher, "Which version of Python?");
    let many: Vec<_> = (1..=20).flat_map(|number| [request(number, "write a part"), ask(number)]).collect();
    assert_eq!(pattern(&many), None, "twenty tasks that want to know the same");
    let one: Vec<_> = (1..=3).map(|_| ask(1)).collect();
    assert_eq!(pattern(&one), Some((3, 1)), "one task that asks a third time");
}
