//! A week passes: runs wait for people, everything is killed, and when it is started again the server's clock is eight days
//! ahead. The server is the real one, built by Go from its own source with one line more in Go's `time.Now`; a static binary
//! reads the clock past every library, so nothing can be put between.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use oarlock::bus::{Embedded, EmbeddedConfig, Storage, StreamSettings};
use oarlock::store::Store;
use oarlock::wire::{EventKind, FailureKind, Role, RunId, RunRecord, RunStatus};
use serde_json::{Value, json};

use crate::harness::{TestServer, Worker, connect, have, sources, until};
use crate::story::{Ear, SLOW_CAST, cast, ended, record, result, slow_story};

const DAY_S: u64 = 24 * 3600;
const PASSED_S: u64 = 8 * DAY_S;
/// How long it is looked at what waiting runs cost.
const WINDOW: Duration = Duration::from_secs(3);

/// A server of the version of `server` whose clock is ahead by `CLOCK_AHEAD_S` seconds; built once.
fn shifted(version: &str) -> Option<PathBuf> {
    let go =
        |arguments: &[&str]| Command::new("go").args(arguments).output().ok().filter(|ended| ended.status.success());
    if !have("go", go(&["version"]).is_some(), "install Go 1.25 or later: the server with another clock is built by it")
    {
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("clock-{version}"));
    let binary = folder.join("nats-server");
    if binary.exists() {
        return Some(binary);
    }
    std::fs::create_dir_all(&folder).unwrap();
    let root = String::from_utf8(go(&["env", "GOROOT"]).unwrap().stdout).unwrap();
    let original = Path::new(root.trim()).join("src/time/time.go");
    let text = std::fs::read_to_string(&original).unwrap();
    let begins = ":= runtimeNow()\n\tif mono == 0";
    assert!(text.contains(begins), "time.Now of {root} is another one; look at it");
    let text = text.replacen(begins, ":= runtimeNow()\n\tsec += aheadS\n\tif mono == 0", 1);
    let text = text.replacen("import (", "import (\n\t\"syscall\"", 1);
    let ahead = "\nvar aheadS = ahead()\n\nfunc ahead() (s int64) {\n\ttext, _ := syscall.Getenv(\"CLOCK_AHEAD_S\")\n\t\
                 for _, digit := range []byte(text) {\n\t\ts = 10*s + int64(digit-'0')\n\t}\n\treturn s\n}\n";
    std::fs::write(folder.join("time.go"), text + ahead).unwrap();
    let overlay = json!({ "Replace": { original.to_str().unwrap(): folder.join("time.go") } });
    std::fs::write(folder.join("overlay.json"), overlay.to_string()).unwrap();
    let mut build = Command::new("go");
    build.args(["install", "-overlay"]).arg(folder.join("overlay.json"));
    build.arg(format!("github.com/nats-io/nats-server/v2@v{version}")).env("GOBIN", &folder).env("CGO_ENABLED", "0");
    let built = build.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(binary)
}

/// A server that is killed with the test.
struct Later(Child);

