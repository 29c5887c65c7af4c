//! Clocks that are wrong: a worker an hour ahead, an orchestrator an hour behind, and the other way round. No decision
//! hangs on them: nothing times out early, nothing late, nothing is lost.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use oarlock::wire::{EventKind, FailureKind, Role, RunStatus};

use crate::harness::{TestServer, Worker, have, scripts};
use crate::story::{
    Ear, SLOW_CAST, assert_one_content_each, assert_one_of_everything, cast, cast_with, ended, pid_of, record, result,
    slow_story, submit, take,
};

const AHEAD: &str = "+1h";
const BEHIND: &str = "-1h";
const HOUR_S: i64 = 3600;
/// How far from an hour a clock may be, for what a slow machine does in between.
const SLACK_S: i64 = 300;
/// Where Debian and its kin put the library.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

fn library() -> Option<&'static str> {
    let found = LIBRARIES.into_iter().find(|path| Path::new(path).exists());
    have("faketime", found.is_some(), "apt-get install faketime").then_some(found).flatten()
}

/// The environment of a process whose clock is off. Like a real clock that is wrong, it runs at the right pace.
fn off<'a>(library: &'a str, by: &'a str) -> [(&'a str, &'a str); 3] {
    [("LD_PRELOAD", library), ("FAKETIME", by), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]
}

fn now_s() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn is_off(seen_s: i64, by: &str) -> bool {
    let expected = if by == AHEAD { HOUR_S } else { -HOUR_S };
    (seen_s - now_s() - expected).abs() < SLACK_S
}

/// The time that a process writes in front of each line of its log.
fn clock_of(worker: &Worker) -> i64 {
    let log = worker.log_text();
    let at = log.lines().last().unwrap().split_whitespace().next().unwrap();
    let format = &time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::parse(at, format).unwrap_or_else(|error| panic!("{at}: {error}")).unix_timestamp()
}

/// One orchestrator and the workers of the demo, with these clocks.
async fn a_fleet(orchestrator: &str, workers: &str) {
    let Some(library) = library() else { return };
    let server = TestServer::start().await;
    let first = cast_with(&server, scripts::FIBONACCI, &[Role::Orchestrator], &off(library, orchestrator)).await;
    let rest: Vec<Role> = Role::ALL.into_iter().filter(|role| *role != Role::Orchestrator).collect();
    let rest = cast_with(&server, scripts::FIBONACCI, &rest, &off(library, workers)).await;
    let run = submit(&server, "Write a function to calculate fibonacci").await;
    let ended = ended(&server, &run).await;
    assert!(is_off(ended.submitted_at, orchestrator), "the orchestrator's clock is right: {}", ended.submitted_at);
    for (worker, by) in first.iter().map(|worker| (worker, orchestrator)).chain(rest.iter().map(|one| (one, workers))) {
        assert!(is_off(clock_of(worker), by), "the clock of the {} is right", worker.role);
    }
    assert_one_of_everything(&server, &run).await;
    assert!(result(&server, &run).await.text().contains("def fibonacci"));
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_ahead_and_an_orchestrator_behind_complete_a_run() {
    a_fleet(BEHIND, AHEAD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_behind_and_an_orchestrator_ahead_complete_a_run() {
    a_fleet(AHEAD, BEHIND).await;
}

/// The limit of a task counts on through a takeover, though the second orchestrator's clock is two hours off the first one's.
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_between_clocks_two_hours_apart_keeps_the_run_and_its_limits() {
    let Some(library) = library() else { return };
    for (first, second) in [(AHEAD, BEHIND), (BEHIND, AHEAD)] {
        let server = TestServer::start().await;
        let mut one = cast_with(&server, &slow_story(0), &[Role::Orchestrator], &off(library, first)).await.remove(0);
        let _workers = cast(&server, &slow_story(1_000), &SLOW_CAST).await;
        let events = Ear::on(&server, "oarlock.event.>").await;
        let tasks = Ear::on(&server, "oarlock.task.>").await;
        let run = submit(&server, "make it").await;
        events.event(EventKind::Started, Some(Role::Documenter), 1).await;
        one = {
            one.kill_9();
            cast_with(&server, &slow_story(0), &[Role::Orchestrator], &off(library, second)).await.remove(0)
        };
        let (_, again) = events.event(EventKind::Claimed, None, 2).await;
        assert_eq!(pid_of(&again), one.pid());
        let ended = ended(&server, &run).await;
        assert!(is_off(ended.submitted_at, first) && is_off(clock_of(&one), second), "the clocks are right");
        assert_one_of_everything(&server, &run).await;
        assert_one_content_each(&tasks);
        assert_eq!(events.events(EventKind::Started).len(), 4, "no task was done twice, and none was late");
        server.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_nobody_does_times_out_at_its_limit_on_any_clock() {
    const LIMIT_S: u64 = 4;
    let Some(library) = library() else { return };
    for by in [AHEAD, BEHIND] {
        let server = TestServer::start().await;
        let limit = [("OARLOCK_TIMEOUT_S", "4")];
        let mut all =
            cast_with(&server, &slow_story(0), &[Role::Orchestrator], &[&off(library, by)[..], &limit].concat()).await;
        // Nobody documents.
        let roles = [Role::Planner, Role::Researcher, Role::Synthesizer];
        all.extend(
            cast_with(&server, &slow_story(0), &roles, &off(library, if by == AHEAD { BEHIND } else { AHEAD })).await,
        );
        let events = Ear::on(&server, "oarlock.event.>").await;
        let run = submit(&server, "make it").await;
        let (asked, _) = events.event(EventKind::Dispatched, Some(Role::Documenter), 1).await;
        // A second holder counts from the server's time of the request.
        let pid = all[0].pid();
        take(&mut all, pid).kill_9();
        let _second =
            cast_with(&server, &slow_story(0), &[Role::Orchestrator], &[&off(library, by)[..], &limit].concat()).await;
        assert_eq!(ended(&server, &run).await.status, RunStatus::Failed);
        let took = Instant::now() - asked;
        println!("measured: a limit of {LIMIT_S} s was over after {} ms on clocks an hour off", took.as_millis());
        let result = result(&server, &run).await;
        assert_eq!(result.failure().expect("a failure").kind, FailureKind::Timeout, "{result:?}");
        let slack = Duration::from_secs(6);
        assert!(
            took >= Duration::from_secs(LIMIT_S) && took < Duration::from_secs(LIMIT_S) + slack,
            "it took {took:?}"
        );
        assert!(is_off(record(&server, &run).await.submitted_at, by), "the clock is right");
    }
}
