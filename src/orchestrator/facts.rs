//! All that is known of a run, read from the store: what a decision may hang on, and nothing else.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::store::{Heard, HistoryEntry, Listened, Store, StoreError};
use crate::wire::{
    Artifact, Goal, Message, Outcome, Plan, Question, Reply, Restart, Role, RunId, RunRecord, StateVerdict, StateView,
    TaskId, Usage,
};

/// One attempt of a task.
pub(super) type Try = (TaskId, u32);

/// The stored facts of a run.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What the user asked for.
    pub goal: Goal,
    /// The plan in force.
    pub plan: Option<Plan>,
    /// The requests sent, in their order.
    pub requests: Vec<HistoryEntry>,
    /// The replies, the run's own excluded.
    pub results: BTreeMap<(TaskId, u32), Reply>,
    /// Where the generation began, when it is not the first.
    pub restart: Restart,
    /// The shared state as it is shown to tasks that are asked for now.
    pub state: StateView,
    /// What became of the changes of shared state that replies proposed.
    pub verdicts: BTreeMap<(TaskId, u32), StateVerdict>,
    /// Completed replies whose changes nobody has decided on yet, in the order in which they came: they do not count so far.
    pub undecided: Vec<Reply>,
    /// When the goal was stored, by the server's clock, in nanoseconds since 1970.
    pub began: i64,
    /// The generation, from 1.
    pub generation: u32,
    /// What people said, in its order.
    pub inputs: Vec<Heard>,
    /// The keys of inputs that this version cannot read; they count for nothing.
    pub unreadable: Vec<String>,
}

impl Facts {
    /// Reads everything; `None` when the run has no goal, so that it is none.
    pub async fn load(store: &Store, run: &RunId, record: &RunRecord) -> Result<Option<Self>, StoreError> {
        let Some(mut facts) = Self::without_people(store, run, record).await? else {
            return Ok(None);
        };
        let Listened { heard, unreadable } = store.inputs.listen(run, 0).await?;
        (facts.inputs, facts.unreadable) = (heard, unreadable);
        Ok(Some(facts))
    }

    /// Reads what was asked and answered, and nothing of what people said: enough to tidy up after a run.
    pub(super) async fn without_people(
        store: &Store,
        run: &RunId,
        record: &RunRecord,
    ) -> Result<Option<Self>, StoreError> {
        let Some((goal, began)) = store.runs.goal_at(run).await? else {
            return Ok(None);
        };
        let plan = match record.plan {
            0 => None,
            revision => store.runs.plan(run, revision).await?,
        };
        let requests = store.runs.history(run).await?;
        let restart = record.restart.clone().unwrap_or_default();
        let generation = record.generation;
        let mut facts = Self { plan, requests, restart, began, generation, ..Self::fresh(goal) };
        facts.reconcile(store, run).await?;
        Ok(Some(facts))
    }

    /// The facts of a run that nobody has held yet: its goal.
    pub(super) fn fresh(goal: Goal) -> Self {
        Self {
            goal,
            began: 0,
            plan: None,
            requests: Vec::new(),
            results: BTreeMap::new(),
            restart: Restart::default(),
            state: StateView::default(),
            verdicts: BTreeMap::new(),
            undecided: Vec::new(),
            generation: 1,
            inputs: Vec::new(),
            unreadable: Vec::new(),
        }
    }

    /// Reads all results anew: the live copies can be missed.
    pub(super) async fn reconcile(&mut self, store: &Store, run: &RunId) -> Result<(), StoreError> {
        let replies = store.results.of_run(run).await?;
        if replies.iter().any(|(_, reply)| proposes(reply)) {
            self.verdicts.extend(store.state.verdicts(run).await?);
        }
        for (_, reply) in replies {
            self.absorb(reply);
        }
        Ok(())
    }

