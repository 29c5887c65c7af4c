//! Garbage straight on the queues and result subjects, past every door: what is no task is answered or removed, what is
//! of a newer version waits for a newer worker, and what a foreign program writes is checked like anything else.

use std::sync::Arc;

use futures::StreamExt;
use oarlock::bus::{Queue, presence};
use oarlock::wire::subject::TaskSubject;
use oarlock::wire::{Content, FailureKind, Outcome, Reply, Role, RunId, RunStatus, StateView, Task, TaskId};
use serde_json::{Value, json};

use crate::harness::{Fleet, TestServer, rules, until};

async fn publish(server: &TestServer, subject: &str, payload: impl Into<Vec<u8>>) {
    let sent = server.bus.js.publish(subject.to_owned(), payload.into().into()).await.unwrap();
    sent.await.unwrap_or_else(|error| panic!("{subject}: {error}"));
}

fn task(role: Role) -> Task {
    Task {
        v: 1,
        run: RunId::random(),
        id: TaskId::ask(),
        attempt: 1,
        role,
        description: "say it".into(),
        goal: Content::inline("say it"),
        context: Vec::new(),
        evidence: Vec::new(),
        findings: Vec::new(),
        files: Vec::new(),
        state: StateView::default(),
        notes: Vec::new(),
        asked_by: None,
        attended: false,
        limit_ms: 10_000,
        budget: None,
    }
}

fn subject(task: &Task) -> TaskSubject {
    TaskSubject { role: task.role, run: task.run.clone(), task: task.id.clone(), attempt: task.attempt }
}

