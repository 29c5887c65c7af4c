//! One run, from its claim to its end, by one holder.
//!
//! The loop is: decide from the facts, act, wait for a new fact. Facts come live; since a live copy can be missed they are
//! read anew on reconnect, every half minute, and before any deadline is declared over.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::Orchestrator;
use super::claim::{Lease, Lost, TAKEOVERS_MAX};
use super::dispatch::Dispatch;
use super::facts::{Facts, Try};
use super::finish;
use super::loops::LoopDetector;
use super::next::{Attempts, Job, Step, attempts, next};
use crate::bus::{BusError, Outgoing};
use crate::store::{HistoryEntry, StoreError, Stored};
use crate::wire::subject::HEADER_FIRST;
use crate::wire::{
    Event, EventKind, Failure, FailureKind, Goal, Message, Outcome, Plan, Reply, Role, Task, TaskId, limits,
};
use crate::worker::Done;

/// How often all facts are read anew.
const RECONCILE_S: u64 = 30;
/// Attempts of one run that are on their way at the same time, per role: a large run does not starve the others.
const WINDOW: usize = 8;
/// Pause before a run that could not use the store is looked at again.
const STORE_PAUSE_S: u64 = 1;

/// Tries of clearing the owner of a run that is given back.
const RELEASE_TRIES_MAX: u32 = 10;

/// Why a holder stops.
enum Stop {
    /// The run has its end.
    Ended,
    /// The run belongs to somebody else.
    Lost(Lost),
    /// The process should end.
    Drain,
}

/// Why tasks were not sent.
enum Unsent {
    /// The run must end.
    Failed(Failure),
    /// The run belongs to somebody else.
    Lost(Lost),
}

/// One holder of one run.
pub(super) struct Drive<'a> {
    of: &'a Orchestrator,
    lease: Lease,
    facts: Facts,
    live: Subscriber,
    /// What this holder has sent, and when its time is over.
    sent: HashMap<Try, (Job, Instant)>,
    /// The run's own result, when somebody stored one meanwhile.
    ended: Option<Reply>,
}

