//! The orchestrator that holds a run is struck at each step of it, and another one goes on.

use oarlock::bus::failpoint::Fault;
use oarlock::wire::{EventKind, Owner, Role, RunId, RunStatus, TaskId};
use serde_json::json;

use crate::case::{Case, Tale, Wake};
use crate::harness::{Worker, until};
use crate::picture::Picture;
use crate::stage::{Stage, struck};
use crate::story::{cast, kept_run, put, submit, wake};

/// Runs given to two orchestrators before the armed one must have had one.
const RUNS_MAX: usize = 20;

/// The tale with nobody struck.
pub async fn undisturbed(tale: Tale) -> Picture {
    let mut stage = Stage::of(tale).await;
    let holder = stage.orchestrator().await;
    let run = begin(&stage, tale, &holder).await;
    let _next = stage.orchestrator().await;
    stage.over(&run).await;
    finish(&mut stage, tale).await;
    stage.nothing_left().await;
    Picture::of(&stage.server, &run, &stage.workers).await
}

pub async fn play(case: &Case, undisturbed: &Picture) {
    let mut stage = Stage::of(case.tale).await;
    let (run, holder, other) = match case.tale {
        Tale::Beside => struck_beside(&stage, case).await,
        _ => {
            let (run, holder) = struck_holder(&stage, case).await;
            (run, holder, stage.orchestrator().await)
        }
    };
    if (case.fault, case.wake) == (Fault::Stop, Wake::Amid) {
        stage.amid(&other, &run).await;
        holder.signal("CONT");
    }
    stage.over(&run).await;
    finish(&mut stage, case.tale).await;
    match case.fault {
        Fault::Crash => stage.assert_like(&run, undisturbed).await,
        Fault::Stop => woken(&stage, case, &run, holder, undisturbed).await,
    }
}

/// The run is over; whoever slept is awake, or is woken now, and that changes nothing.
async fn woken(stage: &Stage, case: &Case, run: &RunId, mut holder: Worker, undisturbed: &Picture) {
    let before = stage.server.store.runs.record(run).await.unwrap().unwrap();
    if case.wake == Wake::Late {
        Picture::of(&stage.server, run, &stage.workers).await.assert_is(undisturbed);
        holder.signal("CONT");
    }
    if case.tale == Tale::Drain {
        assert_eq!(holder.exit_code().await, Some(0), "{}", holder.log_text());
        stage.idle(1).await;
    } else {
        stage.idle(2).await;
    }
    stage.assert_like(run, undisturbed).await;
    let now = stage.server.store.runs.record(run).await.unwrap().unwrap();
    assert_eq!((now.record, now.revision), (before.record, before.revision), "the record of a run that is over");
}

/// Gives runs to two orchestrators until the armed one is struck: the run that it held, itself, and the other one.
async fn struck_beside(stage: &Stage, case: &Case) -> (RunId, Worker, Worker) {
    let mut holder = stage.armed(case);
    holder.ready(&stage.server).await;
    let other = stage.orchestrator().await;
    let mut run = RunId::random();
    for _ in 0..RUNS_MAX {
        run = submit(&stage.server, "make it").await;
        let is_struck = || holder.log_text().contains(&case.last_words());
        until("a run to end, or its holder", async || is_struck() || stage.is_over(&run).await).await;
        if is_struck() {
            break;
        }
    }
    struck(&mut holder, case).await;
    (run, holder, other)
}

/// A run, and the process that was struck while it held it.
async fn struck_holder(stage: &Stage, case: &Case) -> (RunId, Worker) {
    let early = match case.tale {
        Tale::Takeover => Some(stage.armed_with(Some(("OARLOCK_CRASH_AT", "plan:before".into())))),
        _ => None,
    };
    let (run, mut holder) = match early {
        Some(mut first) => {
            let run = stage.submit("make it").await;
            assert_eq!(first.exit_code().await, None, "{}", first.log_text());
            (run, stage.armed(case))
        }
        None => {
            let holder = stage.armed(case);
            (begin(stage, case.tale, &holder).await, holder)
        }
    };
    struck(&mut holder, case).await;
    (run, holder)
}

/// Gives the run to the one orchestrator that is there, and lets it come to the tale's point.
async fn begin(stage: &Stage, tale: Tale, holder: &Worker) -> RunId {
    if tale == Tale::GivenUp {
        let run = kept_run(&stage.server, |record| {
            record.status = RunStatus::Working;
            record.takeovers = 5;
            record.owner = Some(Owner { seq: 0, at: 0, nonce: "a process that is gone".into() });
        })
        .await;
        put(&stage.server, &wake(&run, TaskId::over(1_000_000)), Vec::new()).await;
        return run;
    }
    let run = match tale {
        Tale::Gate => stage.submit_gated(json!({ "approve": "plan", "within_s": 2, "default": "approve" })).await,
        Tale::Asking => stage.submit_gated(json!({ "ask": true, "within_s": 2, "default": "approve" })).await,
        _ => stage.submit("make it").await,
    };
    if tale == Tale::Drain {
        stage.events.event(EventKind::Started, Some(Role::Documenter), 1).await;
        holder.signal("TERM");
    }
    run
}

/// What a tale needs after its run is over.
async fn finish(stage: &mut Stage, tale: Tale) {
    if tale == Tale::Timeout {
        // Its task lies in the queue until somebody comes who serves the role.
        let script = stage.told.script.clone();
        stage.workers.extend(cast(&stage.server, &script, &[Role::Documenter]).await);
    }
    if tale == Tale::GivenUp {
        let letters = stage.server.store.dead.list(None).await.unwrap();
        assert_eq!(letters.len(), 1, "{letters:?}");
    }
}
