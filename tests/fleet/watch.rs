//! `oarlock watch`: frames as text, and a session that is typed on a real pseudo-terminal, seen as a terminal shows it.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use oarlock::wire::{Role, RunId, RunStatus};

use crate::crash::{Revived, kill_9, lasting};
use crate::harness::{Fleet, TestServer, Worker, sources, until};
use crate::snapshot::{alike, assert_snapshot};
use crate::story::{SLOW_CAST, cast, kept_run, record, slow_story, submit};
use crate::tool::{alone, assert_ended, tool};

/// Frames of a run that is over, which `reading` has made.
pub async fn frames(fleet: &Fleet, run: &str) {
    let frame = async |arguments: &[&str]| {
        let ended = alone(fleet, &[&["watch", "--once", "--server", fleet.url()], arguments].concat()).await;
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
        ended.out
    };
    let whole = frame(&[run, "--width", "100", "--height", "24"]).await;
    assert_eq!(whole.lines().count(), 24, "{whole}");
    assert!(whole.lines().all(|line| line.chars().count() <= 100) && !whole.contains('\u{1b}'), "{whole}");
    // The messages end in any order and carry times; the plan above them is always the same.
    let plan: Vec<&str> =
        whole.lines().take_while(|line| !line.starts_with(" messages ─")).map(str::trim_end).collect();
    let plan = plan.iter().map(|line| line.trim_end_matches('─')).collect::<Vec<_>>().join("\n");
    assert_snapshot("watch", &alike(&plan, run));
    assert!(whole.contains(" finished") && whole.contains("q leave"), "{whole}");
    let runs = frame(&[]).await;
    assert!(runs.contains("oarlock  1 runs") && runs.contains(run) && runs.contains("Build a REST API"), "{runs}");
    let narrow = frame(&[run, "--width", "20", "--height", "6"]).await;
    assert!(narrow.lines().all(|line| line.chars().count() <= 20), "{narrow}");
    assert_ended(&alone(fleet, &["watch", run, "--server", fleet.url()]).await, 2, "--once prints one frame");
    assert_ended(&alone(fleet, &["watch", "nobody", "--once", "--server", fleet.url()]).await, 3, "oarlock ls");
}

/// The tool on a terminal of its own.
pub struct Session {
    child: Child,
    keys: File,
    line: OwnedFd,
    seen: Arc<Mutex<vt100::Parser>>,
    raw: Arc<Mutex<Vec<u8>>>,
}

