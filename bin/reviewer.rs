//! The reviewer as a service of its own; `oarlock worker reviewer` is the same.

use std::process::ExitCode;

use oarlock::wire::Role;

fn main() -> ExitCode {
    oarlock::cli::role_main(Role::Reviewer)
}
