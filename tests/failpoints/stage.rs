//! A server, workers and orchestrators for one case: how one of them is armed, how it is known that it was struck, and
//! what must hold afterwards.

use std::time::Duration;

use async_nats::HeaderMap;
use oarlock::bus::failpoint::Fault;
use oarlock::bus::{Queue, StreamSettings};
use oarlock::wire::{EventKind, Role, RunId, RunStatus};

use crate::case::{Case, Tale};
use crate::harness::{TestServer, Worker, until};
use crate::picture::Picture;
use crate::story::{Ear, asking_roles, assert_one_content_each, cast_with, pid_of};
use crate::tales::{NOTES, Told, told};

/// `ack_wait` of all queues.
pub const ACK_WAIT: Duration = Duration::from_secs(1);
/// Runs that one orchestrator holds at the same time; few, so that a sleeping one catches few messages.
pub const SLOTS: usize = 2;
/// Messages of the schedule that one orchestrator moves at the same time.
const DUE_SLOTS: usize = 4;
/// How long a caller waits before asking again: a sleeping door never answers.
const PATIENCE: Duration = Duration::from_secs(1);
/// The key of the one goal of a case.
pub const KEY: &str = "the one";

pub struct Stage {
    pub server: TestServer,
    pub told: Told,
    pub events: Ear,
    pub tasks: Ear,
    pub workers: Vec<Worker>,
}

impl Stage {
    /// A server and the tale's workers, without an orchestrator.
    pub async fn of(tale: Tale) -> Self {
        let told = told(tale);
        let server = server().await;
        if tale == Tale::Proposing {
            let run = RunId::from_key("", KEY);
            server.store.state.set(&run, NOTES, serde_json::json!(["begun"])).await.unwrap();
        }
        let events = Ear::on(&server, "oarlock.event.>").await;
        let tasks = Ear::on(&server, "oarlock.task.>").await;
        // The planner is to plan, and not to ask, although somebody is there.
        let roles = asking_roles(&server, &[(Role::Documenter, "user, tasks"), (Role::Planner, "")]);
        let settings = [("OARLOCK_ROLES", roles.as_str())];
        let asks = if tale == Tale::Asking { &settings[..] } else { &[] };
        let workers = cast_with(&server, &told.script, told.cast, asks).await;
        Self { server, told, events, tasks, workers }
    }

    /// An orchestrator that serves.
    pub async fn orchestrator(&self) -> Worker {
        let mut orchestrator = self.armed_with(None);
        orchestrator.ready(&self.server).await;
        orchestrator
    }

    /// One that may be struck before it is ready.
    pub fn armed(&self, case: &Case) -> Worker {
        self.armed_with(Some(case.variable()))
    }

    pub fn armed_with(&self, variable: Option<(&str, String)>) -> Worker {
        Worker::spawn(&self.server, Role::Orchestrator, |command| {
            command.args(["--slots", &SLOTS.to_string()]).envs(self.told.settings.iter().copied()).envs(variable);
        })
    }

    /// Asks a door until somebody answers, always with the same key.
    pub async fn insist(&self, subject: &str, payload: &str) -> Answer {
        insist(&self.server, subject, payload).await
    }

    /// Gives the goal to a door, and returns the run.
    pub async fn submit(&self, goal: &str) -> RunId {
        let answer = self.insist("oarlock.submit", goal).await;
        assert_eq!(answer.error_code(), "", "{}", answer.text());
        answer.text().parse().unwrap()
    }

    /// The same, with something that waits for a person.
    pub async fn submit_gated(&self, gates: serde_json::Value) -> RunId {
        let goal = serde_json::json!({ "goal": "make it", "gates": gates }).to_string();
        let answer = self.insist("oarlock.submit", &goal).await;
        assert_eq!(answer.error_code(), "", "{}", answer.text());
        serde_json::from_str::<serde_json::Value>(&answer.text()).unwrap()["run"].as_str().unwrap().parse().unwrap()
    }

    /// Waits until the run waits for a person, and nobody is busy with its message any more.
    pub async fn parked(&self, run: &RunId) {
        until(&format!("run {run} to be parked"), async || {
            let record = self.server.store.runs.record(run).await.unwrap().unwrap().record;
            let root = &self.server.bus.root;
            record.status == RunStatus::InputRequired && messages(&self.server, &root.tasks_stream()).await == 0
        })
        .await;
    }

