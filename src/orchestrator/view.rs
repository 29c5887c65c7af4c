//! A run as people see it: the same facts, in words.

use super::budget::Budgets;
use super::doubts::of_all;
use super::facts::Facts;
use super::finish::status_of;
use super::gates::{self, Item};
use super::next::{Attempts, Rules, attempts};
use super::park::within_s;
use super::planning::{completed, proposed};
use crate::store::{Store, StoreError};
use crate::wire::subject::TaskSubject;
use crate::wire::{
    Failure, FailureKind, ItemKind, ItemView, MessageType, Otherwise, Outcome, Party, Reply, Role, RunId, RunView,
    TaskId, TaskStatus, TaskView, Vote, WIRE_VERSION, limits,
};

/// Everything about a run; `None` when it is not kept. `rules` are the orchestrators' settings.
///
/// # Errors
/// When the store cannot be read.
pub async fn view(store: &Store, run: &RunId, rules: &Rules) -> Result<Option<RunView>, StoreError> {
    let Some(recorded) = store.runs.record(run).await? else {
        return Ok(None);
    };
    let Some(mut facts) = Facts::load(store, run, &recorded.record).await? else {
        return Ok(None);
    };
    let result = store.results.get(&TaskSubject::of_run(run, recorded.record.generation)).await?;
    if result.is_some() {
        facts.settle();
    }
    let waiting = match recorded.record.status.terminal() || result.is_some() {
        true => Vec::new(),
        false => waiting(store, run, &facts, rules).await?,
    };
    let usage = facts.usage();
    Ok(Some(RunView {
        v: WIRE_VERSION,
        run: run.clone(),
        // The record follows the result a moment later.
        status: result.as_ref().map_or(recorded.record.status, status_of),
        tasks: tasks(&facts, rules),
        answer: result.as_ref().filter(|reply| reply.failure().is_none()).map(|reply| reply.text().to_owned()),
        evidence: result.as_ref().map(Reply::evidence).unwrap_or_default(),
        doubts: doubted(&facts, rules),
        failure: match &result {
            Some(reply) => reply.failure().cloned(),
            None => recorded.record.status.terminal().then(|| {
                Failure::never(
                    FailureKind::Storage,
                    "the run ended, and its result is damaged in the store and cannot be read",
                )
            }),
        },
        artifacts: result.as_ref().map(|reply| reply.artifacts().to_vec()).unwrap_or_default(),
        tenant: facts.goal.tenant,
        goal: facts.goal.text,
        usage,
        waiting,
        unreadable: facts.unreadable,
    }))
}

fn doubted(facts: &Facts, rules: &Rules) -> Vec<String> {
    let plan = facts.plan.as_ref();
    let in_force = plan.and_then(|plan| attempts(facts, plan, rules).ok()).unwrap_or_default();
    of_all(facts, &in_force, facts.results.values())
}

/// What waits for people, each with what was said so far.
async fn waiting(store: &Store, run: &RunId, facts: &Facts, rules: &Rules) -> Result<Vec<ItemView>, StoreError> {
    if !gates::may_wait(facts) {
        return Ok(Vec::new());
    }
    let plan = facts.plan.as_ref();
    let attempts = plan.and_then(|plan| attempts(facts, plan, rules).ok()).unwrap_or_default();
    let items = gates::items(facts, &attempts, rules);
    let dates = gates::dates(store, run, facts, &items).await?;
    let seconds = |at: i64| at / 1_000_000_000;
    // No wait is longer than the run's own time, as far as the goal and the defaults bound it.
    let over = Budgets::default().time_over(facts);
    let view = |item: Item| {
        let since = dates.iter().find(|(id, _)| *id == item.id).map(|(_, at)| seconds(*at)).unwrap_or_default();
        let within = i64::try_from(within_s(facts, &item)).unwrap_or(i64::MAX);
        let votes = gates::said(facts, &item.id).into_iter().map(|heard| Vote {
            by: heard.input.by.clone(),
            says: heard.input.says.in_short(),
            at: seconds(heard.at),
        });
        let (pause, approval) = (item.kind == ItemKind::Pause, item.kind == ItemKind::Approval);
        let text = match facts.result(&item.task, item.attempt) {
            Some(reply) if item.task == TaskId::plan() => plan_in_words(reply),
            Some(reply) => limits::cut(reply.text(), limits::ERROR_BYTES_MAX),
            None => "the run is paused".to_owned(),
        };
        ItemView {
            text,
            since,
            until: over.map_or(i64::MAX, seconds).min(since.saturating_add(within)),
            default: if pause { Otherwise::Reject } else { gates::otherwise(facts, approval.then_some(item.role)) },
            quorum: if approval { facts.goal.gates.quorum } else { 1 },
            kind: item.kind,
            votes: votes.collect(),
            item: item.id,
            task: item.task,
            role: item.role,
            attempt: item.attempt,
        }
    };
    Ok(items.into_iter().map(view).collect())
}

