//! Floor 6: starts a fleet's processes on this machine, watches them, and stops them together.
//!
//! A worker is a child process of its own (`<our executable> worker <role>`), so that what is seen on a laptop is what
//! runs in production. Children must not outlive us: each holds the reading end of a pipe whose writing end is ours, and
//! drains and exits when it closes, also when we are killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::bus::Bus;
use crate::wire::Role;

/// How long a fleet may take to answer at all its doors.
const READY_WAIT_S_MAX: u64 = 60;
/// Pause between two looks at a door that is not open yet.
const READY_DELAY_MS: u64 = 10;
/// How long children may take to finish after their pipe closed, before they are killed.
const STOP_WAIT_S_MAX: u64 = 10;
/// Lines of a dead worker's log that an error shows.
const LOG_LINES: usize = 5;

/// What to start.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// Our executable.
    pub executable: PathBuf,
    /// Arguments that every worker gets, after `worker <role>`.
    pub arguments: Vec<String>,
    /// How many processes of each role.
    pub roles: Vec<(Role, usize)>,
    /// Where their logs go.
    pub logs: PathBuf,
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
    #[error("the worker of {role} did not open its door within {READY_WAIT_S_MAX} s; its log is {log}")]
    Late {
        /// Its role.
        role: Role,
        /// Where to look.
        log: PathBuf,
    },
}

struct Member {
    role: Role,
    child: Child,
    log: PathBuf,
}

/// Running worker processes.
pub struct Fleet {
    members: Vec<Member>,
}

impl Fleet {
    /// Starts the processes; they are not ready yet.
    ///
    /// # Errors
    /// [`FleetError::Spawn`]; those that were started end with this value.
    pub fn start(config: &FleetConfig) -> Result<Self, FleetError> {
        let mut fleet = Self { members: Vec::new() };
        for (role, count) in &config.roles {
            for number in 1..=*count {
                let log = config.logs.join(format!("{role}-{number}.log"));
                let child = spawn(config, *role, &log).map_err(|source| FleetError::Spawn { role: *role, source })?;
                fleet.members.push(Member { role: *role, child, log });
            }
        }
        Ok(fleet)
    }

    /// Waits until every role answers at its door.
    ///
    /// # Errors
    /// When a worker ends or does not answer in time.
    pub async fn ready(&mut self, bus: &Bus) -> Result<(), FleetError> {
        let started = Instant::now();
        for index in 0..self.members.len() {
            let role = self.members[index].role;
            let subject = format!("$SRV.PING.{}", bus.root.service(role));
            while bus.client.request(subject.clone(), bytes::Bytes::new()).await.is_err() {
                self.check()?;
                if started.elapsed() > Duration::from_secs(READY_WAIT_S_MAX) {
                    return Err(FleetError::Late { role, log: self.members[index].log.clone() });
                }
                tokio::time::sleep(Duration::from_millis(READY_DELAY_MS)).await;
            }
        }
        self.check()
    }

    /// An error when a worker has ended.
    pub fn check(&mut self) -> Result<(), FleetError> {
        for member in &mut self.members {
            if let Ok(Some(status)) = member.child.try_wait() {
                return Err(FleetError::Ended { role: member.role, status, log: log_end(&member.log) });
            }
        }
        Ok(())
    }

    /// Role and process id of each worker.
    pub fn processes(&self) -> Vec<(Role, u32)> {
        self.members.iter().filter_map(|member| Some((member.role, member.child.id()?))).collect()
    }

    /// Lets all workers finish and waits until they are gone; those that take too long are killed.
    pub async fn stop(mut self) {
        for member in &mut self.members {
            drop(member.child.stdin.take());
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(STOP_WAIT_S_MAX);
        for member in &mut self.members {
            if tokio::time::timeout_at(deadline, member.child.wait()).await.is_err() {
                tracing::warn!(role = %member.role, "a worker did not stop in time and is killed");
                let killed = member.child.kill().await;
                killed.unwrap_or_else(|error| tracing::warn!("it could not be killed: {error}"));
            }
        }
    }
}

fn spawn(config: &FleetConfig, role: Role, log: &Path) -> std::io::Result<Child> {
    std::fs::create_dir_all(&config.logs)?;
    let mut command = Command::new(&config.executable);
    command.args(["worker", role.name(), "--with-parent"]).args(&config.arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(std::fs::File::create(log)?);
    // A group of its own, so that Ctrl-C in a terminal reaches us alone and we decide the order of the end.
    command.process_group(0).kill_on_drop(true);
    command.spawn()
}

fn log_end(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(LOG_LINES).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
