//! What is said on standard error beside errors; nothing with `--quiet`.

use std::sync::atomic::{AtomicBool, Ordering};

static QUIET: AtomicBool = AtomicBool::new(false);

/// Says nothing from now on.
pub(super) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Says a line to the person at the terminal, if they want to hear it.
pub(super) fn say(line: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        eprintln!("{}", plain(line));
    }
}

/// Text for a terminal: what would be commands to it is shown as blanks, because much of what is told was written by a model.
pub(super) fn plain(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n' && c != '\t', " ")
}

/// True when nothing may be said.
pub(super) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}
