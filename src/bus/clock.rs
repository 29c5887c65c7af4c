//! The server's clock. Times that several machines act on are the server's, never our own: a host whose clock is off must
//! not make a task early or late.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Bus, BusError};

/// How long one look at the server's clock is good for; our own clock only counts on from there.
const LOOK_S: u64 = 30;

/// The part of a stream's description that tells when it was made.
#[derive(Deserialize)]
struct Described {
    ts: String,
}

impl Bus {
    /// The server's present, in nanoseconds since 1970, as exact as half a round trip.
    ///
    /// # Errors
    /// [`BusError::Core`] when the server cannot be asked.
    pub async fn server_now(&self) -> Result<i64, BusError> {
        let known = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, time)) = known.filter(|(at, _)| at.elapsed() < Duration::from_secs(LOOK_S)) {
            return Ok(time.saturating_add(nanos(at.elapsed())));
        }
        let failed = |source: super::error::Source| BusError::Core { what: "read the server's clock".into(), source };
        let asked = Instant::now();
        let subject = format!("$JS.API.STREAM.INFO.{}", self.root.later_stream());
        let answer = self.client.request(subject, bytes::Bytes::new()).await.map_err(|error| failed(error.into()))?;
        let described: Described = serde_json::from_slice(&answer.payload).map_err(|error| failed(error.into()))?;
        let time = OffsetDateTime::parse(&described.ts, &Rfc3339).map_err(|error| failed(error.into()))?;
        let time = i64::try_from(time.unix_timestamp_nanos()).unwrap_or(i64::MAX);
        let now = time.saturating_add(nanos(asked.elapsed() / 2));
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), now));
        Ok(now)
    }
}

/// From `at` to `now`, both in nanoseconds by the server's clock; nothing when `at` is later.
pub fn since(now: i64, at: i64) -> Duration {
    Duration::from_nanos(u64::try_from(now.saturating_sub(at)).unwrap_or(0))
}

/// A duration in nanoseconds, the largest number for one that has more.
pub fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
