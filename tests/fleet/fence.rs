//! The fence: of several holders of one run only the owner acts, and whoever comes late changes nothing.

use oarlock::bus::{Point, presence};
use oarlock::wire::subject::TaskSubject;
use oarlock::wire::{
    EventKind, FailureKind, Message, MessageType, Metadata, Outcome, Owner, Party, Reply, Role, RunId, RunRecord,
    RunStatus, TaskId,
};

use crate::harness::{TestServer, Worker, until};
use crate::story::{
    Ear, SLOW_CAST, assert_one_content_each, assert_one_of_everything, cast, ended, findings, json_rule, kept_run,
    pid_of, plan_rule, put, record, result, script, slow_story, submit, take, text_rule, wake,
};

fn owner(seq: u64, at: i64) -> Option<Owner> {
    Some(Owner { seq, at, nonce: "a process that is gone".into() })
}

async fn change(server: &TestServer, run: &RunId, change: impl Fn(&mut RunRecord)) {
    let mut recorded = server.store.runs.record(run).await.unwrap().unwrap();
    change(&mut recorded.record);
    server
        .store
        .runs
        .write(Point::Claim, run, &recorded.record, recorded.revision)
        .await
        .unwrap()
        .expect("the record as it was read");
}

/// Starts two orchestrators with two slots each, gives them a run, and stops its holder when the documenter is at work.
/// Returns the run, the stopped one and the other one.
async fn stopped_in_the_middle(server: &TestServer, events: &Ear) -> (RunId, Worker, Worker) {
    let mut orchestrators = Vec::new();
    for _ in 0..2 {
        orchestrators.push(server.worker_with(Role::Orchestrator, &slow_story(0), &["--slots", "2"]).await);
    }
    let run = submit(server, "make it").await;
    let (_, claimed) = events.event(EventKind::Claimed, None, 1).await;
    events.event(EventKind::Started, Some(Role::Documenter), 1).await;
    let stopped = take(&mut orchestrators, pid_of(&claimed));
    stopped.signal("STOP");
    (run, stopped, orchestrators.remove(0))
}

/// Waits until all four slots of both orchestrators pull again: the woken one is done with its old message.
async fn all_idle(server: &TestServer) {
    until("both orchestrators to be idle", async || {
        presence(&server.bus, Role::Orchestrator).await.unwrap().is_some_and(|seen| seen.idle == 4)
    })
    .await;
}

