//! What a holder sends, and by when it must be answered.
//!
//! An attempt's time counts from its history entry and the server's pauses of its queue (`deadline`), by the server's clock,
//! so every holder comes to the same deadline. While a holder lives, it declares deadlines itself; the alarm brings the run to another orchestrator if it does not.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::claim::Lost;
use super::deadline::Deadline;
use super::dispatch::Dispatch;
use super::drive::{Drive, Sent};
use super::loops::{LoopBounds, LoopFound};
use super::next::{Attempts, Job};
use crate::bus::clock::{nanos, since};
use crate::bus::{BusError, Outgoing, Point, Queue};
use crate::store::{HistoryEntry, StoreError, Stored};
use crate::wire::subject::{HEADER_FIRST, TaskSubject};
use crate::wire::{
    Allowance, Budget, Event, EventKind, Failure, FailureKind, Message, Outcome, Plan, Reply, Role, Task, TaskId,
    limits,
};

/// How long after a deadline the alarm rings: time for a living holder to declare it.
const ALARM_AFTER_MS: u64 = 500;
/// How long a holder may take to declare a deadline that is over before the alarm brings another one.
const ALARM_SOON_S: u64 = 10;
/// How long before it would ring for nothing a living holder puts the alarm off.
const ALARM_LEAD_S: u64 = 2;
/// A wake that is later than any other.
const FAR_S: u64 = 24 * 3600;

/// A task with its request, and whether that is in the history already.
type Made = (Job, Task, Message, bool);

/// Why tasks were not sent.
pub(super) enum Unsent {
    /// The run must end.
    Failed(Failure),
    /// The run belongs to somebody else.
    Lost(Lost),
}

