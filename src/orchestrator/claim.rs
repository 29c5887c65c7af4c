//! The fence: which of several holders of a run may act.
//!
//! A run is a message on the orchestrators' queue, and a message can have two holders: one that was only stopped, and one
//! that the server gave the message to meanwhile. The record says who holds it; it is written by compare-and-set before
//! any effect, and only the owner writes it. Sequence numbers order the holders, and no sequence has two owners: a
//! redelivery is never gone on with but turned into a new message, so that a stopped holder's late acknowledgement hits
//! nothing.

use std::time::{Duration, Instant};

use crate::bus::{Bus, BusError, Outgoing, Point};
use crate::store::{Recorded, Store, StoreError};
use crate::wire::subject::TaskSubject;
use crate::wire::{Failure, FailureKind, Outcome, Owner, Reply, Role, RunId, RunRecord, RunStatus, TaskId};
use crate::worker::Delivery;

/// Takeovers without a new result or phase before a run is given up.
pub(super) const TAKEOVERS_MAX: u32 = 5;
/// Tries of one write of a record against conflicts that turn out to be our own.
const WRITE_TRIES_MAX: u32 = 8;
/// How long the store's word that a run is ours is trusted; under half of the shortest `ack_wait`.
const TRUST_MS: u64 = 400;

/// What an orchestrator may do with a run that was delivered to it.
pub(super) enum Claim {
    /// Nothing; the message is dealt with.
    Ack,
    /// Nothing; another holder has the same message.
    Forget,
    /// Nothing yet; somebody was faster, and the message must be looked at again.
    Again,
    /// The run has its result: tidy up, then acknowledge.
    Finished(RunRecord),
    /// Hold it.
    Held(Box<Lease>),
}

/// The right to act on a run, as long as every write of the record succeeds.
#[derive(Clone)]
pub(super) struct Lease {
    /// The run.
    pub(super) run: RunId,
    /// The record as we wrote it last.
    pub(super) record: RunRecord,
    /// True when nobody held the run before.
    pub(super) fresh: bool,
    /// True when the run was taken over too often without progress.
    pub(super) exhausted: bool,
    revision: u64,
    owner: Owner,
    /// When the store was last asked whether the run is ours, and said so. Not when it answered: whoever slept over the
    /// answer must ask again.
    proven: Instant,
}

/// The lease is gone.
pub(super) struct Lost {
    /// True when the new owner came after us, so that our message may be acknowledged.
    pub(super) superseded: bool,
}

/// Decides what to do with a delivery, in the order of the fence's rules, and takes the run if it may.
pub(super) async fn claim(bus: &Bus, store: &Store, delivery: &Delivery) -> Result<Claim, StoreError> {
    let run = &delivery.to.run;
    let Some(Recorded { record, revision }) = store.runs.record(run).await? else {
        if store.runs.goal(run).await?.is_some() {
            give_up(store, delivery).await?;
        }
        return Ok(Claim::Ack);
    };
    if record.status == RunStatus::Expired || delivery.to.attempt < record.generation {
        return Ok(Claim::Ack);
    }
    let result = TaskSubject::of_run(run, record.generation);
    let fresh = record.owner.is_none() && record.status == RunStatus::Submitted && record.restart.is_none();
    if !fresh && store.results.get(&result).await?.is_some() {
        return Ok(Claim::Finished(record));
    }
    if let Some(owner) = &record.owner {
        if delivery.sequence < owner.seq && delivery.at < owner.at {
            return Ok(Claim::Ack);
        }
        if delivery.sequence == owner.seq {
            wake(bus, Point::Over, run, TaskId::over(delivery.sequence), record.generation).await?;
            return Ok(Claim::Ack);
        }
    }
    if record.status == RunStatus::InputRequired && delivery.delivered > 1 {
        // Whoever parked it may sleep, and acknowledge this message later.
        wake(bus, Point::Over, run, TaskId::over(delivery.sequence), record.generation).await?;
        return Ok(Claim::Ack);
    }
    take(store, delivery, record, revision, fresh).await
}

/// A message comes after the record, so a run with a goal and without a record had one. Whoever waits for it is told.
async fn give_up(store: &Store, delivery: &Delivery) -> Result<(), StoreError> {
    let message = "the run's record is damaged in the store and cannot be read; give the goal again";
    let failure = Failure::never(FailureKind::Storage, message);
    let (run, generation) = (delivery.to.run.clone(), delivery.to.attempt);
    tracing::error!(%run, "{failure}");
    let reply = Reply::new(Role::Orchestrator, run, TaskId::run(), generation, Outcome::Failed { failure });
    store.results.publish(Point::Result, &reply).await.map(drop)
}

