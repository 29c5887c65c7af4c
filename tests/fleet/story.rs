//! What several tests tell their stories with: small scripts, an ear for what goes over the wire, tasks put on a queue by
//! hand, and what must hold of every run that ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use oarlock::bus::{Outgoing, Point};
use oarlock::roles::RoleDefinition;
use oarlock::wire::subject::TaskSubject;
use oarlock::wire::{
    Content, Event, EventKind, Goal, Reply, Role, RunId, RunRecord, RunStatus, StateView, Task, TaskId, WIRE_VERSION,
};
use serde_json::{Value, json};

use crate::harness::{TestServer, Worker, until};

/// `ack_wait` of the servers in these tests.
pub const ACK_WAIT: Duration = Duration::from_secs(2);

/// A script of these rules.
pub fn script(rules: &[Value]) -> String {
    json!({ "version": 1, "strict": true, "rules": rules }).to_string()
}

/// A rule that answers `role` in JSON after so many milliseconds.
pub fn json_rule(role: Role, latency_ms: u64, answer: &Value) -> Value {
    json!({ "match": { "role": role }, "response": { "json": answer, "latency_ms": latency_ms } })
}

/// A rule that answers `role` in prose.
pub fn text_rule(role: Role, latency_ms: u64, text: &str) -> Value {
    json!({ "match": { "role": role }, "response": { "content": text, "latency_ms": latency_ms } })
}

/// The planner's rule: each task is its role and the numbers of what it needs.
pub fn plan_rule(tasks: &[(Role, &[usize])]) -> Value {
    let task = |(index, (role, needs)): (usize, &(Role, &[usize]))| {
        let needs: Vec<String> = needs.iter().map(|number| format!("t{number}")).collect();
        json!({ "id": format!("t{}", index + 1), "role": role, "description": format!("part {}", index + 1), "depends_on": needs })
    };
    let tasks: Vec<Value> = tasks.iter().enumerate().map(task).collect();
    json_rule(Role::Planner, 0, &json!({ "tasks": tasks }))
}

pub fn findings() -> Value {
    json!({ "findings": [{ "text": "it is known", "source": "general knowledge" }], "not_found": [] })
}

pub fn one_file(content: &str) -> Value {
    json!({ "files": [{ "path": "made.py", "content": content }], "deleted": [], "summary": format!("wrote {content:?}") })
}

/// Two tasks in a row and an answer, the second one slow: time enough to kill somebody.
pub fn slow_story(latency_ms: u64) -> String {
    script(&[
        plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]),
        json_rule(Role::Researcher, 50, &findings()),
        text_rule(Role::Documenter, latency_ms, "# It\n\nIt is made."),
        text_rule(Role::Synthesizer, 50, "It is made."),
    ])
}

/// The roles that [`slow_story`] needs, without the orchestrator.
pub const SLOW_CAST: [Role; 4] = [Role::Planner, Role::Researcher, Role::Documenter, Role::Synthesizer];

/// Starts one process of each role and waits until all serve.
pub async fn cast(server: &TestServer, script: &str, roles: &[Role]) -> Vec<Worker> {
    cast_with(server, script, roles, &[]).await
}

/// The same, each with these variables set.
pub async fn cast_with(server: &TestServer, script: &str, roles: &[Role], environment: &[(&str, &str)]) -> Vec<Worker> {
    let script = server.file(&format!("script-{}.json", rand::random::<u32>()), script);
    let start = |role: &Role| {
        Worker::spawn(server, *role, |command| {
            command.arg("--script").arg(&script).envs(environment.iter().copied());
        })
    };
    let mut workers: Vec<Worker> = roles.iter().map(start).collect();
    for worker in &mut workers {
        worker.ready(server).await;
    }
    workers
}

/// A folder of role files in which these roles may ask these parties, for `OARLOCK_ROLES`.
pub fn asking_roles(server: &TestServer, asks: &[(Role, &str)]) -> String {
    let folder = server.file("begun", "").with_file_name(format!("roles-{}", rand::random::<u32>()));
    std::fs::create_dir(&folder).unwrap();
    for (role, whom) in asks {
        let file = RoleDefinition::built_in(*role).replace("asks: [user]\n", "");
        let file = file.replacen("model: default\n", &format!("model: default\nasks: [{whom}]\n"), 1);
        std::fs::write(folder.join(format!("{role}.md")), file).unwrap();
    }
    folder.to_str().unwrap().to_owned()
}

