//! What is said on standard error beside errors, nothing with `--quiet`; and how text looks on a terminal.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use super::args::Global;
use super::config::colours;
use crate::wire::acts;

static QUIET: AtomicBool = AtomicBool::new(false);
static COLOUR_OUT: AtomicBool = AtomicBool::new(false);
static COLOUR_ERR: AtomicBool = AtomicBool::new(false);

/// Takes over what the flags say.
pub(super) fn set(global: &Global) {
    QUIET.store(global.quiet, Ordering::Relaxed);
    COLOUR_OUT.store(colours(global.color, std::io::stdout().is_terminal()), Ordering::Relaxed);
    COLOUR_ERR.store(colours(global.color, std::io::stderr().is_terminal()), Ordering::Relaxed);
}

/// Says a line to the person at the terminal, if they want to hear it.
pub(super) fn say(line: &str) {
    if !is_quiet() {
        eprintln!("{}", plain(line));
    }
}

/// Says a line, with its first `mark` in colour.
pub(super) fn say_marked(line: &str, mark: &str) {
    if !is_quiet() {
        eprintln!("{}", on_err(&plain(line), mark));
    }
}

/// Text for standard error, with its first `mark` in colour if colours are wanted there.
pub(super) fn on_err(text: &str, mark: &str) -> String {
    marked(text, mark, COLOUR_ERR.load(Ordering::Relaxed))
}

/// The same for standard output.
pub(super) fn on_out(text: &str, mark: &str) -> String {
    marked(text, mark, coloured())
}

/// True when standard output gets colours.
pub(super) fn coloured() -> bool {
    COLOUR_OUT.load(Ordering::Relaxed)
}

fn marked(text: &str, mark: &str, colour: bool) -> String {
    let code = match mark {
        "✓" => "32",
        "✗" => "31",
        "!" => "33",
        "…" | "·" => "2",
        _ => return text.to_owned(),
    };
    match colour {
        true => text.replacen(mark, &format!("\u{1b}[{code}m{mark}\u{1b}[0m"), 1),
        false => text.to_owned(),
    }
}

/// Text for a terminal: what would be commands to it is shown as blanks, because much of what is told was written by a model.
pub(super) fn plain(text: &str) -> String {
    text.replace(|c: char| acts(c) && c != '\n' && c != '\t', " ")
}

/// True when nothing may be said.
pub(super) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}
