//! A role's task, from the queue to its one reply.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{Delivery, Done, Handler};
use crate::bus::{Bus, BusError, Point};
use crate::store::{Store, StoreError, Stored};
use crate::wire::{self, DeadLetter, Event, EventKind, Failure, FailureKind, Outcome, Reply, Task};

/// What the log says at each execution of a task, once.
pub const EXECUTION: &str = "a task is begun";
/// Deliveries after which a task is given up: something about it kills its workers.
const DELIVERIES_MAX: u64 = 10;
/// How long a task of a newer version is left to newer workers.
const NEWER_VERSION_S: u64 = 30;
/// How long a first dispatch is trusted to have no result.
const FIRST_MS: u64 = 1_500;
/// How often a worker looks whether its task was decided without it, should the nudge be missed: a stop reaches it within
/// two seconds.
const DECIDED_MS: u64 = 1_500;
/// Pause before somebody else gets a task whose reply we may not store.
const FORBIDDEN_S: u64 = 1;
/// Rounds of publishing a reply, each as long as a publish may take, before the task is left to a redelivery.
const PUBLISH_ROUNDS_MAX: u32 = 6;
/// Pause between two rounds: a full store refuses at once.
const PUBLISH_PAUSE_S: u64 = 5;

/// What does a role's tasks.
#[async_trait]
pub trait Work: Send + Sync + 'static {
    /// Does one task; everything that goes wrong is a failed reply. Dropped when the task is stopped, so it must leave
    /// nothing behind when it is.
    async fn work(&self, task: &Task) -> Reply;
}

/// Turns [`Work`] into a handler that answers every task exactly once in the store.
pub struct TaskHandler {
    bus: Bus,
    store: Store,
    work: Arc<dyn Work>,
    worker: String,
}

impl TaskHandler {
    /// `worker` names this process in its replies.
    pub fn new(bus: &Bus, store: &Store, work: Arc<dyn Work>, worker: String) -> Self {
        Self { bus: bus.clone(), store: store.clone(), work, worker }
    }

    /// The reply to what was delivered; `None` when somebody else's is stored by now.
    async fn reply(&self, delivery: &Delivery) -> Option<Reply> {
        let failed = |failure| Some(failed(delivery, failure));
        if delivery.delivered > DELIVERIES_MAX {
            let message = format!(
                "task {} of {} was given up after deliveries_max {DELIVERIES_MAX} deliveries without a reply; its worker \
                 seems to die of it",
                delivery.to.task, delivery.to.role
            );
            let failure = Failure::never(FailureKind::Poison, message);
            self.bury(delivery, &failure).await;
            return failed(failure);
        }
        match read(delivery) {
            Ok(task) => self.perform(task).await,
            Err(failure) => failed(failure),
        }
    }

    /// Keeps what kills its workers for a person to look at. The reply says the same, so losing the letter loses no answer.
    async fn bury(&self, delivery: &Delivery, failure: &Failure) {
        let letter = DeadLetter::new(
            delivery.to.clone(),
            failure.clone(),
            delivery.delivered - 1,
            self.worker.clone(),
            &delivery.payload,
        );
        if let Err(error) = self.store.dead.keep(&letter).await {
            tracing::error!("a dead letter is not stored: {:#}", anyhow::Error::from(error));
        }
    }

    /// Works with a limit, in a task of its own so that a panic is an answer too, and stops when the task was decided
    /// elsewhere (a deadline, a cancel, another worker).
    async fn perform(&self, task: Task) -> Option<Reply> {
        tracing::debug!(run = %task.run, task = %task.id, attempt = task.attempt, "{EXECUTION}");
        self.bus
            .tell(&Event::of_task(&task.run, &task.id, task.role, task.attempt, EventKind::Started, &self.worker))
            .await;
        let limit = Duration::from_millis(task.limit_ms);
        let (work, doing) = (self.work.clone(), task.clone());
        let mut running = AbortOnDrop(tokio::spawn(async move { work.work(&doing).await }));
        let outcome = tokio::select! {
            joined = tokio::time::timeout(limit, &mut running.0) => joined,
            () = self.decided_elsewhere(&task) => {
                tracing::info!(run = %task.run, task = %task.id, "the task was decided elsewhere; its work is stopped");
                return None;
            }
        };
        let failure = match outcome {
            Ok(Ok(reply)) => return Some(reply),
            Ok(Err(panic)) => Failure::never(FailureKind::Panic, format!("the worker of {} broke: {panic}", task.role)),
            Err(_) => {
                let message =
                    format!("{} did not finish task {} within its limit of {} s", task.role, task.id, limit.as_secs());
                Failure::never(FailureKind::Timeout, message)
            }
        };
        Some(task.reply(Outcome::Failed { failure }))
    }

