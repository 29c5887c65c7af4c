//! Oarlock.

pub mod bus;
pub mod cli;
pub mod model;
pub mod orchestrator;
pub mod roles;
pub mod sandbox;
pub mod store;
pub mod supervisor;
pub mod wire;
pub mod worker;
