//! Shared state: small JSON values that every machine sees, `<run>.<name>` in the state bucket.
//!
//! An update reads its keys, computes, and writes all of them in one atomic batch, each on the condition that it is what
//! was read; on a conflict it starts again. So concurrent writers lose nothing, and several keys change together or not
//! at all.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use serde_json::Value;

use super::StoreError;
use crate::bus::failpoint::{Side, hit};
use crate::bus::{Bucket, Bus, BusError, Entry, Point, Use};
use crate::wire::{RunId, STATE_RESERVED, is_state_name, limits};

/// Tries of one update before it gives up.
const UPDATE_TRIES_MAX: u32 = 1_000;
/// Longest random pause between two tries.
const UPDATE_DELAY_MS_MAX: u64 = 50;
/// The server's codes that another try may get past: "wrong last sequence", alone and inside a batch, and "too many
/// batches in flight".
const CONFLICTS: [u64; 4] = [10071, 10164, 10176, 10210];

/// The shared state of all runs.
#[derive(Clone)]
pub struct SharedState {
    bus: Bus,
    pub(super) bucket: Bucket,
}

/// One write of a change: the key, its new value, and the revision that it must still have, 0 for none.
pub(super) struct Write {
    pub(super) key: String,
    pub(super) text: String,
    pub(super) revision: u64,
}

/// A value and its revision.
#[derive(Clone, Debug, PartialEq)]
pub struct StateEntry {
    /// The value.
    pub value: Value,
    /// Its revision; a later one is greater.
    pub revision: u64,
}

