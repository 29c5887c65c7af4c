//! What there is to see: read from the store, and heard live. Whoever looks gets the newest snapshot; one that was not looked
//! at in time is forgotten, so nothing grows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use futures::StreamExt;
use tokio::sync::watch;

use super::super::logs::{events_after, line};
use super::super::story::Story;
use crate::bus::Bus;
use crate::bus::clock::nanos;
use crate::orchestrator::Rules;
use crate::store::Store;
use crate::wire::{Event, RunId, RunStatus, TaskId, TokenEvent};

/// How often everything is read anew when nothing is heard.
const REFRESH_MS: u64 = 2_000;
/// How long one reading may take before it is told that the server does not answer.
const READ_S_MAX: u64 = 3;
/// Pause after something was heard, so that a burst is read once.
const SETTLE_MS: u64 = 150;
/// Events that are kept of a run.
const EVENTS_MAX: usize = 500;
/// Runs that are listed.
const RUNS_MAX: usize = 100;
/// Tasks whose words are shown while their model writes them.
const LIVE_TASKS_MAX: usize = 64;
/// Characters of such words that are kept, the newest.
const LIVE_CHARS_MAX: usize = 4_000;

/// All that there is to see at one moment. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Snapshot {
    pub(super) runs: Arc<Vec<RunLine>>,
    /// The run that is looked at, once it was read.
    pub(super) story: Option<Arc<Story>>,
    /// What happened in it, a line each, the newest last.
    pub(super) events: Arc<VecDeque<String>>,
    /// What models are writing for it.
    pub(super) live: Arc<BTreeMap<(TaskId, u32), String>>,
    /// The server's time when this was read, and when that was.
    now: Option<(i64, Instant)>,
    /// Why there is nothing newer.
    pub(super) trouble: Option<String>,
}

/// A run in the list.
pub(super) struct RunLine {
    pub(super) run: RunId,
    pub(super) status: RunStatus,
    /// Seconds since 1970.
    pub(super) submitted_at: i64,
    pub(super) goal: String,
}

impl Snapshot {
    /// The server's present, in nanoseconds since 1970.
    pub(super) fn now(&self) -> i64 {
        self.now.map_or(0, |(then, at)| then.saturating_add(nanos(at.elapsed())))
    }
}

/// Reads and listens.
pub(super) struct Feed {
    bus: Bus,
    store: Store,
    rules: Rules,
}

/// What is known of one run.
#[derive(Default)]
struct Known {
    story: Option<Arc<Story>>,
    events: VecDeque<String>,
    seen: u64,
    live: BTreeMap<(TaskId, u32), String>,
}

impl Feed {
    pub(super) fn new(bus: &Bus, rules: Rules) -> Self {
        Self { store: Store::new(bus), bus: bus.clone(), rules }
    }

    /// One snapshot.
    pub(super) async fn once(&self, run: Option<&RunId>) -> anyhow::Result<Snapshot> {
        let mut known = Known::default();
        self.read(run, &mut known).await
    }

    /// Snapshots for as long as somebody looks.
    pub(super) async fn run(self, mut wanted: watch::Receiver<Option<RunId>>, filled: watch::Sender<Snapshot>) {
        loop {
            let run = wanted.borrow_and_update().clone();
            let mut live = self.listen(run.as_ref()).await;
            let mut known = Known::default();
            loop {
                let reading = self.read(run.as_ref(), &mut known);
                // What was there stays to be seen, with why it is old.
                let trouble = match tokio::time::timeout(Duration::from_secs(READ_S_MAX), reading).await {
                    Ok(Ok(snapshot)) => {
                        filled.send_replace(snapshot);
                        None
                    }
                    Ok(Err(error)) => Some(format!("{error:#}")),
                    Err(_) => Some("NATS does not answer; what is here is read anew when it does".to_owned()),
                };
                if trouble.is_some() {
                    filled.send_modify(|old| old.trouble = trouble);
                }
                let news = self.wait(&mut live, &mut known, &filled);
                tokio::select! {
                    () = news => {}
                    changed = wanted.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                }
            }
        }
    }

