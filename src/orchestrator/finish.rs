//! The end of a run: its result, first writer wins, and the epilogue, which any holder may do, any number of times.

use super::claim::{Lease, Lost};
use super::dispatch::result_files;
use super::doubts::of_all;
use super::facts::Facts;
use super::next::{Rules, attempts};
use super::tenancy::{Fence, settle};
use crate::bus::{Bus, Point};
use crate::store::{Store, StoreError, Stored};
use crate::wire::subject::TaskSubject;
use crate::wire::{
    Canary, Event, EventKind, Failure, Outcome, Reply, Report, Role, RunId, RunRecord, RunStatus, TaskId, TenantDay,
    TestReport, limits,
};

/// Tests of a run's report that name their failures.
const FAILURES_MAX: usize = 20;
/// Tries of the epilogue's write against others who do the same.
const WRITE_TRIES_MAX: u32 = 8;

/// The run's reply when the synthesizer has answered.
pub(super) fn completed(run: &RunId, generation: u32, facts: &Facts, rules: &Rules) -> Reply {
    let answer =
        facts.results.iter().rev().find(|((task, _), reply)| *task == TaskId::answer() && reply.failure().is_none());
    let content = answer.map(|(_, reply)| reply.text().to_owned()).unwrap_or_default();
    let (mut artifacts, mut report, mut doubts) = (Vec::new(), None, Vec::new());
    if let Some(plan) = &facts.plan
        && let Ok(attempts) = attempts(facts, plan, rules)
    {
        artifacts = result_files(facts, plan, &attempts);
        let in_force = plan.tasks.iter().filter_map(|task| facts.result(&task.id, attempts[&task.id]));
        doubts = of_all(facts, &attempts, in_force.chain(answer.map(|(_, reply)| reply)));
        let tests = plan.tasks.iter().filter_map(|task| facts.result(&task.id, attempts[&task.id]));
        report = summed(tests.filter_map(|reply| match reply.report() {
            Some(Report::Tests(tests)) => Some(tests),
            _ => None,
        }));
    }
    let report = report.map(Report::Tests);
    Reply { doubts, ..reply(run, generation, facts, Outcome::Completed { content, artifacts, report }) }
}

/// The run's reply when it cannot go on.
pub(super) fn failed(run: &RunId, generation: u32, facts: &Facts, failure: Failure) -> Reply {
    reply(run, generation, facts, Outcome::Failed { failure })
}

fn reply(run: &RunId, generation: u32, facts: &Facts, outcome: Outcome) -> Reply {
    Reply { usage: facts.usage(), ..Reply::new(Role::Orchestrator, run.clone(), TaskId::run(), generation, outcome) }
}

/// All test runs of the result as one, `None` when there was none.
fn summed<'a>(reports: impl Iterator<Item = &'a TestReport>) -> Option<TestReport> {
    reports.cloned().reduce(|mut sum, report| {
        let (outcome, exit) = if report.passed { (sum.outcome, sum.exit) } else { (report.outcome, report.exit) };
        let survived = |canary: &Option<Canary>| canary.as_ref().is_some_and(|canary| canary.survived);
        sum.canary = if survived(&sum.canary) { sum.canary } else { report.canary.or(sum.canary) };
        sum.judged = sum.judged.filter(|judged| Some(judged) == report.judged.as_ref());
        sum.passed &= report.passed;
        sum.tests += report.tests;
        sum.ok += report.ok;
        sum.failed += report.failed;
        sum.errors += report.errors;
        sum.skipped += report.skipped;
        sum.wall_ms += report.wall_ms;
        sum.failures.extend(report.failures);
        sum.failures.truncate(FAILURES_MAX);
        sum.output = limits::cut(&format!("{}\n{}", sum.output, report.output), limits::REPLY_CONTENT_BYTES_MAX / 4);
        TestReport { outcome, exit, ..sum }
    })
}

