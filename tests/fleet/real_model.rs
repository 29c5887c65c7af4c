//! The command that measures real models: its table says what the runs came to, and nothing of it outlives it.

use std::process::Command;

use serde_json::json;

use crate::harness::{TestServer, clean, ended, rules};

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

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_a_model_is_read_from_what_was_stored() {
    let server = TestServer::bare().await;
    let script = server.file("script.json", &script());
    let mut command = Command::new("python3");
    clean(&mut command);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/real_model.py"));
    command.args(["--oarlock", env!("CARGO_BIN_EXE_oarlock"), "--goals", "2", "--script"]).arg(&script);
    command.arg("--keep").arg(server.folder.path());
    let table = ended(command, b"").await;
    assert_eq!(table.code, Some(0), "{table:?}");
    let lines: Vec<&str> = table.out.lines().collect();
    let cells = |line: usize| lines[line].split(" | ").collect::<Vec<_>>();
    let passed = cells(2);
    assert_eq!((passed[1], passed[2], passed[3]), ("1: coder, qa", "2", "4"), "{table:?}");
    assert!(passed[0].contains("fibonacci") && passed[6].starts_with("completed"), "{table:?}");
    let refused = cells(3);
    assert_eq!((refused[1], refused[2]), ("no", "no"), "{table:?}");
    assert!(refused[6].contains("the planner made no plan"), "{table:?}");
    assert_eq!(lines[5], "Of 2 goals: 1 valid plans, 1 passed pytest, 1 completed.");
    let fleet = std::fs::read_to_string(server.folder.path().join("fleet.log")).unwrap();
    assert!(fleet.lines().any(|line| line == "stopping"), "{fleet}");
}
