//! Replies: one per task and attempt, and the first writer wins, whoever it is.

use super::{StoreError, read};
use crate::bus::{Bus, BusError, Kept, Outgoing, Point};
use crate::wire::subject::TaskSubject;
use crate::wire::{Failure, FailureKind, Outcome, Reply, RunId};

/// The stream of replies.
#[derive(Clone)]
pub struct Results {
    bus: Bus,
    stream: String,
}

/// What is on the result subject after a reply was published.
#[derive(Clone, Debug)]
pub enum Stored {
    /// Our reply, at this sequence.
    Ours(u64),
    /// Somebody else's, or our own from an earlier try.
    Theirs(Box<Reply>),
}

impl Results {
    pub(super) fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), stream: bus.root.results_stream() }
    }

    /// The reply to one attempt of a task.
    pub async fn get(&self, to: &TaskSubject) -> Result<Option<Reply>, StoreError> {
        let kept = self.bus.last(&self.stream, &self.bus.root.result(to)).await?;
        Ok(kept.map(|kept| parse(to, &kept.payload)))
    }

    /// The reply to one attempt of a task that was answered: a copy that is behind is no reason to say that there is none.
    pub async fn known(&self, to: &TaskSubject) -> Result<Option<Reply>, StoreError> {
        let kept = self.bus.last_known(&self.stream, &self.bus.root.result(to)).await?;
        Ok(kept.map(|kept| parse(to, &kept.payload)))
    }

    /// The text of the reply on a result subject, as a task's context refers to it.
    pub async fn text(&self, subject: &str) -> Result<Option<String>, StoreError> {
        let Some(to) = self.bus.root.parse(subject) else {
            return Ok(None);
        };
        Ok(self.known(&to).await?.map(|reply| reply.text().to_owned()))
    }

    /// All replies of a run.
    pub async fn of_run(&self, run: &RunId) -> Result<Vec<(TaskSubject, Reply)>, StoreError> {
        Ok(self.dated(run).await?.into_iter().map(|(to, reply, _)| (to, reply)).collect())
    }

    /// All replies of a run, each with the time that the server stored it, in nanoseconds since 1970.
    pub async fn dated(&self, run: &RunId) -> Result<Vec<(TaskSubject, Reply, i64)>, StoreError> {
        let kept = self.bus.scan(&self.stream, &self.bus.root.results_of(run)).await?;
        let dated = |kept: Kept| {
            let (to, reply) = self.read(&kept.subject, &kept.payload)?;
            Some((to, reply, kept.at))
        };
        Ok(kept.into_iter().filter_map(dated).collect())
    }

    /// The replies of a run that were stored after a stream sequence, 0 for all, each with its own, in their order.
    pub async fn since(&self, run: &RunId, after: u64) -> Result<Vec<(u64, Reply)>, StoreError> {
        let kept = self.bus.scan_from(&self.stream, &self.bus.root.results_of(run), after + 1).await?;
        let numbered = |kept: Kept| Some((kept.sequence, self.read(&kept.subject, &kept.payload)?.1));
        Ok(kept.into_iter().filter_map(numbered).collect())
    }

    /// Reads a reply that came live on a stored subject; `None` when the subject is none.
    pub fn read(&self, subject: &str, payload: &[u8]) -> Option<(TaskSubject, Reply)> {
        let to = self.bus.root.parse(subject)?;
        let reply = parse(&to, payload);
        Some((to, reply))
    }

    /// Tells whoever works on `run` to look again, now that something was decided for it. Not awaited, not retried: they look
    /// by themselves now and then.
    pub async fn nudge(&self, run: &RunId) {
        if let Err(error) = self.bus.client.publish(self.bus.root.nudge(run), bytes::Bytes::new()).await {
            tracing::debug!(%run, "a nudge was not sent: {error}");
        }
    }

    /// Publishes a reply until it is stored or another one is found in its place; one that cannot be read any more is a
    /// failure that says so, because nobody can store a second one there.
    ///
    /// # Errors
    /// When the server gave no verdict for longer than a publish may take.
    pub async fn publish(&self, point: Point, reply: &Reply) -> Result<Stored, StoreError> {
        let to = reply.subject();
        let subject = self.bus.root.result(&to);
        let message = Outgoing::new(point, self.stream.clone(), subject.clone(), reply.to_payload()).expecting(0);
        match self.bus.store(message).await {
            Ok(sequence) => Ok(Stored::Ours(sequence)),
            Err(BusError::Taken { .. }) => {
                let kept = self.bus.last_from_leader(&self.stream, &subject).await?;
                let theirs = kept.map_or_else(|| damaged(&to), |kept| parse(&to, &kept.payload));
                Ok(Stored::Theirs(Box::new(theirs)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn damaged(to: &TaskSubject) -> Reply {
    let message = format!("the reply of {} to task {} is damaged in the store and cannot be read", to.role, to.task);
    let failure = Failure::again(FailureKind::Storage, message);
    Reply::new(to.role, to.run.clone(), to.task.clone(), to.attempt, Outcome::Failed { failure })
}

/// A stored reply is a fact even when it is garbage: then it is a failure that says so.
fn parse(to: &TaskSubject, payload: &[u8]) -> Reply {
    let fits = |reply: &Reply| {
        (reply.role, &reply.run, &reply.task, reply.attempt) == (to.role, &to.run, &to.task, to.attempt)
    };
    let known: Result<Reply, _> = read(payload, "reply", "reply");
    known.ok().filter(fits).unwrap_or_else(|| {
        let message = format!("the worker of {} stored something that is no reply to task {}", to.role, to.task);
        let failure = Failure::again(FailureKind::Internal, message);
        Reply::new(to.role, to.run.clone(), to.task.clone(), to.attempt, Outcome::Failed { failure })
    })
}
