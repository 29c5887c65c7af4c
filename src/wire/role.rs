//! The eight roles, and the choice of one by a task's words.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Who does a task. A role is a queue: any number of workers serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Drives runs: plan, dispatch, rework, answer.
    Orchestrator,
    /// Breaks a goal into tasks.
    Planner,
    /// Finds what the goal and the attached files say.
    Researcher,
    /// Writes files.
    Coder,
    /// Runs tests on files, in the sandbox.
    Qa,
    /// Reads files and finds faults.
    Reviewer,
    /// Writes the README of the result.
    Documenter,
    /// Makes one answer of all results.
    Synthesizer,
}

/// A word that names no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown role {0:?}; the roles are {roles}", roles = Role::names())]
pub struct UnknownRole(pub String);

/// Words that choose a role for a task that has none, in the order in which they are looked at.
const WORDS: [(Role, &[&str]); 5] = [
    (Role::Documenter, &["document", "documents", "documentation", "readme", "readmes"]),
    (Role::Researcher, &["research", "find", "finds", "search"]),
    (Role::Coder, &["code", "codes", "implement", "implements", "write", "writes"]),
    (Role::Qa, &["test", "tests", "validate", "validates"]),
    (Role::Reviewer, &["review", "reviews", "check", "checks"]),
];

impl Role {
    /// All roles, in the order in which a run usually needs them.
    pub const ALL: [Role; 8] = [
        Role::Orchestrator,
        Role::Planner,
        Role::Researcher,
        Role::Coder,
        Role::Qa,
        Role::Reviewer,
        Role::Documenter,
        Role::Synthesizer,
    ];

    /// The role's name: subject token, consumer name, file name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Orchestrator => "orchestrator",
            Role::Planner => "planner",
            Role::Researcher => "researcher",
            Role::Coder => "coder",
            Role::Qa => "qa",
            Role::Reviewer => "reviewer",
            Role::Documenter => "documenter",
            Role::Synthesizer => "synthesizer",
        }
    }

    /// All names, for people.
    pub fn names() -> String {
        Self::ALL.map(Role::name).join(", ")
    }

    /// True for the roles whose reply is a verdict on a coder's files.
    pub fn checks(self) -> bool {
        matches!(self, Role::Qa | Role::Reviewer)
    }

    /// True for the roles that a plan may give a task to.
    pub fn plannable(self) -> bool {
        self != Role::Orchestrator
    }

    /// The role for a task that the plan left unassigned, by its whole words; the planner when no word tells.
    pub fn for_words(description: &str) -> Role {
        let lower = description.to_lowercase();
        let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).collect();
        WORDS
            .iter()
            .find(|(_, names)| names.iter().any(|name| words.contains(name)))
            .map_or(Role::Planner, |(role, _)| *role)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| UnknownRole(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_choose_and_the_documenter_is_looked_at_first() {
        for (text, role) in [
            ("Write the README", Role::Documenter),
            ("Document the code", Role::Documenter),
            ("Write documentation for the tests", Role::Documenter),
            ("Search for prior art", Role::Researcher),
            ("Find and implement it", Role::Researcher),
            ("IMPLEMENT fibonacci", Role::Coder),
            ("Write tests", Role::Coder),
            ("Validate the parser.", Role::Qa),
            ("test: the parser", Role::Qa),
            ("Review it", Role::Reviewer),
            ("Check-up", Role::Reviewer),
            ("The latest decoder finder", Role::Planner),
            ("Overwritten preview, contested", Role::Planner),
            ("", Role::Planner),
        ] {
            assert_eq!(Role::for_words(text), role, "{text:?}");
        }
    }

    #[test]
    fn names_round_trip_and_others_are_refused_by_name() {
        for role in Role::ALL {
            assert_eq!(role.name().parse::<Role>().unwrap(), role);
        }
        let refused = "tester".parse::<Role>().unwrap_err().to_string();
        assert!(refused.contains("\"tester\"") && refused.contains("reviewer"), "{refused}");
    }
}
