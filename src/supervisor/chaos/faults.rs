//! What happens to whom: kill -9, SIGSTOP and SIGCONT, SIGTERM, and a server that dies and comes back.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{ACK_WAIT_S, Arena, ChaosConfig};
use crate::wire::Role;

/// Milliseconds between two faults, from and to.
const PAUSE_MS: (u64, u64) = (400, 1_100);
/// Milliseconds that the server is away.
const AWAY_MS: (u64, u64) = (50, 1_500);
/// Milliseconds that a process is stopped: shorter than the fleet's patience, and longer.
const STOPPED_MS: (u64, u64) = (300, 2_500 * ACK_WAIT_S);
/// Of 100 faults: so many kill a worker, an orchestrator, the server, stop a process; the rest tell one to end.
const ODDS: [u32; 4] = [42, 26, 8, 14];

/// How many were hit, by what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kills {
    /// Workers killed by SIGKILL.
    pub worker: usize,
    /// Orchestrators killed by SIGKILL.
    pub orchestrator: usize,
    /// Times that the server was killed.
    pub server: usize,
    /// Processes that were stopped and woken.
    pub stopped: usize,
    /// Processes that were told to end.
    pub terminated: usize,
}

impl std::fmt::Display for Kills {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { worker, orchestrator, server, stopped, terminated } = self;
        write!(
            f,
            "{worker} workers, {orchestrator} orchestrators and the server {server} times were killed, {stopped} \
             processes stopped and woken, {terminated} told to end"
        )
    }
}

/// Lets faults happen for the configured time; at the end everybody is awake and the server is up.
pub(super) async fn happen(config: &ChaosConfig, arena: &Arena) -> Kills {
    let mut dice = StdRng::seed_from_u64(config.seed);
    let mut kills = Kills::default();
    let mut asleep: Vec<(u32, Instant)> = Vec::new();
    let started = Instant::now();
    while started.elapsed() < config.time {
        tokio::time::sleep(between(&mut dice, PAUSE_MS)).await;
        asleep.retain(|(pid, until)| *until > Instant::now() || !signal(*pid, Signal::Wake));
        let roll = dice.random_range(0..100);
        let kind = ODDS.iter().scan(0, |sum, odds| Some(*sum + odds).inspect(|next| *sum = *next));
        match kind.take_while(|until| roll >= *until).count() {
            0 => {
                let worker = hit(arena, &mut dice, |role| role != Role::Orchestrator, Signal::Kill).await;
                kills.worker += usize::from(worker.is_some());
            }
            1 => {
                let orchestrator = hit(arena, &mut dice, |role| role == Role::Orchestrator, Signal::Kill).await;
                kills.orchestrator += usize::from(orchestrator.is_some());
            }
            2 => {
                let away = between(&mut dice, AWAY_MS);
                kills.server += usize::from(restart_server(arena, away).await);
            }
            3 => {
                if let Some(pid) = hit(arena, &mut dice, |_| true, Signal::Stop).await {
                    asleep.push((pid, Instant::now() + between(&mut dice, STOPPED_MS)));
                    kills.stopped += 1;
                }
            }
            _ => kills.terminated += usize::from(hit(arena, &mut dice, |_| true, Signal::End).await.is_some()),
        }
    }
    for (pid, _) in asleep {
        signal(pid, Signal::Wake);
    }
    kills
}

fn between(dice: &mut StdRng, (from, to): (u64, u64)) -> Duration {
    Duration::from_millis(dice.random_range(from..=to))
}

/// Sends a signal to one of the processes that `fits`, and says to which.
async fn hit(arena: &Arena, dice: &mut StdRng, fits: impl Fn(Role) -> bool, what: Signal) -> Option<u32> {
    let processes = arena.fleet.processes().await;
    let fitting: Vec<u32> = processes.into_iter().filter(|(role, _)| fits(*role)).map(|(_, pid)| pid).collect();
    let pid = *fitting.get(dice.random_range(0..fitting.len().max(1)))?;
    signal(pid, what).then_some(pid)
}

/// Kills the server, and starts it again after a while.
async fn restart_server(arena: &Arena, away: Duration) -> bool {
    let mut server = arena.server.lock().await;
    server.kill().await;
    tokio::time::sleep(away).await;
    // Its port may be held for a moment more.
    for _ in 0..10 {
        match server.restart().await {
            Ok(()) => return true,
            Err(error) => tracing::warn!("the server is started again: {:#}", anyhow::Error::from(error)),
        }
    }
    false
}

#[derive(Clone, Copy)]
enum Signal {
    Kill,
    Stop,
    Wake,
    End,
}

/// True when the process was there to get it.
#[cfg(unix)]
fn signal(pid: u32, what: Signal) -> bool {
    use nix::sys::signal::{Signal as S, kill};
    let signal = match what {
        Signal::Kill => S::SIGKILL,
        Signal::Stop => S::SIGSTOP,
        Signal::Wake => S::SIGCONT,
        Signal::End => S::SIGTERM,
    };
    i32::try_from(pid).is_ok_and(|pid| kill(nix::unistd::Pid::from_raw(pid), signal).is_ok())
}

#[cfg(not(unix))]
fn signal(_pid: u32, _what: Signal) -> bool {
    false
}
