//! One exchange between two parties, as the history keeps it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::subject::attempt;
use super::{Allowance, ContentHash, Role, RunId, StateView, TaskId, UnknownRole, WIRE_VERSION};

/// What one party said to another. Requests are kept in the history bucket; their replies are in the result stream
/// and are not written a second time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Wire version.
    pub v: u32,
    /// Who speaks.
    pub from: Party,
    /// Who is spoken to.
    pub to: Party,
    /// Request, response or question.
    #[serde(rename = "type")]
    pub kind: MessageType,
    /// What is said; long content is cut here and whole under `metadata.reference`.
    pub content: String,
    /// Where it belongs.
    pub metadata: Metadata,
    /// What the task shows of the shared state, which changes: kept with the request, so that whoever makes the task again makes
    /// the same one.
    #[serde(default, skip_serializing_if = "StateView::is_empty")]
    pub state: StateView,
}

/// The kinds of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageType {
    /// Do this.
    Request,
    /// This came of it.
    Response,
    /// I must know this first.
    Question,
}

/// Where a message belongs and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// The attempt, from 1.
    #[serde(deserialize_with = "attempt")]
    pub attempt: u32,
    /// Hash of everything that the task gives its worker, deadline, budget and the numbers in evidence left out: equal hashes
    /// are equal work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<ContentHash>,
    /// Bytes of the whole content.
    pub bytes: u64,
    /// Messages between the goal and this one, itself included, on the longest way: 1 + the most hops of the messages that led
    /// to it in this generation of the run (the plan, dependencies, earlier attempts, checks). 0 where an older version wrote it.
    #[serde(default)]
    pub hops: u32,
    /// Notes of people that the task was given, the first so many of the run's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub notes: usize,
    /// Subject where the whole content is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What was reserved for it of the run's budget; given back by its reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Allowance>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A party of an exchange: the user, or a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Party {
    /// The person or program that asked.
    User,
    /// A role.
    Role(Role),
}

impl Message {
    /// A message of this build's version.
    pub fn new(from: Party, to: Party, kind: MessageType, content: String, metadata: Metadata) -> Self {
        Self { v: WIRE_VERSION, from, to, kind, content, metadata, state: StateView::default() }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::User => f.write_str("user"),
            Party::Role(role) => role.fmt(f),
        }
    }
}

impl FromStr for Party {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        if text == "user" { Ok(Party::User) } else { text.parse().map(Party::Role) }
    }
}

impl TryFrom<String> for Party {
    type Error = UnknownRole;
    fn try_from(text: String) -> Result<Self, UnknownRole> {
        text.parse()
    }
}

impl From<Party> for String {
    fn from(party: Party) -> String {
        party.to_string()
    }
}
