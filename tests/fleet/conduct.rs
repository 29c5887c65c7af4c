//! How a fleet behaves towards a provider: a rate limit that one worker meets stops all of its role, and what a model
//! writes is heard while it writes it.

use std::time::{Duration, Instant};

use oarlock::bus::{PAUSE_S_MAX, Queue, StreamSettings};
use oarlock::wire::{EventKind, FailureKind, Outcome, Role, RunStatus, Task, TokenEvent};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::aimock_process::Aimock;
use crate::harness::{TestServer, Worker, until};
use crate::mountebank_process::Mountebank;
use crate::story::{
    Ear, SLOW_CAST, cast, cast_with, ended, enqueue, record, result, script, slow_story, subject_of, submit, task,
    text_rule,
};

const LIMIT: Duration = Duration::from_secs(60);

/// How long a queue is stopped from now on, by the server's clock; nothing when it is not.
async fn paused(server: &TestServer, role: Role) -> Duration {
    let stream = server.bus.js.get_stream(server.bus.root.tasks_stream()).await.unwrap();
    let info = stream.consumer_info(role.name()).await.unwrap();
    let until = info.config.pause_until.map_or(0, OffsetDateTime::unix_timestamp_nanos);
    let left = until - i128::from(server.bus.server_now().await.unwrap());
    Duration::from_nanos(u64::try_from(left).unwrap_or(0))
}