    /// Takes a reply in; true when it counts from now on. The first one counts, and one that proposes changes of shared state
    /// only when these are decided on: as a failure, if they were refused.
    pub(super) fn absorb(&mut self, reply: Reply) -> bool {
        let key = (reply.task.clone(), reply.attempt);
        if reply.role == Role::Orchestrator || self.results.contains_key(&key) {
            return false;
        }
        let reply = match self.verdicts.get(&key) {
            Some(verdict) => verdict.judged(reply),
            None if proposes(&reply) => {
                if !self.undecided.iter().any(|known| (&known.task, known.attempt) == (&key.0, key.1)) {
                    self.undecided.push(reply);
                }
                return false;
            }
            None => reply,
        };
        self.results.insert(key, reply);
        true
    }

    /// Reads what people said since; the revision of the last of it when there was any.
    pub(super) async fn hear(&mut self, store: &Store, run: &RunId) -> Result<Option<u64>, StoreError> {
        let known = self.inputs.last().map_or(0, |heard| heard.revision);
        let new = store.inputs.of_run(run, known).await?;
        let last = new.last().map(|heard| heard.revision);
        self.inputs.extend(new);
        Ok(last)
    }

    /// True when an attempt was asked for.
    pub(super) fn was_asked(&self, task: &TaskId, attempt: u32) -> bool {
        self.request_of(task, attempt).is_some()
    }

    /// The request for an attempt.
    pub(super) fn request_of(&self, task: &TaskId, attempt: u32) -> Option<&HistoryEntry> {
        let is_it =
            |entry: &&HistoryEntry| entry.message.metadata.task == *task && entry.message.metadata.attempt == attempt;
        self.requests.iter().find(is_it)
    }

    /// When the run's time began, by the server's clock, in nanoseconds since 1970: when its goal was stored, or tried again.
    pub(super) fn time_began(&self) -> i64 {
        match self.restart.at {
            0 => self.began,
            at => at,
        }
    }

    /// What the replies of each role cost, those that nobody has decided on included.
    pub(super) fn usages(&self) -> BTreeMap<Role, Usage> {
        let mut usages: BTreeMap<Role, Usage> = BTreeMap::new();
        let replies = self.results.values().chain(&self.undecided);
        replies.for_each(|reply| *usages.entry(reply.role).or_default() += reply.usage);
        usages
    }

    /// The reply to an attempt.
    pub(super) fn result(&self, task: &TaskId, attempt: u32) -> Option<&Reply> {
        self.results.get(&(task.clone(), attempt))
    }

    /// The first attempt of a task in this generation.
    pub(super) fn first(&self, task: &TaskId) -> u32 {
        self.restart.first.get(task).copied().unwrap_or(1)
    }

    /// Failures of a task in this generation, up to an attempt; without those in which others were quicker.
    pub(super) fn failures(&self, task: &TaskId, until: u32) -> u32 {
        let first = self.first(task).min(until);
        let of_task = self.results.range((task.clone(), first)..=(task.clone(), until));
        let failed = of_task.filter(|(_, reply)| reply.failure().is_some()).fold(0, |count, _| count + 1);
        u32::saturating_sub(failed, self.races(task, until))
    }

    /// Failures of a task in this generation, up to an attempt, because others changed the same values before it.
    pub(super) fn races(&self, task: &TaskId, until: u32) -> u32 {
        let first = self.first(task).min(until);
        let of_task = self.verdicts.range((task.clone(), first)..=(task.clone(), until));
        let lost = of_task.filter(|(key, verdict)| verdict.raced() && self.results.contains_key(*key));
        lost.fold(0, |count, _| count + 1)
    }

    /// Takes in what nobody has decided on, for a run that is over: it counts as it is, and its changes were not made.
    pub(super) fn settle(&mut self) {
        for reply in std::mem::take(&mut self.undecided) {
            let key = (reply.task.clone(), reply.attempt);
            self.verdicts.insert(key, StateVerdict::void("the run was over before anybody decided on them"));
            self.absorb(reply);
        }
    }

