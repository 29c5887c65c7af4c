//! Coverage-guided fuzzing of the target `plan`; tests/fuzz/README.md tells how to run it.

#![no_main]

#[macro_use]
#[path = "program.rs"]
mod program;

program!("plan");
