//! The outer stage: starts the tree, watches it, ends it, and says what happened.
//!
//! As a subreaper it inherits every daemon that the tree leaves behind. The worker holds the other end of its standard
//! input; when that closes, the run is over. Whatever happens, the run directory is removed only when the tree is dead.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::capture::{Capture, Event, Kept};
use super::watchdog::Watchdog;
use super::{bwrap, disk, inner, tree};
use crate::sandbox::Tier;
use crate::sandbox::job::{Job, REPORT};
use crate::sandbox::junit::REPORT_BYTES_MAX;
use crate::sandbox::record::{Record, Stop};

/// Longest time between two looks at the main process.
const POLL_MS: u64 = 10;

/// Patience with processes that were killed and do not go.
const KILL_WAIT_S_MAX: u64 = 5;

/// Pause between two rounds of killing.
const KILL_PAUSE_MS: u64 = 2;

/// Patience with output that is still in the pipe when all processes are dead.
const OUTPUT_WAIT_S_MAX: u64 = 2;

/// Runs the job to its end. Failures of ours are in the record, too.
pub(super) fn supervise(job: &Job) -> Record {
    let mut record = match Session::start(job) {
        Ok(session) => session.finish(),
        Err(error) => Record { setup_error: Some(error.to_string()), ..Record::default() },
    };
    match read_report(&job.directory.join(REPORT)) {
        Ok(report) => record.report = report,
        Err(error) => record.report_error = Some(error.to_string()),
    }
    if let Err(error) = disk::remove(&job.directory) {
        eprintln!("remove {}: {error}", job.directory.display());
    }
    record
}

struct Session {
    job: Job,
    main: Pid,
    started: Instant,
    capture: Capture,
    events: Receiver<Event>,
    status: PipeReader,
}