    /// True when the record says that the run is over.
    pub async fn is_over(&self, run: &RunId) -> bool {
        self.server.store.runs.record(run).await.unwrap().is_some_and(|recorded| recorded.record.status.terminal())
    }

    pub async fn over(&self, run: &RunId) {
        until(&format!("run {run} to end"), async || self.is_over(run).await).await;
    }

    /// Waits until this process holds a run, or the run is over without that.
    pub async fn amid(&self, other: &Worker, run: &RunId) {
        until("another one to be at work", async || {
            let claimed = self.events.events(EventKind::Claimed);
            claimed.iter().any(|(_, event)| event.run == *run && pid_of(event) == other.pid())
                || self.is_over(run).await
        })
        .await;
    }

    /// Waits until `processes` orchestrators are done with all that they had.
    pub async fn idle(&self, processes: usize) {
        for (queue, slots) in [(Queue::Role(Role::Orchestrator), SLOTS), (Queue::Due, DUE_SLOTS)] {
            until(&format!("{processes} idle processes at {queue}"), async || {
                let consumer = self.server.bus.consumer(queue).await.unwrap().unwrap();
                consumer.cached_info().num_waiting == slots * processes
            })
            .await;
        }
    }

    /// Waits until no queue and no schedule holds anything.
    pub async fn nothing_left(&self) {
        let root = &self.server.bus.root;
        for stream in [root.tasks_stream(), root.later_stream()] {
            until(&format!("{stream} to be empty"), async || messages(&self.server, &stream).await == 0).await;
        }
    }

    /// What must hold once the run is over, and nothing is left of it anywhere.
    pub async fn assert_like(&self, run: &RunId, undisturbed: &Picture) {
        self.nothing_left().await;
        Picture::of(&self.server, run, &self.workers).await.assert_is(undisturbed);
        assert_one_content_each(&self.tasks);
    }
}

pub async fn server() -> TestServer {
    TestServer::with(&StreamSettings { ack_wait: ACK_WAIT, ..StreamSettings::default() }).await
}

/// What a door said.
pub struct Answer(async_nats::Message);

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.payload).into_owned()
    }

    /// The service error code, empty for a good answer.
    pub fn error_code(&self) -> String {
        let headers = self.0.headers.as_ref();
        headers.and_then(|headers| headers.get("Nats-Service-Error-Code")).map(ToString::to_string).unwrap_or_default()
    }
}

/// Messages in a stream.
pub async fn messages(server: &TestServer, stream: &str) -> u64 {
    server.bus.js.get_stream(stream).await.unwrap().cached_info().state.messages
}

pub async fn insist(server: &TestServer, subject: &str, payload: &str) -> Answer {
    let mut answer = None;
    until(&format!("an answer from {subject}"), async || {
        let mut headers = HeaderMap::new();
        headers.insert("Oarlock-Key", KEY);
        let request = async_nats::Request::new().headers(headers).payload(payload.to_owned().into());
        let asked = server.bus.client.send_request(subject.to_owned(), request.timeout(Some(PATIENCE))).await;
        answer = asked.ok();
        answer.is_some()
    })
    .await;
    Answer(answer.unwrap())
}

/// Waits until the failpoint has done its work: the process is dead, or it sleeps, and it says where.
pub async fn struck(process: &mut Worker, case: &Case) {
    match case.fault {
        Fault::Crash => assert_eq!(process.exit_code().await, None, "{}", process.log_text()),
        Fault::Stop => asleep(process.pid(), case).await,
    }
    let said = process.log_text();
    assert!(said.contains(&case.last_words()), "{said}");
}

/// Waits until a process sleeps.
pub async fn asleep(pid: u32, case: &Case) {
    let stat = format!("/proc/{pid}/stat");
    until(&format!("process {pid} to sleep at {case}"), async || {
        let stat = std::fs::read_to_string(&stat).unwrap();
        let state = stat.rsplit(") ").next().unwrap_or_default();
        assert!(!state.starts_with('Z'), "it ended instead");
        state.starts_with('T')
    })
    .await;
}

/// Sends a signal: "CONT".
pub fn signal(pid: u32, name: &str) {
    let status = std::process::Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(status.success());
}
