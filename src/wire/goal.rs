//! What a user asks for.

use serde::{Deserialize, Serialize};

use super::path::clashes;
use super::{Approve, Artifact, Budget, FilePath, Gates, Role, Tenant, WIRE_VERSION, limits};

/// A goal as it is kept: its words, and the files that came with it, by hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goal {
    /// Wire version.
    pub v: u32,
    /// The user's words, unchanged; at most [`limits::GOAL_BYTES_MAX`] bytes.
    pub text: String,
    /// Attached files, stored before the goal.
    #[serde(default)]
    pub attachments: Vec<Artifact>,
    /// What the run may spend; the operator's budget where it names nothing.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub budget: Budget,
    /// What waits for people.
    #[serde(default, skip_serializing_if = "Gates::are_default")]
    pub gates: Gates,
    /// Roles whose results wait for people because the operator wants it: as the files of the orchestrators' roles said when
    /// the goal was accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gated: Vec<Role>,
    /// On whose account the run is.
    #[serde(default, skip_serializing_if = "Tenant::is_default")]
    pub tenant: Tenant,
}

/// A goal as it comes to a door in JSON. Plain text is the same as `{"goal": text}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoalRequest {
    /// The user's words.
    pub goal: String,
    /// Files to work on.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// What the run may spend, at most the operator's; the operator's where it names nothing.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub budget: Budget,
    /// What waits for people.
    #[serde(default, skip_serializing_if = "Gates::are_default")]
    pub gates: Gates,
    /// On whose account the run is; `default` when it names nobody.
    #[serde(default, skip_serializing_if = "Tenant::is_default")]
    pub tenant: Tenant,
}

/// One attached file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its name in the workspace.
    pub path: FilePath,
    /// Its content.
    pub body: AttachmentBody,
}

/// A file's content: small text inside the request, anything else by hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AttachmentBody {
    /// UTF-8 text.
    Text {
        /// The text.
        text: String,
    },
    /// A blob that the caller has stored already, under the run id of its key.
    Stored {
        /// The stored file.
        artifact: Artifact,
    },
}

/// Why a request is no goal.
#[derive(Debug, thiserror::Error)]
pub enum GoalError {
    /// Nothing but white space.
    #[error("the goal is empty; say in plain words what should be made")]
    Empty,
    /// Too long.
    #[error("the goal has {0} bytes, more than goal_bytes_max {max}; attach long text as a file", max = limits::GOAL_BYTES_MAX)]
    TooLong(usize),
    /// Too long once its control characters are written as JSON writes them.
    #[error("the goal has {0} bytes as JSON, more than payload_bytes_max {max}; is it text?", max = limits::PAYLOAD_BYTES_MAX)]
    TooLongAsJson(usize),
    /// Not text.
    #[error("the goal is not UTF-8 text (first bad byte at {0})")]
    NotUtf8(usize),
    /// Starts with `{` but is not the JSON that is expected.
    #[error("the request starts with '{{' but is not a goal in JSON ({0}); send plain text or {{\"goal\": \"…\"}}")]
    BadJson(String),
    /// Files that cannot stand side by side.
    #[error("the attachments cannot stand side by side: {0}")]
    Clash(String),
    /// A number of its gates is out of bounds.
    #[error("{0}")]
    Gates(String),
    /// Too many attachments.
    #[error("the goal has {0} attachments, more than attachments_max {max}", max = limits::ATTACHMENTS_MAX)]
    TooManyAttachments(usize),
}

impl GoalRequest {
    /// Reads what came to a door: JSON when it starts with `{`, plain text otherwise. `payload` may be anything.
    pub fn parse(payload: &[u8]) -> Result<Self, GoalError> {
        let text = std::str::from_utf8(payload).map_err(|error| GoalError::NotUtf8(error.valid_up_to()))?;
        let request = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| GoalError::BadJson(error.to_string()))?
        } else {
            Self { goal: text.to_owned(), ..Self::default() }
        };
        request.checked()
    }

    /// The request, when its sizes are within their limits.
    pub fn checked(self) -> Result<Self, GoalError> {
        if self.goal.trim().is_empty() {
            return Err(GoalError::Empty);
        }
        if self.goal.len() > limits::GOAL_BYTES_MAX {
            return Err(GoalError::TooLong(self.goal.len()));
        }
        let json = serde_json::Value::from(self.goal.as_str()).to_string().len();
        if json > limits::PAYLOAD_BYTES_MAX {
            return Err(GoalError::TooLongAsJson(json));
        }
        if self.attachments.len() > limits::ATTACHMENTS_MAX {
            return Err(GoalError::TooManyAttachments(self.attachments.len()));
        }
        let faults = clashes(self.attachments.iter().map(|attachment| &attachment.path));
        if !faults.is_empty() {
            return Err(GoalError::Clash(faults.join("; ")));
        }
        self.gates.check().map_err(GoalError::Gates)?;
        Ok(self)
    }
}

impl Goal {
    /// A goal with these words and stored files, and no budget of its own.
    pub fn new(text: String, attachments: Vec<Artifact>) -> Self {
        let (budget, gates, tenant) = (Budget::default(), Gates::default(), Tenant::default());
        Self { v: WIRE_VERSION, text, attachments, budget, gates, gated: Vec::new(), tenant }
    }

    /// True when something of the run may wait for people.
    pub fn asks_people(&self) -> bool {
        !self.gated.is_empty() || self.gates.approve != Approve::None || self.gates.ask
    }

    /// True when both ask for the same, whatever the operator adds to either.
    pub fn same(&self, other: &Self) -> bool {
        *self == Self { gated: self.gated.clone(), ..other.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_are_goals_and_everything_else_says_why() {
        assert_eq!(GoalRequest::parse(b"make it").unwrap().goal, "make it");
        assert_eq!(GoalRequest::parse(br#" {"goal":"make it"}"#).unwrap().goal, "make it");
        let long = vec![b'x'; limits::GOAL_BYTES_MAX + 1];
        for (payload, says) in [
            (&b" \n"[..], "empty"),
            (br#"{"goal":""}"#, "empty"),
            (br#"{"goal":"x","gates":{"quorum":0}}"#, "quorum_max"),
            (br#"{"goal":7}"#, "expected a string"),
            (br#"{"goal":"x","tenant":"a.b"}"#, "tenant \"a.b\" must be 1 to 32"),
            (br#"{"goal":"x","budget":{"tokens":0}}"#, "budget tokens is 0"),
            (br#"{"goal":"x","budget":{"usd":-1}}"#, "budget usd is -1"),
            (br#"{"goal":"x","budget":{"tokens":"many"}}"#, "invalid type"),
            (b"{oops", "plain text or"),
            (b"\xff\xfe", "UTF-8"),
            (&long, "goal_bytes_max"),
        ] {
            let error = GoalRequest::parse(payload).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
