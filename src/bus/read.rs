//! Reads by subject: the last message, or all of a filter, in pages.
//!
//! A stream that has no leader just now answers nobody, and what was sent to a host that is cut off is lost. So one try
//! is short, and a read is tried again for longer than a cluster takes to choose a leader.

use std::future::Future;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use async_nats::StatusCode;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DirectGetErrorKind, RawMessageError, RawMessageErrorKind};
use bytes::Bytes;
use futures::StreamExt;

use super::error::Source;
use super::{Bus, BusError};

/// Messages of one page of a scan; a server refuses pages over 1,024.
const SCAN_PAGE: usize = 512;
/// Bytes of one page, about: the server ends it after the message that goes over.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Messages that one scan may return.
const SCAN_MESSAGES_MAX: usize = 100_000;
/// How long a server may take to say the next thing.
const TRY_S_MAX: u64 = 2;
/// How long a read is tried in all.
const READ_WAIT_S_MAX: u64 = 15;
/// Pause between two tries.
const AGAIN_MS: u64 = 100;
/// Status of the message that ends a page.
const END_OF_BATCH: u16 = 204;

/// A message as its stream keeps it.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its subject.
    pub subject: String,
    /// Its stream sequence.
    pub sequence: u64,
    /// When the server stored it, in nanoseconds since 1970.
    pub at: i64,
    /// Its body.
    pub payload: Bytes,
    /// The message id that its publisher gave it.
    pub id: Option<String>,
    /// True for the mark that a deleted key leaves in a bucket.
    pub deleted: bool,
}

/// Some messages, and whether there are more after them.
struct Page {
    kept: Vec<Kept>,
    more: bool,
}

impl From<StreamMessage> for Kept {
    fn from(message: StreamMessage) -> Self {
        Self {
            id: message.headers.get("Nats-Msg-Id").map(ToString::to_string),
            deleted: message.headers.get("KV-Operation").is_some(),
            subject: message.subject.to_string(),
            sequence: message.sequence,
            at: i64::try_from(message.time.unix_timestamp_nanos()).unwrap_or(i64::MAX),
            payload: message.payload,
        }
    }
}

