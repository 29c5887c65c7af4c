//! Two versions on one store. What is written here by hand is what commit bf44262 wrote, the version before this one; and
//! what a later one may add: fields that nobody here knows, and a version number that nobody here reads.

use std::time::Duration;

use oarlock::bus::presence;
use oarlock::wire::subject::TaskSubject;
use oarlock::wire::{EventKind, FailureKind, Reply, Role, RunId, RunStatus, TaskId, WIRE_VERSION};
use serde_json::{Value, json};

use crate::cancel::control;
use crate::harness::{TestServer, until};
use crate::story::{
    Ear, SLOW_CAST, assert_one_of_everything, cast, findings, put, record, result, slow_story, subject_of, submit,
    task, wake,
};

/// Stores a message as it is, without any of this version's code.
async fn keep(server: &TestServer, subject: String, value: &Value) {
    server.bus.js.publish(subject, value.to_string().into()).await.unwrap().await.unwrap();
}

async fn key(server: &TestServer, bucket: &str, key: String, value: &Value) {
    keep(server, format!("$KV.oarlock_{bucket}.{key}"), value).await;
}

/// Adds something unknown to every object in a message.
fn with_news(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut map: serde_json::Map<String, Value> =
                map.iter().map(|(name, value)| (name.clone(), with_news(value))).collect();
            map.insert("later_field".into(), json!({ "of": ["a", "later", "version"] }));
            Value::Object(map)
        }
        Value::Array(items) => Value::Array(items.iter().map(with_news).collect()),
        other => other.clone(),
    }
}

/// The plan's two tasks.
fn plan_tasks() -> Value {
    json!([
        { "id": "t1", "description": "part 1", "role": "researcher", "depends_on": [] },
        { "id": "t2", "description": "part 2", "role": "documenter", "depends_on": ["t1"] },
    ])
}

/// A run in the middle, as its files were: planned, the researcher done, the documenter's task not yet sent.
async fn half_done(server: &TestServer, change: impl Fn(&Value) -> Value) -> RunId {
    let run = RunId::random();
    let goal = json!({ "v": 1, "text": "make it", "attachments": [] });
    key(server, "runs", format!("{run}.goal"), &change(&goal)).await;
    key(server, "runs", format!("{run}.plan.1"), &change(&json!({ "v": 1, "tasks": plan_tasks() }))).await;
    for (task, role, said) in [("plan", "planner", "Make a plan for the goal."), ("t1", "researcher", "part 1")] {
        let subject = format!("oarlock.task.{role}.{run}.{task}.1");
        let metadata =
            json!({ "run": run, "task": task, "attempt": 1, "input": null, "bytes": said.len(), "reference": subject });
        let message = json!({ "v": 1, "from": "orchestrator", "to": role, "type": "request", "content": said, "metadata": metadata });
        key(server, "history", format!("{run}.{task}.1"), &change(&message)).await;
    }
    let usage = json!({ "calls": 1, "input": 10, "output": 5, "cache_read": 0, "cache_write": 0, "estimated": false });
    let plan = json!({ "kind": "plan", "v": 1, "tasks": plan_tasks() });
    let planned = json!({ "status": "completed", "content": "a plan", "artifacts": [], "report": plan });
    let found = json!({ "status": "completed", "content": findings().to_string(), "artifacts": [] });
    for (task, role, outcome) in [("plan", "planner", planned), ("t1", "researcher", found)] {
        let reply = json!({
            "v": 1, "run": run, "task": task, "attempt": 1, "role": role, "outcome": outcome, "usage": usage, "worker": "old@host:1",
        });
        keep(server, format!("oarlock.result.{role}.{run}.{task}.1"), &change(&reply)).await;
    }
    let owner = json!({ "seq": 0, "at": 1, "nonce": "00ff" });
    let record = json!({
        "v": 1, "status": "working", "owner": owner, "generation": 1, "plan": 1, "takeovers": 0, "results_seen": 0,
        "submitted_at": 1_790_000_000,
    });
    key(server, "runs", run.to_string(), &change(&record)).await;
    run
}

