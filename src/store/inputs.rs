//! What people said about a run: `<run>.in.<item>.<voter>` in the bucket of runs, written once. Whoever parks a run reads
//! them after the record says so, and whoever says something reads the record after it is stored; so one of the two sees the
//! other. That holds only for what the stream's leader says, so these are never read from a copy.

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

    /// The inputs of a run after a revision, 0 for all, in their order, as the leader has them.
    ///
    /// # Errors
    /// When the store cannot be read, or holds an input of another version.
    pub async fn of_run(&self, run: &RunId, after: u64) -> Result<Vec<Heard>, StoreError> {
        let filter = self.runs.subject(&format!("{run}.in.*.*"));
        let mut heard = Vec::new();
        let mut from = after + 1;
        while let Some(kept) = self.bus.next_from_leader(self.runs.stream(), &filter, from).await? {
            from = kept.sequence + 1;
            if !kept.deleted {
                heard.push(parse(&kept)?);
            }
        }
        Ok(heard)
    }
}

fn parse(kept: &Kept) -> Result<Heard, StoreError> {
    let input: Input = read(&kept.payload, &kept.subject, "input")?;
    let mut tokens = kept.subject.rsplit('.');
    let named: (Option<VoterId>, Option<ItemId>) =
        (tokens.next().and_then(|voter| voter.parse().ok()), tokens.next().and_then(|item| item.parse().ok()));
    // What is kept under another name than its own would give a person a second vote.
    if named != (Some(input.voter()), Some(input.item.clone())) {
        return Err(StoreError::Unreadable { what: kept.subject.clone(), kind: "input" });
    }
    Ok(Heard { input, revision: kept.sequence, at: kept.at })
}