impl Bus {
    /// The last message on `subject`, read from any replica: quick, and possibly a moment behind.
    pub async fn last(&self, stream: &str, subject: &str) -> Result<Option<Kept>, BusError> {
        let handle = self.stream(stream).await?;
        let read = || async {
            match handle.direct_get_last_for_subject(subject).await {
                Ok(message) => Ok(Some(message.into())),
                Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        patiently(|| in_time(read())).await.map_err(|source| unread(stream, subject, source))
    }

    /// The last message on `subject`, read from the stream's leader: never behind.
    pub async fn last_from_leader(&self, stream: &str, subject: &str) -> Result<Option<Kept>, BusError> {
        let handle = self.stream(stream).await?;
        let read = || async { found(handle.get_last_raw_message_by_subject(subject).await) };
        patiently(|| in_time(read())).await.map_err(|source| unread(stream, subject, source))
    }

    /// The first message from a stream sequence on whose subject fits `filter`, read from the stream's leader: never behind.
    pub async fn next_from_leader(&self, stream: &str, filter: &str, from: u64) -> Result<Option<Kept>, BusError> {
        let handle = self.stream(stream).await?;
        let read = || async { found(handle.get_first_raw_message_by_subject(filter, from).await) };
        patiently(|| in_time(read())).await.map_err(|source| unread(stream, filter, source))
    }

    /// The last message on a subject where one should be: what a copy does not have, it may not have yet, so the leader is
    /// asked before anybody is told that there is none.
    pub async fn last_known(&self, stream: &str, subject: &str) -> Result<Option<Kept>, BusError> {
        match self.last(stream, subject).await? {
            Some(kept) => Ok(Some(kept)),
            None => self.last_from_leader(stream, subject).await,
        }
    }

    /// All messages whose subject fits `filter`, in the stream's order.
    ///
    /// # Errors
    /// [`BusError::TooMany`] over [`SCAN_MESSAGES_MAX`].
    pub async fn scan(&self, stream: &str, filter: &str) -> Result<Vec<Kept>, BusError> {
        self.scan_from(stream, filter, 1).await
    }

    /// The same, from a stream sequence on.
    pub async fn scan_from(&self, stream: &str, filter: &str, from: u64) -> Result<Vec<Kept>, BusError> {
        let mut found = Vec::new();
        let see = |kept: Vec<Kept>| {
            found.extend(kept);
            if found.len() > SCAN_MESSAGES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match self.scan_pages(stream, filter, from, see).await? {
            ControlFlow::Continue(()) => Ok(found),
            ControlFlow::Break(()) => {
                let (stream, subject) = (stream.to_owned(), filter.to_owned());
                Err(BusError::TooMany { stream, subject, max: SCAN_MESSAGES_MAX })
            }
        }
    }

    /// Shows all messages from a stream sequence on whose subject fits `filter` to `see`, in the stream's order and a page at a
    /// time, until it breaks off: for what may be more than is wanted in memory.
    pub async fn scan_pages(
        &self,
        stream: &str,
        filter: &str,
        from: u64,
        mut see: impl FnMut(Vec<Kept>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, BusError> {
        let mut from = from;
        loop {
            let page = patiently(|| self.page(stream, filter, from)).await;
            let Page { kept, more } = page.map_err(|source| unread(stream, filter, source))?;
            from = kept.last().map_or(from, |last| last.sequence + 1);
            if see(kept).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if !more {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    /// The last sequence that a stream has given; 0 when it never held anything.
    ///
    /// # Errors
    /// When nobody tells.
    pub async fn last_sequence(&self, stream: &str) -> Result<u64, BusError> {
        let failed = |source| BusError::Core { what: format!("find the end of stream {stream}"), source };
        let look = || in_time(async { Ok(self.js.get_stream(stream).await?.cached_info().state.last_sequence) });
        patiently(look).await.map_err(failed)
    }

    /// The subjects of the messages that fit `filter` and were stored before `before`, in nanoseconds since 1970: read from
    /// the oldest on, so that a stream of young messages costs one page; at most about [`SCAN_MESSAGES_MAX`].
    pub async fn subjects_before(&self, stream: &str, filter: &str, before: i64) -> Result<Vec<String>, BusError> {
        let mut found = Vec::new();
        let see = |kept: Vec<Kept>| {
            let young = kept.iter().any(|kept| kept.at >= before);
            found.extend(kept.into_iter().take_while(|kept| kept.at < before).map(|kept| kept.subject));
            if young || found.len() > SCAN_MESSAGES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let _ = self.scan_pages(stream, filter, 1, see).await?;
        Ok(found)
    }

    /// One page: a batched direct get, answered by several messages and a status that ends them.
    async fn page(&self, stream: &str, filter: &str, from: u64) -> Result<Page, Source> {
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await?;
        let request = serde_json::json!({
            "seq": from, "next_by_subj": filter, "batch": SCAN_PAGE, "max_bytes": PAGE_BYTES_MAX
        });
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        self.client.publish_with_reply(subject, inbox, request.to_string().into()).await?;
        let mut kept = Vec::new();
        loop {
            let next = in_time(async { Ok(answers.next().await) }).await?;
            let message = next.ok_or("connection closed")?;
            match message.status {
                Some(StatusCode::NOT_FOUND) => return Ok(Page { kept, more: false }),
                Some(status) if status.as_u16() == END_OF_BATCH => {
                    let headers = message.headers.as_ref();
                    let pending = headers.and_then(|headers| headers.get("Nats-Num-Pending"));
                    let more = pending.is_some_and(|pending| pending.as_str() != "0") && !kept.is_empty();
                    return Ok(Page { kept, more });
                }
                Some(status) => return Err(format!("{status} {}", message.description.unwrap_or_default()).into()),
                None => kept.push(StreamMessage::try_from(message)?.into()),
            }
        }
    }

    async fn stream(&self, name: &str) -> Result<async_nats::jetstream::stream::Stream<()>, BusError> {
        let handle = self.js.get_stream_no_info(name).await;
        handle.map_err(|source| BusError::Declare { what: format!("stream {name}"), source: source.into() })
    }
}

/// What a leader said.
fn found(said: Result<StreamMessage, RawMessageError>) -> Result<Option<Kept>, Source> {
    match said {
        Ok(message) => Ok(Some(message.into())),
        Err(error) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(None),
            RawMessageErrorKind::JetStream(refused) if refused.error_code() == ErrorCode::CLUSTER_NOT_AVAILABLE => {
                Err(NoLeader.into())
            }
            _ => Err(error.into()),
        },
    }
}

/// Nobody answers for the stream at this moment.
#[derive(Debug, thiserror::Error)]
#[error("nobody answers for the stream just now; try again in a moment")]
struct NoLeader;

/// At most as long as one try may take.
pub(super) async fn in_time<T>(read: impl Future<Output = Result<T, Source>>) -> Result<T, Source> {
    tokio::time::timeout(Duration::from_secs(TRY_S_MAX), read).await.unwrap_or_else(|_| Err(NoLeader.into()))
}

/// Tries `read` again while nobody answers it.
pub(super) async fn patiently<T, F>(read: impl Fn() -> F) -> Result<T, Source>
where
    F: Future<Output = Result<T, Source>>,
{
    let started = Instant::now();
    loop {
        match read().await {
            Err(error) if error.is::<NoLeader>() && started.elapsed() < Duration::from_secs(READ_WAIT_S_MAX) => {
                tracing::debug!("a read is tried again: {error}");
            }
            settled => return settled,
        }
        tokio::time::sleep(Duration::from_millis(AGAIN_MS)).await;
    }
}

fn unread(stream: &str, subject: &str, source: impl Into<super::error::Source>) -> BusError {
    BusError::Read { stream: stream.to_owned(), subject: subject.to_owned(), source: source.into() }
}
