//! What the workers really did, from their logs: a line in a file outlives the process that wrote it. And what they left
//! behind on this machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::model::COMPLETION;
use crate::wire::RunId;
use crate::worker::EXECUTION;

/// Where sandboxes have their directories, and how these are called.
const SANDBOXES: (&str, &str) = ("/tmp", "oarlock-pytest-");
/// How long what ends by itself may take to do so.
const GONE_WAIT_S_MAX: u64 = 20;
/// Pause between two looks.
const LOOK_MS: u64 = 200;

/// How often each attempt was begun, and how often a model was asked for it.
#[derive(Debug, Default)]
pub(super) struct Journal {
    begun: BTreeMap<String, usize>,
    asked: BTreeMap<String, usize>,
}

impl Journal {
    /// Reads all logs in a folder.
    pub(super) fn read(folder: &Path) -> std::io::Result<Self> {
        let mut journal = Self::default();
        for file in std::fs::read_dir(folder)? {
            // A line can be cut in the middle by the death of its writer, in the middle of a character too.
            let text = String::from_utf8_lossy(&std::fs::read(file?.path())?).into_owned();
            for line in text.lines() {
                let count = match line {
                    line if line.contains(EXECUTION) => &mut journal.begun,
                    line if line.contains(COMPLETION) => &mut journal.asked,
                    _ => continue,
                };
                if let Some(attempt) = attempt(line) {
                    *count.entry(attempt).or_default() += 1;
                }
            }
        }
        Ok(journal)
    }

    /// The part that is about these runs.
    pub(super) fn of<'a>(mut self, runs: impl Iterator<Item = &'a RunId> + Clone) -> Self {
        let about = |attempt: &String| runs.clone().any(|run| attempt.starts_with(run.as_str()));
        self.begun.retain(|attempt, _| about(attempt));
        self.asked.retain(|attempt, _| about(attempt));
        self
    }

    pub(super) fn executions(&self) -> usize {
        self.begun.values().sum()
    }

    pub(super) fn repeats(&self) -> usize {
        self.begun.values().map(|count| count - 1).sum()
    }

    pub(super) fn extra_calls(&self) -> usize {
        self.asked.values().map(|count| count - 1).sum()
    }
}

/// `<run>.<task>.<attempt>` of a log line with these fields.
fn attempt(line: &str) -> Option<String> {
    let field = |name: &str| {
        let rest = line.split_once(&format!(" {name}="))?.1;
        Some(rest.chars().take_while(char::is_ascii_alphanumeric).collect::<String>())
    };
    Some(format!("{}.{}.{}", field("run")?, field("task")?, field("attempt")?))
}

/// What lies about on this machine of sandboxes that nobody holds.
pub(super) struct Forsaken {
    folders: Vec<PathBuf>,
    processes: Vec<u32>,
}

impl Forsaken {
    /// What there is now.
    pub(super) fn now() -> Self {
        let (place, prefix) = SANDBOXES;
        let entries = std::fs::read_dir(place).into_iter().flatten().filter_map(Result::ok);
        let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        let forsaken = |path: &PathBuf| File::open(path).is_ok_and(|directory| directory.try_lock().is_ok());
        let folders = ours.map(|entry| entry.path()).filter(forsaken).collect();
        Self { folders, processes: processes(names_forsaken_sandbox) }
    }
}

/// What is still there of a fleet that was stopped: processes that name its folder, and of sandboxes what was not there
/// `before`. A sandbox's namespaces live as long as its processes; where there are none (the Landlock tier), a process that tests
/// started does not name its directory and is not seen. What ends by itself is given a moment.
pub(super) async fn orphans(folder: &Path, before: &Forsaken) -> Vec<String> {
    let started = Instant::now();
    let ours = folder.display().to_string();
    loop {
        let now = Forsaken::now();
        let processes = processes(|line| line.contains(&ours)).into_iter().chain(now.processes);
        let processes = processes.filter(|pid| !before.processes.contains(pid));
        let folders = now.folders.into_iter().filter(|place| !before.folders.contains(place));
        let left = processes.map(|pid| format!("process {pid} is left"));
        let left: Vec<String> = left.chain(folders.map(|place| format!("{} is left", place.display()))).collect();
        if left.is_empty() || started.elapsed() > Duration::from_secs(GONE_WAIT_S_MAX) {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

/// True for the command line of a sandbox whose directory is gone, or is held by nobody.
fn names_forsaken_sandbox(line: &str) -> bool {
    let (place, prefix) = SANDBOXES;
    let start = format!("{place}/{prefix}");
    let Some((_, rest)) = line.split_once(&start) else { return false };
    let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
    let forsaken = match File::open(format!("{start}{name}")) {
        Ok(directory) => directory.try_lock().is_ok(),
        // Another user's cannot be looked at.
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    !name.is_empty() && forsaken
}

/// Processes whose command line is such a one.
fn processes(is_such: impl Fn(&str) -> bool) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    let names_it = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        is_such(&String::from_utf8_lossy(&line))
    };
    pids.filter(|pid| *pid != std::process::id()).filter(names_it).collect()
}
