//! A task on a role's queue, and its one reply.

use serde::{Deserialize, Serialize};

use super::subject::{TaskSubject, attempt};
use super::{
    Allowance, ContentHash, Failure, FilePath, Finding, Note, Outcome, Report, Role, RunId, StateChange, StateView,
    TaskId, Usage, WIRE_VERSION, limits,
};

/// One unit of work for one role: everything its worker needs, inline or by reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Wire version.
    pub v: u32,
    /// The run that it belongs to.
    pub run: RunId,
    /// Its id in the run.
    pub id: TaskId,
    /// The orchestrator's count of tries, from 1 to [`limits::ATTEMPT_MAX`]; a redelivery is the same attempt.
    #[serde(deserialize_with = "attempt")]
    pub attempt: u32,
    /// Who does it.
    pub role: Role,
    /// What to do; at most [`limits::DESCRIPTION_BYTES_MAX`] bytes.
    pub description: String,
    /// The user's words, unchanged.
    pub goal: Content,
    /// What the tasks that this one depends on replied.
    #[serde(default)]
    pub context: Vec<ContextItem>,
    /// Why the attempt before was not good enough.
    #[serde(default)]
    pub evidence: Vec<ContextItem>,
    /// What reviewers found in the attempt before, in short, for a coder to answer by id; whole in the evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// The files to work on: attached, and written by the tasks before.
    #[serde(default)]
    pub files: Vec<Artifact>,
    /// The run's shared state, as it was when the task was first asked for.
    #[serde(default, skip_serializing_if = "StateView::is_empty")]
    pub state: StateView,
    /// What people added to the goal while the run went on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// The role that asks, when the task is a question to answer in prose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<Role>,
    /// Whether a person is there who can be asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attended: bool,
    /// How long the worker may take, from the moment it starts, in milliseconds.
    pub limit_ms: u64,
    /// What its worker may spend on models; no bound of the run's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Allowance>,
}

/// What one earlier task replied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextItem {
    /// The task.
    pub task: TaskId,
    /// Its role.
    pub role: Role,
    /// The attempt that this is the reply of.
    #[serde(deserialize_with = "attempt")]
    pub attempt: u32,
    /// The reply's text.
    pub content: Content,
}

/// Text, or where it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Content {
    /// The text itself.
    Inline {
        /// The text.
        text: String,
    },
    /// The content of the reply that is stored on this subject of the result stream.
    Result {
        /// The subject.
        subject: String,
    },
    /// The text of the run's goal, in the bucket of runs.
    Goal,
}

/// A file that a role produced or a user attached; its parts are in the blob stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its name in the workspace.
    pub path: FilePath,
    /// Hash of the whole content.
    pub sha256: ContentHash,
    /// Bytes of the whole content.
    pub bytes: u64,
    /// Whose blobs it is among: the role that wrote it, or the orchestrator for attached files.
    pub role: Role,
}

/// A task as it comes to a role's door in JSON. Plain text is the same as `{"description": text}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// What to do.
    pub description: String,
    /// Text that the worker should know, one item each.
    #[serde(default)]
    pub context: Vec<String>,
}

/// The one durable answer to a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Wire version.
    pub v: u32,
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// The attempt.
    #[serde(deserialize_with = "attempt")]
    pub attempt: u32,
    /// The role that answers.
    pub role: Role,
    /// What came of it.
    pub outcome: Outcome,
    /// What it cost.
    #[serde(default)]
    pub usage: Usage,
    /// Which worker answered: service name, host and process.
    #[serde(default)]
    pub worker: String,
    /// What in a run's result is contradicted by what is stored, one sentence each; only a run's own reply has any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
    /// Hash of the words that the model was asked with, when one was asked: who looks at the task later can tell whether the
    /// role's prompt has changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<ContentHash>,
    /// What it proposes to change in the shared state. A completed reply counts once all of this was changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<StateChange>,
}

impl Task {
    /// Its identity, as it stands in subjects.
    pub fn subject(&self) -> TaskSubject {
        TaskSubject { role: self.role, run: self.run.clone(), task: self.id.clone(), attempt: self.attempt }
    }

    /// A reply to this task.
    pub fn reply(&self, outcome: Outcome) -> Reply {
        Reply::new(self.role, self.run.clone(), self.id.clone(), self.attempt, outcome)
    }
}

impl Content {
    /// Text that travels inside.
    pub fn inline(text: impl Into<String>) -> Self {
        Content::Inline { text: text.into() }
    }
}

