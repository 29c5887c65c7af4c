//! A queue that gives out nothing for a while, for everybody who pulls from it, on every machine.
//!
//! The pause is a setting of the consumer, so the server keeps it and ends it, whoever of us is alive then. What workers
//! have in hand is theirs as before: their heartbeats and acknowledgements go on.

use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::context::ConsumerInfoErrorKind::{NotFound, StreamNotFound};
use time::OffsetDateTime;

use super::read::{in_time, patiently};
use super::{Bus, BusError, Queue, Use, error::Source};

/// Longest pause of a queue; who needs a longer one pauses it again.
pub const PAUSE_S_MAX: u64 = 120;
/// A pause that is this much longer than ours is another's.
const SAME_MS: i128 = 50;
/// Looks at whether another's shorter pause took the place of ours.
const LOOKS_MAX: u32 = 2;
/// Pause before such a look: longer than the way from another's look to its pause.
const LOOK_MS: u64 = 300;

impl Bus {
    /// Stops a queue for `wait`, at most [`PAUSE_S_MAX`] seconds; false when it is stopped for longer already. The server's
    /// clock decides. A shorter pause does not, as a rule, take the place of a longer one: consumers know no compare-and-set,
    /// so a slow process may still set one between another's last look and its own.
    ///
    /// # Errors
    /// When the server refuses, or does not answer.
    pub async fn pause(&self, queue: Queue, wait: Duration) -> Result<bool, BusError> {
        let subject = format!("$JS.API.CONSUMER.PAUSE.{}.{}", queue.stream(&self.root), queue.name());
        tokio::select! {
            paused = self.pause_until(queue, wait.min(Duration::from_secs(PAUSE_S_MAX))) => {
                paused.map_err(|source| BusError::Declare { what: format!("a pause of queue {queue}"), source })
            }
            () = self.denied(Use::Publish, &subject) => Err(BusError::Forbidden { subject }),
        }
    }

    /// The end of a queue's last pause, in nanoseconds since 1970 by the server's clock; it may be over. 0 when the queue was
    /// never paused, or its consumer is not declared.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn paused_until(&self, queue: Queue) -> Result<i64, BusError> {
        let failed = |source| BusError::Declare { what: format!("the pause of queue {queue}"), source };
        let look = || async {
            let stream = self.js.get_stream_no_info(queue.stream(&self.root)).await?;
            match stream.consumer_info(queue.name()).await {
                Ok(info) => Ok(paused_until(&info)),
                Err(error) if matches!(error.kind(), NotFound | StreamNotFound) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let until = patiently(|| in_time(look())).await.map_err(failed)?.unwrap_or(0);
        Ok(i64::try_from(until).unwrap_or(i64::MAX))
    }

    async fn pause_until(&self, queue: Queue, wait: Duration) -> Result<bool, Source> {
        let now = i128::from(self.server_now().await?);
        let until = now + i128::try_from(wait.as_nanos()).unwrap_or(i128::MAX);
        let at = OffsetDateTime::from_unix_timestamp_nanos(until)?;
        let stream = in_time(async { Ok(self.js.get_stream_no_info(queue.stream(&self.root)).await?) }).await?;
        let mut ours = false;
        for look in 0..=LOOKS_MAX {
            let info = in_time(async { Ok(stream.consumer_info(queue.name()).await?) }).await?;
            if paused_until(&info).is_some_and(|other| other + SAME_MS * 1_000_000 >= until) {
                break;
            }
            in_time(async { Ok(stream.pause_consumer(queue.name(), at).await?) }).await?;
            ours = true;
            if look < LOOKS_MAX {
                tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
            }
        }
        Ok(ours)
    }
}

/// The end of a consumer's pause, in nanoseconds since 1970; it may be over.
fn paused_until(info: &Info) -> Option<i128> {
    info.config.pause_until.map(OffsetDateTime::unix_timestamp_nanos)
}
