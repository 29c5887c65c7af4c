//! A new generation of a run that is over: what is done stays, the rest is done again (`restart`). And dead letters, which
//! are looked at by people and then put on a queue again or dropped.

use serde_json::{Value, json};

use super::claim::wake;
use super::facts::Facts;
use super::request::{ControlRequest, Refused};
use super::restart::{edited, restart};
use super::{Orchestrator, finish};
use crate::bus::{BusError, Outgoing, Point};
use crate::store::Recorded;
use crate::wire::subject::TaskSubject;
use crate::wire::{DeadLetter, Plan, Restart, RunId, RunRecord, RunStatus, Task, TaskId};

/// Tries of beginning a generation against others who do the same.
const RETRY_TRIES_MAX: u32 = 8;
/// Attempts above the one that was given up that are looked at for a free one.
const REQUEUE_ATTEMPTS_MAX: u32 = 16;

/// Begins a new generation. ControlRequest again before an orchestrator has it, it is the same one.
pub(super) async fn retry(of: &Orchestrator, asked: &ControlRequest) -> Result<Value, Refused> {
    for _ in 0..RETRY_TRIES_MAX {
        let recorded = of.store.runs.record(&asked.run).await?.ok_or_else(|| Refused::unknown(&asked.run))?;
        let generation = match recorded.record.status {
            RunStatus::Expired => return Err(Refused::unknown(&asked.run)),
            RunStatus::Submitted if recorded.record.restart.is_some() => match (&asked.from, &asked.plan) {
                (None, None) => recorded.record.generation,
                _ => {
                    let why = format!("run {} is being tried again already; cancel it first", asked.run);
                    return Err(Refused::Because(409, why));
                }
            },
            status if !status.terminal() => {
                // Its result is there, and whoever stored it has not tidied up yet.
                let result = TaskSubject::of_run(&asked.run, recorded.record.generation);
                if of.store.results.get(&result).await?.is_some() {
                    finish::epilogue(&of.bus, &of.store, &asked.run, &recorded.record).await?;
                    continue;
                }
                let why = format!("run {} is {}; cancel it before it is tried again", asked.run, status.name());
                return Err(Refused::Because(409, why));
            }
            _ => match begin(of, asked, recorded).await? {
                Some(generation) => generation,
                None => continue,
            },
        };
        wake(&of.bus, Point::Start, &asked.run, TaskId::start(), generation).await?;
        return Ok(json!({ "run": asked.run, "generation": generation, "status": "submitted" }));
    }
    Err(Refused::Because(409, format!("run {} is being changed by others; try again", asked.run)))
}

/// Writes the record of the new generation; `None` when somebody else wrote it meanwhile.
async fn begin(of: &Orchestrator, asked: &ControlRequest, recorded: Recorded) -> Result<Option<u32>, Refused> {
    let Recorded { record, revision } = recorded;
    let facts = Facts::load(&of.store, &asked.run, &record).await?.ok_or_else(|| Refused::unknown(&asked.run))?;
    let refused = |why: String| Refused::Because(400, why);
    let changed = match (&asked.plan, &facts.plan) {
        (None, _) => None,
        (Some(_), None) => return Err(refused("the run has no plan that could be edited".into())),
        (Some(plan), Some(old)) => {
            let plan = edited(old, plan, &facts).map_err(|faults| refused(faults.join("; ")))?;
            if let Some((_, why)) = of.settings.budgets.of(&facts.goal.budget).broken_by(&plan) {
                return Err(refused(why));
            }
            Some(plan).filter(|plan| plan != old)
        }
    };
    let in_force = changed.as_ref().or(facts.plan.as_ref());
    let at = of.bus.server_now().await?;
    let completed = record.status == RunStatus::Completed;
    let restart = Restart { at, ..restart(&facts, in_force, asked.from.as_ref(), completed).map_err(refused)? };
    let mut generation = record.generation + 1;
    let plan = match &changed {
        Some(plan) => {
            generation = keep_edited(of, &asked.run, generation, plan).await?;
            2 * generation
        }
        None if asked.from == Some(TaskId::plan()) => 0,
        None => record.plan,
    };
    let next = RunRecord {
        status: RunStatus::Submitted,
        owner: None,
        generation,
        plan,
        takeovers: 0,
        restart: Some(restart),
        ..record
    };
    let written = of.store.runs.write(Point::Retry, &asked.run, &next, revision).await?;
    Ok(written.map(|_| generation))
}

