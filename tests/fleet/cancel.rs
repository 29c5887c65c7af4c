//! Stops are facts: a cancel holds from the moment it is answered, whoever works on it, sleeps or is dead, and whoever
//! comes late changes nothing.

use std::time::{Duration, Instant};

use oarlock::bus::presence;
use oarlock::wire::subject::TaskSubject;
use oarlock::wire::{EventKind, Outcome, Role, RunId, RunStatus, TaskId};
use serde_json::{Value, json};

use crate::harness::{Reply, TestServer, Worker, ended, oarlock, until};
use crate::nats_cli::{GET_IT, cli, nats};
use crate::story::{
    Ear, SLOW_CAST, cast, enqueue, findings, json_rule, pid_of, plan_rule, record, result, script, slow_story,
    subject_of, submit, take, task, text_rule,
};

/// How long a worker may go on with what was canceled.
pub const STOP: Duration = Duration::from_secs(2);
/// A model call that nobody waits for.
const LONG_MS: u64 = 60_000;

/// Asks a control verb.
pub async fn control(server: &TestServer, verb: &str, asked: Value) -> Reply {
    let text = asked.as_str().map_or_else(|| asked.to_string(), str::to_owned);
    server.request(&format!("oarlock.control.{verb}"), text).await
}

/// Cancels, and returns what the door said.
async fn canceled(server: &TestServer, what: &str) -> Value {
    let answer = control(server, "cancel", json!(what)).await;
    assert_eq!(answer.error_code(), "", "{}", answer.text());
    serde_json::from_str(&answer.text()).unwrap()
}

/// Everything of a canceled run is as it should be; called again later, it shows that nobody changed it.
async fn assert_canceled(server: &TestServer, run: &RunId) {
    let kept = record(server, run).await;
    assert_eq!((kept.status, &kept.owner), (RunStatus::Canceled, &None));
    let whole = result(server, run).await;
    assert!(matches!(whole.outcome, Outcome::Canceled { .. }), "{whole:?}");
    let replies = server.store.results.of_run(run).await.unwrap();
    let history = server.store.runs.history(run).await.unwrap();
    assert_eq!(replies.len(), history.len() + 1, "every request has its one answer: {replies:?}");
}

/// A documenter that answers at once when it is asked for something quick, and never otherwise.
fn endless() -> String {
    let quick =
        json!({ "match": { "role": "documenter", "user_contains": "quick" }, "response": { "content": "# Quick" } });
    script(&[
        plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]),
        json_rule(Role::Researcher, 0, &findings()),
        quick,
        text_rule(Role::Documenter, LONG_MS, "# It"),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ])
}

/// The fleet of [`endless`] with a run whose documenter is in its model call.
async fn in_a_model_call(orchestrators: usize) -> (TestServer, Vec<Worker>, Vec<Worker>, Ear, RunId) {
    let server = TestServer::start().await;
    let mut holders = Vec::new();
    for _ in 0..orchestrators {
        holders.push(server.worker_with(Role::Orchestrator, &endless(), &["--slots", "2"]).await);
    }
    let mut workers = cast(&server, &endless(), &[Role::Planner, Role::Researcher, Role::Synthesizer]).await;
    workers.push(server.worker_with(Role::Documenter, &endless(), &["--slots", "1"]).await);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    events.event(EventKind::Started, Some(Role::Documenter), 1).await;
    (server, holders, workers, events, run)
}

