//! How a command ends: one number per kind of end, and one message that says what to do next.

use std::process::ExitCode;

use crate::bus::BusError;
use crate::store::StoreError;
use crate::wire::readable;

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
    OverBudget = 9,
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
    let text = readable(&format!("{error:#}"));
    let next = next_step(error).map(|next| format!("\n  next: {next}")).unwrap_or_default();
    eprintln!("oarlock: {text}{next}");
    ExitCode::from(Exit::of(error) as u8)
}

/// What to do about an error that does not say so itself.
fn next_step(error: &anyhow::Error) -> Option<&'static str> {
    if error.downcast_ref::<Ended>().is_some() {
        return None;
    }
    let bus = match error.downcast_ref::<StoreError>() {
        Some(StoreError::Bus(bus)) => Some(bus),
        Some(StoreError::Damaged { .. }) => {
            return Some("oarlock retry <run> makes it again; a backup of the store has it");
        }
        Some(StoreError::TooLarge { .. }) => return Some("make it smaller, or split it"),
        Some(
            StoreError::Unreadable { .. }
            | StoreError::BadName { .. }
            | StoreError::Contended { .. }
            | StoreError::Conflict { .. },
        ) => return None,
        None => error.downcast_ref::<BusError>(),
    };
    if let Some(bus) = bus {
        return match bus {
            BusError::Credentials { .. } => {
                Some("check that the file is there, is yours, and is what `nsc` or `nk` wrote")
            }
            BusError::TooMany { .. } => Some("oarlock gc removes finished runs"),
            BusError::Declare { .. } | BusError::Read { .. } | BusError::Core { .. } | BusError::Publish { .. } => {
                Some("oarlock doctor shows what the server lacks")
            }
            _ => None,
        };
    }
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>())?;
    match io.kind() {
        std::io::ErrorKind::PermissionDenied => Some("choose a place that you may use, or change its rights"),
        std::io::ErrorKind::StorageFull => Some("make room on the disk"),
        std::io::ErrorKind::NotFound => Some("check the path"),
        _ => Some("-v says more"),
    }
}

impl Exit {
    /// The end that an error leads to.
    pub(super) fn of(error: &anyhow::Error) -> Exit {
        if let Some(ended) = error.downcast_ref::<Ended>() {
            return ended.exit;
        }
        let store = error.downcast_ref::<StoreError>();
        let bus = match store {
            Some(StoreError::Bus(bus)) => Some(bus),
            Some(StoreError::BadName { .. } | StoreError::TooLarge { .. }) => return Exit::Usage,
            Some(StoreError::Contended { .. } | StoreError::Conflict { .. }) => return Exit::Conflict,
            _ => error.downcast_ref::<BusError>(),
        };
        match bus {
            Some(BusError::Denied { .. } | BusError::Forbidden { .. } | BusError::Credentials { .. }) => Exit::Denied,
            Some(BusError::Connect { .. } | BusError::TooOld { .. } | BusError::NoJetStream { .. }) => {
                Exit::Unreachable
            }
            Some(BusError::Embedded { .. }) => Exit::Unreachable,
            _ => Exit::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn an_error_that_says_nothing_of_it_gets_a_next_step() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let write = Err::<(), _>(denied).context("write x").unwrap_err();
        assert!(next_step(&write).is_some_and(|next| next.contains("rights")));
        let full = BusError::TooMany { stream: "S".into(), subject: "s".into(), max: 1 };
        let far = anyhow::Error::from(StoreError::from(full)).context("the server is named by a file");
        assert_eq!(next_step(&far), Some("oarlock gc removes finished runs"));
        assert_eq!(next_step(&ended(Exit::NotFound, "it says so itself; do that")), None);
    }
}