/// Stores the run's reply, or finds the one that was first, and tidies up after it; `day` is that of which its holder took last.
pub(super) async fn finish(
    bus: &Bus,
    store: &Store,
    lease: &mut Lease,
    facts: &mut Facts,
    day: Option<TenantDay>,
    reply: Reply,
) -> Result<Result<(), Lost>, StoreError> {
    let reply = match store.results.publish(Point::Result, &reply).await? {
        Stored::Ours(_) => reply,
        Stored::Theirs(first) => *first,
    };
    cancel_rest(store, &lease.run, facts).await?;
    // Known before the record says that it is over: what a new generation sets after that is not ours to drop.
    let schedules = store.janitor.end_of_schedules().await?;
    let status = status_of(&reply);
    if let Err(lost) = lease.write(store, Point::End, |record| end(record, status)).await? {
        return Ok(Err(lost));
    }
    // A new generation may begin from now on; then what it takes is its own.
    let fence = Fence::Over(&lease.run, lease.record.generation);
    let _: Result<(), Lost> = settle(bus, store, facts, day, true, fence).await?;
    store.janitor.drop_schedules(&lease.run, schedules).await?;
    let event = Event { usage: Some(reply.usage), ..Event::of_run(&lease.run, EventKind::Finished, status.name()) };
    bus.tell(&event).await;
    Ok(Ok(()))
}

/// The epilogue of a run that somebody else finished: whoever that was may have died before doing it.
pub(super) async fn epilogue(bus: &Bus, store: &Store, run: &RunId, record: &RunRecord) -> Result<(), StoreError> {
    let result = TaskSubject::of_run(run, record.generation);
    let (Some(reply), Some(mut facts)) =
        (store.results.known(&result).await?, Facts::without_people(store, run, record).await?)
    else {
        return Ok(());
    };
    let schedules = store.janitor.end_of_schedules().await?;
    // What was asked for by a generation that began meanwhile is not in these facts, and what it set is not before that end,
    // if the record still is of ours.
    let now = store.runs.record(run).await?;
    if now.is_none_or(|now| now.record.generation != record.generation) {
        return Ok(());
    }
    cancel_rest(store, run, &mut facts).await?;
    store.janitor.drop_schedules(run, schedules).await?;
    let status = status_of(&reply);
    for _ in 0..WRITE_TRIES_MAX {
        let Some(mut now) = store.runs.record(run).await? else {
            break;
        };
        if now.record.status.terminal() || now.record.generation != record.generation {
            break;
        }
        end(&mut now.record, status);
        if store.runs.write(Point::End, run, &now.record, now.revision).await?.is_some() {
            break;
        }
    }
    settle(bus, store, &facts, None, true, Fence::Over(run, record.generation)).await.map(drop)
}

/// Every attempt that was asked for gets an answer: its worker stops, and its queue entry is acknowledged unread. A worker who was
/// quicker has spent something, and is counted.
async fn cancel_rest(store: &Store, run: &RunId, facts: &mut Facts) -> Result<(), StoreError> {
    let unanswered = facts.unanswered();
    for (role, (task, attempt)) in &unanswered {
        let reason = "the run ended before this task was done".to_owned();
        let reply = Reply::new(*role, run.clone(), task.clone(), *attempt, Outcome::Canceled { reason });
        if let Stored::Theirs(first) = store.results.publish(Point::Cancel, &reply).await? {
            facts.absorb(*first);
        }
    }
    if !unanswered.is_empty() {
        store.results.nudge(run).await;
    }
    Ok(())
}

fn end(record: &mut RunRecord, status: RunStatus) {
    record.status = status;
    record.owner = None;
}

/// Where a run stands whose result this is.
pub(super) fn status_of(reply: &Reply) -> RunStatus {
    match reply.outcome {
        Outcome::Completed { .. } => RunStatus::Completed,
        Outcome::Failed { .. } | Outcome::Question(_) => RunStatus::Failed,
        Outcome::Canceled { .. } => RunStatus::Canceled,
    }
}
