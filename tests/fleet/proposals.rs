//! Agents see the shared state of their run and propose changes of it: all of a reply's changes are made, once, or none, and
//! whoever was too late is told.

use std::collections::BTreeMap;
use std::process::Stdio;

use async_nats::HeaderMap;
use futures::future::join_all;
use oarlock::wire::{
    EventKind, FailureKind, Outcome, Role, RunId, RunStatus, StateChange, StateOp, StateVerdict, TaskId,
};
use serde_json::{Value, json};

use crate::harness::{Ended, TestServer, ended as command, have, oarlock, until};
use crate::nats_cli::{GET_IT, cli, nats};
use crate::story::{Ear, cast, ended, findings, json_rule, plan_rule, result, script, text_rule};

pub const CAST: [Role; 4] = [Role::Orchestrator, Role::Planner, Role::Researcher, Role::Synthesizer];
/// The key of the one run of a test, so that its state can be there before it.
const KEY: &str = "the one";

pub fn the_run() -> RunId {
    RunId::from_key("", KEY)
}

pub async fn submit(server: &TestServer) -> RunId {
    let mut headers = HeaderMap::new();
    headers.insert("Oarlock-Key", KEY);
    let answer = server.request_with("oarlock.submit", headers, "make it").await;
    assert_eq!((answer.error_code().as_str(), answer.text()), ("", the_run().to_string()));
    the_run()
}

/// A researcher's rule for one attempt of a task, whose prompt must hold `shown`.
pub fn research(task: &str, attempt: u32, shown: &str, latency_ms: u64, state: Value) -> Value {
    let mut answer = findings();
    answer["state"] = state;
    let mut rule = json_rule(Role::Researcher, latency_ms, &answer);
    rule["match"]["task_id"] = task.into();
    rule["match"]["attempt"] = attempt.into();
    rule["match"]["user_contains"] = shown.into();
    rule
}

pub fn answer() -> Value {
    text_rule(Role::Synthesizer, 0, "It is made.")
}

pub async fn values(server: &TestServer) -> BTreeMap<String, Value> {
    let all = server.store.state.all(&the_run()).await.unwrap();
    all.into_iter().map(|(name, entry)| (name, entry.value)).collect()
}

pub async fn tool(server: &TestServer, arguments: &[&str]) -> Ended {
    let mut oarlock = oarlock(server);
    oarlock.args(["--server", server.url()]).args(arguments);
    command(oarlock, b"").await
}

