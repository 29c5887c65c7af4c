//! Tasks that kill their workers, and runs that kill their orchestrators: they are given up with a reason, kept for a
//! person to look at, and harm nobody else.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use futures::StreamExt;
use oarlock::bus::{Queue, StreamSettings};
use oarlock::wire::subject::TaskSubject;
use oarlock::wire::{DeadLetter, EventKind, FailureKind, Outcome, Owner, Role, RunId, RunStatus, Task, TaskId};
use serde_json::Value;

use crate::harness::{Ended, TestServer, Worker, ended, oarlock, until};
use crate::story::{
    Ear, SLOW_CAST, assert_one_of_everything, cast, enqueue, kept_run, put, record, result, slow_story, subject_of,
    submit, task, text_rule, wake,
};

/// Deliveries after which a task is given up.
const DELIVERIES_MAX: usize = 10;
/// Deliveries in which a real worker dies; the others are handed back by hand.
const DEATHS: usize = 3;

/// A server that is quick to give a dead worker's task to the next one.
async fn quick_server() -> TestServer {
    TestServer::with(&StreamSettings { ack_wait: Duration::from_secs(1), ..StreamSettings::default() }).await
}

/// Takes the next message of a role's queue and hands it back, so many times.
async fn hand_back(server: &TestServer, role: Role, times: usize) {
    let consumer = server.bus.consumer(Queue::Role(role)).await.unwrap().unwrap();
    for _ in 0..times {
        let mut batch = consumer.fetch().max_messages(1).expires(Duration::from_secs(30)).messages().await.unwrap();
        batch.next().await.expect("a message").unwrap().ack_with(AckKind::Nak(None)).await.unwrap();
    }
    server.bus.client.flush().await.unwrap();
}

/// `oarlock dead …`.
async fn dead(server: &TestServer, arguments: &[&str]) -> Ended {
    let mut command = oarlock(server);
    command.args(["dead", "--server", server.url()]).args(arguments);
    ended(command, b"").await
}

async fn letters(server: &TestServer) -> Vec<DeadLetter> {
    server.store.dead.list(None).await.unwrap().into_iter().map(|(letter, _)| letter).collect()
}

/// A documenter that lives.
async fn documenter(server: &TestServer) -> Worker {
    let story = crate::story::script(&[text_rule(Role::Documenter, 0, "# It\n\nIt is made.")]);
    server.worker_with(Role::Documenter, &story, &["--slots", "1"]).await
}