impl Ask {
    /// Reads what came to a role's door: JSON when it starts with `{`, plain text otherwise.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(payload).map_err(|error| format!("the request is not UTF-8 text ({error})"))?;
        let ask = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| {
                format!(
                    "the request starts with '{{' but is not a task in JSON ({error}); send plain text or {{\"description\": \"…\"}}"
                )
            })?
        } else {
            Ask { description: text.to_owned(), context: Vec::new() }
        };
        ask.checked()
    }

    fn checked(self) -> Result<Self, String> {
        if self.description.trim().is_empty() {
            return Err("the task is empty; say in plain words what should be done".into());
        }
        if self.description.len() > limits::DESCRIPTION_BYTES_MAX {
            let (bytes, max) = (self.description.len(), limits::DESCRIPTION_BYTES_MAX);
            return Err(format!("the task has {bytes} bytes, more than description_bytes_max {max}"));
        }
        let context: usize = self.context.iter().map(String::len).sum();
        if context > limits::INLINE_BYTES_MAX {
            return Err(format!(
                "the context has {context} bytes, more than inline_bytes_max {}",
                limits::INLINE_BYTES_MAX
            ));
        }
        Ok(self)
    }
}

impl Reply {
    /// A reply of this build's version, without usage and worker.
    pub fn new(role: Role, run: RunId, task: TaskId, attempt: u32, outcome: Outcome) -> Self {
        let (usage, worker) = (Usage::default(), String::new());
        let (doubts, state) = (Vec::new(), Vec::new());
        Self { v: WIRE_VERSION, run, task, attempt, role, outcome, usage, worker, doubts, prompt: None, state }
    }

    /// The identity of the task that it answers, as it stands in subjects.
    pub fn subject(&self) -> TaskSubject {
        TaskSubject { role: self.role, run: self.run.clone(), task: self.task.clone(), attempt: self.attempt }
    }

    /// The verdict, when it is the reply of a check.
    pub fn passed(&self) -> Option<bool> {
        self.report().and_then(Report::passed)
    }

    /// What the result of a run rests on, one line each, from data alone: the verdict of its tests, and the doubts. Prose
    /// cannot change it.
    pub fn evidence(&self) -> Vec<String> {
        let verdict = match self.report() {
            Some(Report::Tests(tests)) => Some(tests.line()),
            _ => None,
        };
        verdict.into_iter().chain(self.doubts.iter().map(|doubt| format!("doubt: {doubt}"))).collect()
    }

    /// The text of the reply: the content of a completed one, the question, the failure's message otherwise.
    pub fn text(&self) -> &str {
        match &self.outcome {
            Outcome::Completed { content, .. } => content,
            Outcome::Question(question) => &question.text,
            Outcome::Failed { failure } => &failure.message,
            Outcome::Canceled { reason } => reason,
        }
    }

    /// The failure, if it is one.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.outcome {
            Outcome::Failed { failure } => Some(failure),
            _ => None,
        }
    }

    /// The question, if it is one.
    pub fn question(&self) -> Option<&super::Question> {
        match &self.outcome {
            Outcome::Question(question) => Some(question),
            _ => None,
        }
    }

    /// The files that it names.
    pub fn artifacts(&self) -> &[Artifact] {
        match &self.outcome {
            Outcome::Completed { artifacts, .. } => artifacts,
            _ => &[],
        }
    }

    /// The typed part, if it has one.
    pub fn report(&self) -> Option<&Report> {
        match &self.outcome {
            Outcome::Completed { report, .. } => report.as_ref(),
            _ => None,
        }
    }

    /// The JSON of this reply; one over [`limits::PAYLOAD_BYTES_MAX`] becomes a failure that names the bound.
    pub fn to_payload(&self) -> Vec<u8> {
        let content = self.text().len();
        let json = to_json(self);
        if json.len() <= limits::PAYLOAD_BYTES_MAX && content <= limits::REPLY_CONTENT_BYTES_MAX {
            return json;
        }
        let message = format!(
            "the reply of {} has {} bytes ({content} of content), more than payload_bytes_max {} or \
             reply_content_bytes_max {}; put long output into files",
            self.role,
            json.len(),
            limits::PAYLOAD_BYTES_MAX,
            limits::REPLY_CONTENT_BYTES_MAX
        );
        let failure = Failure::again(super::FailureKind::TooLarge, message);
        to_json(&Reply { outcome: Outcome::Failed { failure }, state: Vec::new(), ..self.clone() })
    }
}

/// JSON of a wire type. These types hold nothing that JSON cannot, so this cannot fail.
pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