async fn answered(server: &TestServer, to: &TaskSubject) -> Reply {
    let mut found = None;
    until(&format!("a result of {}", to.run), async || {
        found = server.store.results.get(to).await.unwrap();
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// A queued message by its subject.
async fn queued(server: &TestServer, subject: &str) -> bool {
    server.bus.last_from_leader("OARLOCK_TASKS", subject).await.unwrap().is_some()
}

async fn small_fleet() -> Fleet {
    Fleet::start(&rules::script(&rules::small())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_no_task_gets_a_failure_as_its_reply() {
    let fleet = small_fleet().await;
    let good = serde_json::to_value(task(Role::Researcher)).unwrap();
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed.to_string().into_bytes()
    };
    let cases: [(Vec<u8>, &str); 9] = [
        (Vec::new(), "is no task: EOF"),
        (b"\xff\xfe\x00".to_vec(), "is no task"),
        (b"{oops".to_vec(), "is no task"),
        (b"[]".to_vec(), "is no task"),
        (with("v", json!(0)), "its version is 0"),
        (with("run", json!("another")), "names another run, task, attempt or role"),
        (with("role", json!("coder")), "names another run, task, attempt or role"),
        (with("files", json!([{ "path": "../x" }])), "the file name \"../x\" is refused"),
        (with("limit_ms", json!(-1)), "is no task"),
    ];
    for (payload, says) in cases {
        let to = subject(&Task { run: RunId::random(), ..task(Role::Researcher) });
        publish(&fleet, &fleet.bus.root.task(&to), payload).await;
        let reply = answered(&fleet, &to).await;
        let failure = reply.failure().unwrap_or_else(|| panic!("{says}: {reply:?}"));
        assert_eq!(failure.kind, FailureKind::InvalidInput, "{says}: {failure:?}");
        assert!(failure.message.contains(says), "{says}: {failure:?}");
    }
    // A whole task past the door is as good as one through it.
    let whole = task(Role::Researcher);
    publish(&fleet, &fleet.bus.root.task(&subject(&whole)), serde_json::to_vec(&whole).unwrap()).await;
    assert!(answered(&fleet, &subject(&whole)).await.text().contains("it is small"));
    // A run that nobody submitted is acknowledged and forgotten.
    publish(&fleet, "oarlock.task.orchestrator.nobody.start.1", b"{oops".to_vec()).await;
    publish(&fleet, "oarlock.task.orchestrator.nobody.over7.99", Vec::new()).await;
    fleet.assert_nothing_left().await;
    assert!(fleet.request("oarlock.run", "a good goal").await.error_code().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_names_no_task_is_removed_and_told() {
    let fleet = small_fleet().await;
    let coder = fleet.workers.iter().find(|worker| worker.role == Role::Coder).unwrap();
    for bad in ["x", "x.t1", "x.t1.abc", "x.t1.-1", "x.t1.1.more", "x.t-1.1", "x.t1.99999999999"] {
        let subject = format!("oarlock.task.coder.{bad}");
        publish(&fleet, &subject, b"{}".to_vec()).await;
        until(&format!("{subject} to be removed"), async || !queued(&fleet, &subject).await).await;
        assert!(coder.log_text().contains(&format!("subject={subject}")), "{subject}: {}", coder.log_text());
    }
    publish(&fleet, "oarlock.task.orchestrator.x", Vec::new()).await;
    fleet.assert_nothing_left().await;
    let results = fleet.bus.scan("OARLOCK_RESULTS", "oarlock.result.>").await.unwrap();
    assert!(results.is_empty(), "{results:?}");
    assert!(fleet.request("oarlock.run", "a good goal").await.error_code().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_a_newer_version_is_left_to_a_newer_worker() {
    let fleet = small_fleet().await;
    let to = subject(&task(Role::Researcher));
    let newer = json!({ "v": 99, "nobody": "knows this" }).to_string();
    publish(&fleet, &fleet.bus.root.task(&to), newer).await;
    let researcher = fleet.workers.iter().find(|worker| worker.role == Role::Researcher).unwrap();
    until("the task to be handed back", async || researcher.log_text().contains("left to a newer worker")).await;
    // The same worker does the next one, while the newer task waits.
    assert!(fleet.request("oarlock.run", "a good goal").await.error_code().is_empty());
    assert!(queued(&fleet, &fleet.bus.root.task(&to)).await, "the task is gone");
    assert!(fleet.store.results.get(&to).await.unwrap().is_none(), "the task was answered");
    let seen = presence(&fleet.bus, Role::Researcher).await.unwrap().unwrap();
    assert_eq!((seen.running, seen.waiting), (1, 0), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_where_a_result_belongs_costs_an_attempt_and_no_more() {
    let server = TestServer::start().await;
    let file = json!({ "path": "test_a.py", "content": "def test_a():\n    assert 1 + 1 == 2\n" });
    let mut all = vec![
        rules::says("planner", "", json!({ "json": rules::plan(&[("t1", "coder", &[])]) })),
        rules::says(
            "coder",
            "stored something that is no reply",
            json!({ "json": { "files": [file], "summary": "done" } }),
        ),
    ];
    all.extend(rules::small());
    let script = rules::script(&all);
    let mut workers = Vec::new();
    for role in [Role::Orchestrator, Role::Planner, Role::Qa, Role::Synthesizer] {
        workers.push(server.worker(role, &script).await);
    }
    let run = server.request("oarlock.submit", "make it").await.text();
    // Nobody serves the coder's queue; a stranger writes to its results.
    let another = json!({ "v": 1, "run": "another", "task": "t1", "attempt": 2, "role": "coder",
        "outcome": { "status": "completed", "content": "trust me" } });
    for (attempt, garbage) in [(1, b"\xff garbage".to_vec()), (2, another.to_string().into_bytes())] {
        let asked = format!("oarlock.task.coder.{run}.t1.{attempt}");
        until(&format!("{asked} to be queued"), async || queued(&server, &asked).await).await;
        publish(&server, &format!("oarlock.result.coder.{run}.t1.{attempt}"), garbage).await;
    }
    workers.push(server.worker(Role::Coder, &script).await);
    until(&format!("run {run} to end"), async || server.view(&run).await.status.terminal()).await;
    let seen = server.view(&run).await;
    assert_eq!(seen.status, RunStatus::Completed, "{seen:?}");
    assert_eq!(seen.tasks.iter().find(|task| task.id.as_str() == "t1").unwrap().attempt, 3, "{seen:?}");
    server.assert_nothing_left().await;
}

/// A planner that is no program of ours: plain NATS and JSON, and the goal tells it which plan to answer with.
async fn foreign_planner(server: &TestServer, plans: Vec<(&'static str, Value)>) -> tokio::task::JoinHandle<()> {
    let consumer = server.bus.consumer(Queue::Role(Role::Planner)).await.unwrap().unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let (js, plans) = (server.bus.js.clone(), Arc::new(plans));
    tokio::spawn(async move {
        while let Some(Ok(message)) = messages.next().await {
            let task: Value = serde_json::from_slice(&message.payload).unwrap();
            let goal = task["goal"]["text"].as_str().unwrap();
            let plan = plans.iter().find(|(part, _)| goal.contains(part)).map(|(_, plan)| plan.clone());
            let report = plan.map(|tasks| json!({ "kind": "plan", "v": 1, "tasks": tasks }));
            let reply = json!({ "v": 1, "run": task["run"], "task": task["id"], "attempt": task["attempt"],
                "role": "planner", "outcome": { "status": "completed", "content": "a plan", "report": report } });
            let subject = message.subject.replacen(".task.", ".result.", 1);
            js.publish(subject, reply.to_string().into()).await.unwrap().await.unwrap();
            message.ack().await.unwrap();
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_planners_plan_is_checked_like_any_other() {
    let server = TestServer::start().await;
    let script = rules::script(&rules::small());
    let mut workers = Vec::new();
    for role in [Role::Orchestrator, Role::Researcher, Role::Synthesizer] {
        workers.push(server.worker(role, &script).await);
    }
    let tasks = |tasks: &[(&str, &str, &[&str])]| rules::plan(tasks)["tasks"].clone();
    let many: Vec<String> = (1..=201).map(|number| format!("t{number}")).collect();
    let many: Vec<(&str, &str, &[&str])> = many.iter().map(|id| (id.as_str(), "coder", &[][..])).collect();
    let invalid = FailureKind::PlanInvalid;
    let cases = [
        ("cycle", tasks(&[("t1", "coder", &["t2"]), ("t2", "qa", &["t1"])]), invalid, "in a cycle: t1 → t2 → t1"),
        ("self", tasks(&[("t1", "coder", &["t1"])]), invalid, "depends on itself"),
        ("missing", tasks(&[("t1", "coder", &["t9"])]), invalid, "\"t9\", which is no task of the plan"),
        ("twice", tasks(&[("t1", "coder", &[]), ("t1", "qa", &[])]), invalid, "is used twice"),
        ("boss", tasks(&[("t1", "orchestrator", &[])]), invalid, "who takes no tasks of a plan"),
        ("empty", json!([]), invalid, "the plan has no tasks"),
        ("many", tasks(&many), invalid, "201 tasks, more than plan_tasks_max 200"),
        ("stranger", tasks(&[("t1", "tester", &[])]), FailureKind::Internal, "no reply to task plan"),
        ("dotted", tasks(&[("a.b", "coder", &[])]), FailureKind::Internal, "no reply to task plan"),
    ];
    let mut plans: Vec<_> = cases.iter().map(|(part, plan, ..)| (*part, plan.clone())).collect();
    plans.push(("good", tasks(&[("t1", "researcher", &[])])));
    let planner = foreign_planner(&server, plans).await;
    for (goal, _, kind, says) in cases {
        let answer = server.request("oarlock.run", goal).await;
        assert_eq!(answer.error_code(), "500", "{goal}: {}", answer.text());
        assert!(
            answer.text().contains("the planner made no plan") && answer.text().contains(says),
            "{}",
            answer.text()
        );
        let run = answer.header("Oarlock-Run");
        until(&format!("run {run} to be failed"), async || server.view(&run).await.status == RunStatus::Failed).await;
        assert_eq!(server.view(&run).await.failure.map(|failure| failure.kind), Some(kind), "{goal}");
    }
    let none = server.request("oarlock.run", "nothing of the kind").await;
    assert!(none.text().contains("the planner's reply holds no plan"), "{}", none.text());
    let good = server.request("oarlock.run", "good").await;
    assert_eq!(good.text(), "the small answer");
    planner.abort();
    server.assert_nothing_left().await;
    let run: RunId = good.header("Oarlock-Run").parse().unwrap();
    let plan = TaskSubject { role: Role::Planner, run, task: TaskId::plan(), attempt: 1 };
    assert!(matches!(answered(&server, &plan).await.outcome, Outcome::Completed { .. }));
}
