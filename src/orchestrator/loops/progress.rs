//! Rework that brings nothing new.
//!
//! An attempt that was sent back counts as progress when it brought something that no attempt before it had: another set of
//! files (other words, where there are none), or another outcome of the tests. What was there before is not new, so going to
//! and fro between two versions is none. `rework_max` bounds rework that advances; this ends rework that does not, earlier.

use std::collections::BTreeSet;

use super::likeness::normal;
use crate::orchestrator::evidence::was_evidence;
use crate::orchestrator::facts::Facts;
use crate::orchestrator::gates::was_rejected;
use crate::orchestrator::next::{checks_of, rejects, targets};
use crate::wire::{Failure, FailureKind, Plan, PlanTask, Reply, Report, TaskId, TestReport, limits};

/// Bytes of a check's words that the failure shows, for each attempt.
const SHOWN_BYTES: usize = 300;
/// Attempts that the failure shows.
const SHOWN_ATTEMPTS_MAX: usize = 8;

/// One attempt that checks sent back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Effort {
    pub(super) attempt: u32,
    /// The files that its checks saw, by name and hash.
    pub(super) made: Vec<String>,
    /// What its tests came to: counts, and the names of those that failed.
    pub(super) came: Vec<String>,
    /// Who sent it back, in his words.
    pub(super) said: String,
}

/// The failure of a task whose newest `max` attempts, each sent back by a check, brought nothing new.
pub(in crate::orchestrator) fn stalled(facts: &Facts, plan: &Plan, task: &TaskId, max: u32) -> Option<Failure> {
    let efforts = efforts(facts, plan, task);
    let idle = idle(&efforts);
    if idle.len() < max as usize {
        return None;
    }
    let shown = |effort: &Effort| format!("{task} #{}: {}", effort.attempt, limits::cut(&effort.said, SHOWN_BYTES));
    let from = idle.len().saturating_sub(SHOWN_ATTEMPTS_MAX);
    let shown: Vec<String> = idle[from..].iter().map(shown).collect();
    let message = format!(
        "No progress: the last {} attempts of task {task} brought no new file and no other outcome of the tests, the limit \
         no_progress_max is {max}; say more clearly what is wanted, use another model, or raise it (OARLOCK_NO_PROGRESS_MAX, \
         or no_progress_max in oarlock.toml): {}",
        idle.len(),
        shown.join(" → ")
    );
    Some(Failure::never(FailureKind::NoProgress, message))
}

/// How many attempts of a task in this generation were done and then sent back by checks: its rework, and no attempt that
/// failed by itself.
pub(in crate::orchestrator) fn sent_back(facts: &Facts, plan: &Plan, task: &TaskId) -> u32 {
    let by_people = |effort: &Effort| was_rejected(facts, task, effort.attempt);
    efforts(facts, plan, task).iter().filter(|effort| !by_people(effort)).fold(0, |count, _| count + 1)
}

/// How many attempts of a task in this generation people sent back.
pub(in crate::orchestrator) fn rejected(facts: &Facts, task: &TaskId) -> u32 {
    facts
        .completed(task)
        .into_iter()
        .filter(|attempt| was_rejected(facts, task, *attempt))
        .fold(0, |count, _| count + 1)
}

/// The newest efforts in a row that brought nothing which no effort before them had.
pub(super) fn idle(efforts: &[Effort]) -> &[Effort] {
    let (mut made, mut came) = (BTreeSet::new(), BTreeSet::new());
    let mut from = 0;
    for (index, effort) in efforts.iter().enumerate() {
        if made.insert(&effort.made) | came.insert(&effort.came) {
            from = index + 1;
        }
    }
    &efforts[from..]
}

/// The attempts of this generation that checks sent back, in their order. What a check says is about all tasks that it looks
/// at, so they are looked at together: one that has nothing to mend is not idle while another one is being mended.
fn efforts(facts: &Facts, plan: &Plan, task: &TaskId) -> Vec<Effort> {
    let checks = checks_of(plan, std::slice::from_ref(task));
    let together: BTreeSet<TaskId> = checks.iter().flat_map(|check| targets(plan, check)).collect();
    let attempts = facts.completed(task);
    let effort = |(index, attempt): (usize, &u32)| {
        let end = attempts.get(index + 1).map_or(u32::MAX, |next| next - 1);
        let verdict = |check: &PlanTask| {
            let told = facts.last_completed(&check.id, *attempt..=end)?;
            was_evidence(facts, plan, check, told).then_some(told)
        };
        let verdicts: Vec<&Reply> = checks.iter().map(|check| verdict(check)).collect::<Option<_>>()?;
        let no = verdicts.iter().find(|reply| rejects(reply))?;
        let in_sight = |id: &TaskId| facts.last_completed(id, facts.first(id)..=end);
        Some(Effort {
            attempt: *attempt,
            made: together.iter().filter_map(in_sight).flat_map(made).collect(),
            came: verdicts.iter().filter_map(|reply| came(reply)).collect(),
            said: format!("{}: {}", no.role, no.text()),
        })
    };
    attempts.iter().enumerate().filter_map(effort).collect()
}

fn made(reply: &Reply) -> Vec<String> {
    let named = |file: &crate::wire::Artifact| format!("{} {} {}", reply.task, file.path, file.sha256.as_str());
    let mut files: Vec<String> = reply.artifacts().iter().map(named).collect();
    if files.is_empty() {
        files.push(format!("{} says {:x}", reply.task, normal(reply.text())));
    }
    files.sort_unstable();
    files
}

fn came(reply: &Reply) -> Option<String> {
    let Some(Report::Tests(tests)) = reply.report() else { return None };
    let TestReport { outcome, tests: all, ok, failed, errors, skipped, failures, .. } = tests;
    let names: BTreeSet<&str> = failures.iter().map(|test| test.name.as_str()).collect();
    let counts = format!("{outcome} {all} {ok} {failed} {errors} {skipped}");
    Some(format!("{} {counts} {}", reply.task, names.into_iter().collect::<Vec<_>>().join(" ")))
}
