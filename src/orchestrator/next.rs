//! What a run does next: a pure function of its facts, so that any holder, after any crash, decides alike.
//!
//! Rework is derived, never stored. Every task begins at attempt 1. A check that found faults raises its coder tasks to
//! a new attempt, once *all* checks of these coders have an answer, so that every holder sees the same evidence; whatever
//! depends on a raised task is raised with it. A verdict about other bytes than those in force counts for nothing
//! (`evidence`): its check is asked again.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::evidence::no_evidence;
use super::facts::Facts;
use super::gates::{self, Decision, Gate, rejected_for_good, unanswered};
use super::loops::progress;
use super::planning;
use super::proposals::outrun;
use super::questions::Questions;
use super::synthesis::{answer_step, no_answer};
use crate::roles::RetryPolicy;
use crate::wire::{ContentHash, Failure, FailureKind, Outcome, Plan, PlanTask, Reply, Retry, Role, TaskId, limits};

/// Bytes of a check's words that the failure of a run shows.
const SHOWN_BYTES: usize = 2_000;

/// The next step of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The planner's plan is good; keep it and look again.
    Adopt(Plan),
    /// These attempts should be on their way. Those that are already are named again.
    Want(Vec<Job>),
    /// These questions get no answer: each has this failure for its result.
    Refuse(Vec<(Job, Failure)>),
    /// All that is left to do waits for people.
    Wait,
    /// The run is done: the synthesizer has answered.
    Complete,
    /// The run cannot go on.
    Fail(Failure),
}

/// What decisions depend on beside the facts: the operator's choices.
#[derive(Clone, Debug)]
pub struct Rules {
    /// New attempts that a task may get because checks found faults, and as many because people rejected it.
    pub rework_max: u32,
    /// Of these, attempts in a row that bring nothing new: no new file, no other outcome of the tests.
    pub no_progress_max: u32,
    /// What happens after failures, per role; the default for a role that is not named.
    pub retries: HashMap<Role, RetryPolicy>,
}

impl Default for Rules {
    fn default() -> Self {
        let (rework_max, no_progress_max) = (limits::REWORK_MAX, limits::NO_PROGRESS_MAX);
        Self { rework_max, no_progress_max, retries: HashMap::new() }
    }
}

impl Rules {
    /// Attempts that one task can come to: rework, and retries of the role that has the most of them.
    pub fn attempts_max(&self) -> u32 {
        let retries = Role::ALL.into_iter().map(|role| self.retry(role).attempts).max().unwrap_or(0);
        1_u32.saturating_add(self.rework_max).saturating_add(retries)
    }

    pub(super) fn retry(&self, role: Role) -> RetryPolicy {
        self.retries.get(&role).copied().unwrap_or_default()
    }
}

/// One attempt of a task that should be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The task.
    pub task: TaskId,
    /// Its role; the orchestrator for a question to a person.
    pub role: Role,
    /// The attempt.
    pub attempt: u32,
    /// How long after its request it should begin.
    pub delay: Duration,
}

impl Job {
    /// True for a question to a person, which is written into the history and no more.
    pub(super) fn is_for_people(&self) -> bool {
        self.role == Role::Orchestrator
    }
}

/// The attempt in force of each planned task.
pub(super) type Attempts = BTreeMap<TaskId, u32>;

/// Decides the next step. A paused run begins nothing; what is under way goes on.
pub fn next(facts: &Facts, rules: &Rules) -> Step {
    match step(facts, rules) {
        _ if gates::forgotten(facts) => {
            let paused_s_max = limits::PAUSED_S_MAX;
            let message = format!("the run was paused, and nobody resumed it (paused_s_max {paused_s_max})");
            Step::Fail(Failure::never(FailureKind::Unanswered, message))
        }
        Step::Want(jobs) if gates::paused(facts).is_some() => {
            let jobs: Vec<Job> = jobs.into_iter().filter(|job| facts.was_asked(&job.task, job.attempt)).collect();
            if jobs.is_empty() { Step::Wait } else { Step::Want(jobs) }
        }
        step => step,
    }
}

fn step(facts: &Facts, rules: &Rules) -> Step {
    match &facts.plan {
        None => planning::plan_step(facts, rules),
        Some(plan) => match no_answer(facts).map_or_else(|| attempts(facts, plan, rules), Err) {
            Err(failure) => Step::Fail(failure),
            Ok(attempts) => work_step(facts, plan, &attempts, rules),
        },
    }
}

