//! Oarlock turns one goal in plain words into finished, checked work, by a fleet of LLM agents that talk over NATS: each
//! role an independent process on any machine, scaled by starting more of it, safe to kill at any moment.
//!
//! One idea carries everything: *every task is a message on its role's queue, and every task has exactly one durable
//! result*. A coder's job is a task of role `coder`; a whole run is a task of role `orchestrator`. So one worker loop
//! serves every role, one recovery rule covers every crash, and what a run does next is a pure function of stored facts.
//!
//! The rooms stand on floors, and imports go down only (`tests/tidy.rs` holds that):
//!
//! ```text
//!   7  cli            the user's tool, configuration, progress
//!   6  supervisor     starts and stops worker processes
//!   5  orchestrator   plan, fence, schedule, loop detection, doors of a run
//!   4  roles          what each role does with a task
//!   3  worker         the loop: pull, keep alive, handle, answer once, acknowledge
//!   2  store          runs, history, replies, files, shared state
//!   1  bus  model  sandbox  sources  tools    speak NATS; ask a model; run untrusted code; read pages and files; call MCP tools
//!   0  wire           what is said: types, subjects, limits
//! ```
//!
//! `ARCHITECTURE.md` has the invariants, `docs/protocol.md` the protocol for workers in other languages.

pub mod wire;

pub mod bus;
pub mod model;
pub mod sandbox;
pub mod sources;
pub mod tools;

pub mod store;

pub mod worker;

pub mod roles;

pub mod orchestrator;

pub mod supervisor;

pub mod cli;
