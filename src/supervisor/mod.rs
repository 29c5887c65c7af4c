//! Floor 6: starts a fleet's processes on this machine, watches them, and stops them together.
//!
//! A worker is a child process of its own (`<our executable> worker <role>`), so that what is seen on a laptop is what
//! runs in production. One that dies is started again, so that a fleet on a laptop survives what it would survive there.
//! Children must not outlive us: each holds the reading end of a pipe whose writing end is ours, and drains and exits when
//! it closes, also when we are killed.

pub mod chaos;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::bus::Bus;
use crate::wire::Role;

/// How long a fleet may take to answer at all its doors.
const READY_WAIT_S_MAX: u64 = 60;
/// Pause between two looks at a door that is not open yet.
const READY_DELAY_MS: u64 = 10;
/// How long children may take to finish after their pipe closed, before they are killed.
const STOP_WAIT_S_MAX: u64 = 15;
/// How long they may go on with work in hand; the rest of the time above is for handing it back.
const WORKER_GRACE_S: &str = "8";
/// Lines of a dead worker's log that an error shows.
const LOG_LINES: usize = 5;
/// How often the processes are looked at.
const WATCH_MS: u64 = 200;
/// Times that one worker is usually started again; one that dies more often is left, and said to be.
pub const RESTARTS_MAX: u32 = 20;
/// Pause before a worker is started again, longer with every time, up to ten times as long.
const RESTART_DELAY_MS: u64 = 250;
/// A worker that lived as long as this has nothing against it any more.
const STEADY_S: u64 = 60;

/// What to start.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// Our executable.
    pub executable: PathBuf,
    /// Arguments that every worker gets, after `worker <role>`.
    pub arguments: Vec<String>,
    /// Environment variables that workers must not get.
    pub without: Vec<&'static str>,
    /// How many processes of each role.
    pub roles: Vec<(Role, usize)>,
    /// Where their logs go.
    pub logs: PathBuf,
    /// Times that one worker is started again without having lived for [`STEADY_S`] seconds in between.
    pub restarts_max: u32,
}

/// A fleet's processes that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A child could not be started.
    #[error("failed to start a worker of {role}")]
    Spawn {
        /// Its role.
        role: Role,
        /// Why.
        source: std::io::Error,
    },
    /// A child ended before it was ready.
    #[error("the worker of {role} ended at once ({status}); its log says: {log}")]
    Ended {
        /// Its role.
        role: Role,
        /// How.
        status: std::process::ExitStatus,
        /// Its last words.
        log: String,
    },
    /// A door did not open.
    #[error("the worker of {role} did not open its door within {READY_WAIT_S_MAX} s; its log says: {log}")]
    Late {
        /// Its role.
        role: Role,
        /// Its last words.
        log: String,
    },
}

struct Member {
    role: Role,
    child: Child,
    log: PathBuf,
    restarts: u32,
    started: Instant,
    state: State,
}

/// What the watcher knows of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It runs, as far as is known.
    Running,
    /// It ended, and is started again at this time.
    Ended(Instant),
    /// It died too often.
    GivenUp,
}

/// Running worker processes.
pub struct Fleet {
    config: FleetConfig,
    members: Arc<Mutex<Vec<Member>>>,
    watcher: Option<JoinHandle<()>>,
}

impl Fleet {
    /// Starts the processes; they are not ready yet.
    ///
    /// # Errors
    /// [`FleetError::Spawn`]; those that were started end with this value.
    pub fn start(config: FleetConfig) -> Result<Self, FleetError> {
        let mut members = Vec::new();
        for (role, count) in &config.roles {
            for number in 1..=*count {
                let log = config.logs.join(format!("{role}-{number}.log"));
                let child = spawn(&config, *role, &log).map_err(|source| FleetError::Spawn { role: *role, source })?;
                let (started, state) = (Instant::now(), State::Running);
                members.push(Member { role: *role, child, log, restarts: 0, started, state });
            }
        }
        Ok(Self { config, members: Arc::new(Mutex::new(members)), watcher: None })
    }

