//! The verbs that read: a run of two attempts, looked at from all sides after its end, and one while it goes on.

use std::collections::BTreeSet;

use oarlock::wire::{Event, EventKind, RunView};
use serde_json::Value;

use crate::harness::{Ended, Fleet, TestServer, clean, ended, until};
use crate::snapshot::{alike, assert_snapshot};
use crate::story::{SLOW_CAST, cast, slow_story, submit};
use crate::tool::{assert_ended, tool};

const TODO: &str = include_str!("../../src/cli/demo/todo.json");

async fn at(server: &TestServer, arguments: &[&str]) -> Ended {
    let mut command = tool(server, arguments);
    command.args(["--server", server.url()]);
    ended(command, b"").await
}

/// What a command prints that must succeed.
async fn good(server: &TestServer, arguments: &[&str]) -> String {
    let ended = at(server, arguments).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{arguments:?}: {ended:?}");
    ended.out
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(json).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_run_is_read_from_all_sides() {
    let fleet = Fleet::start(TODO).await;
    let goal = "Build a REST API for a todo app with CRUD endpoints, authentication, unit tests and documentation";
    let run = submit(&fleet, goal).await.to_string();
    until("the run to be over", async || fleet.view(&run).await.status.terminal()).await;
    story(&fleet, &run).await;
    one_task(&fleet, &run).await;
    exchanges(&fleet, &run).await;
    events(&fleet, &run).await;
    files(&fleet, &run).await;
    missing(&fleet, &run).await;
    crate::watch::frames(&fleet, &run).await;
}

async fn story(fleet: &Fleet, run: &str) {
    let shown = good(fleet, &["show", run]).await;
    assert_snapshot("show", &alike(&shown, run));
    let view: RunView = serde_json::from_str(&good(fleet, &["show", run, "--json"]).await).unwrap();
    assert_eq!(view, fleet.view(run).await);
    let listed = good(fleet, &["ls"]).await;
    assert!(listed.contains(&format!("{run}  completed ")) && listed.contains("REST API"), "{listed}");
    let listed = json(&good(fleet, &["ls", "--json"]).await);
    assert_eq!((&listed[0]["run"], &listed[0]["status"]), (&run.into(), &"completed".into()));
}

async fn one_task(fleet: &Fleet, run: &str) {
    let coder = format!("{run}/t2");
    let shown = good(fleet, &["show", &coder]).await;
    assert_eq!(shown.matches("--- prompt, as it was sent").count(), 2, "{shown}");
    for part in [
        "=== attempt 2",
        "--- evidence from t3 (qa)",
        "--- evidence from t4 (reviewer)",
        "You are the coder of a team",
        "This is attempt 2: the checks found the faults above",
        "--- changed since the attempt before",
        "+++ b/todo/",
        "\n@@ ",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let second = json(&good(fleet, &["show", &coder, "--attempt", "2", "--json"]).await);
    let [attempt] = second["attempts"].as_array().unwrap().as_slice() else { panic!("{second}") };
    assert_eq!((&attempt["prompt"]["as_sent"], &attempt["attempt"]), (&true.into(), &2.into()), "{second}");
    assert_eq!(attempt["evidence"].as_array().unwrap().len(), 2, "{second}");
    assert!(attempt["asked_at"].as_i64() < attempt["answered_at"].as_i64(), "{second}");
    let tests = good(fleet, &["show", &format!("{run}/t3")]).await;
    assert!(tests.contains("--- no model was asked") && tests.contains("--- reply: found faults"), "{tests}");
    for id in ["plan", "t1", "t4", "t5", "answer"] {
        let shown = good(fleet, &["show", &format!("{run}/{id}")]).await;
        assert!(shown.contains("--- prompt, as it was sent"), "{id}: {shown}");
    }
    // Another template than the worker's: the words are shown, and that they are not those that were sent.
    let roles = fleet.folder.path().join("roles");
    std::fs::create_dir(&roles).unwrap();
    let template = include_str!("../../roles/coder.md").replace("Write the files.", "Write the files, please.");
    std::fs::write(roles.join("coder.md"), template).unwrap();
    let mut command = tool(fleet, &["show", &coder, "--server", fleet.url()]);
    command.env("OARLOCK_ROLES", &roles);
    let shown = ended(command, b"").await.out;
    assert_eq!(shown.matches("NOT as it was sent: roles/coder.md").count(), 2, "{shown}");
}

async fn exchanges(fleet: &Fleet, run: &str) {
    let all = lines(&good(fleet, &["history", run, "--json"]).await);
    let said = |kind: &str| all.iter().filter(|line| line["type"] == kind).count();
    // The plan, five tasks, three of them twice (and what waits on them once), the answer; each asked and answered.
    assert_eq!((said("request"), said("response")), (10, 10), "{all:?}");
    for line in &all {
        assert!(line["hash"].as_str().is_some_and(|hash| hash.len() == 64), "{line}");
        assert!(line["bytes"].as_u64().is_some_and(|bytes| bytes > 0) && line["at"].is_string(), "{line}");
    }
    let first = (&all[0]["from"], &all[0]["to"], &all[0]["task"]);
    assert_eq!(first, (&"orchestrator".into(), &"planner".into(), &"plan".into()));
    let requests: Vec<_> = all.iter().filter(|line| line["type"] == "request").collect();
    let hops: Vec<u64> = requests.iter().map(|line| line["hops"].as_u64().unwrap()).collect();
    assert_eq!((hops[0], hops[1], hops[9]), (1, 2, *hops.iter().max().unwrap()), "{hops:?}");
    let of = |task: &str, attempt: u64| requests.iter().find(|line| line["task"] == task && line["attempt"] == attempt);
    let again = of("t2", 2).and_then(|line| line["hops"].as_u64());
    assert!(
        again > of("t3", 1).and_then(|line| line["hops"].as_u64()),
        "the check that sent it back led to it: {hops:?}"
    );
    let table = good(fleet, &["history", run]).await;
    assert_eq!(table.lines().count(), 21, "{table}");
    assert!(table.contains("t2 #2"), "{table}");
}

async fn events(fleet: &Fleet, run: &str) {
    let all = lines(&good(fleet, &["logs", run, "--json"]).await);
    let kinds: Vec<EventKind> =
        all.iter().map(|line| serde_json::from_value::<Event>(line.clone()).unwrap().kind).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&EventKind::Claimed), Some(&EventKind::Finished)));
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::Rejected).count(), 2, "{kinds:?}");
    assert!(all.windows(2).all(|two| two[0]["at"].as_str() <= two[1]["at"].as_str()), "not in their order");
    let text = good(fleet, &["logs", run, "-f"]).await;
    assert_eq!(text.lines().count(), all.len(), "a run that is over is printed once, also with -f");
    assert!(text.lines().any(|line| line.contains("rejected   t3        qa")), "{text}");
}

