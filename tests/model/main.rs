//! The model room against servers: hostile ones of our own, and `@copilotkit/aimock`, which nobody here wrote.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected should stop there"
)]

mod aimock;
#[path = "../common/aimock.rs"]
mod aimock_process;
mod broken;
mod choosing;
mod faults;
mod headers;
mod hostile;
mod json;
#[path = "../common/mountebank.rs"]
mod mountebank_process;
#[path = "../common/npm.rs"]
mod npm;
mod script;
mod streams;
mod support;
mod wires;
