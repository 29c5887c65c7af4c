//! The user's tool, typed as a user types it: what it prints where, which files it leaves, and how it exits.

use std::process::Command;

use oarlock::wire::{Reply, Role, RunStatus, RunView};
use serde_json::{Value, json};

use crate::harness::{Ended, Fleet, TestServer, ended, have, oarlock, rules, until};
use crate::input::no_local_model;

pub const ANSWER: &str = "the small answer";

/// The tool in the test's directory, with no configuration of the machine's.
pub fn tool(server: &TestServer, arguments: &[&str]) -> Command {
    let mut command = oarlock(server);
    command.env("XDG_CONFIG_HOME", server.folder.path().join("no-config")).args(arguments);
    command
}

/// Runs the tool against the test's server.
async fn at(server: &TestServer, arguments: &[&str]) -> Ended {
    with_input(server, arguments, b"").await
}

async fn with_input(server: &TestServer, arguments: &[&str], input: &[u8]) -> Ended {
    let mut command = tool(server, arguments);
    command.args(["--server", server.url()]);
    ended(command, input).await
}

/// Runs the tool as it is, with no server named.
pub async fn alone(server: &TestServer, arguments: &[&str]) -> Ended {
    ended(tool(server, arguments), b"").await
}

pub fn assert_ended(ended: &Ended, code: i32, says: &str) {
    assert_eq!(ended.code, Some(code), "{says}: {ended:?}");
    assert!(ended.err.contains(says), "{says}: {ended:?}");
    assert!(code == 0 || ended.out.is_empty(), "an error on standard output: {ended:?}");
}

pub fn script() -> String {
    let file = json!({ "path": "pkg/test_a.py", "content": "def test_a():\n    assert 1 + 1 == 2\n" });
    let written = json!({ "json": { "files": [file], "summary": "used the notes" } });
    let plan = json!({ "json": rules::plan(&[("t1", "coder", &[])]) });
    let mut all = vec![
        rules::says("planner", "with files", plan),
        rules::says("coder", "<file path=\"notes.txt\">\nthe heron word\n</file>", written),
        rules::fault("planner", "a bad goal", json!({ "kind": "refusal" })),
        rules::says(
            "planner",
            "a slow goal",
            json!({ "json": rules::plan(&[("t1", "researcher", &[])]), "latency_ms": 2500 }),
        ),
    ];
    all.extend(rules::small());
    rules::script(&all)
}