/// Lets workers die of what is on the documenters' queue until the next delivery is one too many.
async fn die_of_it(server: &TestServer, events: &Ear) {
    hand_back(server, Role::Documenter, DELIVERIES_MAX - DEATHS).await;
    for number in 1..=DEATHS {
        let worker = server.worker_with(Role::Documenter, &slow_story(60_000), &["--slots", "1"]).await;
        events.event(EventKind::Started, Some(Role::Documenter), number).await;
        worker.kill_9();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_kills_its_workers_fails_its_run_and_no_other() {
    let server = quick_server().await;
    let others = [Role::Orchestrator, Role::Planner, Role::Researcher, Role::Synthesizer];
    let _fleet = cast(&server, &slow_story(0), &others).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let poisoned = submit(&server, "make it").await;
    events.event(EventKind::Dispatched, Some(Role::Documenter), 1).await;
    die_of_it(&server, &events).await;
    let good = submit(&server, "make another").await;
    let _alive = documenter(&server).await;

    assert_eq!(crate::story::ended(&server, &poisoned).await.status, RunStatus::Failed);
    let reply = result(&server, &poisoned).await;
    let failure = reply.failure().expect("a failure");
    assert_eq!(failure.kind, FailureKind::Poison, "{failure}");
    assert!(failure.message.contains("deliveries_max 10") && failure.message.contains("t2"), "{failure}");
    assert_eq!(crate::story::ended(&server, &good).await.status, RunStatus::Completed);
    assert_one_of_everything(&server, &good).await;
    server.assert_nothing_left().await;
    assert_eq!(events.events(EventKind::Started).iter().filter(|(_, event)| event.run == poisoned).count(), 2 + DEATHS);

    let kept = letters(&server).await;
    let [letter] = &kept[..] else { panic!("one letter: {kept:?}") };
    assert_eq!((&letter.run, &letter.task, letter.role), (&poisoned, &TaskId::planned(2), Role::Documenter));
    assert_eq!((letter.attempt, letter.deliveries), (1, DELIVERIES_MAX as u64));
    assert_eq!(letter.failure.kind, FailureKind::Poison);
    let task: Task = serde_json::from_str(&letter.payload).unwrap();
    assert_eq!(
        task.subject(),
        TaskSubject { role: Role::Documenter, run: poisoned.clone(), task: TaskId::planned(2), attempt: 1 }
    );

    listed_shown_and_requeued(&server, &poisoned, &events).await;
}

async fn listed_shown_and_requeued(server: &TestServer, run: &RunId, events: &Ear) {
    let listed = dead(server, &["ls"]).await;
    assert!(listed.code == Some(0) && listed.out.contains(&format!("{run}/t2")), "{listed:?}");
    let listed: Value = serde_json::from_str(&dead(server, &["ls", "--json"]).await.out).unwrap();
    assert_eq!((listed[0]["run"].as_str(), listed[0]["deliveries"].as_u64()), (Some(run.as_str()), Some(10)));
    let shown = dead(server, &["show", &format!("{run}/t2")]).await;
    let shown: DeadLetter = serde_json::from_str(&shown.out).unwrap_or_else(|error| panic!("{error}: {shown:?}"));
    assert_eq!(vec![shown], letters(server).await);
    for unknown in [format!("{run}/t1"), RunId::random().to_string()] {
        for verb in ["show", "requeue", "drop"] {
            assert_eq!(dead(server, &[verb, &unknown]).await.code, Some(3), "{verb} {unknown}");
        }
    }

    let before = events.events(EventKind::Started).iter().filter(|(_, event)| event.run == *run).count();
    let requeued = dead(server, &["requeue", run.as_str()]).await;
    assert_eq!(requeued.code, Some(0), "{requeued:?}");
    until("the requeued run to be completed", async || record(server, run).await.status == RunStatus::Completed).await;
    assert_eq!(record(server, run).await.generation, 2);
    let again: Vec<_> =
        events.events(EventKind::Started).into_iter().filter(|(_, event)| event.run == *run).skip(before).collect();
    let again: Vec<_> = again.iter().map(|(_, event)| event.role.unwrap()).collect();
    assert_eq!(again, [Role::Documenter, Role::Synthesizer], "only what was not done");
    assert!(letters(server).await.is_empty());
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_nobody_s_run_is_given_up_requeued_and_dropped() {
    let server = quick_server().await;
    let _orchestrator = cast(&server, &slow_story(0), &[Role::Orchestrator]).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let (first, second) = (
        task(Role::Documenter, "describe it", Duration::from_secs(30)),
        task(Role::Documenter, "describe it too", Duration::from_secs(30)),
    );
    for work in [&first, &second] {
        enqueue(&server, work).await;
        hand_back(&server, Role::Documenter, DELIVERIES_MAX).await;
        let alive = documenter(&server).await;
        until("the task to be given up", async || server.store.results.get(&subject_of(work)).await.unwrap().is_some())
            .await;
        server.assert_nothing_left().await;
        alive.kill_9();
        let reply = server.store.results.get(&subject_of(work)).await.unwrap().unwrap();
        assert_eq!(reply.failure().map(|failure| failure.kind), Some(FailureKind::Poison), "{reply:?}");
    }
    assert!(events.events(EventKind::Started).is_empty(), "it was not even begun");
    assert_eq!(letters(&server).await.len(), 2);

    let requeued = dead(&server, &["requeue", first.run.as_str()]).await;
    assert_eq!(requeued.code, Some(0), "{requeued:?}");
    let told: Value = serde_json::from_str(&requeued.out).unwrap();
    assert_eq!((told["attempt"].as_u64(), told["task"].as_str()), (Some(2), Some("ask")));
    let _alive = documenter(&server).await;
    let again = TaskSubject { attempt: 2, ..subject_of(&first) };
    until("the requeued task", async || server.store.results.get(&again).await.unwrap().is_some()).await;
    let reply = server.store.results.get(&again).await.unwrap().unwrap();
    assert!(matches!(reply.outcome, Outcome::Completed { .. }), "{reply:?}");
    assert_eq!(told["result"].as_str(), Some(server.bus.root.result(&again).as_str()));

    let dropped = dead(&server, &["drop", &format!("{}/ask", second.run)]).await;
    assert_eq!(dropped.code, Some(0), "{dropped:?}");
    assert!(letters(&server).await.is_empty());
    assert!(dead(&server, &["ls"]).await.err.contains("no task was given up"));
    server.assert_nothing_left().await;
}

/// What no task can be made of is not requeued but stays, until somebody drops it.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_that_was_given_up_can_only_be_dropped() {
    let server = quick_server().await;
    let _orchestrator = cast(&server, &slow_story(0), &[Role::Orchestrator]).await;
    let to = TaskSubject { role: Role::Documenter, run: RunId::random(), task: TaskId::ask(), attempt: 1 };
    put(&server, &to, b"\xff\x00 no task".to_vec()).await;
    hand_back(&server, Role::Documenter, DELIVERIES_MAX).await;
    let _alive = documenter(&server).await;
    until("it to be given up", async || server.store.results.get(&to).await.unwrap().is_some()).await;
    let refused = dead(&server, &["requeue", to.run.as_str()]).await;
    assert!(refused.code == Some(2) && refused.err.contains("drop it"), "{refused:?}");
    assert_eq!(letters(&server).await.len(), 1, "a refused requeue keeps the letter");
    assert_eq!(dead(&server, &["drop", to.run.as_str()]).await.code, Some(0));
    assert!(letters(&server).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_killed_its_orchestrators_is_a_dead_letter_and_can_be_tried_again() {
    let server = TestServer::start().await;
    let run = kept_run(&server, |record| {
        record.status = RunStatus::Working;
        record.takeovers = 5;
        record.owner = Some(Owner { seq: 0, at: 0, nonce: "a process that is gone".into() });
    })
    .await;
    put(&server, &wake(&run, TaskId::over(1)), Vec::new()).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let _fleet = cast(&server, &slow_story(0), &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await;
    assert_eq!(crate::story::ended(&server, &run).await.status, RunStatus::Failed);
    server.assert_nothing_left().await;
    let kept = letters(&server).await;
    let [letter] = &kept[..] else { panic!("one letter: {kept:?}") };
    assert_eq!((letter.role, &letter.task, letter.payload.as_str()), (Role::Orchestrator, &TaskId::run(), ""));
    assert_eq!(letter.deliveries, 6, "the takeovers");

    let requeued = dead(&server, &["requeue", run.as_str()]).await;
    assert_eq!(requeued.code, Some(0), "{requeued:?}");
    until("the run to be completed", async || record(&server, &run).await.status == RunStatus::Completed).await;
    let record = record(&server, &run).await;
    assert_eq!((record.generation, record.takeovers), (2, 0));
    assert!(letters(&server).await.is_empty());
    assert!(events.events(EventKind::Started).iter().any(|(_, event)| event.role == Some(Role::Synthesizer)));
    server.assert_nothing_left().await;
}
