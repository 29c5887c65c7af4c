//! A dead letter: a task that killed its workers, kept for a person to look at.

use serde::{Deserialize, Serialize};

use super::{Failure, Role, RunId, TaskId, WIRE_VERSION};

/// A task that was given up. The newest one of a task is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Wire version.
    pub v: u32,
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// The attempt that was given up.
    pub attempt: u32,
    /// Whose task it was.
    pub role: Role,
    /// Why; the same failure is stored as the task's reply.
    pub failure: Failure,
    /// How often it was delivered; of a run, how often it was taken over.
    pub deliveries: u64,
    /// Which worker gave it up.
    pub worker: String,
    /// The message as it was on the queue, so that it can be put there again; empty for a run.
    pub payload: String,
}

impl DeadLetter {
    /// A dead letter of this build's version.
    pub fn new(
        to: super::subject::TaskSubject,
        failure: Failure,
        deliveries: u64,
        worker: String,
        payload: &[u8],
    ) -> Self {
        let payload = String::from_utf8_lossy(payload).into_owned();
        let super::subject::TaskSubject { role, run, task, attempt } = to;
        Self { v: WIRE_VERSION, run, task, attempt, role, failure, deliveries, worker, payload }
    }
}
