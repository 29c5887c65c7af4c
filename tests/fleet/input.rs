//! Bad input of every kind: each caller gets a clear error, the run's record says why it failed, nothing stays in a queue,
//! and the same processes do the next good request. Workers are never started again here, so an answer shows that they
//! are still up.

use oarlock::wire::{FailureKind, Role, RunStatus};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Fleet, TestServer, Worker, rules, until};

const GOOD: &str = "a good goal";

/// Asks the run door and notes everything about the failure that is not as it should be.
async fn failing(server: &TestServer, goal: &str, code: &str, kind: FailureKind, says: &str) -> Vec<String> {
    let answer = server.request("oarlock.run", goal.to_owned()).await;
    let (got, text) = (answer.error_code(), answer.text());
    let mut faults = Vec::new();
    if (got.as_str(), answer.header("Oarlock-Status").as_str()) != (code, "failed") {
        faults.push(format!("{goal}: code {got:?} instead of {code}: {text}"));
    }
    if !text.contains(says) {
        faults.push(format!("{goal}: {says:?} is not in the answer: {text}"));
    }
    let run = answer.header("Oarlock-Run");
    until(&format!("run {run} to be failed"), async || server.view(&run).await.status == RunStatus::Failed).await;
    match server.view(&run).await.failure {
        Some(failure) if failure.kind == kind && failure.message == text => {}
        failure => faults.push(format!("{goal}: the view should have {kind:?} and the answer's text: {failure:?}")),
    }
    faults
}

