//! A private server and role processes for one test; everything is killed when it is dropped.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use oarlock::bus::{Bus, Embedded, EmbeddedConfig, Server, ServerSources, Storage, StreamSettings, presence};
use oarlock::orchestrator::{Rules, view};
use oarlock::store::Store;
use oarlock::wire::{Role, Root, RunView};

/// Longest wait of any test for anything.
pub const WAIT: Duration = Duration::from_secs(60);

/// Scripts of recorded replies.
pub mod scripts {
    /// The fibonacci goal: researcher, coder, qa (writes the tests), reviewer, documenter.
    pub const FIBONACCI: &str = include_str!("../../src/cli/demo/fibonacci.json");
}

/// A server of one test, with a connection to it.
pub struct TestServer {
    pub bus: Bus,
    pub store: Store,
    pub server: Embedded,
    /// A directory for the test's own files.
    pub folder: tempfile::TempDir,
}

impl TestServer {
    /// Starts a server with an `ack_wait` short enough for tests.
    pub async fn start() -> Self {
        Self::with(&StreamSettings { ack_wait: Duration::from_secs(2), ..StreamSettings::default() }).await
    }

    pub async fn with(settings: &StreamSettings) -> Self {
        let this = Self::bare().await;
        this.bus.declare(settings).await.unwrap();
        this
    }

    /// A server on which nothing is declared.
    pub async fn bare() -> Self {
        let config = EmbeddedConfig { sources: sources(), storage: Storage::Temporary, sync_always: false };
        let server = Embedded::start(&config).await.expect("a nats-server for the tests");
        let bus = connect(server.url()).await;
        let folder = tempfile::Builder::new().prefix("oarlock-test-").tempdir().unwrap();
        Self { store: Store::new(&bus), bus, server, folder }
    }

    pub fn url(&self) -> &str {
        self.server.url()
    }

    /// Writes a file into the test's directory.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Starts the role's own binary with a script of model replies; it is ready when its door is open.
    pub async fn worker(&self, role: Role, script: &str) -> Worker {
        self.worker_with(role, script, &[]).await
    }

    pub async fn worker_with(&self, role: Role, script: &str, arguments: &[&str]) -> Worker {
        let script = self.file(&format!("{role}-{}.json", rand::random::<u32>()), script);
        let mut worker = Worker::spawn(self, role, |command| {
            command.arg("--script").arg(&script).args(arguments);
        });
        worker.ready(self).await;
        worker
    }

    /// Asks a door and waits for the answer.
    pub async fn request(&self, subject: &str, payload: impl Into<Bytes>) -> Reply {
        self.request_with(subject, HeaderMap::new(), payload).await
    }

    pub async fn request_with(&self, subject: &str, headers: HeaderMap, payload: impl Into<Bytes>) -> Reply {
        let request = async_nats::Request::new().headers(headers).payload(payload.into()).timeout(Some(WAIT));
        Reply(self.bus.client.send_request(subject.to_owned(), request).await.unwrap())
    }

    pub async fn view(&self, run: &str) -> RunView {
        view(&self.store, &run.parse().unwrap(), &Rules::default()).await.unwrap().expect("a run")
    }

    /// No task is queued or in flight: every accepted one was answered.
    pub async fn assert_nothing_left(&self) {
        for role in Role::ALL {
            until(&format!("the queue of {role} to be empty"), async || {
                let seen = presence(&self.bus, role).await.unwrap().expect("a consumer");
                seen.running == 0 && seen.waiting == 0
            })
            .await;
        }
    }
}

/// What a door answered.
pub struct Reply(async_nats::Message);

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.payload).into_owned()
    }

    /// A header's value, empty when it is not there.
    pub fn header(&self, name: &str) -> String {
        let headers = self.0.headers.as_ref();
        headers.and_then(|headers| headers.get(name)).map(ToString::to_string).unwrap_or_default()
    }

    /// The service error code, empty for a good answer.
    pub fn error_code(&self) -> String {
        self.header("Nats-Service-Error-Code")
    }
}

/// A role process.
pub struct Worker {
    pub role: Role,
    child: Child,
    pub log: PathBuf,
}

impl Worker {
    /// Starts a role binary without waiting for anything.
    pub fn spawn(server: &TestServer, role: Role, configure: impl FnOnce(&mut Command)) -> Self {
        Self::spawn_at(server, role, &["--server", server.url()], configure)
    }

    /// The same, with other arguments that say where its server is.
    pub fn spawn_at(server: &TestServer, role: Role, place: &[&str], configure: impl FnOnce(&mut Command)) -> Self {
        let log = server.folder.path().join(format!("{role}-{}.log", rand::random::<u32>()));
        let mut command = Command::new(role_binary(role));
        command.args(place).arg("-v");
        clean(&mut command);
        configure(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        Self { role, child: command.spawn().unwrap(), log }
    }

    /// Waits until the log says that it serves.
    pub async fn ready(&mut self, _server: &TestServer) {
        let what = format!("the {} to be ready; log {}", self.role, self.log.display());
        until(&what, async || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the {} ended: {status}\n{}", self.role, self.log_text());
            }
            self.log_text().contains("serving")
        })
        .await;
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal: "KILL", "STOP", "CONT", "TERM".
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Kills it as nobody wants to be killed.
    pub fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end and returns its exit code.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let mut code = None;
        until(&format!("the {} to end", self.role), async || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        })
        .await;
        code.and_then(|status| status.code())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server and one process of every role.
pub struct Fleet {
    pub server: TestServer,
    pub workers: Vec<Worker>,
}

