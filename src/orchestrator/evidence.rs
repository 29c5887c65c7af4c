//! Which replies of checks are evidence. A pass counts for the bytes that were judged and for no others, and nobody judges
//! his own work: so a report says which code it is about, and its worker is another one than the author.
//!
//! A reply that is none asks for a new attempt of the check, as a failure would, within the same bound; a report without
//! the code's hash is none either, as soon as there is code.

use super::dispatch::files_in_sight;
use super::facts::Facts;
use super::next::Attempts;
use crate::wire::{Outcome, Plan, PlanTask, Reply, Report, Role, TestReport, code_hash};

/// Why a check's reply is no evidence about what is in force; `None` when it is, or when what it is about is not in force yet.
pub(super) fn no_evidence(
    facts: &Facts,
    plan: &Plan,
    attempts: &Attempts,
    check: &PlanTask,
    reply: &Reply,
) -> Option<String> {
    if !check.role.checks() || !matches!(reply.outcome, Outcome::Completed { .. }) {
        return None;
    }
    let mut authors = Vec::new();
    for ancestor in plan.ancestors(&check.id) {
        let attempt = *attempts.get(&ancestor.id)?;
        let before = facts.result(&ancestor.id, attempt).filter(|_| attempt <= reply.attempt)?;
        let Outcome::Completed { .. } = before.outcome else { return None };
        authors.extend((ancestor.role == Role::Coder).then_some(before));
    }
    // Without code there is nothing to tie a verdict to.
    let code = code_hash(&files_in_sight(facts, attempts, &check.id, reply.attempt, check.role))?;
    if let Some(author) = authors.iter().find(|author| !author.worker.is_empty() && author.worker == reply.worker) {
        return Some(format!("its worker {} wrote the code of task {} itself", reply.worker, author.task));
    }
    let report = match (check.role, reply.report()) {
        (Role::Qa, Some(Report::Tests(tests))) if contradicts_itself(tests) => {
            return Some("it says that the tests passed, and its own numbers do not".into());
        }
        (Role::Qa, Some(report @ Report::Tests(_))) | (Role::Reviewer, Some(report @ Report::Review(_))) => report,
        _ => return Some(format!("it holds no report of a {}", check.role)),
    };
    match report.judged() {
        Some(judged) if *judged == code => None,
        Some(judged) => Some(format!(
            "it is about other files: it judged the code {}, and the code in force is {}",
            &judged.as_str()[..12],
            &code.as_str()[..12]
        )),
        None => Some("it does not say which code it judged (`judged` in its report)".into()),
    }
}

/// True when a check's reply was evidence about what was in force when the check was asked: the newest attempts below its own,
/// because whatever is made anew gets an attempt above all that was built on it.
pub(super) fn was_evidence(facts: &Facts, plan: &Plan, check: &PlanTask, reply: &Reply) -> bool {
    let then = |task: &PlanTask| (task.id.clone(), facts.newest_until(&task.id, reply.attempt));
    let before = plan.ancestors(&check.id).into_iter().map(then).collect();
    no_evidence(facts, plan, &before, check, reply).is_none()
}

fn contradicts_itself(tests: &TestReport) -> bool {
    tests.passed && (tests.ok == 0 || tests.failed + tests.errors > 0 || tests.exit.is_some_and(|code| code != 0))
}
