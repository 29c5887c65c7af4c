//! Runs: `<run>` is the record, `<run>.goal` and `<run>.plan.<revision>` are written once. And the requests that a run
//! sent, in the history bucket as `<run>.<task>.<attempt>`, by create, so that a takeover cannot write one twice.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{StoreError, json, read};
use crate::bus::{Bucket, Bus, BusError, Entry, Outgoing, Point};
use crate::wire::{Goal, Message, Plan, RunId, RunRecord, RunSummary};

/// Summaries that a listing gathers before it sorts and drops the older ones, at least.
const LIST_SORT_MIN: usize = 1_024;

/// Runs and their history.
#[derive(Clone)]
pub struct Runs {
    runs: Bucket,
    history: Bucket,
}

/// A record and the revision that its next writer must name.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The record.
    pub record: RunRecord,
    /// Its revision.
    pub revision: u64,
}

/// What became of a submitted goal.
#[derive(Debug)]
pub enum Accepted {
    /// A new run.
    New,
    /// The same goal was submitted under the same key before.
    Known(Recorded),
    /// Another goal has this key.
    Conflict,
}

/// One request that was sent.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    /// The request.
    pub message: Message,
    /// Its revision, which orders the history.
    pub revision: u64,
    /// When the server stored it, in nanoseconds since 1970: the time that the task's limit counts from.
    pub at: i64,
}

impl Runs {
    pub(super) fn new(bus: &Bus) -> Self {
        Self { runs: Bucket::new(bus, bus.root.runs_bucket()), history: Bucket::new(bus, bus.root.history_bucket()) }
    }

    /// Keeps a goal and its new record. Idempotent: a door that died between the two is completed by the next try.
    pub async fn accept(&self, run: &RunId, goal: &Goal) -> Result<Accepted, StoreError> {
        match self.runs.update(Point::Goal, &format!("{run}.goal"), json(goal), 0).await {
            Ok(_) => {}
            Err(BusError::Taken { .. }) if self.goal(run).await?.is_some_and(|known| known.same(goal)) => {}
            Err(BusError::Taken { .. }) => return Ok(Accepted::Conflict),
            Err(error) => return Err(error.into()),
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let record = RunRecord::submitted(i64::try_from(now).unwrap_or(i64::MAX));
        match self.runs.update(Point::Record, run.as_str(), json(&record), 0).await {
            Ok(_) => Ok(Accepted::New),
            Err(BusError::Taken { .. }) => {
                let known = self.record(run).await?;
                let gone = || StoreError::Unreadable { what: run.to_string(), kind: "run record" };
                Ok(Accepted::Known(known.ok_or_else(gone)?))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The goal of a run.
    pub async fn goal(&self, run: &RunId) -> Result<Option<Goal>, StoreError> {
        Ok(self.goal_at(run).await?.map(|(goal, _)| goal))
    }

    /// The goal of a run, and when the server stored it, in nanoseconds since 1970.
    pub async fn goal_at(&self, run: &RunId) -> Result<Option<(Goal, i64)>, StoreError> {
        let key = format!("{run}.goal");
        let Some(entry) = self.runs.get(&key).await? else {
            return Ok(None);
        };
        Ok(Some((read(&entry.value, &key, "goal")?, entry.at)))
    }

    /// A revision of a run's plan.
    pub async fn plan(&self, run: &RunId, revision: u32) -> Result<Option<Plan>, StoreError> {
        self.get(&format!("{run}.plan.{revision}"), "plan").await
    }

    /// Keeps a revision of a plan, and returns what is kept: ours, or the one that was first.
    pub async fn keep_plan(&self, run: &RunId, revision: u32, plan: &Plan) -> Result<Plan, StoreError> {
        match self.runs.update(Point::Plan, &format!("{run}.plan.{revision}"), json(plan), 0).await {
            Ok(_) => Ok(plan.clone()),
            Err(BusError::Taken { .. }) => Ok(self.plan(run, revision).await?.unwrap_or_else(|| plan.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// The record, from the leader, because decisions hang on it.
    pub async fn record(&self, run: &RunId) -> Result<Option<Recorded>, StoreError> {
        let Some(entry) = self.runs.get_from_leader(run.as_str()).await? else {
            return Ok(None);
        };
        Ok(Some(Recorded { record: read(&entry.value, &entry.key, "run record")?, revision: entry.revision }))
    }

    /// Shows `see` every run that has a record, even one that this version cannot read.
    pub async fn each_kept(&self, mut see: impl FnMut(RunId)) -> Result<(), StoreError> {
        let run = |entry: Entry| entry.key.parse().map_or_else(|_| {}, &mut see);
        Ok(self.runs.scan_heads(run).await?)
    }

    /// Writes the record over `revision`; `None` when somebody else wrote it meanwhile.
    pub async fn write(
        &self,
        point: Point,
        run: &RunId,
        record: &RunRecord,
        revision: u64,
    ) -> Result<Option<u64>, StoreError> {
        match self.runs.update(point, run.as_str(), json(record), revision).await {
            Ok(revision) => Ok(Some(revision)),
            Err(BusError::Taken { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Shows `see` all records, however many there are, each with its run and the time that the server stored it, in
    /// nanoseconds since 1970. A record that this version cannot read is left out.
    pub async fn each(&self, mut see: impl FnMut(RunId, Recorded, i64)) -> Result<(), StoreError> {
        let recorded = |entry: Entry| {
            let record: Result<RunRecord, _> = read(&entry.value, &entry.key, "run record");
            if let (Ok(run), Ok(record)) = (entry.key.parse(), record) {
                see(run, Recorded { record, revision: entry.revision }, entry.at);
            }
        };
        Ok(self.runs.scan_heads(recorded).await?)
    }

    /// The newest `max` runs that are kept and that this version can read, the newest first, and how many there are in all.
    pub async fn list(&self, max: usize) -> Result<(Vec<RunSummary>, usize), StoreError> {
        let mut newest: Vec<RunSummary> = Vec::new();
        let mut total = 0;
        let keep = |newest: &mut Vec<RunSummary>| {
            newest.sort_by_key(|run| std::cmp::Reverse(run.submitted_at));
            newest.truncate(max);
        };
        let see = |run, Recorded { record, .. }: Recorded, _| {
            total += 1;
            newest.push(RunSummary { run, status: record.status, submitted_at: record.submitted_at });
            if newest.len() >= max.saturating_mul(2).max(LIST_SORT_MIN) {
                keep(&mut newest);
            }
        };
        self.each(see).await?;
        keep(&mut newest);
        Ok((newest, total))
    }

    /// The message that writes a request into the history, once.
    pub fn history_message(&self, message: &Message) -> Outgoing {
        let about = &message.metadata;
        let key = format!("{}.{}.{}", about.run, about.task, about.attempt);
        self.history.update_message(Point::History, &key, json(message), 0)
    }

    /// The requests that a run sent, in their order. Entries that this version cannot read are an error, because the
    /// bounds of the run hang on them.
    pub async fn history(&self, run: &RunId) -> Result<Vec<HistoryEntry>, StoreError> {
        let entries = self.history.scan(run.as_str()).await?;
        entries.iter().map(history_entry).collect()
    }

    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        key: &str,
        kind: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let Some(entry) = self.runs.get(key).await? else {
            return Ok(None);
        };
        read(&entry.value, key, kind).map(Some)
    }
}

fn history_entry(entry: &Entry) -> Result<HistoryEntry, StoreError> {
    let message = read(&entry.value, &entry.key, "message")?;
    Ok(HistoryEntry { message, revision: entry.revision, at: entry.at })
}
