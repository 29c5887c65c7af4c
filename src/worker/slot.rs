//! One slot: at most one message at a time.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::Stream;
use async_nats::jetstream::message::Acker;
use async_nats::jetstream::{self, AckKind};
use futures::StreamExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::heartbeat::Heartbeat;
use super::{Delivery, Done, Handler};
use crate::bus::Bus;
use crate::wire::Role;

/// How long one pull request stays open.
const PULL_S: u64 = 60;
/// Silence after which an open pull is taken for dead.
const PULL_IDLE_S: u64 = 20;
/// First pause after a failed pull; it doubles up to the next.
const RETRY_DELAY_MS: u64 = 100;
/// Longest pause after failed pulls.
const RETRY_DELAY_MS_MAX: u64 = 5_000;
/// How often a worker looks for a consumer that nobody has declared yet.
const CONSUMER_DELAY_MS: u64 = 250;
/// Pause before what an ending process hands back is delivered again.
const LEAVING_MS: u64 = 50;
/// `ack_wait` of a consumer that does not tell it.
const ACK_WAIT_S: u64 = 10;

pub(super) struct Slot {
    pub(super) bus: Bus,
    pub(super) role: Role,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) stop: CancellationToken,
    pub(super) grace_over: CancellationToken,
}

impl Slot {
    pub(super) async fn serve(self) {
        let mut delay = RETRY_DELAY_MS;
        while !self.stop.is_cancelled() {
            let Some(consumer) = self.wait_for_consumer().await else {
                return;
            };
            let ack_wait = Some(consumer.cached_info().config.ack_wait).filter(|wait| !wait.is_zero());
            let ack_wait = ack_wait.unwrap_or(Duration::from_secs(ACK_WAIT_S));
            match self.pull(&consumer).await {
                Ok(messages) => {
                    if self.work_through(messages, ack_wait).await {
                        delay = RETRY_DELAY_MS;
                    }
                }
                Err(error) => tracing::warn!(role = %self.role, "no pull: {error}"),
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(delay)) => delay = (2 * delay).min(RETRY_DELAY_MS_MAX),
            }
        }
    }

    /// Handles messages until the pull breaks or the stop signal; true when at least one was handled.
    async fn work_through(&self, mut messages: Stream, ack_wait: Duration) -> bool {
        // The acknowledgement of one message overlaps the pull of the next.
        let mut acknowledged: Option<JoinHandle<()>> = None;
        let mut worked = false;
        loop {
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                next = messages.next() => next,
            };
            match next {
                Some(Ok(message)) => {
                    worked = true;
                    let ack = self.handle(message, ack_wait).await;
                    if let Some(before) = std::mem::replace(&mut acknowledged, ack) {
                        finish(before).await;
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(role = %self.role, "the pull broke: {error}");
                    break;
                }
                None => break,
            }
        }
        if let Some(last) = acknowledged {
            finish(last).await;
        }
        worked
    }

    /// Handles one message; the acknowledgement, if there is one to send, goes on in the task that is returned.
    async fn handle(&self, message: jetstream::Message, ack_wait: Duration) -> Option<JoinHandle<()>> {
        let subject = message.subject.clone();
        let (delivery, acker) = match Delivery::open(&self.bus.root, message) {
            Ok(opened) => opened,
            Err(message) => {
                // It has no identity, so nobody could ever find a reply to it.
                tracing::error!(%subject, "a message that is no task was removed from the queue");
                let removed = message.ack_with(AckKind::Term).await;
                removed.unwrap_or_else(|error| tracing::debug!(%subject, "not removed: {error}"));
                return None;
            }
        };
        let acker = Arc::new(acker);
        let heartbeat = Heartbeat::start(self.bus.client.clone(), acker.clone(), ack_wait);
        let done = tokio::select! {
            done = self.handler.handle(&delivery, &self.stop) => done,
            () = self.grace_over.cancelled() => Done::HandBack(Duration::ZERO),
        };
        match done {
            Done::Ack => Some(tokio::spawn(acknowledge(acker, heartbeat, subject.to_string()))),
            Done::HandBack(pause) => {
                // Other slots of a process that ends have a pull open until the server hears that they left.
                let leaving = self.stop.is_cancelled();
                let pause = if leaving { pause.max(Duration::from_millis(LEAVING_MS)) } else { pause };
                if heartbeat.is_ours() {
                    let nak = AckKind::Nak((!pause.is_zero()).then_some(pause));
                    let sent = acker.ack_with(nak).await;
                    sent.unwrap_or_else(|error| tracing::debug!(%subject, "not handed back: {error}"));
                }
                None
            }
            Done::Forget => None,
        }
    }

    async fn pull(&self, consumer: &PullConsumer) -> Result<Stream, async_nats::Error> {
        let pull = consumer.stream().max_messages_per_batch(1);
        let pull = pull.expires(Duration::from_secs(PULL_S)).heartbeat(Duration::from_secs(PULL_IDLE_S));
        Ok(pull.messages().await?)
    }

    /// The role's consumer, once an orchestrator or the operator has declared it; `None` on the stop signal.
    async fn wait_for_consumer(&self) -> Option<PullConsumer> {
        let mut told = false;
        while !self.stop.is_cancelled() {
            match self.bus.consumer(self.role).await {
                Ok(Some(consumer)) => return Some(consumer),
                Ok(None) if !told => {
                    tracing::info!(role = %self.role, "waiting for an orchestrator to declare the queue");
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(role = %self.role, "no consumer: {:#}", anyhow::Error::from(error)),
            }
            told = true;
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(CONSUMER_DELAY_MS)) => {}
            }
        }
        None
    }
}

/// Acknowledges and waits for the server's word; without it the message comes again and its result is found.
async fn acknowledge(acker: Arc<Acker>, heartbeat: Heartbeat, subject: String) {
    if let Err(error) = acker.double_ack().await {
        tracing::debug!(subject, "an acknowledgement was not confirmed: {error}");
    }
    drop(heartbeat);
}

async fn finish(ack: JoinHandle<()>) {
    ack.await.unwrap_or_else(|error| tracing::error!("an acknowledgement broke: {error}"));
}
