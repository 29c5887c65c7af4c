//! Fleets that the tool starts: `demo`, `up`, `worker`. What a user sees of them, and that no process outlives them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use oarlock::wire::{Reply, Report, Role};
use serde_json::Value;

use crate::harness::{TestServer, Worker, ended, have, sources, until};
use crate::tool::{ANSWER, alone, assert_ended, script, tool};

/// What a demo may take once the tool is built and the cache is warm.
const DEMO_MAX: Duration = Duration::from_secs(20);

/// Runs pytest by hand on a folder.
async fn assert_pytest_passes(folder: &Path) {
    // The pytest that the sandbox uses: it is there, because the demo has just run it.
    let folders = std::fs::read_dir(sources().cache).unwrap().map(|entry| entry.unwrap().path());
    let packages = folders.into_iter().find(|path| path.is_dir() && path.to_string_lossy().contains("/pytest-"));
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages.expect("pytest in the cache")).env("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1");
    command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).current_dir(folder);
    let ended = ended(command, b"").await;
    assert!(ended.code == Some(0) && ended.out.contains(" passed"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn demo_shows_a_whole_run_and_leaves_only_its_files() {
    let server = TestServer::bare().await;
    let (mark, mut command) = marked(&server, &["demo", "--out", "fib"]);
    command.env("TMPDIR", server.folder.path());
    let began = std::time::Instant::now();
    let demo = ended(command, b"").await;
    assert!(began.elapsed() < DEMO_MAX, "the demo took {:?}", began.elapsed());
    assert_ended(&demo, 0, "pytest passed: 12 of 12 tests ok");
    assert!(demo.out.contains("def fibonacci") && demo.out.contains("test"), "{demo:?}");
    assert!(!demo.err.contains("warning"), "{demo:?}");
    nothing_runs(&mark).await;
    let folder = server.folder.path().join("fib");
    for name in ["fibonacci.py", "test_fibonacci.py", "README.md"] {
        assert!(folder.join(name).is_file(), "{name}: {demo:?}");
    }
    assert_pytest_passes(&folder).await;
    let left: Vec<_> =
        std::fs::read_dir(server.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["fib"], "the demo left something behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_todo_demo_shows_a_failure_and_its_rework() {
    let server = TestServer::bare().await;
    let demo = alone(&server, &["demo", "todo", "--json", "--out", "todo"]).await;
    assert_ended(&demo, 0, "plan: 5 tasks");
    let reply: Reply = serde_json::from_str(&demo.out).unwrap();
    assert!(matches!(reply.report(), Some(Report::Tests(tests)) if tests.passed && tests.failed == 0), "{reply:?}");
    let marks = |mark: &str, task: &str| {
        let lines = demo.err.lines().filter(|line| line.trim_start().starts_with(mark));
        lines.filter(|line| line.contains(task)).count()
    };
    assert_eq!((marks("✗", "t3        qa"), marks("✗", "t4        reviewer")), (1, 1), "{}", demo.err);
    assert_eq!((marks("✓", "t2 #2"), marks("✓", "t3 #2"), marks("✓", "t4 #2")), (1, 1, 1), "{}", demo.err);
    assert!(demo.err.contains("test_todos_of_others_are_out_of_reach") || demo.err.contains("failed"), "{}", demo.err);
    assert_pytest_passes(&server.folder.path().join("todo")).await;
}

/// The tool with a mark in its environment, which all that it starts inherits.
fn marked(server: &TestServer, arguments: &[&str]) -> (String, Command) {
    let mark = format!("FLEET_TEST_MARK={:032x}", rand::random::<u128>());
    let mut command = tool(server, arguments);
    command.env("FLEET_TEST_MARK", mark.split_once('=').unwrap().1);
    (mark, command)
}

/// Processes with the mark in their environment; none where there is no /proc.
fn running(mark: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = all.filter(|process| {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    });
    let words = |path: std::path::PathBuf| std::fs::read(path.join("cmdline")).unwrap_or_default();
    ours.map(|process| String::from_utf8_lossy(&words(process)).replace('\0', " ")).collect()
}

async fn nothing_runs(mark: &str) {
    until(&format!("{mark} to have no process left"), async || running(mark).is_empty()).await;
}

/// `oarlock up`, ready to be used, with its mark.
async fn up(server: &TestServer) -> (String, Child) {
    server.file("up.json", &script());
    let (mark, mut command) = marked(server, &["up", "--script", "up.json", "--role", "coder=2"]);
    let log = std::fs::File::create(server.folder.path().join("up.log")).unwrap();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    until("`oarlock up` to be ready", async || {
        let said = std::fs::read_to_string(server.folder.path().join("up.log")).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "{said}");
        said.contains("ready   after")
    })
    .await;
    (mark, child)
}

async fn stop(mut child: Child, signal: &str) -> Option<i32> {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    let mut status = None;
    until("`oarlock up` to end", async || {
        status = child.try_wait().unwrap();
        status.is_some()
    })
    .await;
    status.unwrap().code()
}

#[tokio::test(flavor = "multi_thread")]
async fn up_serves_its_folder_until_it_is_stopped_and_nothing_outlives_it() {
    let server = TestServer::bare().await;
    let (mark, child) = up(&server).await;
    if have("procfs", Path::new("/proc/self/environ").exists(), "Linux") {
        assert!(running(&mark).len() > Role::ALL.len(), "{:?}", running(&mark));
    }
    let first = alone(&server, &["run", "a goal in words"]).await;
    assert_ended(&first, 0, "model calls");
    assert_eq!(first.out, format!("{ANSWER}\n"));
    assert!(!first.err.contains("starting one"), "it did not attach: {first:?}");
    let left = alone(&server, &["run", "a goal to leave", "--detach"]).await;
    assert!(alone(&server, &["ps"]).await.out.lines().any(|line| line.starts_with("coder") && line.contains(" 2 ")));
    assert_ended(&alone(&server, &["up", "--script", "up.json"]).await, 5, "is up already");

    // Killed as nobody wants to be killed: its children go too, and what was done is there the next time.
    assert_eq!(stop(child, "-KILL").await, None);
    nothing_runs(&mark).await;
    let (mark, child) = up(&server).await;
    until("the run that was left to be completed", async || {
        alone(&server, &["show", left.out.trim()]).await.out.contains("  completed  ")
    })
    .await;
    assert_eq!(stop(child, "-TERM").await, Some(0));
    nothing_runs(&mark).await;
    assert!(!server.folder.path().join(".oarlock/url").exists(), "the address of a server that is gone");

    let (mark, child) = up(&server).await;
    assert_eq!(stop(child, "-INT").await, Some(0));
    nothing_runs(&mark).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_binary_and_the_workers_verb_are_the_same() {
    let server = TestServer::start().await;
    let path = server.file("script.json", &script());
    let mut children = Vec::new();
    for role in Role::ALL {
        let mut command = tool(&server, &["worker", role.name(), "--server", server.url(), "--script"]);
        command.arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        children.push(command.spawn().unwrap());
    }
    let info = async |role: Role| {
        let answer = server.bus.client.request(format!("$SRV.INFO.oarlock-{role}"), "".into()).await.ok()?;
        let mut info: Value = serde_json::from_slice(&answer.payload).unwrap();
        info["id"] = Value::Null;
        info["metadata"]["worker"] = Value::Null;
        // They come in any order.
        info["endpoints"].as_array_mut().unwrap().sort_by_key(ToString::to_string);
        Some(info)
    };
    let mut by_verb = Vec::new();
    for role in Role::ALL {
        until(&format!("{role} to open its door"), async || info(role).await.is_some()).await;
        by_verb.push(info(role).await.unwrap());
    }
    let answer = server.request("oarlock.run", "a goal in words").await;
    assert_eq!(answer.text(), ANSWER);
    server.assert_nothing_left().await;
    for child in children {
        assert_eq!(stop(child, "-TERM").await, Some(0));
    }
    let mut workers: Vec<Worker> = Vec::new();
    for (role, by_verb) in Role::ALL.into_iter().zip(by_verb) {
        workers.push(server.worker(role, &script()).await);
        assert_eq!(info(role).await.unwrap(), by_verb, "{role}");
    }
    assert_eq!(server.request("oarlock.run", "a goal in words").await.text(), ANSWER);
    for worker in &mut workers {
        worker.signal("TERM");
        assert_eq!(worker.exit_code().await, Some(0), "{}", worker.log_text());
        assert!(worker.log_text().contains("stopped"), "{}", worker.log_text());
    }
}
