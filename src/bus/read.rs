//! Reads by subject: the last message, or all of a filter, in pages.

use std::time::Duration;

use async_nats::StatusCode;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DirectGetErrorKind, RawMessageErrorKind};
use bytes::Bytes;
use futures::StreamExt;

use super::{Bus, BusError};

/// Messages of one page of a scan; a server refuses pages over 1,024.
const SCAN_PAGE: usize = 512;
/// Bytes of one page, about: the server ends it after the message that goes over.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Messages that one scan may return.
const SCAN_MESSAGES_MAX: usize = 100_000;
/// How long one page may take.
const PAGE_WAIT_S_MAX: u64 = 10;
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
        let stream_handle = self.stream(stream).await?;
        match stream_handle.direct_get_last_for_subject(subject).await {
            Ok(message) => Ok(Some(message.into())),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(source) => Err(unread(stream, subject, source)),
        }
    }

    /// The last message on `subject`, read from the stream's leader: never behind.
    pub async fn last_from_leader(&self, stream: &str, subject: &str) -> Result<Option<Kept>, BusError> {
        let stream_handle = self.stream(stream).await?;
        match stream_handle.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(message.into())),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(source) => Err(unread(stream, subject, source)),
        }
    }

    /// All messages whose subject fits `filter`, in the stream's order.
    ///
    /// # Errors
    /// [`BusError::TooMany`] over [`SCAN_MESSAGES_MAX`].
    pub async fn scan(&self, stream: &str, filter: &str) -> Result<Vec<Kept>, BusError> {
        let mut found = Vec::new();
        let mut from = 1;
        loop {
            let Page { kept, more } = self.page(stream, filter, from).await?;
            from = kept.last().map_or(from, |last| last.sequence + 1);
            found.extend(kept);
            if found.len() > SCAN_MESSAGES_MAX {
                let (stream, subject) = (stream.to_owned(), filter.to_owned());
                return Err(BusError::TooMany { stream, subject, max: SCAN_MESSAGES_MAX });
            }
            if !more {
                return Ok(found);
            }
        }
    }

    /// The subjects of the messages that fit `filter` and were stored before `before`, in nanoseconds since 1970: read from
    /// the oldest on, so that a stream of young messages costs one page; at most about [`SCAN_MESSAGES_MAX`].
    pub async fn subjects_before(&self, stream: &str, filter: &str, before: i64) -> Result<Vec<String>, BusError> {
        let mut found = Vec::new();
        let mut from = 1;
        loop {
            let Page { kept, more } = self.page(stream, filter, from).await?;
            from = kept.last().map_or(from, |last| last.sequence + 1);
            let young = kept.iter().any(|kept| kept.at >= before);
            found.extend(kept.into_iter().take_while(|kept| kept.at < before).map(|kept| kept.subject));
            if young || !more || found.len() > SCAN_MESSAGES_MAX {
                return Ok(found);
            }
        }
    }

    /// One page: a batched direct get, answered by several messages and a status that ends them.
    async fn page(&self, stream: &str, filter: &str, from: u64) -> Result<Page, BusError> {
        let failed = |source: super::error::Source| unread(stream, filter, source);
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|error| failed(error.into()))?;
        let request = serde_json::json!({
            "seq": from, "next_by_subj": filter, "batch": SCAN_PAGE, "max_bytes": PAGE_BYTES_MAX
        });
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let sent = self.client.publish_with_reply(subject, inbox, request.to_string().into()).await;
        sent.map_err(|error| failed(error.into()))?;
        let mut kept = Vec::new();
        loop {
            let next = tokio::time::timeout(Duration::from_secs(PAGE_WAIT_S_MAX), answers.next()).await;
            let message =
                next.map_err(|error| failed(error.into()))?.ok_or_else(|| failed("connection closed".into()))?;
            match message.status {
                Some(StatusCode::NOT_FOUND) => return Ok(Page { kept, more: false }),
                Some(status) if status.as_u16() == END_OF_BATCH => {
                    let headers = message.headers.as_ref();
                    let pending = headers.and_then(|headers| headers.get("Nats-Num-Pending"));
                    let more = pending.is_some_and(|pending| pending.as_str() != "0") && !kept.is_empty();
                    return Ok(Page { kept, more });
                }
                Some(status) => {
                    return Err(failed(format!("{status} {}", message.description.unwrap_or_default()).into()));
                }
                None => kept.push(StreamMessage::try_from(message).map_err(|error| failed(error.into()))?.into()),
            }
        }
    }

    async fn stream(&self, name: &str) -> Result<async_nats::jetstream::stream::Stream<()>, BusError> {
        let handle = self.js.get_stream_no_info(name).await;
        handle.map_err(|source| BusError::Declare { what: format!("stream {name}"), source: source.into() })
    }
}

fn unread(stream: &str, subject: &str, source: impl Into<super::error::Source>) -> BusError {
    BusError::Read { stream: stream.to_owned(), subject: subject.to_owned(), source: source.into() }
}
