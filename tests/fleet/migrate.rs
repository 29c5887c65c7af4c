//! A store that an older version, or another operator, declared is brought up to date while work is in hand; nothing of it
//! is lost or done twice.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use oarlock::bus::Queue;
use oarlock::wire::{EventKind, Role, RunStatus};
use serde_json::{Value, json};

use crate::harness::{Ended, TestServer, ended, oarlock, until};
use crate::story::{
    Ear, SLOW_CAST, assert_one_of_everything, cast, enqueue, script, slow_story, subject_of, submit, task, text_rule,
};

/// A work queue that an operator made small.
const SMALL_BYTES: i64 = 64 * 1024 * 1024;
/// The waiting time that the tests' streams have.
const ACK_WAIT_S: &str = "2";

/// Makes the store one of the version before: two streams and a consumer are missing, some settings are others.
async fn age(server: &TestServer) {
    let (js, root) = (&server.bus.js, &server.bus.root);
    for stream in [root.later_stream(), root.dead_stream()] {
        js.delete_stream(stream).await.unwrap();
    }
    let mut tasks = js.get_stream(root.tasks_stream()).await.unwrap().cached_info().config.clone();
    tasks.max_bytes = SMALL_BYTES;
    js.update_stream(&tasks).await.unwrap();
    let mut events = js.get_stream(root.events_stream()).await.unwrap().cached_info().config.clone();
    events.subjects = vec![format!("{root}.event.>")];
    js.update_stream(&events).await.unwrap();
    let mut results = js.get_stream(root.results_stream()).await.unwrap().cached_info().config.clone();
    results.republish = None;
    js.update_stream(&results).await.unwrap();
    let old = pull::Config {
        durable_name: Some("documenter".into()),
        filter_subject: root.tasks_of(Role::Documenter),
        ack_wait: Duration::from_secs(1),
        max_ack_pending: 100,
        ..pull::Config::default()
    };
    js.get_stream(root.tasks_stream()).await.unwrap().create_consumer(old).await.unwrap();
}

/// Every stream's and consumer's settings, by name.
async fn settings(server: &TestServer) -> BTreeMap<String, Value> {
    let (js, root) = (&server.bus.js, &server.bus.root);
    let buckets = [root.runs_bucket(), root.state_bucket(), root.history_bucket(), root.spent_bucket()]
        .map(|name| format!("KV_{name}"));
    let streams = [root.tasks_stream(), root.results_stream(), root.blobs_stream(), root.events_stream()];
    let later = [root.later_stream(), root.dead_stream()];
    let mut found = BTreeMap::new();
    for name in streams.into_iter().chain(later).chain(buckets) {
        if let Ok(stream) = js.get_stream(&name).await {
            found.insert(name, serde_json::to_value(&stream.cached_info().config).unwrap());
        }
    }
    for queue in Queue::all() {
        if let Ok(Some(consumer)) = server.bus.consumer(queue).await {
            let info = consumer.cached_info();
            found.insert(queue.to_string(), json!([info.config, info.num_redelivered]));
        }
    }
    found
}

