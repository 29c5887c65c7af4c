//! The public protocol of a worker: what anybody's program may do, and what becomes of those who break it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::message::PublishMessage;
use futures::StreamExt;
use oarlock::bus::{Point, Queue};
use oarlock::wire::subject::TaskSubject;
use oarlock::wire::{EventKind, FailureKind, Outcome, Reply, Role, RunId, RunStatus, TaskId};
use serde_json::json;

use crate::harness::{TestServer, have, until};
use crate::story::{
    Ear, assert_one_of_everything, cast, ended, enqueue, json_rule, one_file, put, script, slow_story, subject_of, task,
};

/// A documenter in Python that knows nothing but the protocol.
const FOREIGN: &str = r##"
import asyncio, hashlib, json, sys
import nats
from nats.errors import TimeoutError
from nats.js.errors import APIError

async def main(url):
    connection = await nats.connect(url)
    stream = connection.jetstream()
    queue = await stream.pull_subscribe_bind("documenter", stream="OARLOCK_TASKS")
    print("ready", flush=True)
    while True:
        try:
            message = (await queue.fetch(1, timeout=5))[0]
        except TimeoutError:
            continue
        await message.in_progress()
        task = json.loads(message.data)
        readme = ("# " + task["description"] + "\n").encode()
        sha256 = hashlib.sha256(readme).hexdigest()
        await stream.publish(f"oarlock.blob.documenter.{task['run']}.{sha256}.0", readme)
        artifact = {"path": "README.md", "sha256": sha256, "bytes": len(readme), "role": "documenter"}
        outcome = {"status": "completed", "content": "written in Python", "artifacts": [artifact]}
        reply = {key: task[key] for key in ("run", "attempt", "role")}
        reply |= {"v": 1, "task": task["id"], "outcome": outcome, "worker": "foreign"}
        subject = message.subject.replace(".task.", ".result.", 1)
        try:
            first = {"Nats-Expected-Last-Subject-Sequence": "0"}
            await stream.publish(subject, json.dumps(reply).encode(), headers=first)
        except APIError as error:
            if error.err_code not in (10071, 10077):
                raise
        await message.ack_sync()

asyncio.run(main(sys.argv[1]))
"##;

/// Where nats-py is, put there by pip once; `None` when pip cannot.
fn nats_py() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("nats-py-2");
    if !folder.exists() {
        // Made beside it and moved in one step, so that a broken download or another test run leaves nothing half.
        let partial = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--target"]);
        pip.arg(partial.path().join("nats-py")).arg("nats-py>=2.9,<3").stdin(Stdio::null());
        let done = pip.stdout(Stdio::null()).status().is_ok_and(|status| status.success());
        if !done || std::fs::rename(partial.path().join("nats-py"), &folder).is_err() && !folder.exists() {
            return None;
        }
    }
    Some(folder)
}

