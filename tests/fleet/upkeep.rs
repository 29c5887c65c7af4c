//! Retention: what is over goes, whole, and nothing else, whoever sweeps and whoever dies while sweeping.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use oarlock::wire::{
    DeadLetter, Failure, FailureKind, Goal, Role, RunId, RunRecord, RunStatus, TaskId, subject::TaskSubject,
};
use serde_json::{Value, json};

use crate::cancel::control;
use crate::crash::{Revived, kill_9, lasting};
use crate::harness::{Ended, TestServer, Worker, ended, oarlock, sources, until};
use crate::story::{
    Ear, SLOW_CAST, cast, cast_with, findings, json_rule, plan_rule, record, script, slow_story, submit, text_rule,
};

/// How many messages of a run each stream holds; the events alone are not counted, they go by their age.
async fn kept(server: &TestServer, run: &RunId) -> BTreeMap<String, usize> {
    let root = &server.bus.root;
    let bucket = |name: String| (format!("KV_{name}"), format!("$KV.{name}.>"));
    let streams = [
        (root.tasks_stream(), root.all_tasks()),
        (root.results_stream(), root.all_results()),
        (root.blobs_stream(), root.all_blobs()),
        (root.later_stream(), root.all_later()),
        (root.dead_stream(), root.all_dead()),
        bucket(root.runs_bucket()),
        bucket(root.state_bucket()),
        bucket(root.history_bucket()),
    ];
    let mut found = BTreeMap::new();
    for (stream, filter) in streams {
        let of_run = server.bus.scan(&stream, &filter).await.unwrap();
        let count = of_run.iter().filter(|kept| kept.subject.split('.').any(|token| token == run.as_str())).count();
        if count > 0 {
            found.insert(stream, count);
        }
    }
    found
}

/// A fleet whose runs take no time, unless the goal says that they take for ever.
async fn fleet(server: &TestServer) -> Vec<Worker> {
    let story = script(&[
        plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]),
        json_rule(Role::Researcher, 0, &findings()),
        json!({ "match": { "role": "documenter", "user_contains": "for ever" }, "response": { "content": "# It", "latency_ms": 600_000 } }),
        text_rule(Role::Documenter, 0, "# It\n\nIt is made."),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ]);
    cast(server, &story, &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await
}

/// A finished run with something of it in every store.
async fn finished(server: &TestServer) -> RunId {
    let run = submit(server, "make it").await;
    assert_eq!(crate::story::ended(server, &run).await.status, RunStatus::Completed);
    until("its messages to be acknowledged", async || {
        !kept(server, &run).await.contains_key(&server.bus.root.tasks_stream())
    })
    .await;
    server.store.state.set(&run, "mood", json!("good")).await.unwrap();
    let to = TaskSubject { role: Role::Documenter, run: run.clone(), task: TaskId::planned(2), attempt: 1 };
    let letter = DeadLetter::new(to, Failure::never(FailureKind::Poison, "it died"), 10, "nobody".into(), b"{}");
    server.store.dead.keep(&letter).await.unwrap();
    assert_eq!(
        kept(server, &run).await.len(),
        6,
        "results, blobs, a letter, record, state and history: {:?}",
        kept(server, &run).await
    );
    run
}

/// A run that is under way and will be.
async fn living(server: &TestServer, events: &Ear) -> (RunId, BTreeMap<String, usize>) {
    let run = submit(server, "make it for ever").await;
    until("it to be under way", async || {
        events
            .events(oarlock::wire::EventKind::Started)
            .iter()
            .any(|(_, event)| event.run == run && event.role == Some(Role::Documenter))
    })
    .await;
    let what = kept(server, &run).await;
    assert!(what.len() >= 4, "{what:?}");
    (run, what)
}

/// A run id that has replies and files, and no record: somebody asked one role.
async fn asked(server: &TestServer) -> RunId {
    let reply = server.request("oarlock.ask.documenter", "describe it").await;
    assert_eq!(reply.error_code(), "", "{}", reply.text());
    let run: RunId = reply.header("Oarlock-Run").parse().unwrap();
    assert!(kept(server, &run).await.len() >= 2, "a reply and a file");
    run
}

