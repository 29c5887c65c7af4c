//! How long a scripted answer takes: a fixed time, or one of a range that is the same in every run of the script.

use std::fmt;
use std::time::Duration;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use super::CallContext;

/// Longest delay that a script may ask for.
const LATENCY_MS_MAX: u64 = 10 * 60 * 1000;

/// A delay, drawn from the seed when it is a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Latency {
    min_ms: u64,
    max_ms: u64,
}

impl Latency {
    /// The delay of a call: the same for the same seed, task and attempt.
    pub(super) fn draw(self, seed: u64, context: &CallContext) -> Duration {
        let digest = Sha256::digest(format!("{seed}/{}/{}", context.task_id, context.attempt));
        let random = digest.iter().take(8).fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        Duration::from_millis(self.min_ms + random % (self.max_ms - self.min_ms + 1))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LatencyVisitor)
    }
}

/// Takes `300` and `{"min": 20, "max": 80}`.
struct LatencyVisitor;

impl<'de> Visitor<'de> for LatencyVisitor {
    type Value = Latency;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "milliseconds or {{\"min\", \"max\"}} up to {LATENCY_MS_MAX}")
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Latency, E> {
        bounded(value, value)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Latency, A::Error> {
        let (mut min, mut max) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "min" => min = Some(map.next_value()?),
                "max" => max = Some(map.next_value()?),
                other => return Err(A::Error::unknown_field(other, &["min", "max"])),
            }
        }
        let missing = A::Error::missing_field;
        bounded(min.ok_or_else(|| missing("min"))?, max.ok_or_else(|| missing("max"))?)
    }
}

fn bounded<E: serde::de::Error>(min_ms: u64, max_ms: u64) -> Result<Latency, E> {
    if min_ms > max_ms || max_ms > LATENCY_MS_MAX {
        return Err(E::custom(format!("latency {min_ms} to {max_ms} ms is not within 0 to {LATENCY_MS_MAX}")));
    }
    Ok(Latency { min_ms, max_ms })
}
