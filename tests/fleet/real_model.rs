//! The command that measures real models: its table says what the runs came to, and nothing of it outlives it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::{TestServer, clean, ended, rules, until};

/// A goal that passes at its second attempt, and one that gets no plan.
fn script() -> String {
    let coder = |attempt: u32, right: u32| {
        let content = format!("def test_one():\n    assert 1 + 1 == {right}\n");
        let json = json!({ "files": [{ "path": "test_one.py", "content": content }], "summary": "a test" });
        json!({ "match": { "role": "coder", "attempt": attempt }, "response": { "json": json } })
    };
    let plan = rules::plan(&[("t1", "coder", &[]), ("t2", "qa", &["t1"])]);
    rules::script(&[
        rules::says("planner", "fibonacci", json!({ "json": plan })),
        rules::fault("planner", "common divisor", json!({ "kind": "refusal" })),
        coder(1, 3),
        coder(2, 2),
        rules::says("synthesizer", "", json!({ "content": "the answer" })),
    ])
}

/// The command, with this as the tool, and what it keeps in `folder`.
fn bench(tool: &str, folder: &Path) -> Command {
    let mut command = Command::new("python3");
    clean(&mut command);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/real_model.py"));
    command.args(["--oarlock", tool, "--keep"]).arg(folder);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_a_model_is_read_from_what_was_stored() {
    let server = TestServer::bare().await;
    let script = server.file("script.json", &script());
    let mut command = bench(env!("CARGO_BIN_EXE_oarlock"), server.folder.path());
    command.args(["--goals", "2", "--script"]).arg(&script);
    let table = ended(command, b"").await;
    assert_eq!(table.code, Some(0), "{table:?}");
    let lines: Vec<&str> = table.out.lines().collect();
    let cells = |line: usize| lines[line].split(" | ").collect::<Vec<_>>();
    let passed = cells(2);
    assert_eq!((passed[1], passed[2], passed[3]), ("1: coder, qa", "2", "4"), "{table:?}");
    assert!(passed[0].contains("fibonacci") && passed[6].starts_with("completed"), "{table:?}");
    assert!(passed[4].starts_with("≈ ") && passed[4].contains(" / ≈ "), "nobody counted these: {table:?}");
    let refused = cells(3);
    assert_eq!((refused[1], refused[2]), ("no", "no"), "{table:?}");
    assert!(refused[6].contains("the planner made no plan"), "{table:?}");
    assert_eq!(lines[5], "Of 2 goals: 1 valid plans, 1 passed pytest, 1 completed.");
    let fleet = std::fs::read_to_string(server.folder.path().join("fleet.log")).unwrap();
    assert!(fleet.lines().any(|line| line == "stopping"), "{fleet}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_does_not_start_is_told_with_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = bench(env!("CARGO_BIN_EXE_oarlock"), folder.path());
    command.arg("--no-such-option");
    let table = ended(command, b"").await;
    assert_eq!(table.code, Some(1), "{table:?}");
    assert!(table.err.contains("the fleet ended by itself, with code 2; it said:"), "{table:?}");
    assert!(table.err.contains("--no-such-option"), "{table:?}");
}

/// A fleet that takes its time to start is none that may be left behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_stopped_while_its_fleet_starts_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let (tool, pid) = (folder.path().join("slow"), folder.path().join("pid"));
    std::fs::write(&tool, format!("#!/bin/sh\necho $$ > {0}.new && mv {0}.new {0}\nexec sleep 300\n", pid.display()))
        .unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = bench(&tool.display().to_string(), folder.path());
    let mut running = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the fleet to start", async || pid.exists()).await;
    let fleet = std::fs::read_to_string(&pid).unwrap();
    let kill = |signal: &str, pid: &str| {
        let mut kill = Command::new("kill");
        kill.args([signal, pid]).stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(kill("-0", fleet.trim()), "it starts");
    assert!(kill("-TERM", &running.id().to_string()));
    until("the command to end", async || running.try_wait().unwrap().is_some()).await;
    assert!(!kill("-0", fleet.trim()), "the fleet is left behind");
}
