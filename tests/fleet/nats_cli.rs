//! The real `nats` CLI against role binaries that run as processes of their own: what an operator types must work.

use std::path::PathBuf;
use std::process::Command;

use oarlock::wire::Role;
use serde_json::Value;

use crate::harness::{Ended, Fleet, TestServer, clean, ended, have, scripts, until};

pub const GET_IT: &str = "go install github.com/nats-io/natscli/nats@v0.5.1";

/// The CLI in PATH, or where `go install` puts it.
pub fn cli() -> Option<PathBuf> {
    let go = Command::new("go").args(["env", "GOPATH"]).output().ok();
    let go = go.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(go).collect::<Vec<_>>();
    folders.into_iter().map(|folder| folder.join("nats")).find(|file| file.is_file())
}

/// Runs `nats` with nothing of the developer's own contexts.
pub async fn nats(server: &TestServer, arguments: &[&str]) -> Ended {
    let mut command = Command::new(cli().unwrap());
    clean(&mut command);
    command.current_dir(server.folder.path()).env("HOME", server.folder.path());
    command.env("XDG_CONFIG_HOME", server.folder.path()).env("NO_COLOR", "1");
    command.args(["--server", server.url()]).args(arguments);
    ended(command, b"").await
}

/// The same for a call that must succeed; its standard output.
async fn good(server: &TestServer, arguments: &[&str]) -> String {
    let ended = nats(server, arguments).await;
    assert_eq!(ended.code, Some(0), "nats {arguments:?}: {} {}", ended.out, ended.err);
    ended.out
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn header(ended: &Ended, name: &str) -> String {
    let lines = ended.err.lines().chain(ended.out.lines());
    let mut values = lines.filter_map(|line| Some(line.split_once(&format!("{name}: "))?.1.trim().to_owned()));
    values.next().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_needs_nothing_but_the_nats_cli() {
    if !have("nats-cli", cli().is_some(), GET_IT) {
        return;
    }
    let fleet = Fleet::start(scripts::FIBONACCI).await;
    requests(&fleet).await;
    refusals(&fleet).await;
    services(&fleet).await;
    stores(&fleet).await;
    fleet.assert_nothing_left().await;
    let stats = json(&good(&fleet, &["micro", "stats", "oarlock-coder", "--json"]).await);
    let errors = &stats[0]["endpoints"][0]["num_errors"];
    assert_eq!(errors, 1, "`nats micro stats` shows no error for a refused request: {stats}");
}

async fn requests(fleet: &Fleet) {
    let goal = "Write a function to calculate fibonacci";
    let run = nats(fleet, &["req", "oarlock.run", goal, "--timeout", "60s"]).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.out.contains("def fibonacci(n: int)"), "{run:?}");
    assert_eq!(header(&run, "Oarlock-Status"), "completed", "{run:?}");
    assert_eq!(fleet.view(&header(&run, "Oarlock-Run")).await.goal, goal);

    let whole = good(fleet, &["req", "oarlock.run", r#"{"goal":"fibonacci"}"#, "--timeout", "60s", "--raw"]).await;
    let whole = json(&whole);
    assert_eq!(whole["outcome"]["report"]["passed"], true, "{whole}");
    let files: Vec<&str> = whole["outcome"]["artifacts"].as_array().unwrap().iter().map(path).collect();
    assert_eq!(files, ["README.md", "fibonacci.py", "test_fibonacci.py"]);

    let ask = nats(fleet, &["req", "oarlock.ask.coder", "Write fibonacci.py", "--timeout", "60s"]).await;
    assert!(ask.out.contains("fibonacci(n) iterates over pairs") && ask.out.contains("fibonacci.py"), "{ask:?}");
    assert_eq!(header(&ask, "Oarlock-Status"), "completed", "{ask:?}");
}

fn path(file: &Value) -> &str {
    file["path"].as_str().unwrap()
}

async fn refusals(fleet: &Fleet) {
    for (subject, body, code, says) in [
        ("oarlock.run", "{oops", "400", "is not a goal in JSON"),
        ("oarlock.submit", r#"{"goal":7}"#, "400", "expected a string"),
        ("oarlock.submit", "", "400", "the goal is empty"),
        ("oarlock.ask.coder", "{oops", "400", "is not a task in JSON"),
        ("oarlock.control.dance", "", "501", "there is no verb"),
    ] {
        let refused = nats(fleet, &["req", subject, body, "--timeout", "60s"]).await;
        assert_eq!(header(&refused, "Nats-Service-Error-Code"), code, "{refused:?}");
        assert!(header(&refused, "Nats-Service-Error").contains(says), "{refused:?}");
        assert!(refused.out.contains(says), "the body says nothing: {refused:?}");
    }
}

async fn services(fleet: &Fleet) {
    let table = good(fleet, &["micro", "ls"]).await;
    let listed = json(&good(fleet, &["micro", "ls", "--json"]).await);
    let listed: Vec<&Value> = listed.as_array().unwrap().iter().collect();
    assert_eq!(listed.len(), Role::ALL.len());
    for role in Role::ALL {
        let name = format!("oarlock-{role}");
        assert!(table.contains(&name), "{table}");
        let info = listed.iter().find(|info| info["name"] == name.as_str()).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(info["metadata"]["role"], role.name());
        assert!(info["description"].as_str().is_some_and(|text| text.len() > 20), "{info}");
    }
    let info = good(fleet, &["micro", "info", "oarlock-coder"]).await;
    assert!(info.contains("oarlock.ask.coder") && info.contains("OARLOCK_TASKS"), "{info}");
    let info = json(&good(fleet, &["micro", "info", "oarlock-orchestrator", "--json"]).await).to_string();
    for subject in ["oarlock.run", "oarlock.submit", "oarlock.control.*"] {
        assert!(info.contains(&format!("{subject:?}")), "{subject}: {info}");
    }
    let stats = json(&good(fleet, &["micro", "stats", "oarlock-coder", "--json"]).await);
    let ask = &stats[0]["endpoints"][0];
    assert_eq!((&ask["num_requests"], &ask["data"]["answered"]), (&2.into(), &2.into()), "{stats}");
    assert_eq!(ask["data"]["failed"], 1, "{stats}");
    assert!(good(fleet, &["micro", "stats", "oarlock-coder"]).await.contains("ask"));
    assert!(good(fleet, &["micro", "ping"]).await.contains("oarlock-qa"));
}

async fn stores(fleet: &Fleet) {
    let run = good(fleet, &["req", "oarlock.submit", "fibonacci please", "--raw"]).await.trim().to_owned();
    until(&format!("the record of {run} to be completed"), async || {
        json(&good(fleet, &["kv", "get", "oarlock_runs", &run, "--raw"]).await)["status"] == "completed"
    })
    .await;
    let goal = json(&good(fleet, &["kv", "get", "oarlock_runs", &format!("{run}.goal"), "--raw"]).await);
    assert_eq!(goal["text"], "fibonacci please");
    let plan = json(&good(fleet, &["kv", "get", "oarlock_runs", &format!("{run}.plan.1"), "--raw"]).await);
    assert_eq!(plan["tasks"].as_array().map(Vec::len), Some(5), "{plan}");
    let asked = json(&good(fleet, &["kv", "get", "oarlock_history", &format!("{run}.t2.1"), "--raw"]).await);
    assert_eq!(
        (&asked["from"], &asked["to"], &asked["type"]),
        (&"orchestrator".into(), &"coder".into(), &"request".into())
    );
    let result = format!("oarlock.result.coder.{run}.t2.1");
    let result = good(fleet, &["stream", "get", "OARLOCK_RESULTS", "--last-for", &result, "--json"]).await;
    assert!(json(&result)["subject"].as_str().is_some_and(|subject| subject.ends_with("t2.1")), "{result}");

    let streams = good(fleet, &["stream", "ls", "--all", "--names"]).await;
    for name in ["TASKS", "RESULTS", "BLOBS", "EVENTS"] {
        assert!(streams.contains(&format!("OARLOCK_{name}")), "{streams}");
    }
    let buckets = good(fleet, &["kv", "ls", "--names"]).await;
    for name in ["oarlock_runs", "oarlock_state", "oarlock_history"] {
        assert!(buckets.contains(name), "{buckets}");
    }
    let consumers = good(fleet, &["consumer", "ls", "OARLOCK_TASKS", "--names"]).await;
    assert!(Role::ALL.iter().all(|role| consumers.contains(role.name())), "{consumers}");
}
