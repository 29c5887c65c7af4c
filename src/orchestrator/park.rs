//! A run that waits for people has no holder: it is parked, and costs an alarm on the server's schedule and nothing else.
//!
//! The order matters. The alarm is set, the record says that nobody holds the run, and then the inputs are read again: what
//! was said before that is found here, and whoever says something later finds the record parked and wakes the run. Deadlines
//! count from what the server stored: the reply that waits, or the pause.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::claim::{Lost, wake};
use super::drive::Drive;
use super::gates::{self, Item};
use crate::bus::Point;
use crate::bus::clock::{nanos, since};
use crate::store::{Heard, StoreError};
use crate::wire::{Event, EventKind, Input, ItemId, ItemKind, Otherwise, RunStatus, Said, TaskId, limits};

/// Pause before a reply is looked for again whose time is not known yet.
const UNDATED_MS: u64 = 500;

/// What a holder knows of the items that wait.
#[derive(Default)]
pub(super) struct Waits {
    /// Since when each waits, by the server's clock, in nanoseconds since 1970.
    since: HashMap<ItemId, i64>,
    /// Those that an event told of.
    told: HashSet<ItemId>,
    /// When the next deadline or half of one is over.
    pub(super) next: Option<Instant>,
    /// True when the times of all items are known.
    dated: bool,
}

/// The seconds that an item may wait.
pub(super) fn within_s(facts: &super::Facts, item: &Item) -> u64 {
    if item.kind == ItemKind::Pause { limits::PAUSED_S_MAX } else { facts.goal.gates.within_s }
}

/// A time as people say it, rounded.
fn in_words(time: Duration) -> String {
    let rounded = |unit_s: u64| (time.as_secs() + unit_s / 2) / unit_s;
    match time.as_secs() {
        0..120 => format!("{} s", rounded(1)),
        120..7_200 => format!("{} min", rounded(60)),
        7_200..172_800 => format!("{} h", rounded(3_600)),
        _ => format!("{} days", rounded(86_400)),
    }
}

