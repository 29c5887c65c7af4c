//! What happened in a run, for people and tools. Events inform; no decision is taken from one.

use serde::{Deserialize, Serialize};

use super::{Role, RunId, TaskId, Usage, WIRE_VERSION};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Wire version.
    pub v: u32,
    /// The run.
    pub run: RunId,
    /// What happened.
    pub kind: EventKind,
    /// The task, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Its role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Its attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// One line for a person.
    pub text: String,
    /// What it cost, when it ended something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// The kinds of event; the last token of the event's subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// An orchestrator holds the run now.
    Claimed,
    /// A plan is stored.
    Planned,
    /// A task was put on its queue.
    Dispatched,
    /// A worker began a task.
    Started,
    /// A worker called a tool, or could not.
    Tool,
    /// A task is done.
    Completed,
    /// A check found faults.
    Rejected,
    /// A task failed.
    Failed,
    /// A task must know something first.
    Question,
    /// The run has its result.
    Finished,
    /// What a worker says is contradicted by what is stored, or is no evidence, or its tests missed a known fault.
    Doubted,
    /// A role takes no task for a while, because its model's provider asks for a pause.
    Paused,
    /// Most of a budget is spent.
    Budget,
    /// Something waits for a person; the text begins with the item's name.
    Waiting,
    /// Half of the time that something may wait for a person is over.
    Escalated,
    /// A person said something about the run.
    Answered,
}

impl EventKind {
    /// All kinds; each is kept in the stream of events.
    pub const ALL: [EventKind; 16] = [
        EventKind::Claimed,
        EventKind::Planned,
        EventKind::Dispatched,
        EventKind::Started,
        EventKind::Tool,
        EventKind::Completed,
        EventKind::Rejected,
        EventKind::Failed,
        EventKind::Question,
        EventKind::Finished,
        EventKind::Doubted,
        EventKind::Paused,
        EventKind::Budget,
        EventKind::Waiting,
        EventKind::Escalated,
        EventKind::Answered,
    ];

    /// The kind as a subject token.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Claimed => "claimed",
            EventKind::Planned => "planned",
            EventKind::Dispatched => "dispatched",
            EventKind::Started => "started",
            EventKind::Tool => "tool",
            EventKind::Completed => "completed",
            EventKind::Rejected => "rejected",
            EventKind::Failed => "failed",
            EventKind::Question => "question",
            EventKind::Finished => "finished",
            EventKind::Doubted => "doubted",
            EventKind::Paused => "paused",
            EventKind::Budget => "budget",
            EventKind::Waiting => "waiting",
            EventKind::Escalated => "escalated",
            EventKind::Answered => "answered",
        }
    }
}

/// What a model is writing, while it writes it. Published live on `<root>.event.<run>.token` and kept nowhere; a busy or
/// broken connection loses some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEvent {
    /// Wire version.
    pub v: u32,
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// Its role.
    pub role: Role,
    /// Its attempt.
    pub attempt: u32,
    /// Bytes of the answer that came before this text: a gap means that some were lost, 0 that the model begins, or
    /// begins again.
    pub offset: u64,
    /// What was written, as the model wrote it.
    pub text: String,
}

impl Event {
    /// An event about the whole run.
    pub fn of_run(run: &RunId, kind: EventKind, text: impl Into<String>) -> Self {
        let run = run.clone();
        Self { v: WIRE_VERSION, run, kind, task: None, role: None, attempt: None, text: text.into(), usage: None }
    }

    /// An event about one attempt of a task.
    pub fn of_task(run: &RunId, task: &TaskId, role: Role, attempt: u32, kind: EventKind, text: &str) -> Self {
        let about = Self::of_run(run, kind, text);
        Self { task: Some(task.clone()), role: Some(role), attempt: Some(attempt), ..about }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is missing in the list would be kept by nobody.
    #[test]
    fn all_kinds_are_in_the_list() {
        let known = serde_json::from_str::<EventKind>("\"x\"").unwrap_err().to_string();
        assert_eq!(known.matches('`').count() / 2 - 1, EventKind::ALL.len(), "{known}");
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
