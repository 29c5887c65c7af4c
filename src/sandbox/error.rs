//! Why the sandbox could not give a verdict. Code that fails its tests is no error but a
//! [`TestRun`](super::TestRun).

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::Tier;

/// A failure of the sandbox itself.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No tier that was asked for works on this machine.
    #[error("find a working sandbox: {}", list(.attempts))]
    Unavailable {
        /// Every tier tried, and why it was refused.
        attempts: Vec<Attempt>,
    },
    /// No candidate interpreter can be executed by the user that untrusted code runs as.
    #[error(
        "find a Python that user {user} can execute; tried {tried}: install one outside private home directories \
         (apt-get install python3) or name it in the configuration"
    )]
    NoPython {
        /// The user who must be able to execute it.
        user: String,
        /// Candidates, each with the reason.
        tried: String,
    },
    /// The cache directory cannot be read by the user that untrusted code runs as.
    #[error("use the cache {cache}: {reason}; choose a cache directory such as /var/cache/oarlock with mode 0755")]
    CacheUnreachable {
        /// The directory asked for.
        cache: PathBuf,
        /// What stands in the way.
        reason: String,
    },
    /// pytest could neither be installed into the cache nor found installed.
    #[error(
        "prepare pytest in {cache}: {detail}; install pip (apt-get install python3-pip), allow it to reach a package \
         index, or install pytest itself (apt-get install python3-pytest)"
    )]
    Pytest {
        /// The cache directory.
        cache: PathBuf,
        /// The last words of pip.
        detail: String,
    },
    /// A file name that could leave the workspace.
    #[error("write {path:?} into the workspace: {reason}; use a relative path without `..`")]
    RefusedPath {
        /// The name as given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More input than the workspace may hold.
    #[error(
        "fill the workspace: {files} files with {bytes} bytes exceed {files_max} files or {bytes_max} bytes; send less"
    )]
    TooMuchInput {
        /// Files given.
        files: usize,
        /// Bytes given.
        bytes: u64,
        /// Files allowed.
        files_max: usize,
        /// Bytes allowed.
        bytes_max: u64,
    },
    /// A file or directory of ours could not be used.
    #[error("{operation} {path}: check that it exists, is writable and has space")]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The helper process could not be started.
    #[error("start the sandbox helper {helper}: check that it is our own executable")]
    HelperStart {
        /// Its path.
        helper: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The helper process ended without a record, or not at all.
    #[error("read the record of the sandbox helper: {detail}; this is a defect, please report it")]
    HelperRecord {
        /// What arrived instead.
        detail: String,
    },
    /// The wall could not be built, so nothing was executed.
    #[error("set up the {tier} sandbox: {detail}; {}", .tier.advice())]
    Setup {
        /// The tier.
        tier: Tier,
        /// What failed.
        detail: String,
    },
}

/// One tier that was tried and refused.
#[derive(Debug)]
pub struct Attempt {
    /// The tier.
    pub tier: Tier,
    /// Why it is not used.
    pub reason: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} [{}]", self.tier, self.reason, self.tier.advice())
    }
}

fn list(attempts: &[Attempt]) -> String {
    attempts.iter().map(Attempt::to_string).collect::<Vec<_>>().join("; ")
}