impl Fleet {
    pub async fn start(script: &str) -> Self {
        let server = TestServer::start().await;
        let script = server.file("script.json", script);
        let mut workers: Vec<Worker> = Role::ALL
            .into_iter()
            .map(|role| {
                Worker::spawn(&server, role, |command| {
                    command.arg("--script").arg(&script);
                })
            })
            .collect();
        for worker in &mut workers {
            worker.ready(&server).await;
        }
        Self { server, workers }
    }
}

impl std::ops::Deref for Fleet {
    type Target = TestServer;
    fn deref(&self) -> &TestServer {
        &self.server
    }
}

/// The user's tool, ready for arguments, in the test's directory and with a clean environment.
pub fn oarlock(server: &TestServer) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oarlock"));
    command.current_dir(server.folder.path()).stdin(Stdio::null());
    clean(&mut command);
    command
}

/// Takes away what a developer's machine may have set: servers, keys, models.
pub fn clean(command: &mut Command) {
    for (name, _) in std::env::vars() {
        let ours = name.starts_with("OARLOCK_") && !["OARLOCK_CACHE", "OARLOCK_NATS_SERVER"].contains(&name.as_str());
        let model = ["_API_KEY", "_BASE_URL", "_MODEL"].iter().any(|end| name.ends_with(end));
        if ours || model || name.starts_with("NATS_") {
            command.env_remove(name);
        }
    }
    // Which run gets one is a matter of its id, which is random; a test that wants one says so.
    command.env("OARLOCK_CANARY_SHARE", "0");
}

fn role_binary(role: Role) -> &'static str {
    match role {
        Role::Orchestrator => env!("CARGO_BIN_EXE_oarlock-orchestrator"),
        Role::Planner => env!("CARGO_BIN_EXE_oarlock-planner"),
        Role::Researcher => env!("CARGO_BIN_EXE_oarlock-researcher"),
        Role::Coder => env!("CARGO_BIN_EXE_oarlock-coder"),
        Role::Qa => env!("CARGO_BIN_EXE_oarlock-qa"),
        Role::Reviewer => env!("CARGO_BIN_EXE_oarlock-reviewer"),
        Role::Documenter => env!("CARGO_BIN_EXE_oarlock-documenter"),
        Role::Synthesizer => env!("CARGO_BIN_EXE_oarlock-synthesizer"),
    }
}

/// The servers that the tool itself would use.
pub fn sources() -> ServerSources {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let home = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let root = std::fs::metadata("/root").is_ok_and(|_| std::fs::read_dir("/root").is_ok());
    let usual = if root { PathBuf::from("/var/cache/oarlock") } else { home.unwrap_or_default().join("oarlock") };
    ServerSources {
        named: variable("OARLOCK_NATS_SERVER"),
        path: std::env::var_os("PATH"),
        cache: variable("OARLOCK_CACHE").unwrap_or(usual),
    }
}

pub async fn connect(url: &str) -> Bus {
    let server = Server { urls: url.to_owned(), ..Server::default() };
    Bus::connect(&server, &Root::default(), "test").await.unwrap()
}

/// Polls until `done` says so, and panics with what was waited for when it takes too long.
pub async fn until(what: &str, done: impl AsyncFnMut() -> bool) {
    until_within(what, WAIT, done).await;
}

/// The same, with another patience.
pub async fn until_within(what: &str, wait: Duration, mut done: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !done().await {
        assert!(started.elapsed() < wait, "waited {} s for {what}", wait.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// False, with a line that says why, when the machine lacks something that a test needs; a failure when
/// `OARLOCK_TEST_REQUIRE` names it.
pub fn have(what: &str, there: bool, how_to_get_it: &str) -> bool {
    if !there {
        let required = std::env::var("OARLOCK_TEST_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|name| name.trim() == what),
            "{what} is required and is not there: {how_to_get_it}"
        );
        let _ = writeln!(std::io::stderr(), "not run: {what} ({how_to_get_it})");
    }
    there
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs a command to its end, with `input` on its standard input.
pub async fn ended(command: Command, input: &[u8]) -> Ended {
    ended_within(command, input, WAIT).await
}

/// The same, for a command that may take longer.
pub async fn ended_within(mut command: Command, input: &[u8], wait: Duration) -> Ended {
    use tokio::io::AsyncWriteExt;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let what = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    let mut child = command.kill_on_drop(true).spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    // A command that does not read its input closes the pipe.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let output = tokio::time::timeout(wait, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("{what} did not end within {} s", wait.as_secs())).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Scripts that a test makes for itself. `part` is what the prompt must hold, usually a word of the goal.
pub mod rules {
    use serde_json::{Value, json};

    pub fn script(rules: &[Value]) -> String {
        json!({ "version": 1, "rules": rules }).to_string()
    }

    /// `response` as in a script: content, json, finish, latency_ms.
    pub fn says(role: &str, part: &str, response: Value) -> Value {
        json!({ "match": { "role": role, "user_contains": part }, "response": response })
    }

    pub fn fault(role: &str, part: &str, fault: Value) -> Value {
        json!({ "match": { "role": role, "user_contains": part }, "fault": fault })
    }

    /// A plan of tasks: id, role, what it depends on.
    pub fn plan(tasks: &[(&str, &str, &[&str])]) -> Value {
        let task = |(id, role, needs): &(&str, &str, &[&str])| json!({ "id": id, "role": role, "description": format!("Do {id}."), "depends_on": needs });
        json!({ "tasks": tasks.iter().map(task).collect::<Vec<_>>() })
    }

    /// A goal that takes one researcher; the answer is "the small answer".
    pub fn small() -> Vec<Value> {
        let found = json!({ "findings": [{ "text": "it is small", "source": "the goal" }], "not_found": [] });
        vec![
            says("planner", "", json!({ "json": plan(&[("t1", "researcher", &[])]) })),
            says("researcher", "", json!({ "json": found })),
            says("synthesizer", "", json!({ "content": "the small answer" })),
        ]
    }
}