async fn files(fleet: &Fleet, run: &str) {
    let listed = json(&good(fleet, &["artifacts", run, "--json"]).await);
    let names: BTreeSet<&str> = listed.as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert!(names.contains("README.md") && names.len() > 2, "{names:?}");
    let table = good(fleet, &["artifacts", run]).await;
    assert!(names.iter().all(|name| table.contains(name)), "{table}");
    let whole = at(fleet, &["artifacts", run, "-o", "all"]).await;
    assert_ended(&whole, 0, "files in all");
    let readme = std::fs::read_to_string(fleet.folder.path().join("all/README.md")).unwrap();
    assert_eq!(good(fleet, &["artifacts", run, "README.md"]).await, readme, "printed to the byte");
    assert_eq!(good(fleet, &["artifacts", run, "README.md", "-o", "-"]).await, readme);
    assert_ended(&at(fleet, &["artifacts", run, "README.md", "-o", "one"]).await, 0, "1 files in one");
    assert_eq!(std::fs::read_dir(fleet.folder.path().join("one")).unwrap().count(), 1);
    // A file of the user's is in nobody's gift.
    let mine = fleet.folder.path().join("one/README.md");
    std::fs::write(&mine, "mine").unwrap();
    let refused = at(fleet, &["artifacts", run, "README.md", "-o", "one"]).await;
    assert_ended(&refused, 5, "one/README.md is in the way of README.md: nothing was written");
    assert_eq!(std::fs::read_to_string(&mine).unwrap(), "mine");
    assert_ended(&at(fleet, &["artifacts", run, "README.md", "-o", "one", "--force"]).await, 0, "1 files in one");
    assert_eq!(std::fs::read_to_string(&mine).unwrap(), readme);
    let coders = good(fleet, &["artifacts", &format!("{run}/t2")]).await;
    assert!(!coders.contains("README.md") && coders.contains("todo/"), "{coders}");
}