async fn reply_text(server: &TestServer, work: &Task) -> String {
    let to = subject_of(work);
    until("a reply", async || server.store.results.get(&to).await.unwrap().is_some()).await;
    let reply = server.store.results.get(&to).await.unwrap().unwrap();
    assert!(matches!(reply.outcome, Outcome::Completed { .. }), "{reply:?}");
    reply.text().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_stops_all_workers_of_the_role_and_ends_by_itself() {
    const PAUSE: Duration = Duration::from_secs(4);
    let server = TestServer::start().await;
    let limited = json!({ "match": { "role": "documenter", "task": "first", "nth": 0 },
        "fault": { "status": 429, "retry_after_ms": PAUSE.as_millis() } });
    let story = script(&[limited, text_rule(Role::Documenter, 0, "# It")]);
    let workers = cast(&server, &story, &[Role::Documenter, Role::Documenter]).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let first = task(Role::Documenter, "first", LIMIT);
    enqueue(&server, &first).await;
    let (at, told) = events.event(EventKind::Paused, Some(Role::Documenter), 1).await;
    assert!(told.text.contains("rate limited") && told.text.contains("4 s"), "{}", told.text);
    let left = paused(&server, Role::Documenter).await;
    assert!(left > PAUSE / 2 && left <= PAUSE, "{left:?}");

    let others: Vec<_> = (0..3).map(|_| task(Role::Documenter, "another", LIMIT)).collect();
    for other in &others {
        enqueue(&server, other).await;
    }
    for work in others.iter().chain([&first]) {
        reply_text(&server, work).await;
    }
    // Nobody began anything meanwhile; the task in hand was kept alive past ack_wait, and answered by its holder.
    let started = events.events(EventKind::Started);
    assert_eq!(started.len(), 4, "no task was done twice");
    for (begun, event) in &started[1..] {
        assert!(begun.duration_since(at) + Duration::from_millis(500) >= left, "{event:?} began too soon");
    }
    let pulls_broke = workers.iter().any(|worker| worker.log_text().contains("no pull"));
    assert!(!pulls_broke, "{}", workers[0].log_text());
    server.assert_nothing_left().await;
}

/// Documenters who ask the model of this server, and the answers of `mountebank` that they get.
async fn documenters(server: &TestServer, count: usize, url: &str, variables: &[(&str, &str)]) -> Vec<Worker> {
    let mut workers = Vec::new();
    for _ in 0..count {
        let mut worker = Worker::spawn(server, Role::Documenter, |command| {
            command.args(["--model", "openai/served", "--base-url", url]).envs(variables.iter().copied());
        });
        worker.ready(server).await;
        workers.push(worker);
    }
    workers
}

fn served(status: u16, headers: &Value, body: &Value) -> Value {
    json!({ "is": { "statusCode": status, "headers": headers, "body": body.to_string() } })
}

fn written() -> Value {
    let body = json!({ "choices": [{ "message": { "content": "# It" }, "finish_reason": "stop" }] });
    served(200, &json!({ "content-type": "application/json" }), &body)
}

/// The same with a server of other people's: what it answers one worker holds for the other one.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_server_s_rate_limit_stops_all_workers_of_the_role() {
    const PAUSE: Duration = Duration::from_secs(4);
    let Some(mountebank) = Mountebank::start().await else { return };
    let error = json!({ "error": { "type": "rate_limit_error", "message": "slow down" } });
    let mut answers = vec![served(429, &json!({ "retry-after": PAUSE.as_secs().to_string() }), &error)];
    answers.extend(std::iter::repeat_n(written(), 4));
    let provider = mountebank.serve(answers).await;
    let server = TestServer::start().await;
    let _workers = documenters(&server, 2, &provider.url, &[]).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let first = task(Role::Documenter, "first", LIMIT);
    enqueue(&server, &first).await;
    let (_, told) = events.event(EventKind::Paused, Some(Role::Documenter), 1).await;
    assert!(told.text.contains("slow down") || told.text.contains("rate limited"), "{}", told.text);
    assert!(paused(&server, Role::Documenter).await > PAUSE / 2);
    let others: Vec<_> = (0..3).map(|_| task(Role::Documenter, "another", LIMIT)).collect();
    for other in &others {
        enqueue(&server, other).await;
    }
    for work in others.iter().chain([&first]) {
        assert_eq!(reply_text(&server, work).await.trim(), "# It");
    }
    let asked = provider.asked_ms().await;
    assert_eq!(asked.len(), 5, "{asked:?}");
    assert!(asked[1] - asked[0] >= PAUSE.as_millis() as i128 - 500, "nobody asked meanwhile: {asked:?}");
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_under_way_are_as_many_as_the_settings_allow() {
    const TAKES_MS: i128 = 1_500;
    let Some(mountebank) = Mountebank::start().await else { return };
    let mut answer = written();
    answer["_behaviors"] = json!({ "wait": TAKES_MS as u64 });
    for (variables, in_turn) in
        [(&[][..], false), (&[("OARLOCK_PROVIDER_CALLS_MAX", "1")], true), (&[("OARLOCK_MODEL_CALLS_MAX", "1")], true)]
    {
        let provider = mountebank.serve(vec![answer.clone()]).await;
        let server = TestServer::start().await;
        let _workers = documenters(&server, 1, &provider.url, variables).await;
        let both = [task(Role::Documenter, "one", LIMIT), task(Role::Documenter, "two", LIMIT)];
        for work in &both {
            enqueue(&server, work).await;
        }
        for work in &both {
            reply_text(&server, work).await;
        }
        let asked = provider.asked_ms().await;
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert_eq!(asked[1] - asked[0] >= TAKES_MS - 100, in_turn, "{variables:?}: {asked:?}");
    }
}

/// A task that waits in a paused queue loses no time by it, whoever holds the run; and the alarm rings for nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_longer_than_the_task_s_limit_fails_no_run() {
    const PAUSE: Duration = Duration::from_secs(11);
    const LIMIT_S: u64 = 3;
    let server = TestServer::start().await;
    let limit = [("OARLOCK_TIMEOUT_S", "3")];
    let first = cast_with(&server, &slow_story(0), &[Role::Orchestrator], &limit).await;
    let _workers = cast(&server, &slow_story(0), &SLOW_CAST).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let paused_at = Instant::now();
    assert!(server.bus.pause(Queue::Role(Role::Documenter), PAUSE).await.unwrap());
    let run = submit(&server, "make it").await;
    let (asked, _) = events.event(EventKind::Dispatched, Some(Role::Documenter), 1).await;
    until("the limit to be over", async || asked.elapsed() > Duration::from_secs(LIMIT_S + 2)).await;
    assert!(!record(&server, &run).await.status.terminal(), "the pause is no time of the task's");
    assert_eq!(record(&server, &run).await.takeovers, 0, "the alarm rang in vain");
    first.into_iter().for_each(Worker::kill_9);
    let _second = cast_with(&server, &slow_story(0), &[Role::Orchestrator], &limit).await;
    assert_eq!(ended(&server, &run).await.status, RunStatus::Completed);
    assert!(paused_at.elapsed() >= PAUSE);
    assert_eq!(record(&server, &run).await.takeovers, 1, "the one after the kill");
    assert_eq!(events.events(EventKind::Claimed).len(), 2);
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_after_a_pause_names_it() {
    const PAUSE: Duration = Duration::from_secs(5);
    let server = TestServer::start().await;
    let _orchestrator = cast_with(&server, &slow_story(0), &[Role::Orchestrator], &[("OARLOCK_TIMEOUT_S", "3")]).await;
    let _workers = cast(&server, &slow_story(0), &[Role::Planner, Role::Researcher, Role::Synthesizer]).await;
    let paused_at = Instant::now();
    assert!(server.bus.pause(Queue::Role(Role::Documenter), PAUSE).await.unwrap());
    let run = submit(&server, "make it").await;
    assert_eq!(ended(&server, &run).await.status, RunStatus::Failed);
    // The role's own time comes after the pause, in whole.
    let took = paused_at.elapsed();
    assert!((8..11).contains(&took.as_secs()), "{took:?}");
    let reply = result(&server, &run).await;
    let failure = reply.failure().unwrap();
    assert_eq!(failure.kind, FailureKind::Timeout);
    for part in ["within 3 s, and ", "its queue was paused", "paused_s_max 600", "oarlock worker documenter"] {
        assert!(failure.message.contains(part), "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_pause_does_not_take_the_place_of_a_longer_one_as_a_rule() {
    let server = TestServer::start().await;
    let queue = Queue::Role(Role::Coder);
    let seconds = Duration::from_secs;
    assert!(server.bus.pause(queue, seconds(20)).await.unwrap());
    assert!(!server.bus.pause(queue, seconds(5)).await.unwrap());
    assert!(paused(&server, Role::Coder).await > seconds(15));
    // Many at once, in any order: the longest stands.
    let all = [30, 3, 50, 7, 60, 11, 2].map(|wait| server.bus.pause(queue, seconds(wait)));
    futures::future::join_all(all).await.into_iter().for_each(|paused| assert!(paused.is_ok()));
    let left = paused(&server, Role::Coder).await;
    assert!(left > seconds(50) && left <= seconds(60), "{left:?}");
    assert!(server.bus.pause(queue, seconds(100_000)).await.unwrap());
    let left = paused(&server, Role::Coder).await;
    assert!(left > seconds(PAUSE_S_MAX - 10) && left <= seconds(PAUSE_S_MAX), "{left:?}");
    assert_eq!(paused(&server, Role::Qa).await, Duration::ZERO, "other roles go on");
}

/// A synthesizer whose model has written its first words, its task, and what is heard of them.
async fn writing(server: &TestServer, model: &Aimock) -> (Worker, Task, Ear) {
    let mut worker = Worker::spawn(server, Role::Synthesizer, |command| {
        command.args(["--model", "openai/gpt-test", "--base-url", &model.url]);
    });
    worker.ready(server).await;
    let tokens = Ear::on(server, "oarlock.event.*.token").await;
    let work = task(Role::Synthesizer, "Write the README", LIMIT);
    enqueue(server, &work).await;
    until("the first words", async || !tokens.all().is_empty()).await;
    (worker, work, tokens)
}

/// The whole way: a server of other people's streams, the role passes it on, nobody keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_writes_is_heard_while_it_writes_and_not_kept() {
    let words: String = (1..=60).map(|number| format!("word{number} ")).collect();
    let fixture = json!([{"match": {"userMessage": "README"}, "response": {"content": words},
        "streamingProfile": {"ttft": 50, "tps": 20}, "chunkSize": 10}]);
    let Some(aimock) = Aimock::start(fixture).await else { return };
    let server = TestServer::start().await;
    let (_worker, work, tokens) = writing(&server, &aimock).await;
    assert!(server.store.results.get(&subject_of(&work)).await.unwrap().is_none(), "they come before the reply");
    let answer = reply_text(&server, &work).await;
    let done = Instant::now();
    until("the last words", async || {
        let heard: Vec<TokenEvent> = read(&tokens);
        heard.iter().map(|event| event.text.as_str()).collect::<String>() == words
    })
    .await;
    assert!(done.elapsed() < Duration::from_secs(2));
    assert_eq!(answer.trim(), words.trim());
    let heard = read(&tokens);
    let mut offset = 0;
    for event in &heard {
        assert_eq!((&event.run, &event.task, event.role, event.attempt), (&work.run, &work.id, Role::Synthesizer, 1));
        assert_eq!(event.offset, offset);
        offset += event.text.len() as u64;
    }
    let times: Vec<Instant> = tokens.all().into_iter().map(|(at, ..)| at).collect();
    let longest_s = times[times.len() - 1].duration_since(times[0]).as_secs_f32();
    assert!(heard.len() > 5 && heard.len() as f32 <= 1.0 + longest_s / 0.1 + 2.0, "{} in {longest_s} s", heard.len());
    let mut kept = server.bus.js.get_stream(server.bus.root.events_stream()).await.unwrap();
    let kept = serde_json::to_value(&kept.info().await.unwrap().config.subjects).unwrap();
    assert!(kept.as_array().unwrap().iter().all(|subject| subject != "oarlock.event.>"), "{kept}");
    let found: Result<Option<_>, _> =
        server.bus.last(&server.bus.root.events_stream(), &server.bus.root.tokens(&work.run)).await;
    assert!(found.unwrap().is_none(), "tokens are kept");
}

/// Words may be lost, and the work waits for none of them: a model that writes while the server stands still is heard to
/// its end all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_stops_no_model() {
    const STILL: Duration = Duration::from_secs(8);
    let words: String = (1..=120).map(|number| format!("word{number} ")).collect();
    let fixture = json!([{"match": {"userMessage": "README"}, "response": {"content": words},
        "streamingProfile": {"ttft": 50, "tps": 18}, "chunkSize": 10}]);
    let Some(aimock) = Aimock::start(fixture).await else { return };
    let settings = StreamSettings { ack_wait: Duration::from_secs(60), ..StreamSettings::default() };
    let server = TestServer::with(&settings).await;
    let (_worker, work, _tokens) = writing(&server, &aimock).await;
    let still = Instant::now();
    signal(&server, "STOP");
    until("the server to have stood still", async || still.elapsed() > STILL).await;
    signal(&server, "CONT");
    let goes_on = Instant::now();
    assert_eq!(reply_text(&server, &work).await.trim(), words.trim());
    // What was left to write takes longer than this, had anybody waited for the server.
    assert!(goes_on.elapsed() < Duration::from_secs(2), "{:?}", goes_on.elapsed());
}

fn signal(server: &TestServer, name: &str) {
    let pid = server.server.pid().expect("a server of ours").to_string();
    assert!(std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
}

fn read(tokens: &Ear) -> Vec<TokenEvent> {
    tokens.all().iter().map(|(_, _, payload)| serde_json::from_slice(payload).unwrap()).collect()
}

/// What a server asks us to wait, the next attempt waits, and an unknown model is told with those that there are.
#[tokio::test(flavor = "multi_thread")]
async fn failures_carry_what_the_server_said() {
    let server = TestServer::start().await;
    let fault = |task: &str, fault: Value| json!({ "match": { "role": "documenter", "task": task }, "fault": fault });
    let answer = |task: &str, finish: &str| json!({ "match": { "role": "documenter", "task": task }, "response": { "content": "so far", "finish": finish } });
    let story = script(&[
        fault("long", json!({ "status": 503, "retry_after_ms": 130_000 })),
        answer("pause", "pause"),
        answer("cut", "length"),
        answer("no", "refusal"),
    ]);
    let _workers = cast(&server, &story, &[Role::Documenter]).await;
    for (name, failure, retry) in [
        ("long", "model_unavailable", json!({ "when": "after", "ms": 130_000 })),
        ("pause", "model_paused", json!({ "when": "after", "ms": 0 })),
        ("cut", "model_cut_off", json!({ "when": "after", "ms": 0 })),
        ("no", "model_refused", json!({ "when": "never" })),
    ] {
        let work = task(Role::Documenter, name, LIMIT);
        enqueue(&server, &work).await;
        let to = subject_of(&work);
        until("a reply", async || server.store.results.get(&to).await.unwrap().is_some()).await;
        let reply = server.store.results.get(&to).await.unwrap().unwrap();
        let told = serde_json::to_value(reply.failure().unwrap()).unwrap();
        assert_eq!((&told["kind"], &told["retry"]), (&json!(failure), &retry), "{told}");
    }
}
