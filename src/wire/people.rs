//! What people decide about a run: which of its results wait for them, and what they said. An input is written once and
//! never changed, so that who answered what and when stays known.

use serde::{Deserialize, Serialize};

use super::{ContentHash, ItemId, Plan, Role, TaskId, VoterId, WIRE_VERSION, limits, one_line};

/// Who speaks without a name; in a quorum such a vote would be anybody's, so there it does not count.
pub const NOBODY: &str = "somebody";
/// Digits of a plan's hash that tell one edit from another.
const SHOWN_HASH_DIGITS: usize = 16;

/// Which results of a run wait for people, as its goal says it. A role file can ask for its own with `approve: true`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gates {
    /// What waits.
    pub approve: Approve,
    /// Equal votes of different people that decide; 1 to [`limits::QUORUM_MAX`].
    pub quorum: u32,
    /// Seconds after which the default stands; 1 to [`limits::APPROVE_WITHIN_S_MAX`].
    pub within_s: u64,
    /// What stands when nobody decided in time.
    pub default: Otherwise,
    /// Whether somebody is there whom agents may ask. Without it nobody is asked, and no agent is told that it could.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ask: bool,
}

/// What of a run waits for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approve {
    /// Nothing.
    #[default]
    None,
    /// The plan.
    Plan,
    /// The plan, and the result of every task.
    All,
}

/// What stands when nobody decided in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// The run ends, with a failure of kind `unanswered`.
    #[default]
    Reject,
    /// It is approved; whoever asked a question decides by himself.
    Approve,
}

/// What somebody said about one item of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Wire version.
    pub v: u32,
    /// What it is about.
    pub item: ItemId,
    /// Who said it, in their own words: nobody has checked it. At most [`limits::WHO_BYTES_MAX`] bytes.
    pub by: String,
    /// What.
    pub says: Said,
}

/// What an input says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Said {
    /// It is good.
    Approve,
    /// It is not good.
    Reject {
        /// Why; at most [`limits::REASON_BYTES_MAX`] bytes.
        reason: String,
    },
    /// This plan instead; it needs no further approval.
    Edit {
        /// The plan.
        plan: Plan,
    },
    /// The answer to a question.
    Answer {
        /// The words; at most [`limits::ANSWER_BYTES_MAX`] bytes.
        text: String,
    },
    /// Something that the tasks from now on should know.
    Note {
        /// The words; at most [`limits::NOTE_BYTES_MAX`] bytes.
        text: String,
    },
    /// Nothing new is begun.
    Pause,
    /// The run goes on.
    Resume,
    /// The time is over: the default stands. Said by an orchestrator.
    Lapse,
    /// Half of the time is over, and it was told. Said by an orchestrator.
    Escalated,
}

/// A note as a task carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Who said it.
    pub by: String,
    /// The words.
    pub text: String,
}

/// One thing that waits for people, as `inbox` and `show` give it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemView {
    /// Its name in the run.
    pub item: ItemId,
    /// The task whose result it is, or that asks; `plan` for the plan, `run` for a pause of the whole run.
    pub task: TaskId,
    /// The task's role.
    pub role: Role,
    /// The attempt.
    pub attempt: u32,
    /// What is wanted of a person.
    #[serde(default)]
    pub kind: ItemKind,
    /// What is to be approved, or what is asked, cut to [`limits::ERROR_BYTES_MAX`] bytes; of a plan, a line for each task
    /// that will be done, at most [`limits::PLAN_SHOWN_BYTES_MAX`] bytes together.
    pub text: String,
    /// Since when it waits, by the server's clock, in seconds since 1970.
    pub since: i64,
    /// When the default stands, in seconds since 1970.
    pub until: i64,
    /// What the default is.
    pub default: Otherwise,
    /// Equal votes that decide.
    pub quorum: u32,
    /// What was said so far.
    #[serde(default)]
    pub votes: Vec<Vote>,
}

/// What is wanted of a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// To approve a result, or to reject or edit it.
    #[default]
    Approval,
    /// To answer a question.
    Question,
    /// To let the run go on.
    Pause,
}

/// One input as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Who.
    pub by: String,
    /// What, in short.
    pub says: Word,
    /// When the server stored it, in seconds since 1970.
    pub at: i64,
}

/// What an input says, in short: an item may have many, and edits are large.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// The word for it, as in [`Said`]; a reader may not know it.
    pub kind: String,
    /// A rejection's reason, or of an edit how many tasks its plan has and the beginning of its hash; cut to
    /// [`limits::VOTE_BYTES_MAX`] bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

impl Word {
    /// The word for it.
    pub fn name(&self) -> &str {
        &self.kind
    }
}

impl Default for Gates {
    fn default() -> Self {
        let within_s = limits::APPROVE_WITHIN_S;
        Self { approve: Approve::None, quorum: 1, within_s, default: Otherwise::Reject, ask: false }
    }
}

