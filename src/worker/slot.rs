//! One slot: at most one message at a time.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::Stream;
use async_nats::jetstream::message::Acker;
use async_nats::jetstream::{self, AckKind};
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::heartbeat::Heartbeat;
use super::{Delivery, Done, Handler};
use crate::bus::clock::since;
use crate::bus::failpoint::{Side, hit};
use crate::bus::{Bus, Point, Queue, Use};

/// How long one pull request stays open. The server does not know that a host is cut off, and gives what it redelivers to
/// that host's open pulls as well, one after the other: so this bounds how late somebody else gets it.
const PULL_S: u64 = 6;
/// Silence after which an open pull is taken for dead; at most half of it.
const PULL_IDLE_S: u64 = 3;
/// First pause after a failed pull; it doubles up to the next.
const RETRY_DELAY_MS: u64 = 100;
/// Longest pause after failed pulls.
const RETRY_DELAY_MS_MAX: u64 = 5_000;
/// How often a worker looks for a consumer that nobody has declared yet.
const CONSUMER_DELAY_MS: u64 = 250;
/// How long handing back waits for the other slots of an ending process to close their pulls.
const LEAVING_MS: u64 = 100;
/// How long the server may take to hear that a message is handed back.
const HANDING_BACK_MS_MAX: u64 = 1_000;
/// `ack_wait` of a consumer that does not tell it.
const ACK_WAIT_S: u64 = 10;