impl<'a> Drive<'a> {
    /// Drives a claimed run until it ends or is lost, and says what becomes of its message.
    pub(super) async fn run(of: &'a Orchestrator, lease: Lease, stop: &CancellationToken) -> Done {
        let spare = lease.clone();
        match Self::begin(of, lease, stop).await {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(run = %spare.run, "the run goes back to the queue: {:#}", anyhow::Error::from(error));
                release(of, spare).await
            }
        }
    }

    async fn begin(of: &'a Orchestrator, lease: Lease, stop: &CancellationToken) -> Result<Done, StoreError> {
        let subscribed = of.bus.client.subscribe(of.bus.root.stored_of(&lease.run)).await;
        let live = subscribed
            .map_err(|error| BusError::Core { what: "subscribe to a run's results".into(), source: error.into() })?;
        let facts = match lease.fresh {
            true => of.store.runs.goal(&lease.run).await?.map(Facts::fresh),
            false => Facts::load(&of.store, &lease.run, &lease.record).await?,
        };
        let lost_goal = || Facts::fresh(Goal::new(String::new(), Vec::new()));
        let missing = facts.is_none();
        let mut drive =
            Drive { of, lease, facts: facts.unwrap_or_else(lost_goal), live, sent: HashMap::new(), ended: None };
        let stopped = match drive.refuse(missing) {
            Some(failure) => drive.fail(failure).await?,
            None => drive.work(stop).await?,
        };
        drive.end(stopped).await
    }

    /// Why the run cannot even begin.
    fn refuse(&self, goal_missing: bool) -> Option<Failure> {
        if goal_missing {
            return Some(Failure::never(FailureKind::Storage, "the run has no stored goal"));
        }
        self.lease.exhausted.then(|| {
            let message = format!(
                "the run was taken over more than takeovers_max {TAKEOVERS_MAX} times without any progress; its \
                 orchestrators seem to die of it"
            );
            Failure::never(FailureKind::Poison, message)
        })
    }

    async fn end(&mut self, stopped: Stop) -> Result<Done, StoreError> {
        Ok(match stopped {
            Stop::Ended => Done::Ack,
            Stop::Lost(lost) => forsaken(&lost),
            Stop::Drain => match self.lease.write(&self.of.store, |record| record.owner = None).await? {
                Ok(()) => Done::HandBack(Duration::ZERO),
                Err(lost) => forsaken(&lost),
            },
        })
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<Stop, StoreError> {
        self.tell(EventKind::Claimed, self.of.name.clone()).await;
        let mut reconnects = self.of.bus.reconnects();
        reconnects.mark_unchanged();
        loop {
            if let Some(reply) = self.ended.take() {
                return self.finish(reply).await;
            }
            match next(&self.facts, self.of.settings.rework_max) {
                Step::Adopt(plan) => {
                    if let Err(lost) = self.adopt(plan).await? {
                        return Ok(Stop::Lost(lost));
                    }
                    continue;
                }
                Step::Want(jobs) => match self.send(jobs).await? {
                    Ok(()) => {}
                    Err(Unsent::Lost(lost)) => return Ok(Stop::Lost(lost)),
                    Err(Unsent::Failed(failure)) => return self.fail(failure).await,
                },
                Step::Complete => return self.complete().await,
                Step::Fail(failure) => return self.fail(failure).await,
            }
            let wake = self.next_deadline().min(Instant::now() + Duration::from_secs(RECONCILE_S));
            tokio::select! {
                message = self.live.next() => match message {
                    Some(message) => self.hear(&message).await,
                    // The client is closed: this process is ending.
                    None => return Ok(Stop::Drain),
                },
                _ = reconnects.changed() => self.reconcile().await?,
                () = tokio::time::sleep_until(wake.into()) => {
                    self.reconcile().await?;
                    self.declare_late().await?;
                }
                () = stop.cancelled() => return Ok(Stop::Drain),
            }
        }
    }

    async fn adopt(&mut self, plan: Plan) -> Result<Result<(), Lost>, StoreError> {
        let plan = self.of.store.runs.keep_plan(&self.lease.run, 1, &plan).await?;
        let written = self.lease.write(&self.of.store, |record| record.plan = 1).await?;
        if written.is_ok() {
            self.tell(EventKind::Planned, format!("{} tasks", plan.tasks.len())).await;
            self.facts.plan = Some(plan);
        }
        Ok(written)
    }

    /// Sends those of `jobs` that this holder has not sent, within the window; the inner error ends the run, or our part.
    async fn send(&mut self, jobs: Vec<Job>) -> Result<Result<(), Unsent>, StoreError> {
        let attempts = self.attempts();
        let jobs = self.within_window(jobs);
        if jobs.is_empty() {
            return Ok(Ok(()));
        }
        if let Err(lost) = self.lease.hold(&self.of.store).await? {
            return Ok(Err(Unsent::Lost(lost)));
        }
        let mut tasks = Vec::new();
        let mut messages = self.facts.messages();
        let exchanges = self.exchanges_max();
        for job in jobs {
            let dispatch =
                Dispatch { root: &self.of.bus.root, run: &self.lease.run, facts: &self.facts, attempts: &attempts };
            let task = dispatch.task(&job, self.of.limit(job.role));
            let known = self.request_of(&job.task, job.attempt).is_some();
            let message = dispatch.message(&task);
            if !known {
                messages.push(message.clone());
                if let Err(found) = LoopDetector::of_requests(exchanges).check(&messages) {
                    return Ok(Err(Unsent::Failed(found.into())));
                }
            }
            tasks.push((job, task, message, known));
        }
        self.publish(tasks).await.map(Ok)
    }

    /// Publishes history entries and tasks, all of them before the first acknowledgement is awaited.
    async fn publish(&mut self, tasks: Vec<(Job, Task, Message, bool)>) -> Result<(), StoreError> {
        let stream = self.of.bus.root.tasks_stream();
        let mut outgoing = Vec::with_capacity(2 * tasks.len());
        for (_, task, message, known) in &tasks {
            outgoing.push(self.of.store.runs.history_message(message));
            let subject = self.of.bus.root.task(&task.subject());
            let queued = Outgoing::new(stream.clone(), subject, serde_json::to_vec(task).unwrap_or_default());
            let first = self.lease.fresh && !known;
            outgoing.push(if first { queued.header(HEADER_FIRST, "1") } else { queued });
        }
        let mut results = self.of.bus.store_all(outgoing).await.into_iter();
        for (job, task, message, known) in tasks {
            let (entry, queued) = (results.next(), results.next());
            let revision = match entry {
                Some(Ok(revision)) => revision,
                Some(Err(BusError::Taken { .. })) | None => 0,
                Some(Err(error)) => return Err(error.into()),
            };
            match queued {
                // Taken: it is queued or with a worker already.
                Some(Ok(_) | Err(BusError::Taken { .. })) | None => {}
                Some(Err(error)) => return Err(error.into()),
            }
            if !known {
                self.facts.requests.push(HistoryEntry { message, revision, at: 0 });
            }
            let limit = self.of.limit(job.role);
            let left = if known { self.time_left(&job, limit).await? } else { limit };
            self.sent.insert((job.task.clone(), job.attempt), (job.clone(), Instant::now() + left));
            let about =
                Event::of_task(&task.run, &task.id, task.role, task.attempt, EventKind::Dispatched, &task.description);
            self.of.bus.tell(&Event { text: limits::cut(&about.text, 200), ..about }).await;
        }
        Ok(())
    }

    /// Of a task that an earlier holder sent: its limit counts from the server's time of its history entry. Both times
    /// are the server's, so no clock of ours is asked.
    async fn time_left(&self, job: &Job, limit: Duration) -> Result<Duration, StoreError> {
        let sent = self.request_of(&job.task, job.attempt).map_or(0, |entry| entry.at);
        let now = self.of.store.runs.touched_at(&self.lease.run).await?;
        let used = Duration::from_nanos(u64::try_from(now.saturating_sub(sent)).unwrap_or(0));
        Ok(limit.saturating_sub(used))
    }

    async fn hear(&mut self, message: &async_nats::Message) {
        if let Some((_, reply)) = self.of.store.results.read(&message.subject, &message.payload) {
            self.take_in(reply).await;
        }
    }

    async fn take_in(&mut self, reply: Reply) {
        if reply.role == Role::Orchestrator {
            if reply.attempt == self.lease.record.generation {
                self.ended = Some(reply);
            }
            return;
        }
        let event = result_event(&reply);
        if self.facts.absorb(reply) {
            self.of.bus.tell(&event).await;
        }
    }

    async fn reconcile(&mut self) -> Result<(), StoreError> {
        for (_, reply) in self.of.store.results.of_run(&self.lease.run).await? {
            self.take_in(reply).await;
        }
        Ok(())
    }

    /// Attempts whose time is over get a failure as their result, unless an answer is there after all.
    async fn declare_late(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        let late: Vec<Job> = self.open().filter(|(_, over)| *over <= now).map(|(job, _)| job.clone()).collect();
        for job in late {
            let failure = self.of.late(&job).await;
            let reply =
                Reply::new(job.role, self.lease.run.clone(), job.task, job.attempt, Outcome::Failed { failure });
            match self.of.store.results.publish(&reply).await? {
                Stored::Ours(_) => self.take_in(reply).await,
                Stored::Theirs(first) => self.take_in(*first).await,
            }
        }
        Ok(())
    }

    async fn complete(&mut self) -> Result<Stop, StoreError> {
        let (run, generation) = (&self.lease.run, self.lease.record.generation);
        let reply = finish::completed(run, generation, &self.facts, self.of.settings.rework_max);
        self.finish(reply).await
    }

    async fn fail(&mut self, failure: Failure) -> Result<Stop, StoreError> {
        let reply = finish::failed(&self.lease.run, self.lease.record.generation, &self.facts, failure);
        self.finish(reply).await
    }

    async fn finish(&mut self, reply: Reply) -> Result<Stop, StoreError> {
        if let Err(lost) = self.lease.hold(&self.of.store).await? {
            return Ok(Stop::Lost(lost));
        }
        let done = finish::finish(&self.of.bus, &self.of.store, &mut self.lease, &self.facts, reply).await?;
        Ok(done.map_or_else(Stop::Lost, |()| Stop::Ended))
    }

    fn attempts(&self) -> Attempts {
        let plan = self.facts.plan.as_ref();
        plan.and_then(|plan| attempts(&self.facts, plan, self.of.settings.rework_max).ok()).unwrap_or_default()
    }

    fn exchanges_max(&self) -> usize {
        let tasks = self.facts.plan.as_ref().map_or(0, |plan| plan.tasks.len());
        let scaled = limits::exchanges_max(tasks, self.of.settings.rework_max);
        self.of.settings.exchanges_max.unwrap_or(scaled)
    }

    fn request_of(&self, task: &TaskId, attempt: u32) -> Option<&HistoryEntry> {
        let is_it =
            |entry: &&HistoryEntry| entry.message.metadata.task == *task && entry.message.metadata.attempt == attempt;
        self.facts.requests.iter().find(is_it)
    }

    /// Attempts that this holder sent and that have no answer, with the end of their time.
    fn open(&self) -> impl Iterator<Item = (&Job, Instant)> {
        let open = self.sent.iter().filter(|(key, _)| !self.facts.results.contains_key(key));
        open.map(|(_, (job, over))| (job, *over))
    }

    /// Those of `jobs` that were not sent by this holder, as many of each role as its window has room for.
    fn within_window(&self, jobs: Vec<Job>) -> Vec<Job> {
        let mut under_way: HashMap<Role, usize> = HashMap::new();
        self.open().for_each(|(job, _)| *under_way.entry(job.role).or_default() += 1);
        let new = jobs.into_iter().filter(|job| !self.sent.contains_key(&(job.task.clone(), job.attempt)));
        new.filter(|job| {
            let count = under_way.entry(job.role).or_default();
            *count += 1;
            *count <= WINDOW
        })
        .collect()
    }

    fn next_deadline(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(RECONCILE_S);
        self.open().map(|(_, over)| over).min().unwrap_or(far)
    }

    async fn tell(&self, kind: EventKind, text: String) {
        self.of.bus.tell(&Event::of_run(&self.lease.run, kind, text)).await;
    }
}

