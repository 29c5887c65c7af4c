//! Cancels that meet something else at the same moment: the end of the run, a rework, an orchestrator that sleeps or dies.

use std::time::{Duration, Instant};

use oarlock::wire::{EventKind, Outcome, Role, RunId, RunStatus};
use serde_json::{Value, json};

use crate::cancel::control;
use crate::harness::{Ended, TestServer, Worker, ended, oarlock, until};
use crate::story::{
    Ear, SLOW_CAST, assert_one_of_everything, cast, cast_with, pid_of, plan_rule, record, result, script, slow_story,
    submit, take, text_rule,
};

/// A run is canceled at any moment of its short life: it is either canceled or complete, and everything of it says the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_and_the_end_of_the_run_agree() {
    const RUNS: u64 = 30;
    let server = TestServer::start().await;
    let _orchestrators = cast(&server, &slow_story(0), &[Role::Orchestrator, Role::Orchestrator]).await;
    let _workers = cast(&server, &slow_story(0), &SLOW_CAST).await;
    let one = async |number: u64| {
        let run = submit(&server, "make it").await;
        tokio::time::sleep(Duration::from_millis(number * 50)).await;
        let answer = control(&server, "cancel", json!(run.as_str())).await;
        assert!(["", "409"].contains(&answer.error_code().as_str()), "{}", answer.text());
        (run, answer.error_code().is_empty())
    };
    let told = futures::future::join_all((0..RUNS).map(one)).await;
    server.assert_nothing_left().await;
    for (run, canceled) in &told {
        let whole = result(&server, run).await;
        assert_eq!(matches!(whole.outcome, Outcome::Canceled { .. }), *canceled, "{whole:?}");
        let wanted = if *canceled { RunStatus::Canceled } else { RunStatus::Completed };
        until("the record to say the same", async || record(&server, run).await.status == wanted).await;
        let kept = record(&server, run).await;
        assert_eq!((kept.owner, kept.takeovers), (None, 0));
        let history = server.store.runs.history(run).await.unwrap();
        let replies = server.store.results.of_run(run).await.unwrap();
        assert_eq!(replies.len(), history.len() + 1, "every request has its one answer");
        if !canceled {
            assert_one_of_everything(&server, run).await;
        }
    }
    let canceled = told.iter().filter(|(_, canceled)| *canceled).count() as u64;
    println!("measured: {canceled} of {RUNS} runs were canceled in time");
    let later = server.bus.js.get_stream(server.bus.root.later_stream()).await.unwrap();
    assert_eq!(later.cached_info().state.messages, 0, "no alarm is left");
}

/// The answer of a run whose tasks were reworked is not the first attempt; it can be canceled before it is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_canceled_during_a_rework() {
    let server = TestServer::start().await;
    let review = |attempt: u32, verdict: &str| {
        let answer = json!({ "verdict": verdict, "findings": [{ "text": "it is short" }] });
        json!({ "match": { "role": "reviewer", "attempt": attempt }, "response": { "json": answer } })
    };
    let mut slow = text_rule(Role::Documenter, 2_000, "# It\n\nIt is made well.");
    slow["match"]["attempt"] = json!(2);
    let story = script(&[
        plan_rule(&[(Role::Documenter, &[]), (Role::Reviewer, &[1])]),
        slow,
        text_rule(Role::Documenter, 0, "# It"),
        review(1, "changes"),
        review(2, "approve"),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ]);
    let roles = [Role::Orchestrator, Role::Planner, Role::Documenter, Role::Reviewer, Role::Synthesizer];
    let _fleet = cast(&server, &story, &roles).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    events.event(EventKind::Started, Some(Role::Documenter), 2).await;
    let answer = control(&server, "cancel", json!(format!("{run}/answer"))).await;
    assert_eq!(answer.error_code(), "", "{}", answer.text());
    assert_eq!(crate::story::ended(&server, &run).await.status, RunStatus::Failed, "{}", answer.text());
    assert!(result(&server, &run).await.text().contains("canceled"), "{:?}", result(&server, &run).await);
    assert!(events.events(EventKind::Started).iter().all(|(_, event)| event.role != Some(Role::Synthesizer)));
    server.assert_nothing_left().await;
}

/// Two orchestrators, a documenter that takes so long, and a run that is in its hands.
async fn two_orchestrators(latency_ms: u64) -> (TestServer, Vec<Worker>, Vec<Worker>, Ear) {
    let server = TestServer::start().await;
    let orchestrators = cast(&server, &slow_story(0), &[Role::Orchestrator, Role::Orchestrator]).await;
    let workers = cast(&server, &slow_story(latency_ms), &SLOW_CAST).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    (server, orchestrators, workers, events)
}