async fn assert_woken_harmless(server: &TestServer, run: &RunId, before: &Reply, events: &Ear, tasks: &Ear) {
    all_idle(server).await;
    server.assert_nothing_left().await;
    assert_eq!(result(server, run).await, *before, "the same result");
    assert_one_of_everything(server, run).await;
    assert_one_content_each(tasks);
    assert_eq!(record(server, run).await.takeovers, 1);
    let over = tasks.all().iter().filter(|(_, subject, _)| subject.contains(".over")).count();
    assert!(over >= 1, "the takeover went through an over message");
    let started: Vec<_> = events.events(EventKind::Started).into_iter().map(|(_, event)| event.task).collect();
    assert_eq!(started.len(), 4, "no task was begun twice: {started:?}");
    assert_eq!(events.events(EventKind::Finished).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_wakes_after_the_end_changes_nothing() {
    let server = TestServer::start().await;
    let (events, tasks) = (Ear::on(&server, "oarlock.event.>").await, Ear::on(&server, "oarlock.task.>").await);
    let _workers = cast(&server, &slow_story(1_000), &SLOW_CAST).await;
    let (run, stopped, _other) = stopped_in_the_middle(&server, &events).await;
    ended(&server, &run).await;
    let before = result(&server, &run).await;
    stopped.signal("CONT");
    assert_woken_harmless(&server, &run, &before, &events, &tasks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_wakes_while_another_has_the_run_changes_nothing() {
    let server = TestServer::start().await;
    let (events, tasks) = (Ear::on(&server, "oarlock.event.>").await, Ear::on(&server, "oarlock.task.>").await);
    let story = script(&[
        plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]),
        json_rule(Role::Researcher, 50, &findings()),
        text_rule(Role::Documenter, 1_000, "# It\n\nIt is made."),
        text_rule(Role::Synthesizer, 1_000, "It is made."),
    ]);
    let _workers = cast(&server, &story, &SLOW_CAST).await;
    let (run, stopped, other) = stopped_in_the_middle(&server, &events).await;
    let (_, again) = events.event(EventKind::Claimed, None, 2).await;
    assert_eq!(pid_of(&again), other.pid());
    events.event(EventKind::Started, Some(Role::Synthesizer), 1).await;
    stopped.signal("CONT");
    ended(&server, &run).await;
    let before = result(&server, &run).await;
    assert_woken_harmless(&server, &run, &before, &events, &tasks).await;
}

/// Rules 1 and 2: the run is expired, the message is of an older generation or older than the owner's, or there is no run.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_came_too_late_are_acknowledged_and_forgotten() {
    let server = TestServer::start().await;
    let expired = kept_run(&server, |record| record.status = RunStatus::Expired).await;
    let retried = kept_run(&server, |record| record.generation = 2).await;
    let older = kept_run(&server, |record| {
        record.status = RunStatus::Working;
        record.owner = owner(1_000_000, i64::MAX);
    })
    .await;
    let unknown = RunId::random();
    let mut before = Vec::new();
    for run in [&expired, &retried, &older, &unknown] {
        put(&server, &wake(run, TaskId::start()), Vec::new()).await;
        before.push(server.store.runs.record(run).await.unwrap().map(|recorded| (recorded.record, recorded.revision)));
    }
    let events = Ear::on(&server, "oarlock.event.>").await;
    let tasks = Ear::on(&server, "oarlock.task.>").await;
    let _orchestrator = cast(&server, &slow_story(0), &[Role::Orchestrator]).await;
    server.assert_nothing_left().await;
    for (run, before) in [&expired, &retried, &older, &unknown].into_iter().zip(before) {
        let now = server.store.runs.record(run).await.unwrap().map(|recorded| (recorded.record, recorded.revision));
        assert_eq!(now, before, "the record was not touched");
        assert!(server.store.runs.history(run).await.unwrap().is_empty());
        assert!(server.store.results.of_run(run).await.unwrap().is_empty());
    }
    assert_eq!((events.all().len(), tasks.all().len()), (0, 0), "nothing was said or asked");
}

/// A restored store may count from behind: then the sequence is older, but the time is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_older_by_its_number_alone_is_no_old_one() {
    let server = TestServer::start().await;
    let run = kept_run(&server, |record| {
        record.status = RunStatus::Working;
        record.owner = owner(1_000_000, 1);
    })
    .await;
    put(&server, &wake(&run, TaskId::start()), Vec::new()).await;
    let _fleet = cast(&server, &slow_story(0), &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await;
    ended(&server, &run).await;
    assert_one_of_everything(&server, &run).await;
    server.assert_nothing_left().await;
}

/// Rule 3: the sequence has an owner already, so the run goes on under a new message.
#[tokio::test(flavor = "multi_thread")]
async fn a_redelivery_is_handed_over_and_never_gone_on_with() {
    let server = TestServer::start().await;
    let run = kept_run(&server, |_| {}).await;
    let seq = put(&server, &wake(&run, TaskId::start()), Vec::new()).await;
    change(&server, &run, |record| {
        record.status = RunStatus::Working;
        record.owner = owner(seq, 1);
    })
    .await;
    let tasks = Ear::on(&server, "oarlock.task.orchestrator.>").await;
    let _fleet = cast(&server, &slow_story(0), &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await;
    let record = ended(&server, &run).await;
    let over = server.bus.root.task(&wake(&run, TaskId::over(seq)));
    assert_eq!(tasks.payloads(&over).len(), 1, "{:?}", tasks.all());
    assert_eq!(record.takeovers, 1);
    assert_one_of_everything(&server, &run).await;
    server.assert_nothing_left().await;
}

/// A run that was finished by somebody who died before tidying up.
#[tokio::test(flavor = "multi_thread")]
async fn the_epilogue_of_a_finished_run_is_done_by_whoever_comes() {
    let server = TestServer::start().await;
    let run = kept_run(&server, |record| {
        record.status = RunStatus::Working;
        record.owner = owner(0, 0);
    })
    .await;
    for (task, role) in [(1, Role::Researcher), (2, Role::Documenter)] {
        let (id, input, reference) = (TaskId::planned(task), None, None);
        let (hops, notes) = (1, 0);
        let metadata =
            Metadata { run: run.clone(), task: id, attempt: 1, input, bytes: 0, notes, hops, reference, budget: None };
        let request = MessageType::Request;
        let message =
            Message::new(Party::Role(Role::Orchestrator), Party::Role(role), request, "do it".into(), metadata);
        server.bus.store(server.store.runs.history_message(&message)).await.unwrap();
    }
    let done = |content: &str| Outcome::Completed { content: content.into(), artifacts: Vec::new(), report: None };
    let first = Reply::new(Role::Researcher, run.clone(), TaskId::planned(1), 1, done("known"));
    let whole = Reply::new(Role::Orchestrator, run.clone(), TaskId::run(), 1, done("made"));
    for reply in [&first, &whole] {
        server.store.results.publish(Point::Reply, reply).await.unwrap();
    }
    put(&server, &wake(&run, TaskId::over(1)), Vec::new()).await;
    let tasks = Ear::on(&server, "oarlock.task.>").await;
    let _orchestrator = cast(&server, &slow_story(0), &[Role::Orchestrator]).await;
    let record = ended(&server, &run).await;
    server.assert_nothing_left().await;
    assert_eq!((record.status, record.owner), (RunStatus::Completed, None));
    let of = |role, number| TaskSubject { role, run: run.clone(), task: TaskId::planned(number), attempt: 1 };
    assert_eq!(server.store.results.get(&of(Role::Researcher, 1)).await.unwrap(), Some(first), "answers stay");
    let canceled =
        server.store.results.get(&of(Role::Documenter, 2)).await.unwrap().expect("an answer for every request");
    assert!(matches!(canceled.outcome, Outcome::Canceled { .. }), "{canceled:?}");
    assert_eq!(result(&server, &run).await, whole);
    assert!(tasks.all().is_empty(), "nothing was asked");

    // A terminal record stays as it is, whatever comes.
    let before = server.store.runs.record(&run).await.unwrap().unwrap().revision;
    put(&server, &wake(&run, TaskId::over(2)), Vec::new()).await;
    server.assert_nothing_left().await;
    assert_eq!(server.store.runs.record(&run).await.unwrap().unwrap().revision, before);
}

/// Only takeovers count, and only those without progress between them.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_kills_its_orchestrators_is_given_up() {
    let server = TestServer::start().await;
    let poisoned = |record: &mut RunRecord| {
        record.status = RunStatus::Working;
        record.takeovers = 5;
        record.owner = owner(0, 0);
    };
    let (bad, good) = (kept_run(&server, poisoned).await, kept_run(&server, poisoned).await);
    // The second one has a result that was not seen at the last takeover.
    let plan = Reply::new(
        Role::Planner,
        good.clone(),
        TaskId::plan(),
        1,
        Outcome::Completed { content: "no plan".into(), artifacts: Vec::new(), report: None },
    );
    server.store.results.publish(Point::Reply, &plan).await.unwrap();
    for run in [&bad, &good] {
        put(&server, &wake(run, TaskId::over(1)), Vec::new()).await;
    }
    let events = Ear::on(&server, "oarlock.event.>").await;
    let _orchestrator = cast(&server, &slow_story(0), &[Role::Orchestrator]).await;
    assert_eq!(ended(&server, &bad).await.status, RunStatus::Failed);
    let reply = result(&server, &bad).await;
    let failure = reply.failure().expect("a failure");
    assert_eq!(failure.kind, FailureKind::Poison, "{failure}");
    assert!(failure.message.contains("takeovers_max 5"), "{failure}");
    assert!(server.store.runs.history(&bad).await.unwrap().is_empty(), "nothing was asked for it");
    events.event(EventKind::Dispatched, Some(Role::Planner), 1).await;
    let record = record(&server, &good).await;
    assert_eq!((record.takeovers, record.status), (1, RunStatus::Working), "progress starts the count anew");
}

/// The record of a run belongs to its owner: a holder that finds another one's name in it stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_lost_the_record_stops_without_a_word() {
    let server = TestServer::start().await;
    let story = script(&[plan_rule(&[(Role::Researcher, &[])])]).replace("\"latency_ms\":0", "\"latency_ms\":1000");
    let events = Ear::on(&server, "oarlock.event.>").await;
    let _fleet = cast(&server, &story, &[Role::Orchestrator, Role::Planner]).await;
    let run = submit(&server, "make it").await;
    events.event(EventKind::Started, Some(Role::Planner), 1).await;
    change(&server, &run, |record| record.owner = owner(1_000_000, i64::MAX)).await;
    // Its next write is that of the plan.
    server.assert_nothing_left().await;
    let record = record(&server, &run).await;
    assert_eq!((record.owner, record.plan), (owner(1_000_000, i64::MAX), 0));
    assert!(events.events(EventKind::Planned).is_empty());
    assert_eq!(events.events(EventKind::Dispatched).len(), 1, "only the planner was asked");
    let replies = server.store.results.of_run(&run).await.unwrap();
    assert_eq!(replies.len(), 1, "no result for the run: {replies:?}");
}