/// An attempt with its pause: none, unless the attempt before failed.
pub(super) fn job(facts: &Facts, rules: &Rules, task: &TaskId, role: Role, attempt: u32) -> Job {
    let asked = |reply: &Reply| match reply.failure()?.retry {
        Retry::After { ms } => Some(Duration::from_millis(ms)),
        Retry::Never => None,
    };
    let before = attempt.checked_sub(1).filter(|before| *before >= facts.first(task));
    let failed = before.and_then(|before| facts.result(task, before)).and_then(asked);
    let delay = failed.map(|asked| {
        let run = facts.requests.first().map(|entry| entry.message.metadata.run.as_str()).unwrap_or_default();
        let hash = ContentHash::of(format!("{run}.{task}.{attempt}").as_bytes());
        let share = f64::from(u16::from_str_radix(&hash.as_str()[..4], 16).unwrap_or(0)) / f64::from(u16::MAX);
        rules.retry(role).delay(facts.failures(task, attempt - 1), asked, share)
    });
    Job { task: task.clone(), role, attempt, delay: delay.unwrap_or_default() }
}

/// The attempt in force of every task, or why there can be none. It is never older than what was asked for or answered:
/// a later reply to an earlier attempt changes nothing.
pub(super) fn attempts(facts: &Facts, plan: &Plan, rules: &Rules) -> Result<Attempts, Failure> {
    let newest = |id: &TaskId| facts.newest(id).max(facts.first(id));
    let asked: Attempts = plan.tasks.iter().map(|task| (task.id.clone(), newest(&task.id))).collect();
    let mut attempts = asked.clone();
    loop {
        // All tasks speak about the same attempts, so their order in the plan means nothing.
        let mut raises = Vec::new();
        for task in &plan.tasks {
            if let Some(attempt) = raised(&Situation { facts, plan, asked: &asked, attempts: &attempts, rules }, task)?
            {
                raises.push((task.id.clone(), attempt));
            }
        }
        if raises.is_empty() {
            return Ok(attempts);
        }
        attempts.extend(raises);
    }
}

/// What a raise is decided from.
#[derive(Clone, Copy)]
struct Situation<'a> {
    facts: &'a Facts,
    plan: &'a Plan,
    /// The newest attempts that were asked for or answered.
    asked: &'a Attempts,
    /// The attempts in force.
    attempts: &'a Attempts,
    rules: &'a Rules,
}

/// The attempt that `task` must be raised to, above the one in force, if it must.
fn raised(situation: &Situation<'_>, task: &PlanTask) -> Result<Option<u32>, Failure> {
    let Situation { facts, plan, attempts, rules, .. } = *situation;
    let attempt = attempts[&task.id];
    let inherited = task.depends_on.iter().map(|id| attempts[id]).max().unwrap_or(1);
    if inherited > attempt {
        return Ok(Some(inherited));
    }
    let Some(reply) = facts.result(&task.id, attempt) else { return Ok(None) };
    if let Some(why) = no_evidence(facts, plan, attempts, task, reply) {
        return asked_again(situation, task, &why).map(Some);
    }
    match &reply.outcome {
        Outcome::Failed { failure } if failure.retry == Retry::Never => {
            Err(about(&format!("{} failed task {}", task.role, task.id), failure))
        }
        Outcome::Failed { failure } if facts.failures(&task.id, attempt) > rules.retry(task.role).attempts => {
            let (failed, retries) = (facts.failures(&task.id, attempt), rules.retry(task.role).attempts);
            let what = format!("{} failed task {} {failed} times (retry attempts {retries})", task.role, task.id);
            Err(about(&what, failure))
        }
        Outcome::Failed { failure } => outrun(facts, task, attempt, failure).map_or(Ok(Some(attempt + 1)), Err),
        Outcome::Canceled { reason } => {
            Err(Failure::never(FailureKind::Internal, format!("task {} was canceled: {reason}", task.id)))
        }
        Outcome::Question(_) => {
            let goes_on = Questions { facts, plan: Some(plan), rules }.goes_on(&task.id, attempt)?;
            Ok(goes_on.then_some(attempt + 1))
        }
        Outcome::Completed { .. } if rejects(reply) && targets(plan, task).is_empty() => {
            let text = limits::cut(reply.text(), SHOWN_BYTES);
            let message = format!("{} found faults in task {}, and nobody can mend them: {text}", task.role, task.id);
            Err(Failure::never(FailureKind::ReworkExhausted, message))
        }
        Outcome::Completed { .. } => match gates::gate(facts, reply) {
            Gate::Passed(Some(Decision::Unanswered)) => {
                Err(unanswered(facts, &format!("attempt {attempt} of task {}", task.id)))
            }
            Gate::Passed(Some(Decision::Rejected(why))) => {
                anew(situation, &task.id, progress::rejected(facts, &task.id))
                    .map(Some)
                    .map_err(|attempts| rejected_for_good(&format!("task {}", task.id), attempts, rules, &why))
            }
            _ => reworked(situation, task),
        },
    }
}

