//! Stops are facts: a cancel is a result like any other, and the first one counts. Whoever works on what it is about finds
//! it there, at once by a nudge or a moment later by looking; nobody has to be alive to be told.

use serde_json::{Value, json};

use super::claim::{rouse, wake};
use super::facts::Facts;
use super::next::attempts;
use super::request::{ControlRequest, Refused};
use super::{Orchestrator, finish};
use crate::bus::Point;
use crate::store::Stored;
use crate::wire::{Outcome, Party, Reply, Role, RunId, RunRecord, RunStatus, TaskId, limits};

/// Said when nobody gave a reason.
const REASON: &str = "somebody canceled it";

/// Cancels a run, or one task of it.
pub(super) async fn cancel(of: &Orchestrator, asked: ControlRequest) -> Result<Value, Refused> {
    let ControlRequest { run, task, reason, generation, .. } = asked;
    let recorded = of.store.runs.record(&run).await?.ok_or_else(|| Refused::unknown(&run))?;
    if recorded.record.status == RunStatus::Expired {
        return Err(Refused::unknown(&run));
    }
    let now = recorded.record.generation;
    if let Some(meant) = generation.filter(|meant| *meant != now) {
        let why = format!("run {run} is in generation {now}, and the cancel was meant for generation {meant}");
        return Err(Refused::Because(409, why));
    }
    let reason = reason.map(|reason| limits::cut(&reason, limits::ERROR_BYTES_MAX));
    let outcome = Outcome::Canceled { reason: reason.unwrap_or_else(|| REASON.into()) };
    match task {
        None => cancel_run(of, &run, &recorded.record, outcome).await,
        Some(task) => cancel_task(of, &run, &recorded.record, task, outcome).await,
    }
}

/// The result first: from then on the run is canceled, whoever dies. The wake brings an orchestrator to it, should this one
/// die before it has tidied up.
async fn cancel_run(of: &Orchestrator, run: &RunId, record: &RunRecord, outcome: Outcome) -> Result<Value, Refused> {
    let reply = Reply::new(Role::Orchestrator, run.clone(), TaskId::run(), record.generation, outcome);
    if let Stored::Theirs(first) = of.store.results.publish(Point::Cancel, &reply).await?
        && !matches!(first.outcome, Outcome::Canceled { .. })
    {
        let how = if first.failure().is_some() { "failed" } else { "completed" };
        return Err(Refused::Because(409, format!("run {run} has {how} already; there is nothing to cancel")));
    }
    wake(&of.bus, Point::Start, run, TaskId::cancel(), record.generation).await?;
    finish::epilogue(&of.bus, &of.store, run, record).await?;
    of.store.results.nudge(run).await;
    Ok(json!({ "run": run, "status": "canceled" }))
}

/// The attempt in force gets its result; the run finds it there and ends, because nothing can be built on the task.
async fn cancel_task(
    of: &Orchestrator,
    run: &RunId,
    record: &RunRecord,
    task: TaskId,
    outcome: Outcome,
) -> Result<Value, Refused> {
    let conflict = |why: String| Refused::Because(409, why);
    if record.status.terminal() {
        return Err(conflict(format!("run {run} is {} already; there is nothing to cancel", record.status.name())));
    }
    let facts = Facts::load(&of.store, run, record).await?.ok_or_else(|| Refused::unknown(run))?;
    let (role, attempt) = in_force(of, &facts, &task)?;
    let reply = Reply::new(role, run.clone(), task.clone(), attempt, outcome);
    if let Stored::Theirs(first) = of.store.results.publish(Point::Cancel, &reply).await?
        && !matches!(first.outcome, Outcome::Canceled { .. })
    {
        return Err(conflict(format!("task {task} of run {run} has its reply already; there is nothing to cancel")));
    }
    of.store.results.nudge(run).await;
    rouse(&of.bus, &of.store, run, TaskId::input(rand::random())).await?;
    Ok(json!({ "run": run, "task": task, "attempt": attempt, "status": "canceled" }))
}

/// The role of a task, and the attempt that is under way or comes next.
fn in_force(of: &Orchestrator, facts: &Facts, task: &TaskId) -> Result<(Role, u32), Refused> {
    let newest = facts.newest(task).max(facts.first(task));
    let planned = facts.plan.as_ref().and_then(|plan| Some((plan, plan.task(task)?)));
    match planned {
        Some((plan, planned)) => {
            let attempts = attempts(facts, plan, &of.settings.rules)
                .map_err(|failure| Refused::Because(409, format!("the run is about to end: {failure}")))?;
            Ok((planned.role, attempts.get(task).copied().unwrap_or(newest)))
        }
        None if *task == TaskId::plan() => Ok((Role::Planner, newest)),
        None if *task == TaskId::answer() => Ok((Role::Synthesizer, newest)),
        // A question to a worker; without its answer its asker decides alone.
        None => match facts.request_of(task, newest).map(|entry| entry.message.to) {
            Some(Party::Role(role)) => Ok((role, newest)),
            _ => Err(Refused::Because(404, format!("the run has no task {task}; `oarlock show` lists them"))),
        },
    }
}
