//! The user's tool: run goals, start fleets, look at runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    oarlock::cli::main()
}
