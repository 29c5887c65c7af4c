//! Runs that go in circles. Four things are looked for, the first three before a message is sent, so that a loop costs no
//! model call: too many messages, messages too many hops from the goal, messages that repeat ([`LoopDetector`]); and
//! attempts that bring nothing new (`progress`), before the next one is decided.
//!
//! Pure: stored facts in, verdict out, the same after a takeover. What repeats is told from what only looks alike by what it
//! is about: a plan's tasks may have nearly the same words ("write chapter 3", "write chapter 4"), so requests are compared
//! with requests for the same task alone, and only if what they give their worker is the same; questions with questions
//! between the same parties, if they are about the same task or go round in a ring, from each party to the next.

mod likeness;
pub(super) mod progress;

use std::collections::VecDeque;
use std::sync::Arc;

pub(super) use self::likeness::normal;

use self::likeness::Print;
use crate::wire::{Failure, FailureKind, Message, MessageType, Party};

/// Recent messages in which a pattern is looked for.
const WINDOW_MESSAGES: usize = 64;
/// Messages in the longest pattern.
const PERIOD_MESSAGES_MAX: usize = 8;
/// Times that a pattern of messages, the same to the letter, must be there to be one.
const COPIES_SAME: usize = 2;
/// The same for one message alone, since two can be honest, and for messages that are nearly the same.
const COPIES_ALIKE: usize = 3;

/// How many messages a run may have, and how far they may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopBounds {
    /// Messages, requests and replies.
    pub exchanges_max: usize,
    /// Hops of any one of them.
    pub hops_max: u32,
}

/// The detector of one generation of a run. It sees the messages that ask for something, requests and questions, in the
/// order in which they were stored; each stands for its reply as well, which is no cause of its own.
#[derive(Clone, Debug, Default)]
pub struct LoopDetector {
    /// Messages that were taken in.
    count: usize,
    all: Window,
    /// The questions among them: what agents ask each other has any number of requests in between.
    questions: Window,
}

/// The newest messages that were taken in, in their order.
#[derive(Clone, Debug, Default)]
struct Window(VecDeque<Arc<Print>>);

/// A run that must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoopFound {
    /// Too many messages.
    #[error(
        "Max iterations: the run has {count} messages, its limit exchanges_max is {max}; raise it \
         (OARLOCK_EXCHANGES_MAX, or exchanges_max in oarlock.toml), or make the goal smaller"
    )]
    MaxIterations {
        /// Messages, the one that was refused and its reply included.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A message at the end of too long a chain.
    #[error(
        "Max iterations: {message} is {hops} hops from the goal, the limit hops_max is {max}; raise it (OARLOCK_HOPS_MAX, or \
         hops_max in oarlock.toml), or make the goal smaller"
    )]
    MaxHops {
        /// The message that was refused.
        message: String,
        /// Its hops.
        hops: u32,
        /// The limit.
        max: u32,
    },
    /// The same messages again and again.
    #[error(
        "Repeated pattern: the last messages repeat with period {period}: {pattern}; nothing new can come of it: change the \
         goal or the task, or use another model"
    )]
    RepeatedPattern {
        /// Messages from one copy of the pattern to the next.
        period: usize,
        /// The pattern, one message after the other.
        pattern: String,
    },
}