impl Session {
    pub fn start(mut command: Command) -> Self {
        let size = Winsize { ws_row: 30, ws_col: 110, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).unwrap();
        let end = || pair.slave.try_clone().unwrap();
        command.env("TERM", "xterm-256color").stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap();
        // The command would keep the ends open.
        drop(command);
        let keys = File::from(pair.master);
        let mut shown = keys.try_clone().unwrap();
        let seen = Arc::new(Mutex::new(vt100::Parser::new(NonZero::new(30).unwrap(), NonZero::new(110).unwrap(), 0)));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let (screen, bytes) = (seen.clone(), raw.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = shown.read(&mut buffer) {
                bytes.lock().unwrap().extend_from_slice(&buffer[..count]);
                screen.lock().unwrap().process(&buffer[..count]);
            }
        });
        Self { child, keys, line: pair.slave, seen, raw }
    }

    pub fn watch(server: &TestServer, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = tool(server, &["watch", "--server", server.url()]);
        command.args(arguments).envs(variables.iter().copied());
        Self::start(command)
    }

    fn text(&self) -> String {
        self.seen.lock().unwrap().screen().contents()
    }

    pub fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen shows all of these.
    pub async fn shows(&self, parts: &[&str]) {
        let whole = || parts.iter().all(|part| self.text().contains(part));
        let waited = tokio::time::timeout(crate::harness::WAIT, until("the screen", async || whole())).await;
        assert!(waited.is_ok() && whole(), "never seen: {parts:?}\n{}", self.text());
    }

    /// Waits until the screen shows this no more.
    pub async fn shows_no(&self, part: &str) {
        until(&format!("{part} to go"), async || !self.text().contains(part)).await;
    }

    /// Waits for the end, and that the terminal is as it was.
    pub async fn ends(mut self, code: i32) {
        let mut status = None;
        until("the watch to end", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        assert_eq!(status.unwrap().code(), Some(code), "{}", self.text());
        let restored = || {
            let parser = self.seen.lock().unwrap();
            !parser.screen().alternate_screen() && !parser.screen().hide_cursor()
        };
        until("the terminal to be restored", async || restored()).await;
        let flags = tcgetattr(&self.line).unwrap().local_flags;
        assert!(flags.contains(LocalFlags::ICANON | LocalFlags::ECHO), "it is raw still: {flags:?}");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A fleet whose documenter takes so long, with a run on its way.
async fn busy(latency_ms: u64) -> (TestServer, Vec<Worker>, RunId) {
    let server = TestServer::start().await;
    let roles = [&SLOW_CAST[..], &[Role::Orchestrator]].concat();
    let workers = cast(&server, &slow_story(latency_ms), &roles).await;
    let run = submit(&server, "make it \u{1b}]0;mine\u{7} well").await;
    (server, workers, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_typed_on_a_terminal() {
    let (server, _workers, run) = busy(6_000).await;
    let mut session = Session::watch(&server, &[], &[]);
    session.shows(&["oarlock  1 runs", run.as_str(), "working", "make it"]).await;
    session.type_keys("\r");
    session.shows(&[" plan ──", "✓ plan", "✓ t1", "… t2", "· answer", " messages ──", "dispatched"]).await;
    // What a model writes is seen while it writes it, and is no command to the terminal.
    let token = serde_json::json!({
        "v": 1, "run": run, "task": "t2", "role": "documenter", "attempt": 1, "offset": 0, "text": "# Draft \u{1b}[2J\u{1b}]0;taken\u{7} of it"
    });
    server.bus.client.publish(format!("oarlock.event.{run}.token"), token.to_string().into()).await.unwrap();
    session.shows(&["# Draft  [2J ]0;taken  of it", "✓ plan"]).await;
    session.type_keys("jj\r");
    session.shows(&[" task t2 ──", "after t1", "attempt 1"]).await;
    session.type_keys("\u{1b}");
    session.shows(&["> ", "… t2"]).await;
    session.type_keys("l");
    session.shows_no(" plan ──").await;
    session.shows(&[" messages ──", "claimed", "started    t2"]).await;
    session.type_keys("/planner\r");
    session.shows(&["messages /planner", "plan      planner"]).await;
    session.shows_no("started    t2").await;
    session.type_keys("\u{1b}");
    session.shows(&["started    t2"]).await;
    session.type_keys("?");
    session.shows(&[" keys ──", "open a run; describe a task"]).await;
    session.type_keys(":t1\r");
    session.shows(&[" task t1 ──", "✓ attempt 1", "it is known"]).await;
    session.type_keys(":t9\r");
    session.shows(&["no task t9 here"]).await;
    session.type_keys(":plan\r");
    session.shows(&[" plan ──", "✓ t2", "✓ answer", "completed"]).await;
    session.type_keys(":runs\r");
    session.shows(&["oarlock  1 runs", "completed"]).await;
    session.type_keys("q");
    session.ends(0).await;
    assert!(record(&server, &run).await.status.terminal());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_comes_back_however_it_ends() {
    let (server, _workers, run) = busy(500).await;
    for (signal, code) in [("TERM", 0), ("HUP", 0), ("INT", 130)] {
        let session = Session::watch(&server, &[run.as_str()], &[]);
        session.shows(&[" plan ──", "✓ plan"]).await;
        let pid = session.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
        session.ends(code).await;
    }
    let mut session = Session::watch(&server, &[run.as_str()], &[("NO_COLOR", "1")]);
    session.shows(&["✓ answer", "completed"]).await;
    session.type_keys("\u{3}");
    let raw = session.raw.clone();
    session.ends(0).await;
    let text = String::from_utf8_lossy(&raw.lock().unwrap()).into_owned();
    assert!(!text.contains("\u{1b}[38;"), "colours with NO_COLOR: {text:?}");
    let mut coloured = Session::watch(&server, &[run.as_str()], &[]);
    coloured.shows(&["✓ answer", "completed"]).await;
    let raw = coloured.raw.clone();
    coloured.type_keys("q");
    coloured.ends(0).await;
    let text = String::from_utf8_lossy(&raw.lock().unwrap()).into_owned();
    assert!(text.contains("\u{1b}[38;5;2"), "no green sign: {text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_drawn_on_a_terminal() {
    let (server, _workers, _) = busy(1_000).await;
    let mut command = tool(&server, &["run", "make it", "--server", server.url()]);
    command.env("TMPDIR", server.folder.path());
    let mut session = Session::start(command);
    session.shows(&["plan: 2 tasks", "└─ t1", "└─ t2", "✓ t1        researcher"]).await;
    session.shows(&["t2        documenter"]).await;
    session.shows(&["✓ t2        documenter", "It is made.", "model calls"]).await;
    until("the run to end", async || session.child.try_wait().unwrap().is_some()).await;
    let text = String::from_utf8_lossy(&session.raw.lock().unwrap()).into_owned();
    assert!(text.contains("\u{1b}[32m✓"), "no green sign: {text:?}");
    session.ends(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_is_told_of_and_what_was_seen_stays() {
    let (server, home, port) = lasting().await;
    let run = kept_run(&server, |record| record.status = RunStatus::Failed).await;
    let mut session = Session::watch(&server, &[run.as_str()], &[]);
    session.shows(&["make it", "failed"]).await;
    kill_9(server.server.pid().unwrap());
    session.shows(&["old, because: ", "make it", "failed"]).await;
    // Nothing of the client's own log is on the screen, and keys are heard.
    assert!(!session.text().contains("WARN"), "{}", session.text());
    session.type_keys("?");
    session.shows(&["open a run; describe a task"]).await;
    session.type_keys("\u{1b}");
    until("the port to be free", async || std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()).await;
    let _revived = Revived::start(&sources().find().await.unwrap(), &home.join("nats-embedded.conf"), port);
    session.shows_no("old, because").await;
    session.shows(&["make it", "failed"]).await;
    session.type_keys("q");
    session.ends(0).await;
}
