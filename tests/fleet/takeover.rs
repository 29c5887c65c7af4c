//! What an orchestrator finds that takes over: tasks without a request in the history, attempts that nobody would send again,
//! and a stop that waits for what is under way.

use std::time::{Duration, Instant};

use oarlock::wire::subject::TaskSubject;
use oarlock::wire::{EventKind, FailureKind, Outcome, Role, RunStatus, Task, TaskId};
use serde_json::json;

use crate::harness::{TestServer, Worker, until};
use crate::proposals::{submit as submit_keyed, the_run};
use crate::story::{Ear, cast, cast_with, ended, findings, json_rule, plan_rule, result, script, submit, text_rule};

/// Only the write of the request was lost. What is reserved and shown is what its worker has, whatever the state is now.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_lost_is_made_again_of_the_task_that_is_there() {
    let server = TestServer::start().await;
    server.store.state.set(&the_run(), "port", json!(80)).await.unwrap();
    let story = script(&[
        plan_rule(&[(Role::Researcher, &[])]),
        json_rule(Role::Researcher, 0, &findings()),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ]);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let mut fleet = cast(&server, &story, &[Role::Orchestrator, Role::Planner]).await;
    let run = submit_keyed(&server).await;
    events.event(EventKind::Dispatched, Some(Role::Researcher), 1).await;
    fleet.remove(0).kill_9();
    let to = TaskSubject { role: Role::Researcher, run: run.clone(), task: TaskId::planned(1), attempt: 1 };
    let root = &server.bus.root;
    let kept = server.bus.last_from_leader(&root.tasks_stream(), &root.task(&to)).await.unwrap().expect("a task");
    let sent: Task = serde_json::from_slice(&kept.payload).unwrap();
    let history = server.bus.js.get_stream("KV_oarlock_history").await.unwrap();
    history.purge().filter(format!("$KV.oarlock_history.{run}.t1.1")).await.unwrap();
    server.store.state.set(&run, "port", json!(81)).await.unwrap();

    let _next = cast(&server, &story, &[Role::Orchestrator]).await;
    let request = async || {
        let history = server.store.runs.history(&run).await.unwrap();
        history.into_iter().map(|entry| entry.message).find(|message| message.metadata.task == sent.id)
    };
    until("the request to be there again", async || request().await.is_some()).await;
    let request = request().await.unwrap();
    assert_eq!((&request.state, request.metadata.budget), (&sent.state, sent.budget), "what its worker has");
    assert!(sent.budget.is_some() && sent.state.seen[0].json.as_deref() == Some("80"), "{sent:?}");
    let _workers = cast(&server, &story, &[Role::Researcher, Role::Synthesizer]).await;
    assert_eq!(ended(&server, &run).await.status, RunStatus::Completed, "{:?}", result(&server, &run).await);
}

/// Two tasks wait for each other's checks, so both are sent; when one is done only its check is wanted. The other one is under
/// way all the same: whoever takes over counts it and declares its time over, long before that check has answered.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_and_not_wanted_any_more_is_watched_after_a_takeover() {
    let server = TestServer::start().await;
    let (code, test) = ("x = 1\n", "from made import x\n\ndef test_x():\n    assert x\n");
    let code = json!({ "files": [{ "path": "made.py", "content": code }, { "path": "test_made.py", "content": test }],
        "deleted": [], "summary": "it is written" });
    let story = script(&[
        plan_rule(&[
            (Role::Coder, &[]),
            (Role::Researcher, &[1]),
            (Role::Documenter, &[1]),
            (Role::Reviewer, &[2]),
            (Role::Reviewer, &[3]),
            (Role::Qa, &[1]),
        ]),
        json_rule(Role::Coder, 0, &code),
        json_rule(Role::Researcher, 0, &findings()),
        json_rule(Role::Reviewer, 30_000, &json!({ "verdict": "approve", "findings": [] })),
    ]);
    let settings = server.file("settings.toml", "[timeout_s]\ndocumenter = 5\n");
    let settings = ["--config", settings.to_str().unwrap()];
    let first = server.worker_with(Role::Orchestrator, &story, &settings).await;
    let roles = [Role::Planner, Role::Coder, Role::Researcher, Role::Reviewer, Role::Qa];
    let _workers = cast(&server, &story, &roles).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    events.event(EventKind::Started, Some(Role::Reviewer), 1).await;
    first.kill_9();
    let killed = Instant::now();
    let _next = server.worker_with(Role::Orchestrator, &story, &settings).await;
    assert_eq!(ended(&server, &run).await.status, RunStatus::Failed);
    let failure = result(&server, &run).await.failure().expect("a failure").clone();
    assert_eq!(failure.kind, FailureKind::Timeout, "{failure}");
    assert!(failure.message.contains("documenter did not answer task t3"), "{failure}");
    assert!(killed.elapsed() < Duration::from_secs(15), "it waited for the reviewer: {:?}", killed.elapsed());
}

/// One message too many: nothing new is sent, and what is under way and paid for is not thrown away; also after a takeover.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_for_exchanges_waits_for_what_is_under_way() {
    for kill in [false, true] {
        let server = TestServer::start().await;
        let mut slow = json_rule(Role::Researcher, 5_000, &findings());
        slow["match"]["task_id"] = "t1".into();
        let story = script(&[
            plan_rule(&[(Role::Researcher, &[]), (Role::Researcher, &[]), (Role::Documenter, &[2])]),
            slow,
            json_rule(Role::Researcher, 0, &findings()),
        ]);
        let settings = [("OARLOCK_EXCHANGES_MAX", "6")];
        let mut orchestrators = cast_with(&server, &story, &[Role::Orchestrator], &settings).await;
        let _workers = cast(&server, &story, &[Role::Planner, Role::Researcher, Role::Documenter]).await;
        let events = Ear::on(&server, "oarlock.event.>").await;
        let run = submit(&server, "make it").await;
        events.event(EventKind::Completed, Some(Role::Researcher), 1).await;
        if kill {
            orchestrators.drain(..).for_each(Worker::kill_9);
            orchestrators = cast_with(&server, &story, &[Role::Orchestrator], &settings).await;
        }
        assert_eq!(ended(&server, &run).await.status, RunStatus::Failed);
        let failure = result(&server, &run).await.failure().expect("a failure").clone();
        assert_eq!(failure.kind, FailureKind::MaxIterations, "{failure}");
        assert!(failure.message.contains("exchanges_max is 6"), "{failure}");
        let to = TaskSubject { role: Role::Researcher, run: run.clone(), task: TaskId::planned(1), attempt: 1 };
        let paid = server.store.results.get(&to).await.unwrap().expect("a reply");
        assert!(matches!(paid.outcome, Outcome::Completed { .. }), "it was thrown away: {paid:?}");
        assert_eq!(server.store.runs.history(&run).await.unwrap().len(), 3, "nothing new was sent");
        server.assert_nothing_left().await;
        drop(orchestrators);
    }
}
