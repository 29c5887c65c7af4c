//! The doors, as any NATS client sees them: what goes in, what comes out, and what a caller may count on.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::HeaderMap;
use oarlock::wire::{self, Role, RunStatus, RunView, TaskStatus};
use serde_json::{Value, json};

use crate::harness::{Fleet, Reply, TestServer, connect, rules, until};

const ANSWER: &str = "the small answer";

fn script() -> String {
    let mut all = vec![
        rules::says("researcher", "the attached word is heron", found("heron")),
        // Only the attached file has the word; without it nothing answers.
        rules::fault("researcher", "goal with a file", json!({ "kind": "refusal" })),
        rules::says("documenter", "first question", json!({ "content": "first reply" })),
        rules::says("documenter", "second question", json!({ "content": "second reply" })),
    ];
    all.extend(rules::small());
    rules::script(&all)
}

fn found(text: &str) -> Value {
    json!({ "json": { "findings": [{ "text": text, "source": "notes.txt" }], "not_found": [] } })
}

fn keyed(key: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Oarlock-Key", key);
    headers
}

fn parsed(answer: &Reply) -> Value {
    serde_json::from_str(&answer.text()).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

async fn list(server: &TestServer) -> Vec<String> {
    let runs = parsed(&server.request("oarlock.control.list", "").await);
    let runs = runs["runs"].as_array().unwrap().iter();
    runs.map(|run| run["run"].as_str().unwrap().to_owned()).collect()
}

async fn status(server: &TestServer, run: &str) -> RunView {
    serde_json::from_value(parsed(&server.request("oarlock.control.status", run.to_owned()).await)).unwrap()
}

async fn until_completed(server: &TestServer, run: &str) {
    until(&format!("run {run} to complete"), async || {
        let now = server.view(run).await.status;
        assert!(!now.terminal() || now == RunStatus::Completed, "run {run} is {}", now.name());
        now == RunStatus::Completed
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_json_is_answered_in_json_and_who_speaks_text_in_text() {
    let fleet = Fleet::start(&script()).await;
    let text = fleet.request("oarlock.run", "make it").await;
    assert_eq!((text.text().as_str(), text.error_code().as_str()), (ANSWER, ""));
    assert_eq!(text.header("Oarlock-Status"), "completed");
    let whole = fleet.request("oarlock.run", r#"{"goal":"make it"}"#).await;
    let reply: wire::Reply = serde_json::from_str(&whole.text()).unwrap();
    assert_eq!((reply.text(), reply.run.to_string()), (ANSWER, whole.header("Oarlock-Run")));
    assert!(reply.usage.calls == 3 && reply.failure().is_none(), "{reply:?}");
    assert_ne!(text.header("Oarlock-Run"), whole.header("Oarlock-Run"));

    let text = fleet.request("oarlock.submit", "make it").await;
    assert_eq!(text.text(), text.header("Oarlock-Run"));
    assert_eq!(text.header("Oarlock-Status"), "submitted");
    let whole = fleet.request("oarlock.submit", r#" {"goal":"make it"}"#).await;
    assert_eq!(parsed(&whole), json!({ "run": whole.header("Oarlock-Run"), "status": "submitted" }));

    let text = fleet.request("oarlock.ask.documenter", "the first question").await;
    assert_eq!((text.text().as_str(), text.header("Oarlock-Status").as_str()), ("first reply", "completed"));
    let task = r#"{"description":"say it","context":["the second question"]}"#;
    let whole: wire::Reply = serde_json::from_str(&fleet.request("oarlock.ask.documenter", task).await.text()).unwrap();
    assert_eq!((whole.role, whole.text()), (Role::Documenter, "second reply"));
    assert!(whole.worker.starts_with("documenter@"), "{whole:?}");
    fleet.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_the_request_reaches_the_prompt() {
    let fleet = Fleet::start(&script()).await;
    let with = |body: Value| {
        json!({ "goal": "goal with a file", "attachments": [{ "path": "notes.txt", "body": body }] }).to_string()
    };
    let text = with(json!({ "kind": "text", "text": "the attached word is heron" }));
    let answer = fleet.request("oarlock.run", text).await;
    assert!(answer.header("Oarlock-Status") == "completed", "{}", answer.text());

    let stored = json!({ "path": "notes.txt", "sha256": "0".repeat(64), "bytes": 9, "role": "orchestrator" });
    let missing = fleet.request("oarlock.run", with(json!({ "kind": "stored", "artifact": stored }))).await;
    assert!(missing.text().contains("notes.txt is damaged or missing"), "{}", missing.text());
    assert!(!missing.error_code().is_empty(), "{}", missing.text());
    assert_eq!(list(&fleet).await.len(), 1, "a goal whose file nobody has was accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_run() {
    let fleet = Fleet::start(&script()).await;
    let (asked, again, other, waits) = tokio::join!(
        fleet.request_with("oarlock.submit", keyed("nightly"), "make it"),
        fleet.request_with("oarlock.submit", keyed("nightly"), "make it"),
        fleet.request_with("oarlock.submit", keyed("weekly"), "make it"),
        fleet.request_with("oarlock.run", keyed("nightly"), "make it"),
    );
    let run = asked.header("Oarlock-Run");
    assert_eq!((again.header("Oarlock-Run"), waits.header("Oarlock-Run")), (run.clone(), run.clone()));
    assert_ne!(other.header("Oarlock-Run"), run);
    assert_eq!(waits.text(), ANSWER);
    until_completed(&fleet, &run).await;
    until_completed(&fleet, &other.header("Oarlock-Run")).await;
    let late = fleet.request_with("oarlock.submit", keyed("nightly"), "make it").await;
    assert_eq!((late.header("Oarlock-Run"), late.header("Oarlock-Status")), (run.clone(), "completed".to_owned()));
    assert_eq!(list(&fleet).await.len(), 2);
    assert_eq!(fleet.view(&run).await.usage.calls, 3, "the work was done twice");

    for door in ["oarlock.run", "oarlock.submit"] {
        let refused = fleet.request_with(door, keyed("nightly"), "make something else").await;
        assert_eq!(refused.error_code(), "409", "{}", refused.text());
        assert!(
            refused.text().contains("used for another goal") && refused.text().contains(&run),
            "{}",
            refused.text()
        );
    }
    for (key, says) in [("x".repeat(257), "key_bytes_max 256"), (String::new(), "1 to key_bytes_max")] {
        for door in ["oarlock.run", "oarlock.submit", "oarlock.ask.documenter"] {
            let refused = fleet.request_with(door, keyed(&key), "make it").await;
            assert_eq!(refused.error_code(), "400", "{door}: {}", refused.text());
            assert!(refused.text().contains(says), "{door}: {}", refused.text());
        }
    }
    assert_eq!(list(&fleet).await.len(), 2);
    fleet.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_at_a_roles_door_is_the_same_task() {
    let fleet = Fleet::start(&script()).await;
    let ask = async |text: &'static str| fleet.request_with("oarlock.ask.documenter", keyed("k"), text).await;
    let (first, again) = (ask("the first question").await, ask("the first question").await);
    assert_eq!((first.text(), again.text()), ("first reply".to_owned(), "first reply".to_owned()));
    assert_eq!(first.header("Oarlock-Run"), again.header("Oarlock-Run"));
    let events = fleet.bus.js.get_stream("OARLOCK_EVENTS").await.unwrap();
    let begun = events.info_with_subjects("oarlock.event.*.started").await.unwrap();
    let begun = futures::TryStreamExt::try_collect::<Vec<_>>(begun).await.unwrap();
    assert_eq!(begun.iter().map(|(_, count)| count).sum::<usize>(), 1, "the task was done twice: {begun:?}");
    // Another question under the same key must not get the first one's reply as its own.
    let other = ask("the second question").await;
    assert_ne!(other.text(), "first reply", "answered with another question's reply");
    fleet.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_tells_of_runs_and_refuses_what_it_cannot() {
    let fleet = Fleet::start(&script()).await;
    let run = fleet.request("oarlock.run", "make it").await.header("Oarlock-Run");
    until_completed(&fleet, &run).await;
    let other = fleet.request("oarlock.submit", "make it too").await.header("Oarlock-Run");
    until_completed(&fleet, &other).await;
    let listed: BTreeSet<String> = list(&fleet).await.into_iter().collect();
    assert_eq!(listed, BTreeSet::from([run.clone(), other]));

    let seen = status(&fleet, &run).await;
    assert_eq!(seen, status(&fleet, &json!({ "run": run }).to_string()).await);
    assert_eq!(
        (seen.status, seen.goal.as_str(), seen.answer.as_deref()),
        (RunStatus::Completed, "make it", Some(ANSWER))
    );
    let tasks: Vec<_> = seen.tasks.iter().map(|task| (task.id.as_str(), task.role, task.status)).collect();
    let done = TaskStatus::Completed;
    let wanted = [("plan", Role::Planner, done), ("t1", Role::Researcher, done), ("answer", Role::Synthesizer, done)];
    assert_eq!(tasks, wanted);

    for (verb, payload, code, says) in [
        ("status", "nobody", "404", "there is no run nobody"),
        ("status", "", "400", "1 to 32 ASCII letters and digits"),
        ("status", "a.b > *", "400", "1 to 32 ASCII letters and digits"),
        ("status", "{\"run\":7}", "400", "send a run's id"),
        ("status", "{oops", "400", "send a run's id"),
        ("cancel", run.as_str(), "409", "has completed already"),
        ("retry", run.as_str(), "400", "--from"),
        ("approve", run.as_str(), "409", "is over"),
        ("answer", run.as_str(), "400", "the answer is empty"),
        ("answer", format!("{run} so it is").as_str(), "409", "is over"),
        ("dance", "", "501", "there is no verb \"dance\"; there are: list, status, cancel"),
    ] {
        let refused = fleet.request(&format!("oarlock.control.{verb}"), payload.to_owned()).await;
        assert_eq!(refused.error_code(), code, "{verb} {payload:?}: {}", refused.text());
        assert!(refused.text().contains(says), "{verb} {payload:?}: {}", refused.text());
        assert!(refused.header("Nats-Service-Error").contains(says), "{verb} {payload:?}");
    }
    assert_eq!(fleet.view(&run).await, seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_need_wait_for_a_run_not_even_its_caller() {
    let server = TestServer::start().await;
    let _orchestrator = server.worker(Role::Orchestrator, &script()).await;
    // Nobody can work on these yet: an answer means that the door did not wait for the work.
    let submitted = server.request("oarlock.submit", "make it").await.text();
    let caller = connect(server.url()).await;
    let request = async_nats::Request::new().payload("make it too".into()).timeout(Some(Duration::from_millis(300)));
    let gone = caller.client.send_request("oarlock.run", request).await.unwrap_err();
    assert_eq!(gone.kind(), async_nats::client::RequestErrorKind::TimedOut);
    caller.client.drain().await.unwrap();
    drop(caller);
    let runs = list(&server).await;
    assert_eq!(runs.len(), 2, "{runs:?}");
    for run in &runs {
        let seen = status(&server, run).await;
        assert!(!seen.status.terminal() && seen.answer.is_none(), "{seen:?}");
    }
    let waiting = server.request("oarlock.control.status", submitted.clone()).await;
    assert!(["submitted", "working"].contains(&waiting.header("Oarlock-Status").as_str()));

    let mut others = Vec::new();
    for role in [Role::Planner, Role::Researcher, Role::Synthesizer] {
        others.push(server.worker(role, &script()).await);
    }
    for run in &runs {
        until_completed(&server, run).await;
        assert_eq!(server.view(run).await.answer.as_deref(), Some(ANSWER));
    }
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_are_all_answered_with_their_own_run() {
    const CALLERS: usize = 40;
    let fleet = Fleet::start(&script()).await;
    let calls = (0..CALLERS).map(|number| fleet.request("oarlock.run", format!("make number {number}")));
    let answers = futures::future::join_all(calls).await;
    let runs: BTreeSet<String> = answers.iter().map(|answer| answer.header("Oarlock-Run")).collect();
    assert_eq!(runs.len(), CALLERS);
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer.text(), ANSWER);
        assert_eq!(fleet.view(&answer.header("Oarlock-Run")).await.goal, format!("make number {number}"));
    }
    assert_eq!(list(&fleet).await.len(), CALLERS);
    fleet.assert_nothing_left().await;
}