/// A rule of a role that may ask: it asks this, at one attempt of one task.
pub fn ask_rule(role: Role, task: &str, attempt: u32, to: &str, text: &str) -> Value {
    let question = json!({ "question": { "to": to, "text": text }, "answer": null });
    let mut rule = json_rule(role, 0, &question);
    rule["match"]["task_id"] = task.into();
    rule["match"]["attempt"] = attempt.into();
    rule
}

/// A rule of a role that may ask and does not: it answers when it is shown `seen`.
pub fn answer_rule(role: Role, task: &str, seen: &str, answer: &Value) -> Value {
    let mut rule = json_rule(role, 0, &json!({ "question": null, "answer": answer }));
    rule["match"]["task_id"] = task.into();
    rule["match"]["user_contains"] = seen.into();
    rule
}

/// The process with this id.
pub fn take(workers: &mut Vec<Worker>, pid: u32) -> Worker {
    let index = workers.iter().position(|worker| worker.pid() == pid).expect("a process of this test");
    workers.swap_remove(index)
}

/// Gives a goal to the submit door, and returns the run.
pub async fn submit(server: &TestServer, goal: &str) -> RunId {
    let answer = server.request("oarlock.submit", goal.to_owned()).await;
    assert_eq!(answer.error_code(), "", "{}", answer.text());
    answer.text().parse().unwrap()
}

pub async fn record(server: &TestServer, run: &RunId) -> RunRecord {
    server.store.runs.record(run).await.unwrap().expect("a record").record
}

/// Waits until the record says that the run is over.
pub async fn ended(server: &TestServer, run: &RunId) -> RunRecord {
    until(&format!("run {run} to end"), async || record(server, run).await.status.terminal()).await;
    record(server, run).await
}

/// The run's own reply.
pub async fn result(server: &TestServer, run: &RunId) -> Reply {
    server.store.results.get(&TaskSubject::of_run(run, 1)).await.unwrap().expect("the run's result")
}

/// A task that nobody planned.
pub fn task(role: Role, description: &str, limit: Duration) -> Task {
    Task {
        v: WIRE_VERSION,
        run: RunId::random(),
        id: TaskId::ask(),
        attempt: 1,
        role,
        description: description.into(),
        goal: Content::inline(description),
        context: Vec::new(),
        evidence: Vec::new(),
        findings: Vec::new(),
        files: Vec::new(),
        state: StateView::default(),
        notes: Vec::new(),
        limit_ms: u64::try_from(limit.as_millis()).unwrap(),
        asked_by: None,
        attended: false,
        budget: None,
    }
}

pub fn subject_of(task: &Task) -> TaskSubject {
    TaskSubject { role: task.role, run: task.run.clone(), task: task.id.clone(), attempt: task.attempt }
}

/// Puts a task on its queue, and returns its sequence.
pub async fn enqueue(server: &TestServer, task: &Task) -> u64 {
    put(server, &subject_of(task), serde_json::to_vec(task).unwrap()).await
}

/// Puts anything on a queue.
pub async fn put(server: &TestServer, to: &TaskSubject, payload: Vec<u8>) -> u64 {
    let root = &server.bus.root;
    server.bus.store(Outgoing::new(Point::Dispatch, root.tasks_stream(), root.task(to), payload)).await.unwrap()
}

/// A run as a door keeps it, with another record, and not yet on the queue.
pub async fn kept_run(server: &TestServer, change: impl Fn(&mut RunRecord)) -> RunId {
    let run = RunId::random();
    server.store.runs.accept(&run, &Goal::new("make it".into(), Vec::new())).await.unwrap();
    let mut recorded = server.store.runs.record(&run).await.unwrap().unwrap();
    change(&mut recorded.record);
    server.store.runs.write(Point::Claim, &run, &recorded.record, recorded.revision).await.unwrap().unwrap();
    run
}

