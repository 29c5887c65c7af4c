//! A cluster of three servers and the processes of a fleet on it. The names are those of the single server's harness, so
//! that the stories of its tests can be told here too.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::TryStreamExt;
use oarlock::bus::{Bus, Queue, Server, presence};
use oarlock::store::Store;
use oarlock::wire::{Role, Root};
use tokio::sync::{Mutex as Turn, MutexGuard};

use crate::net::{Host, Net, allowed, assert_nothing_left};
pub use crate::nodes::Node;
pub use crate::one_server::until;
use crate::one_server::{clean, sources};

/// Servers, and copies of every stream.
pub const NODES: usize = 3;
/// How long a message may stay in the work queue after it was acknowledged.
const EMPTY_WAIT: Duration = Duration::from_secs(20);
/// How long a caller waits at a door; longer than a cluster takes to choose a leader.
pub const ANSWER_WAIT: Duration = Duration::from_secs(12);

/// A cluster of one test, with a connection to it.
pub struct TestServer {
    pub bus: Bus,
    pub store: Store,
    pub urls: String,
    nodes: Vec<Node>,
    net: Net,
    folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl TestServer {
    /// Starts three servers and waits until they have found each other; `None` where namespaces are not to be had.
    pub async fn start() -> Option<Self> {
        static TURN: Turn<()> = Turn::const_new(());
        if !allowed() {
            return None;
        }
        let turn = TURN.lock().await;
        let binary = sources().find().await.expect("a nats-server for the tests");
        let folder = tempfile::Builder::new().prefix("oarlock-cluster-").tempdir().unwrap();
        let net = Net::new();
        let hosts: Vec<Host> = (0..NODES).map(|_| net.host()).collect();
        let node = |index| Node::start(index, &hosts, &binary, folder.path());
        let nodes: Vec<Node> = (0..NODES).map(node).collect();
        let urls = nodes.iter().map(Node::url).collect::<Vec<_>>().join(",");
        let bus = connect(&urls).await;
        let server = Self { store: Store::new(&bus), bus, urls, nodes, net, folder, _turn: turn };
        until("the servers to have found each other", async || server.has_leader().await).await;
        Some(server)
    }

    /// A host on the servers' wire.
    pub fn host(&self) -> Host {
        self.net.host()
    }

    async fn has_leader(&self) -> bool {
        // Without a leader nobody answers, so the request has to be a short one.
        let request = async_nats::Request::new().timeout(Some(Duration::from_millis(500)));
        let answer = self.bus.client.send_request("$JS.API.STREAM.NAMES", request).await;
        answer.is_ok_and(|answer| !String::from_utf8_lossy(&answer.payload).contains("\"error\""))
    }

    /// The server that leads the queue of a role.
    pub async fn leader_of_queue(&self, role: Role) -> &Node {
        let mut name = None;
        until(&format!("a leader of the queue of {role}"), async || {
            let seen = self.bus.consumer(Queue::Role(role)).await.ok().flatten();
            name = seen.and_then(|seen| seen.cached_info().cluster.clone()?.leader);
            name.is_some()
        })
        .await;
        self.node(name)
    }

    fn node(&self, name: Option<String>) -> &Node {
        self.nodes.iter().find(|node| Some(&node.name) == name.as_ref()).expect("one of our servers")
    }

    /// All servers but this one.
    pub fn others(&self, than: &Node) -> Vec<&Node> {
        self.nodes.iter().filter(|node| node.name != than.name).collect()
    }

    /// The server that leads a stream.
    pub async fn leader(&self, stream: &str) -> &Node {
        let mut name = None;
        until(&format!("a leader of {stream}"), async || {
            let seen = self.bus.js.get_stream(stream).await;
            name = seen.ok().and_then(|seen| seen.cached_info().cluster.clone()?.leader);
            name.is_some()
        })
        .await;
        self.node(name)
    }

    /// Waits until every stream and consumer has its leader and all of its copies are up to date.
    pub async fn whole(&self) {
        let whole = |seen: Option<&async_nats::jetstream::stream::ClusterInfo>| {
            seen.is_some_and(|seen| {
                let good = seen.replicas.iter().filter(|copy| copy.current && !copy.offline).count();
                seen.leader.is_some() && good == NODES - 1
            })
        };
        for stream in self.streams().await {
            until(&format!("all copies of {stream}"), async || {
                let seen = self.bus.js.get_stream(&stream).await;
                seen.is_ok_and(|seen| whole(seen.cached_info().cluster.as_ref()))
            })
            .await;
        }
        for queue in Queue::all() {
            until(&format!("all copies of the consumer {queue}"), async || {
                let seen = self.bus.consumer(queue).await;
                seen.is_ok_and(|seen| seen.is_some_and(|seen| whole(seen.cached_info().cluster.as_ref())))
            })
            .await;
        }
    }

    /// Every stream that the fleet has declared, the buckets' own included.
    async fn streams(&self) -> Vec<String> {
        let mut names = Vec::new();
        until("the names of all streams", async || {
            names = self.bus.js.stream_names().try_collect().await.unwrap_or_default();
            !names.is_empty()
        })
        .await;
        names
    }

    /// Writes a file into the test's directory.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Asks a door and waits for the answer.
    pub async fn request(&self, subject: &str, payload: impl Into<Bytes>) -> Reply {
        self.ask(subject, HeaderMap::new(), payload, ANSWER_WAIT).await.unwrap()
    }

    /// Asks a door that may not answer.
    pub async fn ask(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: impl Into<Bytes>,
        wait: Duration,
    ) -> Result<Reply, async_nats::RequestError> {
        let request = async_nats::Request::new().headers(headers).payload(payload.into()).timeout(Some(wait));
        self.bus.client.send_request(subject.to_owned(), request).await.map(Reply)
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
        // What a consumer is done with is removed by every copy for itself, a moment later.
        let left = Mutex::new(Vec::new());
        let emptied = until("the work queue to be empty", async || {
            let seen = self.bus.scan(&self.bus.root.tasks_stream(), &self.bus.root.all_tasks()).await;
            let subjects = seen.map(|kept| kept.into_iter().map(|kept| kept.subject).collect::<Vec<_>>());
            *left.lock().unwrap() = subjects.unwrap_or_default();
            let state = self.bus.js.get_stream(self.bus.root.tasks_stream()).await;
            state.is_ok_and(|stream| stream.cached_info().state.messages == 0)
        });
        if tokio::time::timeout(EMPTY_WAIT, emptied).await.is_err() {
            panic!("left in the work queue, though nobody waits for it: {:?}", left.lock().unwrap());
        }
    }

    /// Ends the fleet and its servers, and looks that no process, namespace or link of them is left.
    pub fn end(self, workers: Vec<Worker>) {
        let mut pids: Vec<u32> = workers.iter().map(Worker::pid).collect();
        pids.extend(self.nodes.iter().filter_map(Node::pid));
        let there = |pid: &&u32| Path::new("/proc").join(pid.to_string()).exists();
        assert_eq!(pids.iter().filter(there).count(), pids.len(), "a process has ended by itself");
        drop(workers);
        drop(self);
        assert_eq!(pids.iter().filter(there).count(), 0, "a process of {pids:?} is left");
        assert_nothing_left();
    }
}

/// A connection by way of these servers.
pub async fn connect(urls: &str) -> Bus {
    let server = Server { urls: urls.to_owned(), ..Server::default() };
    let mut bus = None;
    until("the servers to let us in", async || {
        bus = Bus::connect(&server, &Root::default(), "test").await.ok();
        bus.is_some()
    })
    .await;
    bus.unwrap()
}

/// What a door answered.
pub struct Reply(async_nats::Message);

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.payload).into_owned()
    }

    /// The service error code, empty for a good answer.
    pub fn error_code(&self) -> String {
        let code = self.0.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error-Code"));
        code.map(ToString::to_string).unwrap_or_default()
    }
}

