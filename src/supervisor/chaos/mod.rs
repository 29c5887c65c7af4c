//! Chaos on purpose: a private fleet is given runs, and meanwhile its workers, its orchestrators and its server are killed,
//! stopped and woken at random. Then everything is counted: what was accepted must be there, once.
//!
//! What a run must come to is known from the same goal on the undisturbed fleet. Only the model's replies are recorded; the
//! server, the processes, the tests in the sandbox and the deaths are real.

mod audit;
mod faults;
mod journal;
mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use self::audit::{Audit, Reference};
use self::story::Story;
use super::{Fleet, FleetConfig, FleetError};
use crate::bus::{Bus, BusError, Embedded, EmbeddedConfig, Server, ServerSources, Storage, StreamSettings};
use crate::store::{Recorded, Store, StoreError};
use crate::wire::subject::HEADER_KEY;
use crate::wire::{Role, Root, RunId};

pub use self::faults::Kills;

/// Silence after which the fleet gives a task to another worker.
const ACK_WAIT_S: u64 = 2;
/// How long an undisturbed run may take.
const REFERENCE_WAIT_S_MAX: u64 = 120;
/// How long the runs may take to end after the last fault, beside the time below for each.
const FINISH_WAIT_S_MAX: u64 = 60;
/// Milliseconds more for each run.
const FINISH_RUN_MS: u64 = 500;
/// How long one request to submit a goal may take before it is made again.
const SUBMIT_WAIT_S_MAX: u64 = 5;
/// Pause between two looks at something that is waited for.
const LOOK_MS: u64 = 100;
/// Processes of each role: several, so that there is always somebody to go on.
const CAST: [(Role, usize); 8] = [
    (Role::Orchestrator, 3),
    (Role::Planner, 1),
    (Role::Researcher, 2),
    (Role::Coder, 2),
    (Role::Qa, 2),
    (Role::Reviewer, 1),
    (Role::Documenter, 2),
    (Role::Synthesizer, 1),
];

/// What to do to whom.
#[derive(Clone, Debug)]
pub struct ChaosConfig {
    /// Our executable.
    pub executable: PathBuf,
    /// Where the server's binary is.
    pub sources: ServerSources,
    /// Environment variables that workers must not get.
    pub without: Vec<&'static str>,
    /// Runs.
    pub runs: u32,
    /// How long the killing goes on.
    pub time: Duration,
    /// Decides what happens to whom and when.
    pub seed: u64,
    /// Whether the server writes to the disk before it acknowledges.
    pub sync_always: bool,
}

/// What became of it all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChaosReport {
    /// Runs that were accepted.
    pub runs: usize,
    /// Goals that no door acknowledged.
    pub refused: usize,
    /// Tasks of these runs with an accepted reply.
    pub tasks: usize,
    /// Times that a worker began a task.
    pub executions: usize,
    /// Executions of an attempt beyond its first.
    pub repeats: usize,
    /// What was killed, stopped, and told to end.
    pub kills: Kills,
    /// Accepted runs without their result, replies that are missing, files that are damaged.
    pub lost: usize,
    /// Replies, requests or answers that the undisturbed run does not have.
    pub duplicated_effects: usize,
    /// Processes and sandbox directories that were left behind.
    pub orphans: usize,
    /// Messages that were left in the work queue or on the schedule.
    pub left: usize,
    /// Model calls of an attempt beyond its first.
    pub extra_model_calls: usize,
    /// What was wrong, in words; the first of it.
    pub faults: Vec<String>,
    /// Seconds from the first goal to the end of the last run.
    pub seconds: u64,
}

impl ChaosReport {
    /// True when nothing was lost, doubled or left.
    pub fn sound(&self) -> bool {
        self.refused + self.lost + self.duplicated_effects + self.orphans + self.left == 0
    }
}

