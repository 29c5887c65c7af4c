//! Runs code that a model wrote, so that it can be tested and yet do no harm.
//!
//! Protected, in tier `bwrap` and tier `landlock`: files outside the throw-away workspace (no reads of private files,
//! no writes at all), environment variables and keys of the worker, other processes, the network (TCP, UDP, unix
//! sockets of the host, vsock), the kernel's wider surface (namespaces, io_uring, keyrings, bpf), and the machine's
//! memory, processor, disk and process table. Every run happens in a helper process (`oarlock sandbox-exec`, see
//! [`helper_main`]) that starts with an empty environment, never runs as root and never holds an API key.
//!
//! Not protected: the *verdict* against an adversary. Tests and code under test share one Python process, so malicious
//! code can forge a report that looks like a pass. A pass is evidence about code, not proof against its author. Nor is
//! the kernel protected against an unknown hole in itself; no sandbox without a virtual machine can promise that.
//! Memory that the kernel holds for a process (socket buffers, file names) is bounded only by the number of its
//! objects.
//!
//! Tier `landlock` forbids more than it must: local servers, `multiprocessing` and new sessions do not work there; such
//! failures are marked `limited`. Its disk limit is a watchdog, not a wall. Tier `off` protects nothing.

#![cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "its only user is the helper"))]

mod access;
mod error;
mod fault;
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "walls are made of system calls; each one says why it is sound")]
mod helper;
#[cfg(not(target_os = "linux"))]
#[path = "no_helper.rs"]
mod helper;
mod invoke;
mod job;
mod junit;
mod limits;
mod names;
mod packages;
mod python;
mod record;
mod result;
mod run_directory;
mod runner;
mod text;
mod tier;
mod verdict;

pub use error::{Attempt, SandboxError};
pub use fault::{Faulty, code_under_test, with_fault};
pub use helper::helper_main;
pub use limits::Limits;
pub use python::Python;
pub use result::{FailedTest, Outcome, TestRun};
pub use runner::Sandbox;
pub use tier::{Choice, Tier, UnknownChoice};

/// User and group that untrusted code runs as when the worker is root: `nobody` everywhere.
const UNPRIVILEGED_ID: u32 = 65_534;

/// First argument of our executable that leads to [`helper_main`].
const HELPER_VERB: &str = "sandbox-exec";