async fn gc(server: &TestServer, arguments: &[&str]) -> Ended {
    let mut command = oarlock(server);
    command.args(["gc", "--server", server.url()]).args(arguments);
    ended(command, b"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn orchestrators_remove_what_is_over_and_nothing_else() {
    let server = TestServer::start().await;
    let _fleet = fleet(&server).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let (alive, before) = living(&server, &events).await;
    let gone = [finished(&server).await, finished(&server).await, asked(&server).await];
    let _sweepers =
        cast_with(&server, &slow_story(0), &[Role::Orchestrator, Role::Orchestrator], &[("OARLOCK_RETENTION_S", "1")])
            .await;
    for run in &gone {
        until(&format!("run {run} to be gone"), async || kept(&server, run).await.is_empty()).await;
    }
    // The living one is older than any of them was.
    assert_eq!(kept(&server, &alive).await, before, "a living run was touched");
    let listed = control(&server, "list", json!("")).await.text();
    assert!(listed.contains(alive.as_str()) && !gone.iter().any(|run| listed.contains(run.as_str())), "{listed}");
    for verb in ["status", "retry", "cancel"] {
        assert_eq!(control(&server, verb, json!(gone[0].as_str())).await.error_code(), "404", "{verb}");
    }
    // Once it is over, its time begins.
    assert_eq!(control(&server, "cancel", json!(alive.as_str())).await.error_code(), "");
    until("the canceled run to be gone", async || kept(&server, &alive).await.is_empty()).await;
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_lists_and_removes_nothing_and_two_at_once_do_no_harm() {
    let server = TestServer::start().await;
    let _fleet = fleet(&server).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let (alive, before) = living(&server, &events).await;
    let (run, stray) = (finished(&server).await, asked(&server).await);
    let (of_run, of_stray) = (kept(&server, &run).await, kept(&server, &stray).await);
    let young = gc(&server, &["--json"]).await;
    assert_eq!(young.out.trim(), json!({ "dry_run": false, "runs": [], "strays": [] }).to_string(), "{young:?}");
    let trial = gc(&server, &["--dry-run", "--json", "--older-than", "0.01"]).await;
    let told: Value = serde_json::from_str(&trial.out).unwrap();
    assert_eq!(told, json!({ "dry_run": true, "runs": [run], "strays": [stray] }), "{trial:?}");
    let trial = gc(&server, &["--dry-run", "--older-than", "0.01"]).await;
    assert!(trial.err.contains("1 runs and 1 strays would be removed"), "{trial:?}");
    assert_eq!((kept(&server, &run).await, kept(&server, &stray).await), (of_run, of_stray));

    let both = tokio::join!(gc(&server, &["--older-than", "0.01"]), gc(&server, &["--older-than", "0.01"]));
    for one in [&both.0, &both.1] {
        assert_eq!(one.code, Some(0), "{one:?}");
    }
    assert!(kept(&server, &run).await.is_empty() && kept(&server, &stray).await.is_empty());
    assert_eq!(kept(&server, &alive).await, before);
    assert_eq!(record(&server, &alive).await.status, RunStatus::Working);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweeper_that_died_in_the_middle_is_followed_by_another() {
    let server = TestServer::start().await;
    let _fleet = fleet(&server).await;
    let run = finished(&server).await;
    let environment = [("OARLOCK_RETENTION_S", "1"), ("OARLOCK_CRASH_AT", "expire:after")];
    let mut dying = cast_with(&server, &slow_story(0), &[Role::Orchestrator], &environment).await.remove(0);
    assert_eq!(dying.exit_code().await, None, "it was killed at the failpoint: {}", dying.log_text());
    assert_eq!(record(&server, &run).await.status, RunStatus::Expired);
    assert_eq!(control(&server, "retry", json!(run.as_str())).await.error_code(), "404");
    assert!(!kept(&server, &run).await.is_empty());
    let _next = cast_with(&server, &slow_story(0), &[Role::Orchestrator], &environment[..1]).await;
    until("the next one to finish it", async || kept(&server, &run).await.is_empty()).await;
}

/// A server that is killed may bring back what was removed, as it was when the server last started; that goes as well.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_brings_back_is_removed_again() {
    let (server, home, port) = lasting().await;
    let binary = sources().find().await.unwrap();
    let roles = [&SLOW_CAST[..], &[Role::Orchestrator]].concat();
    let fleet = cast(&server, &slow_story(1_000), &roles).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(submit(&server, "make it").await);
    }
    events.event(oarlock::wire::EventKind::Started, Some(Role::Documenter), 3).await;
    let restarted = async || {
        until("the port to be free", async || TcpListener::bind(("127.0.0.1", port)).is_ok()).await;
        let revived = Revived::start(&binary, &home.join("nats-embedded.conf"), port);
        until("the server to have its store again", async || server.store.runs.record(&runs[0]).await.is_ok()).await;
        revived
    };
    kill_9(server.server.pid().unwrap());
    let first = restarted().await;
    for run in &runs {
        crate::story::ended(&server, run).await;
    }
    server.assert_nothing_left().await;
    let swept = gc(&server, &["--older-than", "0.01"]).await;
    assert_eq!(swept.code, Some(0), "{swept:?}");
    // Nobody may do anything about it but the sweep.
    fleet.into_iter().for_each(Worker::kill_9);
    drop(first);
    let _second = restarted().await;
    for run in &runs {
        let status = server.store.runs.record(run).await.unwrap().map(|kept| kept.record.status);
        println!("came back after kill -9: {status:?} {:?}", kept(&server, run).await);
    }
    until("all of it to be gone again", async || {
        let swept = gc(&server, &["--older-than", "0.01"]).await;
        assert_eq!(swept.code, Some(0), "{swept:?}");
        let mut left = false;
        for run in &runs {
            left |= !kept(&server, run).await.is_empty();
        }
        !left
    })
    .await;
}

/// What such a server can bring back at worst: the record as it was while the run went on, and nothing else of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_came_back_alone_is_removed_again() {
    let server = TestServer::start().await;
    let run = RunId::random();
    let working = RunRecord { status: RunStatus::Working, ..RunRecord::submitted(1) };
    let subject = format!("$KV.{}.{run}", server.bus.root.runs_bucket());
    let payload = serde_json::to_vec(&working).unwrap();
    server.bus.js.publish(subject, payload.into()).await.unwrap().await.unwrap();
    until("the record without a run to be gone", async || {
        server.store.janitor.sweep(Duration::from_millis(10), false).await.unwrap();
        kept(&server, &run).await.is_empty()
    })
    .await;
}

