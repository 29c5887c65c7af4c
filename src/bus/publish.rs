//! The one publish of the durable plane.
//!
//! A message is stored, or somebody else's is there already, or the store is full, or the time is up: nothing else
//! can come out. Every retry of one publish carries the same message id; the total stays under the streams'
//! duplicate window, so a retry whose first try was stored is not stored twice, even if it was consumed meanwhile.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::{self, ErrorCode, message::PublishMessage};
use bytes::Bytes;

use super::failpoint::{Point, Side, hit};
use super::{Bus, BusError, Use};
use crate::wire::Event;

/// How long one publish is retried; under the duplicate window of 120 s.
const PUBLISH_WAIT_S_MAX: u64 = 100;
/// How long it is retried for a caller who waits; clients give up after 30 s.
const HASTY_WAIT_S_MAX: u64 = 20;
/// Tries of a publish that is refused as taken though nothing can be read in its place: a moment later the place is free,
/// or what lies there is damaged.
const GHOST_TRIES_MAX: u32 = 6;
/// Longest pause between two tries.
const RETRY_DELAY_MS_MAX: u64 = 1_000;
/// What the server calls both "maximum messages per subject exceeded" and "maximum bytes exceeded".
const STORE_FAILED: u64 = 10077;
/// What it says when not a stream but the account or the whole store is at its limit.
const STORE_AT_LIMIT: [u64; 3] = [10002, 10023, 10047];

/// A message for a stream.
#[derive(Clone, Debug)]
pub struct Outgoing {
    point: Point,
    stream: String,
    subject: String,
    payload: Bytes,
    headers: HeaderMap,
    expected: Option<u64>,
    id: String,
}

impl Outgoing {
    /// `payload` for `subject`, which lies in `stream`; `point` is the step that storing it is.
    pub fn new(point: Point, stream: String, subject: String, payload: impl Into<Bytes>) -> Self {
        let id = format!("{:032x}", rand::random::<u128>());
        Self { point, stream, subject, payload: payload.into(), headers: HeaderMap::new(), expected: None, id }
    }

    /// Only when the last message on the subject has this sequence; 0 means that there is none.
    pub fn expecting(self, sequence: u64) -> Self {
        Self { expected: Some(sequence), ..self }
    }

    /// With a header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value);
        self
    }

    fn message(&self) -> PublishMessage {
        let message =
            PublishMessage::build().payload(self.payload.clone()).headers(self.headers.clone()).message_id(&self.id);
        match self.expected {
            Some(sequence) => message.expected_last_subject_sequence(sequence),
            None => message,
        }
    }
}

impl Bus {
    /// The same connection for a caller who waits: a full store is told at once, and a silent one after
    /// [`HASTY_WAIT_S_MAX`] seconds. Work in hand is worth more patience.
    pub fn hasty(&self) -> Self {
        let mut hasty = self.clone();
        hasty.hasty = true;
        hasty
    }

    /// Stores one message and returns its sequence.
    ///
    /// # Errors
    /// [`BusError::Taken`] when the subject is; [`BusError::Full`]; [`BusError::Publish`] after
    /// [`PUBLISH_WAIT_S_MAX`] seconds without a verdict.
    pub async fn store(&self, message: Outgoing) -> Result<u64, BusError> {
        let ack = self.send(&message).await;
        self.settle(&message, ack).await
    }

    /// Stores several messages, all sent before the first acknowledgement is awaited. The results stand in the
    /// messages' order.
    pub async fn store_all(&self, messages: Vec<Outgoing>) -> Vec<Result<u64, BusError>> {
        let mut sent = Vec::with_capacity(messages.len());
        for message in messages {
            let ack = self.send(&message).await;
            sent.push((message, ack));
        }
        let mut results = Vec::with_capacity(sent.len());
        for (message, ack) in sent {
            results.push(self.settle(&message, ack).await);
        }
        results
    }

    /// Tells people and tools what happened. Not awaited, not retried: no decision hangs on an event.
    pub async fn tell(&self, event: &Event) {
        let payload = serde_json::to_vec(event).unwrap_or_default();
        if let Err(error) = self.client.publish(self.root.event(&event.run, event.kind), payload.into()).await {
            tracing::debug!("an event was not sent: {error}");
        }
    }

    async fn send(&self, message: &Outgoing) -> Result<PublishAckFuture, PublishError> {
        hit(message.point, Side::Before);
        self.js.send_publish(message.subject.clone(), message.message()).await
    }

