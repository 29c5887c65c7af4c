//! The fleet on a cluster: three real nats-servers with three copies of every stream, each in a network namespace of its
//! own, and real role processes, some of them on hosts that can be cut off. Servers are killed, links go down, a quorum
//! is lost; afterwards every accepted run is complete, and nothing was done twice in effect.
//!
//! It needs root and `ip`. The tests run one after the other, because three servers that write every message to the
//! disk before they acknowledge it are all that a small machine can carry.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::type_complexity,
    reason = "a test that meets the unexpected should stop there"
)]

mod callers;
mod copies;
mod harness;
mod hosts;
mod leader;
mod net;
mod nodes;
#[path = "../fleet/harness.rs"]
#[allow(dead_code, reason = "its server is a single one; only its tools are used here")]
mod one_server;
mod quorum;
#[path = "../fleet/story.rs"]
#[allow(dead_code, reason = "it is shared with the tests of a single server, which use all of it")]
mod story;
