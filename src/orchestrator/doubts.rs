//! What workers say, held against what is stored. A doubt changes nothing in a run: checks decide. It is told and shown, so
//! that nobody has to take a worker's word; what it cannot see is in docs/guards.md.

use std::collections::BTreeSet;

use super::claims::{files_written, tests_passed};
use super::evidence::no_evidence;
use super::facts::Facts;
use super::next::{Attempts, checks_of, rejects, targets};
use crate::wire::{
    AnswerVerdict, Answers, FilePath, Outcome, Plan, PlanTask, Reply, Report, Role, TaskId, TestReport, ends_with_path,
    limits,
};

/// Bytes of one doubt.
const DOUBT_BYTES_MAX: usize = 400;
/// Doubts that are shown of one run.
pub(super) const DOUBTS_MAX: usize = 50;

/// Everything in a reply that what is stored contradicts, one sentence each.
pub(super) fn doubts(facts: &Facts, attempts: &Attempts, reply: &Reply) -> Vec<String> {
    let (Some(plan), Outcome::Completed { .. }) = (&facts.plan, &reply.outcome) else { return Vec::new() };
    let mut found = Vec::new();
    match (plan.task(&reply.task), reply.role) {
        (Some(task), Role::Qa | Role::Reviewer) => {
            let void = no_evidence(facts, plan, attempts, task, reply);
            found.extend(void.map(|why| format!("this is no evidence: {why}")));
            found.extend(of_tests(facts, plan, task, reply));
        }
        (Some(task), Role::Coder) => {
            found.extend(missing_files(facts, reply));
            found.extend(of_answers(facts, plan, task, reply));
        }
        (_, Role::Documenter) => found.extend(of_prose(facts, plan, reply)),
        (None, Role::Synthesizer) => {
            found.extend(of_prose(facts, plan, reply));
            found.extend(missing_files(facts, reply));
        }
        _ => {}
    }
    let void = facts.verdicts.get(&(reply.task.clone(), reply.attempt)).filter(|verdict| !verdict.void.is_empty());
    found.extend(
        void.map(|verdict| format!("nothing was changed of the shared state as it proposed: {}", verdict.void)),
    );
    found.iter().map(|doubt| limits::cut(doubt, DOUBT_BYTES_MAX)).collect()
}

/// The doubts of these replies, each with the attempt that it is about.
pub(super) fn of_all<'a>(facts: &Facts, attempts: &Attempts, replies: impl Iterator<Item = &'a Reply>) -> Vec<String> {
    let named = |reply: &'a Reply| {
        let name = format!("{} #{} ({})", reply.task, reply.attempt, reply.role);
        doubts(facts, attempts, reply).into_iter().map(move |doubt| format!("{name}: {doubt}"))
    };
    replies.flat_map(named).take(DOUBTS_MAX).collect()
}

/// A known fault that the tests missed; and what the authors of code that failed its tests said about tests.
fn of_tests(facts: &Facts, plan: &Plan, task: &PlanTask, reply: &Reply) -> Vec<String> {
    let Some(Report::Tests(tests)) = reply.report() else { return Vec::new() };
    let survived = tests.canary.as_ref().filter(|canary| canary.survived);
    let mut found: Vec<String> = survived
        .map(|canary| format!("its tests did not notice a known fault ({}); they prove little", canary.fault))
        .into_iter()
        .collect();
    if !tests.passed {
        let authors = targets(plan, task);
        let authors = authors.iter().filter_map(|id| facts.last_completed(id, 1..=reply.attempt));
        found.extend(authors.filter_map(|author| {
            let claim = tests_passed(author.text()).into_iter().next()?;
            Some(format!("task {} says \"{}\", and {}", author.task, claim.quote, tests.line()))
        }));
    }
    found
}

/// Claims of passed tests in prose, against the newest test run of each qa task.
fn of_prose(facts: &Facts, plan: &Plan, reply: &Reply) -> Option<String> {
    let of_qa = plan.tasks.iter().filter(|task| task.role == Role::Qa);
    let runs: Vec<&TestReport> = of_qa
        .filter_map(|task| match facts.last_completed(&task.id, 1..=u32::MAX)?.report() {
            Some(Report::Tests(tests)) => Some(tests),
            _ => None,
        })
        .collect();
    let failed = runs.iter().find(|run| !run.passed);
    let sum = |number: fn(&TestReport) -> u32| runs.iter().map(|run| number(run)).fold(0, u32::saturating_add);
    let mut true_counts: BTreeSet<u32> = runs.iter().flat_map(|run| [run.tests, run.ok]).collect();
    true_counts.extend([sum(|run| run.tests), sum(|run| run.ok)]);
    tests_passed(reply.text()).into_iter().find_map(|claim| match (failed, claim.count) {
        _ if runs.is_empty() => Some(format!("it says \"{}\", and no test was run", claim.quote)),
        (Some(failed), _) => Some(format!("it says \"{}\", and {}", claim.quote, failed.line())),
        (None, Some(count)) if !true_counts.contains(&count) => {
            Some(format!("it says \"{}\", and {} tests were run, {} ok", claim.quote, sum(|r| r.tests), sum(|r| r.ok)))
        }
        _ => None,
    })
}

/// Files that a reply says were written and that nobody stored.
fn missing_files(facts: &Facts, reply: &Reply) -> Vec<String> {
    let stored = facts.results.values().flat_map(Reply::artifacts).chain(&facts.goal.attachments);
    let known: Vec<&FilePath> = stored.map(|file| &file.path).collect();
    let there = |name: &String| known.iter().any(|path| ends_with_path(&path.as_str().to_lowercase(), name));
    let missing = files_written(reply.text()).into_iter().filter(|name| !there(name));
    missing.map(|name| format!("it says that {name} was written, and no such file is stored")).collect()
}

/// Findings that a coder left unanswered, and faults that it says it mended without changing a file.
fn of_answers(facts: &Facts, plan: &Plan, task: &PlanTask, reply: &Reply) -> Vec<String> {
    let reviews = checks_of(plan, std::slice::from_ref(&task.id)).into_iter();
    let reviews =
        reviews.filter_map(|check| facts.before_work(&check.id, reply.attempt)).filter(|review| rejects(review));
    let findings = reviews.filter_map(|review| match review.report() {
        Some(Report::Review(review)) => Some(&review.findings),
        _ => None,
    });
    let answers = match reply.report() {
        Some(Report::Answers(Answers { answers })) => &answers[..],
        _ => &[],
    };
    let unanswered = findings.flatten().filter(|found| !answers.iter().any(|answer| answer.finding == found.id));
    let mut found: Vec<String> =
        unanswered.map(|finding| format!("it does not answer finding {}", finding.id)).take(DOUBTS_MAX).collect();
    let fixed = answers.iter().find(|answer| answer.verdict == AnswerVerdict::Fixed);
    if let Some(fixed) = fixed
        && unchanged(facts, &task.id, reply)
    {
        found.push(format!("it says that finding {} is fixed, and no file has changed", fixed.finding));
    }
    found
}

fn unchanged(facts: &Facts, id: &TaskId, reply: &Reply) -> bool {
    let set = |files: &[crate::wire::Artifact]| -> BTreeSet<(String, String)> {
        files.iter().map(|file| (file.path.to_string(), file.sha256.to_string())).collect()
    };
    set(facts.files_before(id, reply.attempt)) == set(reply.artifacts())
}
