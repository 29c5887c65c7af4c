//! The process whose door has a request is struck; its caller asks again, with the same key, and somebody else answers.

use async_nats::HeaderMap;
use oarlock::bus::Point;
use oarlock::bus::failpoint::{Fault, Side};
use oarlock::wire::{EventKind, Role, RunId, RunStatus};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::case::{Case, Tale, Wake};
use crate::harness::{WAIT, until};
use crate::picture::{Picture, begun};
use crate::stage::{KEY, SLOTS, Stage, struck};
use crate::story::submit;

/// The tale with nobody struck.
pub async fn undisturbed(tale: Tale) -> Picture {
    let stage = Stage::of(tale).await;
    let _door = stage.orchestrator().await;
    let (run, subject, payload) = prepare(&stage, tale).await;
    let answer = stage.insist(subject, &payload).await;
    assert_eq!(answer.error_code(), "", "{}", answer.text());
    let run = run.unwrap_or_else(|| run_in(&answer.text()));
    done(&stage, tale, &run).await;
    stage.nothing_left().await;
    Picture::of(&stage.server, &run, &stage.workers).await
}

pub async fn play(case: &Case, undisturbed: &Picture) {
    let stage = Stage::of(case.tale).await;
    let mut door = stage.armed(case);
    door.ready(&stage.server).await;
    let (run, subject, payload) = prepare(&stage, case.tale).await;
    let first = patient(&stage, subject, &payload);
    struck(&mut door, case).await;
    let other = stage.orchestrator().await;
    let answer = stage.insist(subject, &payload).await;
    // Who asks for a retry again may come so late that there is nothing left to try.
    let fine: &[&str] = if case.tale == Tale::Retry { &["", "400", "409"] } else { &[""] };
    assert!(fine.contains(&answer.error_code().as_str()), "{}", answer.text());
    let run = run.unwrap_or_else(|| run_in(&answer.text()));
    if (case.fault, case.wake) == (Fault::Stop, Wake::Amid) {
        stage.amid(&other, &run).await;
        door.signal("CONT");
    }
    done(&stage, case.tale, &run).await;
    if case.fault == Fault::Crash {
        return stage.assert_like(&run, undisturbed).await;
    }
    let before = stage.server.store.runs.record(&run).await.unwrap().unwrap();
    if case.wake == Wake::Late {
        Picture::of(&stage.server, &run, &stage.workers).await.assert_is(undisturbed);
        door.signal("CONT");
    }
    let late = first.await.unwrap().expect("an answer for the first caller too");
    if case.tale == Tale::Submit {
        assert_eq!(run_in(&late), run, "both callers have the same run");
    }
    stage.idle(2).await;
    stage.assert_like(&run, undisturbed).await;
    let now = stage.server.store.runs.record(&run).await.unwrap().unwrap();
    assert_eq!((now.record, now.revision), (before.record, before.revision), "the record of a run that is over");
}

/// Brings a run to where the door is asked about it: the run, if there is one before, the subject and what is said there.
async fn prepare(stage: &Stage, tale: Tale) -> (Option<RunId>, &'static str, String) {
    match tale {
        Tale::Retry => {
            let run = stage.submit("make it").await;
            stage.over(&run).await;
            (Some(run.clone()), "oarlock.control.retry", run.to_string())
        }
        Tale::Cancel => {
            let run = stage.submit("make it").await;
            stage.events.event(EventKind::Started, Some(Role::Documenter), 1).await;
            (Some(run.clone()), "oarlock.control.cancel", run.to_string())
        }
        Tale::Answer => {
            let run = stage
                .submit_gated(serde_json::json!({ "approve": "plan", "within_s": 3600, "default": "approve" }))
                .await;
            stage.parked(&run).await;
            (Some(run.clone()), "oarlock.control.approve", json!({ "run": run, "by": "ann" }).to_string())
        }
        _ => {
            let file = json!({ "path": "notes.txt", "body": { "kind": "text", "text": "to be kept" } });
            (None, "oarlock.submit", json!({ "goal": "make it", "attachments": [file] }).to_string())
        }
    }
}

fn run_in(answer: &str) -> RunId {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
    answer["run"].as_str().expect("a run").parse().unwrap()
}

/// Waits until the run is over in the generation that the tale ends in.
async fn done(stage: &Stage, tale: Tale, run: &RunId) {
    let generation = if tale == Tale::Retry { 2 } else { 1 };
    until(&format!("generation {generation} of run {run} to end"), async || {
        let record = stage.server.store.runs.record(run).await.unwrap().unwrap().record;
        record.generation == generation && record.status.terminal()
    })
    .await;
}

/// A caller who waits for as long as it takes, and gets no second answer.
fn patient(stage: &Stage, subject: &'static str, payload: &str) -> JoinHandle<Option<String>> {
    let (client, payload) = (stage.server.bus.client.clone(), payload.to_owned());
    tokio::spawn(async move {
        let mut headers = HeaderMap::new();
        headers.insert("Oarlock-Key", KEY);
        let request = async_nats::Request::new().headers(headers).payload(payload.into()).timeout(Some(WAIT));
        let answer = client.send_request(subject, request).await.ok()?;
        Some(String::from_utf8_lossy(&answer.payload).into_owned())
    })
}

/// A cancel is a fact as soon as it is stored: nobody has to be told of it, and no model is asked for the run any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_canceled_before_it_began_never_begins() {
    let case = Case {
        point: Point::Cancel,
        side: Side::After,
        time: 1,
        tale: Tale::Cancel,
        fault: Fault::Crash,
        wake: Wake::Late,
    };
    let stage = Stage::of(case.tale).await;
    let mut door = stage.armed(&case);
    door.ready(&stage.server).await;
    // As many as it can hold, so that the next one waits in the queue.
    for number in 1..=SLOTS {
        submit(&stage.server, "make it").await;
        stage.events.event(EventKind::Started, Some(Role::Documenter), number).await;
    }
    let run = submit(&stage.server, "make it").await;
    let _caller = patient(&stage, "oarlock.control.cancel", run.as_str());
    struck(&mut door, &case).await;
    let _other = stage.orchestrator().await;
    stage.over(&run).await;
    let record = stage.server.store.runs.record(&run).await.unwrap().unwrap().record;
    assert_eq!((record.status, record.owner), (RunStatus::Canceled, None));
    assert_eq!(begun(&run, &stage.workers).len(), 0);
    assert!(stage.server.store.runs.history(&run).await.unwrap().is_empty(), "nothing was asked for it");
}
