//! What people said about a run: `<run>.in.<item>.<voter>` in the bucket of runs, written once. Whoever parks a run reads
//! them after the record says so, and whoever says something reads the record after it is stored; so one of the two sees the
//! other. That holds only for what the stream's leader has, so a copy's answer counts only up to where it reaches.
//!
//! What cannot be read counts for nothing: one input of a newer version must not keep everybody else from being heard.

use super::{StoreError, json, read};
use crate::bus::{Bucket, Bus, BusError, Kept, Point};
use crate::wire::{Input, ItemId, RunId, VoterId};

/// What people said.
#[derive(Clone)]
pub struct Inputs {
    bus: Bus,
    runs: Bucket,
}

/// One input as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// What was said.
    pub input: Input,
    /// Its revision, which orders inputs.
    pub revision: u64,
    /// When the server stored it, in nanoseconds since 1970.
    pub at: i64,
}

/// What was found of a run's inputs.
#[derive(Debug, Default)]
pub struct Listened {
    /// What can be read, in its order.
    pub heard: Vec<Heard>,
    /// The keys of what this version cannot read: damaged, or of a kind that only a newer one knows.
    pub unreadable: Vec<String>,
}

impl Inputs {
    pub(super) fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), runs: Bucket::new(bus, bus.root.runs_bucket()) }
    }

    /// Keeps an input; `None` when its voter has said something about this item before.
    ///
    /// # Errors
    /// When the server gave no verdict for longer than a publish may take.
    pub async fn keep(&self, run: &RunId, input: &Input) -> Result<Option<u64>, StoreError> {
        let key = format!("{run}.in.{}.{}", input.item, input.voter());
        match self.runs.update(Point::Input, &key, json(input), 0).await {
            Ok(revision) => Ok(Some(revision)),
            Err(BusError::Taken { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The inputs of a run after a revision, 0 for all, in their order: all that the leader has, and this version can read.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn of_run(&self, run: &RunId, after: u64) -> Result<Vec<Heard>, StoreError> {
        Ok(self.listen(run, after).await?.heard)
    }

    /// True when nobody has said anything about a run.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn none(&self, run: &RunId) -> Result<bool, StoreError> {
        Ok(self.bus.last_from_leader(self.runs.stream(), &self.of(run)).await?.is_none())
    }

    /// The same, with the names of what cannot be read.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn listen(&self, run: &RunId, after: u64) -> Result<Listened, StoreError> {
        let mut listened = Listened::default();
        for kept in self.kept(&self.of(run), after).await? {
            if kept.deleted {
                continue;
            }
            match parse(&kept) {
                Some(heard) => listened.heard.push(heard),
                None => {
                    tracing::warn!(%run, key = %kept.subject, "an input is damaged or of a newer version; it counts for nothing");
                    listened.unreadable.push(kept.subject.rsplit(".in.").next().unwrap_or_default().to_owned());
                }
            }
        }
        Ok(listened)
    }

    fn of(&self, run: &RunId) -> String {
        self.runs.subject(&format!("{run}.in.*.*"))
    }

    /// All messages after a sequence, as the leader has them: it says which is the last, a scan brings them in pages, and what
    /// the copy that answered it does not have yet comes from the leader.
    async fn kept(&self, filter: &str, after: u64) -> Result<Vec<Kept>, StoreError> {
        let stream = self.runs.stream();
        let last = self.bus.last_from_leader(stream, filter).await?.map_or(0, |last| last.sequence);
        if last <= after {
            return Ok(Vec::new());
        }
        let mut kept = self.bus.scan_from(stream, filter, after + 1).await?;
        let mut from = kept.last().map_or(after, |kept| kept.sequence) + 1;
        while from <= last
            && let Some(next) = self.bus.next_from_leader(stream, filter, from).await?
        {
            from = next.sequence + 1;
            kept.push(next);
        }
        Ok(kept)
    }
}

fn parse(kept: &Kept) -> Option<Heard> {
    let input: Input = read(&kept.payload, &kept.subject, "input").ok()?;
    let mut tokens = kept.subject.rsplit('.');
    let (voter, item): (VoterId, ItemId) = (tokens.next()?.parse().ok()?, tokens.next()?.parse().ok()?);
    // What is kept under another name than its own would give a person a second vote.
    let own = voter == input.voter() && item == input.item;
    own.then_some(Heard { input, revision: kept.sequence, at: kept.at })
}
