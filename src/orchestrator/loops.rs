//! Runs that go in circles: a limit on messages, and patterns that repeat.
//!
//! Pure: messages in, verdict out, the same after a takeover. Looked at before a message is sent, so that a loop costs no
//! model call.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use crate::wire::{Failure, FailureKind, Message};

/// Recent messages in which a pattern is looked for.
const WINDOW: usize = 64;
/// Longest pattern.
const PERIOD_MAX: usize = 8;
/// Characters of one message that an error shows.
const SHOWN_CHARS: usize = 60;

/// The detector of one run.
#[derive(Clone, Copy, Debug)]
pub struct LoopDetector {
    messages_max: usize,
    /// Messages that each one looked at stands for.
    each: usize,
}

/// A run that must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoopFound {
    /// Too many messages.
    #[error(
        "Max iterations: the run has {count} messages, its limit exchanges_max is {max}; raise it \
         (OARLOCK_EXCHANGES_MAX, or exchanges_max in oarlock.toml), or make the goal smaller"
    )]
    MaxIterations {
        /// Messages, the one that was refused included.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// The same messages again and again.
    #[error("Repeated pattern: the last messages repeat with period {period}: {pattern}")]
    RepeatedPattern {
        /// Messages in the pattern.
        period: usize,
        /// The pattern, one message after the other.
        pattern: String,
    },
}

impl LoopDetector {
    /// A detector that allows `messages_max` messages.
    pub fn new(messages_max: usize) -> Self {
        Self { messages_max, each: 1 }
    }

    /// A detector that allows `messages_max` messages and looks at the requests alone: each stands for its reply as well.
    pub fn of_requests(messages_max: usize) -> Self {
        Self { messages_max, each: 2 }
    }

    /// Looks at all messages of a run, the newest, not yet sent, last.
    ///
    /// # Errors
    /// [`LoopFound`] when the newest must not be sent.
    pub fn check(&self, messages: &[Message]) -> Result<(), LoopFound> {
        let count = messages.len() * self.each;
        if count > self.messages_max {
            return Err(LoopFound::MaxIterations { count, max: self.messages_max });
        }
        let window = &messages[messages.len().saturating_sub(WINDOW)..];
        let prints: Vec<u64> = window.iter().map(fingerprint).collect();
        match (1..=PERIOD_MAX).find(|period| repeats(&prints, *period)) {
            None => Ok(()),
            Some(period) => {
                let pattern: Vec<String> = window[window.len() - period..].iter().map(shown).collect();
                Err(LoopFound::RepeatedPattern { period, pattern: pattern.join(" → ") })
            }
        }
    }
}

impl From<LoopFound> for Failure {
    fn from(found: LoopFound) -> Self {
        let kind = match found {
            LoopFound::MaxIterations { .. } => FailureKind::MaxIterations,
            LoopFound::RepeatedPattern { .. } => FailureKind::RepeatedPattern,
        };
        Failure::never(kind, found.to_string())
    }
}

/// True when the newest messages are the same pattern again: A-B-A-B; of a single message three are needed, because two
/// equal ones can be honest (a question asked of two workers).
fn repeats(prints: &[u64], period: usize) -> bool {
    let copies = if period == 1 { 3 } else { 2 };
    let Some(start) = prints.len().checked_sub(period * copies) else {
        return false;
    };
    let tail = &prints[start..];
    tail.iter().zip(&tail[period..]).all(|(one, next)| one == next)
}

/// Equal for messages that say the same to the same: who, to whom, what kind, which words, which input. Deadlines and
/// attempts are no part of it.
fn fingerprint(message: &Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    let words = message.content.split_whitespace().collect::<Vec<_>>().join(" ");
    (message.from, message.to, message.kind, words, &message.metadata.input).hash(&mut hasher);
    hasher.finish()
}

fn shown(message: &Message) -> String {
    let words: String = message.content.chars().take(SHOWN_CHARS).collect();
    format!("{} to {}: {words:?}", message.from, message.to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{MessageType, Metadata, Party, Role, RunId, TaskId};

    fn message(to: Role, content: &str) -> Message {
        let metadata = Metadata {
            run: RunId::from_key("t", "loops"),
            task: TaskId::planned(1),
            attempt: 1,
            input: None,
            bytes: 0,
            reference: None,
        };
        Message::new(Party::Role(Role::Orchestrator), Party::Role(to), MessageType::Request, content.into(), metadata)
    }

    fn of(letters: &str) -> Vec<Message> {
        letters.chars().map(|letter| message(Role::Coder, &letter.to_string())).collect()
    }

    #[test]
    fn fifteen_messages_break_a_limit_of_ten() {
        let messages: Vec<_> = (0..15).map(|number| message(Role::Coder, &format!("message {number}"))).collect();
        let found = LoopDetector::new(10).check(&messages).unwrap_err();
        assert!(found.to_string().contains("Max iterations"), "{found}");
        assert!(LoopDetector::new(15).check(&messages).is_ok());
    }

    #[test]
    fn a_b_a_b_is_shown_as_a_pattern() {
        let found = LoopDetector::new(100).check(&of("xyABAB")).unwrap_err();
        let text = found.to_string();
        assert!(text.contains("period 2") && text.contains("\"A\" → ") && text.contains("\"B\""), "{text}");
    }

    #[test]
    fn every_period_is_seen_and_honest_runs_are_not() {
        let detector = LoopDetector::new(1_000);
        for pattern in ["A", "AB", "ABC", "ABCD", "ABCDE", "ABCDEF", "ABCDEFG", "ABCDEFGH"] {
            assert!(detector.check(&of(&pattern.repeat(3))).is_err(), "{pattern}");
        }
        for honest in ["", "A", "AA", "ABA", "ABCAB", "ABBC", "ABACAD"] {
            assert!(detector.check(&of(honest)).is_ok(), "{honest}");
        }
        let long: Vec<_> = (0..400).map(|number| message(Role::Coder, &format!("task {number}"))).collect();
        assert!(detector.check(&long).is_ok());
    }

    #[test]
    fn other_input_is_another_message() {
        let mut messages = of("ABAB");
        messages[3].metadata.input = Some(crate::wire::ContentHash::of(b"new evidence"));
        assert!(LoopDetector::new(100).check(&messages).is_ok());
    }
}
