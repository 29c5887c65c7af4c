//! The inner stage: copies the workspace, gives up everything that untrusted code must not have, and becomes Python.
//!
//! It reports through a pipe that closes when Python starts, so nothing that untrusted code prints can be taken for it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::utsname::uname;
use nix::unistd::Uid;

use super::{landlock, seccomp, tree};
use crate::sandbox::job::{Job, Layout};
use crate::sandbox::{HELPER_VERB, Tier};

/// Last line on the status pipe: the next step is Python.
pub(super) const READY: &str = "ready";

/// Since this kernel, a user namespace has its own count of processes.
const OWN_PROCESS_COUNT_KERNEL: (u32, u32) = (5, 14);

/// Runs of one user that may reach their limit of processes at the same time, where the kernel counts them together.
const NEIGHBOURS: u64 = 4;

/// Processor seconds between the signal that can be caught and the one that cannot.
const CPU_GRACE_S: u64 = 1;

/// The arguments that lead our executable here.
pub(super) fn arguments(job: &Job, status: RawFd) -> Vec<OsString> {
    let mut job = job.clone();
    if job.tier != Tier::Bwrap || kernel_version() < OWN_PROCESS_COUNT_KERNEL {
        // The kernel counts every process of this user: those that exist are granted on top, and room for those that
        // others may start, so that a fork bomb does not starve its neighbours before the watchdog ends it.
        job.limits.processes *= NEIGHBOURS;
        job.limits.processes += tree::threads_of_user(Uid::current().as_raw());
    }
    let mut arguments: Vec<OsString> = vec![HELPER_VERB.into(), "inner".into(), status.to_string().into()];
    arguments.extend(job.to_arguments());
    arguments
}

/// Does not return when it succeeds.
pub(super) fn become_python(job: &Job, status: RawFd) -> Result<(), String> {
    // Opened anew, because the number alone is nothing that safe code can write to.
    let mut status = OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/{status}"))
        .map_err(|error| format!("open the status pipe: {error}"))?;
    let error = match confine(job, &mut status) {
        Ok(()) => format!("execute {}: {}", job.python.display(), python(job).exec()),
        Err(error) => error,
    };
    writeln!(status, "error={}", error.replace('\n', " ")).map_err(|error| format!("report: {error}"))?;
    Err(error)
}

fn confine(job: &Job, status: &mut File) -> Result<(), String> {
    let layout = job.layout();
    copy_tree(&layout.source, &layout.workspace).map_err(|error| format!("copy the workspace: {error}"))?;
    std::env::set_current_dir(&layout.workspace).map_err(|error| format!("enter the workspace: {error}"))?;
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("tie to the helper: {error}"))?;
    prctl::set_no_new_privs().map_err(|error| format!("give up new privileges: {error}"))?;
    let mut layers = match job.tier {
        Tier::Bwrap => vec!["namespaces (bubblewrap)".to_owned()],
        Tier::Landlock | Tier::Off => Vec::new(),
    };
    let mut signals_scoped = true;
    if job.tier == Tier::Landlock {
        let raised = landlock::raise(job, &layout)?;
        signals_scoped = raised.signals_scoped;
        layers.push(format!("landlock abi {}", raised.abi));
    }
    limit(job).map_err(|error| format!("set resource limits: {error}"))?;
    if job.tier != Tier::Off {
        seccomp::install(job.tier, signals_scoped)?;
        layers.push("seccomp".to_owned());
    }
    layers.extend(["resource limits".to_owned(), "watchdog".to_owned()]);
    let mut lines: String = layers.iter().map(|layer| format!("layer={layer}\n")).collect();
    lines.push_str(READY);
    lines.push('\n');
    status.write_all(lines.as_bytes()).map_err(|error| format!("report: {error}"))
}

/// Regular files and directories only; anything else in the source is none of ours.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir(&target)?;
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn limit(job: &Job) -> nix::Result<()> {
    let limits = &job.limits;
    setrlimit(Resource::RLIMIT_CPU, limits.cpu_s, limits.cpu_s + CPU_GRACE_S)?;
    for (resource, value) in [
        (Resource::RLIMIT_AS, limits.address_space_bytes),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        (Resource::RLIMIT_NPROC, limits.processes),
        (Resource::RLIMIT_NOFILE, limits.open_files),
        // With 0, the kernel would still start a core dump handler on the host; with 1 it does not.
        (Resource::RLIMIT_CORE, 1),
    ] {
        setrlimit(resource, value, value)?;
    }
    Ok(())
}

fn python(job: &Job) -> Command {
    let Layout { temporary, packages, .. } = job.layout();
    let mut command = Command::new(&job.python);
    command
        .args(&job.python_arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", &temporary)
        .env("TMPDIR", &temporary)
        .env("USER", "sandbox")
        .env("LANG", "C.UTF-8")
        .env("MALLOC_ARENA_MAX", "2")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONNOUSERSITE", "1")
        .env("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1");
    if let Some(packages) = packages {
        command.env("PYTHONPATH", packages);
    }
    command
}

fn kernel_version() -> (u32, u32) {
    let release = uname().ok().and_then(|names| names.release().to_str().map(str::to_owned)).unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_are_copied() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::create_dir_all(from.join("a")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("a/b.py"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.join("link")).unwrap();
        copy_tree(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("a/b.py")).unwrap(), b"x");
        assert!(fs::symlink_metadata(to.join("link")).is_err());
    }
}