    async fn settle(&self, message: &Outgoing, sent: Result<PublishAckFuture, PublishError>) -> Result<u64, BusError> {
        let verdict = self.insist(message, sent).await;
        hit(message.point, Side::After);
        verdict
    }

    /// Awaits the acknowledgement, and publishes again until there is a verdict.
    async fn insist(
        &self,
        message: &Outgoing,
        mut sent: Result<PublishAckFuture, PublishError>,
    ) -> Result<u64, BusError> {
        let started = Instant::now();
        let wait = Duration::from_secs(if self.hasty { HASTY_WAIT_S_MAX } else { PUBLISH_WAIT_S_MAX });
        let mut ghosts = 0;
        for tries in 0_u32.. {
            let error = match sent {
                Ok(ack) => tokio::select! {
                    biased;
                    ack = async { ack.await } => match ack {
                        Ok(ack) => return Ok(ack.sequence),
                        Err(error) => error,
                    },
                    () = self.denied(Use::Publish, &message.subject) => return Err(self.forbidden(&message.subject)),
                },
                Err(error) => error,
            };
            let error = match self.verdict(message, error).await {
                Verdict::Ours(sequence) => return Ok(sequence),
                Verdict::Refused(refusal) => return Err(refusal),
                Verdict::Ghost(_) if ghosts == GHOST_TRIES_MAX => {
                    return Err(BusError::Taken { subject: message.subject.clone() });
                }
                Verdict::Ghost(error) => {
                    ghosts += 1;
                    error
                }
                Verdict::Unknown(error) => error,
            };
            let at_limit = server_code(&error).is_some_and(|code| STORE_AT_LIMIT.contains(&code.0));
            if at_limit && (self.hasty || started.elapsed() > wait) {
                let (stream, subject) = (message.stream.clone(), message.subject.clone());
                return Err(BusError::Full { stream, subject, source: error.into() });
            }
            if started.elapsed() > wait {
                let subject = message.subject.clone();
                return Err(BusError::Publish { subject, waited_s: started.elapsed().as_secs(), source: error.into() });
            }
            tracing::debug!(subject = message.subject, "publish is tried again: {error}");
            tokio::time::sleep(Duration::from_millis((20 << tries.min(6)).min(RETRY_DELAY_MS_MAX))).await;
            sent = self.js.send_publish(message.subject.clone(), message.message()).await;
        }
        unreachable!("the loop ends by its deadline")
    }

    /// What we may not store: an answer to a caller, and the end of a process that works.
    pub fn forbidden(&self, subject: &str) -> BusError {
        if self.hasty { BusError::Forbidden { subject: subject.to_owned() } } else { self.give_up(subject) }
    }

    /// What a refusal means. Only what is on the subject tells: one code means both "taken" and "full", and our own
    /// message, whose acknowledgement was lost, refuses its retry like a stranger's.
    async fn verdict(&self, message: &Outgoing, error: PublishError) -> Verdict {
        let (stream, subject) = (message.stream.clone(), message.subject.clone());
        let wrong_sequence = error.kind() == PublishErrorKind::WrongLastSequence;
        let store_failed = server_code(&error) == Some(ErrorCode(STORE_FAILED));
        if error.kind() == PublishErrorKind::MaxPayloadExceeded {
            let max = self.client.max_payload();
            return Verdict::Refused(BusError::TooLarge { subject, max, source: error.into() });
        }
        if !wrong_sequence && !store_failed {
            return Verdict::Unknown(error);
        }
        match self.last_from_leader(&stream, &subject).await {
            Ok(Some(kept)) if kept.id.as_ref() == Some(&message.id) => Verdict::Ours(kept.sequence),
            Ok(found) if wrong_sequence || found.is_some() => Verdict::Refused(BusError::Taken { subject }),
            // Taken a moment ago, and free by now: what was there has been dealt with.
            Ok(_) if format!("{error:?}").contains("per subject") => Verdict::Ghost(error),
            Ok(_) => Verdict::Refused(BusError::Full { stream, subject, source: error.into() }),
            Err(_) => Verdict::Unknown(error),
        }
    }
}

/// What became of a publish that was not simply acknowledged.
enum Verdict {
    /// It was stored by an earlier try.
    Ours(u64),
    /// It will not be stored.
    Refused(BusError),
    /// Something is in its place that cannot be read.
    Ghost(PublishError),
    /// It may be stored by another try: no leader yet, a lost acknowledgement, a reconnect.
    Unknown(PublishError),
}

fn server_code(error: &PublishError) -> Option<ErrorCode> {
    let source = std::error::Error::source(error)?;
    source.downcast_ref::<jetstream::Error>().map(jetstream::Error::error_code)
}