impl Drive<'_> {
    /// Says what is due of the items that wait: that half of their time is over, once, and that all of it is. True when
    /// something was said, so that the next step may be another one. The inner error ends our part.
    pub(super) async fn heed_people(&mut self) -> Result<Result<bool, Lost>, StoreError> {
        self.waits.next = None;
        let rules = &self.of.settings.rules;
        if !gates::may_wait(&self.facts) {
            return Ok(Ok(false));
        }
        let items = gates::items(&self.facts, &self.attempts(), rules);
        if items.is_empty() {
            return Ok(Ok(false));
        }
        self.date(&items).await?;
        let now = self.of.bus.server_now().await?;
        let mut due = Vec::new();
        for item in items {
            let Some(began) = self.waits.since.get(&item.id).copied() else { continue };
            let within = Duration::from_secs(within_s(&self.facts, &item));
            let (half, until) = (began.saturating_add(nanos(within / 2)), began.saturating_add(nanos(within)));
            let told = gates::said(&self.facts, &item.id);
            let escalated = told.iter().any(|heard| heard.input.says == Said::Escalated);
            if told.is_empty() && self.waits.told.insert(item.id.clone()) {
                self.tell_of(&item, EventKind::Waiting, since(self.over(until), now)).await;
            }
            match () {
                () if now >= until => due.push((item, Said::Lapse)),
                () if now >= half && !escalated => due.push((item, Said::Escalated)),
                () => {
                    let at = Instant::now() + since(if escalated { until } else { half }, now);
                    self.waits.next = Some(self.waits.next.map_or(at, |next| next.min(at)));
                }
            }
        }
        if !self.waits.dated {
            self.waits.next = Some(Instant::now() + Duration::from_millis(UNDATED_MS));
        }
        self.say(due, now).await
    }

    /// When a wait is over that may last until then: no later than the run's own time. By the server's clock.
    fn over(&self, until: i64) -> i64 {
        self.time_over().map_or(until, |over| over.min(until))
    }

    async fn say(&mut self, due: Vec<(Item, Said)>, now: i64) -> Result<Result<bool, Lost>, StoreError> {
        if due.is_empty() {
            return Ok(Ok(false));
        }
        if let Err(lost) = self.lease.hold(&self.of.store).await? {
            return Ok(Err(lost));
        }
        let mut said = Vec::new();
        for (item, says) in due {
            let input = Input::new(item.id.clone(), &self.of.name, says);
            let kept = self.of.store.inputs.keep(&self.lease.run, &input).await?;
            match input.says {
                Said::Escalated if kept.is_some() => {
                    let began = self.waits.since.get(&item.id).copied().unwrap_or(now);
                    let until = began.saturating_add(nanos(Duration::from_secs(within_s(&self.facts, &item))));
                    self.tell_of(&item, EventKind::Escalated, since(self.over(until), now)).await;
                }
                Said::Lapse if kept.is_some() => self.tell_lapse(&item).await,
                _ => {}
            }
            said.push(input);
        }
        self.facts.hear(&self.of.store, &self.lease.run).await?;
        // One that was said before and is damaged or removed since stays said: every holder finds its name taken.
        for input in said {
            if !gates::said(&self.facts, &input.item).iter().any(|heard| heard.input.says == input.says) {
                tracing::warn!("{} of {} is taken, and cannot be read", input.says.name(), input.item);
                let revision = self.facts.inputs.last().map_or(0, |heard| heard.revision);
                self.facts.inputs.push(Heard { input, revision, at: now });
            }
        }
        Ok(Ok(true))
    }

    async fn tell_of(&self, item: &Item, kind: EventKind, left: Duration) {
        let (run, id, left) = (&self.lease.run, &item.id, in_words(left));
        let text = match item.kind {
            ItemKind::Pause => format!("{id} is a pause, for {left} at most: oarlock resume {run}"),
            ItemKind::Question => {
                let how = format!("oarlock answer {run}/{id} TEXT");
                format!("{id} of {} is a question to a person, {left} more: {how}", item.role)
            }
            ItemKind::Approval => {
                let how = format!("oarlock approve {run}/{id}, or oarlock reject {run}/{id} --reason …");
                format!("{id} of {} waits for a person, {left} more: {how}", item.role)
            }
        };
        let event = Event::of_task(run, &item.task, item.role, item.attempt, kind, &text);
        self.of.bus.tell(&event).await;
    }

    async fn tell_lapse(&self, item: &Item) {
        let (run, id) = (&self.lease.run, &item.id);
        let gated = (item.kind == ItemKind::Approval).then_some(item.role);
        let goes_on = item.kind != ItemKind::Pause && gates::otherwise(&self.facts, gated) == Otherwise::Approve;
        let what = match (goes_on, item.kind) {
            (true, ItemKind::Question) => "it decides alone",
            (true, _) => "it is approved",
            (false, _) => "the run ends",
        };
        let text = format!("nobody decided about {id} in time: {what}");
        let event = Event::of_task(run, &item.task, item.role, item.attempt, EventKind::Answered, &text);
        self.of.bus.tell(&event).await;
    }

    /// Finds since when items wait.
    async fn date(&mut self, items: &[Item]) -> Result<(), StoreError> {
        let unknown = |item: &&Item| !self.waits.since.contains_key(&item.id);
        if items.iter().any(|item| unknown(&item)) {
            self.waits.since.extend(gates::dates(&self.of.store, &self.lease.run, &self.facts, items).await?);
        }
        self.waits.dated = items.iter().all(|item| self.waits.since.contains_key(&item.id));
        Ok(())
    }

    /// Lets go of a run of which all that is left to do waits for people; false when it is too early for that. The inner error
    /// ends our part too.
    pub(super) async fn park(&mut self) -> Result<Result<bool, Lost>, StoreError> {
        let Some(next) = self.waits.next.filter(|_| self.waits.dated) else { return Ok(Ok(false)) };
        let next = self.ends().map_or(next, |ends| ends.min(next));
        if let Err(lost) = self.give_back().await? {
            return Ok(Err(lost));
        }
        let alarm = match self.ring(next).await? {
            Ok(alarm) => alarm,
            Err(lost) => return Ok(Err(lost)),
        };
        let park = |record: &mut crate::wire::RunRecord| {
            record.status = RunStatus::InputRequired;
            record.owner = None;
        };
        if let Err(lost) = self.lease.write(&self.of.store, Point::Park, park).await? {
            self.of.store.janitor.drop_alarm(&alarm).await?;
            return Ok(Err(lost));
        }
        let known = (self.facts.results.len(), self.facts.undecided.len(), self.facts.inputs.len());
        self.reconcile().await?;
        let found = (self.facts.results.len(), self.facts.undecided.len(), self.facts.inputs.len());
        if found != known || self.ended.is_some() {
            // The message in hand is not used again: two processes could believe that it is theirs.
            let number = self.facts.inputs.last().map_or(0, |heard| heard.revision).max(rand::random::<u32>().into());
            let generation = self.lease.record.generation;
            wake(&self.of.bus, Point::Start, &self.lease.run, TaskId::input(number), generation).await?;
        }
        Ok(Ok(true))
    }
}
