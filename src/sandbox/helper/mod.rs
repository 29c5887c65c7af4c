//! The helper process: outside, it builds the wall and watches, inside it makes itself small and becomes Python.
//!
//! Two stages of one executable. `supervise` starts the tree, watches it, kills it, reports. `inner` runs behind the
//! namespaces (tier bwrap) or raises Landlock around itself, adds seccomp and resource limits, and executes Python.
//! Neither ever sees the worker's environment, and neither runs as root.

mod bwrap;
mod capture;
mod disk;
mod inner;
mod landlock;
mod seccomp;
mod supervise;
mod tree;
mod watchdog;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::process::ExitCode;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

use super::UNPRIVILEGED_ID;
use super::job::Job;

/// First descriptor that is none of the standard three.
const FIRST_EXTRA_DESCRIPTOR: RawFd = 3;

/// Entry point of `oarlock sandbox-exec`: takes the arguments after that word.
///
/// Call it first thing in `main`, before any thread is started.
pub fn helper_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match dispatch(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sandbox helper: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    drop_root().map_err(|error| format!("drop root: {error}"))?;
    close_on_exec().map_err(|error| format!("mark descriptors: {error}"))?;
    umask(Mode::from_bits_truncate(0o077));
    let mut arguments = arguments.into_iter();
    match arguments.next().as_ref().and_then(|stage| stage.to_str()) {
        Some("supervise") => {
            let record = supervise::supervise(&Job::from_arguments(arguments)?);
            io::stdout().lock().write_all(&record.encode()).map_err(|error| format!("write the record: {error}"))
        }
        Some("inner") => {
            let status = arguments.next().and_then(|number| number.to_str()?.parse().ok());
            let status = status.ok_or("the status descriptor is missing")?;
            inner::become_python(&Job::from_arguments(arguments)?, status)
        }
        _ => Err("this command is for the sandbox's own use".to_owned()),
    }
}

fn drop_root() -> nix::Result<()> {
    if Uid::effective().is_root() {
        setgroups(&[])?;
        setgid(Gid::from_raw(UNPRIVILEGED_ID))?;
        setuid(Uid::from_raw(UNPRIVILEGED_ID))?;
    }
    Ok(())
}

/// Whatever descriptors were inherited, from us or from whoever started the worker, must not reach untrusted code.
fn close_on_exec() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let Some(descriptor) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        if descriptor >= FIRST_EXTRA_DESCRIPTOR {
            // SAFETY: F_SETFD changes a flag of a descriptor and touches no memory; an unknown number is an error.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}