/// The next attempt of a check whose reply is no evidence, within as many tries at this code as a failure has.
fn asked_again(situation: &Situation<'_>, task: &PlanTask, why: &str) -> Result<u32, Failure> {
    let Situation { facts, plan, attempts, rules, .. } = *situation;
    let attempt = attempts[&task.id];
    let of_code = plan.ancestors(&task.id).iter().map(|before| attempts[&before.id]).max().unwrap_or(1);
    let of_task = (task.id.clone(), of_code.max(facts.first(&task.id)).min(attempt))..=(task.id.clone(), attempt);
    let void = |reply: &&Reply| no_evidence(facts, plan, attempts, task, reply).is_some();
    let tried = facts.results.range(of_task).map(|(_, reply)| reply).filter(void).fold(0, |count, _| count + 1);
    let retries = rules.retry(task.role).attempts;
    if tried > retries {
        let message = format!(
            "{} gave no evidence about the code that task {} is about, {tried} times (retry attempts {retries}): {why}; \
             look at its worker and its version",
            task.role, task.id
        );
        return Err(Failure::never(FailureKind::NoEvidence, message));
    }
    Ok(attempt + 1)
}

/// The attempt that follows when the one in force is not good enough: above every attempt of whatever builds on the task, so
/// that nothing made from the old work can count for the new. An error with how many were sent back, when these are too many:
/// checks may send a task back `rework_max` times, and people as often again.
fn anew(situation: &Situation<'_>, task: &TaskId, sent_back: u32) -> Result<u32, u32> {
    let Situation { plan, asked, rules, .. } = *situation;
    match sent_back > rules.rework_max {
        true => Err(sent_back),
        false => Ok(newest_built_on(plan, task, |id| asked[id]) + 1),
    }
}

/// A new attempt of a task that a check found faults with, once all checks of this attempt have spoken.
fn reworked(situation: &Situation<'_>, task: &PlanTask) -> Result<Option<u32>, Failure> {
    let Situation { facts, plan, attempts, rules, .. } = *situation;
    let attempt = attempts[&task.id];
    let checks = checks_of(plan, std::slice::from_ref(&task.id));
    let verdict = |check: &&PlanTask| {
        let told = facts.last_completed(&check.id, attempt..=attempts[&check.id])?;
        no_evidence(facts, plan, attempts, check, told).is_none().then_some(told)
    };
    let Some(verdicts) = checks.iter().map(verdict).collect::<Option<Vec<&Reply>>>() else { return Ok(None) };
    let Some(no) = verdicts.into_iter().find(|reply| rejects(reply)) else { return Ok(None) };
    let next = anew(situation, &task.id, progress::sent_back(facts, plan, &task.id)).map_err(|sent_back| {
        let (text, rework_max) = (limits::cut(no.text(), SHOWN_BYTES), rules.rework_max);
        let message = format!(
            "{} still finds faults in task {} after {sent_back} attempts (rework_max {rework_max}): {text}",
            no.role, task.id
        );
        Failure::never(FailureKind::ReworkExhausted, message)
    })?;
    match progress::stalled(facts, plan, &task.id, rules.no_progress_max) {
        Some(failure) => Err(failure),
        None => Ok(Some(next)),
    }
}

/// The newest attempt of a task and of all that builds on it.
pub(super) fn newest_built_on(plan: &Plan, id: &TaskId, attempt: impl Fn(&TaskId) -> u32) -> u32 {
    built_on(plan, id).map(|other| attempt(&other.id)).max().unwrap_or_default()
}

/// A task and all that builds on it.
fn built_on<'a>(plan: &'a Plan, id: &'a TaskId) -> impl Iterator<Item = &'a PlanTask> {
    let builds_on_it =
        |other: &&PlanTask| other.id == *id || plan.ancestors(&other.id).iter().any(|before| before.id == *id);
    plan.tasks.iter().filter(builds_on_it)
}

pub(super) fn rejects(reply: &Reply) -> bool {
    reply.passed() == Some(false)
}

