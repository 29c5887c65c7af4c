//! What a task's worker must know before it can go on, and who is to tell.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Role, TaskId};

/// Characters of a name that nobody has.
pub const NAME_CHARS_MAX: usize = 40;

/// A question of one task's worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Who is asked.
    pub to: Asked,
    /// What; at most [`super::limits::DESCRIPTION_BYTES_MAX`] bytes.
    pub text: String,
}

/// Who is asked: the user, a role, or a task of the run, which stands for what came of it. On the wire it is the name alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Asked {
    /// The person who gave the goal, or another who answers for them.
    User,
    /// Any worker of a role.
    Role(Role),
    /// A worker of the task's role, which sees what the task replied: it is asked when the task is done.
    Task(TaskId),
    /// A name that nobody has, cut to [`NAME_CHARS_MAX`] characters. Such a question is refused, and its asker told.
    Nobody(String),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::User => f.write_str("user"),
            Asked::Role(role) => role.fmt(f),
            Asked::Task(task) => task.fmt(f),
            Asked::Nobody(name) => f.write_str(name),
        }
    }
}

impl From<String> for Asked {
    fn from(text: String) -> Asked {
        let nobody = || Asked::Nobody(text.chars().take(NAME_CHARS_MAX).collect());
        match text.parse::<Role>() {
            _ if text == "user" => Asked::User,
            Ok(Role::Orchestrator) => nobody(),
            Ok(role) => Asked::Role(role),
            // A role's name has no digit, and a task's id that a model can know always has one.
            Err(_) if text.bytes().any(|byte| byte.is_ascii_digit()) => {
                text.parse().map_or_else(|_| nobody(), Asked::Task)
            }
            Err(_) => nobody(),
        }
    }
}

impl From<Asked> for String {
    fn from(asked: Asked) -> String {
        asked.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_a_role_and_a_task_can_be_asked() {
        for name in ["user", "researcher", "t2", "t2q1"] {
            let asked = Asked::from(name.to_owned());
            assert!(!matches!(asked, Asked::Nobody(_)) && asked.to_string() == name, "{name}");
        }
        for name in ["", "orchestrator", "somebody", "t 2", "t2>"] {
            assert_eq!(Asked::from(name.to_owned()), Asked::Nobody(name.to_owned()));
        }
        assert_eq!(Asked::from("x".repeat(500)).to_string().len(), NAME_CHARS_MAX);
    }
}
