//! Room for answers in the task that asked: whoever waited for one gets it, whatever else the task shows.

use super::questions::Told;
use crate::wire::{Content, ContextItem, json_bytes, limits};

/// Bytes of one question and its answer, in the task that asked.
const ANSWER_BYTES_MAX: usize = 32 * 1024;
/// Bytes that answers have room for whatever else a task shows; they are worth more than an old failure's output.
const ANSWERS_BYTES_MIN: usize = 64 * 1024;

/// What of `room` is set aside for answers.
pub(super) fn kept(told: &[Told], room: usize) -> usize {
    told.iter().map(|told| json_bytes(&told.text)).sum::<usize>().min(ANSWERS_BYTES_MIN).min(room)
}

/// Questions and their answers, the oldest first; the newest has room first.
pub(super) fn shown(told: Vec<Told>, mut room: usize) -> Vec<ContextItem> {
    let mut items: Vec<_> = told.into_iter().rev().map(|told| answer(told, &mut room)).collect();
    items.reverse();
    items
}

/// A question and its answer, as a task shows them.
fn answer(told: Told, room: &mut usize) -> ContextItem {
    let Told { question, role, attempt, text } = told;
    let text = limits::cut(&text, (*room).min(ANSWER_BYTES_MAX));
    *room = room.saturating_sub(json_bytes(&text));
    ContextItem { task: question, role, attempt, content: Content::inline(text) }
}