struct Foreign(Child);

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_in_python_serves_a_role_in_a_whole_run() {
    let library = tokio::task::spawn_blocking(nats_py).await.unwrap();
    if !have("python-nats", library.is_some(), "python3 with pip and a package index, for nats-py") {
        return;
    }
    let server = TestServer::start().await;
    let program = server.file("documenter.py", FOREIGN);
    let (said, wrong) = (server.folder.path().join("said"), server.folder.path().join("wrong"));
    let mut python = Command::new("python3");
    python.arg(program).arg(server.url()).env("PYTHONPATH", library.unwrap()).stdin(Stdio::null());
    python.stdout(std::fs::File::create(&said).unwrap()).stderr(std::fs::File::create(&wrong).unwrap());
    let _foreign = Foreign(python.spawn().unwrap());
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    until("the worker in Python", async || {
        assert_eq!(read(&wrong), "");
        read(&said).contains("ready")
    })
    .await;
    let roles = [Role::Orchestrator, Role::Planner, Role::Researcher, Role::Synthesizer];
    let _fleet = cast(&server, &slow_story(0), &roles).await;
    let answer = server.request("oarlock.run", "make it").await;
    assert_eq!(answer.header("Oarlock-Status"), "completed", "{} {}", answer.text(), read(&wrong));
    let run: RunId = answer.header("Oarlock-Run").parse().unwrap();
    let replies = server.store.results.of_run(&run).await.unwrap();
    let (_, reply) = replies.iter().find(|(to, _)| to.role == Role::Documenter).expect("the documenter's reply");
    assert_eq!((reply.worker.as_str(), reply.text()), ("foreign", "written in Python"));
    let result = replies.iter().find(|(to, _)| to.role == Role::Orchestrator).unwrap().1.clone();
    let readme = result.artifacts().iter().find(|file| file.path.as_str() == "README.md").expect("its file");
    assert_eq!(server.store.artifacts.get(&run, readme).await.unwrap(), b"# part 2\n");
    ended(&server, &run).await;
    assert_one_of_everything(&server, &run).await;
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_stream_takes_one_reply_and_no_other() {
    let server = TestServer::start().await;
    let to = TaskSubject { role: Role::Coder, run: RunId::random(), task: TaskId::planned(1), attempt: 1 };
    let subject = server.bus.root.result(&to);
    let stored = Ear::on(&server, "oarlock.stored.>").await;
    let first = PublishMessage::build().payload("first".into()).expected_last_subject_sequence(0);
    server.bus.js.send_publish(subject.clone(), first).await.unwrap().await.unwrap();
    for second in [
        PublishMessage::build().payload("second".into()).expected_last_subject_sequence(0),
        PublishMessage::build().payload("second".into()),
    ] {
        let refused = server.bus.js.send_publish(subject.clone(), second).await.unwrap().await;
        assert!(refused.is_err(), "a second reply was taken: {refused:?}");
    }
    let mut retry = async_nats::HeaderMap::new();
    retry.insert("Nats-Rollup", "sub");
    let roll = server.bus.js.publish_with_headers(subject.clone(), retry, "rolled".into()).await.unwrap().await;
    assert!(roll.is_err(), "a roll-up replaced a reply: {roll:?}");
    let kept = server.bus.last_from_leader(&server.bus.root.results_stream(), &subject).await.unwrap().unwrap();
    assert_eq!(kept.payload, "first");
    until("the accepted reply to be republished", async || !stored.all().is_empty()).await;
    let heard: Vec<_> = stored.all().into_iter().map(|(_, subject, payload)| (subject, payload)).collect();
    assert_eq!(heard, [(server.bus.root.stored(&to), "first".into())], "only what was accepted is heard there");
}

/// What is stored counts, even when it is no reply: it is a failure that may be tried again, never a crash.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_none_fails_the_attempt_and_not_the_fleet() {
    let server = TestServer::start().await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let roles = [Role::Orchestrator, Role::Planner, Role::Researcher, Role::Synthesizer];
    let _fleet = cast(&server, &slow_story(0), &roles).await;
    let run = crate::story::submit(&server, "make it").await;
    events.event(EventKind::Dispatched, Some(Role::Documenter), 1).await;
    let to = TaskSubject { role: Role::Documenter, run: run.clone(), task: TaskId::planned(2), attempt: 1 };
    server.bus.js.publish(server.bus.root.result(&to), "no JSON at all".into()).await.unwrap().await.unwrap();
    let (_, again) = events.event(EventKind::Dispatched, Some(Role::Documenter), 2).await;
    assert_eq!(again.attempt, Some(2), "the next attempt");
    let _documenter = cast(&server, &slow_story(0), &[Role::Documenter]).await;
    assert_eq!(ended(&server, &run).await.status, RunStatus::Completed);
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_no_tasks_are_answered_or_removed() {
    let server = TestServer::start().await;
    let story = script(&[json_rule(Role::Coder, 0, &one_file("x = 1"))]);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let to = |run: &RunId| TaskSubject { role: Role::Coder, run: run.clone(), task: TaskId::ask(), attempt: 1 };
    let other = task(Role::Coder, "write it", Duration::from_secs(60));
    let payloads = [
        b"no JSON".to_vec(),
        json!({ "v": 1 }).to_string().into_bytes(),
        json!({ "v": 0 }).to_string().into_bytes(),
        Vec::new(),
        // A task that says it is another one than its subject.
        serde_json::to_vec(&other).unwrap(),
    ];
    let runs: Vec<RunId> = payloads.iter().map(|_| RunId::random()).collect();
    for (run, payload) in runs.iter().zip(payloads) {
        put(&server, &to(run), payload).await;
    }
    let strange = "oarlock.task.coder.what.is.this.1";
    server.bus.js.publish(strange, "?".into()).await.unwrap().await.unwrap();
    let _coder = server.worker(Role::Coder, &story).await;
    server.assert_nothing_left().await;
    for run in &runs {
        let reply = server.store.results.get(&to(run)).await.unwrap().expect("a reply to every request");
        let failure = reply.failure().expect("a failure");
        assert_eq!(failure.kind, FailureKind::InvalidInput, "{failure}");
    }
    assert!(server.store.results.get(&subject_of(&other)).await.unwrap().is_none());
    assert!(server.bus.last_from_leader("OARLOCK_TASKS", strange).await.unwrap().is_none(), "it is gone");
    assert!(events.events(EventKind::Started).is_empty());
}

/// Its workers die of it, says the number of its deliveries: it is answered instead of done.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_was_delivered_too_often_is_given_up() {
    let server = TestServer::start().await;
    let work = task(Role::Coder, "write it", Duration::from_secs(60));
    enqueue(&server, &work).await;
    let consumer = server.bus.consumer(Queue::Role(Role::Coder)).await.unwrap().unwrap();
    for _ in 0..10 {
        let mut pulled = consumer.fetch().max_messages(1).expires(Duration::from_secs(5)).messages().await.unwrap();
        pulled.next().await.expect("the task again").unwrap().ack_with(AckKind::Nak(None)).await.unwrap();
    }
    let events = Ear::on(&server, "oarlock.event.>").await;
    let _coder = server.worker(Role::Coder, &script(&[json_rule(Role::Coder, 0, &one_file("x = 1"))])).await;
    server.assert_nothing_left().await;
    let reply: Reply = server.store.results.get(&subject_of(&work)).await.unwrap().expect("a reply");
    let Outcome::Failed { failure } = &reply.outcome else { panic!("{reply:?}") };
    assert_eq!(failure.kind, FailureKind::Poison);
    assert!(failure.message.contains("deliveries_max 10"), "{failure}");
    assert!(events.events(EventKind::Started).is_empty());
}

/// A worker that dies between its reply and its acknowledgement leaves an answered task: the next one only acknowledges.
#[tokio::test(flavor = "multi_thread")]
async fn an_answered_task_is_not_done_again() {
    let server = TestServer::start().await;
    let work = task(Role::Coder, "write it", Duration::from_secs(60));
    enqueue(&server, &work).await;
    let first = work.reply(Outcome::Completed { content: "done".into(), artifacts: Vec::new(), report: None });
    server.store.results.publish(Point::Reply, &first).await.unwrap();
    let events = Ear::on(&server, "oarlock.event.>").await;
    let _coder = server.worker(Role::Coder, &script(&[json_rule(Role::Coder, 0, &one_file("x = 1"))])).await;
    server.assert_nothing_left().await;
    assert_eq!(server.store.results.get(&subject_of(&work)).await.unwrap(), Some(first));
    assert!(events.events(EventKind::Started).is_empty());
}
