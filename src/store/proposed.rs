//! What agents see of the shared state, and what becomes of the changes that they propose.
//!
//! The verdict on a reply's changes is a key of its own, `<run>._applied.<task>.<attempt>`, created in the same atomic batch as
//! the changes: so they are made once, however often that is tried and by whomever.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde_json::Value;

use super::state::{Write, named};
use super::{SharedState, StoreError, json, read};
use crate::bus::{Entry, Point};
use crate::wire::{
    RunId, STATE_RESERVED, StateChange, StateOp, StateRefusal, StateSeen, StateVerdict, StateView, TaskId, limits,
};

/// Tries of one decision against others who change the same values.
const DECIDE_TRIES_MAX: u32 = 1_000;
/// Names that are looked at for a task.
const VIEW_NAMES_MAX: usize = 1_000;
/// Bytes of a value that a refusal shows.
const SHOWN_BYTES_MAX: usize = 200;

impl SharedState {
    /// The shared state of a run as a task shows it, in the names' order; what is no JSON is shown as text. Of more than
    /// [`VIEW_NAMES_MAX`] names those that were changed last are left out.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn view(&self, run: &RunId) -> Result<StateView, StoreError> {
        let mut values = Vec::new();
        let see = |entries: Vec<Entry>| {
            values.extend(named(run, entries).into_iter().map(|(name, entry)| seen(name, &entry)));
            if values.len() > VIEW_NAMES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.bucket.scan_pages(run.as_str(), see).await?;
        let more = values.len().saturating_sub(VIEW_NAMES_MAX) as u64;
        values.truncate(VIEW_NAMES_MAX);
        values.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(StateView::of(values, more))
    }

    /// The verdicts on what the replies of a run proposed, by task and attempt.
    ///
    /// # Errors
    /// When the store cannot be read, or holds one that this version cannot read.
    pub async fn verdicts(&self, run: &RunId) -> Result<BTreeMap<(TaskId, u32), StateVerdict>, StoreError> {
        let prefix = format!("{run}.{STATE_RESERVED}");
        let mut verdicts = BTreeMap::new();
        for entry in self.bucket.scan(&prefix).await? {
            let about = entry.key[prefix.len() + 1..].split_once('.');
            let about = about.and_then(|(task, attempt)| Some((task.parse().ok()?, attempt.parse().ok()?)));
            if let Some(about) = about {
                verdicts.insert(about, read(&entry.value, &entry.key, "verdict on changes of shared state")?);
            }
        }
        Ok(verdicts)
    }

    /// Makes all changes that one attempt's reply proposes, or none of them, and keeps the verdict; when there is one already it
    /// is returned, and nothing is done. Nothing is changed for a reply that counts for nothing; `void` says why it does.
    ///
    /// # Errors
    /// [`StoreError::Contended`] after [`DECIDE_TRIES_MAX`] tries, and when the store cannot be used.
    pub async fn decide(
        &self,
        run: &RunId,
        task: &TaskId,
        attempt: u32,
        changes: &[StateChange],
        void: Option<&str>,
    ) -> Result<StateVerdict, StoreError> {
        let key = format!("{run}.{STATE_RESERVED}.{task}.{attempt}");
        let names: Vec<&str> = changes.iter().map(|change| change.name.as_str()).collect();
        for _ in 0..DECIDE_TRIES_MAX {
            if let Some(entry) = self.bucket.get_from_leader(&key).await? {
                return read(&entry.value, &key, "verdict on changes of shared state");
            }
            let (mut writes, verdict) = match void {
                Some(why) => (Vec::new(), StateVerdict::void(why)),
                None => self.judged(run, changes).await?,
            };
            let text = String::from_utf8_lossy(&json(&verdict)).into_owned();
            writes.push(Write { key: key.clone(), text, revision: 0 });
            if self.write_all(Point::Decide, writes).await? {
                return Ok(verdict);
            }
            Self::pause().await;
        }
        Err(StoreError::Contended { names: names.join(", "), tries: DECIDE_TRIES_MAX })
    }

    /// The writes that these changes come to, none when one of them cannot be made, and the verdict.
    async fn judged(&self, run: &RunId, changes: &[StateChange]) -> Result<(Vec<Write>, StateVerdict), StoreError> {
        let faults = StateChange::faults(changes);
        let made = if faults.is_empty() { self.made(run, changes).await? } else { Err(faults) };
        Ok(match made {
            Ok(writes) => {
                let mut changed: Vec<String> = changes.iter().map(|change| change.name.clone()).collect();
                changed.sort();
                changed.dedup();
                (writes, StateVerdict::changed(changed))
            }
            Err(refused) => (Vec::new(), StateVerdict::refused(refused)),
        })
    }

    /// The writes that these changes come to, or why one of them cannot be made.
    async fn made(
        &self,
        run: &RunId,
        changes: &[StateChange],
    ) -> Result<Result<Vec<Write>, Vec<StateRefusal>>, StoreError> {
        let mut values: BTreeMap<&str, (Option<Value>, u64)> = BTreeMap::new();
        let mut refused = Vec::new();
        for change in changes {
            let name = change.name.as_str();
            if !values.contains_key(name) {
                let entry = self.bucket.get_from_leader(&format!("{run}.{name}")).await?;
                refused.extend(conflict(change, entry.as_ref()));
                let revision = entry.as_ref().map_or(0, |entry| entry.revision);
                let value = entry.map(|entry| parsed(&entry).unwrap_or_else(Value::String));
                values.insert(name, (value, revision));
            }
            let Some((value, _)) = values.get_mut(name) else { continue };
            match change.applied(value.as_ref()) {
                Ok(new) => *value = Some(new),
                Err(refusal) => refused.push(refusal),
            }
        }
        if !refused.is_empty() {
            return Ok(Err(refused));
        }
        let write = |(name, (value, revision)): (&str, (Option<Value>, u64))| {
            let text = value.unwrap_or_default().to_string();
            Write { key: format!("{run}.{name}"), text, revision }
        };
        Ok(Ok(values.into_iter().map(write).collect()))
    }
}

/// The refusal of a change whose value has another revision than it expects.
fn conflict(change: &StateChange, there: Option<&Entry>) -> Option<StateRefusal> {
    let expected = change.expected?;
    let revision = there.map_or(0, |entry| entry.revision);
    if revision == expected {
        return None;
    }
    let wanted = match (expected, change.op) {
        (0, _) => "was expected not to be there".to_owned(),
        (_, StateOp::Set) => format!("was to be replaced at revision {expected}"),
        _ => format!("was expected at revision {expected}"),
    };
    let now = match there {
        None => "is not there".to_owned(),
        Some(entry) => {
            let value = String::from_utf8_lossy(&entry.value);
            format!("is at revision {revision} now: {}", limits::cut(&value, SHOWN_BYTES_MAX))
        }
    };
    Some(StateRefusal { raced: true, ..StateRefusal::of(&change.name, format!("{wanted}, and {now}")) })
}

/// A value for a task, left out here when there could be no room for it.
fn seen(name: String, entry: &Entry) -> StateSeen {
    let json = (entry.value.len() <= limits::STATE_INLINE_BYTES_MAX)
        .then(|| parsed(entry).unwrap_or_else(Value::String).to_string());
    StateSeen { name, revision: entry.revision, json }
}

/// A value, or what is no JSON as text.
fn parsed(entry: &Entry) -> Result<Value, String> {
    serde_json::from_slice(&entry.value).map_err(|_| String::from_utf8_lossy(&entry.value).into_owned())
}