/// Keeps an edited plan as an even revision, twice its generation. One that a door kept and never used is passed over.
async fn keep_edited(of: &Orchestrator, run: &RunId, first: u32, plan: &Plan) -> Result<u32, Refused> {
    for generation in first..first + RETRY_TRIES_MAX {
        if of.store.runs.keep_plan(run, 2 * generation, plan).await? == *plan {
            return Ok(generation);
        }
    }
    Err(Refused::Because(409, format!("the plan of run {run} is being edited by others; try again")))
}

/// Gives a dead letter's task another chance: its run a new generation, or, when it belongs to no run that is kept, the
/// task itself a new attempt. The letter is dropped.
pub(super) async fn requeue(of: &Orchestrator, asked: &ControlRequest) -> Result<Value, Refused> {
    let letter = letter(of, asked).await?;
    let done = match of.store.runs.record(&letter.run).await? {
        Some(_) => {
            let from = Some(letter.task.clone()).filter(|task| *task != TaskId::run());
            let again = ControlRequest { from, ..ControlRequest::about(letter.run.clone()) };
            retry(of, &again).await?
        }
        None => again(of, &letter).await?,
    };
    of.store.janitor.drop_letter(&of.bus.root.dead(letter.role, &letter.run, &letter.task)).await?;
    Ok(done)
}

async fn again(of: &Orchestrator, letter: &DeadLetter) -> Result<Value, Refused> {
    let task: Task = serde_json::from_str(&letter.payload).map_err(|error| {
        Refused::Because(400, format!("the message that was given up is no task ({error}); drop it"))
    })?;
    for attempt in letter.attempt.saturating_add(1)..letter.attempt.saturating_add(REQUEUE_ATTEMPTS_MAX) {
        let task = Task { attempt, ..task.clone() };
        let to = task.subject();
        if of.store.results.get(&to).await?.is_some() {
            continue;
        }
        let root = &of.bus.root;
        let payload = serde_json::to_vec(&task).unwrap_or_default();
        match of.bus.store(Outgoing::new(Point::Dispatch, root.tasks_stream(), root.task(&to), payload)).await {
            Ok(_) | Err(BusError::Taken { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        return Ok(json!({ "run": to.run, "task": to.task, "attempt": attempt, "result": root.result(&to) }));
    }
    let tried = REQUEUE_ATTEMPTS_MAX;
    Err(Refused::Because(409, format!("the task was tried again {tried} times already; send a new one")))
}

/// Drops a dead letter.
pub(super) async fn drop_letter(of: &Orchestrator, asked: &ControlRequest) -> Result<Value, Refused> {
    let letter = letter(of, asked).await?;
    of.store.janitor.drop_letter(&of.bus.root.dead(letter.role, &letter.run, &letter.task)).await?;
    Ok(json!({ "run": letter.run, "task": letter.task }))
}

/// The dead letter of `<run>/<task>`; the task may be left out when the run has one only.
async fn letter(of: &Orchestrator, asked: &ControlRequest) -> Result<DeadLetter, Refused> {
    let letters = of.store.dead.list(Some(&asked.run)).await?.into_iter().map(|(letter, _)| letter);
    let mut fitting: Vec<DeadLetter> =
        letters.filter(|letter| asked.task.as_ref().is_none_or(|task| letter.task == *task)).collect();
    match (fitting.pop(), fitting.is_empty()) {
        (Some(letter), true) => Ok(letter),
        (None, _) => Err(Refused::Because(404, format!("there is no dead letter of run {}", asked.run))),
        (Some(_), false) => {
            let why = format!("run {} has several dead letters; name one as <run>/<task>", asked.run);
            Err(Refused::Because(400, why))
        }
    }
}
