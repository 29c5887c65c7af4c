//! What a holder finds that takes over: attempts that were asked for, and have no reply, or no request in the history.
//!
//! A request and its task are published together, so either can be missing. A task without its request is looked for where it
//! is: on its queue, or on the schedule. The request is made of that task, so that the budget that is reserved for it and
//! the state that it showed are what its worker has, and not what there is now.

use std::time::{Duration, Instant};

use super::drive::{Drive, Sent};
use super::next::{Job, Step, job, next};
use crate::bus::{Bus, BusError};
use crate::store::{HistoryEntry, StoreError};
use crate::wire::{Outcome, Reply, Role, RunId, Task, TaskId};

impl Drive<'_> {
    /// Makes the facts whole that a holder before us left in parts, and keeps an eye on what it sent.
    pub(super) async fn take_over(&mut self) -> Result<(), StoreError> {
        let waiting = queued(&self.of.bus, &self.lease.run).await?;
        let now = self.of.bus.server_now().await?;
        self.fill_history(&waiting, now).await?;
        self.watch_rest(&waiting, now);
        Ok(())
    }

    /// What was done, or is on its way, was asked for: an entry of the history whose write failed while its task got through
    /// is written now.
    async fn fill_history(&mut self, waiting: &[Task], now: i64) -> Result<(), StoreError> {
        let unknown = |task: &TaskId, attempt: u32| self.facts.request_of(task, attempt).is_none();
        // What a holder declared by itself, no worker was asked.
        let asked = |reply: &Reply| matches!(reply.outcome, Outcome::Completed { .. }) || reply.usage.calls > 0;
        let missing = |reply: &&Reply| asked(reply) && unknown(&reply.task, reply.attempt);
        let done: Vec<&Reply> = self.facts.results.values().filter(missing).collect();
        let open = |task: &&Task| self.facts.result(&task.id, task.attempt).is_none();
        let waiting: Vec<&Task> = waiting.iter().filter(open).filter(|task| unknown(&task.id, task.attempt)).collect();
        if done.is_empty() && waiting.is_empty() {
            return Ok(());
        }
        let attempts = self.attempts();
        let dispatch = self.dispatch(&attempts);
        let mut entries = Vec::new();
        for reply in done {
            let (task, role, attempt) = (reply.task.clone(), reply.role, reply.attempt);
            let job = Job { task, role, attempt, delay: Duration::ZERO };
            entries.push((dispatch.message(&dispatch.task(&job, self.of.limit(role))), now));
        }
        entries.extend(waiting.iter().map(|task| (dispatch.message(task), now)));
        for (message, at) in entries {
            match self.of.bus.store(self.of.store.runs.history_message(&message)).await {
                Ok(revision) => self.facts.requests.push(HistoryEntry { message, revision, at }),
                Err(BusError::Taken { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// What is on a queue or the schedule, and is not going to be sent again, is under way as well: its budget is reserved, and
    /// its time ends. What is nowhere was never sent, and is sent when it is its turn.
    fn watch_rest(&mut self, waiting: &[Task], now: i64) {
        let rules = &self.of.settings.rules;
        let wanted = match next(&self.facts, rules) {
            Step::Want(jobs) => jobs,
            _ => Vec::new(),
        };
        let is_wanted = |task: &TaskId, attempt| wanted.iter().any(|job| job.task == *task && job.attempt == attempt);
        for (role, (task, attempt)) in self.facts.unanswered() {
            let is_there = waiting.iter().any(|one| one.id == task && one.attempt == attempt);
            if is_there && !is_wanted(&task, attempt) {
                let job = job(&self.facts, rules, &task, role, attempt);
                let deadline = self.deadline(&job, now, 0);
                let sent = Sent { job, over: Instant::now() + deadline.left(now), paused: deadline.paused };
                self.sent.insert((task, attempt), sent);
            }
        }
    }
}

/// The tasks of a run that are on their queues or on the schedule.
async fn queued(bus: &Bus, run: &RunId) -> Result<Vec<Task>, BusError> {
    let on_queues = bus.scan(&bus.root.tasks_stream(), &bus.root.tasks_of_run(run)).await?;
    let later = bus.scan(&bus.root.later_stream(), &bus.root.later_of(run)).await?;
    // Messages for orchestrators are empty.
    let tasks = on_queues.iter().chain(&later).filter_map(|kept| serde_json::from_slice::<Task>(&kept.payload).ok());
    Ok(tasks.filter(|task| task.run == *run && task.role != Role::Orchestrator).collect())
}
