//! Floor 0: what is said on the wire, and nothing that does anything.
//!
//! Every type that two processes exchange or that a store keeps is here, with its version, its limits and its
//! subject, so that a worker in another language needs this room and `docs/protocol.md` alone. Policy: types are
//! tagged, unknown fields are tolerated, unknown versions are refused, and each type has a golden file in
//! `tests/golden/`, so that a change of the wire is a change of a file that a reviewer sees.

mod budget;
mod dead;
mod event;
mod failure;
mod goal;
mod id;
pub mod limits;
mod message;
mod path;
mod people;
pub mod plan;
mod question;
mod report;
mod role;
mod run;
mod state;
pub mod subject;
mod task;
mod tenant;
mod text;
mod usage;

pub use budget::{Allowance, Budget, Usd};
pub use dead::DeadLetter;
pub use event::{Event, EventKind, TokenEvent};
pub use failure::{Failure, FailureKind, Retry};
pub use goal::{Attachment, AttachmentBody, Goal, GoalError, GoalRequest};
pub use id::{BadId, ContentHash, ItemId, RunId, TaskId, Tenant, VoterId, run_and_task};
pub use message::{Message, MessageType, Metadata, Party};
pub use path::{BadPath, FilePath, clashes, ends_with_path};
pub use people::{Approve, Gates, Input, ItemKind, ItemView, NOBODY, Note, Otherwise, Said, Vote, Word};
pub use plan::{Plan, PlanTask};
pub use question::{Asked, Question};
pub use report::{
    AnswerVerdict, Answers, Canary, Finding, FindingAnswer, Outcome, Report, Review, TestFailure, TestReport, Verdict,
    code_hash,
};
pub use role::{Role, UnknownRole};
pub use run::{Owner, Restart, RunRecord, RunStatus, RunSummary, RunView, TaskStatus, TaskView};
pub use state::{
    STATE_NAME_RULE, STATE_RESERVED, StateChange, StateOp, StateRefusal, StateSeen, StateVerdict, StateView,
    is_state_name,
};
pub use subject::Root;
pub use task::{Artifact, Ask, Content, ContextItem, Reply, Task};
pub use tenant::{DayPart, DaySum, Purse, Spending, TenantDay};
pub use text::{acts, json_bytes, one_line, readable};
pub use usage::Usage;

/// The version that every wire type of this build carries in its field `v`.
pub const WIRE_VERSION: u32 = 1;

/// The version that a payload claims, or `None` when it is no JSON object with a number `v`.
pub fn version_of(payload: &[u8]) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        v: u32,
    }
    serde_json::from_slice::<Versioned>(payload).ok().map(|seen| seen.v)
}
