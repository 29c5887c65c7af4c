//! The fleet on a machine that fails it: a power cut, a full disk, a wrong clock, rights that are missing, files that are
//! damaged. Real servers and real role processes; the file systems are made by the tests and removed by them.
//!
//! What a machine does not allow is said on standard error: `loop-mount`, `tmpfs`, `faketime`, `go`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected should stop there"
)]

#[allow(dead_code, reason = "shared with the fleet's tests, which use all of it")]
#[path = "../fleet/harness.rs"]
mod harness;
#[allow(dead_code, reason = "shared with the fleet's tests, which use all of it")]
#[path = "../fleet/story.rs"]
mod story;

mod host;

mod clock;
mod damage;
mod default_address;
mod disk;
mod power;
mod rights;
mod week;
