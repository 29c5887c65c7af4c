//! The scripts of the tales, and who plays in them.

use std::time::Duration;

use oarlock::wire::Role;
use serde_json::json;

use crate::case::Tale;
use crate::story::{answer_rule, ask_rule, findings, json_rule, plan_rule, script, text_rule};

/// A value of the shared state that is there before the run, and holds ["begun"].
pub const NOTES: &str = "notes";

/// A tale's script, the roles that serve in it, and the orchestrators' settings.
pub struct Told {
    pub script: String,
    pub cast: &'static [Role],
    pub settings: &'static [(&'static str, &'static str)],
}

const SMALL: &[Role] = &[Role::Planner, Role::Researcher, Role::Documenter, Role::Synthesizer];
const WITH_REVIEWER: &[Role] = &[Role::Planner, Role::Documenter, Role::Reviewer, Role::Synthesizer];
const NO_SYNTHESIZER: &[Role] = &[Role::Planner, Role::Researcher, Role::Documenter];
const NO_RESEARCHER: &[Role] = &[Role::Planner, Role::Documenter, Role::Synthesizer];
const NO_DOCUMENTER: &[Role] = &[Role::Planner, Role::Researcher, Role::Synthesizer];

/// Long enough that nothing is late, short enough that an alarm rings within a test.
const PATIENT: &[(&str, &str)] = &[("OARLOCK_TIMEOUT_S", "12")];
const IMPATIENT: &[(&str, &str)] = &[("OARLOCK_TIMEOUT_S", "3")];
const FORGETFUL: &[(&str, &str)] = &[("OARLOCK_TIMEOUT_S", "12"), ("OARLOCK_RETENTION_S", "1")];

/// How long a documenter takes that somebody is to be struck beside.
const BUSY: Duration = Duration::from_millis(600);
/// How long one takes that is never waited for.
const ENDLESS: Duration = Duration::from_secs(20);

pub fn told(tale: Tale) -> Told {
    let (cast, settings, script) = match tale {
        Tale::Rework => (WITH_REVIEWER, PATIENT, rework()),
        Tale::Failing => (NO_SYNTHESIZER, PATIENT, failing()),
        Tale::Timeout => (NO_DOCUMENTER, IMPATIENT, row(100)),
        Tale::Pause => (SMALL, PATIENT, failing_once(json!({ "status": 503 }))),
        Tale::Retry => (SMALL, PATIENT, failing_once(json!({ "status": 400 }))),
        Tale::Generations => (SMALL, PATIENT, failing_twice()),
        Tale::Cancel => (SMALL, PATIENT, row(millis(ENDLESS))),
        Tale::Drain => (SMALL, PATIENT, row(millis(BUSY))),
        Tale::Expire => (SMALL, FORGETFUL, row(100)),
        Tale::Proposing => (SMALL, PATIENT, proposing()),
        Tale::Asking => (NO_RESEARCHER, PATIENT, asking()),
        _ => (SMALL, PATIENT, row(200)),
    };
    Told { script, cast, settings }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

/// Two tasks in a row and an answer.
fn row(documenter_ms: u64) -> String {
    script(&[
        plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]),
        json_rule(Role::Researcher, 50, &findings()),
        text_rule(Role::Documenter, documenter_ms, "# It\n\nIt is made."),
        text_rule(Role::Synthesizer, 50, "It is made."),
    ])
}

/// The researcher adds to the shared state, and the documenter sees it.
fn proposing() -> String {
    let mut found = findings();
    found["state"] = json!([
        { "op": "append", "name": NOTES, "value": "found" },
        { "op": "merge", "name": "count", "value": { "found": 1 } }
    ]);
    let mut documenter = text_rule(Role::Documenter, 100, "# It\n\nIt is made.");
    documenter["match"]["user_contains"] = "[\"begun\",\"found\"]".into();
    script(&[
        plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]),
        json_rule(Role::Researcher, 50, &found),
        documenter,
        text_rule(Role::Synthesizer, 50, "It is made."),
    ])
}

/// The documenter asks a task that is not there, and then a person.
fn asking() -> String {
    script(&[
        plan_rule(&[(Role::Documenter, &[])]),
        ask_rule(Role::Documenter, "t1", 1, "t9", "Which words?"),
        ask_rule(Role::Documenter, "t1", 2, "user", "For whom is it?"),
        answer_rule(Role::Documenter, "t1", "nobody answered in time", &json!("# It\n\nIt is made.")),
        text_rule(Role::Synthesizer, 50, "It is made."),
    ])
}

/// The reviewer wants one change, and gets it.
fn rework() -> String {
    let finding = json!([{ "file": "README.md", "text": "say more" }]);
    let mut first = json_rule(Role::Reviewer, 50, &json!({ "verdict": "changes", "findings": finding }));
    first["match"]["attempt"] = 1.into();
    script(&[
        plan_rule(&[(Role::Documenter, &[]), (Role::Reviewer, &[1])]),
        first,
        json_rule(Role::Reviewer, 50, &json!({ "verdict": "approve", "findings": [] })),
        text_rule(Role::Documenter, 100, "# It\n\nIt is made."),
        text_rule(Role::Synthesizer, 50, "It is made."),
    ])
}

/// The second research fails for good while the documenter is still at work.
fn failing() -> String {
    script(&[
        plan_rule(&[(Role::Documenter, &[]), (Role::Researcher, &[]), (Role::Researcher, &[2])]),
        json!({ "match": { "role": "researcher", "task_id": "t3" }, "fault": { "status": 400 } }),
        json_rule(Role::Researcher, 200, &findings()),
        text_rule(Role::Documenter, millis(ENDLESS), "# It"),
    ])
}

/// The researcher's first attempt fails.
fn failing_once(fault: serde_json::Value) -> String {
    let first = json!({ "match": { "role": "researcher", "attempt": 1 }, "fault": fault });
    let rest: serde_json::Value = serde_json::from_str(&row(100)).unwrap();
    script(&[vec![first], rest["rules"].as_array().unwrap().clone()].concat())
}

/// The researcher's first attempt fails for good, and the second one for a while.
fn failing_twice() -> String {
    let second = json!({ "match": { "role": "researcher", "attempt": 2 }, "fault": { "status": 503 } });
    let rest: serde_json::Value = serde_json::from_str(&failing_once(json!({ "status": 400 }))).unwrap();
    script(&[vec![second], rest["rules"].as_array().unwrap().clone()].concat())
}