/// A message that hands a run to the orchestrators.
pub fn wake(run: &RunId, task: TaskId) -> TaskSubject {
    TaskSubject { role: Role::Orchestrator, run: run.clone(), task, attempt: 1 }
}

/// Everything that is published on some subjects, also what no stream takes, with the time that we heard it.
pub struct Ear(Arc<Mutex<Vec<(Instant, String, Bytes)>>>);

impl Ear {
    pub async fn on(server: &TestServer, subject: &str) -> Self {
        let mut messages = server.bus.client.subscribe(subject.to_owned()).await.unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = heard.clone();
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                all.lock().unwrap().push((Instant::now(), message.subject.to_string(), message.payload));
            }
        });
        // A request on the same connection comes back after the server has taken the subscription.
        server.store.runs.record(&RunId::random()).await.unwrap();
        Self(heard)
    }

    pub fn all(&self) -> Vec<(Instant, String, Bytes)> {
        self.0.lock().unwrap().clone()
    }

    pub fn payloads(&self, subject: &str) -> Vec<Bytes> {
        self.all().into_iter().filter(|(_, heard, _)| heard == subject).map(|(_, _, payload)| payload).collect()
    }

    /// The events of a kind, when this listens to events.
    pub fn events(&self, kind: EventKind) -> Vec<(Instant, Event)> {
        let event = |(at, _, payload): (Instant, String, Bytes)| Some((at, serde_json::from_slice(&payload).ok()?));
        self.all().into_iter().filter_map(event).filter(|(_, event): &(_, Event)| event.kind == kind).collect()
    }

    /// Waits for the `number`-th event (from 1) of a kind and role.
    pub async fn event(&self, kind: EventKind, role: Option<Role>, number: usize) -> (Instant, Event) {
        let of_role = || self.events(kind).into_iter().filter(|(_, event)| event.role == role).collect::<Vec<_>>();
        until(&format!("event {number} {kind:?} of {role:?}"), async || of_role().len() >= number).await;
        of_role().swap_remove(number - 1)
    }
}

/// The process that an event speaks of.
pub fn pid_of(event: &Event) -> u32 {
    event.text.rsplit(':').next().and_then(|pid| pid.parse().ok()).expect("a worker's name")
}

/// What holds of every run that was interrupted and completed: one result, one plan, each request once and answered once.
pub async fn assert_one_of_everything(server: &TestServer, run: &RunId) {
    let record = record(server, run).await;
    let result = result(server, run).await;
    assert_eq!((record.status, &record.owner), (RunStatus::Completed, &None), "{result:?}");
    assert!(server.store.runs.plan(run, 1).await.unwrap().is_some() && record.plan == 1);
    assert!(server.store.runs.plan(run, 2).await.unwrap().is_none());
    let history = server.store.runs.history(run).await.unwrap();
    let asked: BTreeSet<_> =
        history.iter().map(|entry| (entry.message.metadata.task.clone(), entry.message.metadata.attempt)).collect();
    assert_eq!(asked.len(), history.len(), "history has each request once");
    assert!(asked.iter().all(|(_, attempt)| *attempt == 1), "nothing was tried twice: {asked:?}");
    let replies = server.store.results.of_run(run).await.unwrap();
    let answered: BTreeSet<_> = replies
        .iter()
        .filter(|(to, _)| to.role != Role::Orchestrator)
        .map(|(to, reply)| {
            assert!(reply.failure().is_none(), "{reply:?}");
            (to.task.clone(), to.attempt)
        })
        .collect();
    assert_eq!(answered, asked);
    assert_eq!(replies.len(), asked.len() + 1, "one result for each request, one for the run");
}

/// No subject was ever published with two contents: two holders of one run decided alike.
pub fn assert_one_content_each(tasks: &Ear) {
    let mut contents: BTreeMap<String, BTreeSet<Bytes>> = BTreeMap::new();
    for (_, subject, payload) in tasks.all() {
        contents.entry(subject).or_default().insert(payload);
    }
    for (subject, contents) in contents {
        assert_eq!(contents.len(), 1, "{subject} was dispatched with different contents: {contents:?}");
    }
}
