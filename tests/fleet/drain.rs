//! Processes that are told to stop, one after the other, while the fleet is busy: each ends in order, nothing is lost, and
//! what could not be finished is begun elsewhere at once.

use std::time::{Duration, Instant};

use oarlock::wire::{EventKind, Role, RunStatus};
use serde_json::json;

use crate::cancel::{alive, inside_pytest};
use crate::harness::{TestServer, Worker, until};
use crate::story::{
    Ear, SLOW_CAST, assert_one_content_each, assert_one_of_everything, cast, enqueue, json_rule, pid_of, plan_rule,
    script, slow_story, subject_of, submit, take, task, text_rule,
};

/// How soon what was handed back is begun elsewhere.
const ELSEWHERE: Duration = Duration::from_secs(1);
/// Grace of the processes in these tests that may finish.
const GRACE_S: u64 = 15;

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_every_role_loses_nothing() {
    /// Runs that are given to the fleet before each restart.
    const RUNS: usize = 3;
    let server = TestServer::start().await;
    let story = slow_story(300);
    let grace = GRACE_S.to_string();
    let roles = [&SLOW_CAST[..], &[Role::Orchestrator]].concat();
    let mut processes = Vec::new();
    for role in roles.iter().chain(&roles) {
        processes.push(server.worker_with(*role, &story, &["--grace", &grace]).await);
    }
    let (events, tasks) = (Ear::on(&server, "oarlock.event.>").await, Ear::on(&server, "oarlock.task.>").await);
    let mut runs = Vec::new();
    let mut longest = Duration::ZERO;
    for _ in 0..processes.len() {
        for _ in 0..RUNS {
            runs.push(submit(&server, "make it").await);
        }
        let mut old: Worker = processes.remove(0);
        let told = Instant::now();
        old.signal("TERM");
        processes.push(server.worker_with(old.role, &story, &["--grace", &grace]).await);
        assert_eq!(old.exit_code().await, Some(0), "{}", old.log_text());
        longest = longest.max(told.elapsed());
    }
    println!(
        "measured: {} runs through {} restarts, the longest drain {} ms",
        runs.len(),
        processes.len(),
        longest.as_millis()
    );
    assert!(longest < Duration::from_secs(GRACE_S), "a drain took {longest:?}");
    for run in &runs {
        assert_eq!(crate::story::ended(&server, run).await.takeovers, 0);
        assert_one_of_everything(&server, run).await;
    }
    server.assert_nothing_left().await;
    assert_one_content_each(&tasks);
    assert_eq!(events.events(EventKind::Started).len(), 4 * runs.len(), "who may finish does not hand back");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_finished_is_elsewhere_at_once() {
    const ROUNDS: usize = 5;
    const TASKS: usize = 4;
    let server = TestServer::start().await;
    let endless = script(&[text_rule(Role::Documenter, 60_000, "# It")]);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let mut holder = server.worker_with(Role::Documenter, &endless, &["--grace", "0"]).await;
    let work: Vec<_> = (0..TASKS).map(|_| task(Role::Documenter, "describe it", Duration::from_secs(120))).collect();
    for task in &work {
        enqueue(&server, task).await;
    }
    events.event(EventKind::Started, Some(Role::Documenter), TASKS).await;
    let mut measured_ms = Vec::new();
    for round in 1..=ROUNDS {
        let next = server.worker_with(Role::Documenter, &endless, &["--grace", "0"]).await;
        let told = Instant::now();
        holder.signal("TERM");
        for number in 1..=TASKS {
            let (at, event) = events.event(EventKind::Started, Some(Role::Documenter), round * TASKS + number).await;
            assert_eq!(pid_of(&event), next.pid());
            measured_ms.push((at - told).as_millis());
            assert!(at - told < ELSEWHERE, "begun elsewhere after {:?}", at - told);
        }
        assert_eq!(holder.exit_code().await, Some(0), "{}", holder.log_text());
        holder = next;
    }
    measured_ms.sort_unstable();
    let (middle, longest) = (measured_ms[measured_ms.len() / 2], measured_ms[measured_ms.len() - 1]);
    println!(
        "measured: from SIGTERM with no grace to begun elsewhere {middle} ms (median of {}), {longest} ms at most",
        measured_ms.len()
    );
    let quick = script(&[text_rule(Role::Documenter, 0, "# It\n\nIt is made.")]);
    let _last = server.worker_with(Role::Documenter, &quick, &[]).await;
    holder.signal("TERM");
    for task in &work {
        until("the reply", async || server.store.results.get(&subject_of(task)).await.unwrap().is_some()).await;
        assert!(server.store.results.get(&subject_of(task)).await.unwrap().unwrap().failure().is_none());
    }
    server.assert_nothing_left().await;
}

/// A test run in the sandbox is work like any other: it is stopped, whole, and begun elsewhere.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_test_run_that_may_not_be_finished_leaves_no_sandbox_behind() {
    let server = TestServer::start().await;
    let test = "import time\n\ndef test_x():\n    time.sleep(4)\n";
    let files = json!([{ "path": "made.py", "content": "x = 1\n" }, { "path": "test_made.py", "content": test }]);
    let story = script(&[
        plan_rule(&[(Role::Coder, &[]), (Role::Qa, &[1])]),
        json_rule(Role::Coder, 0, &json!({ "files": files, "deleted": [], "summary": "x" })),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ]);
    let _fleet = cast(&server, &story, &[Role::Orchestrator, Role::Planner, Role::Coder, Role::Synthesizer]).await;
    let mut testers = vec![
        server.worker_with(Role::Qa, &story, &["--grace", "0"]).await,
        server.worker_with(Role::Qa, &story, &["--grace", "0"]).await,
    ];
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    let (_, started) = events.event(EventKind::Started, Some(Role::Qa), 1).await;
    let mut holder = take(&mut testers, pid_of(&started));
    let inside = inside_pytest(holder.pid()).await;
    let told = Instant::now();
    holder.signal("TERM");
    let (at, again) = events.event(EventKind::Started, Some(Role::Qa), 2).await;
    assert_eq!(pid_of(&again), testers[0].pid());
    println!("measured: a test run begun elsewhere {} ms after SIGTERM", (at - told).as_millis());
    assert!(at - told < ELSEWHERE, "begun elsewhere after {:?}", at - told);
    assert_eq!(holder.exit_code().await, Some(0), "{}", holder.log_text());
    until("its sandbox to be gone", async || !inside.iter().any(alive)).await;
    assert!(told.elapsed() < Duration::from_secs(4), "it was gone only with the test itself");
    assert_eq!(crate::story::ended(&server, &run).await.status, RunStatus::Completed);
    assert_one_of_everything(&server, &run).await;
    server.assert_nothing_left().await;
}