impl Session {
    fn start(job: &Job) -> io::Result<Session> {
        set_child_subreaper(true)?;
        let (output, output_end) = io::pipe()?;
        let (status, status_end) = io::pipe()?;
        let executable = File::open("/proc/self/exe")?;
        inheritable(&status_end)?;
        let mut command = if job.tier == Tier::Bwrap {
            inheritable(&executable)?;
            bwrap::command(job, &executable)?
        } else {
            let mut command = Command::new("/proc/self/exe");
            command.arg0("oarlock");
            command
        };
        command
            .args(inner::arguments(job, status_end.as_raw_fd()))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output_end.try_clone()?)
            .stderr(output_end);
        let started = Instant::now();
        let child = command.spawn()?;
        // The command holds copies of both pipes' writing ends; with them, reading would never end.
        drop(command);
        drop(status_end);
        let main = Pid::from_raw(child.id().try_into().map_err(io::Error::other)?);
        let (sender, events) = mpsc::channel();
        hold_leash(sender.clone());
        let limits = &job.limits;
        let capture = Capture::start(output, limits.output_bytes_max, limits.output_bytes_kept, sender);
        Ok(Session { job: job.clone(), main, started, capture, events, status })
    }

    fn finish(self) -> Record {
        let mut watchdog = Watchdog::new(&self.job, self.started);
        let mut output_ended = false;
        let stopped = self.watch(&mut watchdog, &mut output_ended);
        let wall = self.started.elapsed();
        let (end, killed) = self.kill_all();
        let Kept { total, head, tail } = self.remaining_output(output_ended);
        let mut record = Record {
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
            peak_memory_bytes: watchdog.peak_memory_bytes,
            stragglers: if stopped.is_some() { 0 } else { killed },
            stopped,
            output_bytes: total,
            head,
            tail: tail.into(),
            ..Record::default()
        };
        match end {
            // Bubblewrap hands on the end of its child as a shell does.
            Some(WaitStatus::Exited(_, code)) if self.job.tier == Tier::Bwrap && code > 128 => {
                record.signal = Some(code - 128);
            }
            Some(WaitStatus::Exited(_, code)) => record.exit = Some(code),
            Some(WaitStatus::Signaled(_, signal, _)) => record.signal = Some(signal as i32),
            _ => {}
        }
        self.read_status(&mut record);
        record
    }

    /// Waits for the main process to end by itself, or for a reason to end it.
    fn watch(&self, watchdog: &mut Watchdog, output_ended: &mut bool) -> Option<(Stop, String)> {
        loop {
            if self.main_ended() {
                return None;
            }
            if let Some(reason) = watchdog.check() {
                return Some(reason);
            }
            match self.events.recv_timeout(Duration::from_millis(POLL_MS)) {
                Ok(Event::Cancelled) => return Some((Stop::Cancelled, "the worker let go of the run".to_owned())),
                Ok(Event::Flood) => {
                    let reason = format!("printed more than {} bytes", self.job.limits.output_bytes_max);
                    return Some((Stop::OutputFlood, reason));
                }
                Ok(Event::OutputEnded) => *output_ended = true,
                Err(_) => {}
            }
            self.reap_adopted();
        }
    }

    /// Looks without collecting: as long as the dead process is kept, its group's number cannot belong to anyone else.
    fn main_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        !matches!(waitid(Id::Pid(self.main), flags), Ok(WaitStatus::StillAlive))
    }

    /// Collects dead daemons, which would otherwise count as processes of the run.
    fn reap_adopted(&self) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        while let Some(dead) = waitid(Id::All, flags).ok().and_then(|status| status.pid()) {
            if dead == self.main || waitpid(dead, Some(WaitPidFlag::WNOHANG)).is_err() {
                break;
            }
        }
    }

    /// Kills until nothing is left. Returns how the main process ended, and how many others had to be killed.
    fn kill_all(&self) -> (Option<WaitStatus>, u32) {
        let deadline = Instant::now() + Duration::from_secs(KILL_WAIT_S_MAX);
        let own = Pid::this().as_raw();
        let mut killed = HashSet::new();
        loop {
            let (mut alive, _) = tree::below(Pid::this());
            alive.retain(|process| !process.zombie);
            // One signal to the whole group is atomic even against processes that fork without pause.
            let _ = killpg(self.main, Signal::SIGKILL);
            for process in &alive {
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
                let of_bwrap = self.job.tier == Tier::Bwrap && process.parent == own;
                if process.pid != self.main.as_raw() && !of_bwrap {
                    killed.insert(process.pid);
                }
            }
            self.reap_adopted();
            if (alive.is_empty() && self.main_ended()) || Instant::now() > deadline {
                let end = waitpid(self.main, Some(WaitPidFlag::WNOHANG)).ok();
                return (end, u32::try_from(killed.len()).unwrap_or(u32::MAX));
            }
            std::thread::sleep(Duration::from_millis(KILL_PAUSE_MS));
        }
    }

    fn remaining_output(&self, mut ended: bool) -> Kept {
        let deadline = Instant::now() + Duration::from_secs(OUTPUT_WAIT_S_MAX);
        while !ended {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                break;
            };
            match self.events.recv_timeout(left) {
                Ok(event) => ended = matches!(event, Event::OutputEnded),
                Err(_) => break,
            }
        }
        self.capture.snapshot()
    }

    /// What the inner stage said before it became Python; untrusted code never held this pipe.
    fn read_status(mut self, record: &mut Record) {
        if fcntl(&self.status, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_err() {
            return;
        }
        let mut bytes = Vec::new();
        // An error here means that a writer is left or gone; what was read until then counts.
        let _ = self.status.read_to_end(&mut bytes);
        for line in String::from_utf8_lossy(&bytes).lines() {
            match line.split_once('=') {
                Some(("layer", layer)) => record.layers.push(layer.to_owned()),
                Some(("error", error)) => record.setup_error = Some(error.to_owned()),
                _ => record.ready |= line == inner::READY,
            }
        }
        record.ready &= record.setup_error.is_none();
    }
}

/// Waits in a thread for the worker to close our standard input.
fn hold_leash(events: Sender<Event>) {
    std::thread::spawn(move || {
        let mut byte = [0];
        while io::stdin().read(&mut byte).is_ok_and(|length| length > 0) {}
        // If nobody listens, the run is over anyway.
        let _ = events.send(Event::Cancelled);
    });
}

fn inheritable(descriptor: impl std::os::fd::AsFd) -> Result<(), Errno> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
}

/// The report lies where untrusted code could write: no link is followed, nothing but a bounded plain file is read.
fn read_report(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("the report cannot be opened: {error}")))?;
    let status = file.metadata()?;
    if !status.is_file() || status.len() > REPORT_BYTES_MAX {
        return Err(io::Error::other(format!("the report is no plain file of at most {REPORT_BYTES_MAX} bytes")));
    }
    let mut bytes = Vec::new();
    file.take(REPORT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_is_no_plain_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(REPORT);
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(read_report(&path).is_err());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(read_report(&path).is_err());
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, b"<x/>").unwrap();
        assert_eq!(read_report(&path).unwrap(), b"<x/>");
        File::options().write(true).open(&path).unwrap().set_len(REPORT_BYTES_MAX + 1).unwrap();
        assert!(read_report(&path).is_err());
    }
}
