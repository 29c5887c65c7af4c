//! Keeps a held message ours, on its own task, so that no slow handler can forget it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::connection::State;
use async_nats::jetstream::AckKind;
use async_nats::jetstream::message::Acker;
use tokio::task::JoinHandle;

/// Beats in one `ack_wait`.
const BEATS: u32 = 3;
/// Longest pause between two beats, so that a message in hand stays ours when an operator makes a long `ack_wait` shorter.
const BEAT_MS_MAX: u64 = 3_000;

/// A running heartbeat; it ends when this is dropped.
pub(super) struct Heartbeat {
    last: Arc<Mutex<Instant>>,
    ack_wait: Duration,
    beating: JoinHandle<()>,
}

impl Heartbeat {
    /// Tells the server every third of `ack_wait`, and at least every three seconds, that the message is being worked on.
    pub(super) fn start(client: Client, acker: Arc<Acker>, ack_wait: Duration) -> Self {
        let last = Arc::new(Mutex::new(Instant::now()));
        let beating = tokio::spawn(beat(client, acker, ack_wait, last.clone()));
        Self { last, ack_wait, beating }
    }

    /// False when the server may have given the message to somebody else: after a pause longer than `ack_wait` (a stopped
    /// process, a lost connection) a word about the message would harm its next holder.
    pub(super) fn is_ours(&self) -> bool {
        read(&self.last).elapsed() < self.ack_wait
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

async fn beat(client: Client, acker: Arc<Acker>, ack_wait: Duration, last: Arc<Mutex<Instant>>) {
    let pause = (ack_wait / BEATS).min(Duration::from_millis(BEAT_MS_MAX));
    loop {
        tokio::time::sleep(pause).await;
        if read(&last).elapsed() >= ack_wait {
            return;
        }
        // A client that lost its server takes the word and keeps it to itself; then the message is not known to be ours.
        let connected = client.connection_state() == State::Connected;
        match acker.ack_with(AckKind::Progress).await {
            Ok(()) if !connected => tracing::debug!("a heartbeat waits for the connection"),
            Ok(()) => *last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now(),
            Err(error) => tracing::debug!("a heartbeat was not sent: {error}"),
        }
    }
}

fn read(last: &Mutex<Instant>) -> Instant {
    *last.lock().unwrap_or_else(PoisonError::into_inner)
}