/// The tasks that a check speaks about, and that a new attempt can mend: the coder tasks it depends on, or else those behind
/// them, or else, where nobody wrote code, whatever it depends on.
pub(super) fn targets(plan: &Plan, check: &PlanTask) -> Vec<TaskId> {
    let ids = |tasks: Vec<&PlanTask>, wanted: fn(Role) -> bool| -> Vec<TaskId> {
        tasks.into_iter().filter(|task| wanted(task.role)).map(|task| task.id.clone()).collect()
    };
    let direct = || check.depends_on.iter().filter_map(|id| plan.task(id)).collect::<Vec<_>>();
    let coder = |role| role == Role::Coder;
    [ids(direct(), coder), ids(plan.ancestors(&check.id), coder), ids(direct(), |role| !role.checks())]
        .into_iter()
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

/// The checks that speak about any of these tasks.
pub(super) fn checks_of<'a>(plan: &'a Plan, tasks: &[TaskId]) -> Vec<&'a PlanTask> {
    let about = |check: &&PlanTask| targets(plan, check).iter().any(|id| tasks.contains(id));
    plan.tasks.iter().filter(|task| task.role.checks()).filter(about).collect()
}

fn work_step(facts: &Facts, plan: &Plan, attempts: &Attempts, rules: &Rules) -> Step {
    let reply = |task: &PlanTask| facts.result(&task.id, attempts[&task.id]);
    let asks = |task: &&PlanTask| reply(task).is_some_and(|reply| reply.question().is_some());
    let pending: Vec<&PlanTask> = plan.tasks.iter().filter(|task| reply(task).is_none() || asks(task)).collect();
    let waits = |task: &PlanTask| reply(task).is_some_and(|reply| gates::gate(facts, reply) == Gate::Open);
    let waiting = plan.tasks.iter().any(waits);
    if pending.is_empty() {
        return if waiting { Step::Wait } else { answer_step(facts, attempts, rules) };
    }
    let askers: Vec<_> =
        pending.iter().copied().filter(asks).map(|task| (task.id.clone(), attempts[&task.id])).collect();
    let todo = Questions { facts, plan: Some(plan), rules }.todo(&askers, attempts);
    let wanted = |checked: bool| -> Vec<Job> {
        let unanswered = pending.iter().filter(|task| reply(task).is_none());
        let ready = unanswered.filter(|task| is_ready(facts, plan, task, attempts, checked));
        ready.map(|task| job(facts, rules, &task.id, task.role, attempts[&task.id])).collect()
    };
    // Two tasks can each wait for a check that waits for the other one; then what they depend on has to do.
    let jobs = match wanted(true) {
        jobs if jobs.is_empty() && !waiting && todo.is_empty() => wanted(false),
        jobs => jobs,
    };
    match todo.step(jobs) {
        Step::Want(jobs) if jobs.is_empty() && waiting => Step::Wait,
        Step::Want(jobs) if jobs.is_empty() => Step::Fail(deadlock(facts, &pending, attempts)),
        step => step,
    }
}

/// A task is ready when all that it depends on is done and approved, and, if `checked`, every check of these has passed, unless the
/// check itself waits for the task. So no README is written for code that fails its tests.
fn is_ready(facts: &Facts, plan: &Plan, task: &PlanTask, attempts: &Attempts, checked: bool) -> bool {
    let good = |id: &TaskId| {
        let reply = attempts.get(id).and_then(|attempt| facts.result(id, *attempt));
        let approved = |reply: &&Reply| gates::gate(facts, reply) != Gate::Open;
        reply.filter(approved).is_some_and(|reply| matches!(reply.outcome, Outcome::Completed { .. }))
    };
    if !task.depends_on.iter().all(good) {
        return false;
    }
    if task.role.checks() || !checked {
        return true;
    }
    checks_of(plan, &task.depends_on).iter().all(|check| {
        let waits_for_us = plan.ancestors(&check.id).iter().any(|ancestor| ancestor.id == task.id);
        waits_for_us || good(&check.id)
    })
}

fn deadlock(facts: &Facts, pending: &[&PlanTask], attempts: &Attempts) -> Failure {
    let waits = |task: &&PlanTask| {
        let missing: Vec<&str> = task
            .depends_on
            .iter()
            .filter(|id| attempts.get(*id).and_then(|attempt| facts.result(id, *attempt)).is_none())
            .map(TaskId::as_str)
            .collect();
        format!("{} waits for {}", task.id, if missing.is_empty() { "a check".to_owned() } else { missing.join(", ") })
    };
    let waiting: Vec<String> = pending.iter().map(waits).collect();
    let message = format!("deadlock: no task is ready and none is running: {}", waiting.join("; "));
    Failure::never(FailureKind::Deadlock, message)
}

/// A failure, told as part of something larger.
pub(super) fn about(what: &str, failure: &Failure) -> Failure {
    Failure::never(failure.kind, format!("{what}: {}", failure.message))
}

#[cfg(test)]
#[path = "next_tests.rs"]
mod tests;
