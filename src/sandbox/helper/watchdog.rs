//! Looks at the whole tree of a run at short intervals and says when it has to end. What the kernel can bound for one
//! process is bounded by resource limits; here is what only the sum shows.

use std::time::{Duration, Instant};

use nix::unistd::{Pid, SysconfVar, sysconf};

use super::disk;
use super::tree::{self, Process};
use crate::sandbox::Tier;
use crate::sandbox::job::{Job, Layout};
use crate::sandbox::record::Stop;

/// Pause between two looks at the tree.
const SCAN_PAUSE_MS: u64 = 100;

/// Processes of bubblewrap that are not the run's own.
const OWN_PROCESSES: u64 = 4;

/// Watches one run.
pub(super) struct Watchdog {
    job: Job,
    layout: Layout,
    started: Instant,
    next_scan: Instant,
    page_bytes: u64,
    ticks_per_s: u64,
    /// Highest memory seen.
    pub peak_memory_bytes: u64,
}

impl Watchdog {
    /// A watchdog for a run that has just started.
    pub fn new(job: &Job, started: Instant) -> Watchdog {
        let system = |variable, usual: u64| {
            sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok()).unwrap_or(usual)
        };
        Watchdog {
            job: job.clone(),
            layout: job.layout(),
            started,
            next_scan: started,
            page_bytes: system(SysconfVar::PAGE_SIZE, 4096),
            ticks_per_s: system(SysconfVar::CLK_TCK, 100),
            peak_memory_bytes: 0,
        }
    }

    /// Why the run has to end now, if it has to.
    pub fn check(&mut self) -> Option<(Stop, String)> {
        let wall = self.job.limits.wall;
        if self.started.elapsed() > wall {
            return Some((Stop::Timeout, format!("more than {:.1} s", wall.as_secs_f64())));
        }
        if Instant::now() < self.next_scan {
            return None;
        }
        let (processes, own) = tree::below(Pid::this());
        let reason = self
            .memory(&processes)
            .or_else(|| self.processor(&processes, own.as_ref()))
            .or_else(|| self.processes(&processes))
            .or_else(|| self.disk(&processes));
        self.next_scan = Instant::now() + Duration::from_millis(SCAN_PAUSE_MS);
        reason
    }

    /// Resident pages are cheap to read but count shared ones for each process, so they only raise the suspicion.
    fn memory(&mut self, processes: &[Process]) -> Option<(Stop, String)> {
        let resident = |process: &Process| process.resident_pages * self.page_bytes;
        let suspected: u64 = processes.iter().map(resident).sum();
        if suspected <= self.peak_memory_bytes {
            return None;
        }
        let real = |process: &Process| tree::proportional_bytes(process.pid).unwrap_or_else(|| resident(process));
        let used = processes.iter().map(real).sum();
        self.peak_memory_bytes = self.peak_memory_bytes.max(used);
        let limit = self.job.limits.memory_bytes;
        (used > limit).then(|| (Stop::Memory, format!("more than {limit} bytes of memory in all processes")))
    }

    fn processor(&self, processes: &[Process], own: Option<&Process>) -> Option<(Stop, String)> {
        let adopted = own.map_or(0, |own| own.children_ticks);
        let ticks = adopted + processes.iter().map(|process| process.ticks).sum::<u64>();
        let limit = self.job.limits.cpu_s;
        let reason = || format!("more than {limit} s of processor time in all processes");
        (ticks > limit * self.ticks_per_s).then(|| (Stop::Timeout, reason()))
    }

    fn processes(&self, processes: &[Process]) -> Option<(Stop, String)> {
        let threads: u64 = processes.iter().filter(|process| !process.zombie).map(|process| process.threads).sum();
        let limit = self.job.limits.processes;
        (threads > limit + OWN_PROCESSES).then(|| (Stop::Killed, format!("more than {limit} processes and threads")))
    }

    fn disk(&self, processes: &[Process]) -> Option<(Stop, String)> {
        let roots = [self.layout.workspace.as_path(), self.layout.temporary.as_path()];
        let usage = if self.job.tier == Tier::Bwrap {
            disk::Usage { bytes: 0, entries: disk::entries_behind(processes, &roots) }
        } else {
            let mut usage = disk::of_trees(&roots);
            usage.bytes += disk::of_deleted(processes);
            usage
        };
        let limit = self.job.limits.disk_bytes;
        if usage.entries > disk::ENTRIES_MAX {
            return Some((Stop::Killed, format!("more than {} files", disk::ENTRIES_MAX)));
        }
        (usage.bytes > limit).then(|| (Stop::Killed, format!("more than {limit} bytes on disk")))
    }
}
