//! What a task's model writes, told to people while it writes, and the pauses that its provider asks for, told to the fleet.
//!
//! Words go out in batches, as messages that nobody keeps and nobody waits for: what a busy connection or a slow server
//! does not take is lost, and the work never waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::bus::{Bus, PAUSE_S_MAX, Queue};
use crate::model::{Progress, ProgressSink};
use crate::wire::{Event, EventKind, Task, TokenEvent, WIRE_VERSION, limits};

/// How often the words of one task go out.
const BATCH_MS: u64 = 100;
/// Pieces of one task that wait to go out.
const PIECES_MAX: usize = 256;
/// How long one batch may wait for the connection.
const SEND_MS_MAX: u64 = 50;
/// A shorter pause than this is not worth stopping a fleet.
const PAUSE_MS_MIN: u64 = 1_000;

/// Words, and how many bytes of the answer came before them.
struct Piece {
    offset: u64,
    text: String,
}

/// The progress of a task's model, to be heard on the bus. Ends with the last copy of the sink.
pub(super) fn sink(bus: &Bus, task: &Task) -> ProgressSink {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    tokio::spawn(publish(bus.clone(), task.clone(), pieces));
    let written = AtomicU64::new(0);
    let (bus, task) = (bus.clone(), Arc::new(task.clone()));
    ProgressSink::new(move |progress| match progress {
        Progress::Begun => written.store(0, Ordering::Relaxed),
        Progress::Text(text) => offer(&sender, &written, text),
        Progress::Limited(wait) if wait >= Duration::from_millis(PAUSE_MS_MIN) => {
            tokio::spawn(pause(bus.clone(), task.clone(), wait));
        }
        Progress::Limited(_) => {}
    })
}

/// Puts words on their way, in pieces that fit an event. A full channel drops them: the offset of the next ones tells.
fn offer(sender: &mpsc::Sender<Piece>, written: &AtomicU64, text: &str) {
    let mut offset = written.fetch_add(text.len() as u64, Ordering::Relaxed);
    let mut rest = text;
    while !rest.is_empty() {
        let (text, after) = rest.split_at(rest.floor_char_boundary(limits::TOKEN_BYTES_MAX));
        let _ = sender.try_send(Piece { offset, text: text.to_owned() });
        offset += text.len() as u64;
        rest = after;
    }
}

async fn publish(bus: Bus, task: Task, mut pieces: mpsc::Receiver<Piece>) {
    let mut next = pieces.recv().await;
    while let Some(first) = next.take() {
        let mut batch = TokenEvent {
            v: WIRE_VERSION,
            run: task.run.clone(),
            task: task.id.clone(),
            role: task.role,
            attempt: task.attempt,
            offset: first.offset,
            text: first.text,
        };
        let until = Instant::now() + Duration::from_millis(BATCH_MS);
        let ended = loop {
            match tokio::time::timeout_at(until, pieces.recv()).await {
                Ok(Some(piece)) => {
                    let follows = piece.offset == batch.offset + batch.text.len() as u64;
                    if !follows || batch.text.len() + piece.text.len() > limits::TOKEN_BYTES_MAX {
                        next = Some(piece);
                        break false;
                    }
                    batch.text += &piece.text;
                }
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        send(&bus, &batch).await;
        if ended {
            return;
        }
        if next.is_none() {
            next = pieces.recv().await;
        }
    }
}

/// Sends one batch, or drops it when the connection does not take it at once.
async fn send(bus: &Bus, batch: &TokenEvent) {
    if bus.client.connection_state() != State::Connected {
        return;
    }
    let payload = serde_json::to_vec(batch).unwrap_or_default();
    let sent = bus.client.publish(bus.root.tokens(&batch.run), payload.into());
    if !matches!(timeout(Duration::from_millis(SEND_MS_MAX), sent).await, Ok(Ok(()))) {
        tracing::debug!(run = %batch.run, task = %batch.task, "some of a model's words were not sent");
    }
}

/// Stops the role's queue, so that no worker anywhere runs into the same limit meanwhile.
async fn pause(bus: Bus, task: Arc<Task>, wait: Duration) {
    let role = task.role;
    match bus.pause(Queue::Role(role), wait).await {
        Ok(true) => {
            let wait_s = wait.as_secs_f32().min(PAUSE_S_MAX as f32);
            tracing::warn!(%role, "the model is rate limited; the queue of {role} pauses for {wait_s} s");
            let text = format!("{role} pauses for {wait_s} s: its model is rate limited");
            bus.tell(&Event::of_task(&task.run, &task.id, role, task.attempt, EventKind::Paused, &text)).await;
        }
        Ok(false) => {}
        Err(error) => tracing::warn!(%role, "the queue is not paused: {:#}", anyhow::Error::from(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_nobody_takes_are_dropped_and_counted() {
        let (sender, mut pieces) = mpsc::channel(1);
        let written = AtomicU64::new(0);
        offer(&sender, &written, "kept ");
        offer(&sender, &written, "lost ");
        let mut taken = || pieces.try_recv().map(|piece| (piece.offset, piece.text)).ok();
        assert_eq!((taken(), taken()), (Some((0, "kept ".to_owned())), None));
        offer(&sender, &written, "heard again");
        assert_eq!(taken(), Some((10, "heard again".to_owned())));

        let (sender, mut pieces) = mpsc::channel(4);
        let long = "é".repeat(limits::TOKEN_BYTES_MAX);
        offer(&sender, &AtomicU64::new(0), &long);
        drop(sender);
        let all: Vec<Piece> = std::iter::from_fn(|| pieces.try_recv().ok()).collect();
        assert!(all.len() >= 2 && all.iter().all(|piece| piece.text.len() <= limits::TOKEN_BYTES_MAX));
        assert_eq!(all.iter().map(|piece| piece.text.as_str()).collect::<String>(), long);
    }
}
