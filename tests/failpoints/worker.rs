//! A worker is struck at each step of its task, and another one of its role has the task next.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use futures::StreamExt;
use oarlock::bus::failpoint::{Fault, Side};
use oarlock::bus::{Point, Queue};
use oarlock::store::FileSet;
use oarlock::wire::{EventKind, FailureKind, Outcome, Reply, Role, Task};
use serde_json::json;

use crate::case::{Case, Tale, Wake};
use crate::harness::{TestServer, Worker, until};
use crate::picture::begun;
use crate::stage::{messages, server, struck};
use crate::story::{Ear, enqueue, json_rule, one_file, script, subject_of, task};

/// Deliveries after which a task is given up.
const DELIVERIES_MAX: usize = 10;
/// Slots of the other worker: one more than it needs, for a task that comes to it twice.
const SLOTS: usize = 2;
/// How long the other one is at work.
const BUSY_MS: u64 = 700;

pub async fn play(case: &Case) {
    let server = server().await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let role = if case.tale == Tale::Qa { Role::Qa } else { Role::Coder };
    let (task, mut first) = if case.tale == Tale::Poison {
        let task = prepared(&server, role).await;
        handed_back(&server, &task, DELIVERIES_MAX).await;
        (task, start(&server, role, case))
    } else {
        let first = start(&server, role, case);
        warm(&first).await;
        (prepared(&server, role).await, first)
    };
    if case.tale == Tale::HandBack {
        events.event(EventKind::Started, Some(role), 1).await;
        first.signal("TERM");
    }
    struck(&mut first, case).await;
    let other = server.worker_with(role, &answers(role, BUSY_MS), &["--slots", &SLOTS.to_string()]).await;
    warm(&other).await;
    let mut workers = vec![first, other];
    if case.fault == Fault::Stop {
        if case.wake == Wake::Amid {
            until("the other one to be at work", async || {
                !begun(&task.run, &workers[1..]).is_empty()
                    || messages(&server, &server.bus.root.tasks_stream()).await == 0
            })
            .await;
            workers[0].signal("CONT");
        }
        let before = answered(&server, &task).await;
        if case.wake == Wake::Late {
            nothing_queued(&server).await;
            workers[0].signal("CONT");
        }
        settled(&server, case, &mut workers[0]).await;
        assert_eq!(answered(&server, &task).await, before, "the first reply is the reply");
    }
    assert_done(&server, case, &task, &workers).await;
}

/// A task on its queue.
async fn prepared(server: &TestServer, role: Role) -> Task {
    let mut task = task(role, "make it", Duration::from_secs(60));
    if role == Role::Qa {
        let files = FileSet::from([("made.py".parse().unwrap(), b"x = 1\n".to_vec())]);
        task.files = server.store.artifacts.put(&task.run, Role::Coder, &files).await.unwrap();
    }
    enqueue(server, &task).await;
    task
}

fn answers(role: Role, latency_ms: u64) -> String {
    let test = "from made import x\n\ndef test_x():\n    assert x == 1\n";
    let tests = json!({ "files": [{ "path": "test_made.py", "content": test }] });
    let answer = if role == Role::Qa { tests } else { one_file("x = 1\n") };
    script(&[json_rule(role, latency_ms, &answer)])
}

fn start(server: &TestServer, role: Role, case: &Case) -> Worker {
    // What is to be handed back is never done.
    let latency_ms = if case.tale == Tale::HandBack { 60_000 } else { 0 };
    let script = server.file("first.json", &answers(role, latency_ms));
    Worker::spawn(server, role, |command| {
        command.args(["--slots", "1", "--grace", "0.3", "--script"]).arg(script).envs([case.variable()]);
    })
}

/// Waits until a qa has tried its sandbox: one that is killed in that trial leaves a directory behind.
async fn warm(worker: &Worker) {
    if worker.role == Role::Qa {
        until("the sandbox to be tried", async || worker.log_text().contains("sandbox: ")).await;
    }
}

/// Takes the task and gives it back, again and again.
async fn handed_back(server: &TestServer, task: &Task, times: usize) {
    let consumer = server.bus.consumer(Queue::Role(task.role)).await.unwrap().unwrap();
    let mut pulled = consumer.messages().await.unwrap();
    for _ in 0..times {
        pulled.next().await.unwrap().unwrap().ack_with(AckKind::Nak(None)).await.unwrap();
    }
}

async fn answered(server: &TestServer, task: &Task) -> Reply {
    let to = subject_of(task);
    until("a reply", async || server.store.results.get(&to).await.unwrap().is_some()).await;
    server.store.results.get(&to).await.unwrap().unwrap()
}

async fn nothing_queued(server: &TestServer) {
    let stream = server.bus.root.tasks_stream();
    until("the queue to be empty", async || messages(server, &stream).await == 0).await;
}

/// Waits until the woken one is done with what it had: it pulls again, or it has ended, as it was told.
async fn settled(server: &TestServer, case: &Case, woken: &mut Worker) {
    let ended = case.tale == Tale::HandBack;
    if ended {
        assert_eq!(woken.exit_code().await, Some(0), "{}", woken.log_text());
    }
    let slots = if ended { SLOTS } else { SLOTS + 1 };
    until(&format!("{slots} idle slots"), async || {
        let consumer = server.bus.consumer(Queue::Role(woken.role)).await.unwrap().unwrap();
        consumer.cached_info().num_waiting == slots
    })
    .await;
}

async fn assert_done(server: &TestServer, case: &Case, task: &Task, workers: &[Worker]) {
    let reply = answered(server, task).await;
    nothing_queued(server).await;
    assert_eq!(server.store.results.of_run(&task.run).await.unwrap().len(), 1);
    let letters = server.store.dead.list(None).await.unwrap();
    let times: usize = begun(&task.run, workers).values().sum();
    if case.tale == Tale::Poison {
        assert_eq!(reply.failure().map(|failure| failure.kind), Some(FailureKind::Poison), "{reply:?}");
        assert_eq!((letters.len(), times), (1, 0), "{letters:?}");
        return;
    }
    assert!(matches!(reply.outcome, Outcome::Completed { .. }), "{reply:?}");
    assert!(letters.is_empty(), "{letters:?}");
    let files = server.store.artifacts.get_all(&task.run, reply.artifacts()).await.unwrap();
    assert_eq!(files.len(), 1, "{reply:?}");
    let stored = matches!((case.point, case.side), (Point::Reply, Side::After) | (Point::Ack, _));
    let late = case.fault == Fault::Crash || case.wake == Wake::Late;
    assert_eq!(times, if stored { 1 } else { 2 }, "how often the task was begun");
    let by = |worker: &Worker| reply.worker.ends_with(&format!(":{}", worker.pid()));
    match (stored, late) {
        (true, _) => assert!(by(&workers[0]), "{reply:?}"),
        (false, true) => assert!(by(&workers[1]), "{reply:?}"),
        // Whichever was first.
        (false, false) => {}
    }
}
