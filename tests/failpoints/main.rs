//! A process dies, or sleeps and wakes too late, at every step that changes what is stored: on each side of each write and
//! of each acknowledgement. The run must end as if nothing had been.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected should stop there"
)]

#[allow(dead_code, reason = "these helpers serve the fleet's tests too")]
#[path = "../fleet/harness.rs"]
mod harness;
#[allow(dead_code, clippy::type_complexity, reason = "these helpers serve the fleet's tests too")]
#[path = "../fleet/story.rs"]
mod story;

mod case;
mod doors;
mod expire;
mod holder;
mod picture;
mod shared;
mod sleepers;
mod stage;
mod tales;
mod worker;
