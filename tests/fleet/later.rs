//! What is to come at a time comes at that time, whoever was killed in between: a new attempt after its pause, the end of a
//! task that nobody answers. And what does not come any more leaves nothing behind.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use oarlock::bus::StreamSettings;
use oarlock::wire::subject::TaskSubject;
use oarlock::wire::{EventKind, FailureKind, Role, RunId, RunStatus, TaskId};
use serde_json::{Value, json};

use crate::crash::{Revived, kill_9, lasting};
use crate::harness::{TestServer, Worker, sources, until};
use crate::story::{
    Ear, SLOW_CAST, assert_one_of_everything, cast, cast_with, findings, json_rule, plan_rule, record, result, script,
    slow_story, submit, text_rule,
};

/// How far from its time something may happen.
const EXACT: Duration = Duration::from_secs(1);
/// What a client hears may be a little older than what the server wrote down.
const EARLY: Duration = Duration::from_millis(150);

/// A run whose documenter is cut off at its first `failures` attempts.
fn cut_off(failures: u32) -> String {
    let mut rules = vec![
        plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]),
        json_rule(Role::Researcher, 0, &findings()),
    ];
    for attempt in 1..=failures {
        let cut = json!({ "content": "# It", "finish": "length" });
        rules.push(json!({ "match": { "role": "documenter", "attempt": attempt }, "response": cut }));
    }
    rules.push(text_rule(Role::Documenter, 0, "# It\n\nIt is made."));
    rules.push(text_rule(Role::Synthesizer, 0, "It is made."));
    script(&rules)
}

/// A folder of roles whose documenter has this policy.
fn roles(server: &TestServer, retry: &str) -> String {
    let folder = server.folder.path().join("roles");
    std::fs::create_dir_all(&folder).unwrap();
    let built_in = include_str!("../../roles/documenter.md");
    let with_policy = built_in.replacen("limits:", &format!("retry: {retry}\nlimits:"), 1);
    std::fs::write(folder.join("documenter.md"), with_policy).unwrap();
    folder.display().to_string()
}

async fn orchestrators(server: &TestServer, count: usize, environment: &[(&str, &str)]) -> Vec<Worker> {
    cast_with(server, &slow_story(0), &vec![Role::Orchestrator; count], environment).await
}

/// Nothing waits for its time any more.
async fn assert_nothing_later(server: &TestServer) {
    until("the schedule to be empty", async || {
        let stream = server.bus.js.get_stream(server.bus.root.later_stream()).await.unwrap();
        stream.cached_info().state.messages == 0
    })
    .await;
}