/// A role process.
pub struct Worker {
    pub role: Role,
    child: Child,
    pub log: PathBuf,
}

impl Worker {
    /// Starts a role binary beside this test, without waiting for anything.
    pub fn spawn(server: &TestServer, role: Role, configure: impl FnOnce(&mut Command)) -> Self {
        let command = Command::new(binary_of(role));
        Self::start(server, &server.urls, role, command, configure)
    }

    /// Starts one on a host of its own, with a script, and waits until it serves.
    pub async fn on(host: &Host, server: &TestServer, role: Role, script: &str) -> Self {
        let script = server.file(&format!("script-{}.json", rand::random::<u32>()), script);
        let command = host.command(binary_of(role));
        let mut worker = Self::start(server, &server.urls, role, command, |command| {
            command.arg("--script").arg(script);
        });
        worker.ready(server).await;
        worker
    }

    /// Starts one that knows only one of the servers at first, and waits until it serves.
    pub async fn with(node: &Node, server: &TestServer, role: Role, script: &str) -> Self {
        let script = server.file(&format!("script-{}.json", rand::random::<u32>()), script);
        let command = Command::new(binary_of(role));
        let mut worker = Self::start(server, &node.url(), role, command, |command| {
            command.arg("--script").arg(script);
        });
        worker.ready(server).await;
        worker
    }

    fn start(
        server: &TestServer,
        urls: &str,
        role: Role,
        mut command: Command,
        configure: impl FnOnce(&mut Command),
    ) -> Self {
        let log = server.folder.path().join(format!("{role}-{}.log", rand::random::<u32>()));
        // It ends with this test, however that ends: its standard input closes then.
        command.args(["--server", urls, "-v", "--with-parent"]);
        clean(&mut command);
        command.env("OARLOCK_REPLICAS", NODES.to_string());
        command.env("OARLOCK_ACK_WAIT_S", crate::story::ACK_WAIT.as_secs().to_string());
        configure(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        Self { role, child: command.spawn().unwrap(), log }
    }

    /// Waits until the log says that it serves.
    pub async fn ready(&mut self, _server: &TestServer) {
        let started = Instant::now();
        let what = format!("the {} to be ready; log {}", self.role, self.log.display());
        until(&what, async || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the {} ended after {:?}: {status}\n{}", self.role, started.elapsed(), self.log_text());
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
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log_text();
            let lines: Vec<&str> = log.lines().collect();
            println!("{} {} said: {:#?}", self.role, self.pid(), &lines[lines.len().saturating_sub(15)..]);
        }
    }
}

fn binary_of(role: Role) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_oarlock")).with_file_name(format!("oarlock-{role}"))
}
