//! How a command ends: one number per kind of end, and one message that says what to do next.

use std::process::ExitCode;

use crate::bus::BusError;
use crate::store::StoreError;

/// The ends that a script can tell apart. 0 is success, 2 also what the parser gives for wrong usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Denied = 4,
    Conflict = 5,
    Timeout = 7,
    Unreachable = 8,
    Interrupted = 130,
}

/// An error with the end that it leads to.
#[derive(Debug)]
pub(super) struct Ended {
    exit: Exit,
    message: String,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Ended {}

/// An error that ends the command with `exit`.
pub(super) fn ended(exit: Exit, message: impl Into<String>) -> anyhow::Error {
    Ended { exit, message: message.into() }.into()
}

/// Prints an error with its causes, once, and tells the exit code.
pub(super) fn report(error: &anyhow::Error) -> ExitCode {
    // Some of it may be a model's words; what would be commands to a terminal is left out.
    let text = format!("{error:#}").replace(|c: char| c.is_control() && c != '\n', " ");
    eprintln!("oarlock: {text}");
    ExitCode::from(code(error) as u8)
}

fn code(error: &anyhow::Error) -> Exit {
    if let Some(ended) = error.downcast_ref::<Ended>() {
        return ended.exit;
    }
    let store = error.downcast_ref::<StoreError>();
    let bus = match store {
        Some(StoreError::Bus(bus)) => Some(bus),
        Some(StoreError::BadName { .. } | StoreError::TooLarge { .. }) => return Exit::Usage,
        Some(StoreError::Contended { .. }) => return Exit::Conflict,
        _ => error.downcast_ref::<BusError>(),
    };
    match bus {
        Some(BusError::Denied { .. } | BusError::Forbidden { .. } | BusError::Credentials { .. }) => Exit::Denied,
        Some(BusError::Connect { .. } | BusError::TooOld { .. } | BusError::NoJetStream { .. }) => Exit::Unreachable,
        Some(BusError::Embedded { .. }) => Exit::Unreachable,
        _ => Exit::Failed,
    }
}
