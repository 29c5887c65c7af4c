//! Every run ends: by its limit on exchanges, on rework, on time, or because it goes in circles; and it says which.

use std::time::Duration;

use oarlock::bus::presence;
use oarlock::wire::{EventKind, Failure, FailureKind, Outcome, Role, RunId, RunStatus};
use serde_json::{Value, json};

use crate::harness::TestServer;
use crate::story::{
    Ear, SLOW_CAST, cast, cast_with, ended, json_rule, plan_rule, result, script, slow_story, submit, text_rule,
};

async fn failure(server: &TestServer, run: &RunId) -> Failure {
    assert_eq!(ended(server, run).await.status, RunStatus::Failed);
    result(server, run).await.failure().expect("a failure").clone()
}

/// How often the run asked a role.
async fn asked(server: &TestServer, run: &RunId, role: Role) -> usize {
    let history = server.store.runs.history(run).await.unwrap();
    history.iter().filter(|entry| entry.message.to.to_string() == role.name()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_over_its_exchanges_fails_before_the_next_message() {
    let server = TestServer::start().await;
    let _orchestrator =
        cast_with(&server, &slow_story(0), &[Role::Orchestrator], &[("OARLOCK_EXCHANGES_MAX", "4")]).await;
    let _workers = cast(&server, &slow_story(0), &SLOW_CAST).await;
    let run = submit(&server, "make it").await;
    let failure = failure(&server, &run).await;
    assert_eq!(failure.kind, FailureKind::MaxIterations);
    assert!(failure.message.contains("Max iterations"), "{failure}");
    let history = server.store.runs.history(&run).await.unwrap();
    assert_eq!(history.len(), 2, "two requests and two replies are four exchanges");
    server.assert_nothing_left().await;
    assert!(
        failure.message.contains("exchanges_max is 4"),
        "the limit in the error is the one that was set: {failure}"
    );
    assert!(!failure.message.contains("--max-exchanges") || help().contains("--max-exchanges"), "{failure}");
}

/// What `oarlock run --help` says.
fn help() -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_oarlock")).args(["run", "--help"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A coder who writes tests that hold or do not, with words of its own for each attempt or always the same.
fn coder(passes: bool, attempts: Option<u32>) -> Vec<Value> {
    let answer = |number: u32| {
        let test = format!(
            "from made import x\n\ndef test_x():\n    assert (x == {number}) == {passes}\n",
            passes = if passes { "True" } else { "False" }
        );
        json!({
            "files": [{ "path": "made.py", "content": format!("x = {number}\n") }, { "path": "test_made.py", "content": test }],
            "deleted": [],
            "summary": format!("version {number}"),
        })
    };
    let Some(attempts) = attempts else {
        return vec![json_rule(Role::Coder, 0, &answer(1))];
    };
    let rule = |attempt: u32| {
        let mut rule = json_rule(Role::Coder, 0, &answer(attempt));
        rule["match"]["attempt"] = attempt.into();
        rule
    };
    (1..=attempts).map(rule).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coder_and_a_qa_that_never_agree_end_at_the_rework_bound() {
    let server = TestServer::start().await;
    let rules = [vec![plan_rule(&[(Role::Coder, &[]), (Role::Qa, &[1])])], coder(false, Some(2))].concat();
    let story = script(&rules);
    let _orchestrator = cast_with(&server, &story, &[Role::Orchestrator], &[("OARLOCK_REWORK_MAX", "1")]).await;
    let _workers = cast(&server, &story, &[Role::Planner, Role::Coder, Role::Qa]).await;
    let run = submit(&server, "make it").await;
    let failure = failure(&server, &run).await;
    assert_eq!(failure.kind, FailureKind::ReworkExhausted, "{failure}");
    assert!(failure.message.contains("rework_max 1") && failure.message.contains("t1"), "{failure}");
    assert_eq!((asked(&server, &run, Role::Coder).await, asked(&server, &run, Role::Qa).await), (2, 2));
    for (to, reply) in server.store.results.of_run(&run).await.unwrap() {
        let passed = reply.report().and_then(oarlock::wire::Report::passed);
        assert!(to.role != Role::Qa || passed == Some(false), "pytest really failed: {reply:?}");
    }
    server.assert_nothing_left().await;
}

/// With the same words again and again there is no need to wait for the bound.
#[tokio::test(flavor = "multi_thread")]
async fn a_coder_and_a_reviewer_that_repeat_themselves_are_stopped() {
    let server = TestServer::start().await;
    let verdict = json!({ "verdict": "changes", "findings": [{ "file": "made.py", "text": "I do not like it" }] });
    let plan = plan_rule(&[(Role::Coder, &[]), (Role::Qa, &[1]), (Role::Reviewer, &[1])]);
    // It answers each finding, in the same words each time.
    let answering = |attempt: u32| {
        let mut rule = coder(true, None).remove(0);
        rule["match"]["attempt"] = attempt.into();
        let finding = format!("t3.{}.f1", attempt - 1);
        rule["response"]["json"]["answers"] =
            json!([{ "finding": finding, "verdict": "rejected", "why": "it is good" }]);
        rule
    };
    let answers = vec![plan, answering(2), answering(3), json_rule(Role::Reviewer, 0, &verdict)];
    let story = script(&[answers, coder(true, None)].concat());
    let roles = [Role::Orchestrator, Role::Planner, Role::Coder, Role::Qa, Role::Reviewer];
    let _fleet = cast_with(&server, &story, &roles, &[("OARLOCK_REWORK_MAX", "9")]).await;
    let run = submit(&server, "make it").await;
    let failure = failure(&server, &run).await;
    assert_eq!(failure.kind, FailureKind::RepeatedPattern, "{failure}");
    assert!(failure.message.contains("Repeated pattern") && failure.message.contains("period 3"), "{failure}");
    let asked = (asked(&server, &run, Role::Coder).await, asked(&server, &run, Role::Reviewer).await);
    assert_eq!(asked, (3, 2), "the third review would have got what the second one got");
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_nobody_serves_is_named_when_its_time_is_over() {
    let server = TestServer::start().await;
    let _orchestrator = cast_with(&server, &slow_story(0), &[Role::Orchestrator], &[("OARLOCK_TIMEOUT_S", "3")]).await;
    let _workers = cast(&server, &slow_story(0), &[Role::Planner, Role::Researcher, Role::Synthesizer]).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let started = std::time::Instant::now();
    let answer = server.request("oarlock.run", "make it").await;
    println!("measured: timeout of 3 s declared after {} ms", started.elapsed().as_millis());
    assert!((3..6).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    assert_eq!((answer.header("Oarlock-Status").as_str(), answer.error_code().as_str()), ("failed", "504"));
    let run: RunId = answer.header("Oarlock-Run").parse().unwrap();
    let failure = failure(&server, &run).await;
    assert_eq!(failure.kind, FailureKind::Timeout);
    for part in ["documenter", "3 s", "oarlock worker documenter"] {
        assert!(failure.message.contains(part) && answer.text().contains(part), "{failure}");
    }
    // The task still lies in the queue, and it has its answer: whoever comes later takes it away and does not do it.
    assert_eq!(presence(&server.bus, Role::Documenter).await.unwrap().unwrap().waiting, 1);
    let _documenter = cast(&server, &slow_story(0), &[Role::Documenter]).await;
    server.assert_nothing_left().await;
    let begun: Vec<_> = events.events(EventKind::Started).into_iter().filter_map(|(_, event)| event.role).collect();
    assert!(!begun.contains(&Role::Documenter), "a task that was over was begun: {begun:?}");
}

/// A task of a run that failed elsewhere is answered, so that its worker stops and nobody asks for it again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_run_had_on_its_way_is_canceled() {
    let server = TestServer::start().await;
    let broken = json!({ "match": { "role": "researcher" }, "fault": { "status": 400 } });
    let story = script(&[
        plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[])]),
        broken,
        text_rule(Role::Documenter, 20_000, "# It"),
    ]);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let workers = cast(&server, &story, &[Role::Orchestrator, Role::Planner, Role::Documenter]).await;
    let run = submit(&server, "make it").await;
    events.event(EventKind::Started, Some(Role::Documenter), 1).await;
    let _researcher = cast(&server, &story, &[Role::Researcher]).await;
    let failure = failure(&server, &run).await;
    assert!(failure.message.contains("researcher failed task"), "{failure}");
    let ended = std::time::Instant::now();
    server.assert_nothing_left().await;
    let replies = server.store.results.of_run(&run).await.unwrap();
    let of_documenter = replies.iter().find(|(to, _)| to.role == Role::Documenter).map(|(_, reply)| &reply.outcome);
    assert!(matches!(of_documenter, Some(Outcome::Canceled { .. })), "{of_documenter:?}");
    assert!(ended.elapsed() < Duration::from_secs(8), "the documenter went on for {:?}", ended.elapsed());
    drop(workers);
}
