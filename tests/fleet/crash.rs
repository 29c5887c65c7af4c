//! Processes and the server die in the middle of runs, by kill -9; the runs end as if nobody had.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use oarlock::bus::{Embedded, EmbeddedConfig, Storage, StreamSettings};
use oarlock::store::Store;
use oarlock::wire::{EventKind, Role};

use crate::harness::{Fleet, TestServer, Worker, connect, scripts, sources, until};
use crate::story::{
    ACK_WAIT, Ear, SLOW_CAST, assert_one_content_each, assert_one_of_everything, cast, ended, enqueue, json_rule,
    one_file, pid_of, record, result, script, slow_story, subject_of, submit, take, task,
};

/// How late a redelivery may be, beyond `ack_wait`.
const SLACK: Duration = Duration::from_secs(1);

/// The script with a role that takes its time.
fn slowed(script: &str, role: Role, latency_ms: u64) -> String {
    let mut script: serde_json::Value = serde_json::from_str(script).unwrap();
    for rule in script["rules"].as_array_mut().unwrap() {
        if rule["match"]["role"] == role.name() {
            rule["response"]["latency_ms"] = latency_ms.into();
        }
    }
    script.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_of_a_task_costs_nothing_but_time() {
    let story = slowed(scripts::FIBONACCI, Role::Coder, 1_500);
    let mut fleet = Fleet::start(&story).await;
    fleet.workers.push(fleet.server.worker(Role::Coder, &story).await);
    let events = Ear::on(&fleet, "oarlock.event.>").await;
    let run = submit(&fleet, "Write a function to calculate fibonacci").await;
    let (_, started) = events.event(EventKind::Started, Some(Role::Coder), 1).await;
    let killed = std::time::Instant::now();
    take(&mut fleet.workers, pid_of(&started)).kill_9();
    let (at, again) = events.event(EventKind::Started, Some(Role::Coder), 2).await;
    println!("measured: redelivery after kill -9 of a worker in {} ms", (at - killed).as_millis());
    assert!(at - killed <= ACK_WAIT + SLACK, "redelivered after {:?}", at - killed);
    assert_ne!(pid_of(&again), pid_of(&started));
    ended(&fleet, &run).await;
    assert_one_of_everything(&fleet, &run).await;
    assert!(result(&fleet, &run).await.text().contains("def fibonacci"));
    assert_eq!(events.events(EventKind::Started).len(), 8, "seven tasks, one of them twice");
    fleet.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_killed_in_the_middle_of_a_run_is_replaced() {
    let server = TestServer::start().await;
    let mut orchestrators = cast(&server, &slow_story(0), &[Role::Orchestrator, Role::Orchestrator]).await;
    let _workers = cast(&server, &slow_story(1_000), &SLOW_CAST).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let tasks = Ear::on(&server, "oarlock.task.>").await;
    let run = submit(&server, "make it").await;
    let (_, claimed) = events.event(EventKind::Claimed, None, 1).await;
    events.event(EventKind::Started, Some(Role::Documenter), 1).await;
    let killed = std::time::Instant::now();
    take(&mut orchestrators, pid_of(&claimed)).kill_9();
    let (at, again) = events.event(EventKind::Claimed, None, 2).await;
    println!("measured: takeover after kill -9 of an orchestrator in {} ms", (at - killed).as_millis());
    assert!(at - killed <= ACK_WAIT + SLACK, "taken over after {:?}", at - killed);
    assert_ne!(pid_of(&again), pid_of(&claimed));
    let record = ended(&server, &run).await;
    assert_eq!(record.takeovers, 1, "the takeover went through one over message");
    assert_one_of_everything(&server, &run).await;
    assert_one_content_each(&tasks);
    assert_eq!(events.events(EventKind::Started).len(), 4, "no task was done twice");
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_killed_before_it_did_anything_is_replaced() {
    let server = TestServer::start().await;
    let mut orchestrators = cast(&server, &slow_story(0), &[Role::Orchestrator, Role::Orchestrator]).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    let (_, claimed) = events.event(EventKind::Claimed, None, 1).await;
    take(&mut orchestrators, pid_of(&claimed)).kill_9();
    let _workers = cast(&server, &slow_story(0), &SLOW_CAST).await;
    ended(&server, &run).await;
    assert_one_of_everything(&server, &run).await;
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_killed_at_once_and_started_again_goes_on() {
    let server = TestServer::start().await;
    let mut all = cast(&server, &slow_story(20_000), &SLOW_CAST).await;
    all.extend(cast(&server, &slow_story(0), &[Role::Orchestrator]).await);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    events.event(EventKind::Started, Some(Role::Documenter), 1).await;
    all.into_iter().for_each(Worker::kill_9);
    let _orchestrator = cast(&server, &slow_story(0), &[Role::Orchestrator]).await;
    let _workers = cast(&server, &slow_story(0), &SLOW_CAST).await;
    ended(&server, &run).await;
    assert_one_of_everything(&server, &run).await;
    assert_eq!(events.events(EventKind::Started).len(), 5, "only the task in hand was done again");
    server.assert_nothing_left().await;
}

/// An orchestrator told to stop does not count as one that died: the next one has the run at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_is_told_to_stop_hands_its_run_over() {
    let server = TestServer::start().await;
    let mut orchestrators = cast(&server, &slow_story(0), &[Role::Orchestrator, Role::Orchestrator]).await;
    let _workers = cast(&server, &slow_story(1_500), &SLOW_CAST).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    let (_, claimed) = events.event(EventKind::Claimed, None, 1).await;
    events.event(EventKind::Started, Some(Role::Documenter), 1).await;
    let mut stopped = take(&mut orchestrators, pid_of(&claimed));
    let told = std::time::Instant::now();
    stopped.signal("TERM");
    let (at, _) = events.event(EventKind::Claimed, None, 2).await;
    println!("measured: handover after SIGTERM of an orchestrator in {} ms", (at - told).as_millis());
    assert!(at - told < ACK_WAIT / 2, "handed over after {:?}", at - told);
    assert_eq!(stopped.exit_code().await, Some(0), "{}", stopped.log_text());
    let record = ended(&server, &run).await;
    assert_eq!(record.takeovers, 0);
    assert_one_of_everything(&server, &run).await;
    server.assert_nothing_left().await;
}

/// A slot that stops pulling must not be given what another slot of the same process hands back.
#[tokio::test(flavor = "multi_thread")]
async fn many_runs_are_handed_over_at_once() {
    const RUNS: usize = 24;
    let server = TestServer::start().await;
    let mut first = cast(&server, &slow_story(0), &[Role::Orchestrator]).await.remove(0);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(submit(&server, "make it").await);
    }
    events.event(EventKind::Claimed, None, RUNS).await;
    let _second = cast(&server, &slow_story(0), &[Role::Orchestrator]).await;
    let told = std::time::Instant::now();
    first.signal("TERM");
    let (at, _) = events.event(EventKind::Claimed, None, 2 * RUNS).await;
    assert_eq!(first.exit_code().await, Some(0), "{}", first.log_text());
    println!("measured: {RUNS} runs handed over within {} ms after SIGTERM", (at - told).as_millis());
    assert!(at - told < ACK_WAIT / 2, "the last run was handed over after {:?}", at - told);
    let _workers = cast(&server, &slow_story(0), &SLOW_CAST).await;
    for run in &runs {
        assert_eq!(ended(&server, run).await.takeovers, 0);
        assert_one_of_everything(&server, run).await;
    }
    server.assert_nothing_left().await;
}

/// One coder busy for so long, and another to take over.
async fn busy_coder(server: &TestServer, latency_ms: u64, grace: &str) -> (Worker, oarlock::wire::Task, Ear) {
    let events = Ear::on(server, "oarlock.event.>").await;
    let story = script(&[json_rule(Role::Coder, latency_ms, &one_file("x = 1"))]);
    let worker = server.worker_with(Role::Coder, &story, &["--slots", "1", "--grace", grace]).await;
    let work = task(Role::Coder, "write it", Duration::from_secs(60));
    enqueue(server, &work).await;
    events.event(EventKind::Started, Some(Role::Coder), 1).await;
    (worker, work, events)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_stop_finishes_what_it_has() {
    let server = TestServer::start().await;
    let (mut worker, work, events) = busy_coder(&server, 1_000, "15").await;
    let waiting = task(Role::Coder, "write more", Duration::from_secs(60));
    enqueue(&server, &waiting).await;
    worker.signal("TERM");
    assert_eq!(worker.exit_code().await, Some(0), "{}", worker.log_text());
    let reply = server.store.results.get(&subject_of(&work)).await.unwrap().expect("a reply before the end");
    assert!(reply.worker.ends_with(&format!(":{}", worker.pid())), "{reply:?}");
    assert_eq!(events.events(EventKind::Started).len(), 1, "it took nothing new");
    let next = server.worker(Role::Coder, &script(&[json_rule(Role::Coder, 0, &one_file("x = 1"))])).await;
    until("the task that waited", async || server.store.results.get(&subject_of(&waiting)).await.unwrap().is_some())
        .await;
    server.assert_nothing_left().await;
    drop(next);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_may_not_finish_hands_its_task_back() {
    let server = TestServer::start().await;
    let (mut worker, work, events) = busy_coder(&server, 30_000, "0.3").await;
    let quick = script(&[json_rule(Role::Coder, 0, &one_file("x = 1"))]);
    let next = server.worker(Role::Coder, &quick).await;
    let told = std::time::Instant::now();
    worker.signal("TERM");
    assert_eq!(worker.exit_code().await, Some(0), "{}", worker.log_text());
    let ended = told.elapsed();
    let (at, again) = events.event(EventKind::Started, Some(Role::Coder), 2).await;
    println!(
        "measured: handed back {} ms after SIGTERM, ended after {} ms",
        (at - told).as_millis(),
        ended.as_millis()
    );
    assert_eq!(pid_of(&again), next.pid());
    assert!(at - told < ACK_WAIT, "handed back after {:?}, not by a redelivery", at - told);
    assert!(ended < Duration::from_secs(5), "its end took {ended:?}");
    until("the reply", async || server.store.results.get(&subject_of(&work)).await.unwrap().is_some()).await;
    server.assert_nothing_left().await;
}

/// A server whose store outlives it, its folder and its port.
pub async fn lasting() -> (TestServer, PathBuf, u16) {
    let folder = tempfile::Builder::new().prefix("oarlock-test-").tempdir().unwrap();
    let home = folder.path().join("nats");
    let config = EmbeddedConfig { sources: sources(), storage: Storage::Folder(home.clone()), sync_always: false };
    let server = Embedded::start(&config).await.unwrap();
    let bus = connect(server.url()).await;
    bus.declare(&StreamSettings { ack_wait: ACK_WAIT, ..StreamSettings::default() }).await.unwrap();
    let server = TestServer { store: Store::new(&bus), bus, server, folder };
    let port: u16 = server.url().rsplit(':').next().unwrap().parse().unwrap();
    (server, home, port)
}

/// A server that was killed and started again on its port, with its store.
pub struct Revived(Child);

impl Revived {
    pub fn start(binary: &PathBuf, config: &std::path::Path, port: u16) -> Self {
        let mut command = Command::new(binary);
        command.arg("-c").arg(config).args(["-a", "127.0.0.1", "-p", &port.to_string()]);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Revived {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn kill_9(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_the_middle_of_a_run_and_started_again_has_lost_nothing() {
    let (server, home, port) = lasting().await;
    let binary = sources().find().await.unwrap();

    let _orchestrator = cast(&server, &slow_story(0), &[Role::Orchestrator]).await;
    let _workers = cast(&server, &slow_story(1_000), &SLOW_CAST).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    events.event(EventKind::Started, Some(Role::Documenter), 1).await;

    kill_9(server.server.pid().unwrap());
    until("the port to be free", async || TcpListener::bind(("127.0.0.1", port)).is_ok()).await;
    let first = Revived::start(&binary, &home.join("nats-embedded.conf"), port);
    let up = std::time::Instant::now();
    until("the server to have its store again", async || server.store.runs.record(&run).await.is_ok()).await;
    assert_ne!(record(&server, &run).await.plan, 0, "the plan was acknowledged before the kill");
    ended(&server, &run).await;
    println!("measured: run completed {} ms after the killed server was started again", up.elapsed().as_millis());
    assert_one_of_everything(&server, &run).await;

    // And once more, while nothing runs: the fleet still serves afterwards.
    drop(first);
    until("the port to be free", async || TcpListener::bind(("127.0.0.1", port)).is_ok()).await;
    let _second = Revived::start(&binary, &home.join("nats-embedded.conf"), port);
    until("the doors to answer again", async || {
        let asked = server.bus.client.request("oarlock.control.list", "".into()).await;
        asked.is_ok_and(|answer| String::from_utf8_lossy(&answer.payload).contains(run.as_str()))
    })
    .await;
    let next = submit(&server, "make it again").await;
    ended(&server, &next).await;
    assert_one_of_everything(&server, &next).await;
    server.assert_nothing_left().await;
}