/// Versions run side by side: what a newer one keeps of a living run is not for this one to remove.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_record_cannot_be_read_here_is_not_removed() {
    let server = TestServer::start().await;
    let submitted = serde_json::to_value(RunRecord::submitted(1)).unwrap();
    let mut newer = submitted.clone();
    newer["v"] = json!(2);
    let mut unknown = submitted.clone();
    unknown["status"] = json!("dreaming");
    let mut runs = Vec::new();
    for record in [newer.to_string(), unknown.to_string(), "no record at all".to_owned()] {
        let run = RunId::random();
        server.store.runs.accept(&run, &Goal::new("make it".into(), Vec::new())).await.unwrap();
        server.store.state.set(&run, "mood", json!("good")).await.unwrap();
        let subject = format!("$KV.{}.{run}", server.bus.root.runs_bucket());
        server.bus.js.publish(subject, record.into()).await.unwrap().await.unwrap();
        runs.push((kept(&server, &run).await, run));
    }
    let begun = std::time::Instant::now();
    until("more than the retention to pass", async || begun.elapsed() > Duration::from_millis(300)).await;
    let swept = server.store.janitor.sweep(Duration::from_millis(100), false).await.unwrap();
    for (before, run) in runs {
        assert_eq!(kept(&server, &run).await, before, "run {run} was removed: {swept:?}");
    }
}
