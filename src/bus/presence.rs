//! Who serves which role, and how much waits, as the server sees it.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::{Bus, BusError, Queue};
use crate::wire::Role;

use super::read::{in_time, patiently};
use super::streams::TASKS_BYTES_MAX;

/// How long the last look at the queue's size is good for.
const HALF_FULL_MS: u64 = 1_000;

/// One role's queue and workers.
#[derive(Clone, Debug)]
pub struct RolePresence {
    /// The role.
    pub role: Role,
    /// Worker slots that wait for a task right now.
    pub idle: usize,
    /// Tasks that workers have.
    pub running: usize,
    /// Tasks in the queue that nobody has.
    pub waiting: u64,
}

/// The presence of a role; `None` while its consumer is not declared.
pub async fn presence(bus: &Bus, role: Role) -> Result<Option<RolePresence>, BusError> {
    let Some(consumer) = bus.consumer(Queue::Role(role)).await? else {
        return Ok(None);
    };
    let info = consumer.cached_info();
    Ok(Some(RolePresence { role, idle: info.num_waiting, running: info.num_ack_pending, waiting: info.num_pending }))
}

impl Bus {
    /// True when the work queue holds more than half of its bytes: the rest is kept for the runs that began.
    /// Looked at once a second: half a queue is room enough for what comes in between.
    pub async fn queue_is_half_full(&self) -> Result<bool, BusError> {
        let known = *self.half_full.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, full)) = known.filter(|(at, _)| at.elapsed() < Duration::from_millis(HALF_FULL_MS)) {
            return Ok(full);
        }
        let name = self.root.tasks_stream();
        let failed = |source: super::error::Source| BusError::Declare { what: format!("stream {name}"), source };
        let read = || async { self.js.get_stream(&name).await.map_err(Into::into) };
        let stream = patiently(|| in_time(read())).await.map_err(failed)?;
        let max = u64::try_from(stream.cached_info().config.max_bytes).unwrap_or(TASKS_BYTES_MAX.unsigned_abs());
        let full = stream.cached_info().state.bytes > max / 2;
        *self.half_full.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), full));
        Ok(full)
    }
}
