//! The host of a process is cut off while it works: somebody else goes on, and whoever comes back late changes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use oarlock::wire::{EventKind, Role, TaskId};

use crate::harness::{TestServer, Worker, until};
use crate::leader::end;
use crate::story::{
    ACK_WAIT, Ear, SLOW_CAST, assert_one_content_each, assert_one_of_everything, cast, ended, enqueue, findings,
    json_rule, pid_of, plan_rule, record, result, script, subject_of, submit, task, text_rule,
};

/// How long the task takes in whose middle a host is cut off; shorter than a worker takes to look whether its task was
/// decided without it, so that its reply is under way before it knows.
const TASK_MS: u64 = 2_000;
/// How much later than `ack_wait` somebody else may begin: what goes to an open pull of the lost host waits once more.
const SLACK: Duration = Duration::from_secs(20);

/// How long a caller waits who means to ask again; what was sent to a host that is cut off is lost.
const IMPATIENT: Duration = Duration::from_secs(3);

/// A run whose first task is the slow one, and writes no file.
fn story() -> String {
    script(&[
        plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]),
        json_rule(Role::Researcher, TASK_MS, &findings()),
        text_rule(Role::Documenter, 50, "# It\n\nIt is made."),
        text_rule(Role::Synthesizer, 50, "It is made."),
    ])
}

/// Two processes of `role`, each on a host of its own, and the rest of the story's cast beside the test.
async fn two_hosts(role: Role) -> Option<(TestServer, Vec<(crate::net::Host, Worker)>, Vec<Worker>)> {
    let server = TestServer::start().await?;
    let mut rest: Vec<Role> = [&SLOW_CAST[..], &[Role::Orchestrator]].concat();
    rest.retain(|other| *other != role);
    let mut pair = Vec::new();
    for _ in 0..2 {
        let host = server.host();
        let worker = Worker::on(&host, &server, role, &story()).await;
        pair.push((host, worker));
    }
    let others = cast(&server, &story(), &rest).await;
    server.whole().await;
    Some((server, pair, others))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_cut_off_loses_its_task_and_its_late_reply() {
    let Some((server, mut pair, mut workers)) = two_hosts(Role::Researcher).await else { return };
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    let (_, started) = events.event(EventKind::Started, Some(Role::Researcher), 1).await;
    let lost = pair.iter().position(|(_, worker)| worker.pid() == pid_of(&started)).unwrap();
    let (host, worker) = pair.swap_remove(lost);
    let (_, other) = pair.remove(0);
    host.cut();
    let cut = Instant::now();
    let (at, again) = events.event(EventKind::Started, Some(Role::Researcher), 2).await;
    println!("measured: task of a cut-off worker begun by another after {} ms", (at - cut).as_millis());
    assert_eq!(pid_of(&again), other.pid());
    assert!(at - cut <= ACK_WAIT + SLACK, "begun again after {:?}", at - cut);
    ended(&server, &run).await;
    let before = server.store.results.of_run(&run).await.unwrap();
    assert!(!worker.log_text().contains("another reply was first"));

    host.heal();
    let healed = Instant::now();
    until("the late reply to be refused", async || worker.log_text().contains("another reply was first")).await;
    println!("measured: late reply refused {} ms after the link was back", healed.elapsed().as_millis());
    assert_eq!(server.store.results.of_run(&run).await.unwrap(), before, "the late reply changed nothing");
    let written = before.iter().find(|(to, _)| to.role == Role::Researcher).unwrap();
    assert!(written.1.worker.ends_with(&format!(":{}", other.pid())), "{written:?}");
    assert_one_of_everything(&server, &run).await;

    // It serves again, alone.
    drop(other);
    let next = task(Role::Researcher, "find more", Duration::from_secs(60));
    enqueue(&server, &next).await;
    until("the healed worker to work", async || server.store.results.get(&subject_of(&next)).await.unwrap().is_some())
        .await;
    server.assert_nothing_left().await;
    workers.push(worker);
    end(Arc::new(server), workers);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_is_cut_off_is_replaced_and_changes_nothing_when_it_is_back() {
    let Some((server, mut pair, mut workers)) = two_hosts(Role::Orchestrator).await else { return };
    let events = Ear::on(&server, "oarlock.event.>").await;
    let tasks = Ear::on(&server, "oarlock.task.>").await;
    let run = submit(&server, "make it").await;
    let (_, claimed) = events.event(EventKind::Claimed, None, 1).await;
    events.event(EventKind::Started, Some(Role::Researcher), 1).await;
    let lost = pair.iter().position(|(_, worker)| worker.pid() == pid_of(&claimed)).unwrap();
    let (host, worker) = pair.swap_remove(lost);
    let (_, other) = pair.remove(0);
    host.cut();
    let cut = Instant::now();
    let (at, again) = events.event(EventKind::Claimed, None, 2).await;
    println!("measured: run of a cut-off orchestrator taken over after {} ms", (at - cut).as_millis());
    assert_eq!(pid_of(&again), other.pid());
    assert!(at - cut <= ACK_WAIT + SLACK, "taken over after {:?}", at - cut);
    ended(&server, &run).await;
    let kept = server.store.runs.record(&run).await.unwrap().unwrap();
    let (first, sent) = (result(&server, &run).await, tasks.all().len());

    host.heal();
    // It serves again, alone, so it has long read what came of its run.
    drop(other);
    let healed = Instant::now();
    let next = submit_again(&server).await;
    println!("measured: its door takes goals {} ms after the link was back", healed.elapsed().as_millis());
    ended(&server, &next).await;
    println!("measured: a new run done {} ms after the link was back", healed.elapsed().as_millis());
    assert_one_of_everything(&server, &next).await;
    assert_one_of_everything(&server, &run).await;
    let now = server.store.runs.record(&run).await.unwrap().unwrap();
    assert_eq!((now.revision, result(&server, &run).await), (kept.revision, first), "it changed nothing");
    assert_eq!(record(&server, &run).await.takeovers, 1);
    let of_run = |(_, subject, _): &&(Instant, String, bytes::Bytes)| subject.contains(run.as_str());
    let start =
        tasks.all().iter().filter(of_run).filter(|(_, subject, _)| subject.contains(TaskId::start().as_str())).count();
    assert_eq!(start, 1);
    assert_eq!(tasks.all().iter().filter(of_run).count(), sent, "it sent nothing more for its old run");
    assert_one_content_each(&tasks);
    server.assert_nothing_left().await;
    workers.push(worker);
    end(Arc::new(server), workers);
}

/// A goal at the only door that is left, which may be slow to be found again.
async fn submit_again(server: &TestServer) -> oarlock::wire::RunId {
    let mut run = None;
    until("the door that is back to take a goal", async || {
        let answer = server.ask("oarlock.submit", async_nats::HeaderMap::new(), "make it again", IMPATIENT).await;
        run = answer.ok().filter(|answer| answer.error_code().is_empty()).map(|answer| answer.text());
        run.is_some()
    })
    .await;
    run.unwrap().parse().unwrap()
}