impl LoopDetector {
    /// Takes in those of `messages`, which are all that were sent, that it has not seen. So a holder makes the print of each
    /// message once, and one that takes over sees what the holder before it saw.
    pub fn catch_up<'a>(&mut self, messages: impl Iterator<Item = &'a Message>) {
        messages.skip(self.count).for_each(|message| self.keep(Print::of(message)));
    }

    /// Looks at a message that is to be sent next, and takes it in if it may be.
    ///
    /// # Errors
    /// [`LoopFound`] when it must not be sent. It is not taken in then.
    pub fn admit(&mut self, message: &Message, bounds: LoopBounds) -> Result<(), LoopFound> {
        let LoopBounds { exchanges_max, hops_max } = bounds;
        let count = 2 * (self.count + 1);
        if count > exchanges_max {
            return Err(LoopFound::MaxIterations { count, max: exchanges_max });
        }
        let print = Print::of(message);
        let hops = message.metadata.hops;
        if hops > hops_max {
            return Err(LoopFound::MaxHops { message: print.shown().to_owned(), hops, max: hops_max });
        }
        if let Some((period, pattern)) = self.pattern(&print) {
            return Err(LoopFound::RepeatedPattern { period, pattern: pattern.join(" → ") });
        }
        self.keep(print);
        Ok(())
    }

    fn keep(&mut self, print: Print) {
        let print = Arc::new(print);
        if print.kind == MessageType::Question {
            self.questions.push(print.clone());
        }
        self.all.push(print);
        self.count += 1;
    }

    /// The pattern that `newest` completes, with its period.
    fn pattern(&self, newest: &Print) -> Option<(usize, Vec<String>)> {
        let all = self.all.and(newest);
        let questions = (newest.kind == MessageType::Question).then(|| self.questions.and(newest));
        for view in [Some(&all), questions.as_ref()].into_iter().flatten() {
            if let Some(period) = (1..=PERIOD_MESSAGES_MAX).find(|period| repeats(view, *period)) {
                let pattern = &view[view.len() - period..];
                return Some((period, pattern.iter().map(|print| print.shown().to_owned()).collect()));
            }
        }
        recurs(&questions?)
    }
}

impl Window {
    fn push(&mut self, print: Arc<Print>) {
        // One less than a window: the message that is looked at completes it.
        if self.0.len() == WINDOW_MESSAGES - 1 {
            self.0.pop_front();
        }
        self.0.push_back(print);
    }

    fn and<'a>(&'a self, newest: &'a Print) -> Vec<&'a Print> {
        self.0.iter().map(Arc::as_ref).chain([newest]).collect()
    }
}

impl From<LoopFound> for Failure {
    fn from(found: LoopFound) -> Self {
        let kind = match found {
            LoopFound::MaxIterations { .. } | LoopFound::MaxHops { .. } => FailureKind::MaxIterations,
            LoopFound::RepeatedPattern { .. } => FailureKind::RepeatedPattern,
        };
        Failure::never(kind, found.to_string())
    }
}

/// True when the newest messages are one pattern again and again: A-B-A-B.
fn repeats(view: &[&Print], period: usize) -> bool {
    let copies_same = if period == 1 { COPIES_ALIKE } else { COPIES_SAME };
    let ring = is_ring(&view[view.len().saturating_sub(period)..]);
    let about = |one: &Print, next: &Print| ring || one.task == next.task;
    let all = |copies: usize, like: fn(&Print, &Print) -> bool| {
        let Some(start) = view.len().checked_sub(period * copies) else { return false };
        let tail = &view[start..];
        // From the newest on: where nothing repeats, that is seen at the first pair.
        tail.iter().zip(&tail[period..]).rev().all(|(one, next)| about(one, next) && like(one, next))
    };
    all(copies_same, Print::same) || all(COPIES_ALIKE, Print::alike)
}

/// Questions that go round: each goes to the party that asks the next one, the last one's to the first.
fn is_ring(pattern: &[&Print]) -> bool {
    let next = |index: usize| pattern[(index + 1) % pattern.len()];
    let passed_on = |(index, print): (usize, &&Print)| {
        print.kind == MessageType::Question && print.to != Party::User && print.to == next(index).from
    };
    pattern.iter().enumerate().all(passed_on)
}

/// The newest question, when its task asked it twice before, whatever was asked in between. A request may come back so: a
/// check looks again at what has not changed while a task beside it advances; what does not advance is for `progress`.
fn recurs(view: &[&Print]) -> Option<(usize, Vec<String>)> {
    let (newest, before) = view.split_last()?;
    let again = |(_, print): &(usize, &&Print)| print.task == newest.task && print.alike(newest);
    let copies: Vec<(usize, &&Print)> = before.iter().enumerate().rev().filter(again).take(COPIES_ALIKE - 1).collect();
    let (last, _) = copies.first().filter(|_| copies.len() == COPIES_ALIKE - 1)?;
    let shown = copies.iter().rev().map(|(_, print)| print.shown()).chain([newest.shown()]);
    Some((before.len() - last, shown.map(str::to_owned).collect()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
#[path = "properties.rs"]
mod properties;
