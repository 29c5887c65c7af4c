//! Tool servers themselves: `@modelcontextprotocol/server-everything`, which nobody here wrote, and one that misbehaves.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oarlock::tools::{Grant, RESULT_BYTES_MAX, ServerSpec, ToolAnswer, ToolError, Tools};
use serde_json::{Value, json};

use crate::harness::{have, until, until_within};
use crate::npm::installed;

const SOON: Duration = Duration::from_secs(20);

/// The foreign server's program.
pub fn everything() -> Option<PathBuf> {
    let package = "@modelcontextprotocol/server-everything";
    installed(package, "2026.8.31", "mcp-server-everything")
}

/// The misbehaving server, with the file in which it logs.
pub fn peer(folder: &Path, mode: &str) -> Option<(ServerSpec, PathBuf)> {
    let python = Path::new("/usr/bin/python3");
    if !have("python3", python.exists(), "apt-get install python3") {
        return None;
    }
    let log = folder.join(format!("peer-{}.log", rand::random::<u32>()));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fleet/mcp_peer.py");
    let arguments = vec![script.to_owned(), log.display().to_string(), mode.to_owned()];
    Some((ServerSpec::new("peer", python, arguments, Vec::new(), 30).unwrap(), log))
}

fn tools(spec: ServerSpec, grants: &[&str]) -> Tools {
    let grants: Vec<Grant> = grants.iter().map(|text| text.parse().unwrap()).collect();
    Tools::new(&[spec], &grants, Path::new(env!("CARGO_BIN_EXE_oarlock"))).unwrap()
}

async fn call(tools: &Tools, name: &str, arguments: Value, limit: Duration) -> Result<ToolAnswer, ToolError> {
    let offer = tools.offer(SOON).await;
    let arguments = arguments.as_object().unwrap().clone();
    offer.tool(name)?.call(arguments, "run.t1.1.x", limit).await
}