/// The one documenter begins something new soon after `since`.
async fn assert_takes_new_work(server: &TestServer, events: &Ear, since: Instant) {
    let quick = task(Role::Documenter, "something quick", Duration::from_secs(30));
    enqueue(server, &quick).await;
    let (at, _) = events.event(EventKind::Started, Some(Role::Documenter), 2).await;
    println!("measured: new work begun {} ms after the cancel", (at - since).as_millis());
    assert!(at - since <= STOP, "the worker was free only after {:?}", at - since);
    until("the quick reply", async || server.store.results.get(&subject_of(&quick)).await.unwrap().is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_in_a_model_call_is_canceled_and_its_worker_is_free() {
    let (server, _orchestrator, _workers, events, run) = in_a_model_call(1).await;
    let stored = Ear::on(&server, "oarlock.stored.>").await;
    let told = Instant::now();
    let answer = canceled(&server, run.as_str()).await;
    assert_eq!((&answer["run"], &answer["status"]), (&json!(run), &json!("canceled")));
    assert_canceled(&server, &run).await;
    assert_takes_new_work(&server, &events, told).await;
    server.assert_nothing_left().await;

    // Again is the same; the first reason stays.
    let again = control(&server, "cancel", json!({ "run": run, "reason": "another reason" })).await;
    assert_eq!(serde_json::from_str::<Value>(&again.text()).unwrap(), answer);
    assert_eq!(again.header("Oarlock-Status"), "canceled");
    server.assert_nothing_left().await;
    assert_canceled(&server, &run).await;
    assert_eq!(result(&server, &run).await.text(), "somebody canceled it");
    let of_run = |ear: &Ear| ear.all().iter().filter(|(_, subject, _)| subject.contains(run.as_str())).count();
    assert_eq!(of_run(&stored), 2, "the run's own answer and the documenter's, once each");
    assert_eq!(events.events(EventKind::Started).iter().filter(|(_, event)| event.run == run).count(), 3);
    until("somebody to say that the run is over", async || {
        events.events(EventKind::Finished).iter().any(|(_, event)| event.run == run)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_in_the_queue_is_canceled_before_it_began() {
    let server = TestServer::start().await;
    let _orchestrator = server.worker_with(Role::Orchestrator, &endless(), &["--slots", "1"]).await;
    let _workers = cast(&server, &endless(), &SLOW_CAST).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let first = submit(&server, "make it").await;
    events.event(EventKind::Started, Some(Role::Documenter), 1).await;
    let waiting = submit(&server, "make it too").await;
    assert_eq!(record(&server, &waiting).await.status, RunStatus::Submitted);
    canceled(&server, waiting.as_str()).await;
    assert_canceled(&server, &waiting).await;
    canceled(&server, first.as_str()).await;
    server.assert_nothing_left().await;
    assert_canceled(&server, &first).await;
    assert_canceled(&server, &waiting).await;
    assert!(server.store.runs.history(&waiting).await.unwrap().is_empty(), "nothing was asked for it");
    assert!(events.events(EventKind::Claimed).iter().all(|(_, event)| event.run == first));
}

async fn failure_text(server: &TestServer, run: &RunId) -> String {
    let record = crate::story::ended(server, run).await;
    assert_eq!(record.status, RunStatus::Failed);
    result(server, run).await.text().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_task_is_canceled_and_the_run_ends_because_of_it() {
    let (server, _orchestrator, _workers, events, run) = in_a_model_call(1).await;
    for (what, code) in [
        (format!("{run}/t7"), "404"),
        (format!("{run}/t1"), "409"),
        (RunId::random().to_string(), "404"),
        ("no run!".to_owned(), "400"),
        (format!("{run}/t.1"), "400"),
    ] {
        let refused = control(&server, "cancel", json!(what)).await;
        assert_eq!(refused.error_code(), code, "{what}: {}", refused.text());
    }
    let told = Instant::now();
    let answer = control(&server, "cancel", json!({ "run": run, "task": "t2", "reason": "not needed" })).await;
    assert_eq!(answer.error_code(), "", "{}", answer.text());
    let why = failure_text(&server, &run).await;
    assert!(why.contains("t2 was canceled: not needed"), "{why}");
    assert_takes_new_work(&server, &events, told).await;
    server.assert_nothing_left().await;
    for what in [run.to_string(), format!("{run}/t2")] {
        let refused = control(&server, "cancel", json!(what)).await;
        assert_eq!(refused.error_code(), "409", "{what}: {}", refused.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_was_not_dispatched_yet_is_canceled_too() {
    let server = TestServer::start().await;
    let story = script(&[
        plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]),
        json_rule(Role::Researcher, LONG_MS, &findings()),
    ]);
    let _fleet = cast(&server, &story, &[Role::Orchestrator, Role::Planner, Role::Researcher]).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    events.event(EventKind::Started, Some(Role::Researcher), 1).await;
    canceled(&server, &format!("{run}/t2")).await;
    let why = failure_text(&server, &run).await;
    assert!(why.contains("task t2 was canceled"), "{why}");
    server.assert_nothing_left().await;
    assert!(events.events(EventKind::Dispatched).iter().all(|(_, event)| event.role != Some(Role::Documenter)));
    let other = TaskSubject { role: Role::Researcher, run: run.clone(), task: TaskId::planned(1), attempt: 1 };
    let other = server.store.results.get(&other).await.unwrap().expect("an answer for every request");
    assert!(matches!(other.outcome, Outcome::Canceled { .. }), "{other:?}");
}

/// The processes below one, each with when it began, so that no other is taken for it later; and their command lines.
pub fn below(pid: u32) -> Vec<(u32, String, String)> {
    let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything: state, parent, and 19 fields later the start.
    let field = |stat: &str, number: usize| {
        let rest = stat.rsplit(')').next().unwrap_or_default();
        rest.split_whitespace().nth(number).unwrap_or_default().to_owned()
    };
    let all: Vec<u32> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let mut found = vec![pid];
    let mut seen = 0;
    while seen < found.len() {
        let parent = found[seen].to_string();
        found.extend(all.iter().filter(|pid| field(&stat(**pid), 1) == parent));
        seen += 1;
    }
    let words = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let told = |pid: u32| (pid, field(&stat(pid), 19), String::from_utf8_lossy(&words(pid)).replace('\0', " "));
    found.into_iter().skip(1).map(told).collect()
}

pub fn alive(process: &(u32, String, String)) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.0)).unwrap_or_default();
    let rest: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    rest.first().is_some_and(|state| *state != "Z") && rest.get(19) == Some(&process.1.as_str())
}

/// The sandbox of a qa worker, once Python runs the tests in it, and not the trial that comes before.
pub async fn inside_pytest(qa: u32) -> Vec<(u32, String, String)> {
    let mut inside = Vec::new();
    until("pytest to run in the sandbox", async || {
        inside = below(qa);
        inside.iter().any(|(_, _, words)| {
            words.contains("python") && words.contains(" -m pytest ") && !words.contains("sandbox-exec")
        })
    })
    .await;
    inside
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_run_inside_pytest_is_canceled_and_the_sandbox_is_gone() {
    let server = TestServer::start().await;
    let test = "import time\n\ndef test_x():\n    while True:\n        time.sleep(0.1)\n";
    let files = json!([{ "path": "made.py", "content": "x = 1\n" }, { "path": "test_made.py", "content": test }]);
    let story = script(&[
        plan_rule(&[(Role::Coder, &[]), (Role::Qa, &[1])]),
        json_rule(Role::Coder, 0, &json!({ "files": files, "deleted": [], "summary": "x" })),
    ]);
    let mut fleet = cast(&server, &story, &[Role::Orchestrator, Role::Planner, Role::Coder, Role::Qa]).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    let (_, started) = events.event(EventKind::Started, Some(Role::Qa), 1).await;
    let qa = take(&mut fleet, pid_of(&started));
    let inside = inside_pytest(qa.pid()).await;
    let folder =
        |words: &String| words.split_whitespace().find_map(|word| Some(word.strip_prefix("directory=")?.to_owned()));
    let folders: std::collections::BTreeSet<String> = inside.iter().filter_map(|(_, _, words)| folder(words)).collect();
    assert!(!folders.is_empty(), "no run directory in {inside:?}");
    let told = Instant::now();
    canceled(&server, run.as_str()).await;
    until("the sandbox to be gone", async || !inside.iter().any(alive) && below(qa.pid()).is_empty()).await;
    println!("measured: {} sandbox processes gone {} ms after the cancel", inside.len(), told.elapsed().as_millis());
    assert!(told.elapsed() <= STOP, "the sandbox lived for {:?}", told.elapsed());
    until("the run directory to be gone", async || folders.iter().all(|folder| !std::path::Path::new(folder).exists()))
        .await;
    server.assert_nothing_left().await;
    assert_canceled(&server, &run).await;
}

/// Asks until an orchestrator that is awake gets the question: the server does not know yet that one sleeps.
async fn cancel_past_a_sleeper(server: &TestServer, run: &RunId) {
    until("an orchestrator to take the cancel", async || {
        let request =
            async_nats::Request::new().payload(run.to_string().into()).timeout(Some(Duration::from_millis(500)));
        server.bus.client.send_request("oarlock.control.cancel", request).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_canceled_while_its_holder_sleeps() {
    let (server, mut orchestrators, _workers, events, run) = in_a_model_call(2).await;
    let (_, claimed) = events.event(EventKind::Claimed, None, 1).await;
    let asleep = take(&mut orchestrators, pid_of(&claimed));
    asleep.signal("STOP");
    cancel_past_a_sleeper(&server, &run).await;
    assert_canceled(&server, &run).await;
    assert_takes_new_work(&server, &events, Instant::now()).await;
    let before = server.store.runs.record(&run).await.unwrap().unwrap().revision;
    let messages = Ear::on(&server, "oarlock.>").await;
    asleep.signal("CONT");
    until("both orchestrators to be idle", async || {
        presence(&server.bus, Role::Orchestrator).await.unwrap().is_some_and(|seen| seen.idle == 4)
    })
    .await;
    server.assert_nothing_left().await;
    assert_canceled(&server, &run).await;
    assert_eq!(server.store.runs.record(&run).await.unwrap().unwrap().revision, before);
    // Cancels that it slept through wake the run once more; no worker is asked for anything.
    let to_workers =
        |subject: &str| subject.starts_with("oarlock.task.") && !subject.starts_with("oarlock.task.orchestrator.");
    let asked = messages.all().iter().filter(|(_, subject, _)| to_workers(subject)).count();
    assert_eq!(asked, 0, "the one who woke asked for something: {:?}", messages.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_canceled_although_its_holder_is_dead() {
    let (server, mut orchestrators, _workers, events, run) = in_a_model_call(2).await;
    let (_, claimed) = events.event(EventKind::Claimed, None, 1).await;
    take(&mut orchestrators, pid_of(&claimed)).kill_9();
    let told = Instant::now();
    canceled(&server, run.as_str()).await;
    assert_canceled(&server, &run).await;
    assert_takes_new_work(&server, &events, told).await;
    server.assert_nothing_left().await;
    assert_canceled(&server, &run).await;
    assert_eq!(record(&server, &run).await.takeovers, 0);
    assert_eq!(events.events(EventKind::Claimed).len(), 1, "nobody had to take it over");
}

/// The worker sleeps through the cancel, and comes back with a reply in its hand.
#[tokio::test(flavor = "multi_thread")]
async fn the_late_reply_of_a_canceled_worker_changes_nothing() {
    let server = TestServer::start().await;
    let mut workers = cast(&server, &slow_story(1_000), &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, "make it").await;
    let (_, started) = events.event(EventKind::Started, Some(Role::Documenter), 1).await;
    let asleep = take(&mut workers, pid_of(&started));
    asleep.signal("STOP");
    canceled(&server, run.as_str()).await;
    let slept = Instant::now();
    until("the model to have answered", async || slept.elapsed() > Duration::from_millis(1_100)).await;
    let published = Ear::on(&server, "oarlock.result.>").await;
    asleep.signal("CONT");
    server.assert_nothing_left().await;
    assert_canceled(&server, &run).await;
    let late = TaskSubject { role: Role::Documenter, run: run.clone(), task: TaskId::planned(2), attempt: 1 };
    let kept = server.store.results.get(&late).await.unwrap().unwrap();
    assert!(matches!(kept.outcome, Outcome::Canceled { .. }), "{kept:?}, heard {:?}", published.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_waits_for_the_workers_unless_it_is_told_not_to() {
    let (server, _orchestrator, workers, events, run) = in_a_model_call(1).await;
    let cancel = async |arguments: &[&str]| {
        let mut command = oarlock(&server);
        command.args(["cancel", "--server", server.url()]).args(arguments);
        ended(command, b"").await
    };
    let done = cancel(&[run.as_str(), "--reason", "no more"]).await;
    assert!(done.code == Some(0) && done.err.contains("nobody works on it any more"), "{done:?}");
    assert_eq!(presence(&server.bus, Role::Documenter).await.unwrap().unwrap().running, 0);
    assert_eq!(result(&server, &run).await.text(), "no more");

    // The worker sleeps, so only who does not wait for it comes back.
    let run = submit(&server, "make it").await;
    let (_, started) = events.event(EventKind::Started, Some(Role::Documenter), 2).await;
    let asleep = workers.iter().find(|worker| worker.pid() == pid_of(&started)).unwrap();
    asleep.signal("STOP");
    let done = cancel(&["--kill", run.as_str()]).await;
    assert!(done.code == Some(0) && done.err.contains("stop within a moment"), "{done:?}");
    assert_canceled(&server, &run).await;
    let seen = presence(&server.bus, Role::Documenter).await.unwrap().unwrap();
    assert_eq!(seen.running, 1, "it still has the message: {seen:?}");
    asleep.signal("CONT");
    server.assert_nothing_left().await;

    let whole = submit(&server, "quick").await;
    crate::story::ended(&server, &whole).await;
    for (what, code) in [(whole.to_string(), 5), (RunId::random().to_string(), 3), ("a.b".into(), 2)] {
        let refused = cancel(&[&what]).await;
        assert_eq!(refused.code, Some(code), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nats_cli_cancels() {
    if !crate::harness::have("nats-cli", cli().is_some(), GET_IT) {
        return;
    }
    let (server, _orchestrator, _workers, _events, run) = in_a_model_call(1).await;
    let done = nats(&server, &["req", "oarlock.control.cancel", run.as_str()]).await;
    assert!(done.code == Some(0) && done.out.contains("\"status\":\"canceled\""), "{done:?}");
    assert_canceled(&server, &run).await;
    server.assert_nothing_left().await;
}
