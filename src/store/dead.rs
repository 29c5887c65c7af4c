//! Dead letters: tasks that killed their workers, the newest of each task.

use super::{StoreError, json, read};
use crate::bus::{Bus, Outgoing, Point};
use crate::wire::{DeadLetter, Role, RunId, TaskId};

/// The stream of dead letters.
#[derive(Clone)]
pub struct DeadLetters {
    bus: Bus,
    stream: String,
}

impl DeadLetters {
    pub(super) fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), stream: bus.root.dead_stream() }
    }

    /// Keeps a dead letter, in the place of an older one of the same task.
    pub async fn keep(&self, letter: &DeadLetter) -> Result<(), StoreError> {
        let subject = self.bus.root.dead(letter.role, &letter.run, &letter.task);
        self.bus.store(Outgoing::new(Point::Dead, self.stream.clone(), subject, json(letter))).await?;
        Ok(())
    }

    /// The dead letter of a task.
    pub async fn get(&self, role: Role, run: &RunId, task: &TaskId) -> Result<Option<DeadLetter>, StoreError> {
        let subject = self.bus.root.dead(role, run, task);
        let kept = self.bus.last_from_leader(&self.stream, &subject).await?;
        kept.map(|kept| read(&kept.payload, &subject, "dead letter")).transpose()
    }

    /// All dead letters, the oldest first, with the time that the server stored each, in nanoseconds since 1970; of one run
    /// when it is named. What this version cannot read is left out.
    pub async fn list(&self, run: Option<&RunId>) -> Result<Vec<(DeadLetter, i64)>, StoreError> {
        let filter = run.map_or_else(|| self.bus.root.all_dead(), |run| self.bus.root.dead_of(run));
        let kept = self.bus.scan(&self.stream, &filter).await?;
        let letter = |kept: crate::bus::Kept| Some((read(&kept.payload, &kept.subject, "dead letter").ok()?, kept.at));
        Ok(kept.into_iter().filter_map(letter).collect())
    }
}