    /// Waits until every role answers at its door; from then on, a worker that ends is started again.
    ///
    /// # Errors
    /// When a worker ends or does not answer in time.
    pub async fn ready(&mut self, bus: &Bus) -> Result<(), FleetError> {
        let started = Instant::now();
        let mut members = self.members.lock().await;
        for index in 0..members.len() {
            let role = members[index].role;
            let subject = format!("$SRV.PING.{}", bus.root.service(role));
            while bus.client.request(subject.clone(), bytes::Bytes::new()).await.is_err() {
                members.iter_mut().try_for_each(Member::check)?;
                if started.elapsed() > Duration::from_secs(READY_WAIT_S_MAX) {
                    return Err(FleetError::Late { role, log: log_end(&members[index].log) });
                }
                tokio::time::sleep(Duration::from_millis(READY_DELAY_MS)).await;
            }
        }
        members.iter_mut().try_for_each(Member::check)?;
        drop(members);
        self.watcher = Some(tokio::spawn(watch(self.config.clone(), self.members.clone())));
        Ok(())
    }

    /// Role and process id of each worker.
    pub async fn processes(&self) -> Vec<(Role, u32)> {
        let members = self.members.lock().await;
        let running = members.iter().filter(|member| member.state == State::Running);
        running.filter_map(|member| Some((member.role, member.child.id()?))).collect()
    }

    /// Lets all workers finish and waits until they are gone; those that take too long are killed.
    pub async fn stop(self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
        let mut members = self.members.lock().await;
        members.iter_mut().for_each(|member| drop(member.child.stdin.take()));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(STOP_WAIT_S_MAX);
        for member in members.iter_mut() {
            if tokio::time::timeout_at(deadline, member.child.wait()).await.is_err() {
                tracing::warn!(role = %member.role, "a worker did not stop in time and is killed");
                let killed = member.child.kill().await;
                killed.unwrap_or_else(|error| tracing::warn!("it could not be killed: {error}"));
            }
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // The watcher holds the members; without it they end with this value.
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}

impl Member {
    /// Starts it again when it has ended, after a pause.
    fn look_after(&mut self, config: &FleetConfig) {
        match self.state {
            State::GivenUp => {}
            State::Running => {
                let Err(ended) = self.check() else { return };
                let steady = self.started.elapsed() > Duration::from_secs(STEADY_S);
                self.restarts = if steady { 1 } else { self.restarts + 1 };
                if self.restarts > config.restarts_max {
                    let max = config.restarts_max;
                    tracing::error!("{ended}; it is not started again after restarts_max {max} times");
                    self.state = State::GivenUp;
                    return;
                }
                tracing::warn!(role = %self.role, "a worker ended and is started again");
                let pause = RESTART_DELAY_MS * u64::from(self.restarts.min(10));
                self.state = State::Ended(Instant::now() + Duration::from_millis(pause));
            }
            State::Ended(again) if again <= Instant::now() => match spawn(config, self.role, &self.log) {
                Ok(child) => (self.child, self.started, self.state) = (child, Instant::now(), State::Running),
                Err(error) => {
                    tracing::error!(role = %self.role, "it could not be started: {error}");
                    self.state = State::Ended(Instant::now() + Duration::from_millis(RESTART_DELAY_MS));
                }
            },
            State::Ended(_) => {}
        }
    }

    /// An error when the process has ended.
    fn check(&mut self) -> Result<(), FleetError> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(FleetError::Ended { role: self.role, status, log: log_end(&self.log) }),
            _ => Ok(()),
        }
    }
}

async fn watch(config: FleetConfig, members: Arc<Mutex<Vec<Member>>>) {
    loop {
        tokio::time::sleep(Duration::from_millis(WATCH_MS)).await;
        members.lock().await.iter_mut().for_each(|member| member.look_after(&config));
    }
}

fn spawn(config: &FleetConfig, role: Role, log: &Path) -> std::io::Result<Child> {
    std::fs::create_dir_all(&config.logs)?;
    let mut command = Command::new(&config.executable);
    command.args(["worker", role.name(), "--with-parent", "--grace", WORKER_GRACE_S]).args(&config.arguments);
    for name in &config.without {
        command.env_remove(name);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(append(log)?);
    // A group of its own, so that Ctrl-C in a terminal reaches us alone and we decide the order of the end.
    command.process_group(0).kill_on_drop(true);
    command.spawn()
}

fn append(log: &Path) -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new().create(true).append(true).open(log)
}

fn log_end(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(LOG_LINES).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
