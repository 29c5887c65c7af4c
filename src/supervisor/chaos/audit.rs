//! What became of the runs, counted from the store: each must be exactly what it is without chaos.

use std::collections::{BTreeMap, BTreeSet};

use super::story::Story;
use crate::bus::{Bus, BusError};
use crate::store::{Store, StoreError};
use crate::wire::subject::TaskSubject;
use crate::wire::{Outcome, Reply, Role, RunId, RunStatus, TaskId};

/// Faults that are told in words.
const FAULTS_MAX: usize = 20;

/// What a run comes to: every attempt with its reply's content and files, and the run's own answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    attempts: BTreeMap<(TaskId, u32), String>,
    answer: String,
}

/// The sum over all runs.
#[derive(Debug, Default)]
pub(super) struct Audit {
    pub(super) tasks: usize,
    pub(super) lost: usize,
    pub(super) duplicated: usize,
    pub(super) left: usize,
    pub(super) faults: Vec<String>,
}

impl Reference {
    /// What a run came to, or why it did not.
    pub(super) async fn of(store: &Store, run: &RunId) -> Result<Result<Self, String>, StoreError> {
        let Some(recorded) = store.runs.record(run).await? else { return Ok(Err("it has no record".into())) };
        let replies = store.results.of_run(run).await?;
        let result = store.results.get(&TaskSubject::of_run(run, 1)).await?;
        let (RunStatus::Completed, Some(result)) = (recorded.record.status, result) else {
            let status = recorded.record.status.name();
            let last = replies.iter().rev().find_map(|(_, reply)| reply.failure().map(ToString::to_string));
            return Ok(Err(format!("it is {status}; {}", last.unwrap_or_default())));
        };
        let of_tasks = replies.iter().filter(|(to, _)| to.role != Role::Orchestrator);
        let attempts = of_tasks.map(|(to, reply)| ((to.task.clone(), to.attempt), content(reply))).collect();
        Ok(Ok(Self { attempts, answer: content(&result) }))
    }
}

/// What a reply says, without what differs from time to time: who said it, how long tests took, what it cost.
fn content(reply: &Reply) -> String {
    let files: Vec<String> = reply.artifacts().iter().map(|file| format!("{}={}", file.path, file.sha256)).collect();
    let words = match (&reply.outcome, reply.passed()) {
        (Outcome::Completed { .. }, Some(passed)) => format!("passed={passed}"),
        (Outcome::Completed { content, .. }, None) => content.clone(),
        (Outcome::Failed { failure }, _) => format!("failed {:?}", failure.kind),
        (Outcome::Question(question), _) => format!("asks {}: {}", question.to, question.text),
        (Outcome::Canceled { .. }, _) => "canceled".into(),
    };
    format!("{words} [{}]", files.join(" "))
}

impl Audit {
    /// Compares every run with the undisturbed one of its story.
    pub(super) async fn make(
        bus: &Bus,
        store: &Store,
        runs: &BTreeMap<RunId, Story>,
        references: &BTreeMap<Story, Reference>,
    ) -> Result<Self, StoreError> {
        let left = left(bus).await?;
        let mut audit = Self { left: left.len(), ..Self::default() };
        left.into_iter().for_each(|subject| audit.tell(format!("{subject} is left")));
        for (run, story) in runs {
            let Some(reference) = references.get(story) else { continue };
            match Reference::of(store, run).await? {
                Ok(came_to) => audit.compare(run, &came_to, reference),
                Err(why) => audit.lose(1, format!("run {run}: {why}")),
            }
            audit.check_history(store, run, reference).await?;
            audit.check_files(store, run).await?;
        }
        Ok(audit)
    }

    fn compare(&mut self, run: &RunId, came_to: &Reference, reference: &Reference) {
        self.tasks += came_to.attempts.len();
        let keys = |of: &Reference| of.attempts.keys().cloned().collect::<BTreeSet<_>>();
        let (there, wanted) = (keys(came_to), keys(reference));
        for (task, attempt) in wanted.difference(&there) {
            self.lose(1, format!("run {run}: no reply to {task}, attempt {attempt}"));
        }
        for (task, attempt) in there.difference(&wanted) {
            let what = &came_to.attempts[&(task.clone(), *attempt)];
            self.double(format!("run {run}: {task} has an attempt {attempt} too many: {what}"));
        }
        let differs = |key: &&(TaskId, u32)| came_to.attempts[*key] != reference.attempts[*key];
        for key in there.intersection(&wanted).filter(differs) {
            self.lose(1, format!("run {run}: {} came to {}", key.0, came_to.attempts[key]));
        }
        if came_to.answer != reference.answer {
            self.lose(1, format!("run {run}: its answer is {}", came_to.answer));
        }
    }

    /// Each exchange once, and no other.
    async fn check_history(&mut self, store: &Store, run: &RunId, reference: &Reference) -> Result<(), StoreError> {
        let history = store.runs.history(run).await?;
        let asked: BTreeSet<_> =
            history.iter().map(|entry| (entry.message.metadata.task.clone(), entry.message.metadata.attempt)).collect();
        for (task, attempt) in reference.attempts.keys().filter(|key| !asked.contains(*key)) {
            self.lose(1, format!("run {run}: the history does not have {task}, attempt {attempt}"));
        }
        for (task, attempt) in asked.iter().filter(|key| !reference.attempts.contains_key(*key)) {
            self.double(format!("run {run}: {task}, attempt {attempt}, was asked for in vain"));
        }
        if store.runs.plan(run, 2).await?.is_some() {
            self.double(format!("run {run}: it has a second plan"));
        }
        Ok(())
    }

    /// Every file is there and matches its hash.
    async fn check_files(&mut self, store: &Store, run: &RunId) -> Result<(), StoreError> {
        for (_, reply) in store.results.of_run(run).await? {
            match store.artifacts.get_all(run, reply.artifacts()).await {
                Ok(_) => {}
                Err(error @ StoreError::Damaged { .. }) => self.lose(1, format!("run {run}: {error}")),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn lose(&mut self, count: usize, fault: String) {
        self.lost += count;
        self.tell(fault);
    }

    fn double(&mut self, fault: String) {
        self.duplicated += 1;
        self.tell(fault);
    }

    fn tell(&mut self, fault: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }
}

/// Subjects of the messages in the work queue and on the schedule.
pub(super) async fn left(bus: &Bus) -> Result<Vec<String>, BusError> {
    let root = &bus.root;
    let mut left = Vec::new();
    for (stream, filter) in [
        (root.tasks_stream(), root.all_tasks()),
        (root.later_stream(), root.all_later()),
        (root.later_stream(), root.all_due()),
    ] {
        left.extend(bus.scan(&stream, &filter).await?.into_iter().map(|kept| kept.subject));
    }
    Ok(left)
}