/// From the failure of an attempt of the documenter to the beginning of the next, with the pause that there should be.
async fn assert_pause(events: &Ear, failure: usize, pause: Duration) {
    let (failed, event) = events.event(EventKind::Failed, Some(Role::Documenter), failure).await;
    let (begun, next) = events.event(EventKind::Started, Some(Role::Documenter), failure + 1).await;
    assert_eq!((event.attempt, next.attempt), (Some(failure as u32), Some(failure as u32 + 1)));
    let waited = begun - failed;
    println!(
        "measured: attempt {} began {} ms after the failure, wanted {}",
        failure + 1,
        waited.as_millis(),
        pause.as_millis()
    );
    assert!(waited + EARLY >= pause && waited <= pause + EXACT, "{waited:?} instead of {pause:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_and_pauses_are_those_of_the_role_s_policy() {
    let server = TestServer::start().await;
    let roles = roles(&server, "{ attempts: 2, delay_s: 1.5, factor: 2, jitter: 0 }");
    let _orchestrator = orchestrators(&server, 1, &[("OARLOCK_ROLES", &roles)]).await;
    let workers = cast(&server, &cut_off(2), &SLOW_CAST).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    assert_pause(&events, 1, Duration::from_millis(1_500)).await;
    assert_pause(&events, 2, Duration::from_secs(3)).await;
    assert_eq!(crate::story::ended(&server, &run).await.status, RunStatus::Completed);
    assert_eq!(events.events(EventKind::Started).len(), 6, "four tasks, one of them three times");
    assert_eq!(record(&server, &run).await.takeovers, 0);
    server.assert_nothing_left().await;
    assert_nothing_later(&server).await;

    // One failure more than the policy allows.
    drop(workers);
    let _workers = cast(&server, &cut_off(3), &SLOW_CAST).await;
    let run = submit(&server, "make it again").await;
    assert_eq!(crate::story::ended(&server, &run).await.status, RunStatus::Failed);
    let reply = result(&server, &run).await;
    let failure = reply.failure().unwrap();
    assert_eq!(failure.kind, FailureKind::ModelCutOff);
    assert!(failure.message.contains("t2 3 times (retry attempts 2)"), "{failure}");
    server.assert_nothing_left().await;
    assert_nothing_later(&server).await;
}

/// A run that is canceled in the pause never begins the attempt.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_of_a_canceled_run_does_not_come() {
    let server = TestServer::start().await;
    let roles = roles(&server, "{ attempts: 2, delay_s: 2, jitter: 0 }");
    let _orchestrator = orchestrators(&server, 1, &[("OARLOCK_ROLES", &roles)]).await;
    let _workers = cast(&server, &cut_off(1), &SLOW_CAST).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    let (failed, _) = events.event(EventKind::Failed, Some(Role::Documenter), 1).await;
    events.event(EventKind::Dispatched, Some(Role::Documenter), 2).await;
    let canceled = server.request("oarlock.control.cancel", run.to_string()).await;
    assert_eq!(canceled.error_code(), "", "{}", canceled.text());
    server.assert_nothing_left().await;
    assert_nothing_later(&server).await;
    until("its time to be over", async || failed.elapsed() > Duration::from_millis(3_200)).await;
    let begun = events.events(EventKind::Started);
    assert_eq!(begun.iter().filter(|(_, event)| event.role == Some(Role::Documenter)).count(), 1);
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_comes_at_its_time_although_everybody_and_the_server_was_killed() {
    const PAUSE: Duration = Duration::from_secs(6);
    let (server, home, port) = lasting().await;
    let binary = sources().find().await.unwrap();
    let roles = roles(&server, "{ attempts: 2, delay_s: 6, jitter: 0 }");
    let mut all = orchestrators(&server, 2, &[("OARLOCK_ROLES", &roles)]).await;
    all.extend(cast(&server, &cut_off(1), &SLOW_CAST).await);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    events.event(EventKind::Dispatched, Some(Role::Documenter), 2).await;
    all.into_iter().for_each(Worker::kill_9);
    kill_9(server.server.pid().unwrap());
    until("the port to be free", async || TcpListener::bind(("127.0.0.1", port)).is_ok()).await;
    let _revived = Revived::start(&binary, &home.join("nats-embedded.conf"), port);
    until("the server to have its store again", async || server.store.runs.record(&run).await.is_ok()).await;
    let _orchestrators = orchestrators(&server, 2, &[("OARLOCK_ROLES", &roles)]).await;
    let _workers = cast(&server, &cut_off(1), &SLOW_CAST).await;
    assert_pause(&events, 1, PAUSE).await;
    assert_eq!(crate::story::ended(&server, &run).await.status, RunStatus::Completed);
    assert_eq!(events.events(EventKind::Started).len(), 5, "four tasks, one of them twice");
    server.assert_nothing_left().await;
    assert_nothing_later(&server).await;
}

/// When the server stored the request for a task, and when its reply.
async fn asked_and_answered(server: &TestServer, run: &RunId, role: Role, task: TaskId) -> (i64, i64) {
    let history = server.store.runs.history(run).await.unwrap();
    let asked = history.iter().find(|entry| entry.message.metadata.task == task).expect("a request").at;
    let root = &server.bus.root;
    let subject = root.result(&TaskSubject { role, run: run.clone(), task, attempt: 1 });
    let replies = server.bus.scan(&root.results_stream(), &subject).await.unwrap();
    (asked, replies.first().expect("a reply").at)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_declared_in_time_although_the_holder_is_dead() {
    const LIMIT_S: &str = "5";
    const LIMIT_NS: i64 = 5_000_000_000;
    // A redelivery would come far too late.
    let settings = StreamSettings { ack_wait: Duration::from_secs(20), ..StreamSettings::default() };
    let server = TestServer::with(&settings).await;
    let environment = [("OARLOCK_TIMEOUT_S", LIMIT_S)];
    let holder = orchestrators(&server, 1, &environment).await.remove(0);
    let _workers = cast(&server, &slow_story(0), &[Role::Planner, Role::Researcher]).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    let (asked, _) = events.event(EventKind::Dispatched, Some(Role::Documenter), 1).await;
    until("the alarm to be set", async || {
        let later = server.bus.scan(&server.bus.root.later_stream(), &server.bus.root.alarms_of(&run)).await.unwrap();
        !later.is_empty()
    })
    .await;
    holder.kill_9();
    until("the deadline to come near", async || asked.elapsed() > Duration::from_millis(3_000)).await;
    let _other = orchestrators(&server, 1, &environment).await;
    assert_eq!(crate::story::ended(&server, &run).await.status, RunStatus::Failed);
    let (asked, answered) = asked_and_answered(&server, &run, Role::Documenter, TaskId::planned(2)).await;
    let late_ms = (answered - asked - LIMIT_NS) / 1_000_000;
    println!("measured: the deadline was declared {late_ms} ms after its time");
    assert!((0..=1_000).contains(&late_ms), "declared {late_ms} ms after its time");
    let reply = result(&server, &run).await;
    let failure = reply.failure().unwrap();
    assert!(
        failure.kind == FailureKind::Timeout && failure.message.contains("no worker of role documenter"),
        "{failure}"
    );
    let record = record(&server, &run).await;
    assert_eq!((record.takeovers, &record.owner), (0, &None), "an alarm is no takeover");
    assert_nothing_later(&server).await;
}

/// Each task takes longer than the alarm of the one before would need to ring.
#[tokio::test(flavor = "multi_thread")]
async fn a_living_holder_is_not_disturbed_by_its_own_alarms() {
    let server = TestServer::start().await;
    let _holders = orchestrators(&server, 2, &[("OARLOCK_TIMEOUT_S", "4")]).await;
    let slow = |role: Role, answer: Value| json_rule(role, 1_700, &answer);
    let story = script(&[
        plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1]), (Role::Researcher, &[2])]),
        slow(Role::Researcher, findings()),
        text_rule(Role::Documenter, 1_700, "# It\n\nIt is made."),
        text_rule(Role::Synthesizer, 1_700, "It is made."),
    ]);
    let _workers = cast(&server, &story, &SLOW_CAST).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let held = Ear::on(&server, "oarlock.task.orchestrator.>").await;
    let started = Instant::now();
    let run = submit(&server, "make it").await;
    assert_eq!(crate::story::ended(&server, &run).await.status, RunStatus::Completed);
    assert!(started.elapsed() > Duration::from_secs(6), "longer than any one deadline");
    assert_one_of_everything(&server, &run).await;
    assert_eq!(events.events(EventKind::Claimed).len(), 1);
    assert_eq!(record(&server, &run).await.takeovers, 0);
    let rung: Vec<_> = held.all().into_iter().map(|(_, subject, _)| subject).collect();
    assert_eq!(rung.len(), 1, "an alarm rang although its holder was alive: {rung:?}");
    server.assert_nothing_left().await;
    assert_nothing_later(&server).await;
}
