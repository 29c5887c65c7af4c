//! Floor 2: what is kept, by kind: runs, the requests sent, the replies, the files, the shared state, dead letters.
//!
//! Facts are written once and never changed: a goal, a plan revision, a request, a reply, a blob. Three things change, all
//! by compare-and-set: a run's record, with the run's owner as its only writer, shared state, and what tenants took of a day.

mod artifacts;
mod dead;
mod inputs;
mod janitor;
mod proposed;
mod results;
mod runs;
mod spent;
mod state;

use crate::bus::{Bus, BusError};
use crate::wire::{FilePath, RunId};

pub use artifacts::{Artifacts, FileSet};
pub use dead::DeadLetters;
pub use inputs::{Heard, Inputs, Listened};
pub use janitor::{Janitor, Swept};
pub use results::{Results, Stored};
pub use runs::{Accepted, HistoryEntry, Recorded, Runs};
pub use spent::{Book, Payer, Spent};
pub use state::{SharedState, StateEntry};

/// Something that the store could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The server could not be asked, or refused.
    #[error("failed to use the store")]
    Bus(#[from] BusError),
    /// What is kept is not what this version reads.
    #[error("{what} cannot be read: it is no {kind} of version {version}; is an older Oarlock at work here?", version = crate::wire::WIRE_VERSION)]
    Unreadable {
        /// The key or subject.
        what: String,
        /// What was expected.
        kind: &'static str,
    },
    /// A file's parts are missing or do not match its hash.
    #[error("file {path} is damaged or missing in the store: {why}")]
    Damaged {
        /// The file.
        path: FilePath,
        /// What was found.
        why: String,
    },
    /// A bound was hit.
    #[error("{what} is over {bound} {max}")]
    TooLarge {
        /// What.
        what: String,
        /// The bound's name.
        bound: &'static str,
        /// Its value.
        max: usize,
    },
    /// A name that cannot be a key.
    #[error("{name:?} is no name of shared state; use {rule}", rule = crate::wire::STATE_NAME_RULE)]
    BadName {
        /// The name.
        name: String,
    },
    /// Somebody else changed what was to be changed only as it was.
    #[error(
        "shared state {names} of run {run} is at revision {found}, not {expected}: somebody changed it; look at it again (oarlock \
         state get {run} --json)"
    )]
    Conflict {
        /// The run.
        run: RunId,
        /// The keys.
        names: String,
        /// The newest revision that they were to have, 0 for none.
        expected: u64,
        /// The one that they have.
        found: u64,
    },
    /// Too many others wrote the same keys.
    #[error("shared state {names} changed under each of {tries} tries; try again, or use a key of your own")]
    Contended {
        /// The keys.
        names: String,
        /// Tries made.
        tries: u32,
    },
}

/// All of a fleet's stores. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    /// Runs and the requests sent.
    pub runs: Runs,
    /// What people said about runs.
    pub inputs: Inputs,
    /// Replies.
    pub results: Results,
    /// Files.
    pub artifacts: Artifacts,
    /// Shared state.
    pub state: SharedState,
    /// What tenants took of a day.
    pub spent: Spent,
    /// What could not be done.
    pub dead: DeadLetters,
    /// Removes what is over.
    pub janitor: Janitor,
}

impl Store {
    /// The stores of the fleet that `bus` is connected to.
    pub fn new(bus: &Bus) -> Self {
        let runs = Runs::new(bus);
        Self {
            dead: DeadLetters::new(bus),
            inputs: Inputs::new(bus),
            janitor: Janitor::new(bus, &runs),
            runs,
            results: Results::new(bus),
            artifacts: Artifacts::new(bus),
            state: SharedState::new(bus),
            spent: Spent::new(bus),
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(payload: &[u8], what: &str, kind: &'static str) -> Result<T, StoreError> {
    let current = crate::wire::version_of(payload) == Some(crate::wire::WIRE_VERSION);
    let value = current.then(|| serde_json::from_slice(payload).ok()).flatten();
    value.ok_or_else(|| StoreError::Unreadable { what: what.to_owned(), kind })
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