async fn missing(fleet: &Fleet, run: &str) {
    let nowhere = format!("{run}/t9");
    for (arguments, code, says) in [
        (&["show", "nobody"][..], 3, "`oarlock ls` lists"),
        (&["logs", "nobody"], 3, "`oarlock ls` lists"),
        (&["history", "nobody"], 3, "`oarlock ls` lists"),
        (&["artifacts", "nobody"], 3, "`oarlock ls` lists"),
        (&["show", &nowhere], 3, "has no task t9; it has: plan, t1"),
        (&["artifacts", &nowhere], 3, "has no task t9"),
        (&["show", run, "--attempt", "1"], 2, "--attempt is about one task"),
        (&["show", &format!("{run}/t2"), "--attempt", "7"], 3, "has no attempt 7; it has 2"),
        (&["artifacts", run, "nothing.py"], 3, "has no file nothing.py; it has: README.md"),
        (&["artifacts", run, "-o", "-"], 2, "one can be printed"),
        (&["artifacts", run, "../x"], 2, "is refused"),
        (&["show", "a b"], 2, "write it as <run> or <run>/<task>"),
    ] {
        assert_ended(&at(fleet, arguments).await, code, says);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_follow_a_run_to_its_end() {
    let server = TestServer::start().await;
    let roles = [&SLOW_CAST[..], &[oarlock::wire::Role::Orchestrator]].concat();
    let _workers = cast(&server, &slow_story(1_500), &roles).await;
    let run = submit(&server, "make it").await.to_string();
    let followed = at(&server, &["logs", &run, "-f", "--json"]).await;
    assert_eq!(followed.code, Some(0), "{followed:?}");
    assert!(server.view(&run).await.status.terminal(), "it ended before the run");
    assert_eq!(followed.out, good(&server, &["logs", &run, "--json"]).await, "an event was missed or told twice");
    assert!(lines(&followed.out).last().unwrap()["kind"] == "finished", "{followed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_end_when_nobody_reads_them() {
    let server = TestServer::start().await;
    let roles = [&SLOW_CAST[..], &[oarlock::wire::Role::Orchestrator]].concat();
    let _workers = cast(&server, &slow_story(60_000), &roles).await;
    let run = submit(&server, "make it").await.to_string();
    let mut command = std::process::Command::new("bash");
    command.current_dir(server.folder.path()).arg("-c");
    command.arg("set -o pipefail; \"$TOOL\" logs \"$RUN\" -f --server \"$URL\" | head -1");
    clean(&mut command);
    command.env("TOOL", env!("CARGO_BIN_EXE_oarlock")).env("RUN", &run).env("URL", server.url());
    let read = crate::harness::ended(command, b"").await;
    assert_eq!((read.code, read.out.lines().count()), (Some(0), 1), "{read:?}");
    assert!(!server.view(&run).await.status.terminal(), "the run was over before that could be seen");
}
