//! The janitor is struck while it removes a run; another one comes to the end of it, and the first one, should it wake,
//! touches nothing that is newer.

use oarlock::bus::Point;
use oarlock::bus::failpoint::{Fault, Side};
use oarlock::wire::{EventKind, Role, RunId};

use crate::case::{Case, Tale, Wake};
use crate::harness::until;
use crate::stage::{Stage, messages, struck};

pub async fn play(case: &Case) {
    let stage = Stage::of(case.tale).await;
    let mut janitor = stage.armed(case);
    let run = stage.submit("make it").await;
    struck(&mut janitor, case).await;
    let _other = stage.orchestrator().await;
    removed(&stage, &run).await;
    if case.fault == Fault::Crash {
        return;
    }
    if case.wake == Wake::Late {
        janitor.signal("CONT");
    }
    // The same goal under the same key is the same run again.
    let again = stage.submit("make it").await;
    assert_eq!(again, run);
    if case.wake == Wake::Amid {
        stage.events.event(EventKind::Started, Some(Role::Documenter), 2).await;
        janitor.signal("CONT");
    }
    stage.events.event(EventKind::Finished, None, 2).await;
    removed(&stage, &run).await;
    let begun = crate::picture::begun(&run, &stage.workers);
    assert!(begun.len() == 4 && begun.values().all(|times| *times == 2), "two runs of four tasks: {begun:?}");
}

/// A door does not take a goal for a run that is about to go: nobody would ever begin it.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_run_is_being_removed_is_refused_until_it_is_gone() {
    let (point, side, fault) = (Point::Expire, Side::After, Fault::Stop);
    let case = Case { point, side, time: 1, tale: Tale::Expire, fault, wake: Wake::Late };
    let mut stage = Stage::of(case.tale).await;
    let mut janitor = stage.armed(&case);
    let run = stage.submit("make it").await;
    struck(&mut janitor, &case).await;
    // This one keeps what is over, so that nobody comes to the end of the removal.
    stage.told.settings = &[];
    let _other = stage.orchestrator().await;
    let refused = stage.insist("oarlock.submit", "make it").await;
    assert_eq!(refused.error_code(), "503", "{}", refused.text());
    assert!(refused.text().contains("is being removed"), "{}", refused.text());
    janitor.signal("CONT");
    until("the goal to be taken", async || {
        let answer = stage.insist("oarlock.submit", "make it").await;
        answer.error_code().is_empty() && answer.text() == run.as_str()
    })
    .await;
    stage.events.event(EventKind::Finished, None, 2).await;
}

/// Waits until nothing at all is kept of the run.
async fn removed(stage: &Stage, run: &RunId) {
    until(&format!("run {run} to be removed"), async || stage.server.store.runs.record(run).await.unwrap().is_none())
        .await;
    let root = &stage.server.bus.root;
    let buckets = [root.runs_bucket(), root.history_bucket(), root.state_bucket()].map(|name| format!("KV_{name}"));
    let streams = [root.tasks_stream(), root.later_stream(), root.results_stream(), root.blobs_stream()];
    for stream in streams.into_iter().chain(buckets) {
        until(&format!("{stream} to be empty"), async || messages(&stage.server, &stream).await == 0).await;
    }
}
