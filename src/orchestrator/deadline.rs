//! By when an attempt must be answered.
//!
//! Its time is that of its role, from when it may begin; and a task that waits in a queue that gives out nothing cannot
//! begin. So the time counts from the end of the queue's last pause, which the server keeps with the queue: every holder
//! comes to the same deadline, and no clock of ours is asked. Pauses cannot put it off for ever.

use std::time::Duration;

use crate::bus::clock::{nanos, since};

/// What pauses of its queue may add to the time of one attempt, in all.
pub(super) const PAUSED_S_MAX: u64 = 600;

/// When one attempt should be answered; times are the server's, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline {
    /// The end of its time.
    pub(super) at: i64,
    /// What pauses of its queue added to it.
    pub(super) paused: Duration,
}

impl Deadline {
    /// Of an attempt that was asked for at `asked`, may begin `delay` later, and has `limit` from then on. `paused_until` is
    /// the end of its queue's last pause, whether it is over or not; 0 for none.
    pub(super) fn of(asked: i64, delay: Duration, limit: Duration, paused_until: i64) -> Self {
        let begins = asked.saturating_add(nanos(delay));
        let paused = since(paused_until, begins).min(Duration::from_secs(PAUSED_S_MAX));
        Self { at: begins.saturating_add(nanos(paused)).saturating_add(nanos(limit)), paused }
    }

    /// What is left of it; nothing when it is over.
    pub(super) fn left(self, now: i64) -> Duration {
        since(self.at, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    fn of(paused_until: i64) -> (i64, u64) {
        let seconds = Duration::from_secs;
        let deadline = Deadline::of(100 * S, seconds(5), seconds(30), paused_until);
        (deadline.at / S, deadline.paused.as_secs())
    }

    #[test]
    fn a_pause_puts_it_off_by_what_was_lost_and_no_further_than_its_bound() {
        assert_eq!(of(0), (135, 0), "no pause");
        assert_eq!(of(90 * S), (135, 0), "it was over before the request");
        assert_eq!(of(104 * S), (135, 0), "it was over before the attempt");
        assert_eq!(of(125 * S), (155, 20));
        assert_eq!(of(705 * S), (735, 600));
        assert_eq!(of(706 * S), (735, 600));
        assert_eq!(of(i64::MAX), (735, 600));
        let deadline = Deadline::of(100 * S, Duration::ZERO, Duration::from_secs(1), 0);
        assert_eq!((deadline.left(100 * S), deadline.left(102 * S)), (Duration::from_secs(1), Duration::ZERO));
    }
}