async fn tool(server: &TestServer, arguments: &[&str]) -> Ended {
    let mut command = oarlock(server);
    command.args(arguments).args(["--server", server.url()]);
    ended(command, b"").await
}

/// The server gives every second question to the one that sleeps.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_does_not_depend_on_the_orchestrator_that_sleeps() {
    let (server, orchestrators, _workers, events) = two_orchestrators(60_000).await;
    let mut runs = Vec::new();
    for number in 1..=4 {
        runs.push(submit(&server, "make it").await);
        events.event(EventKind::Started, Some(Role::Documenter), number).await;
    }
    orchestrators[0].signal("STOP");
    let cancel = async |run: &RunId| {
        let begun = Instant::now();
        let done = tool(&server, &["cancel", "--kill", run.as_str()]).await;
        assert_eq!(done.code, Some(0), "after {:?}: {done:?}", begun.elapsed());
    };
    futures::future::join_all(runs.iter().map(cancel)).await;
    for run in &runs {
        assert!(matches!(result(&server, run).await.outcome, Outcome::Canceled { .. }));
    }
    orchestrators[0].signal("CONT");
    server.assert_nothing_left().await;
    for run in &runs {
        assert_eq!(record(&server, run).await.status, RunStatus::Canceled);
    }
}

/// Who sleeps has questions in its ear that were asked long ago. By then the run may be another generation's.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_was_meant_for_the_old_generation_does_not_stop_the_new_one() {
    let (server, orchestrators, mut workers, events) = two_orchestrators(60_000).await;
    let run = submit(&server, "make it").await;
    let (_, started) = events.event(EventKind::Started, Some(Role::Documenter), 1).await;
    orchestrators[0].signal("STOP");
    let cancel = async |_: u32| tool(&server, &["cancel", "--kill", run.as_str()]).await.code;
    let codes = futures::future::join_all((0..4).map(cancel)).await;
    assert_eq!(codes, [Some(0); 4]);
    take(&mut workers, pid_of(&started)).kill_9();
    let _documenter = cast(&server, &slow_story(2_000), &[Role::Documenter]).await;
    until("the next generation to begin", async || {
        let request = async_nats::Request::new().payload(run.to_string().into());
        let request = request.timeout(Some(Duration::from_millis(500)));
        let _ = server.bus.client.send_request("oarlock.control.retry", request).await;
        record(&server, &run).await.generation == 2
    })
    .await;
    events.event(EventKind::Started, Some(Role::Documenter), 2).await;
    orchestrators[0].signal("CONT");
    until("the new generation to end", async || record(&server, &run).await.status.terminal()).await;
    assert_eq!(record(&server, &run).await.status, RunStatus::Completed);
    server.assert_nothing_left().await;
}

/// An orchestrator that dies while it begins a generation is followed by another when it is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_died_on_the_way_is_asked_for_again() {
    for point in ["retry:before", "retry:after", "start:before", "start:after"] {
        let server = TestServer::start().await;
        let refusing = json!({ "match": { "role": "documenter", "attempt": 1 }, "fault": { "kind": "refusal" } });
        let mut story: Value = serde_json::from_str(&slow_story(0)).unwrap();
        story["rules"].as_array_mut().unwrap().insert(0, refusing);
        let story = story.to_string();
        let first = cast(&server, &slow_story(0), &[Role::Orchestrator]).await.remove(0);
        let _workers = cast(&server, &story, &SLOW_CAST).await;
        let events = Ear::on(&server, "oarlock.event.>").await;
        let run = submit(&server, "make it").await;
        assert_eq!(crate::story::ended(&server, &run).await.status, RunStatus::Failed);
        server.assert_nothing_left().await;
        first.kill_9();
        let mut dying =
            cast_with(&server, &slow_story(0), &[Role::Orchestrator], &[("OARLOCK_CRASH_AT", point)]).await.remove(0);
        let request = async_nats::Request::new().payload(run.to_string().into());
        let asked =
            server.bus.client.send_request("oarlock.control.retry", request.timeout(Some(Duration::from_secs(2))));
        assert!(asked.await.is_err(), "{point}: it died before it answered");
        assert_eq!(dying.exit_code().await, None, "{point}: {}", dying.log_text());
        let _next = cast(&server, &slow_story(0), &[Role::Orchestrator]).await;
        let again = control(&server, "retry", json!(run.as_str())).await;
        // With its message on the queue already, the run may be under way or done.
        let known = again.error_code().is_empty() || point == "start:after";
        assert!(known, "{point}: {}", again.text());
        until("the run to be completed", async || record(&server, &run).await.status == RunStatus::Completed).await;
        assert_eq!(record(&server, &run).await.generation, 2, "{point}");
        assert_eq!(events.events(EventKind::Started).len(), 5, "{point}: only what was not done");
        server.assert_nothing_left().await;
    }
}
