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
use super::budget::Watch;
use super::claim::{Lease, Lost, TAKEOVERS_MAX};
use super::doubts::doubts;
use super::facts::{Facts, Try};
use super::finish;
use super::loops::LoopDetector;
use super::next::{Attempts, Job, Step, attempts, next};
use super::park::Waits;
use super::send::Unsent;
use super::tenancy::Tenancy;
use crate::bus::{BusError, Point};
use crate::store::StoreError;
use crate::wire::subject::TaskSubject;
use crate::wire::{DeadLetter, Event, EventKind, Failure, FailureKind, Goal, Outcome, Plan, Reply, Role, limits};
use crate::worker::Done;

/// How often all facts are read anew.
const RECONCILE_S: u64 = 30;
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

/// An attempt that a holder sent.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) job: Job,
    /// When its time is over.
    pub(super) over: Instant,
    /// What pauses of its queue added to that, as far as it is known.
    pub(super) paused: Duration,
}

/// One holder of one run.
pub(super) struct Drive<'a> {
    pub(super) of: &'a Orchestrator,
    pub(super) lease: Lease,
    pub(super) facts: Facts,
    /// What was sent, as far as this holder looked for loops in it: always a beginning of the facts' messages.
    pub(super) loops: LoopDetector,
    live: Subscriber,
    /// Somebody says that something was decided.
    nudges: Subscriber,
    /// What is known of the items that wait for people.
    pub(super) waits: Waits,
    /// Sequence of the newest reply up to which all were read in their order.
    pub(super) results_read: u64,
    /// What this holder has sent.
    pub(super) sent: HashMap<Try, Sent>,
    /// The run's own result, when somebody stored one meanwhile.
    pub(super) ended: Option<Reply>,
    /// When the server shows this run to an orchestrator, whoever is alive then.
    pub(super) alarm: Option<Instant>,
    pub(super) watch: Watch,
    /// What is known of the tenant's day.
    pub(super) tenancy: Tenancy,
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
        let root = &of.bus.root;
        let failed = |source| BusError::Core { what: "subscribe to what is about a run".into(), source };
        let live = of.bus.client.subscribe(root.stored_of(&lease.run)).await.map_err(|error| failed(error.into()))?;
        let nudges = of.bus.client.subscribe(root.nudge(&lease.run)).await.map_err(|error| failed(error.into()))?;
        let result = TaskSubject::of_run(&lease.run, lease.record.generation);
        let (facts, ended) = match lease.fresh {
            // Nobody has held the run, but somebody may have canceled it and died before he tidied up.
            true => {
                let (run, store) = (&lease.run, &of.store);
                let read = (store.runs.goal_at(run), store.results.get(&result), store.inputs.of_run(run, 0));
                let (goal, ended, inputs) = tokio::try_join!(read.0, read.1, read.2)?;
                (goal.map(|(goal, began)| Facts { began, inputs, ..Facts::fresh(goal) }), ended)
            }
            false => (Facts::load(&of.store, &lease.run, &lease.record).await?, None),
        };
        let lost_goal = || Facts::fresh(Goal::new(String::new(), Vec::new()));
        let missing = facts.is_none();
        let (facts, loops) = (facts.unwrap_or_else(lost_goal), LoopDetector::default());
        let (sent, watch, waits, tenancy) = (HashMap::new(), Watch::default(), Waits::default(), Tenancy::default());
        let (alarm, results_read) = (None, 0);
        let mut drive =
            Drive { of, lease, facts, loops, live, nudges, waits, results_read, sent, ended, alarm, watch, tenancy };
        let stopped = match drive.refuse(missing) {
            Some(failure) => {
                drive.bury(&failure).await;
                drive.fail(failure).await?
            }
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

    /// Keeps a run that cannot be driven for a person to look at. Its result says the same, so losing the letter loses nothing.
    async fn bury(&self, failure: &Failure) {
        let to = TaskSubject::of_run(&self.lease.run, self.lease.record.generation);
        let takeovers = u64::from(self.lease.record.takeovers);
        let letter = DeadLetter::new(to, failure.clone(), takeovers, self.of.name.clone(), &[]);
        if let Err(error) = self.of.store.dead.keep(&letter).await {
            tracing::error!("a dead letter is not stored: {:#}", anyhow::Error::from(error));
        }
    }

    async fn end(&mut self, stopped: Stop) -> Result<Done, StoreError> {
        Ok(match stopped {
            Stop::Ended => Done::Ack,
            Stop::Lost(lost) => {
                // What we sent may have come after the tidying up of whoever ended the run.
                if lost.superseded {
                    finish::epilogue(&self.of.bus, &self.of.store, &self.lease.run, &self.lease.record).await?;
                }
                forsaken(&lost)
            }
            Stop::Drain => {
                match self.lease.write(&self.of.store, Point::Release, |record| record.owner = None).await? {
                    Ok(()) => Done::HandBack(Duration::ZERO),
                    Err(lost) => forsaken(&lost),
                }
            }
        })
    }

    /// What a holder does once, before its first step.
    async fn prepare(&mut self) -> Result<(), StoreError> {
        self.tell(EventKind::Claimed, self.of.name.clone()).await;
        if !self.lease.fresh {
            self.take_over().await?;
        }
        self.begin_watch().await
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<Stop, StoreError> {
        self.prepare().await?;
        let mut reconnects = self.of.bus.reconnects();
        reconnects.mark_unchanged();
        loop {
            if let Some(reply) = self.ended.take() {
                return self.finish(reply).await;
            }
            match self.attend().await? {
                Ok(true) => continue,
                Ok(false) => {}
                Err(lost) => return Ok(Stop::Lost(lost)),
            }
            match next(&self.facts, &self.of.settings.rules) {
                // The time of a run goes on while it waits for people.
                Step::Wait if let Some(failure) = self.over_time() => return self.fail(failure).await,
                Step::Wait if self.open().next().is_none() => match self.park().await? {
                    Ok(true) => return Ok(Stop::Ended),
                    Ok(false) => {}
                    Err(lost) => return Ok(Stop::Lost(lost)),
                },
                Step::Wait => {}
                Step::Adopt(plan) => {
                    if let Some(failure) = self.too_large(&plan) {
                        return self.fail(failure).await;
                    }
                    if let Err(lost) = self.adopt(plan).await? {
                        return Ok(Stop::Lost(lost));
                    }
                    continue;
                }
                Step::Want(jobs) => match self.send(jobs).await? {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(Unsent::Lost(lost)) => return Ok(Stop::Lost(lost)),
                    Err(Unsent::Failed(failure)) => return self.fail(failure).await,
                },
                Step::Refuse(refused) => match self.refuse_questions(refused).await? {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(Unsent::Lost(lost)) => return Ok(Stop::Lost(lost)),
                    Err(Unsent::Failed(failure)) => return self.fail(failure).await,
                },
                Step::Complete => return self.complete().await,
                Step::Fail(failure) => return self.fail(failure).await,
            }
            if let Err(lost) = self.set_alarm().await? {
                return Ok(Stop::Lost(lost));
            }
            let wake = self.wake();
            tokio::select! {
                message = self.live.next() => match message {
                    Some(message) => self.hear(&message).await,
                    // The client is closed: this process is ending.
                    None => return Ok(Stop::Drain),
                },
                Some(_) = self.nudges.next() => drop(self.facts.hear(&self.of.store, &self.lease.run).await?),
                _ = reconnects.changed() => self.reconcile().await?,
                () = tokio::time::sleep_until(wake.into()) => {
                    self.reconcile().await?;
                    self.heed_pauses().await?;
                    if let Err(lost) = self.declare_late().await? {
                        return Ok(Stop::Lost(lost));
                    }
                }
                () = stop.cancelled() => return Ok(Stop::Drain),
            }
        }
    }

    /// When this holder looks again at the latest.
    fn wake(&self) -> Instant {
        let wake = self.next_wake().min(Instant::now() + Duration::from_secs(RECONCILE_S));
        self.waits.next.map_or(wake, |next| next.min(wake))
    }

    /// Does what is to be done before the next step is decided; true when the facts have changed by it.
    async fn attend(&mut self) -> Result<Result<bool, Lost>, StoreError> {
        if let Err(lost) = self.decide_proposals().await? {
            return Ok(Err(lost));
        }
        self.tenancy.again = None;
        self.tell_budgets().await;
        self.report_overrun().await?;
        self.heed_people().await
    }

    async fn adopt(&mut self, plan: Plan) -> Result<Result<(), Lost>, StoreError> {
        // The planner's revisions are odd, those that people edit are even.
        let revision = 2 * self.lease.record.generation - 1;
        let plan = self.of.store.runs.keep_plan(&self.lease.run, revision, &plan).await?;
        let written = self.lease.write(&self.of.store, Point::Adopt, |record| record.plan = revision).await?;
        if written.is_ok() {
            self.tell(EventKind::Planned, format!("{} tasks", plan.tasks.len())).await;
            self.facts.plan = Some(plan);
        }
        Ok(written)
    }

    async fn hear(&mut self, message: &async_nats::Message) {
        if let Some((_, reply)) = self.of.store.results.read(&message.subject, &message.payload) {
            self.take_in(reply).await;
        }
    }

    pub(super) async fn take_in(&mut self, reply: Reply) {
        if reply.role == Role::Orchestrator {
            if reply.attempt == self.lease.record.generation {
                self.ended = Some(reply);
            }
            return;
        }
        let key = (reply.task.clone(), reply.attempt);
        if self.facts.absorb(reply) {
            let counted = self.facts.results.get(&key).map(result_event);
            if let Some(event) = counted {
                self.of.bus.tell(&event).await;
                self.tell_doubts(&key).await;
            }
        }
    }

    /// Tells what in a reply is contradicted by what is stored.
    async fn tell_doubts(&self, (task, attempt): &Try) {
        let Some(reply) = self.facts.result(task, *attempt) else { return };
        for doubt in doubts(&self.facts, &self.attempts(), reply) {
            self.of.bus.tell(&Event::of_task(&reply.run, task, reply.role, *attempt, EventKind::Doubted, &doubt)).await;
        }
    }

    pub(super) async fn reconcile(&mut self) -> Result<(), StoreError> {
        self.facts.hear(&self.of.store, &self.lease.run).await?;
        for (_, reply) in self.of.store.results.of_run(&self.lease.run).await? {
            self.take_in(reply).await;
        }
        Ok(())
    }

    async fn complete(&mut self) -> Result<Stop, StoreError> {
        let (run, generation) = (&self.lease.run, self.lease.record.generation);
        let reply = finish::completed(run, generation, &self.facts, &self.of.settings.rules);
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
        let (of, day) = (self.of, self.tenancy.day.clone());
        let done = finish::finish(&of.bus, &of.store, &mut self.lease, &mut self.facts, day, reply).await?;
        Ok(done.map_or_else(Stop::Lost, |()| Stop::Ended))
    }

    pub(super) fn attempts(&self) -> Attempts {
        let plan = self.facts.plan.as_ref();
        plan.and_then(|plan| attempts(&self.facts, plan, &self.of.settings.rules).ok()).unwrap_or_default()
    }

    async fn tell(&self, kind: EventKind, text: String) {
        self.of.bus.tell(&Event::of_run(&self.lease.run, kind, text)).await;
    }
}

/// Gives a run back that could not use the store: its owner is cleared first, so that an outage is no takeover.
async fn release(of: &Orchestrator, mut lease: Lease) -> Done {
    for _ in 0..RELEASE_TRIES_MAX {
        match lease.write(&of.store, Point::Release, |record| record.owner = None).await {
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
        (Outcome::Question(_), _) => EventKind::Question,
        _ => EventKind::Failed,
    };
    let line = reply.text().lines().next().unwrap_or_default();
    let event = Event::of_task(&reply.run, &reply.task, reply.role, reply.attempt, kind, &limits::cut(line, 200));
    Event { usage: Some(reply.usage), ..event }
}
