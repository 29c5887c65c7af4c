//! Why a task could not be done. A failure is data: it is stored, shown, and decides what happens next.

use serde::{Deserialize, Serialize};

use super::limits;

/// A task's failure, in the reply that every path ends in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind, for programs.
    pub kind: FailureKind,
    /// What happened, to what, why, and what to do next, for people. At most [`limits::ERROR_BYTES_MAX`].
    pub message: String,
    /// Whether a new attempt may help.
    pub retry: Retry,
}

/// Whether the orchestrator should try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "when", rename_all = "snake_case")]
pub enum Retry {
    /// The same input will fail again.
    Never,
    /// A new attempt, with this failure as evidence. This version begins it at once.
    After {
        /// Milliseconds that should pass first.
        ms: u64,
    },
}

/// What kind of failure; unknown kinds of later versions are read as [`FailureKind::Internal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The task or goal is malformed.
    InvalidInput,
    /// A bound was hit; the message names it.
    TooLarge,
    /// Nobody answered within the limit; the message names the role.
    Timeout,
    /// The model's key is missing or wrong.
    ModelAuth,
    /// The model's server is unreachable, overloaded or out of quota.
    ModelUnavailable,
    /// The model's server refused the request: unknown model, malformed parameter.
    ModelRequest,
    /// The model refused to answer.
    ModelRefused,
    /// The model's answer was cut off by its length limit.
    ModelCutOff,
    /// The model's answer broke off: the connection or the stream ended before it did.
    ModelTruncated,
    /// What the model's server sent is no answer of a model, or a part of one that cannot be read.
    ModelMalformed,
    /// The model stopped for a pause and wants to be asked to go on.
    ModelPaused,
    /// The model's answer does not fit the schema, also after it was told so.
    ModelOutput,
    /// No model is configured.
    ModelMissing,
    /// A scripted model had no fitting rule.
    ModelScript,
    /// A file's path is not one that may be written.
    PathRefused,
    /// There is no file to work on.
    NoFiles,
    /// A stored file is missing or does not match its hash.
    Storage,
    /// Generated code could not be run in isolation.
    SandboxUnavailable,
    /// The plan is no plan.
    PlanInvalid,
    /// The run's limit on exchanges was reached.
    MaxIterations,
    /// A budget is spent; the message names it.
    BudgetExceeded,
    /// The run's recent messages repeat.
    RepeatedPattern,
    /// Attempt after attempt of a task brought nothing new.
    NoProgress,
    /// No task is ready and none is running.
    Deadlock,
    /// Checks still fail after all allowed attempts.
    ReworkExhausted,
    /// What a check said is no evidence: it judged other files, or its own worker's, or its tests cannot run.
    NoEvidence,
    /// The changes of shared state that a reply proposed could not be made.
    StateConflict,
    /// What waited for people was not decided in time.
    Unanswered,
    /// The task's worker died or vanished too often.
    Poison,
    /// The worker panicked.
    Panic,
    /// Anything else; the message tells.
    #[serde(other)]
    Internal,
}

impl Failure {
    /// A failure that a new attempt would meet again.
    pub fn never(kind: FailureKind, message: impl AsRef<str>) -> Self {
        Self { kind, message: limits::cut(message.as_ref(), limits::ERROR_BYTES_MAX), retry: Retry::Never }
    }

    /// A failure that a new attempt, told of it, may get past.
    pub fn again(kind: FailureKind, message: impl AsRef<str>) -> Self {
        Self { retry: Retry::After { ms: 0 }, ..Self::never(kind, message) }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.message)
    }
}