impl Drive<'_> {
    /// Sends those of `jobs` that this holder has not sent, within the window; true when a question to a person was written
    /// down, to which nothing live will follow. The inner error ends the run, or our part.
    pub(super) async fn send(&mut self, jobs: Vec<Job>) -> Result<Result<bool, Unsent>, StoreError> {
        if let Some(failure) = self.over_time() {
            return Ok(Err(Unsent::Failed(failure)));
        }
        let attempts = self.attempts();
        let jobs = self.within_window(jobs);
        if jobs.is_empty() {
            return Ok(Ok(false));
        }
        // Before the store says that the run is ours: whoever sleeps from here on sends nothing as if it were the first.
        let now = async { Ok(self.of.bus.server_now().await?) };
        let (now, state) = tokio::try_join!(now, self.of.store.state.view(&self.lease.run))?;
        self.facts.state = state;
        if let Err(lost) = self.lease.hold(&self.of.store).await? {
            return Ok(Err(Unsent::Lost(lost)));
        }
        let dispatch = self.dispatch(&attempts);
        let made = |job: Job| {
            let (task, known) =
                (dispatch.task(&job, self.of.limit(job.role)), self.facts.request_of(&job.task, job.attempt));
            (job, task, known.is_some())
        };
        // What a person is asked is written down, and costs nothing.
        let (people, jobs): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(Job::is_for_people);
        let (people, mut made): (Vec<_>, Vec<_>) =
            (people.into_iter().map(made).collect(), jobs.into_iter().map(made).collect());
        let needs = self.needs(&made);
        let under_way = self.open().count() + made.len() - needs.len();
        let mut granted = match self.granted(&made, &needs, under_way) {
            Ok(granted) => granted,
            Err(failure) => return Ok(Err(Unsent::Failed(failure))),
        };
        granted.resize(made.len() + people.len(), Some(Allowance::default()));
        made.extend(people);
        // What will not be sent takes nothing of the tenant's day.
        let wanted = self.funded(&attempts, &made, &granted);
        let refused = self.looping(&wanted);
        if refused.is_some() {
            (made, granted) = made.into_iter().zip(granted).filter(|((_, _, known), _)| *known).unzip();
        }
        let granted = match self.within_tenant(&made, &needs, granted, now).await? {
            Ok(granted) => granted,
            Err(unsent) => return Ok(Err(unsent)),
        };
        let tasks = self.funded(&attempts, &made, &granted);
        let people = tasks.iter().any(|(job, ..)| job.is_for_people());
        match refused {
            // What is under way was paid for, and may finish; after that the same message is refused again.
            Some(found) if tasks.is_empty() && self.open().next().is_none() => Ok(Err(Unsent::Failed(found.into()))),
            _ => Ok(self.publish(tasks, now).await?.map(|()| people)),
        }
    }

    /// The requests for those of `tasks` that have a budget; the others wait until something of the run's is given back.
    fn funded(&self, attempts: &Attempts, tasks: &[(Job, Task, bool)], granted: &[Option<Allowance>]) -> Vec<Made> {
        let dispatch = self.dispatch(attempts);
        let funded = tasks.iter().zip(granted).filter_map(|((job, task, known), budget)| {
            let task = Task { budget: Some((*budget)?).filter(|_| !job.is_for_people()), ..task.clone() };
            let message = dispatch.message(&task);
            Some((job.clone(), task, message, *known))
        });
        funded.collect()
    }

    /// Why none of `tasks` may be sent but those that were asked for before: one of the others would be a loop, or one too many.
    fn looping(&mut self, tasks: &[Made]) -> Option<LoopFound> {
        self.loops.catch_up(self.facts.messages());
        let (mut loops, bounds) = (self.loops.clone(), self.loop_bounds());
        let mut new = tasks.iter().filter(|(_, _, _, known)| !known);
        new.try_for_each(|(_, _, message, _)| loops.admit(message, bounds)).err()
    }

    /// Publishes history entries and tasks, all of them before the first acknowledgement is awaited; of a question to a person
    /// the entry alone. A task whose time has not come goes to the schedule, which brings it to its queue whoever is alive
    /// then. `now` is the server's.
    async fn publish(&mut self, tasks: Vec<Made>, now: i64) -> Result<Result<(), Unsent>, StoreError> {
        let mut outgoing = Vec::with_capacity(2 * tasks.len());
        for (job, task, message, known) in &tasks {
            outgoing.push(self.of.store.runs.history_message(message));
            if job.is_for_people() {
                continue;
            }
            let payload = serde_json::to_vec(task).unwrap_or_default();
            let pause = self.pause_left(job, now);
            outgoing.push(match pause.is_zero() {
                true => self.queued(task, payload, (self.lease.fresh && !known).then_some(now)),
                // Not over one that is there: it is the same.
                false => self.of.bus.later(now.saturating_add(nanos(pause)), &task.subject(), payload).expecting(0),
            });
        }
        let mut results = self.of.bus.store_all(outgoing).await.into_iter();
        for (job, task, message, known) in tasks {
            let entry = results.next();
            let queued = if job.is_for_people() { None } else { results.next() };
            let revision = match entry {
                Some(Ok(revision)) => revision,
                Some(Err(BusError::Taken { .. })) | None => 0,
                Some(Err(error)) => return Err(error.into()),
            };
            match queued {
                // Taken: it is queued or with a worker already.
                Some(Ok(_) | Err(BusError::Taken { .. })) | None => {}
                // It is as large at the next try.
                Some(Err(error @ BusError::TooLarge { .. })) => {
                    return Ok(Err(Unsent::Failed(oversized(&task, &error))));
                }
                Some(Err(error)) => return Err(error.into()),
            }
            if !known {
                self.facts.requests.push(HistoryEntry { message, revision, at: now });
            }
            if job.is_for_people() {
                continue;
            }
            let deadline = self.deadline(&job, now, 0);
            let sent = Sent { job, over: Instant::now() + deadline.left(now), paused: deadline.paused };
            self.sent.insert((sent.job.task.clone(), sent.job.attempt), sent);
            let about =
                Event::of_task(&task.run, &task.id, task.role, task.attempt, EventKind::Dispatched, &task.description);
            self.of.bus.tell(&Event { text: limits::cut(&about.text, 200), ..about }).await;
        }
        Ok(Ok(()))
    }

    pub(super) fn dispatch<'a>(&'a self, attempts: &'a Attempts) -> Dispatch<'a> {
        let (root, run, Budget { tasks: tasks_max, depth: depth_max, .. }) =
            (&self.of.bus.root, &self.lease.run, self.budget());
        Dispatch { root, run, facts: &self.facts, attempts, tasks_max, depth_max }
    }

    /// `first_at` is when it was known that nobody had sent the task before.
    fn queued(&self, task: &Task, payload: Vec<u8>, first_at: Option<i64>) -> Outgoing {
        let root = &self.of.bus.root;
        let queued = Outgoing::new(Point::Dispatch, root.tasks_stream(), root.task(&task.subject()), payload);
        match first_at {
            Some(at) => queued.header(HEADER_FIRST, &at.to_string()),
            None => queued,
        }
    }

    /// When an attempt was asked for, by whichever holder; `now` when nobody has yet. Both times are the server's.
    fn asked_at(&self, job: &Job, now: i64) -> i64 {
        self.facts.request_of(&job.task, job.attempt).map_or(now, |entry| entry.at)
    }

    /// What is left of the pause before an attempt.
    fn pause_left(&self, job: &Job, now: i64) -> Duration {
        job.delay.saturating_sub(since(now, self.asked_at(job, now)))
    }

    pub(super) fn deadline(&self, job: &Job, now: i64, paused_until: i64) -> Deadline {
        Deadline::of(self.asked_at(job, now), job.delay, self.of.limit(job.role), paused_until)
    }

    /// Puts off the deadlines that are near by what pauses of their queues took. This is looked at before the alarm of such
    /// a deadline would ring, so that a pause costs no takeover.
    pub(super) async fn heed_pauses(&mut self) -> Result<(), StoreError> {
        let soon = Instant::now() + Duration::from_secs(ALARM_LEAD_S);
        let near: Vec<Job> = self.open().filter(|sent| sent.over <= soon).map(|sent| sent.job.clone()).collect();
        let mut queues: HashMap<Role, i64> = HashMap::new();
        for job in near {
            let paused_until = match queues.get(&job.role) {
                Some(until) => *until,
                None => self.of.bus.paused_until(Queue::Role(job.role)).await?,
            };
            queues.insert(job.role, paused_until);
            let now = self.of.bus.server_now().await?;
            let deadline = self.deadline(&job, now, paused_until);
            let sent = Sent { job, over: Instant::now() + deadline.left(now), paused: deadline.paused };
            self.sent.insert((sent.job.task.clone(), sent.job.attempt), sent);
        }
        Ok(())
    }

    /// Lets the server show this run to an orchestrator soon after the next deadline, in case that we are not there to
    /// declare it. As long as we are, the alarm is put off before it rings. The inner error ends our part.
    pub(super) async fn set_alarm(&mut self) -> Result<Result<(), Lost>, StoreError> {
        let Some(first) = self.open().map(|sent| sent.over).chain(self.ends()).min() else { return Ok(Ok(())) };
        let now = Instant::now();
        // A deadline that is over already is ours to declare; an alarm at once would only take the run from us again.
        let wanted = match first > now + Duration::from_millis(ALARM_AFTER_MS) {
            true => first + Duration::from_millis(ALARM_AFTER_MS),
            false => now + Duration::from_secs(ALARM_SOON_S),
        };
        let useless = |at: Instant| at < first && at < now + Duration::from_secs(ALARM_LEAD_S);
        if self.alarm.is_some_and(|at| at <= wanted && !useless(at)) {
            return Ok(Ok(()));
        }
        Ok(self.ring(wanted).await?.map(drop))
    }

    /// Sets the run's alarm, in place of any other. The inner error ends our part.
    pub(super) async fn ring(&mut self, wanted: Instant) -> Result<Result<TaskSubject, Lost>, StoreError> {
        let now = Instant::now();
        // Those of holders before us, or our own one that would ring for nothing; never those of a holder after us.
        if self.alarm.is_some() || !self.lease.fresh {
            let end = self.of.store.janitor.end_of_schedules().await?;
            if let Err(lost) = self.lease.hold(&self.of.store).await? {
                return Ok(Err(lost));
            }
            self.of.store.janitor.drop_alarms(&self.lease.run, end).await?;
        }
        let whole = TaskSubject::of_run(&self.lease.run, self.lease.record.generation);
        let to = TaskSubject { task: TaskId::alarm(rand::random()), ..whole };
        let at = self.of.bus.server_now().await?.saturating_add(nanos(wanted.saturating_duration_since(now)));
        self.of.bus.store(self.of.bus.later(at, &to, Vec::new())).await?;
        self.alarm = Some(wanted);
        // Whoever ended the run while we slept has dropped what was there then, and not this one.
        if let Err(lost) = self.lease.prove(&self.of.store).await? {
            self.of.store.janitor.drop_alarm(&to).await?;
            return Ok(Err(lost));
        }
        Ok(Ok(to))
    }

    /// Attempts whose time is over get a failure as their result, unless an answer is there after all. The inner error ends
    /// our part.
    pub(super) async fn declare_late(&mut self) -> Result<Result<(), Lost>, StoreError> {
        let now = Instant::now();
        let late: Vec<Sent> = self.open().filter(|sent| sent.over <= now).cloned().collect();
        if late.is_empty() {
            return Ok(Ok(()));
        }
        if let Err(lost) = self.lease.hold(&self.of.store).await? {
            return Ok(Err(lost));
        }
        for Sent { job, paused, .. } in late {
            let failure = self.of.late(&job, paused).await;
            self.settle(Point::Late, job, failure).await?;
        }
        Ok(Ok(()))
    }

    /// The bounds of the plan's size, or what the operator chose, or less if the goal wants it.
    fn loop_bounds(&self) -> LoopBounds {
        let settings = &self.of.settings;
        let depth = self.facts.plan.as_ref().map_or(0, Plan::depth);
        let hops_max = limits::hops_max(depth, settings.rules.attempts_max());
        LoopBounds { exchanges_max: self.exchanges_max(), hops_max: settings.hops_max.unwrap_or(hops_max) }
    }

    /// Gives questions that nobody can answer a failure as their result. They are exchanges as any other, so they are written
    /// down and may end the run as a loop, once nothing is under way. True when one was refused; false when what is under way
    /// is to be awaited. The inner error ends the run, or our part.
    pub(super) async fn refuse_questions(
        &mut self,
        refused: Vec<(Job, Failure)>,
    ) -> Result<Result<bool, Unsent>, StoreError> {
        if let Err(lost) = self.lease.hold(&self.of.store).await? {
            return Ok(Err(Unsent::Lost(lost)));
        }
        let (attempts, mut any) = (self.attempts(), false);
        for (job, failure) in refused {
            let dispatch = self.dispatch(&attempts);
            let message = dispatch.message(&dispatch.task(&job, self.of.limit(job.role)));
            if self.facts.request_of(&job.task, job.attempt).is_none() {
                let bounds = self.loop_bounds();
                self.loops.catch_up(self.facts.messages());
                let mut loops = self.loops.clone();
                match loops.admit(&message, bounds) {
                    Ok(()) => self.loops = loops,
                    // What is under way was paid for, and may finish; after that the same message is refused again.
                    Err(_) if self.open().next().is_some() => return Ok(Ok(any)),
                    Err(found) => return Ok(Err(Unsent::Failed(found.into()))),
                }
                let revision = match self.of.bus.store(self.of.store.runs.history_message(&message)).await {
                    Ok(revision) => revision,
                    Err(BusError::Taken { .. }) => 0,
                    Err(error) => return Err(error.into()),
                };
                self.facts.requests.push(HistoryEntry { message, revision, at: 0 });
            }
            self.settle(Point::Refuse, job, failure).await?;
            any = true;
        }
        Ok(Ok(any))
    }

    /// Stores a failure as the result of an attempt, unless it has one.
    async fn settle(&mut self, point: Point, job: Job, failure: Failure) -> Result<(), StoreError> {
        let reply = Reply::new(job.role, self.lease.run.clone(), job.task, job.attempt, Outcome::Failed { failure });
        match self.of.store.results.publish(point, &reply).await? {
            Stored::Ours(_) => {
                self.of.store.results.nudge(&self.lease.run).await;
                self.take_in(reply).await;
            }
            Stored::Theirs(first) => self.take_in(*first).await,
        }
        Ok(())
    }

    pub(super) fn exchanges_max(&self) -> usize {
        let tasks = self.facts.plan.as_ref().map_or(0, |plan| plan.tasks.len());
        let scaled = limits::exchanges_max(tasks, self.of.settings.rules.attempts_max());
        let max = self.of.settings.exchanges_max.unwrap_or(scaled);
        let asked = self.facts.goal.budget.exchanges.and_then(|asked| usize::try_from(asked).ok());
        asked.map_or(max, |asked| max.min(asked))
    }

    /// Attempts that this holder sent and that have no answer.
    pub(super) fn open(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(|(key, _)| !self.facts.results.contains_key(key)).map(|(_, sent)| sent)
    }

    /// Those of `jobs` that were not sent by this holder, as many of each role as its window has room for.
    fn within_window(&self, jobs: Vec<Job>) -> Vec<Job> {
        let mut under_way: HashMap<Role, usize> = HashMap::new();
        self.open().for_each(|sent| *under_way.entry(sent.job.role).or_default() += 1);
        let new = jobs.into_iter().filter(|job| !self.sent.contains_key(&(job.task.clone(), job.attempt)));
        new.filter(|job| {
            let count = under_way.entry(job.role).or_default();
            *count += 1;
            *count <= self.of.settings.window_max.unwrap_or(limits::WINDOW_MAX)
        })
        .collect()
    }

    /// When something is to be done even if nothing comes: a deadline, or the alarm to be put off. Far away if there is neither.
    pub(super) fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let alarm = self.alarm.and_then(|at| at.checked_sub(Duration::from_secs(ALARM_LEAD_S))).filter(|at| *at > now);
        let deadlines = self.open().map(|sent| sent.over);
        deadlines.chain(alarm).chain(self.next_watch()).min().unwrap_or_else(|| now + Duration::from_secs(FAR_S))
    }
}

/// The failure of a run one of whose tasks no server takes.
fn oversized(task: &Task, error: &BusError) -> Failure {
    let message = format!(
        "task {} #{} of {} is too large to be sent: {error}; shorten the goal or the plan, or raise max_payload in nats.conf",
        task.id, task.attempt, task.role
    );
    Failure::never(FailureKind::TooLarge, message)
}