/// Chaos that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// The server.
    #[error("failed to run the private server")]
    Bus(#[from] BusError),
    /// The processes.
    #[error("failed to run the private fleet")]
    Fleet(#[from] FleetError),
    /// The store.
    #[error("failed to read what became of the runs")]
    Store(#[from] StoreError),
    /// The disk.
    #[error("failed to write the private fleet's files")]
    Files(#[from] std::io::Error),
    /// The undisturbed run.
    #[error("the undisturbed run of goal {goal:?} did not come to its end: {why}; nothing was killed yet")]
    Reference {
        /// The goal.
        goal: String,
        /// What happened.
        why: String,
    },
}

/// A private fleet and what is known of it.
struct Arena {
    fleet: Fleet,
    bus: Bus,
    store: Store,
    server: Mutex<Embedded>,
    // The last to go when the chaos is broken off: the others write to it.
    folder: tempfile::TempDir,
}

/// Runs the chaos, and says to `say` what goes on, a line at a time.
///
/// # Errors
/// When the fleet cannot be had; what the chaos did to the runs is never an error but in the report.
pub async fn chaos(config: &ChaosConfig, say: &(dyn Fn(&str) + Sync)) -> Result<ChaosReport, ChaosError> {
    let before = journal::Forsaken::now();
    let arena = Arena::start(config).await?;
    let mut references = BTreeMap::new();
    for story in Story::ALL {
        references.insert(story, arena.reference(story).await?);
    }
    say(&format!("undisturbed runs of both goals are done; {} runs follow, seed {}", config.runs, config.seed));
    let started = Instant::now();
    let (accepted, kills) = tokio::join!(arena.submit_all(config), faults::happen(config, &arena));
    say(&format!("{} goals were accepted, {kills}; waiting for the runs to end", accepted.len()));
    let wait = Duration::from_secs(FINISH_WAIT_S_MAX) + Duration::from_millis(FINISH_RUN_MS) * config.runs;
    arena.wait_for_all(&accepted, wait).await;
    let seconds = started.elapsed().as_secs();
    let audit = Audit::make(&arena.bus, &arena.store, &accepted, &references).await?;
    let (journal, orphans) = arena.stop(&before).await?;
    let journal = journal.of(accepted.keys());
    Ok(ChaosReport {
        runs: accepted.len(),
        refused: (config.runs as usize).saturating_sub(accepted.len()),
        tasks: audit.tasks,
        executions: journal.executions(),
        repeats: journal.repeats(),
        kills,
        lost: audit.lost,
        duplicated_effects: audit.duplicated,
        orphans: orphans.len(),
        left: audit.left,
        extra_model_calls: journal.extra_calls(),
        faults: audit.faults.into_iter().chain(orphans).collect(),
        seconds,
    })
}

impl Arena {
    async fn start(config: &ChaosConfig) -> Result<Self, ChaosError> {
        let folder = tempfile::Builder::new().prefix("oarlock-chaos-").tempdir()?;
        let storage = Storage::Folder(folder.path().join("nats"));
        let (sources, sync_always) = (config.sources.clone(), config.sync_always);
        let server = Embedded::start(&EmbeddedConfig { sources, storage, sync_always }).await?;
        let address = Server { urls: server.url().to_owned(), ..Server::default() };
        let root = Root::default();
        let bus = Bus::connect(&address, &root, "oarlock-chaos").await?;
        let ack_wait = Duration::from_secs(ACK_WAIT_S);
        bus.declare(&StreamSettings { ack_wait, ..StreamSettings::default() }).await?;
        let script = folder.path().join("script.json");
        std::fs::write(&script, story::script(config.seed))?;
        let shown = |value: &dyn std::fmt::Display| value.to_string();
        let arguments =
            ["--server", &shown(&server.url()), "--root", &shown(&root), "--script", &shown(&script.display()), "-v"];
        let mut fleet = Fleet::start(FleetConfig {
            executable: config.executable.clone(),
            arguments: arguments.map(str::to_owned).to_vec(),
            without: config.without.clone(),
            roles: CAST.to_vec(),
            logs: folder.path().join("logs"),
            // Here dying is no fault of theirs.
            restarts_max: u32::MAX,
        })?;
        fleet.ready(&bus).await?;
        Ok(Self { store: Store::new(&bus), folder, server: Mutex::new(server), bus, fleet })
    }

    /// Runs a goal before anything is killed.
    async fn reference(&self, story: Story) -> Result<Reference, ChaosError> {
        let goal = story.goal(0);
        let failed = |why: String| ChaosError::Reference { goal: goal.clone(), why };
        let run = RunId::from_key("", &goal);
        self.submit(&goal).await.map_err(failed)?;
        let wait = Duration::from_secs(REFERENCE_WAIT_S_MAX);
        self.wait_for_all(&BTreeMap::from([(run.clone(), story)]), wait).await;
        Reference::of(&self.store, &run).await?.map_err(failed)
    }

    /// Submits the goals at an even pace while the killing goes on. Those that no door acknowledged are not counted.
    async fn submit_all(&self, config: &ChaosConfig) -> BTreeMap<RunId, Story> {
        let pace = config.time / config.runs.max(1);
        let started = Instant::now();
        let mut accepted = BTreeMap::new();
        for number in 1..=config.runs {
            let story = Story::of(number);
            let goal = story.goal(number);
            // The same key again is the same run, so a caller who got no answer simply asks again.
            while let Err(why) = self.submit(&goal).await {
                tracing::debug!("a goal is submitted again: {why}");
                tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
                if started.elapsed() > config.time + Duration::from_secs(FINISH_WAIT_S_MAX) {
                    return accepted;
                }
            }
            accepted.insert(RunId::from_key("", &goal), story);
            tokio::time::sleep((pace * number).saturating_sub(started.elapsed())).await;
        }
        accepted
    }

    /// Asks the submit door, with the goal as its own key.
    async fn submit(&self, goal: &str) -> Result<(), String> {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(HEADER_KEY, goal);
        let wait = Some(Duration::from_secs(SUBMIT_WAIT_S_MAX));
        let request = async_nats::Request::new().headers(headers).payload(goal.to_owned().into()).timeout(wait);
        let answer = self.bus.client.send_request(self.bus.root.submit_door(), request).await;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error")) {
            Some(error) => Err(error.to_string()),
            None => Ok(()),
        }
    }

    /// Waits until all of these runs are over and the queues are empty, or the time is up; the audit tells which.
    async fn wait_for_all(&self, runs: &BTreeMap<RunId, Story>, wait: Duration) {
        let deadline = Instant::now() + wait;
        while Instant::now() < deadline {
            let mut over = BTreeSet::new();
            let see = |run, seen: Recorded, _| {
                if seen.record.status.terminal() {
                    over.insert(run);
                }
            };
            let read = self.store.runs.each(see).await;
            if read.is_ok()
                && runs.keys().all(|run| over.contains(run))
                && audit::left(&self.bus).await.is_ok_and(|left| left.is_empty())
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    /// Ends the fleet, then the server; tells what the workers did, and names what did not go.
    async fn stop(self, before: &journal::Forsaken) -> Result<(journal::Journal, Vec<String>), ChaosError> {
        let Self { folder, server, bus, fleet, .. } = self;
        fleet.stop().await;
        if let Err(error) = bus.client.drain().await {
            tracing::debug!("drain: {error}");
        }
        server.into_inner().stop().await;
        let orphans = journal::orphans(folder.path(), before).await;
        Ok((journal::Journal::read(&folder.path().join("logs"))?, orphans))
    }
}
