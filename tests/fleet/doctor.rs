//! `oarlock doctor`: a line for everything that a fleet needs, a fix for everything that is missing, and a code that a script
//! can act on.

use std::time::Duration;

use oarlock::bus::StreamSettings;
use oarlock::wire::Role;
use serde_json::Value;

use crate::harness::{Ended, TestServer, ended};
use crate::snapshot::assert_snapshot;
use crate::tool::{script, tool};

async fn doctor(server: &TestServer, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = tool(server, &["doctor", "--server", server.url()]);
    command.args(arguments).envs(variables.iter().copied());
    ended(command, b"").await
}

/// The report with everything made alike that is another one on another machine or day.
fn alike(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let starts = [
            ("✓ nats-server for embedded use: ", "PATH"),
            ("✓ NATS ", "VERSION is reachable, with JetStream"),
            ("✓ JetStream keeps ", "SIZE, no limit of this account; it answers in TIME"),
            ("✓ cache: ", "PATH can be written"),
            ("✓ Python for tests: ", "PATH (VERSION), with pytest"),
            ("✓ sandbox for tests: ", "TIER (LAYERS)"),
        ];
        match starts.iter().find(|(start, _)| line.starts_with(start)) {
            Some((start, rest)) => format!("{start}{rest}"),
            None => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_has_its_fix() {
    let server = TestServer::start().await;
    let script = script();
    let mut workers = Vec::new();
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Reviewer) {
        workers.push(server.worker(role, &script).await);
    }
    // The tests' servers have another ack_wait than the default; without this the doctor would say so.
    let settings = [("OARLOCK_ACK_WAIT_S", "2"), ("OARLOCK_MODEL", "openai/gpt-test"), ("OPENAI_API_KEY", "k")];
    let sick = doctor(&server, &settings, &[]).await;
    assert_eq!(sick.code, Some(1), "{sick:?}");
    assert_snapshot("doctor", &alike(&sick.out));
    assert!(sick.err.contains("1 of 24 checks found something broken"), "{sick:?}");
    let lines: Value = serde_json::from_str(&doctor(&server, &settings, &["--json"]).await.out).unwrap();
    for line in lines.as_array().unwrap() {
        assert_eq!(line["fix"].is_null(), line["level"] == "ok", "{line}");
    }
    workers.push(server.worker(Role::Reviewer, &script).await);
    assert_eq!(doctor(&server, &settings, &[]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_otherwise_is_named() {
    let server = TestServer::with(&StreamSettings { ack_wait: Duration::from_secs(7), replicas: 1 }).await;
    let told = async |variables: &[(&str, &str)], sign: &str, says: &str, fix: &str| {
        let report = doctor(&server, variables, &[]).await.out;
        let mut lines = report.lines().skip_while(|line| !(line.starts_with(sign) && line.contains(says)));
        assert!(lines.next().is_some(), "{sign} {says}: {report}");
        assert!(lines.next().is_some_and(|line| line.contains(fix)), "{fix}: {report}");
    };
    told(&[], "!", "consumer orchestrator of OARLOCK_TASKS", "oarlock migrate --dry-run").await;
    told(&[], "!", "no model is configured", "ANTHROPIC_API_KEY").await;
    told(&[("OARLOCK_MODEL", "gpt")], "✗", "names no provider", "mend OARLOCK_MODEL").await;
    let file = server.file("no-folder", "").display().to_string();
    told(&[("OARLOCK_CACHE", &file)], "✗", "no-folder cannot be written", "OARLOCK_CACHE").await;
    told(&[("OARLOCK_PYTHON", "/no/python")], "✗", "no Python for tests", "OARLOCK_PYTHON").await;
    told(&[("NATS_SOCKS_PROXY", "socks5://x")], "✗", "NATS_SOCKS_PROXY is set", "--server URL").await;
    server.bus.js.delete_stream("OARLOCK_DEAD").await.unwrap();
    told(&[], "✗", "missing: stream OARLOCK_DEAD", "oarlock migrate").await;
    let bare = TestServer::bare().await;
    let report = doctor(&bare, &[], &[]).await.out;
    assert!(report.contains("! no stream of root oarlock is there\n    fix: oarlock worker orchestrator"), "{report}");
}
