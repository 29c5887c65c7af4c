//! A task as it was sent, made again from what is stored: the queue forgets a task with its acknowledgement, but a task is
//! made of facts alone.

use std::time::Duration;

use super::dispatch::Dispatch;
use super::facts::Facts;
use super::next::{Attempts, Job};
use crate::store::{Store, StoreError};
use crate::wire::{Party, Role, Root, RunId, RunRecord, Task, TaskId};

/// A task made again.
#[derive(Clone, Debug)]
pub struct Retold {
    /// The task; its limit is left out.
    pub task: Task,
    /// True when it has the hash that the history keeps of what was sent. Otherwise something that it was made of has changed
    /// since, as a plan that was edited.
    pub exact: bool,
}

/// Makes an attempt of a task again; `None` when it was never asked for.
///
/// # Errors
/// When the store cannot be read.
pub async fn retell(
    store: &Store,
    root: &Root,
    run: &RunId,
    record: &RunRecord,
    wanted: (&TaskId, u32),
) -> Result<Option<Retold>, StoreError> {
    let Some(facts) = Facts::load(store, run, record).await? else { return Ok(None) };
    let is_it = |entry: &&crate::store::HistoryEntry| {
        let about = &entry.message.metadata;
        (&about.task, about.attempt) == wanted
    };
    let Some(entry) = facts.requests.iter().find(is_it) else { return Ok(None) };
    let Party::Role(role) = entry.message.to else { return Ok(None) };
    // What was in force then: the newest attempts that had been asked for.
    let mut attempts = Attempts::new();
    for earlier in facts.requests.iter().filter(|earlier| earlier.revision < entry.revision) {
        let about = &earlier.message.metadata;
        let newest = attempts.entry(about.task.clone()).or_insert(about.attempt);
        *newest = about.attempt.max(*newest);
    }
    let dispatch = Dispatch { root, run, facts: &facts, attempts: &attempts, tasks_max: None, depth_max: None };
    let job = Job { task: wanted.0.clone(), role, attempt: wanted.1, delay: Duration::ZERO };
    let mut task = dispatch.task(&job, Duration::ZERO);
    if role == Role::Planner {
        // It told the bound of that time.
        task.description.clone_from(&entry.message.content);
    }
    let exact = dispatch.message(&task).metadata.input == entry.message.metadata.input;
    Ok(Some(Retold { task, exact }))
}