/// The same processes answer a good goal, and nothing is left of the bad ones.
async fn still_well(server: &TestServer) {
    let answer = server.request("oarlock.run", GOOD).await;
    assert_eq!((answer.text().as_str(), answer.error_code().as_str()), ("the small answer", ""));
    server.assert_nothing_left().await;
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_goal_is_refused_at_the_door() {
    let fleet = Fleet::start(&rules::script(&rules::small())).await;
    let attached = |path: &str| json!({ "path": path, "body": { "kind": "text", "text": "x" } });
    let goal = |files: Vec<Value>| json!({ "goal": "x", "attachments": files }).to_string().into_bytes();
    let deep = format!("{{\"goal\":{}", "[".repeat(100_000)).into_bytes();
    let long = "x".repeat(256 * 1024 + 1).into_bytes();
    let goals: [(&[u8], &str); 11] = [
        (b"", "the goal is empty"),
        (b" \n\t", "the goal is empty"),
        (br#"{"goal":" "}"#, "the goal is empty"),
        (&long, "has 262145 bytes, more than goal_bytes_max 262144"),
        (b"caf\xe9", "not UTF-8 text (first bad byte at 3)"),
        (b"{oops", "is not a goal in JSON"),
        (br#"{"goal":7}"#, "expected a string"),
        (br#"{"text":"x"}"#, "missing field `goal`"),
        (&deep, "is not a goal in JSON"),
        (&goal(vec![attached("../x")]), "the file name \"../x\" is refused"),
        (
            &goal((0..65).map(|n| attached(&format!("{n}.txt"))).collect()),
            "65 attachments, more than attachments_max 64",
        ),
    ];
    let context = json!({ "description": "x", "context": ["x".repeat(256 * 1024 + 1)] }).to_string().into_bytes();
    let tasks: [(&[u8], &str); 6] = [
        (b"", "the task is empty"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"{oops", "is not a task in JSON"),
        (br#"{"description":[]}"#, "expected a string"),
        (&vec![b'x'; 16 * 1024 + 1], "16385 bytes, more than description_bytes_max 16384"),
        (&context, "inline_bytes_max"),
    ];
    let at_doors = goals.iter().flat_map(|case| [("oarlock.run", case), ("oarlock.submit", case)]);
    for (door, (payload, says)) in at_doors.chain(tasks.iter().map(|case| ("oarlock.ask.researcher", case))) {
        let refused = fleet.request(door, payload.to_vec()).await;
        let shown = String::from_utf8_lossy(&payload[..payload.len().min(40)]).into_owned();
        assert_eq!(refused.error_code(), "400", "{door} {shown:?}: {}", refused.text());
        assert!(refused.text().contains(says), "{door} {shown:?}: {}", refused.text());
        assert!(refused.header("Nats-Service-Error").contains(says), "{door} {shown:?}: no word in the header");
        assert!(refused.header("Oarlock-Status").is_empty(), "{door} {shown:?}: it has a status");
    }
    for nobody in ["oarlock.ask.tester", "oarlock.ask.orchestrator", "oarlock.ask"] {
        let error = fleet.bus.client.request(nobody, "x".into()).await.unwrap_err();
        assert_eq!(error.kind(), async_nats::client::RequestErrorKind::NoResponders, "{nobody}");
    }
    let listed = fleet.request("oarlock.control.list", "").await.text();
    assert!(listed.contains("\"total\":0"), "a refused goal became a run: {listed}");
    still_well(&fleet).await;
}

/// Rules of a planner whose every answer to `part` is `plan`, also one that its own schema refuses.
fn plans(part: &str, plan: Value) -> Value {
    rules::says("planner", part, json!({ "json": plan, "finish": "end_turn" }))
}

/// Plans that are none: a word for the goal, the plan, what the error must say.
fn no_plans() -> Vec<(&'static str, Value, &'static str)> {
    let many: Vec<String> = (0..201).map(|number| format!("n{number}")).collect();
    let many: Vec<(&str, &str, &[&str])> = many.iter().map(|id| (id.as_str(), "coder", &[][..])).collect();
    vec![
        (
            "case-cycle",
            rules::plan(&[("a", "coder", &["c"]), ("b", "qa", &["a"]), ("c", "qa", &["b"])]),
            "in a cycle: a → c → b → a",
        ),
        ("case-self", rules::plan(&[("a", "coder", &["a"])]), "task \"a\" depends on itself"),
        ("case-missing", rules::plan(&[("a", "coder", &["zz"])]), "depends on \"zz\", which is no task of the plan"),
        ("case-twice", rules::plan(&[("a", "coder", &[]), ("a", "qa", &[])]), "the id \"a\" is used twice"),
        ("case-unknown", rules::plan(&[("a", "tester", &[])]), "\"tester\""),
        ("case-boss", rules::plan(&[("a", "orchestrator", &[])]), "\"orchestrator\""),
        ("case-empty", rules::plan(&[]), "tasks"),
        ("case-many", rules::plan(&many), "200"),
        ("case-prose", json!("first the code, then the tests"), "is not of type \"object\""),
        (
            "case-blank",
            json!({ "tasks": [{ "id": "a", "role": "coder", "description": " ", "depends_on": [] }] }),
            "has no description",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_none_fails_the_run_and_a_mended_one_does_not() {
    let mut all: Vec<Value> = no_plans().into_iter().map(|(part, plan, _)| plans(part, plan)).collect();
    // This one is mended when the planner is told what was wrong, by the same worker or at its second attempt.
    let cycle = rules::plan(&[("a", "researcher", &["b"]), ("b", "researcher", &["a"])]);
    let told = rules::plan(&[("a", "researcher", &[])]);
    all.push(rules::says("planner", "depend on each other in a cycle: a → b → a", json!({ "json": told })));
    all.push(plans("case-mended", cycle));
    all.extend(rules::small());
    let fleet = Fleet::start(&rules::script(&all)).await;
    let mut faults = Vec::new();
    for (part, _, says) in no_plans() {
        faults.extend(failing(&fleet, part, "500", FailureKind::ModelOutput, says).await);
    }
    let mended = fleet.request("oarlock.run", "case-mended").await;
    assert_eq!(mended.header("Oarlock-Status"), "completed", "{}", mended.text());
    still_well(&fleet).await;
    assert_none(&faults);
}

/// What a model does to a coder: a word for the goal, the rule, the service code, the kind, what the error must say.
type Trouble = (&'static str, Value, &'static str, FailureKind, &'static str);

fn bad_answers() -> Vec<Trouble> {
    use FailureKind as Kind;
    let fault = |part: &str, fault: Value| rules::fault("coder", part, fault);
    let broken = |part: &str, kind: &str| fault(part, json!({ "kind": kind }));
    let garbage = rules::says("coder", "case-garbage", json!({ "content": "trains are nice", "finish": "end_turn" }));
    let elsewhere = rules::says("coder", "never said", json!({ "content": "x" }));
    let (no_key, no_model) = (json!({ "status": 401 }), json!({ "status": 404 }));
    vec![
        ("case-garbage", garbage, "500", Kind::ModelOutput, "no whole JSON in the answer"),
        (
            "case-half",
            broken("case-half", "malformed"),
            "500",
            Kind::ModelOutput,
            "does not fit, also when asked again",
        ),
        ("case-refusal", broken("case-refusal", "refusal"), "500", Kind::ModelRefused, "refused (I cannot help"),
        ("case-cut", broken("case-cut", "truncate"), "500", Kind::ModelCutOff, "cut off at output_tokens 16384"),
        ("case-key", fault("case-key", no_key), "500", Kind::ModelAuth, "the key was refused (401"),
        ("case-model", fault("case-model", no_model), "500", Kind::ModelRequest, "check the model's name"),
        ("case-no-rule", elsewhere, "500", Kind::ModelScript, "none matches"),
    ]
}

fn bad_files() -> Vec<Trouble> {
    use FailureKind as Kind;
    let written = |part: &str, path: &str, bytes: usize, summary: usize| {
        let file = json!({ "path": path, "content": "x".repeat(bytes) });
        rules::says("coder", part, json!({ "json": { "files": [file], "summary": "y".repeat(summary) } }))
    };
    let (long, reply) = ("case-long-file", "case-long-reply");
    vec![
        ("case-up", written("case-up", "../evil.py", 1, 1), "500", Kind::ModelOutput, "\"../evil.py\" is refused"),
        ("case-root", written("case-root", "/etc/passwd", 1, 1), "500", Kind::ModelOutput, "must be relative"),
        ("case-git", written("case-git", ".git/hooks/x", 1, 1), "500", Kind::ModelOutput, "must not reach into .git"),
        (long, written(long, "a.py", 1_048_577, 1), "500", Kind::ModelOutput, "json_bytes_max 1048576"),
        (reply, written(reply, "a.py", 1, 300_000), "413", Kind::TooLarge, "reply_content_bytes_max 262144"),
    ]
}

fn troubles() -> Vec<Trouble> {
    bad_answers().into_iter().chain(bad_files()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_model_does_the_caller_is_told() {
    let mut all: Vec<Value> = troubles().into_iter().map(|(_, rule, ..)| rule).collect();
    all.push(rules::says("planner", "case-", json!({ "json": rules::plan(&[("t1", "coder", &[])]) })));
    all.extend(rules::small());
    let fleet = Fleet::start(&rules::script(&all)).await;
    let mut faults = Vec::new();
    for (part, _, code, kind, says) in troubles() {
        faults.extend(failing(&fleet, part, code, kind, says).await);
        let asked = fleet.request("oarlock.ask.coder", part).await;
        if asked.error_code() != code || !asked.text().contains(says) || asked.header("Nats-Service-Error").is_empty() {
            faults.push(format!("ask {part}: code {:?} instead of {code}: {}", asked.error_code(), asked.text()));
        }
    }
    still_well(&fleet).await;
    assert_none(&faults);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_says_nothing_in_time_is_a_timeout() {
    let server = TestServer::start().await;
    let mut all = vec![rules::fault("planner", "case-slow", json!({ "kind": "timeout" }))];
    all.extend(rules::small());
    let script = server.file("script.json", &rules::script(&all));
    let mut workers = Vec::new();
    for role in [Role::Orchestrator, Role::Planner, Role::Researcher, Role::Synthesizer] {
        let mut worker = Worker::spawn(&server, role, |command| {
            command.arg("--script").arg(&script).env("OARLOCK_TIMEOUT_S", "4");
        });
        worker.ready(&server).await;
        workers.push(worker);
    }
    let faults = failing(&server, "case-slow", "504", FailureKind::Timeout, "no answer within 1.8 s").await;
    let asked = server.request("oarlock.ask.planner", "case-slow").await;
    assert_eq!(asked.error_code(), "504", "{}", asked.text());
    still_well(&server).await;
    assert_none(&faults);
    // A role that nobody serves is named, with the command that mends it.
    drop(workers.remove(2));
    let late = failing(&server, GOOD, "504", FailureKind::Timeout, "oarlock worker researcher").await;
    assert_none(&late);
    workers.push(server.worker(Role::Researcher, &rules::script(&all)).await);
    still_well(&server).await;
}

/// A model server that refuses every key; it is no model, only its door.
async fn refusing_model() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let body = r#"{"error":{"message":"Incorrect API key provided","type":"invalid_request_error"}}"#;
                let answer = format!(
                    "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let mut seen = vec![0; 64 * 1024];
                let _ = stream.read(&mut seen).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_used_is_named_with_what_to_do() {
    const KEY: &str = "sk-very-secret-0123456789";
    let server = TestServer::start().await;
    let script = rules::script(&rules::small());
    let mut others = vec![server.worker(Role::Orchestrator, &script).await];
    let refusing = refusing_model().await;
    let closed = "http://127.0.0.1:9/v1";
    let key = ("OPENAI_API_KEY", KEY);
    let planners: [(&str, &[&str], &[(&str, &str)], &str, FailureKind, &str); 3] = [
        (
            "wrong key",
            &["--model", "openai/m", "--base-url", &refusing],
            &[key],
            "500",
            FailureKind::ModelAuth,
            "check OPENAI_API_KEY",
        ),
        (
            "unreachable",
            &["--model", "openai/m", "--base-url", closed],
            &[key],
            "503",
            FailureKind::ModelUnavailable,
            "check the network and the base URL",
        ),
        (
            "no model",
            &[],
            &[],
            "503",
            FailureKind::ModelMissing,
            "has no model; give it one with --model or OARLOCK_MODEL",
        ),
    ];
    let mut faults = Vec::new();
    for (goal, arguments, environment, code, kind, says) in planners {
        if goal == "no model" && !no_local_model() {
            continue;
        }
        let mut planner = Worker::spawn(&server, Role::Planner, |command| {
            command.args(arguments).envs(environment.iter().copied());
        });
        planner.ready(&server).await;
        faults.extend(failing(&server, goal, code, kind, says).await);
        planner.signal("TERM");
        assert_eq!(planner.exit_code().await, Some(0), "{}", planner.log_text());
        assert!(!planner.log_text().contains(KEY), "the key is in the log");
    }
    for role in [Role::Planner, Role::Researcher, Role::Synthesizer] {
        others.push(server.worker(role, &script).await);
    }
    still_well(&server).await;
    let results = server.bus.scan("OARLOCK_RESULTS", "oarlock.result.>").await.unwrap();
    assert!(results.iter().all(|kept| !String::from_utf8_lossy(&kept.payload).contains(KEY)), "the key is in a reply");
    assert_none(&faults);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_is_told_to_the_caller_by_a_worker_that_stays_up() {
    let server = TestServer::start().await;
    let script = rules::script(&rules::small());
    let _orchestrator = server.worker(Role::Orchestrator, &script).await;
    let mut planner = Worker::spawn(&server, Role::Planner, |command| {
        command.args(["--model", "anthropic/claude-haiku-5-5"]);
    });
    planner.ready(&server).await;
    for goal in ["one", "two"] {
        assert_none(&failing(&server, goal, "500", FailureKind::ModelAuth, "ANTHROPIC_API_KEY").await);
    }
    server.assert_nothing_left().await;
}

/// True when no server on this machine would be found as a model.
pub fn no_local_model() -> bool {
    let free = [11434, 8080].iter().all(|port| std::net::TcpStream::connect(("127.0.0.1", *port)).is_err());
    crate::harness::have("no-local-model", free, "something listens on 11434 or 8080; stop it")
}