/// What the peer wrote down, line by line.
pub fn heard(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The processes that the peer told of.
pub fn processes(log: &Path) -> Vec<u64> {
    heard(log).iter().filter_map(|line| line["pid"].as_u64()).collect()
}

pub fn lives(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_server_is_listed_and_called_within_what_is_allowed() {
    let Some(program) = everything() else { return };
    let path = std::env::var_os("PATH").unwrap();
    let spec = ServerSpec::new("all", &program, vec!["stdio".into()], vec![("PATH".into(), path)], 30).unwrap();
    let tools = tools(spec, &["all/get-sum", "all/echo", "all/get-tiny-image", "all/trigger-long-running-operation"]);
    let offer = tools.offer(SOON).await;
    assert!(offer.missing.is_empty(), "{:?}", offer.missing);
    let mut names: Vec<String> = offer.tools.iter().map(|tool| tool.name()).collect();
    names.sort();
    assert_eq!(names, ["all/echo", "all/get-sum", "all/get-tiny-image", "all/trigger-long-running-operation"]);
    let sum = offer.tool("all/get-sum").unwrap();
    assert_eq!(sum.description(), "Returns the sum of two numbers");
    assert_eq!(sum.schema()["properties"]["a"]["type"], "number");

    let answer = call(&tools, "all/get-sum", json!({"a": 20, "b": 22}), SOON).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.ok), ("The sum of 20 and 22 is 42.", true));
    let unfit = call(&tools, "all/get-sum", json!({"a": "many"}), SOON).await.unwrap_err();
    assert!(matches!(unfit, ToolError::Arguments { .. }), "{unfit}");
    let hidden = call(&tools, "all/get-env", json!({}), SOON).await.unwrap_err();
    assert!(matches!(hidden, ToolError::NotOffered { .. }), "{hidden}");
    let image = call(&tools, "all/get-tiny-image", json!({}), SOON).await.unwrap();
    assert!(image.text.contains("(an image, image/png, ") && image.text.len() < 1_000, "{}", image.text);

    let began = Instant::now();
    let slow = json!({"duration": 60, "steps": 60});
    let late = call(&tools, "all/trigger-long-running-operation", slow, Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(late, ToolError::Late { .. }) && began.elapsed() < Duration::from_secs(5), "{late}");
    let echo = call(&tools, "all/echo", json!({"message": "still there"}), SOON).await.unwrap();
    assert!(echo.text.contains("still there"), "{}", echo.text);
    tools.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_or_falls_silent_is_an_error_and_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some((spec, log)) = peer(folder.path(), "") else { return };
    let tools = tools(spec, &["peer/*"]);
    let died = call(&tools, "peer/die", json!({}), SOON).await.unwrap_err().to_string();
    assert!(died.contains("exit status: 3") && died.contains("told to die"), "{died}");
    assert_eq!(call(&tools, "peer/ping", json!({}), SOON).await.unwrap().text, "ping");
    assert_eq!(processes(&log).len(), 2, "it was started again");

    // One that hears nothing any more is ended, so that the next call finds another.
    let stalled = call(&tools, "peer/stall", json!({}), Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(stalled, ToolError::Late { .. }), "{stalled}");
    let silent = processes(&log)[1];
    until("the silent server to be ended", async || !lives(silent)).await;
    assert_eq!(call(&tools, "peer/ping", json!({}), SOON).await.unwrap().text, "ping");
    tools.close().await;
    until("the servers to be gone", async || processes(&log).into_iter().all(|pid| !lives(pid))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_started_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    for how in ["die", "close", "drop"] {
        let Some((spec, log)) = peer(folder.path(), "stubborn") else { return };
        let tools = tools(spec, &["peer/*"]);
        assert_eq!(call(&tools, "peer/ping", json!({}), SOON).await.unwrap().text, "ping");
        let started = processes(&log);
        assert_eq!(started.len(), 2, "the server and a process that it started");
        match how {
            "die" => drop(call(&tools, "peer/die", json!({}), SOON).await.unwrap_err()),
            "close" => tools.close().await,
            _ => drop(tools),
        }
        until(&format!("{how} to end both"), async || !started.iter().any(|pid| lives(*pid))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_waits_for_is_cancelled_and_a_call_has_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let Some((spec, log)) = peer(folder.path(), "") else { return };
    let tools = tools(spec, &["peer/*"]);
    let late = call(&tools, "peer/hang", json!({}), Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(late, ToolError::Late { .. }), "{late}");
    let cancelled = || heard(&log).iter().filter(|line| line["method"] == "notifications/cancelled").count();
    until("the server to hear that it timed out", async || cancelled() == 1).await;

    let dropped = tokio::time::timeout(Duration::from_millis(300), call(&tools, "peer/hang", json!({}), SOON)).await;
    assert!(dropped.is_err());
    until("the server to hear that it was dropped", async || cancelled() == 2).await;
    let calls: Vec<Value> = heard(&log).into_iter().filter(|line| line["method"] == "tools/call").collect();
    assert_eq!(calls[0]["params"]["_meta"]["oarlock/idempotency-key"], "run.t1.1.x", "{calls:?}");
    assert_eq!(processes(&log).len(), 1, "a server that answers a ping goes on");
    tools.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_no_tool_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let Some((spec, _)) = peer(folder.path(), "") else { return };
    let tools = tools(spec, &["peer/*"]);
    let offer = tools.offer(SOON).await;
    let mut names: Vec<String> = offer.tools.iter().map(|tool| tool.name()).collect();
    names.sort();
    assert_eq!(names, ["peer/die", "peer/flood", "peer/hang", "peer/huge", "peer/large", "peer/ping", "peer/stall"]);
    let large = call(&tools, "peer/large", json!({}), SOON).await.unwrap();
    assert!(large.bytes == 100_000 && large.text.len() < RESULT_BYTES_MAX + 100, "{}", large.text.len());
    let huge = call(&tools, "peer/huge", json!({}), Duration::from_secs(3)).await.unwrap_err();
    assert!(matches!(huge, ToolError::Late { .. }), "{huge}");
    assert_eq!(call(&tools, "peer/ping", json!({}), SOON).await.unwrap().text, "ping", "its other calls go on");
    tools.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_none_is_an_error_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let missing = ServerSpec::new("gone", Path::new("/no/such/program"), Vec::new(), Vec::new(), 30).unwrap();
    let not_mcp = ServerSpec::new("date", Path::new("/bin/date"), Vec::new(), Vec::new(), 30).unwrap();
    for (spec, says) in [(missing, "/no/such/program cannot be started"), (not_mcp, "exit status: 0")] {
        let grant = format!("{}/*", spec.name());
        let tools = tools(spec, &[&grant]);
        let offer = tools.offer(SOON).await;
        let why = offer.missing[0].to_string();
        assert!(offer.tools.is_empty() && why.contains(says) && why.contains("[mcp."), "{why}");
        // It is tried again after pauses that grow, and no task waits for a long one.
        let began = Instant::now();
        let mut whys = Vec::new();
        while !whys.last().is_some_and(|why: &String| why.contains("is tried again in")) {
            whys.push(tools.offer(SOON).await.missing[0].to_string());
            assert!(whys.len() < 10, "{whys:?}");
        }
        let later = Instant::now();
        assert!(tools.offer(SOON).await.tools.is_empty() && later.elapsed() < Duration::from_millis(500), "{whys:?}");
        assert!(began.elapsed() < SOON, "{whys:?}");
    }
    let Some((garbage, log)) = peer(folder.path(), "garbage") else { return };
    let tools = tools(garbage, &["peer/*"]);
    let began = Instant::now();
    let offer = tools.offer(Duration::from_secs(2)).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(matches!(offer.missing[0], ToolError::Start { .. }), "{:?}", offer.missing);
    let wait = Duration::from_secs(10);
    until_within("what was started to be gone", wait, async || processes(&log).into_iter().all(|pid| !lives(pid)))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_floods_us_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let Some((spec, log)) = peer(folder.path(), "") else { return };
    let tools = tools(spec, &["peer/*"]);
    let memory = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let before = memory();
    let error = call(&tools, "peer/flood", json!({}), SOON).await.unwrap_err();
    assert!(matches!(error, ToolError::Ended { .. }), "{error}");
    assert!(memory() < before + 200_000, "{before} and {} KiB", memory());
    let wait = Duration::from_secs(10);
    until_within("the flood's process to be gone", wait, async || processes(&log).into_iter().all(|pid| !lives(pid)))
        .await;
    assert!(call(&tools, "peer/ping", json!({}), SOON).await.is_ok_and(|answer| answer.ok));
}

#[tokio::test]
async fn a_grant_for_a_server_that_is_not_configured_is_refused() {
    let grant: Grant = "web/search".parse().unwrap();
    let Err(error) = Tools::new(&[], &[grant], Path::new("oarlock")) else { panic!("taken") };
    assert!(error.to_string().contains("[mcp.web]"), "{error}");
}
