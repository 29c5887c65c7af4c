//! Oarlock.

pub mod bus;
pub mod store;
pub mod wire;
pub mod worker;
