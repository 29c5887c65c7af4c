//! Messages whose time has not come: the server keeps them (ADR-51), and gives each back at its time, whoever of us is
//! alive then.

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Bus, Outgoing, Point};
use crate::wire::subject::TaskSubject;

impl Bus {
    /// A message that comes to the queue of `to` at `at`, in nanoseconds since 1970 by the server's clock; at once when that
    /// is past. A later one for the same task takes its place.
    pub fn later(&self, at: i64, to: &TaskSubject, payload: impl Into<Bytes>) -> Outgoing {
        let time = OffsetDateTime::from_unix_timestamp_nanos(at.into()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let time = time.format(&Rfc3339).unwrap_or_default();
        Outgoing::new(Point::Later, self.root.later_stream(), self.root.later(to), payload)
            .header("Nats-Schedule", &format!("@at {time}"))
            .header("Nats-Schedule-Target", &self.root.due(to))
    }
}