pub(super) struct Slot {
    pub(super) bus: Bus,
    pub(super) queue: Queue,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) stop: CancellationToken,
    pub(super) grace_over: CancellationToken,
    /// Slots of this process that have a pull open.
    pub(super) pulls: watch::Sender<usize>,
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
                Err(error) => tracing::warn!(queue = %self.queue, "no pull: {error}"),
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(delay)) => delay = (2 * delay).min(RETRY_DELAY_MS_MAX),
            }
        }
    }

    /// Handles messages until the pull breaks or the stop signal; true when at least one was handled.
    async fn work_through(&self, mut messages: Stream, ack_wait: Duration) -> bool {
        let pull = self.api("MSG.NEXT");
        // The acknowledgement of one message overlaps the pull of the next.
        let mut acknowledged: Option<JoinHandle<()>> = None;
        let mut worked = false;
        loop {
            self.pulls.send_modify(|open| *open += 1);
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled() => None,
                next = messages.next() => next,
                () = self.bus.denied(Use::Publish, &pull) => {
                    tracing::error!(queue = %self.queue, "no pull: {}", self.bus.give_up(&pull));
                    self.pulls.send_modify(|open| *open -= 1);
                    break;
                }
            };
            if self.stop.is_cancelled() {
                let last = next.or_else(|| messages.next().now_or_never().flatten());
                drop(messages);
                self.leave(last.and_then(Result::ok), ack_wait).await;
                break;
            }
            self.pulls.send_modify(|open| *open -= 1);
            match next {
                Some(Ok(message)) => {
                    worked = true;
                    let ack = self.handle(message, ack_wait).await;
                    if let Some(before) = std::mem::replace(&mut acknowledged, ack) {
                        finish(before).await;
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(queue = %self.queue, "the pull broke: {error}");
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

    /// Closes this slot's pull, and hands back what came at the very last moment, so that nobody waits for its redelivery.
    async fn leave(&self, last: Option<jetstream::Message>, ack_wait: Duration) {
        self.pulls.send_modify(|open| *open -= 1);
        let Some(message) = last else { return };
        let fresh = tokio::time::timeout(Duration::from_millis(LEAVING_MS), self.is_fresh(&message, ack_wait)).await;
        if fresh != Ok(true) {
            // It may have lain here while this process slept, and be with another holder by now.
            return;
        }
        self.closed_pulls().await;
        let sent = message.ack_with(AckKind::Nak(None)).await;
        sent.unwrap_or_else(|error| tracing::debug!("not handed back: {error}"));
    }

    /// True for a message that the server stored, and so gave to this waiting slot, a moment ago.
    async fn is_fresh(&self, message: &jetstream::Message, ack_wait: Duration) -> bool {
        let (Ok(info), Ok(now)) = (message.info(), self.bus.server_now().await) else { return false };
        let stored = i64::try_from(info.published.unix_timestamp_nanos()).unwrap_or(0);
        info.delivered == 1 && since(now, stored) < ack_wait / 2
    }

    /// Handles one message; the acknowledgement, if there is one to send, goes on in the task that is returned.
    async fn handle(&self, message: jetstream::Message, ack_wait: Duration) -> Option<JoinHandle<()>> {
        let subject = message.subject.clone();
        let reply = message.reply.clone().unwrap_or_else(|| subject.clone());
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
        let handled = AssertUnwindSafe(self.handler.handle(&delivery, &self.stop)).catch_unwind();
        let done = tokio::select! {
            done = handled => done.unwrap_or_else(|_| {
                // Nothing is said about it, so it comes again; who breaks on every delivery is told by the log.
                tracing::error!(%subject, "the handler of a message broke; the lines above say how");
                Done::Forget
            }),
            () = self.grace_over.cancelled() => Done::HandBack(Duration::ZERO),
        };
        match done {
            Done::Ack => {
                let bus = self.bus.clone();
                Some(tokio::spawn(acknowledge(bus, acker, heartbeat, reply.to_string())))
            }
            Done::HandBack(pause) => {
                if self.stop.is_cancelled() {
                    self.closed_pulls().await;
                }
                self.hand_back(&acker, &heartbeat, pause).await;
                None
            }
            Done::Forget => None,
        }
    }

    /// Hands a message back if it is ours as far as we know, and waits until the server has heard it: a word that lies in this
    /// process while it sleeps or looks for its server would take the message from its next holder.
    async fn hand_back(&self, acker: &Acker, heartbeat: &Heartbeat, pause: Duration) {
        hit(Point::Nak, Side::Before);
        if !heartbeat.is_ours() || self.bus.client.connection_state() != State::Connected {
            tracing::debug!(queue = %self.queue, "not handed back: the message may be with another holder");
            return;
        }
        let nak = acker.double_ack_with(AckKind::Nak((!pause.is_zero()).then_some(pause)));
        match tokio::time::timeout(Duration::from_millis(HANDING_BACK_MS_MAX), nak).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(queue = %self.queue, "not handed back: {error}"),
            Err(_) => tracing::debug!(queue = %self.queue, "nobody said that it was handed back"),
        }
        hit(Point::Nak, Side::After);
    }

    /// Waits until no slot of this ending process has a pull open: the server hears that before it hears of a message that is
    /// handed back, and so gives it to another process.
    async fn closed_pulls(&self) {
        let mut open = self.pulls.subscribe();
        let closed = tokio::time::timeout(Duration::from_millis(LEAVING_MS), open.wait_for(|open| *open == 0)).await;
        if closed.is_err() {
            tracing::debug!(queue = %self.queue, "another slot still pulls");
        }
    }

    async fn pull(&self, consumer: &PullConsumer) -> Result<Stream, async_nats::Error> {
        let pull = consumer.stream().max_messages_per_batch(1);
        let pull = pull.expires(Duration::from_secs(PULL_S)).heartbeat(Duration::from_secs(PULL_IDLE_S));
        Ok(pull.messages().await?)
    }

    /// The subject of a request about the consumer.
    fn api(&self, verb: &str) -> String {
        format!("$JS.API.CONSUMER.{verb}.{}.{}", self.queue.stream(&self.bus.root), self.queue.name())
    }

    /// The role's consumer, once an orchestrator or the operator has declared it; `None` on the stop signal.
    async fn wait_for_consumer(&self) -> Option<PullConsumer> {
        let info = self.api("INFO");
        let mut told = false;
        while !self.stop.is_cancelled() {
            let known = tokio::select! {
                known = self.bus.consumer(self.queue) => known,
                () = self.bus.denied(Use::Publish, &info) => Err(self.bus.give_up(&info)),
            };
            match known {
                Ok(Some(consumer)) => return Some(consumer),
                Ok(None) if !told => {
                    tracing::info!(queue = %self.queue, "waiting for an orchestrator to declare the queue");
                }
                Ok(None) => {}
                Err(error) if !told => {
                    tracing::warn!(queue = %self.queue, "no consumer: {:#}", anyhow::Error::from(error));
                }
                Err(error) => tracing::debug!(queue = %self.queue, "still no consumer: {error}"),
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
async fn acknowledge(bus: Bus, acker: Arc<Acker>, heartbeat: Heartbeat, reply: String) {
    hit(Point::Ack, Side::Before);
    tokio::select! {
        acknowledged = acker.double_ack() => if let Err(error) = acknowledged {
            tracing::debug!(reply, "an acknowledgement was not confirmed: {error}");
        },
        () = bus.denied(Use::Publish, &reply) => tracing::error!("no acknowledgement: {}", bus.give_up(&reply)),
    }
    hit(Point::Ack, Side::After);
    drop(heartbeat);
}

async fn finish(ack: JoinHandle<()>) {
    ack.await.unwrap_or_else(|error| tracing::error!("an acknowledgement broke: {error}"));
}