impl Gates {
    /// # Errors
    /// The bound that is broken, in words.
    pub fn check(&self) -> Result<(), String> {
        let (quorum_max, within_max) = (limits::QUORUM_MAX, limits::APPROVE_WITHIN_S_MAX);
        if !(1..=quorum_max).contains(&self.quorum) {
            return Err(format!("the quorum is {}; it must be 1 to quorum_max {quorum_max}", self.quorum));
        }
        if !(1..=within_max).contains(&self.within_s) {
            let within = self.within_s;
            return Err(format!("within_s is {within}; it must be 1 to approve_within_s_max {within_max}"));
        }
        Ok(())
    }

    /// True for a goal that says nothing about people.
    pub fn are_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Input {
    /// An input of this build's version. Of `by`, control characters and what is over its bound are left out.
    pub fn new(item: ItemId, by: &str, says: Said) -> Self {
        let plain = one_line(by, limits::WHO_BYTES_MAX);
        let by = &plain[..plain.floor_char_boundary(limits::WHO_BYTES_MAX)];
        let by = if by.is_empty() { NOBODY } else { by };
        Self { v: WIRE_VERSION, item, by: by.to_owned(), says }
    }

    /// Under whose name it is kept: one vote of each person per item, one key per note.
    pub fn voter(&self) -> VoterId {
        match &self.says {
            Said::Note { text } => VoterId::of(&format!("{}\n{text}", self.by)),
            Said::Pause | Said::Resume => VoterId::set(),
            Said::Lapse => VoterId::lapse(),
            Said::Escalated => VoterId::escalated(),
            Said::Approve | Said::Reject { .. } | Said::Edit { .. } | Said::Answer { .. } => VoterId::of(&self.by),
        }
    }
}

impl Said {
    /// The word for it, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Said::Approve => "approve",
            Said::Reject { .. } => "reject",
            Said::Edit { .. } => "edit",
            Said::Answer { .. } => "answer",
            Said::Note { .. } => "note",
            Said::Pause => "pause",
            Said::Resume => "resume",
            Said::Lapse => "lapse",
            Said::Escalated => "escalated",
        }
    }

    /// The same in short, as votes are listed.
    pub fn in_short(&self) -> Word {
        let text = match self {
            Said::Reject { reason: text } | Said::Note { text } | Said::Answer { text } => {
                limits::cut(text, limits::VOTE_BYTES_MAX)
            }
            Said::Edit { plan } => {
                let hash = ContentHash::of(&serde_json::to_vec(plan).unwrap_or_default());
                format!("{} tasks, sha256 {}", plan.tasks.len(), &hash.as_str()[..SHOWN_HASH_DIGITS])
            }
            _ => String::new(),
        };
        Word { kind: self.name().to_owned(), text }
    }

    /// True when two votes count for the same: the reasons of a rejection may differ, plans may not.
    pub fn agrees(&self, other: &Said) -> bool {
        match (self, other) {
            (Said::Reject { .. }, Said::Reject { .. }) => true,
            (one, other) => one == other,
        }
    }
}

impl VoterId {
    /// The name that a person's inputs are kept under, whatever characters `who` has.
    pub fn of(who: &str) -> Self {
        Self::of_hash(&ContentHash::of(who.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_has_one_vote_and_a_note_its_own_key() {
        let item = ItemId::of(&TaskId::plan(), 1);
        let input = |by: &str, says| Input::new(item.clone(), by, says);
        let reject = |reason: &str| Said::Reject { reason: reason.into() };
        assert_eq!(input("ann", Said::Approve).voter(), input(" ann\n", reject("no")).voter());
        assert_ne!(input("ann", Said::Approve).voter(), input("bob", Said::Approve).voter());
        let note = |text: &str| input("ann", Said::Note { text: text.into() }).voter();
        assert!(note("a") == note("a") && note("a") != note("b"));
        assert!(reject("a").agrees(&reject("b")) && !reject("a").agrees(&Said::Approve));
        assert_eq!(input("\u{7}", Said::Pause).by, "somebody");
        assert_eq!(input(&"é".repeat(100), Said::Pause).by.len(), limits::WHO_BYTES_MAX);
    }

    #[test]
    fn gates_have_bounds_and_the_error_names_them() {
        assert_eq!(Gates::default().check(), Ok(()));
        let sized = |quorum, within_s| Gates { quorum, within_s, ..Gates::default() }.check().unwrap_err();
        assert!(sized(0, 1).contains("quorum_max") && sized(17, 1).contains("quorum_max"));
        assert!(sized(1, 0).contains("approve_within_s_max") && sized(1, u64::MAX).contains("approve_within_s_max"));
        let read: Gates = serde_json::from_str(r#"{"approve":"plan"}"#).unwrap();
        assert_eq!(read, Gates { approve: Approve::Plan, ..Gates::default() });
    }
}