impl Drop for Later {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn submit(server: &TestServer, gates: Value) -> RunId {
    let goal = json!({ "goal": "make it", "gates": gates }).to_string();
    let answer = server.request("oarlock.submit", goal).await;
    assert_eq!(answer.error_code(), "", "{}", answer.text());
    serde_json::from_str::<Value>(&answer.text()).unwrap()["run"].as_str().unwrap().parse().unwrap()
}

async fn parked(server: &TestServer, run: &RunId) -> RunRecord {
    until("the run to be parked", async || record(server, run).await.status == RunStatus::InputRequired).await;
    record(server, run).await
}

/// The fleet of a small story.
async fn fleet(server: &TestServer) -> Vec<Worker> {
    cast(server, &slow_story(0), &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await
}

/// Messages of all streams, and the processor's time of the fleet so far, in its ticks.
async fn cost(server: &TestServer, fleet: &[Worker]) -> (Vec<u64>, u64) {
    let root = &server.bus.root;
    let mut written = Vec::new();
    for stream in
        [root.tasks_stream(), root.results_stream(), root.later_stream(), format!("KV_{}", root.runs_bucket())]
    {
        written.push(server.bus.js.get_stream(stream).await.unwrap().cached_info().state.last_sequence);
    }
    let ticks = |worker: &Worker| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", worker.pid())).unwrap();
        let times = stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2);
        times.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    };
    (written, fleet.iter().map(ticks).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_week_passes_while_runs_wait_for_people_and_everything_is_off() {
    let folder = tempfile::Builder::new().prefix("oarlock-test-").tempdir().unwrap();
    let home = folder.path().join("nats");
    let config = EmbeddedConfig { sources: sources(), storage: Storage::Folder(home.clone()), sync_always: false };
    let server = Embedded::start(&config).await.unwrap();
    let bus = connect(server.url()).await;
    bus.declare(&StreamSettings { ack_wait: Duration::from_secs(2), ..StreamSettings::default() }).await.unwrap();
    let mut server = TestServer { store: Store::new(&bus), bus, server, folder };
    let Some(binary) = shifted(&server.bus.client.server_info().version) else { return };

    let first = fleet(&server).await;
    let week = submit(&server, json!({ "approve": "plan" })).await;
    let approving = submit(&server, json!({ "approve": "plan", "default": "approve" })).await;
    let longer = submit(&server, json!({ "approve": "plan", "within_s": 14 * DAY_S })).await;
    let held = submit(&server, json!({ "approve": "plan", "within_s": 14 * DAY_S })).await;
    let runs = [&week, &approving, &longer, &held];
    for run in runs {
        parked(&server, run).await;
    }
    let paused = server.request("oarlock.control.pause", held.to_string()).await;
    assert_eq!(paused.error_code(), "", "{}", paused.text());
    server.assert_nothing_left().await;
    until("each to have its one alarm", async || {
        let later = server.bus.js.get_stream(server.bus.root.later_stream()).await.unwrap();
        later.cached_info().state.messages == runs.len() as u64
    })
    .await;
    let (written, worked) = cost(&server, &first).await;
    tokio::time::sleep(WINDOW).await;
    let (now, since) = cost(&server, &first).await;
    println!("measured: five processes took {} ticks in {WINDOW:?} while four runs waited", since - worked);
    assert_eq!(now, written, "something was written while all waited");

    first.into_iter().for_each(Worker::kill_9);
    let port = server.server.url().rsplit(':').next().unwrap().to_owned();
    server.server.kill().await;
    let mut command = Command::new(&binary);
    command.arg("-c").arg(home.join("nats-embedded.conf")).args(["-a", "127.0.0.1", "-p", &port]);
    command.env("CLOCK_AHEAD_S", PASSED_S.to_string()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _later = Later(command.spawn().unwrap());
    until("the server to have its store again", async || server.store.runs.record(&week).await.is_ok()).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let _second = fleet(&server).await;

    assert_eq!(ended(&server, &week).await.status, RunStatus::Failed);
    let failure = result(&server, &week).await.failure().cloned().unwrap();
    assert!(failure.kind == FailureKind::Unanswered && failure.message.contains("within 604800 s"), "{failure}");
    assert_eq!(ended(&server, &approving).await.status, RunStatus::Completed);
    until("half of the two weeks to be told", async || events.events(EventKind::Escalated).len() == 2).await;
    for (verb, run) in [("approve", &longer), ("resume", &held), ("approve", &held)] {
        parked(&server, run).await;
        let answer =
            server.request(&format!("oarlock.control.{verb}"), json!({ "run": run, "by": "ann" }).to_string()).await;
        assert_eq!(answer.error_code(), "", "{verb} {run}: {}", answer.text());
    }
    for run in [&longer, &held] {
        assert_eq!(ended(&server, run).await.status, RunStatus::Completed);
    }
    let told = events.events(EventKind::Escalated);
    assert_eq!(told.len(), 2, "each is told once: {told:?}");
    let inputs = server.store.inputs.of_run(&longer, 0).await.unwrap();
    let waited = inputs.last().unwrap().at / 1_000_000_000 - record(&server, &longer).await.submitted_at;
    assert!(waited >= i64::try_from(PASSED_S).unwrap(), "only {waited} s are over for the server");
    server.assert_nothing_left().await;
}
