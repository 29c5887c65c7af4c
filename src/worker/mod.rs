//! Floor 3: the one loop that serves every role, the orchestrator too.
//!
//! A slot holds at most one message: pull, keep alive, handle, acknowledge. What a handler returns says what becomes of
//! the message; a handler cannot fail, because everything that can go wrong is a reply. On the stop signal slots stop
//! pulling at once, finish what they have within the grace period, and hand the rest back to the queue.

mod delivery;
mod door;
mod heartbeat;
mod slot;
mod task;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bus::{Bus, Queue};

pub use delivery::Delivery;
pub use door::{DoorWait, ask_door, error_answer, is_json, reply_answer, request_key, wait_for_reply};
pub use task::{EXECUTION, TaskHandler, Work};

/// How long handing back and the last acknowledgements may take.
const LAST_WORDS_S_MAX: u64 = 3;

/// What becomes of a message after it was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It is dealt with, and what came of it is stored.
    Ack,
    /// Another worker should have it, after this pause.
    HandBack(Duration),
    /// It belongs to another holder now; nothing is said about it.
    Forget,
}

/// What handles a role's messages.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Deals with one message. `stop` is cancelled when the process should end; the handler may finish within the grace
    /// period, after which it is dropped and the message handed back.
    async fn handle(&self, delivery: &Delivery, stop: &CancellationToken) -> Done;
}

/// How a queue is served by one process.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The queue.
    pub queue: Queue,
    /// Messages held at the same time.
    pub slots: usize,
    /// How long work in hand may go on after the stop signal.
    pub grace: Duration,
}

/// Serves `config.queue` until `stop` is cancelled and the work in hand is finished or handed back.
pub async fn serve(bus: &Bus, config: &WorkerConfig, handler: Arc<dyn Handler>, stop: &CancellationToken) {
    let slots = TaskTracker::new();
    let grace_over = CancellationToken::new();
    let pulls = watch::Sender::new(0);
    for _ in 0..config.slots {
        let slot = slot::Slot {
            bus: bus.clone(),
            queue: config.queue,
            handler: handler.clone(),
            stop: stop.clone(),
            grace_over: grace_over.clone(),
            pulls: pulls.clone(),
        };
        slots.spawn(slot.serve());
    }
    slots.close();
    stop.cancelled().await;
    if tokio::time::timeout(config.grace, slots.wait()).await.is_err() {
        tracing::info!("work in hand is given back to the queue after {} s", config.grace.as_secs());
        grace_over.cancel();
    }
    // Without a connection neither of these would end; what could not be said is found out by the server itself.
    let last_words = async {
        slots.wait().await;
        bus.client.flush().await
    };
    match tokio::time::timeout(Duration::from_secs(LAST_WORDS_S_MAX), last_words).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("the last acknowledgements may not have left: {error}"),
        Err(_) => tracing::warn!("the last acknowledgements have not left within {LAST_WORDS_S_MAX} s"),
    }
}
