//! Places where a process can be made to die, so that a test can show what its death there costs.
//!
//! Every durable write goes through one publish and every acknowledgement through one slot, and both name the step that
//! they are: so there is no write and no acknowledgement of a run or task without a failpoint before and after it. What
//! decides nothing has none: events, nudges, heartbeats, and purges of what is over. Off, a failpoint costs one load of a
//! flag.

use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A step that changes what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// A door keeps a goal.
    Goal,
    /// A door keeps the record of a new run.
    Record,
    /// A run is put on the orchestrators' queue: a start, or a wake.
    Start,
    /// A redelivered run is put on the queue anew.
    Over,
    /// An orchestrator writes itself into the record.
    Claim,
    /// A plan is kept.
    Plan,
    /// The record names the plan.
    Adopt,
    /// A request is written into the history.
    History,
    /// A run takes of its tenant's day, or gives back.
    Spend,
    /// A task is put on its queue.
    Dispatch,
    /// What a person said is stored, or that the time to say it is over.
    Input,
    /// The record says that the run waits for people, and nobody holds it.
    Park,
    /// A task or an alarm is put on the schedule.
    Later,
    /// What the schedule gave back is put on its queue.
    Due,
    /// A deadline's failure is stored as the result.
    Late,
    /// A question that gets no answer has a failure for its result.
    Refuse,
    /// The run's own result is stored.
    Result,
    /// `canceled` is stored as the result of what a decision stopped.
    Cancel,
    /// The record says that the run is over.
    End,
    /// The record is without an owner again.
    Release,
    /// The record begins a new generation.
    Retry,
    /// The record says that the run is being removed.
    Expire,
    /// A worker's reply is stored.
    Reply,
    /// A dead letter is stored.
    Dead,
    /// A part of a file is stored.
    Blob,
    /// Shared state is written.
    State,
    /// The changes of shared state that a reply proposes are made, with the verdict on them.
    Decide,
    /// A message is acknowledged.
    Ack,
    /// A message is handed back.
    Nak,
}

/// On which side of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Nothing of it has left the process.
    Before,
    /// The server has confirmed it.
    After,
}

/// What happens at an armed failpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed, as by `kill -9`.
    Crash,
    /// The process is stopped, as by SIGSTOP, until somebody wakes it.
    Stop,
}

/// A failpoint: `dispatch:after`, or `dispatch:after:3` for the third time that it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failpoint {
    point: Point,
    side: Side,
    time: u32,
}

/// Text that is no failpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no failpoint; write <step>:before or <step>:after, with :N for the N-th time; steps: {steps}")]
pub struct BadFailpoint {
    text: String,
    steps: String,
}

struct Armed {
    at: Failpoint,
    fault: Fault,
    reached: AtomicU32,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

impl Point {
    /// All steps, in the order of a run's life.
    pub const ALL: [Point; 29] = [
        Point::Goal,
        Point::Record,
        Point::Start,
        Point::Over,
        Point::Claim,
        Point::Plan,
        Point::Adopt,
        Point::History,
        Point::Spend,
        Point::Dispatch,
        Point::Input,
        Point::Park,
        Point::Later,
        Point::Due,
        Point::Late,
        Point::Refuse,
        Point::Result,
        Point::Cancel,
        Point::End,
        Point::Release,
        Point::Retry,
        Point::Expire,
        Point::Reply,
        Point::Dead,
        Point::Blob,
        Point::State,
        Point::Decide,
        Point::Ack,
        Point::Nak,
    ];

    /// The step's name, its variant in lower case.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

impl FromStr for Failpoint {
    type Err = BadFailpoint;
    fn from_str(text: &str) -> Result<Self, BadFailpoint> {
        let bad = || {
            let steps: Vec<String> = Point::ALL.into_iter().map(Point::name).collect();
            BadFailpoint { text: text.chars().take(80).collect(), steps: steps.join(", ") }
        };
        let mut parts = text.trim().split(':');
        let step = parts.next().unwrap_or_default();
        let point = Point::ALL.into_iter().find(|point| point.name() == step).ok_or_else(bad)?;
        let side = match parts.next() {
            Some("before") => Side::Before,
            Some("after") => Side::After,
            _ => return Err(bad()),
        };
        let time = parts.next().map_or(Ok(1), str::parse).map_err(|_| bad())?;
        if parts.next().is_some() || time == 0 { Err(bad()) } else { Ok(Self { point, side, time }) }
    }
}

/// Arms the one failpoint of this process; a second call changes nothing.
pub fn arm(at: Failpoint, fault: Fault) {
    let _ = ARMED.set(Armed { at, fault, reached: AtomicU32::new(0) });
}

/// Says that a step is reached.
pub(crate) fn hit(point: Point, side: Side) {
    let Some(armed) = ARMED.get() else { return };
    if (armed.at.point, armed.at.side) != (point, side) {
        return;
    }
    if armed.reached.fetch_add(1, Ordering::Relaxed) + 1 == armed.at.time {
        tracing::warn!("failpoint {}:{side:?}: {:?}", point.name(), armed.fault);
        happen(armed.fault);
    }
}

#[cfg(unix)]
fn happen(fault: Fault) {
    use nix::sys::signal::{Signal, raise};
    let signal = if fault == Fault::Crash { Signal::SIGKILL } else { Signal::SIGSTOP };
    // To this thread: sent to the process, a stop can wait for another thread to take it, and this one goes on meanwhile.
    let _ = raise(signal);
}

#[cfg(not(unix))]
fn happen(_fault: Fault) {
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_can_be_named() {
        for point in Point::ALL {
            let parsed: Failpoint = format!("{}:after:2", point.name()).parse().unwrap();
            assert_eq!(parsed, Failpoint { point, side: Side::After, time: 2 });
        }
        for bad in
            ["", "dispatch", "dispatch:during", "dispatch:after:0", "dispatch:after:x", "sleep:before", "ack:after:1:1"]
        {
            assert!(bad.parse::<Failpoint>().unwrap_err().to_string().contains("dispatch"), "{bad}");
        }
    }
}
