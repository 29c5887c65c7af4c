//! Coverage-guided fuzzing of the target `model`; tests/fuzz/README.md tells how to run it.

#![no_main]

#[macro_use]
#[path = "program.rs"]
mod program;

program!("model");
