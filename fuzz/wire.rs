//! Coverage-guided fuzzing of the target `wire`; tests/fuzz/README.md tells how to run it.

#![no_main]

#[macro_use]
#[path = "program.rs"]
mod program;

program!("wire");