/// Gives a run back that could not use the store: its owner is cleared first, so that an outage is no takeover.
async fn release(of: &Orchestrator, mut lease: Lease) -> Done {
    for _ in 0..RELEASE_TRIES_MAX {
        match lease.write(&of.store, |record| record.owner = None).await {
            Ok(Ok(())) => break,
            Ok(Err(lost)) => return forsaken(&lost),
            Err(error) => tracing::debug!("not released yet: {:#}", anyhow::Error::from(error)),
        }
        tokio::time::sleep(Duration::from_secs(STORE_PAUSE_S)).await;
    }
    Done::HandBack(Duration::from_secs(STORE_PAUSE_S))
}

/// What becomes of the message of a run that belongs to somebody else now.
fn forsaken(lost: &Lost) -> Done {
    if lost.superseded { Done::Ack } else { Done::Forget }
}

fn result_event(reply: &Reply) -> Event {
    let kind = match (&reply.outcome, reply.passed()) {
        (Outcome::Completed { .. }, Some(false)) => EventKind::Rejected,
        (Outcome::Completed { .. }, _) => EventKind::Completed,
        _ => EventKind::Failed,
    };
    let line = reply.text().lines().next().unwrap_or_default();
    let event = Event::of_task(&reply.run, &reply.task, reply.role, reply.attempt, kind, &limits::cut(line, 200));
    Event { usage: Some(reply.usage), ..event }
}