async fn migrate(server: &TestServer, arguments: &[&str]) -> Ended {
    let mut command = oarlock(server);
    command.env("OARLOCK_ACK_WAIT_S", ACK_WAIT_S).args(["migrate", "--server", server.url()]).args(arguments);
    let ended = ended(command, b"").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

/// What `--json` says would be or was changed, by name.
fn changes(told: &Ended) -> BTreeMap<String, Vec<String>> {
    let told: Value = serde_json::from_str(&told.out).unwrap();
    let all = told["all"].as_array().unwrap().iter();
    let change = |one: &Value| {
        (one["what"].as_str().unwrap().to_owned(), serde_json::from_value(one["changes"].clone()).unwrap())
    };
    all.map(change).filter(|(_, changes): &(_, Vec<String>)| !changes.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_store_is_brought_up_to_date_with_work_in_hand() {
    const TASKS: usize = 3;
    let server = TestServer::start().await;
    let wanted = settings(&server).await;
    age(&server).await;
    let old = settings(&server).await;
    assert_ne!(old, wanted);
    let story = script(&[text_rule(Role::Documenter, 1_500, "# It\n\nIt is made.")]);
    let _worker = server.worker_with(Role::Documenter, &story, &["--slots", "1"]).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let work: Vec<_> = (0..TASKS).map(|_| task(Role::Documenter, "describe it", Duration::from_secs(30))).collect();
    for task in &work {
        enqueue(&server, task).await;
    }
    events.event(EventKind::Started, Some(Role::Documenter), 1).await;

    let trial = migrate(&server, &["--dry-run", "--json"]).await;
    let told = changes(&trial);
    let names: Vec<&str> = told.keys().map(String::as_str).collect();
    let expected = [
        "consumer documenter of OARLOCK_TASKS",
        "consumer due of OARLOCK_LATER",
        "stream OARLOCK_DEAD",
        "stream OARLOCK_EVENTS",
        "stream OARLOCK_LATER",
        "stream OARLOCK_RESULTS",
        "stream OARLOCK_TASKS",
    ];
    assert_eq!(names, expected, "{trial:?}");
    let of_tasks = &told["stream OARLOCK_TASKS"];
    assert_eq!(of_tasks, &[format!("max_bytes: {SMALL_BYTES} → {}", 512 * 1024 * 1024)]);
    assert_eq!(told["stream OARLOCK_DEAD"], ["created"]);
    assert!(
        told["consumer documenter of OARLOCK_TASKS"].iter().any(|change| change.starts_with("ack_wait")),
        "{told:?}"
    );
    assert_eq!(settings(&server).await, old, "a trial changes nothing");

    let done = migrate(&server, &[]).await;
    assert!(done.err.contains("7 of 19 streams and consumers changed"), "{done:?}");
    assert_eq!(settings(&server).await, wanted);
    let again = migrate(&server, &[]).await;
    assert!(again.out.is_empty() && again.err.contains("0 of 19"), "{again:?}");
    for task in &work {
        until("the task's reply", async || server.store.results.get(&subject_of(task)).await.unwrap().is_some()).await;
    }
    assert_eq!(events.events(EventKind::Started).len(), TASKS, "each was done once");
    server.assert_nothing_left().await;
    assert_eq!(settings(&server).await, wanted, "nothing was delivered again");

    // And the migrated store carries a whole run.
    let others = [Role::Orchestrator, Role::Planner, Role::Researcher, Role::Synthesizer];
    let _fleet = cast(&server, &slow_story(0), &others).await;
    let run = submit(&server, "make it").await;
    assert_eq!(crate::story::ended(&server, &run).await.status, RunStatus::Completed);
    assert_one_of_everything(&server, &run).await;
}

/// A fleet is under way on the old store; its operator migrates it.
#[tokio::test(flavor = "multi_thread")]
async fn runs_under_way_go_through_a_migration() {
    let server = TestServer::start().await;
    let (js, root) = (&server.bus.js, &server.bus.root);
    let mut tasks = js.get_stream(root.tasks_stream()).await.unwrap().cached_info().config.clone();
    tasks.max_bytes = SMALL_BYTES;
    js.update_stream(&tasks).await.unwrap();
    let _fleet = cast(&server, &slow_story(500), &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let mut runs = Vec::new();
    for _ in 0..6 {
        runs.push(submit(&server, "make it").await);
    }
    events.event(EventKind::Started, Some(Role::Documenter), 1).await;
    let done = migrate(&server, &[]).await;
    assert!(done.out.contains("max_bytes") && done.err.contains("1 of 19"), "{done:?}");
    for run in &runs {
        assert_eq!(crate::story::ended(&server, run).await.takeovers, 0);
        assert_one_of_everything(&server, run).await;
    }
    assert_eq!(events.events(EventKind::Started).len(), 4 * runs.len(), "no task was done twice");
    server.assert_nothing_left().await;
}

/// The worker in hand learned the long wait when it began to pull.
#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_wait_does_not_give_what_is_in_hand_to_another() {
    let server =
        TestServer::with(&oarlock::bus::StreamSettings { ack_wait: Duration::from_secs(30), ..Default::default() })
            .await;
    let story = script(&[text_rule(Role::Documenter, 7_000, "# It\n\nIt is made.")]);
    let _workers = cast(&server, &story, &[Role::Documenter, Role::Documenter]).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let work = task(Role::Documenter, "describe it", Duration::from_secs(30));
    enqueue(&server, &work).await;
    events.event(EventKind::Started, Some(Role::Documenter), 1).await;
    let mut command = oarlock(&server);
    command.env("OARLOCK_ACK_WAIT_S", "5").args(["migrate", "--server", server.url()]);
    let done = ended(command, b"").await;
    assert!(done.out.contains("ack_wait"), "{done:?}");
    until("the task's reply", async || server.store.results.get(&subject_of(&work)).await.unwrap().is_some()).await;
    assert_eq!(events.events(EventKind::Started).len(), 1, "it was given to another worker");
}
