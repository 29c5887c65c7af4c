//! The command line of bubblewrap: namespaces of its own for everything, and a file system of what Python needs.
//!
//! The root, `/dev` and unsized tmpfs mounts would be writable without limit, so every tmpfs has a size and the rest is
//! made read-only at the end. The report is one bound file: it can be written, not replaced by a link.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use crate::sandbox::UNPRIVILEGED_ID;
use crate::sandbox::job::{Job, REPORT};

/// Where distributions put bubblewrap.
const PLACES: [&str; 4] = ["/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap", "/run/current-system/sw/bin/bwrap"];

/// Programs and libraries of the system; links among them are kept as links.
const SYSTEM_DIRECTORIES: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store"];

/// Parts of an interpreter's prefix that it runs from; not the whole prefix, which may be somebody's home.
pub(super) const PREFIX_PARTS: [&str; 3] = ["bin", "lib", "lib64"];

/// Files that exist on the host and say nothing about it.
const HARMLESS_FILES: [&str; 2] = ["/etc/ld.so.cache", "/etc/localtime"];

const TEMPORARY_BYTES: u64 = 64 * 1024 * 1024;
const SHARED_MEMORY_BYTES: u64 = 16 * 1024 * 1024;

/// Bubblewrap up to and including the program that it runs: our own executable, through its open descriptor.
pub(super) fn command(job: &Job, executable: &File) -> io::Result<Command> {
    let program = PLACES.into_iter().find(|place| Path::new(place).exists());
    let program = program.ok_or_else(|| io::Error::other(format!("bubblewrap is not at {}", PLACES.join(", "))))?;
    let mut command = Command::new(program);
    isolate(&mut command);
    let sized = |command: &mut Command, bytes: u64, path: &Path| {
        command.arg("--size").arg(bytes.to_string()).arg("--tmpfs").arg(path);
    };
    let layout = job.layout();
    sized(&mut command, TEMPORARY_BYTES, &layout.temporary);
    sized(&mut command, SHARED_MEMORY_BYTES, Path::new("/dev/shm"));
    bind_system(&mut command);
    if !job.prefix.starts_with("/usr") {
        for part in PREFIX_PARTS.map(|part| job.prefix.join(part)) {
            command.arg("--ro-bind-try").arg(&part).arg(&part);
        }
    }
    if let (Some(outside), Some(inside)) = (&job.packages, &layout.packages) {
        command.arg("--ro-bind").arg(outside).arg(inside);
    }
    for name in ["passwd", "group", "hosts", "nsswitch.conf"] {
        command.arg("--ro-bind").arg(job.directory.join("etc").join(name)).arg(Path::new("/etc").join(name));
    }
    command.arg("--ro-bind").arg(job.directory.join("source")).arg(&layout.source);
    command.arg("--bind").arg(job.directory.join(REPORT)).arg(&layout.report);
    sized(&mut command, job.limits.disk_bytes, &layout.workspace);
    command.args(["--remount-ro", "/dev", "--remount-ro", "/", "--chdir"]).arg(&layout.workspace);
    command.arg("--").arg(format!("/proc/self/fd/{}", executable.as_raw_fd()));
    Ok(command)
}

fn isolate(command: &mut Command) {
    let id = UNPRIVILEGED_ID.to_string();
    command
        .env_clear()
        .args(["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"])
        .args(["--unshare-cgroup-try", "--disable-userns", "--cap-drop", "ALL", "--uid", &id, "--gid", &id])
        .args(["--hostname", "sandbox", "--die-with-parent", "--new-session", "--proc", "/proc", "--dev", "/dev"]);
}

fn bind_system(command: &mut Command) {
    for directory in SYSTEM_DIRECTORIES {
        let path = Path::new(directory);
        match fs::read_link(path) {
            Ok(target) => command.arg("--symlink").arg(target).arg(path),
            Err(_) => command.arg("--ro-bind-try").arg(path).arg(path),
        };
    }
    for file in HARMLESS_FILES {
        command.args(["--ro-bind-try", file, file]);
    }
}