/// The plan that an approval stands for: with what the planner forgot.
fn plan_in_words(reply: &Reply) -> String {
    let words = match proposed(reply).and_then(completed) {
        Ok(plan) => plan.in_words(limits::PLAN_SHOWN_BYTES_MAX),
        Err(_) => reply.text().to_owned(),
    };
    limits::cut(&words, limits::PLAN_SHOWN_BYTES_MAX)
}

fn tasks(facts: &Facts, rules: &Rules) -> Vec<TaskView> {
    let mut views =
        vec![task(facts, &TaskId::plan(), Role::Planner, "make the plan", &[], last(facts, &TaskId::plan()))];
    if let Some(plan) = &facts.plan {
        // After a failure there are no attempts in force; the last ones that were asked for are shown.
        let in_force: Attempts = attempts(facts, plan, rules).unwrap_or_default();
        for planned in &plan.tasks {
            let asked = last(facts, &planned.id);
            let attempt = in_force.get(&planned.id).copied().filter(|attempt| *attempt <= asked).unwrap_or(asked);
            views.push(task(facts, &planned.id, planned.role, &planned.description, &planned.depends_on, attempt));
        }
        views.extend(questions(facts));
        let all: Vec<TaskId> = plan.tasks.iter().map(|task| task.id.clone()).collect();
        let answer = TaskId::answer();
        views.push(task(facts, &answer, Role::Synthesizer, "make one answer", &all, last(facts, &answer)));
    }
    views
}

/// The questions to workers that were put, in their order, each behind its asker.
fn questions(facts: &Facts) -> Vec<TaskView> {
    let mut views: Vec<TaskView> = Vec::new();
    for message in facts.requests.iter().map(|entry| &entry.message) {
        let id = &message.metadata.task;
        if let (MessageType::Question, Party::Role(role)) = (message.kind, message.to)
            && !views.iter().any(|known| known.id == *id)
        {
            let asker: Vec<TaskId> = id.asker().into_iter().map(|(asker, _)| asker).collect();
            views.push(task(facts, id, role, &message.content, &asker, last(facts, id)));
        }
    }
    views
}

/// The last attempt that was asked for, 0 when none was.
fn last(facts: &Facts, id: &TaskId) -> u32 {
    let of_task = facts.requests.iter().map(|entry| &entry.message.metadata).filter(|about| about.task == *id);
    of_task.map(|about| about.attempt).max().unwrap_or(0)
}

fn task(facts: &Facts, id: &TaskId, role: Role, description: &str, needs: &[TaskId], attempt: u32) -> TaskView {
    let reply = facts.result(id, attempt);
    let status = match reply.map(|reply| &reply.outcome) {
        None if attempt == 0 => TaskStatus::Pending,
        None => TaskStatus::InProgress,
        Some(Outcome::Completed { .. }) => TaskStatus::Completed,
        // It waits for the answer.
        Some(Outcome::Question(_)) => TaskStatus::Pending,
        Some(Outcome::Failed { .. }) => TaskStatus::Failed,
        Some(Outcome::Canceled { .. }) => TaskStatus::Canceled,
    };
    TaskView {
        id: id.clone(),
        description: description.to_owned(),
        role,
        status,
        dependencies: needs.to_vec(),
        attempt,
        result: reply.map(|reply| reply.text().to_owned()),
        passed: reply.and_then(Reply::passed),
    }
}