impl SharedState {
    pub(super) fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), bucket: Bucket::new(bus, bus.root.state_bucket()) }
    }

    /// The value of `name`, from the leader.
    pub async fn get(&self, run: &RunId, name: &str) -> Result<Option<StateEntry>, StoreError> {
        let key = key(run, name)?;
        let Some(entry) = self.bucket.get_from_leader(&key).await? else {
            return Ok(None);
        };
        parse(&key, &entry.value).map(|value| Some(StateEntry { value, revision: entry.revision }))
    }

    /// All names and values of a run.
    pub async fn all(&self, run: &RunId) -> Result<BTreeMap<String, StateEntry>, StoreError> {
        let mut found = BTreeMap::new();
        for (name, entry) in self.entries(run).await? {
            let value = parse(&entry.key, &entry.value)?;
            found.insert(name, StateEntry { value, revision: entry.revision });
        }
        Ok(found)
    }

    /// Everything that is kept for a run under a name, verdicts left out.
    async fn entries(&self, run: &RunId) -> Result<Vec<(String, Entry)>, StoreError> {
        Ok(named(run, self.bucket.scan(run.as_str()).await?))
    }

    /// What was stored for a run after a revision, in the order in which it was stored: name, value, and the time in nanoseconds
    /// since 1970, by the server's clock. Of each name the newest value alone.
    ///
    /// # Errors
    /// When the store cannot be read, or holds what is no JSON.
    pub async fn after(&self, run: &RunId, revision: u64) -> Result<Vec<(String, StateEntry, i64)>, StoreError> {
        let mut found = Vec::new();
        for (name, entry) in named(run, self.bucket.scan_after(run.as_str(), revision).await?) {
            let value = parse(&entry.key, &entry.value)?;
            found.push((name, StateEntry { value, revision: entry.revision }, entry.at));
        }
        Ok(found)
    }

    /// The subjects on which the values of a run are stored.
    pub fn subjects(&self, run: &RunId) -> String {
        self.bucket.subject(&format!("{run}.>"))
    }

    /// The newest revision of all runs' values.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn end(&self) -> Result<u64, StoreError> {
        Ok(self.bus.last_sequence(self.bucket.stream()).await?)
    }

    /// Sets one value, whatever was there.
    pub async fn set(&self, run: &RunId, name: &str, value: Value) -> Result<(), StoreError> {
        self.update(run, &[name], |values| drop(values.insert(name.to_owned(), value.clone()))).await.map(drop)
    }

    /// Changes several values together: `change` gets the values of `names` that exist, and what it leaves under these
    /// names is written at once, or it is called again with newer values. Returns what was written.
    ///
    /// # Errors
    /// [`StoreError::Contended`] after [`UPDATE_TRIES_MAX`] conflicts; names and sizes are checked first.
    pub async fn update(
        &self,
        run: &RunId,
        names: &[&str],
        change: impl FnMut(&mut BTreeMap<String, Value>),
    ) -> Result<BTreeMap<String, Value>, StoreError> {
        self.update_at(run, names, None, change).await
    }

    /// The same, and only while the newest of the values has the revision `expected`; 0 when none of them is there. Revisions
    /// count all values of a fleet, so this fails when any of them was changed after `expected`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another revision is there, and those of [`SharedState::update`].
    pub async fn update_at(
        &self,
        run: &RunId,
        names: &[&str],
        expected: Option<u64>,
        mut change: impl FnMut(&mut BTreeMap<String, Value>),
    ) -> Result<BTreeMap<String, Value>, StoreError> {
        if names.len() > limits::STATE_KEYS_MAX {
            let what = format!("an update of {} keys", names.len());
            return Err(StoreError::TooLarge { what, bound: "state_keys_max", max: limits::STATE_KEYS_MAX });
        }
        for _ in 0..UPDATE_TRIES_MAX {
            let mut values = BTreeMap::new();
            let mut revisions = BTreeMap::new();
            for name in names {
                let subject_key = key(run, name)?;
                let entry = self.bucket.get_from_leader(&subject_key).await?;
                revisions.insert(*name, entry.as_ref().map_or(0, |entry| entry.revision));
                if let Some(entry) = entry {
                    values.insert((*name).to_owned(), parse(&subject_key, &entry.value)?);
                }
            }
            let found = revisions.values().max().copied().unwrap_or_default();
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                return Err(StoreError::Conflict { run: run.clone(), names: names.join(", "), expected, found });
            }
            change(&mut values);
            values.retain(|name, _| revisions.contains_key(name.as_str()));
            if self.write(run, &values, &revisions).await? {
                return Ok(values);
            }
            Self::pause().await;
        }
        Err(StoreError::Contended { names: names.join(", "), tries: UPDATE_TRIES_MAX })
    }

    /// True when everything was written, false on a conflict.
    async fn write(
        &self,
        run: &RunId,
        values: &BTreeMap<String, Value>,
        revisions: &BTreeMap<&str, u64>,
    ) -> Result<bool, StoreError> {
        let mut writes = Vec::with_capacity(values.len());
        for (name, value) in values {
            let text = value.to_string();
            if text.len() > limits::STATE_VALUE_BYTES_MAX {
                let what = format!("the value of {name} ({} bytes)", text.len());
                return Err(StoreError::TooLarge {
                    what,
                    bound: "state_value_bytes_max",
                    max: limits::STATE_VALUE_BYTES_MAX,
                });
            }
            let revision = revisions.get(name.as_str()).copied().unwrap_or_default();
            writes.push(Write { key: key(run, name)?, text, revision });
        }
        self.write_all(Point::State, writes).await
    }

    /// Writes everything or nothing: true when it is written, false on a conflict.
    pub(super) async fn write_all(&self, point: Point, mut writes: Vec<Write>) -> Result<bool, StoreError> {
        match writes.len() {
            0 => Ok(true),
            1 => {
                let Write { key, text, revision } = writes.remove(0);
                match self.bucket.update(point, &key, text, revision).await {
                    Ok(_) => Ok(true),
                    Err(BusError::Taken { .. }) => Ok(false),
                    Err(error) => Err(error.into()),
                }
            }
            _ => self.write_batch(point, writes).await,
        }
    }

    /// Lets others go first.
    pub(super) async fn pause() {
        let pause = rand::random_range(0..=UPDATE_DELAY_MS_MAX);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// An atomic batch (ADR-50): all messages carry the batch's id and their number; the last commits.
    async fn write_batch(&self, point: Point, writes: Vec<Write>) -> Result<bool, StoreError> {
        hit(point, Side::Before);
        let batch = format!("{:032x}", rand::random::<u128>());
        let last = writes.len();
        for (index, Write { key, text, revision }) in writes.into_iter().enumerate() {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Batch-Id", batch.as_str());
            headers.insert("Nats-Batch-Sequence", (index + 1).to_string());
            headers.insert("Nats-Expected-Last-Subject-Sequence", revision.to_string());
            let subject = self.bucket.subject(&key);
            let failed = |source| BusError::Core { what: format!("write shared state {key}"), source };
            let number = index + 1;
            if number != 1 && number != last {
                let sent = self.bus.client.publish_with_headers(subject, headers, text.into()).await;
                sent.map_err(|error| failed(error.into()))?;
                continue;
            }
            if number == last {
                headers.insert("Nats-Batch-Commit", "1");
            }
            let answer = tokio::select! {
                answer = self.bus.client.request_with_headers(subject.clone(), headers, text.into()) => answer,
                () = self.bus.denied(Use::Publish, &subject) => return Err(self.bus.forbidden(&subject).into()),
            };
            let answer = answer.map_err(|error| failed(error.into()))?;
            if let Some(error) = batch_error(&answer.payload) {
                return if CONFLICTS.contains(&error.0) { Ok(false) } else { Err(failed(error.1.into()).into()) };
            }
        }
        hit(point, Side::After);
        Ok(true)
    }
}

/// What is kept under a name, verdicts left out.
pub(super) fn named(run: &RunId, entries: Vec<Entry>) -> Vec<(String, Entry)> {
    let named = |entry: Entry| {
        let name = entry.key.strip_prefix(run.as_str())?.strip_prefix('.')?.to_owned();
        (name.split('.').next() != Some(STATE_RESERVED)).then_some((name, entry))
    };
    entries.into_iter().filter_map(named).collect()
}

/// Code and text of the error in a publish acknowledgement, if it is one. The first message of a batch is answered with
/// an empty body.
fn batch_error(payload: &[u8]) -> Option<(u64, String)> {
    let answer: Value = serde_json::from_slice(payload).ok()?;
    let error = answer.get("error")?;
    Some((error.get("err_code")?.as_u64()?, error.get("description")?.as_str()?.to_owned()))
}

fn parse(key: &str, payload: &[u8]) -> Result<Value, StoreError> {
    serde_json::from_slice(payload).map_err(|_| StoreError::Unreadable { what: key.to_owned(), kind: "JSON value" })
}

fn key(run: &RunId, name: &str) -> Result<String, StoreError> {
    if !is_state_name(name) {
        return Err(StoreError::BadName { name: name.chars().take(limits::STATE_NAME_CHARS_MAX).collect() });
    }
    Ok(format!("{run}.{name}"))
}