/// Puts a run on the orchestrators' queue, under a name that tells why. A message that is there already is as good.
pub(super) async fn wake(bus: &Bus, point: Point, run: &RunId, task: TaskId, generation: u32) -> Result<(), BusError> {
    let to = TaskSubject { task, ..TaskSubject::of_run(run, generation) };
    match bus.store(Outgoing::new(point, bus.root.tasks_stream(), bus.root.task(&to), Vec::new())).await {
        Ok(_) | Err(BusError::Taken { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Brings somebody to a run after something about it was stored. A parked run is put on the queue under the name `task`,
/// which must be a new one: a message that is about to be acknowledged would swallow it. A held one is nudged.
pub(super) async fn rouse(bus: &Bus, store: &Store, run: &RunId, task: TaskId) -> Result<(), StoreError> {
    match store.runs.record(run).await? {
        Some(Recorded { record, .. }) if record.status == RunStatus::InputRequired => {
            wake(bus, Point::Start, run, task, record.generation).await?;
        }
        _ => store.results.nudge(run).await,
    }
    Ok(())
}

async fn take(
    store: &Store,
    delivery: &Delivery,
    before: RunRecord,
    revision: u64,
    fresh: bool,
) -> Result<Claim, StoreError> {
    let run = delivery.to.run.clone();
    let owner = Owner { seq: delivery.sequence, at: delivery.at, nonce: format!("{:032x}", rand::random::<u128>()) };
    let mut record = RunRecord { status: RunStatus::Working, owner: Some(owner.clone()), ..before };
    if delivery.to.task.is_over() {
        let results = store.results.of_run(&run).await?.len() as u64;
        record.takeovers = if results > record.results_seen { 1 } else { record.takeovers + 1 };
        record.results_seen = results;
    }
    let exhausted = record.takeovers > TAKEOVERS_MAX;
    let proven = Instant::now();
    // A conflict here is another claim of the same moment: theirs stands, and our message comes again if it must.
    match store.runs.write(Point::Claim, &run, &record, revision).await? {
        Some(revision) => Ok(Claim::Held(Box::new(Lease { run, record, fresh, exhausted, revision, owner, proven }))),
        None => outrun(store, delivery, owner).await,
    }
}

/// After a lost race: only what is older than the winner may be acknowledged.
async fn outrun(store: &Store, delivery: &Delivery, ours: Owner) -> Result<Claim, StoreError> {
    let Some(Recorded { record, .. }) = store.runs.record(&delivery.to.run).await? else {
        return Ok(Claim::Ack);
    };
    let Some(owner) = record.owner.filter(|_| !record.status.terminal()) else {
        return Ok(Claim::Again);
    };
    Ok(match () {
        () if ours.seq < owner.seq && ours.at < owner.at => Claim::Ack,
        () if ours.seq == owner.seq => Claim::Forget,
        () => Claim::Again,
    })
}

impl Lease {
    /// Changes the record.
    ///
    /// # Errors
    /// The outer one when the store cannot be used, the inner one when the run belongs to somebody else now: then nothing
    /// more may be published for it.
    pub(super) async fn write(
        &mut self,
        store: &Store,
        point: Point,
        change: impl Fn(&mut RunRecord),
    ) -> Result<Result<(), Lost>, StoreError> {
        for _ in 0..WRITE_TRIES_MAX {
            let mut record = self.record.clone();
            change(&mut record);
            let asked = Instant::now();
            if let Some(revision) = store.runs.write(point, &self.run, &record, self.revision).await? {
                (self.record, self.revision, self.proven) = (record, revision, asked);
                return Ok(Ok(()));
            }
            if let Err(lost) = self.prove(store).await? {
                return Ok(Err(lost));
            }
        }
        Err(StoreError::Contended { names: self.run.to_string(), tries: WRITE_TRIES_MAX })
    }

    /// Asks whether the run is still ours, unless that was said a moment ago. A process that was stopped and woken finds
    /// here, before it sends anything, that somebody else has gone on.
    pub(super) async fn hold(&mut self, store: &Store) -> Result<Result<(), Lost>, StoreError> {
        match self.proven.elapsed() < Duration::from_millis(TRUST_MS) {
            true => Ok(Ok(())),
            false => self.prove(store).await,
        }
    }

    /// Asks whether the run is still ours.
    pub(super) async fn prove(&mut self, store: &Store) -> Result<Result<(), Lost>, StoreError> {
        let asked = Instant::now();
        let Some(now) = store.runs.record(&self.run).await? else { return Ok(Err(Lost { superseded: true })) };
        Ok(match &now.record.owner {
            Some(owner) if owner.nonce == self.owner.nonce => {
                (self.record, self.revision, self.proven) = (now.record, now.revision, asked);
                Ok(())
            }
            Some(owner) => Err(Lost { superseded: self.owner.seq < owner.seq }),
            None => Err(Lost { superseded: now.record.status.terminal() }),
        })
    }
}