#[tokio::test(flavor = "multi_thread")]
async fn run_prints_the_answer_alone_and_takes_goals_and_files_from_everywhere() {
    let fleet = Fleet::start(&script()).await;
    fleet.file("goal.txt", "a goal in a file");
    let answer = format!("{ANSWER}\n");
    for (arguments, input, goal) in [
        (&["run", "a goal in words"][..], "", "a goal in words"),
        (&["run", "-f", "goal.txt"], "", "a goal in a file"),
        (&["run", "--file", "goal.txt"], "", "a goal in a file"),
        (&["run", "-"], "a goal from a pipe", "a goal from a pipe"),
    ] {
        let ended = with_input(&fleet, arguments, input.as_bytes()).await;
        assert_ended(&ended, 0, "model calls");
        assert_eq!(ended.out, answer, "{ended:?}");
        let run = ended.err.lines().find_map(|line| line.strip_prefix("run ")).unwrap();
        assert_eq!(fleet.view(run).await.goal, goal);
    }
    let quiet = at(&fleet, &["run", "-f", "goal.txt", "--quiet"]).await;
    assert_eq!((quiet.code, quiet.out.as_str(), quiet.err.as_str()), (Some(0), answer.as_str(), ""), "{quiet:?}");
    fleet.file("notes.txt", "the heron word");
    let ended = at(&fleet, &["run", "with files", "--attach", "notes.txt", "--out", "made/here"]).await;
    assert_ended(&ended, 0, "pytest passed: 1 of 1 tests ok");
    let made = std::fs::read_to_string(fleet.folder.path().join("made/here/pkg/test_a.py")).unwrap();
    assert!(made.starts_with("def test_a()"), "{made}");
    // What the user has there meanwhile stays; the files are delivered all the same.
    fleet.file("made/here/pkg/test_a.py", "mine");
    let ended = at(&fleet, &["run", "with files", "--attach", "notes.txt", "--out", "made/here"]).await;
    assert_eq!((ended.code, &ended.out), (Some(5), &answer), "{ended:?}");
    assert!(ended.err.contains("test_a.py is in the way"), "{ended:?}");
    let run = ended.err.lines().find_map(|line| line.strip_prefix("run ")).unwrap();
    let instead = fleet.folder.path().join("oarlock-out").join(run).join("pkg/test_a.py");
    assert_eq!(std::fs::read_to_string(instead).unwrap(), made);
    let kept = fleet.folder.path().join("made/here/pkg/test_a.py");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "mine");
    let absolute = fleet.folder.path().join("notes.txt");
    let ended = at(&fleet, &["run", "with files", "--json", "--attach", absolute.to_str().unwrap()]).await;
    assert_eq!((ended.code, ended.out.lines().count()), (Some(0), 1), "{ended:?}");
    let reply: Reply = serde_json::from_str(&ended.out).unwrap();
    assert!(reply.text() == ANSWER && reply.artifacts().len() == 1, "{reply:?}");
    let folder = fleet.folder.path().join("oarlock-out").join(reply.run.as_str());
    assert!(folder.join("pkg/test_a.py").is_file(), "{ended:?}");
    // Without the attachment the script has no rule for the coder: the file was really in the prompt.
    assert_ended(&at(&fleet, &["run", "with files"]).await, 1, "none matches");
    fleet.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_can_be_left_shown_and_waited_for() {
    let fleet = Fleet::start(&script()).await;
    let left = at(&fleet, &["run", "a goal to leave", "--detach"]).await;
    assert_ended(&left, 0, "oarlock show");
    let run = left.out.trim();
    until("the run that was left to complete", async || fleet.view(run).await.status == RunStatus::Completed).await;
    let shown = at(&fleet, &["show", run]).await;
    for part in [run, "completed", "goal: a goal to leave", "t1", "researcher", ANSWER] {
        assert!(shown.code == Some(0) && shown.out.contains(part), "{part}: {shown:?}");
    }
    let view: RunView = serde_json::from_str(&at(&fleet, &["show", run, "--json"]).await.out).unwrap();
    assert_eq!(view, fleet.view(run).await);

    let late = at(&fleet, &["run", "a slow goal", "--timeout", "0.3"]).await;
    assert_ended(&late, 7, "it goes on: oarlock show");
    let run = late.err.lines().find_map(|line| line.strip_prefix("run ")).unwrap();
    assert!(!fleet.view(run).await.status.terminal(), "the run was over in time, so nothing was tested");
    until("the slow run to complete", async || fleet.view(run).await.status == RunStatus::Completed).await;

    let bad = at(&fleet, &["run", "a bad goal"]).await;
    assert_ended(&bad, 1, "refused (I cannot help with that.)");
    let run = bad.err.lines().find_map(|line| line.strip_prefix("run ")).unwrap();
    assert!(bad.err.contains(&format!("oarlock show {run}")), "{bad:?}");
    let shown = at(&fleet, &["show", run]).await;
    assert!(shown.out.contains("failed: the planner made no plan"), "{shown:?}");
    let bad = at(&fleet, &["run", "a bad goal", "--json"]).await;
    assert_eq!(bad.code, Some(1));
    assert_eq!(serde_json::from_str::<Value>(&bad.out).unwrap()["outcome"]["failure"]["kind"], "model_refused");
    fleet.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_is_read_and_changed_from_a_shell() {
    let server = TestServer::start().await;
    for (arguments, code, out) in [
        (&["state", "set", "r1", "count", "1"][..], 0, ""),
        (&["state", "get", "r1", "count"], 0, "1"),
        (&["state", "set", "r1", "name", "plain words"], 0, ""),
        (&["state", "get", "r1", "name"], 0, "\"plain words\""),
        (&["state", "update", "r1", "count+=2", "deep={\"a\":[1]}"], 0, r#"{"count":3,"deep":{"a":[1]}}"#),
        (&["state", "update", "r1", "count+=1", "name+=1"], 2, ""),
        (&["state", "get", "r1"], 0, r#"{"count":3,"deep":{"a":[1]},"name":"plain words"}"#),
        (&["state", "get", "r2"], 0, "{}"),
        (&["state", "get", "r1", "nothing"], 3, ""),
        (&["state", "get", "r.1", "x"], 2, ""),
        (&["state", "set", "r1", "a name", "1"], 2, ""),
        (&["state", "set", "r1", "..", "1"], 2, ""),
        (&["state", "update", "r1", "count"], 2, ""),
        (&["state", "update", "r1", "count+=many"], 2, ""),
        (&["state", "update", "r1"], 2, ""),
        // What is not there counts as zero, for a whole number and for any other.
        (&["state", "update", "r3", "whole+=2", "part+=0.5"], 0, r#"{"part":0.5,"whole":2}"#),
    ] {
        let ended = at(&server, arguments).await;
        assert_eq!((ended.code, ended.out.trim_end()), (Some(code), out), "{arguments:?}: {ended:?}");
        assert_eq!(ended.err.is_empty(), code == 0, "{arguments:?}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_has_its_code_and_says_what_to_do() {
    let server = TestServer::start().await;
    server.file("latin1.txt", "");
    std::fs::write(server.folder.path().join("latin1.txt"), b"caf\xe9").unwrap();
    server.file("long.txt", &"x".repeat(256 * 1024 + 1));
    server.file("off.toml", "sandbox = \"off\"\n");
    server.file("script.json", "{\"version\":1,\n\"rulez\":[]}");
    std::fs::write(server.folder.path().join("large.bin"), vec![0; 1_048_577]).unwrap();
    for (arguments, code, says) in [
        (&["run"][..], 2, "Usage"),
        (&["dance"], 2, "unrecognized subcommand"),
        (&["worker", "tester"], 2, "the roles are orchestrator, planner"),
        (&["run", "x", "--timeout", "soon"], 2, "no number of seconds"),
        (&["run", "x", "--script", "s", "--model", "m"], 2, "cannot be used with"),
        (&["run", ""], 2, "the goal is empty"),
        (&["run", "-"], 2, "the goal is empty"),
        (&["run", "-f", "nowhere.txt"], 2, "goal file nowhere.txt"),
        (&["run", "-f", "latin1.txt"], 2, "not UTF-8 text (first bad byte at 3)"),
        (&["run", "-f", "long.txt"], 2, "goal_bytes_max 262144"),
        (&["run", "x", "--attach", "nowhere.txt"], 2, "attached file nowhere.txt"),
        (&["run", "x", "--attach", "large.bin"], 2, "file_bytes_max 1048576"),
        (&["run", "x", "--attach", "long.txt", "--attach", "./long.txt"], 2, "called long.txt as well"),
        (&["run", "x"], 8, "no orchestrator of root oarlock answers"),
        (&["run", "x", "--root", "Bad.Root"], 2, "lower-case ASCII letters"),
        (&["show", "nobody"], 3, "there is no run nobody"),
        (&["show", "no-body"], 2, "ASCII letters and digits"),
        (&["up"], 2, "starts a server of its own"),
        (&["worker", "coder", "--script", "script.json"], 2, "rulez"),
        (&["worker", "coder", "--script", "nowhere.json"], 2, "nowhere.json"),
        (&["worker", "coder", "--model", "m"], 2, "names no provider"),
        (&["ps", "--config", "nowhere.toml"], 2, "nowhere.toml"),
        (&["ps", "--config", "off.toml"], 0, ""),
    ] {
        let ended = at(&server, arguments).await;
        assert_ended(&ended, code, says);
        // What to do about it: after a semicolon, on a line of its own, or as the parser says it.
        let next =
            ["; ", "\n  ", "--help", "the roles are", "must be", "max "].iter().any(|sign| ended.err.contains(sign));
        assert!(code == 0 || next, "no next step: {ended:?}");
    }
    for arguments in [&["ps"][..], &["run", "x"], &["show", "x"], &["state", "get", "x"]] {
        let named = [arguments, &["--server", "nats://127.0.0.1:9"]].concat();
        assert_ended(&alone(&server, &named).await, 8, "failed to reach NATS at nats://127.0.0.1:9");
    }
    let default_is_free = std::net::TcpStream::connect("127.0.0.1:4222").is_err();
    if have("no-default-nats", default_is_free, "something listens on 4222; stop it") && no_local_model() {
        let none = alone(&server, &["run", "x"]).await;
        assert_ended(&none, 2, "no model is configured");
        let ways: Vec<&str> = none.err.lines().filter(|line| line.starts_with("  ")).collect();
        assert_eq!(ways.len(), 5, "{none:?}");
        assert!(none.err.contains("ANTHROPIC_API_KEY") && none.err.contains("oarlock demo"), "{none:?}");
        assert_ended(&alone(&server, &["run", "x", "--detach"]).await, 2, "oarlock up");
        assert_ended(&alone(&server, &["ps"]).await, 8, "oarlock up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_merely_lies_here_is_trusted_with_little() {
    let server = TestServer::start().await;
    for (line, says) in [
        ("sandbox = \"off\"", "sandbox = \"off\" is not taken"),
        ("python = \"./python\"", "python is not taken"),
        ("base_url = \"http://localhost.example/v1\"", "base_url of another machine"),
        ("server = \"nats://nats.example:4222\"", "server of another machine"),
        ("web_allow = [\"10.0.0.0/8\"]", "web_allow is not taken"),
        ("web = \"open\"", "web = \"open\" is not taken"),
        ("web = \"some\"", "it can be \"off\", \"named\" or \"open\""),
    ] {
        server.file("oarlock.toml", &format!("{line}\n"));
        assert_ended(&at(&server, &["ps"]).await, 2, says);
    }
    // What the refusal advises is taken, by flag and by variable.
    server.file("oarlock.toml", "python = \"./python\"\nserver = \"nats://127.0.0.1:9\"\n");
    assert_ended(&alone(&server, &["ps"]).await, 2, "--config ");
    assert_ended(&alone(&server, &["ps", "--config", "oarlock.toml"]).await, 8, "nats://127.0.0.1:9");
    let mut named = tool(&server, &["ps"]);
    named.env("OARLOCK_CONFIG", "oarlock.toml");
    assert_ended(&ended(named, b"").await, 8, "nats://127.0.0.1:9");
}

/// What the user allows to roles of their own is not for the prompts of whoever made the folder.
#[tokio::test(flavor = "multi_thread")]
async fn roles_that_merely_lie_here_get_nothing_that_the_user_allows_to_their_own() {
    let server = TestServer::start().await;
    for folder in ["config/oarlock", "strange"] {
        std::fs::create_dir_all(server.folder.path().join(folder)).unwrap();
    }
    let with = async |own: &str, arguments: &[&str]| {
        server.file("config/oarlock/config.toml", own);
        let mut command = tool(&server, arguments);
        command.env("XDG_CONFIG_HOME", server.folder.path().join("config"));
        ended(command, b"").await
    };
    let far = "rework_max = 1\nserver = \"nats://127.0.0.1:9\"\n";
    assert_ended(&with(far, &["ps"]).await, 8, "nats://127.0.0.1:9");
    let coder = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/roles/coder.md")).unwrap();
    server.file("oarlock.toml", "roles = \"strange\"\n");
    server.file("strange/coder.md", &coder);
    assert_ended(&with(far, &["ps"]).await, 8, "nats://127.0.0.1:9");
    for own in ["web = \"open\"", "web_allow = [\"10.0.0.0/8\"]", "sandbox = \"off\""] {
        let refused = with(&format!("{own}\n"), &["ps"]).await;
        assert_ended(&refused, 2, "is not given to the roles");
        assert!(refused.err.contains(own.split(' ').next().unwrap()), "{refused:?}");
        let named = with(&format!("{own}\n{far}"), &["ps", "--config", "oarlock.toml"]).await;
        assert_ended(&named, 8, "nats://127.0.0.1:9");
    }
    server.file("strange/coder.md", &coder.replace("model: default", "model: default\ntools: [\"files/*\"]"));
    assert_ended(&with(far, &["ps"]).await, 2, "tools is not given to the roles");
}

#[tokio::test(flavor = "multi_thread")]
async fn ps_and_doctor_tell_who_is_there_and_who_is_missing() {
    let server = TestServer::start().await;
    let script = script();
    let mut workers = Vec::new();
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Reviewer) {
        workers.push(server.worker(role, &script).await);
    }
    workers.push(server.worker(Role::Coder, &script).await);
    let ps = at(&server, &["ps"]).await;
    assert_eq!((ps.code, ps.out.lines().count()), (Some(0), 9), "{ps:?}");
    let line = |role: &str| ps.out.lines().find(|line| line.starts_with(role)).unwrap().to_owned();
    assert_eq!(line("coder").split_whitespace().take(3).collect::<Vec<_>>(), ["coder", "2", "8"], "{ps:?}");
    assert!(line("reviewer").contains("nobody serves this role"), "{ps:?}");
    let seen: Value = serde_json::from_str(&at(&server, &["ps", "--json"]).await.out).unwrap();
    let processes: Vec<u64> = seen.as_array().unwrap().iter().map(|line| line["processes"].as_u64().unwrap()).collect();
    assert_eq!(processes, [1, 1, 1, 2, 1, 0, 1, 1]);

    let sick = at(&server, &["doctor"]).await;
    assert_eq!(sick.code, Some(1), "{sick:?}");
    let broken: Vec<&str> = sick.out.lines().filter(|line| line.starts_with('✗')).collect();
    assert_eq!(broken, ["✗ nobody serves role reviewer"], "{sick:?}");
    assert!(sick.out.contains("fix: oarlock worker reviewer"), "{sick:?}");
    workers.push(server.worker(Role::Reviewer, &script).await);
    let well = at(&server, &["doctor"]).await;
    assert_eq!(well.code, Some(0), "{well:?}");
    for part in [
        "is reachable, with JetStream",
        "role coder: 2 processes",
        "sandbox for tests",
        "the researcher reads",
        "rework_max 3",
    ] {
        assert!(well.out.lines().any(|line| line.starts_with('✓') && line.contains(part)), "{part}: {well:?}");
    }
    let lines: Value = serde_json::from_str(&at(&server, &["doctor", "--json"]).await.out).unwrap();
    assert!(lines.as_array().unwrap().iter().all(|line| line["level"] != "broken"), "{lines}");
    let unreachable = alone(&server, &["doctor", "--server", "nats://127.0.0.1:9"]).await;
    assert!(unreachable.code == Some(1) && unreachable.out.contains("✗ failed to reach NATS"), "{unreachable:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_is_told_in_one_line_and_nothing_is_left() {
    let server = TestServer::bare().await;
    let default_is_free = std::net::TcpStream::connect("127.0.0.1:4222").is_err();
    if have("no-default-nats", default_is_free, "something listens on 4222; stop it") {
        let ended = alone(&server, &["run", "x", "--model", "anthropic/claude-haiku-5-5"]).await;
        assert!(ended.code != Some(0) && ended.out.is_empty(), "{ended:?}");
        let last = ended.err.lines().last().unwrap_or_default();
        assert!(last.starts_with("oarlock: ") && last.contains("ANTHROPIC_API_KEY"), "{ended:?}");
        assert!(!ended.err.contains(" INFO "), "a worker's log instead of a message: {ended:?}");
    }
}
