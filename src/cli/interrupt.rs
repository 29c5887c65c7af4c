//! Ctrl-C while a run is waited for: leave it to the fleet, or cancel it. On a terminal the person is asked.

use std::io::IsTerminal;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::args::OnInterrupt;
use super::cancel::cancel_run;
use super::exit::{Exit, ended};
use super::talk::say;
use super::typed::Line;
use crate::bus::Bus;
use crate::wire::RunId;

/// How long the question waits for an answer before the run is left to the fleet.
const ANSWER_WAIT_S_MAX: u64 = 60;

/// Deals with the run as was chosen, and returns the error that ends the command. `kept` says whether the run can be looked
/// at afterwards, `open` how what the person was being asked about is answered later: that is left as it is.
pub(super) async fn interrupted(
    bus: &Bus,
    run: &RunId,
    choice: Option<OnInterrupt>,
    kept: bool,
    open: Option<String>,
) -> anyhow::Error {
    if let (Some(how), None | Some(OnInterrupt::Ask), true) = (open, choice, kept) {
        return ended(Exit::Interrupted, format!("interrupted; run {run} waits for a person: {how}"));
    }
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let choice = choice.unwrap_or(if terminal { OnInterrupt::Ask } else { OnInterrupt::Detach });
    let cancel = match choice {
        OnInterrupt::Detach => false,
        OnInterrupt::Cancel => true,
        OnInterrupt::Ask => wants_cancel(run).await,
    };
    let look = if kept { format!("; run {run} is kept: oarlock show {run}") } else { String::new() };
    let ended_as = |what: String| ended(Exit::Interrupted, what);
    match cancel {
        false if choice == OnInterrupt::Detach && kept => {
            ended_as(format!("interrupted{look} (--on-interrupt cancel would have canceled it)"))
        }
        false => ended_as(format!("interrupted{look}")),
        true => match cancel_run(bus, run, None, Some("canceled by Ctrl-C")).await {
            Ok(()) if kept => ended_as(format!("run {run} is canceled; try again: oarlock retry {run}")),
            Ok(()) => ended_as(format!("run {run} is canceled")),
            Err(error) => ended_as(format!("interrupted, and the run could not be canceled: {error:#}{look}")),
        },
    }
}

/// Asks; a second Ctrl-C, silence, or anything but "c" leaves the run alone.
async fn wants_cancel(run: &RunId) -> bool {
    // Listened for before the question is seen: who answers at once is heard.
    let Ok(mut again) = signal(SignalKind::interrupt()) else { return false };
    let mut line = Line::read();
    say(&format!("run {run}: [d]etach: it goes on whenever a fleet serves it (default), or [c]ancel it?"));
    tokio::select! {
        answer = line.typed() => answer.is_some_and(|answer| answer.to_lowercase().starts_with('c')),
        _ = again.recv() => false,
        () = tokio::time::sleep(Duration::from_secs(ANSWER_WAIT_S_MAX)) => false,
    }
}
