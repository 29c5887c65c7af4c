//! The process between us and a tool server: it ends the server and everything that the server started when we are gone,
//! also when nobody could say goodbye.
//!
//! It leads a process group that the server's processes are in. What it reads and writes is nothing: the server has its
//! standard streams. It looks for its parent instead of asking the kernel for a signal, because such a signal comes when
//! the thread that started it ends, not the process.

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Exit code for a command that cannot be started, as shells have it.
const NOT_STARTED: u8 = 127;
/// How often the parent is looked for.
const LOOK_MS: u64 = 200;
/// How long a server may take to end by itself when its standard input has closed.
const GRACE_MS: u64 = 1_000;

/// Entry point of `oarlock tool-server <parent> <command> [argument…]`; returns when the command has ended.
///
/// Call it first thing in `main`.
pub fn keeper_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let parent = arguments.next().and_then(|number| number.to_str()?.parse::<i32>().ok());
    let (Some(parent), Some(command)) = (parent, arguments.next()) else {
        eprintln!("this command is for oarlock's own use");
        return ExitCode::FAILURE;
    };
    let mut child = match Command::new(&command).args(arguments).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("{} cannot be started: {error}", command.to_string_lossy());
            return ExitCode::from(NOT_STARTED);
        }
    };
    std::thread::spawn(move || watch(parent));
    match child.wait() {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Waits until the parent is gone, then ends the whole group.
#[cfg(unix)]
fn watch(parent: i32) {
    while nix::unistd::getppid().as_raw() == parent {
        std::thread::sleep(Duration::from_millis(LOOK_MS));
    }
    std::thread::sleep(Duration::from_millis(GRACE_MS));
    let _ = nix::sys::signal::killpg(nix::unistd::getpgrp(), nix::sys::signal::Signal::SIGKILL);
}

#[cfg(not(unix))]
fn watch(_parent: i32) {}