pub fn change(op: StateOp, name: &str, value: Value, expected: Option<u64>) -> StateChange {
    StateChange { op, name: name.into(), value, expected }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_and_people_append_at_the_same_time_is_all_there() {
    const AGENTS: usize = 8;
    const PEOPLE: usize = 20;
    let server = TestServer::start().await;
    let state = &server.store.state;
    state.set(&the_run(), "notes", json!(["first"])).await.unwrap();
    let none: &[usize] = &[];
    let append = |number: usize| {
        let task = format!("t{number}");
        let changes = json!([
            {"op": "append", "name": "notes", "value": task},
            {"op": "merge", "name": "who", "value": {task.as_str(): number}}
        ]);
        research(&task, 1, "<state>\nnotes (revision ", 300, changes)
    };
    let mut rules = vec![plan_rule(&[(Role::Researcher, none); AGENTS]), answer()];
    rules.extend((1..=AGENTS).map(append));
    let mut workers = cast(&server, &script(&rules), &CAST).await;
    workers.extend(cast(&server, &script(&rules), &[Role::Researcher, Role::Orchestrator]).await);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server).await;
    events.event(EventKind::Started, Some(Role::Researcher), 1).await;
    let person = |number: usize| {
        let (state, run) = (state.clone(), run.clone());
        async move {
            let add = |values: &mut BTreeMap<String, Value>| {
                values.get_mut("notes").unwrap().as_array_mut().unwrap().push(format!("p{number}").into());
            };
            tokio::time::sleep(std::time::Duration::from_millis(40 * number as u64)).await;
            state.update(&run, &["notes"], add).await.unwrap();
        }
    };
    join_all((0..PEOPLE).map(person)).await;
    assert_eq!(ended(&server, &run).await.status, RunStatus::Completed, "{:?}", result(&server, &run).await);
    let values = values(&server).await;
    let mut notes: Vec<String> = serde_json::from_value(values["notes"].clone()).unwrap();
    notes.sort();
    let mut expected: Vec<String> = (1..=AGENTS).map(|number| format!("t{number}")).collect();
    expected.extend((0..PEOPLE).map(|number| format!("p{number}")));
    expected.push("first".into());
    expected.sort();
    assert_eq!(notes, expected);
    assert_eq!(values["who"].as_object().unwrap().len(), AGENTS);
    assert_eq!(values.len(), 2, "the verdicts are no values: {values:?}");
    assert_eq!(state.verdicts(&run).await.unwrap().len(), AGENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_agents_that_saw_the_same_value_the_slower_one_is_told() {
    let server = TestServer::start().await;
    let state = &server.store.state;
    state.set(&the_run(), "port", json!(80)).await.unwrap();
    let seen = state.get(&the_run(), "port").await.unwrap().unwrap().revision;
    let set = |port: u64| json!([{"op": "set", "name": "port", "value": port}, {"op": "append", "name": "log", "value": port}]);
    let shown = format!("<state>\nport (revision {seen}): 80");
    let story = script(&[
        plan_rule(&[(Role::Researcher, &[]), (Role::Researcher, &[])]),
        research("t1", 1, &shown, 0, set(81)),
        research("t2", 1, &shown, 1_000, set(82)),
        // It is told, and sees the newer value.
        research("t2", 2, &format!("\"port\" was to be replaced at revision {seen}, and is at revision "), 0, set(83)),
        answer(),
    ]);
    let _workers = cast(&server, &story, &CAST).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server).await;
    assert_eq!(ended(&server, &run).await.status, RunStatus::Completed, "{:?}", result(&server, &run).await);
    assert_eq!(values(&server).await, BTreeMap::from([("log".into(), json!([81, 83])), ("port".into(), json!(83))]));
    let (_, failed) = events.event(EventKind::Failed, Some(Role::Researcher), 1).await;
    assert_eq!((failed.task, failed.attempt), (Some(TaskId::planned(2)), Some(1)));
    assert!(failed.text.contains("shared state"), "{}", failed.text);
    let verdicts = state.verdicts(&run).await.unwrap();
    let told: Vec<(String, u32, bool)> = verdicts
        .iter()
        .map(|((task, attempt), verdict)| (task.to_string(), *attempt, verdict.refused.is_empty()))
        .collect();
    assert_eq!(told, [("t1".into(), 1, true), ("t2".into(), 1, false), ("t2".into(), 2, true)]);

    // What was shown first is still known, although the state has changed since.
    let shown = tool(&server, &["show", &format!("{run}/t2"), "--json"]).await;
    let shown: Value = serde_json::from_str(&shown.out).unwrap_or_else(|error| panic!("{error}: {shown:?}"));
    let attempts = shown["attempts"].as_array().unwrap();
    for (attempt, (part, status)) in attempts.iter().zip([(": 80\n", "failed"), (": 81\n", "completed")]) {
        assert_eq!(attempt["prompt"]["as_sent"], true, "{attempt}");
        assert!(attempt["prompt"]["text"].as_str().unwrap().contains(part), "{attempt}");
        assert_eq!(attempt["reply"]["outcome"]["status"], status, "{attempt}");
    }
    let printed = tool(&server, &["show", &format!("{run}/t2")]).await.out;
    assert!(printed.contains("state set port: 83") && printed.contains("nothing of the reply counts"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_without_end_fails_the_run_and_changes_nothing() {
    let server = TestServer::start().await;
    server.store.state.set(&the_run(), "port", json!(80)).await.unwrap();
    let never = json!([{"op": "append", "name": "log", "value": 1}, {"op": "append", "name": "port", "value": 1}]);
    let mut rule = research("t1", 1, "", 0, never);
    rule["match"].as_object_mut().unwrap().remove("attempt");
    let story = script(&[plan_rule(&[(Role::Researcher, &[])]), rule, answer()]);
    let _workers = cast(&server, &story, &CAST).await;
    let run = submit(&server).await;
    assert_eq!(ended(&server, &run).await.status, RunStatus::Failed);
    let result = result(&server, &run).await;
    let failure = result.failure().unwrap();
    assert_eq!(failure.kind, FailureKind::StateConflict, "{failure}");
    for part in ["researcher failed task t1 4 times", "\"port\" is a number", "only a list can be appended to"] {
        assert!(failure.message.contains(part), "{part}: {failure}");
    }
    assert_eq!(values(&server).await, BTreeMap::from([("port".into(), json!(80))]), "all or nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_proposal_goes_back_to_the_model_once() {
    let server = TestServer::start().await;
    server.store.state.set(&the_run(), "notes", json!([])).await.unwrap();
    let proposal = |name: &str, bytes: usize| {
        let mut answer = findings();
        answer["state"] = json!([{"op": "append", "name": name, "value": "x".repeat(bytes)}]);
        answer.to_string()
    };
    let says = |task: &str, part: &str, content: String| json!({"match": {"role": "researcher", "task_id": task, "user_contains": part}, "response": {"content": content}});
    let told = "more than state_value_bytes_max 65536";
    let story = script(&[
        plan_rule(&[(Role::Researcher, &[]), (Role::Researcher, &[])]),
        says("t1", told, proposal("notes", 10)),
        says("t1", "", proposal("notes", 64 * 1024)),
        says("t2", "", proposal("no te", 1)),
        answer(),
    ]);
    let _workers = cast(&server, &story, &CAST).await;
    let run = submit(&server).await;
    ended(&server, &run).await;
    let result = result(&server, &run).await;
    let failure = result.failure().unwrap();
    assert_eq!(failure.kind, FailureKind::ModelOutput, "{failure}");
    assert!(failure.message.contains("t2") && failure.message.contains("is no name of shared state"), "{failure}");
    assert_eq!(values(&server).await["notes"], json!(["x".repeat(10)]), "mended at the second question");
    let replies = server.store.results.of_run(&run).await.unwrap();
    let calls = replies.iter().find(|(to, _)| to.task == TaskId::planned(1)).map(|(_, reply)| reply.usage.calls);
    assert_eq!(calls, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reply_proposes_is_decided_once_however_many_try() {
    let server = TestServer::start().await;
    let (state, run, task) = (&server.store.state, RunId::random(), TaskId::planned(1));
    let both = [change(StateOp::Append, "a", json!(1), None), change(StateOp::Append, "b", json!(1), None)];
    let verdicts = join_all((0..16).map(|_| state.decide(&run, &task, 1, &both, None))).await;
    for verdict in verdicts {
        assert_eq!(verdict.unwrap(), StateVerdict::changed(vec!["a".into(), "b".into()]));
    }
    let lists = async || {
        let all = state.all(&run).await.unwrap();
        [&all["a"], &all["b"]].map(|entry| entry.value.clone())
    };
    assert_eq!(lists().await, [json!([1]), json!([1])]);

    // A foreign worker may send anything.
    let revision = state.get(&run, "b").await.unwrap().unwrap().revision;
    let large = json!("x".repeat(64 * 1024));
    let many: Vec<_> = (0..101).map(|number| change(StateOp::Set, &format!("n{number}"), json!(1), None)).collect();
    for (attempt, (second, says)) in [
        (vec![change(StateOp::Set, "b", json!(2), Some(revision + 1))], "and is at revision"),
        (vec![change(StateOp::Set, "b", json!(2), Some(0))], "was expected not to be there"),
        (vec![change(StateOp::Set, "c", json!(2), Some(5))], "and is not there"),
        (vec![change(StateOp::Merge, "b", json!({}), None)], "is a list"),
        (vec![change(StateOp::Set, "_applied.t1.1", json!({}), None)], "no name"),
        (vec![change(StateOp::Set, ">", json!({}), None)], "no name"),
        (vec![change(StateOp::Set, "b", large.clone(), None)], "state_value_bytes_max 65536"),
        (vec![change(StateOp::Append, "b", large, None)], "state_value_bytes_max 65536"),
        (many, "state_keys_max 100"),
    ]
    .into_iter()
    .enumerate()
    {
        let changes = [vec![change(StateOp::Append, "a", json!(2), None)], second].concat();
        let attempt = attempt as u32 + 2;
        let verdict = state.decide(&run, &task, attempt, &changes, None).await.unwrap();
        assert!(verdict.refused.iter().any(|refusal| refusal.to_string().contains(says)), "{says}: {verdict:?}");
        assert_eq!(state.decide(&run, &task, attempt, &both, None).await.unwrap(), verdict, "a verdict stands");
        assert_eq!(lists().await, [json!([1]), json!([1])], "all or nothing: {says}");
    }
    // A hundred names and the verdict are one batch.
    let hundred: Vec<_> =
        (0..100).map(|number| change(StateOp::Set, &format!("n{number}"), json!(1), Some(0))).collect();
    assert!(state.decide(&run, &task, 20, &hundred, None).await.unwrap().refused.is_empty());
    assert_eq!(state.all(&run).await.unwrap().len(), 102);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_changes_only_what_it_expects_and_names_the_bound() {
    let server = TestServer::start().await;
    let run = the_run().to_string();
    let state = async |arguments: &[&str], code: i32| {
        let ended = tool(&server, &[&["state"], arguments].concat()).await;
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
        ended
    };
    state(&["set", &run, "port", "80", "--expect", "0"], 0).await;
    let refused = state(&["set", &run, "port", "81", "--expect", "0"], 5).await.err;
    let printed = state(&["get", &run, "port", "--json"], 0).await.out;
    let shown: Value = serde_json::from_str(&printed).unwrap();
    let revision = shown["revision"].as_u64().unwrap().to_string();
    assert_eq!(shown["value"], 80);
    assert!(refused.contains(&format!("at revision {revision}, not 0")) && refused.contains("--json"), "{refused}");
    state(&["set", &run, "port", "81", "--expect", &revision], 0).await;
    state(&["update", &run, "port+=1", "host=it", "--expect", &revision], 5).await;
    let all: Value = serde_json::from_str(&state(&["get", &run, "--json"], 0).await.out).unwrap();
    assert_eq!((&all["port"]["value"], all.get("host")), (&json!(81), None));
    let newest = all["port"]["revision"].as_u64().unwrap().to_string();
    state(&["update", &run, "port+=1", "host=it", "--expect", &newest], 0).await;
    assert_eq!(state(&["get", &run], 0).await.out.trim(), r#"{"host":"it","port":82}"#);

    let large = "x".repeat(64 * 1024);
    for arguments in [["set", &run, "port", &large], ["update", &run, &format!("port={large}"), "host=there"]] {
        let refused = state(&arguments, 2).await.err;
        assert!(refused.contains("state_value_bytes_max 65536"), "{refused}");
    }
    let refused = state(&["set", &run, "_applied.t1.1", "1"], 2).await.err;
    assert!(refused.contains("is no name of shared state"), "{refused}");
    assert_eq!(values(&server).await["port"], 82);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_each_change_once_in_order_until_the_run_is_over() {
    let server = TestServer::start().await;
    let unknown = tool(&server, &["state", "watch", RunId::random().as_str()]).await;
    assert_eq!(unknown.code, Some(3), "{unknown:?}");
    server.store.state.set(&the_run(), "notes", json!([])).await.unwrap();
    let story = script(&[
        plan_rule(&[(Role::Researcher, &[])]),
        research("t1", 1, "notes (revision ", 2_500, json!([{"op": "append", "name": "notes", "value": "found"}])),
        answer(),
    ]);
    let _workers = cast(&server, &story, &CAST).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server).await;
    let watch = |arguments: &[&str]| {
        let file = server.folder.path().join(format!("watch-{}", rand::random::<u32>()));
        let mut watch = oarlock(&server);
        watch.args(["--server", server.url(), "state", "watch", run.as_str()]).args(arguments);
        watch.stdout(std::fs::File::create(&file).unwrap()).stderr(Stdio::null());
        (watch.spawn().unwrap(), file)
    };
    let (mut whole, file) = watch(&["--json"]);
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&file).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    until("the first value", async || lines().len() == 1).await;
    events.event(EventKind::Started, Some(Role::Researcher), 1).await;
    let set = async |name: &str, value: u64| server.store.state.set(&run, name, value.into()).await.unwrap();
    for number in 1..=5 {
        set("count", number).await;
        until("the next change", async || lines().len() == 1 + usize::try_from(number).unwrap()).await;
    }
    let (mut late, plain) = watch(&["--new"]);
    ended(&server, &run).await;
    for watch in [&mut whole, &mut late] {
        until("the watch to end", async || watch.try_wait().unwrap().is_some_and(|status| status.success())).await;
    }
    let lines = lines();
    let shown: Vec<(&str, &Value)> =
        lines.iter().map(|line| (line["name"].as_str().unwrap(), &line["value"])).collect();
    let counts: Vec<Value> = (1..=5).map(Value::from).collect();
    let (before, after) = (json!([]), json!(["found"]));
    let mut expected = vec![("notes", &before)];
    expected.extend(counts.iter().map(|count| ("count", count)));
    expected.push(("notes", &after));
    assert_eq!(shown, expected);
    let revisions: Vec<u64> = lines.iter().map(|line| line["revision"].as_u64().unwrap()).collect();
    assert!(revisions.is_sorted_by(|one, next| one < next), "{revisions:?}");
    assert!(lines.iter().all(|line| line["at"].as_str().is_some_and(|at| at.ends_with('Z'))), "{lines:?}");
    let plain = std::fs::read_to_string(plain).unwrap();
    let last = revisions.last().unwrap();
    assert_eq!(plain, format!("{last}  notes = [\"found\"]\n"), "only what is new");

    if have("nats-cli", cli().is_some(), GET_IT) {
        for (name, value) in values(&server).await {
            let key = format!("{run}.{name}");
            let got = nats(&server, &["kv", "get", "oarlock_state", &key, "--raw"]).await;
            assert_eq!(serde_json::from_str::<Value>(&got.out).ok(), Some(value), "{got:?}");
        }
    }
    let stored = server.store.results.of_run(&run).await.unwrap();
    let proposing = stored.iter().filter(|(_, reply)| !reply.state.is_empty());
    assert!(
        proposing.clone().count() == 1
            && proposing.clone().all(|(_, reply)| matches!(reply.outcome, Outcome::Completed { .. }))
    );
}