    /// What all replies cost.
    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        self.usages().into_values().for_each(|of_role| usage += of_role);
        usage
    }

    /// The questions of a task in this generation, each with the attempt that asked, the oldest first.
    pub(super) fn questions(&self, task: &TaskId) -> impl Iterator<Item = (u32, &Question)> {
        let of_task = self.results.range((task.clone(), self.first(task))..=(task.clone(), u32::MAX));
        of_task.filter_map(|((_, attempt), reply)| Some((*attempt, reply.question()?)))
    }

    /// The newest attempt of a task that was asked for or answered; 0 when none was.
    pub(super) fn newest(&self, task: &TaskId) -> u32 {
        self.newest_until(task, u32::MAX)
    }

    /// The same, of the attempts up to `until`.
    pub(super) fn newest_until(&self, task: &TaskId, until: u32) -> u32 {
        let about = self.requests.iter().map(|entry| &entry.message.metadata).filter(|about| about.task == *task);
        let asked = about.map(|about| about.attempt).filter(|attempt| *attempt <= until).max().unwrap_or(0);
        let of_task = self.results.range((task.clone(), 0)..=(task.clone(), until));
        of_task.map(|((_, attempt), _)| *attempt).max().unwrap_or(0).max(asked)
    }

    /// The newest reply to one of these attempts that completed the task.
    pub(super) fn last_completed(&self, task: &TaskId, attempts: RangeInclusive<u32>) -> Option<&Reply> {
        let (from, to) = attempts.into_inner();
        let mut of_task = self.results.range((task.clone(), from)..=(task.clone(), to.max(from)));
        let completed = |reply: &&Reply| matches!(reply.outcome, Outcome::Completed { .. });
        of_task.by_ref().rev().map(|(_, reply)| reply).find(completed)
    }

    /// The attempts of a task that were completed in this generation, in their order.
    pub(super) fn completed(&self, task: &TaskId) -> Vec<u32> {
        let of_task = self.results.range((task.clone(), self.first(task))..=(task.clone(), u32::MAX));
        let done = of_task.filter(|(_, reply)| matches!(reply.outcome, Outcome::Completed { .. }));
        done.map(|((_, attempt), _)| *attempt).collect()
    }

    /// The newest reply to an attempt before `attempt` that is no question: what was made, or why it was not.
    pub(super) fn before_work(&self, task: &TaskId, attempt: u32) -> Option<&Reply> {
        let earlier = self.results.range((task.clone(), 0)..(task.clone(), attempt));
        earlier.rev().map(|(_, reply)| reply).find(|reply| reply.question().is_none())
    }

    /// The last attempt before `attempt` that named files.
    pub(super) fn files_before(&self, task: &TaskId, attempt: u32) -> &[Artifact] {
        let earlier = self.results.range((task.clone(), 0)..(task.clone(), attempt));
        let named = earlier.rev().map(|(_, reply)| reply.artifacts()).find(|files| !files.is_empty());
        named.unwrap_or_default()
    }

    /// The messages that were sent in this generation, in their order.
    pub(super) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.requests.iter().skip(self.restart.messages).map(|entry| &entry.message)
    }

    /// Attempts that were asked for and have no reply.
    pub(super) fn unanswered(&self) -> Vec<(Role, Try)> {
        let open = self.requests.iter().filter_map(|entry| {
            let key = (entry.message.metadata.task.clone(), entry.message.metadata.attempt);
            let crate::wire::Party::Role(role) = entry.message.to else {
                return None;
            };
            (!self.results.contains_key(&key)).then_some((role, key))
        });
        open.collect()
    }
}

/// True for a reply whose changes of shared state must be decided on before it counts.
fn proposes(reply: &Reply) -> bool {
    matches!(reply.outcome, Outcome::Completed { .. }) && reply.role != Role::Orchestrator && !reply.state.is_empty()
}
