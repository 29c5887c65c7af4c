//! One message of the work queue, as a handler sees it.

use async_nats::jetstream::message::Acker;
use async_nats::jetstream::{self};
use bytes::Bytes;

use crate::wire::Root;
use crate::wire::subject::{HEADER_FIRST, TaskSubject};

/// How long after its publisher knew it a task may be stored and still count as a first one. A publisher that slept in
/// between may have been replaced; with the 400 ms that an orchestrator trusts the store's word for, this is less than the
/// shortest silence that costs one its run, two thirds of a second.
const FIRST_MS: i64 = 250;

/// A message that this process holds.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The identity in its subject.
    pub to: TaskSubject,
    /// Its body, unparsed.
    pub payload: Bytes,
    /// Its sequence in the work queue.
    pub sequence: u64,
    /// When the server stored it, in nanoseconds since 1970.
    pub at: i64,
    /// How often it was delivered, this time included.
    pub delivered: u64,
    /// True when its publisher knows that no result can exist yet.
    pub first: bool,
}

impl Delivery {
    /// Takes a message apart; gives it back when its subject is no task of this fleet.
    pub(super) fn open(root: &Root, message: jetstream::Message) -> Result<(Self, Acker), Box<jetstream::Message>> {
        let Some(to) = root.parse(&message.subject) else {
            return Err(Box::new(message));
        };
        let Ok(info) = message.info() else {
            return Err(Box::new(message));
        };
        let (sequence, delivered) = (info.stream_sequence, u64::try_from(info.delivered).unwrap_or(u64::MAX));
        let at = i64::try_from(info.published.unix_timestamp_nanos()).unwrap_or(i64::MAX);
        let known_at =
            message.headers.as_ref().and_then(|headers| headers.get(HEADER_FIRST)?.as_str().parse::<i64>().ok());
        let first = known_at.is_some_and(|known_at| at.saturating_sub(known_at) < FIRST_MS * 1_000_000);
        let (message, acker) = message.split();
        Ok((Self { to, payload: message.payload, sequence, at, delivered, first }, acker))
    }
}