    async fn decided_elsewhere(&self, task: &Task) {
        let to = task.subject();
        let nudges = self.bus.client.subscribe(self.bus.root.nudge(&task.run)).await;
        let mut nudges = nudges.inspect_err(|error| tracing::debug!("no nudges: {error}")).ok();
        loop {
            let nudged = async {
                let heard = match &mut nudges {
                    Some(nudges) => nudges.next().await,
                    None => None,
                };
                // A closed connection hears nothing more; then only the time that is up wakes us.
                if heard.is_none() {
                    std::future::pending::<()>().await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_millis(DECIDED_MS), nudged).await;
            match self.store.results.get(&to).await {
                Ok(Some(_)) => return,
                Ok(None) => {}
                Err(error) => tracing::debug!("could not look for a result: {error}"),
            }
        }
    }

    async fn publish(&self, reply: &Reply) -> Done {
        for _ in 0..PUBLISH_ROUNDS_MAX {
            match self.store.results.publish(Point::Reply, reply).await {
                Ok(Stored::Ours(_)) => return Done::Ack,
                Ok(Stored::Theirs(_)) => {
                    tracing::info!(run = %reply.run, task = %reply.task, "another reply was first");
                    return Done::Ack;
                }
                Err(StoreError::Bus(error @ BusError::Forbidden { .. })) => {
                    tracing::error!("a reply cannot be stored: {error}");
                    return Done::HandBack(Duration::from_secs(FORBIDDEN_S));
                }
                Err(error) => tracing::warn!("a reply is not stored yet: {:#}", anyhow::Error::from(error)),
            }
            tokio::time::sleep(Duration::from_secs(PUBLISH_PAUSE_S)).await;
        }
        Done::Forget
    }
}

#[async_trait]
impl Handler for TaskHandler {
    async fn handle(&self, delivery: &Delivery, _stop: &CancellationToken) -> Done {
        if wire::version_of(&delivery.payload).is_some_and(|version| version > wire::WIRE_VERSION) {
            tracing::info!(task = %delivery.to.task, "a task of a newer version is left to a newer worker");
            return Done::HandBack(Duration::from_secs(NEWER_VERSION_S));
        }
        if !is_first(delivery) {
            match self.store.results.get(&delivery.to).await {
                Ok(Some(_)) => return Done::Ack,
                Ok(None) => {}
                // The first writer wins in any case; not knowing costs work, never correctness.
                Err(error) => tracing::warn!("could not look for a result: {:#}", anyhow::Error::from(error)),
            }
        }
        match self.reply(delivery).await {
            Some(reply) => self.publish(&Reply { worker: self.worker.clone(), ..reply }).await,
            None => Done::Ack,
        }
    }
}

/// True when no result can exist yet: its publisher says so, and it did not wait long enough to be decided meanwhile. A
/// clock that is off costs a needless read or some needless work, never more.
fn is_first(delivery: &Delivery) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let stored = Duration::from_nanos(u64::try_from(delivery.at).unwrap_or(0));
    delivery.first && delivery.delivered == 1 && now.abs_diff(stored) < Duration::from_millis(FIRST_MS)
}

/// The task in a message, when it is the one that its subject says.
fn read(delivery: &Delivery) -> Result<Task, Failure> {
    let malformed = |why: String| {
        let message = format!("the message on {}'s queue is no task: {why}", delivery.to.role);
        Failure::never(FailureKind::InvalidInput, message)
    };
    let task: Task = serde_json::from_slice(&delivery.payload).map_err(|error| malformed(error.to_string()))?;
    if task.v != wire::WIRE_VERSION {
        return Err(malformed(format!("its version is {}", task.v)));
    }
    if task.subject() != delivery.to {
        return Err(malformed("it names another run, task, attempt or role than its subject".into()));
    }
    Ok(task)
}

fn failed(delivery: &Delivery, failure: Failure) -> Reply {
    let to = delivery.to.clone();
    Reply::new(to.role, to.run, to.task, to.attempt, Outcome::Failed { failure })
}

struct AbortOnDrop(tokio::task::JoinHandle<Reply>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
