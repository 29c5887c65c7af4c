//! Logs, on standard error: for a service by default, for a person only on demand.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::args::Global;

/// Starts logging once per process. `RUST_LOG` wins over the flags. `screen` is true for a command that has the whole terminal:
/// there a line of log would be a stain.
pub(super) fn start(global: &Global, service: bool, screen: bool) {
    if screen && std::io::stderr().is_terminal() {
        return;
    }
    let level = match (global.quiet, global.verbose, service) {
        (true, _, _) => "error",
        (false, 0, false) => "oarlock=warn,error",
        (false, 0, true) => "oarlock=info,warn",
        (false, 1, _) => "oarlock=debug,info",
        (false, _, _) => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A second call, as in tests, keeps the first one.
    let _ = format.try_init();
}
