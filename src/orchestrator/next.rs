//! What a run does next: a pure function of its facts, so that any holder, after any crash, decides alike.
//!
//! Rework is derived, never stored. Every task begins at attempt 1. A check that found faults raises its coder tasks to
//! a new attempt, once *all* checks of these coders have an answer, so that every holder sees the same evidence; whatever
//! depends on a raised task is raised with it. The loop below replays that history from the results.

use std::collections::BTreeMap;

use super::facts::Facts;
use crate::wire::{Failure, FailureKind, Outcome, Plan, PlanTask, Reply, Report, Retry, Role, TaskId, limits};

/// Attempts of the planner at one plan.
const PLAN_ATTEMPTS_MAX: u32 = 2;

/// The next step of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The planner's plan is good; keep it and look again.
    Adopt(Plan),
    /// These attempts should be on their way. Those that are already are named again.
    Want(Vec<Job>),
    /// The run is done: the synthesizer has answered.
    Complete,
    /// The run cannot go on.
    Fail(Failure),
}

/// One attempt of a task that should be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The task.
    pub task: TaskId,
    /// Its role.
    pub role: Role,
    /// The attempt.
    pub attempt: u32,
}

/// The attempt in force of each planned task.
pub(super) type Attempts = BTreeMap<TaskId, u32>;

/// Decides the next step. `rework_max` is the number of new attempts that a task may get.
pub fn next(facts: &Facts, rework_max: u32) -> Step {
    match &facts.plan {
        None => plan_step(facts),
        Some(plan) => match attempts(facts, plan, rework_max) {
            Err(failure) => Step::Fail(failure),
            Ok(attempts) => work_step(facts, plan, &attempts),
        },
    }
}

fn plan_step(facts: &Facts) -> Step {
    for attempt in 1..=PLAN_ATTEMPTS_MAX {
        let Some(reply) = facts.result(&TaskId::plan(), attempt) else {
            return Step::Want(vec![Job { task: TaskId::plan(), role: Role::Planner, attempt }]);
        };
        match proposed(reply) {
            Ok(plan) => return Step::Adopt(completed(plan)),
            Err(failure) if attempt == PLAN_ATTEMPTS_MAX || failure.retry == Retry::Never => {
                return Step::Fail(about("the planner made no plan", &failure));
            }
            Err(_) => {}
        }
    }
    unreachable!("the last attempt returns")
}

/// The plan in a planner's reply, checked again: the planner may be anybody's program.
fn proposed(reply: &Reply) -> Result<Plan, Failure> {
    match (reply.failure(), reply.report()) {
        (Some(failure), _) => Err(failure.clone()),
        (None, Some(Report::Plan(plan))) => plan.recheck().map_err(|faults| {
            Failure::again(FailureKind::PlanInvalid, format!("the plan is no plan: {}", faults.join("; ")))
        }),
        (None, _) => Err(Failure::again(FailureKind::PlanInvalid, "the planner's reply holds no plan")),
    }
}

/// The plan with what a planner forgot: a qa task that has no coder task behind it gets all that do not wait for it, and a
/// coder task that no qa task depends on gets one. So no code is finished without evidence, and no test runs on nothing.
fn completed(plan: Plan) -> Plan {
    let Plan { v, mut tasks } = plan.clone();
    let coders: Vec<TaskId> = tasks.iter().filter(|t| t.role == Role::Coder).map(|t| t.id.clone()).collect();
    for task in tasks.iter_mut().filter(|task| task.role == Role::Qa) {
        if plan.ancestors(&task.id).iter().all(|ancestor| ancestor.role != Role::Coder) {
            let waits = |coder: &&TaskId| plan.ancestors(coder).iter().any(|ancestor| ancestor.id == task.id);
            task.depends_on.extend(coders.iter().filter(|coder| !waits(coder)).cloned());
        }
    }
    for coder in coders {
        let tested = tasks.iter().any(|task| task.role == Role::Qa && task.depends_on.contains(&coder));
        if !tested && tasks.len() < limits::PLAN_TASKS_MAX {
            let id = TaskId::planned(tasks.len() + 1);
            let description = format!("Test the files of task {coder}.");
            tasks.push(PlanTask { id, description, role: Role::Qa, depends_on: vec![coder] });
        }
    }
    // In order again, under new names. What was added closes no cycle, so this cannot fail; if it did, the planner's own
    // plan would be as good as before.
    Plan { v, tasks }.recheck().unwrap_or(plan)
}

/// The attempt in force of every task, or why there can be none.
pub(super) fn attempts(facts: &Facts, plan: &Plan, rework_max: u32) -> Result<Attempts, Failure> {
    let mut attempts: Attempts = plan.tasks.iter().map(|task| (task.id.clone(), 1)).collect();
    loop {
        let mut changed = false;
        for task in &plan.tasks {
            let raised = raised(facts, plan, task, &attempts, rework_max)?;
            for (id, attempt) in raised {
                let known = attempts.entry(id).or_insert(1);
                changed |= attempt > *known;
                *known = attempt.max(*known);
            }
        }
        if !changed {
            return Ok(attempts);
        }
    }
}

