//! A run that is over is tried again: what was done is kept, the rest is done again under a new generation, and whoever
//! still holds the old one changes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use oarlock::bus::presence;
use oarlock::wire::subject::TaskSubject;
use oarlock::wire::{EventKind, Outcome, Plan, Role, RunId, RunRecord, RunStatus, TaskId};
use serde_json::{Value, json};

use crate::cancel::control;
use crate::harness::{Ended, TestServer, Worker, ended, oarlock, until};
use crate::story::{
    Ear, SLOW_CAST, assert_one_content_each, cast, findings, json_rule, pid_of, plan_rule, record, script, slow_story,
    submit, take, text_rule,
};

/// A documenter whose model refuses its first attempt, after so long.
fn refused(latency_ms: u64) -> String {
    let response = json!({ "content": "no", "latency_ms": latency_ms });
    script(&[
        plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]),
        json_rule(Role::Researcher, 0, &findings()),
        json!({ "match": { "role": "documenter", "attempt": 1 }, "response": response, "fault": { "kind": "refusal" } }),
        text_rule(Role::Documenter, latency_ms, "# It\n\nIt is made."),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ])
}

/// A whole fleet with a script, and an ear on its events.
async fn fleet(story: &str) -> (TestServer, Vec<Worker>, Ear) {
    let server = TestServer::start().await;
    let workers = cast(&server, story, &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    (server, workers, events)
}

/// A run that ends like this.
async fn over(server: &TestServer, status: RunStatus) -> RunId {
    let run = submit(server, "make it").await;
    assert_eq!(crate::story::ended(server, &run).await.status, status);
    run
}

/// `oarlock retry <run> …`.
async fn retry(server: &TestServer, run: &RunId, arguments: &[&str], editor: &str) -> Ended {
    let mut command = oarlock(server);
    // What a failed edit keeps goes into the test's directory.
    command.env("VISUAL", "").env("EDITOR", editor).env("TMPDIR", server.folder.path());
    command.args(["retry", run.as_str(), "--server", server.url()]).args(arguments);
    ended(command, b"").await
}

/// Roles that began a task, in their order, the first `before` left out.
fn begun(events: &Ear, before: usize) -> Vec<Role> {
    events.events(EventKind::Started).into_iter().skip(before).map(|(_, event)| event.role.unwrap()).collect()
}

/// The newest generation is complete, each exchange is in the history once and has its answer.
async fn assert_complete(server: &TestServer, run: &RunId, generation: u32) -> RunRecord {
    let kept = record(server, run).await;
    assert_eq!((kept.status, kept.generation, &kept.owner), (RunStatus::Completed, generation, &None));
    let whole = server.store.results.get(&TaskSubject::of_run(run, generation)).await.unwrap().expect("a result");
    assert!(matches!(&whole.outcome, Outcome::Completed { content, .. } if content == "It is made."), "{whole:?}");
    let history = server.store.runs.history(run).await.unwrap();
    let asked: BTreeSet<_> =
        history.iter().map(|entry| (entry.message.metadata.task.clone(), entry.message.metadata.attempt)).collect();
    assert_eq!(asked.len(), history.len(), "history has each exchange once");
    let replies = server.store.results.of_run(run).await.unwrap();
    let answered: BTreeSet<_> = replies
        .iter()
        .filter(|(to, _)| to.role != Role::Orchestrator)
        .map(|(to, _)| (to.task.clone(), to.attempt))
        .collect();
    assert_eq!(answered, asked, "each request has its one answer");
    server.assert_nothing_left().await;
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_goes_on_from_where_it_failed() {
    let (server, _fleet, events) = fleet(&refused(0)).await;
    let run = over(&server, RunStatus::Failed).await;
    assert_eq!(begun(&events, 0), [Role::Planner, Role::Researcher, Role::Documenter]);
    let again = retry(&server, &run, &[], "").await;
    assert!(again.code == Some(0) && again.out.contains("It is made."), "{again:?}");
    assert_eq!(begun(&events, 3), [Role::Documenter, Role::Synthesizer], "what was done is not done again");
    let kept = assert_complete(&server, &run, 2).await;
    assert_eq!(kept.plan, 1, "the plan is the same");
    let first = server.store.results.get(&TaskSubject::of_run(&run, 1)).await.unwrap().unwrap();
    assert!(first.failure().is_some(), "the old result stays: {first:?}");

    let nothing = retry(&server, &run, &[], "").await;
    assert!(nothing.code == Some(2) && nothing.err.contains("--from"), "{nothing:?}");
    assert_eq!(retry(&server, &RunId::random(), &[], "").await.code, Some(3));
    assert_eq!(record(&server, &run).await, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_begins_again_from_a_task_that_is_named() {
    let (server, _fleet, events) = fleet(&slow_story(0)).await;
    let run = over(&server, RunStatus::Completed).await;
    let (all, mut before) = ([Role::Planner, Role::Researcher, Role::Documenter, Role::Synthesizer], 4);
    for (generation, from, expected, plan) in
        [(2, "t1", &all[1..], 1), (3, "answer", &all[3..], 1), (4, "plan", &all[..], 7), (5, "t2", &all[2..], 7)]
    {
        let again = retry(&server, &run, &["--from", from], "").await;
        assert!(again.code == Some(0) && again.out.contains("It is made."), "{from}: {again:?}");
        assert_eq!(begun(&events, before), expected, "{from}");
        before += expected.len();
        assert_eq!(assert_complete(&server, &run, generation).await.plan, plan, "{from}");
    }
    let unknown = retry(&server, &run, &["--from", "t9"], "").await;
    assert!(unknown.code == Some(2) && unknown.err.contains("there are plan, t1, t2, answer"), "{unknown:?}");
    assert_eq!(record(&server, &run).await.generation, 5);
}

/// The plan that is in force.
async fn plan(server: &TestServer, run: &RunId) -> Plan {
    let revision = record(server, run).await.plan;
    server.store.runs.plan(run, revision).await.unwrap().expect("a plan")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_may_change_the_plan_first() {
    let (server, _fleet, events) = fleet(&slow_story(0)).await;
    let run = over(&server, RunStatus::Completed).await;
    let changed = retry(&server, &run, &["--edit"], "sed -i 's/part 2/part two/'").await;
    assert_eq!(changed.code, Some(0), "{changed:?}");
    assert_eq!(begun(&events, 4), [Role::Documenter, Role::Synthesizer], "what was not changed is kept");
    let edited = plan(&server, &run).await;
    let words: Vec<_> = edited.tasks.iter().map(|task| (task.id.as_str(), task.description.as_str())).collect();
    assert_eq!(words, [("t1", "part 1"), ("t3", "part two")], "a changed task has a new name");
    assert_eq!(assert_complete(&server, &run, 2).await.plan, 4);

    let task = r#"{"id": "t8", "description": "part 3", "role": "researcher", "depends_on": ["t1"]}, "#;
    let added = retry(&server, &run, &["--edit"], &format!("sed -i 's/\"tasks\": \\[/&{task}/'")).await;
    assert_eq!(added.code, Some(0), "{added:?}");
    assert_eq!(begun(&events, 6), [Role::Researcher, Role::Synthesizer], "only the new task, and the answer");
    assert_eq!(plan(&server, &run).await.tasks.len(), 3);
    let kept = assert_complete(&server, &run, 3).await;

    let before = begun(&events, 0).len();
    let folder = server.folder.path().display();
    for (editor, says) in [
        ("sed -i 's/researcher/wizard/'", "wizard"),
        ("sed -i '0,/\"t1\"/s//\"t9\"/'", "the plan is no plan"),
        ("sed -i 's/{/[/'", "no plan in JSON"),
        ("cp /dev/null", "no plan in JSON"),
        ("false", "the editor ended with"),
        ("/no/such/editor", "the editor ended with"),
    ] {
        let refused = retry(&server, &run, &["--edit"], editor).await;
        assert!(refused.code == Some(2) && refused.err.contains(says), "{editor}: {refused:?}");
        assert!(refused.err.contains(&format!("what you wrote is in {folder}")), "{editor}: {refused:?}");
    }
    let nobody = retry(&server, &run, &["--edit"], "").await;
    assert!(nobody.code == Some(2) && nobody.err.contains("EDITOR"), "{nobody:?}");
    // A plan that another client sends is held against the same rules.
    let cycle = json!({ "v": 1, "tasks": [
        { "id": "t1", "description": "a", "role": "researcher", "depends_on": ["t2"] },
        { "id": "t2", "description": "b", "role": "researcher", "depends_on": ["t1"] },
    ] });
    let refused = control(&server, "retry", json!({ "run": run, "plan": cycle })).await;
    assert_eq!(refused.error_code(), "400", "{}", refused.text());
    assert_eq!((record(&server, &run).await, begun(&events, 0).len()), (kept, before), "nothing came of all that");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_not_over_is_not_tried_again() {
    let (server, mut workers, events) = fleet(&slow_story(60_000)).await;
    let run = submit(&server, "make it").await;
    let (_, started) = events.event(EventKind::Started, Some(Role::Documenter), 1).await;
    let running = retry(&server, &run, &[], "").await;
    assert!(running.code == Some(5) && running.err.contains("cancel it"), "{running:?}");
    assert_eq!(record(&server, &run).await.generation, 1);

    // After a cancel it is over, and goes on from there.
    let canceled = control(&server, "cancel", json!(run.as_str())).await;
    assert_eq!(canceled.error_code(), "", "{}", canceled.text());
    take(&mut workers, pid_of(&started)).kill_9();
    let _documenter = cast(&server, &slow_story(0), &[Role::Documenter]).await;
    let again = retry(&server, &run, &[], "").await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(begun(&events, 3), [Role::Documenter, Role::Synthesizer]);
    assert_complete(&server, &run, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_who_try_again_at_the_same_time_begin_one_generation() {
    const CLIENTS: usize = 8;
    let server = TestServer::start().await;
    let _orchestrators = cast(&server, &slow_story(0), &[Role::Orchestrator, Role::Orchestrator]).await;
    let _workers = cast(&server, &refused(0), &SLOW_CAST).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = over(&server, RunStatus::Failed).await;
    let answers = futures::future::join_all((0..CLIENTS).map(|_| control(&server, "retry", json!(run.as_str())))).await;
    let begun_by = answers.iter().filter(|answer| answer.error_code().is_empty());
    let generations: BTreeSet<u64> = begun_by
        .map(|answer| serde_json::from_str::<Value>(&answer.text()).unwrap()["generation"].as_u64().unwrap())
        .collect();
    assert_eq!(generations, BTreeSet::from([2]), "one new generation");
    for refused in answers.iter().filter(|answer| !answer.error_code().is_empty()) {
        assert!(["409", "400"].contains(&refused.error_code().as_str()), "{}", refused.text());
    }
    until("the run to be completed", async || record(&server, &run).await.status == RunStatus::Completed).await;
    assert_complete(&server, &run, 2).await;
    assert_eq!(begun(&events, 3), [Role::Documenter, Role::Synthesizer], "each once");
}

/// Asks until an orchestrator that is awake gets the question.
async fn retry_past_a_sleeper(server: &TestServer, run: &RunId) {
    until("an orchestrator to begin the next generation", async || {
        let request = async_nats::Request::new().payload(run.to_string().into());
        let request = request.timeout(Some(Duration::from_millis(500)));
        let _ = server.bus.client.send_request("oarlock.control.retry", request).await;
        record(server, run).await.generation == 2
    })
    .await;
}

/// The holder of the first generation sleeps until the second one is under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_of_the_old_generation_who_wakes_changes_nothing() {
    let server = TestServer::start().await;
    let mut orchestrators = Vec::new();
    for _ in 0..2 {
        orchestrators.push(server.worker_with(Role::Orchestrator, &slow_story(0), &["--slots", "2"]).await);
    }
    let _workers = cast(&server, &refused(1_500), &SLOW_CAST).await;
    let (events, tasks) = (Ear::on(&server, "oarlock.event.>").await, Ear::on(&server, "oarlock.task.>").await);
    let run = submit(&server, "make it").await;
    let (_, claimed) = events.event(EventKind::Claimed, None, 1).await;
    events.event(EventKind::Started, Some(Role::Documenter), 1).await;
    let asleep = take(&mut orchestrators, pid_of(&claimed));
    asleep.signal("STOP");
    assert_eq!(crate::story::ended(&server, &run).await.status, RunStatus::Failed);
    retry_past_a_sleeper(&server, &run).await;
    events.event(EventKind::Started, Some(Role::Documenter), 2).await;
    asleep.signal("CONT");
    until("the run to be completed", async || record(&server, &run).await.status == RunStatus::Completed).await;
    until("both orchestrators to be idle", async || {
        presence(&server.bus, Role::Orchestrator).await.unwrap().is_some_and(|seen| seen.idle == 4)
    })
    .await;
    assert_complete(&server, &run, 2).await;
    assert_one_content_each(&tasks);
    let first = server.store.results.get(&TaskSubject::of_run(&run, 1)).await.unwrap().unwrap();
    assert!(first.failure().is_some_and(|failure| failure.message.contains("refused")), "{first:?}");
    let second = TaskSubject { role: Role::Documenter, run, task: TaskId::planned(2), attempt: 2 };
    let second = server.store.results.get(&second).await.unwrap().unwrap();
    assert!(matches!(second.outcome, Outcome::Completed { .. }), "{second:?}");
    assert_eq!(begun(&events, 0).len(), 5, "no task was begun twice");
}
