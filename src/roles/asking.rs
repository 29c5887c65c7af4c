//! Whom a role may ask before it answers, and how its model learns of it. A role that may ask nobody sees no word of it.

use serde_json::{Value, json};

use super::definition::RoleDefinition;
use super::prompt::tame;
use crate::store::Store;
use crate::wire::{Asked, PlanTask, Question, Role, Task, TaskId, limits};

/// Bytes of another task's description, of those that may be asked.
const OTHER_BYTES_MAX: usize = 120;

/// Whom a role may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Askable {
    /// The person who gave the goal.
    User,
    /// Whoever did another task, by its id.
    Tasks,
    /// Any worker of a role.
    Role(Role),
}

impl Askable {
    /// True when a question goes to one of these.
    pub fn covers(self, to: &Asked) -> bool {
        match (self, to) {
            (Askable::User, Asked::User) | (Askable::Tasks, Asked::Task(_)) => true,
            (Askable::Role(role), Asked::Role(to)) => role == *to,
            _ => false,
        }
    }
}

impl std::str::FromStr for Askable {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "user" => Ok(Askable::User),
            "tasks" => Ok(Askable::Tasks),
            _ => match text.parse::<Role>() {
                Ok(Role::Orchestrator) | Err(_) => {
                    Err(format!("asks names {text:?}; it can be \"user\", \"tasks\", or a role that has a model"))
                }
                Ok(role) => Ok(Askable::Role(role)),
            },
        }
    }
}

impl std::fmt::Display for Askable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Askable::User => f.write_str("user"),
            Askable::Tasks => f.write_str("the id of another task"),
            Askable::Role(role) => role.fmt(f),
        }
    }
}

/// Whom the worker of a task may ask: nobody at a door, and the user only when somebody is there.
pub(super) fn askable(definition: &RoleDefinition, task: &Task) -> Vec<Askable> {
    let in_run = task.id != TaskId::ask();
    let there = |one: &&Askable| in_run && (**one != Askable::User || task.attended);
    definition.asks.iter().filter(there).copied().collect()
}

/// The shape of a question.
pub(super) fn shape() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["to", "text"],
        "properties": {"to": {"type": "string"}, "text": {"type": "string"}}
    })
}

/// Reads a question; the error is for the model.
pub(super) fn read(value: &Value, asks: &[Askable]) -> Result<Question, Vec<String>> {
    let word = |name: &str| value[name].as_str().unwrap_or_default().trim().to_owned();
    let (to, text) = (Asked::from(word("to")), word("text"));
    let (bytes, bytes_max) = (text.len(), limits::DESCRIPTION_BYTES_MAX);
    match () {
        () if !asks.iter().any(|one| one.covers(&to)) => {
            Err(vec![format!("{:?} cannot be asked; you may ask {}", to.to_string(), names(asks))])
        }
        () if text.is_empty() => Err(vec!["the question has no \"text\"".into()]),
        () if bytes > bytes_max => {
            Err(vec![format!("the question has {bytes} bytes, more than description_bytes_max {bytes_max}")])
        }
        () => Ok(Question { to, text }),
    }
}

fn names(asks: &[Askable]) -> String {
    let name = |one: &Askable| match one {
        Askable::User => "\"user\", the person who gave the goal".to_owned(),
        Askable::Tasks => "another task by its id, such as \"t2\"".to_owned(),
        Askable::Role(role) => format!("\"{role}\""),
    };
    asks.iter().map(name).collect::<Vec<_>>().join("; ")
}

/// The other tasks of the run, one a line, for whoever may ask them; empty when they cannot be read.
pub(super) async fn others(store: &Store, task: &Task, asks: &[Askable]) -> String {
    if !asks.contains(&Askable::Tasks) {
        return String::new();
    }
    let Ok(Some(recorded)) = store.runs.record(&task.run).await else { return String::new() };
    let Ok(Some(plan)) = store.runs.plan(&task.run, recorded.record.plan).await else { return String::new() };
    let line = |other: &PlanTask| {
        let what = limits::cut(other.description.lines().next().unwrap_or_default(), OTHER_BYTES_MAX);
        format!("\n- {} ({}): {}", other.id, other.role, tame(&what))
    };
    plan.tasks.iter().filter(|other| other.id != task.id).map(line).collect()
}

/// What is added to the prompt of a role that may ask, with the other tasks.
pub(super) fn words(asks: &[Askable], others: &str) -> String {
    let tasks = if others.is_empty() { String::new() } else { format!(" The other tasks are:{others}") };
    format!(
        "\n\nIf something that you cannot decide yourself stands nowhere above, you can ask for it instead of answering, and get \
         the task again with the answer. Ask only what changes your work, once, in words that say all that is needed to \
         answer. You may ask {}.{tasks}",
        names(asks)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_may_be_asked_is_asked() {
        let asks: Vec<Askable> = ["user", "tasks", "reviewer"].iter().map(|name| name.parse().unwrap()).collect();
        let question = |to: &str, text: &str| read(&json!({"to": to, "text": text}), &asks);
        for (to, asked) in [
            ("user", Asked::User),
            (" t2 ", Asked::Task(TaskId::planned(2))),
            ("reviewer", Asked::Role(Role::Reviewer)),
        ] {
            assert_eq!(question(to, "Which?"), Ok(Question { to: asked, text: "Which?".into() }));
        }
        for (to, text, says) in [
            ("coder", "Which?", "you may ask \"user\""),
            ("somebody", "Which?", "\"somebody\" cannot be asked"),
            ("user", " ", "no \"text\""),
            ("user", &"x".repeat(20_000), "description_bytes_max"),
        ] {
            let complaints = question(to, text).unwrap_err().join("; ");
            assert!(complaints.contains(says), "{complaints}");
        }
    }
}