/// What the state of `task` asks of itself and others: attempts that must be reached.
fn raised(
    facts: &Facts,
    plan: &Plan,
    task: &PlanTask,
    attempts: &Attempts,
    rework_max: u32,
) -> Result<Vec<(TaskId, u32)>, Failure> {
    let at = |id: &TaskId| attempts.get(id).copied().unwrap_or(1);
    let attempt = at(&task.id);
    let inherited = task.depends_on.iter().map(at).max().unwrap_or(1);
    if inherited > attempt {
        return Ok(vec![(task.id.clone(), inherited)]);
    }
    let Some(reply) = facts.result(&task.id, attempt) else {
        return Ok(Vec::new());
    };
    match &reply.outcome {
        Outcome::Failed { failure } if failure.retry == Retry::Never => {
            Err(about(&format!("{} failed task {}", task.role, task.id), failure))
        }
        Outcome::Failed { failure } if attempt > rework_max => {
            let what =
                format!("{} failed task {} in all {attempt} attempts (rework_max {rework_max})", task.role, task.id);
            Err(about(&what, failure))
        }
        Outcome::Failed { .. } => Ok(vec![(task.id.clone(), attempt + 1)]),
        Outcome::Canceled { reason } => {
            Err(Failure::never(FailureKind::Internal, format!("task {} was canceled: {reason}", task.id)))
        }
        Outcome::Completed { report, .. } if report.as_ref().and_then(Report::passed) == Some(false) => {
            let targets = targets(plan, task);
            let siblings = checks_of(plan, &targets);
            let answered = siblings.iter().all(|check| facts.result(&check.id, at(&check.id)).is_some());
            if !answered || targets.is_empty() {
                return Ok(Vec::new());
            }
            if attempt > rework_max {
                return Err(Failure::never(
                    FailureKind::ReworkExhausted,
                    format!(
                        "{} still finds faults in task {} after {attempt} attempts (rework_max {rework_max}): {}",
                        task.role,
                        targets[0],
                        limits::cut(reply.text(), 2_000)
                    ),
                ));
            }
            Ok(targets.into_iter().map(|id| (id, attempt + 1)).collect())
        }
        Outcome::Completed { .. } => Ok(Vec::new()),
    }
}

/// The coder tasks that a check speaks about: those it depends on, or else those behind them.
pub(super) fn targets(plan: &Plan, check: &PlanTask) -> Vec<TaskId> {
    let coders = |tasks: Vec<&PlanTask>| -> Vec<TaskId> {
        tasks.into_iter().filter(|task| task.role == Role::Coder).map(|task| task.id.clone()).collect()
    };
    let direct = coders(check.depends_on.iter().filter_map(|id| plan.task(id)).collect());
    if direct.is_empty() { coders(plan.ancestors(&check.id)) } else { direct }
}

/// The checks that speak about any of these coder tasks.
pub(super) fn checks_of<'a>(plan: &'a Plan, coders: &[TaskId]) -> Vec<&'a PlanTask> {
    let about = |check: &&PlanTask| targets(plan, check).iter().any(|id| coders.contains(id));
    plan.tasks.iter().filter(|task| task.role.checks()).filter(about).collect()
}

fn work_step(facts: &Facts, plan: &Plan, attempts: &Attempts) -> Step {
    let open = |task: &&PlanTask| facts.result(&task.id, attempts[&task.id]).is_none();
    let pending: Vec<&PlanTask> = plan.tasks.iter().filter(open).collect();
    if pending.is_empty() {
        return answer_step(facts, attempts);
    }
    let ready = pending.iter().filter(|task| is_ready(facts, plan, task, attempts));
    let jobs: Vec<Job> =
        ready.map(|task| Job { task: task.id.clone(), role: task.role, attempt: attempts[&task.id] }).collect();
    if jobs.is_empty() { Step::Fail(deadlock(facts, &pending, attempts)) } else { Step::Want(jobs) }
}

/// A task is ready when all that it depends on is done, and every check of the coder tasks among these has passed, unless
/// the check itself waits for the task. So no README is written for code that fails its tests.
fn is_ready(facts: &Facts, plan: &Plan, task: &PlanTask, attempts: &Attempts) -> bool {
    let good = |id: &TaskId| {
        let reply = attempts.get(id).and_then(|attempt| facts.result(id, *attempt));
        reply.is_some_and(|reply| matches!(reply.outcome, Outcome::Completed { .. }))
    };
    if !task.depends_on.iter().all(good) {
        return false;
    }
    if task.role.checks() {
        return true;
    }
    let coders: Vec<TaskId> =
        task.depends_on.iter().filter(|id| plan.task(id).is_some_and(|t| t.role == Role::Coder)).cloned().collect();
    checks_of(plan, &coders).iter().all(|check| {
        let waits_for_us = plan.ancestors(&check.id).iter().any(|ancestor| ancestor.id == task.id);
        waits_for_us || good(&check.id)
    })
}

fn answer_step(facts: &Facts, attempts: &Attempts) -> Step {
    let task = TaskId::answer();
    let newest = attempts.values().max().copied().unwrap_or(1);
    for attempt in newest.. {
        let Some(reply) = facts.result(&task, attempt) else {
            return Step::Want(vec![Job { task, role: Role::Synthesizer, attempt }]);
        };
        match reply.failure() {
            None => return Step::Complete,
            Some(failure) if failure.retry == Retry::Never || attempt > newest => {
                return Step::Fail(about("the synthesizer made no answer", failure));
            }
            Some(_) => {}
        }
    }
    unreachable!("an attempt without a reply is always reached")
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
fn about(what: &str, failure: &Failure) -> Failure {
    Failure::never(failure.kind, format!("{what}: {}", failure.message))
}

#[cfg(test)]
#[path = "next_tests.rs"]
mod tests;