    async fn listen(&self, run: Option<&RunId>) -> Option<Subscriber> {
        let subject = self.bus.root.events_of(run?);
        self.bus.client.subscribe(subject).await.ok()
    }

    /// Comes back when the store should be read anew. Words of models are handed out on the way.
    async fn wait(&self, live: &mut Option<Subscriber>, known: &mut Known, filled: &watch::Sender<Snapshot>) {
        let mut until = tokio::time::Instant::now() + Duration::from_millis(REFRESH_MS);
        let mut words = false;
        let settle = || tokio::time::Instant::now() + Duration::from_millis(SETTLE_MS);
        loop {
            let heard = async {
                match live {
                    Some(live) => live.next().await,
                    None => std::future::pending().await,
                }
            };
            let pause = if words { settle().min(until) } else { until };
            match tokio::time::timeout_at(pause, heard).await {
                Ok(Some(message)) if known.hear(&message) => words = true,
                Ok(Some(_)) => until = until.min(settle()),
                // The connection is closed; it is told as trouble by the next read.
                Ok(None) => *live = None,
                Err(_) if words && tokio::time::Instant::now() < until => {
                    words = false;
                    filled.send_modify(|old| old.live = Arc::new(known.live.clone()));
                }
                Err(_) => return,
            }
        }
    }

    async fn read(&self, run: Option<&RunId>, known: &mut Known) -> anyhow::Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        match run {
            None => snapshot.runs = Arc::new(self.runs().await?),
            Some(run) => {
                known.story = Story::load(&self.store, run, &self.rules).await?.map(Arc::new);
                for kept in events_after(&self.bus, run, known.seen).await? {
                    known.seen = kept.sequence;
                    if let Ok(event) = serde_json::from_slice::<Event>(&kept.payload) {
                        known.events.push_back(line(&kept, &event));
                    }
                }
                let over = known.events.len().saturating_sub(EVENTS_MAX);
                known.events.drain(..over);
                known.forget_written();
                snapshot.story.clone_from(&known.story);
                snapshot.events = Arc::new(known.events.clone());
                snapshot.live = Arc::new(known.live.clone());
            }
        }
        snapshot.now = Some((self.bus.server_now().await?, Instant::now()));
        Ok(snapshot)
    }

    async fn runs(&self) -> anyhow::Result<Vec<RunLine>> {
        let newest = self.store.runs.list(RUNS_MAX).await?.0.into_iter();
        let line = async |run: crate::wire::RunSummary| {
            let goal = self.store.runs.goal(&run.run).await.ok().flatten().map(|goal| goal.text).unwrap_or_default();
            RunLine { run: run.run, status: run.status, submitted_at: run.submitted_at, goal }
        };
        Ok(futures::future::join_all(newest.map(line)).await)
    }
}

impl Known {
    /// Takes a model's words in; false when the message is something else.
    fn hear(&mut self, message: &Message) -> bool {
        if !message.subject.ends_with(".token") {
            return false;
        }
        let Ok(TokenEvent { task, attempt, offset, text, .. }) = serde_json::from_slice(&message.payload) else {
            return true;
        };
        let key = (task, attempt);
        if self.live.len() >= LIVE_TASKS_MAX && !self.live.contains_key(&key) {
            return true;
        }
        let words = self.live.entry(key).or_default();
        // The model begins, or begins again.
        if offset == 0 {
            words.clear();
        }
        words.push_str(&text);
        if let Some(over) = words.chars().count().checked_sub(LIVE_CHARS_MAX) {
            *words = words.chars().skip(over).collect();
        }
        true
    }

    /// Forgets the words of attempts that have their reply.
    fn forget_written(&mut self) {
        let Some(story) = &self.story else { return };
        let open = |task: &TaskId, attempt: u32| story.attempt(task, attempt).is_none_or(|one| one.reply.is_none());
        self.live.retain(|(task, attempt), _| open(task, *attempt));
    }
}
