//! Coverage-guided fuzzing of the target `role`; tests/fuzz/README.md tells how to run it.

#![no_main]

#[macro_use]
#[path = "program.rs"]
mod program;

program!("role");
