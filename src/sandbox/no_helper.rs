//! Stands in for the helper where the sandbox does not exist.

use std::ffi::OsString;
use std::process::ExitCode;

/// Refuses: the sandbox needs Linux.
pub fn helper_main(_arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    eprintln!("the sandbox needs Linux; run the worker that tests code in a Linux container");
    ExitCode::FAILURE
}
