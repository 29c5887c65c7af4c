//! Several workers of one role: they share its queue, and a run does not fill it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use oarlock::bus::presence;
use oarlock::wire::{EventKind, Reply, Role};
use serde_json::json;

use crate::harness::{TestServer, until};
use crate::story::{
    ACK_WAIT, Ear, cast, ended, enqueue, findings, json_rule, one_file, pid_of, plan_rule, script, subject_of, submit,
    take, task, text_rule,
};

/// Tasks that are asked for at once.
const TASKS: usize = 24;
/// The most attempts of one run that may be on their way, per role.
const WINDOW: usize = 8;

fn coder(latency_ms: u64) -> String {
    script(&[json_rule(Role::Coder, latency_ms, &one_file("x = 1"))])
}

#[tokio::test(flavor = "multi_thread")]
async fn two_coders_share_the_queue_and_each_task_is_done_once() {
    let server = TestServer::start().await;
    let one = server.worker_with(Role::Coder, &coder(40), &["--slots", "1"]).await;
    let two = server.worker_with(Role::Coder, &coder(40), &["--slots", "1"]).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let asks = (0..TASKS).map(|number| {
        let ask = json!({ "description": format!("write part {number}") }).to_string();
        server.request("oarlock.ask.coder", ask)
    });
    let mut by_worker: BTreeMap<String, usize> = BTreeMap::new();
    let mut runs = BTreeSet::new();
    for answer in join_all(asks).await {
        assert_eq!(answer.error_code(), "", "{}", answer.text());
        let reply: Reply = serde_json::from_str(&answer.text()).unwrap();
        assert!(reply.failure().is_none(), "{reply:?}");
        runs.insert(reply.run.clone());
        *by_worker.entry(reply.worker).or_default() += 1;
    }
    assert_eq!(runs.len(), TASKS, "each asker got an answer of its own");
    println!("measured: {TASKS} tasks were shared as {by_worker:?}");
    let pids: BTreeSet<u32> = by_worker.keys().map(|name| name.rsplit(':').next().unwrap().parse().unwrap()).collect();
    assert_eq!(pids, BTreeSet::from([one.pid(), two.pid()]), "both got work");
    assert!(by_worker.values().all(|count| *count >= TASKS / 4), "neither was left idle: {by_worker:?}");
    server.assert_nothing_left().await;
    let started = events.events(EventKind::Started);
    let once: BTreeSet<_> = started.iter().map(|(_, event)| event.run.clone()).collect();
    assert_eq!((started.len(), once), (TASKS, runs), "each task was begun once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_asked_twice_is_one_task() {
    let server = TestServer::start().await;
    let _coder = server.worker(Role::Coder, &coder(300)).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Oarlock-Key", "the-same");
    let ask = || server.request_with("oarlock.ask.coder", headers.clone(), "write it");
    let (one, two) = tokio::join!(ask(), ask());
    let later = ask().await;
    assert_eq!((one.text(), one.error_code()), (two.text(), two.error_code()));
    assert_eq!(one.text(), later.text());
    assert_eq!(one.header("Oarlock-Run"), later.header("Oarlock-Run"));
    server.assert_nothing_left().await;
    assert_eq!(events.events(EventKind::Started).len(), 1);
}

/// The stopped one comes back when its task is answered: its reply is one too many, and its late words change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_slept_too_long_loses_to_the_next_one() {
    let server = TestServer::start().await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let replies = Ear::on(&server, "oarlock.result.>").await;
    let first = server.worker_with(Role::Coder, &coder(1_000), &["--slots", "1"]).await;
    let work = task(Role::Coder, "write it", Duration::from_secs(60));
    enqueue(&server, &work).await;
    let (_, started) = events.event(EventKind::Started, Some(Role::Coder), 1).await;
    assert_eq!(pid_of(&started), first.pid());
    first.signal("STOP");
    let stopped = std::time::Instant::now();
    let second = server.worker_with(Role::Coder, &coder(0), &["--slots", "1"]).await;
    until("the next one's reply", async || server.store.results.get(&subject_of(&work)).await.unwrap().is_some()).await;
    println!("measured: answered by the next worker {} ms after SIGSTOP", stopped.elapsed().as_millis());
    assert!(stopped.elapsed() <= ACK_WAIT + Duration::from_secs(1) + Duration::from_millis(500));
    first.signal("CONT");
    until("both to be idle again", async || {
        presence(&server.bus, Role::Coder).await.unwrap().is_some_and(|seen| seen.idle == 2)
    })
    .await;
    let kept = server.store.results.get(&subject_of(&work)).await.unwrap().unwrap();
    assert!(kept.worker.ends_with(&format!(":{}", second.pid())), "{kept:?}");
    assert!(kept.failure().is_none(), "{kept:?}");
    server.assert_nothing_left().await;
    assert_eq!(events.events(EventKind::Started).len(), 2, "nothing was queued again");
    println!("the late one {}", if replies.all().len() == 2 { "published and lost" } else { "saw it and was silent" });

    // It is as good as new afterwards.
    take(&mut vec![second], pid_of(&events.events(EventKind::Started)[1].1)).kill_9();
    let more = task(Role::Coder, "write more", Duration::from_secs(60));
    enqueue(&server, &more).await;
    until("a reply of the one that slept", async || {
        server.store.results.get(&subject_of(&more)).await.unwrap().is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wide_run_sends_no_more_than_its_window() {
    let server = TestServer::start().await;
    let wide: Vec<(Role, &[usize])> = vec![(Role::Researcher, &[]); WINDOW + 8];
    let story = script(&[
        plan_rule(&wide),
        json_rule(Role::Researcher, 0, &findings()),
        text_rule(Role::Synthesizer, 0, "It is known."),
    ]);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let _workers = cast(&server, &story, &[Role::Orchestrator, Role::Planner, Role::Synthesizer]).await;
    let run = submit(&server, "find it all").await;
    // Events are told after the whole batch is stored.
    events.event(EventKind::Dispatched, Some(Role::Researcher), WINDOW).await;
    let waiting = presence(&server.bus, Role::Researcher).await.unwrap().unwrap().waiting;
    let _researcher = cast(&server, &story, &[Role::Researcher]).await;
    let record = ended(&server, &run).await;
    assert_eq!(record.status, oarlock::wire::RunStatus::Completed);
    server.assert_nothing_left().await;
    assert_eq!(waiting, WINDOW as u64, "researcher tasks on their way at the same time");
}
