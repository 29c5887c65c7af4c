//! What the researcher may ask and what it makes of the answers. The address policy is tested with a resolver of the test's
//! own and a connector that records instead of connecting; pages come from Python's HTTP server on loopback. No test sends
//! a packet off this machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected should stop there"
)]

mod folders;
mod gather;
mod pages;
mod policy;
mod recorder;
#[path = "../common/pages.rs"]
mod server;
