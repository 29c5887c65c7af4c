//! Oarlock.

pub mod wire;