/// A run that failed and a run that was only accepted, as the version before kept them.
async fn failed_and_accepted(server: &TestServer) -> (RunId, RunId) {
    let (failed, accepted) = (RunId::random(), RunId::random());
    let goal = json!({ "v": 1, "text": "make it", "attachments": [] });
    let record = |status: &str| {
        json!({
            "v": 1, "status": status, "generation": 1, "plan": 0, "takeovers": 0, "results_seen": 0, "submitted_at": 1,
        })
    };
    for (run, status) in [(&failed, "failed"), (&accepted, "submitted")] {
        key(server, "runs", format!("{run}.goal"), &goal).await;
        key(server, "runs", run.to_string(), &record(status)).await;
    }
    let failure = json!({ "kind": "model_auth", "message": "no key", "retry": { "when": "never" } });
    let reply = json!({ "v": 1, "run": failed, "task": "run", "attempt": 1, "role": "orchestrator", "outcome": { "status": "failed", "failure": failure } });
    keep(server, format!("oarlock.result.orchestrator.{failed}.run.1"), &reply).await;
    put(server, &wake(&accepted, TaskId::start()), Vec::new()).await;
    (failed, accepted)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_version_before_began_is_finished() {
    let server = TestServer::start().await;
    let (half, newer) = (half_done(&server, Value::clone).await, half_done(&server, with_news).await);
    let (failed, accepted) = failed_and_accepted(&server).await;
    for run in [&half, &newer] {
        put(&server, &wake(run, TaskId::start()), Vec::new()).await;
    }
    let events = Ear::on(&server, "oarlock.event.>").await;
    let _fleet = cast(&server, &slow_story(0), &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await;
    for run in [&half, &newer, &accepted] {
        assert_eq!(
            crate::story::ended(&server, run).await.status,
            RunStatus::Completed,
            "{:?}",
            result(&server, run).await
        );
        assert_one_of_everything(&server, run).await;
    }
    for run in [&half, &newer] {
        let begun = events.events(EventKind::Started).into_iter().filter(|(_, event)| event.run == *run);
        let begun: Vec<Role> = begun.map(|(_, event)| event.role.unwrap()).collect();
        assert_eq!(begun, [Role::Documenter, Role::Synthesizer], "what was done is not done again");
        assert_eq!(server.view(run.as_str()).await.tasks.len(), 4);
    }
    let again = control(&server, "retry", json!(failed.as_str())).await;
    assert_eq!(again.error_code(), "", "{}", again.text());
    until("the retried run to be completed", async || record(&server, &failed).await.status == RunStatus::Completed)
        .await;
    server.assert_nothing_left().await;
}

/// What this version writes is what the one before can read: nothing new stands in a record of a run that needs nothing new.
#[tokio::test(flavor = "multi_thread")]
async fn what_this_version_writes_the_version_before_reads() {
    let server = TestServer::start().await;
    let _fleet = cast(&server, &slow_story(0), &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await;
    let run = submit(&server, "make it").await;
    crate::story::ended(&server, &run).await;
    let kept = server.bus.scan("KV_oarlock_runs", &format!("$KV.oarlock_runs.{run}")).await.unwrap();
    let record: Value = serde_json::from_slice(&kept[0].payload).unwrap();
    let names: Vec<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["v", "status", "generation", "plan", "takeovers", "results_seen", "submitted_at"]);
    assert_eq!(record["plan"], 1, "the first plan is revision 1 in both versions");
    let replies = server.bus.scan("OARLOCK_RESULTS", &format!("oarlock.result.*.{run}.>")).await.unwrap();
    for reply in replies {
        let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
        let names: Vec<&str> = reply.as_object().unwrap().keys().map(String::as_str).collect();
        let known = ["v", "run", "task", "attempt", "role", "outcome", "usage", "worker"];
        assert_eq!(names[..known.len()], known, "what it knows is there");
        // What it does not know is tolerated.
        assert!(names[known.len()..].iter().all(|name| *name == "prompt"), "{names:?}");
    }
}

/// A task with fields of a later version is done; one of a later version is left to a later worker; a reply of a later version
/// is a failure that says so and does not stop anybody.
#[tokio::test(flavor = "multi_thread")]
async fn tasks_and_replies_of_a_later_version() {
    let server = TestServer::start().await;
    let story = slow_story(0);
    let _documenter = server.worker_with(Role::Documenter, &story, &["--slots", "1"]).await;
    let known = task(Role::Documenter, "describe it", Duration::from_secs(30));
    let later = task(Role::Documenter, "describe it", Duration::from_secs(30));
    let mut of_later = with_news(&serde_json::to_value(&later).unwrap());
    of_later["v"] = json!(WIRE_VERSION + 1);
    put(&server, &subject_of(&later), of_later.to_string().into_bytes()).await;
    put(&server, &subject_of(&known), with_news(&serde_json::to_value(&known).unwrap()).to_string().into_bytes()).await;
    until("the known one to be done", async || server.store.results.get(&subject_of(&known)).await.unwrap().is_some())
        .await;
    let reply: Reply = server.store.results.get(&subject_of(&known)).await.unwrap().unwrap();
    assert!(reply.failure().is_none(), "{reply:?}");
    assert!(server.store.results.get(&subject_of(&later)).await.unwrap().is_none(), "it waits for a later worker");
    let seen = presence(&server.bus, Role::Documenter).await.unwrap().unwrap();
    assert_eq!(seen.running as u64 + seen.waiting, 1, "it is still there: {seen:?}");

    // The documenter of a run is of a later version, and says something that is not understood here.
    let others = [Role::Orchestrator, Role::Planner, Role::Researcher, Role::Synthesizer];
    let _fleet = cast(&server, &slow_story(0), &others).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = half_done(&server, Value::clone).await;
    let to = TaskSubject { role: Role::Documenter, run: run.clone(), task: TaskId::planned(2), attempt: 1 };
    keep(&server, server.bus.root.result(&to), &json!({ "v": WIRE_VERSION + 1, "said": "done" })).await;
    put(&server, &wake(&run, TaskId::start()), Vec::new()).await;
    assert_eq!(crate::story::ended(&server, &run).await.status, RunStatus::Completed, "a new attempt gets past it");
    let first = server.store.results.get(&to).await.unwrap().unwrap();
    assert_eq!(first.failure().map(|failure| failure.kind), Some(FailureKind::Internal), "{first:?}");
    let second = TaskSubject { attempt: 2, ..to };
    assert!(server.store.results.get(&second).await.unwrap().is_some_and(|reply| reply.failure().is_none()));
    assert!(events.events(EventKind::Dispatched).iter().any(|(_, event)| event.attempt == Some(2)));
}
