//! A run's record, and how a run looks to people.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Artifact, Failure, ItemView, Role, RunId, TaskId, Tenant, Usage, WIRE_VERSION};

/// What is kept of a run besides its facts: phase, owner, generation, counters. It changes only with the phase, so
/// a run of n tasks costs O(n) bytes; what is done is what has a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Wire version.
    pub v: u32,
    /// Where the run stands.
    pub status: RunStatus,
    /// The orchestrator that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Raised by `retry` alone; the run's result is stored under it.
    pub generation: u32,
    /// Revision of the plan in force; 0 before there is one.
    pub plan: u32,
    /// Takeovers since the run last got a result or changed its phase.
    pub takeovers: u32,
    /// Results that were there at the last takeover.
    pub results_seen: u64,
    /// When it was submitted, in seconds since 1970, by the clock of the door.
    pub submitted_at: i64,
    /// What the generation began from, when it is not the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
}

/// Where a new generation of a run begins: what is done stays, the rest is done again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// The first attempt of each task in this generation; its budgets of rework and retries count from there. A task that
    /// is kept begins with the attempt that was completed.
    pub first: BTreeMap<TaskId, u32>,
    /// Requests that were sent before; loops are looked for, and exchanges counted, in what came after.
    pub messages: usize,
    /// When it was asked for, by the server's clock, in nanoseconds since 1970; its time counts from there.
    #[serde(default)]
    pub at: i64,
    /// What was spent before, by role; its budgets count what came after.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spent: BTreeMap<Role, Usage>,
}

/// Which delivery holds a run. `seq` and `at` are the server's, so that two holders can be put in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Stream sequence of the delivery.
    pub seq: u64,
    /// When the server stored it, in nanoseconds since 1970.
    pub at: i64,
    /// Drawn anew at each claim.
    pub nonce: String,
}

/// Where a run stands. The names are A2A's, so that bridges map one to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Accepted, not yet held by an orchestrator.
    Submitted,
    /// Held, planning or executing.
    Working,
    /// Waits for a person.
    InputRequired,
    /// Done.
    Completed,
    /// Ended without an answer.
    Failed,
    /// Stopped by a person.
    Canceled,
    /// Refused.
    Rejected,
    /// About to be removed.
    Expired,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Waits for others.
    Pending,
    /// On its queue or with a worker.
    InProgress,
    /// Has a good result.
    Completed,
    /// Has a failure.
    Failed,
    /// Was stopped.
    Canceled,
}

/// A run as `show` and `oarlock.control.status` give it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// Wire version.
    pub v: u32,
    /// The run.
    pub run: RunId,
    /// Where it stands.
    pub status: RunStatus,
    /// The user's words.
    pub goal: String,
    /// On whose account it is.
    #[serde(default, skip_serializing_if = "Tenant::is_default")]
    pub tenant: Tenant,
    /// Its tasks, in the plan's order, the planner's and the synthesizer's included.
    pub tasks: Vec<TaskView>,
    /// The answer, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// What the answer rests on, one line each, from data alone: the verdict of its tests, and what in the result is doubted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// Everything that was doubted so far, also in attempts that were done again; at most 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The files of the result.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
    /// What it cost so far.
    #[serde(default)]
    pub usage: Usage,
    /// What waits for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<ItemView>,
    /// The keys of what people said that this version cannot read; it counts for nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
}

/// One task of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskView {
    /// Its id.
    pub id: TaskId,
    /// What to do.
    pub description: String,
    /// Who does it.
    pub role: Role,
    /// Where it stands.
    pub status: TaskStatus,
    /// The tasks that it needs the results of.
    pub dependencies: Vec<TaskId>,
    /// The attempt in force; 0 before the first.
    pub attempt: u32,
    /// What it replied, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// The verdict, for a check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<bool>,
}

/// A line of `oarlock.control.list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The run.
    pub run: RunId,
    /// Where it stands.
    pub status: RunStatus,
    /// When it was submitted, in seconds since 1970.
    pub submitted_at: i64,
}

impl RunRecord {
    /// The record of a run that was just accepted.
    pub fn submitted(now: i64) -> Self {
        Self {
            v: WIRE_VERSION,
            status: RunStatus::Submitted,
            owner: None,
            generation: 1,
            plan: 0,
            takeovers: 0,
            results_seen: 0,
            submitted_at: now,
            restart: None,
        }
    }
}

impl RunStatus {
    /// True when nothing more will happen unless somebody asks for a retry.
    pub fn terminal(self) -> bool {
        !matches!(self, RunStatus::Submitted | RunStatus::Working | RunStatus::InputRequired)
    }

    /// The name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            RunStatus::Submitted => "submitted",
            RunStatus::Working => "working",
            RunStatus::InputRequired => "input_required",
            RunStatus::Completed => "completed",
            RunStatus::Failed => "failed",
            RunStatus::Canceled => "canceled",
            RunStatus::Rejected => "rejected",
            RunStatus::Expired => "expired",
        }
    }
}
