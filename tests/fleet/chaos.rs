//! The tool's own proof, in small: deaths at random, and nothing lost. Larger ones are run by hand (docs/reliability.md).

use std::process::Command;

use serde_json::Value;

use crate::harness::{clean, ended_within};

/// Longer than any chaos of this size takes on a busy machine.
const WAIT_S: u64 = 240;

async fn chaos(arguments: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_oarlock"));
    command.args(["chaos", "--json", "-q"]).args(arguments).current_dir(folder.path());
    clean(&mut command);
    let ended = ended_within(command, b"", std::time::Duration::from_secs(WAIT_S)).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.out).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_at_random_loses_and_doubles_nothing() {
    let report = chaos(&["--runs", "30", "--seconds", "12", "--seed", "5"]).await;
    println!("measured: chaos {report}");
    assert_eq!(report["runs"], 30);
    for zero in ["lost", "duplicated_effects", "orphans", "left"] {
        assert_eq!(report[zero], 0, "{zero}: {report}");
    }
    let kills = |who: &str| report["kills"][who].as_u64().unwrap();
    assert!(kills("worker") + kills("orchestrator") + kills("server") >= 5, "{report}");
    // 27 runs of five tasks and three of nine.
    assert_eq!(report["tasks"], 27 * 5 + 3 * 9, "{report}");
    let (executions, repeats) = (report["executions"].as_u64().unwrap(), report["repeats"].as_u64().unwrap());
    assert_eq!(executions - repeats, report["tasks"].as_u64().unwrap(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_write_on_the_disk_first_it_is_the_same() {
    let report = chaos(&["--runs", "10", "--seconds", "5", "--seed", "6", "--sync-always"]).await;
    for zero in ["lost", "duplicated_effects", "orphans", "left"] {
        assert_eq!(report[zero], 0, "{zero}: {report}");
    }
}
