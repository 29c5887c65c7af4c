//! Completion needs evidence: about the bytes in force, from somebody else than the author, with real pytest behind it.

use oarlock::bus::Point;
use oarlock::wire::subject::TaskSubject;
use oarlock::wire::{
    ContentHash, EventKind, Outcome, Reply, Report, Role, RunId, RunStatus, TaskId, TestReport, code_hash,
};
use serde_json::{Value, json};

use crate::harness::TestServer;
use crate::story::{Ear, cast, ended, json_rule, plan_rule, result, script, submit, text_rule};

/// A coder's answer: these files.
pub fn files(files: &[(&str, &str)]) -> Value {
    let files: Vec<Value> = files.iter().map(|(path, content)| json!({ "path": path, "content": content })).collect();
    json!({ "files": files, "deleted": [], "summary": "the code and its tests" })
}

const CODE: &str = "def double(x):\n    return 2 * x\n";
const TESTS: &str = "from made import double\n\n\ndef test_double():\n    assert double(2) == 4\n";

/// The reply to one attempt of a task.
pub async fn reply(server: &TestServer, run: &RunId, role: Role, number: usize, attempt: u32) -> Reply {
    let to = TaskSubject { role, run: run.clone(), task: TaskId::planned(number), attempt };
    server.store.results.get(&to).await.unwrap().unwrap_or_else(|| panic!("no reply to {to:?}"))
}

pub fn tests_of(reply: &Reply) -> &TestReport {
    match reply.report() {
        Some(Report::Tests(tests)) => tests,
        other => panic!("no test run: {other:?}"),
    }
}

/// Whoever stores a pass for other bytes has shown nothing: the real qa is asked, and its verdict is the one that counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_report_counts_for_nothing_and_the_check_is_asked_again() {
    let server = TestServer::start().await;
    let story = script(&[
        plan_rule(&[(Role::Coder, &[]), (Role::Qa, &[1])]),
        json_rule(Role::Coder, 0, &files(&[("made.py", CODE), ("test_made.py", TESTS)])),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ]);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let roles = [Role::Orchestrator, Role::Planner, Role::Coder, Role::Synthesizer];
    let _fleet = cast(&server, &story, &roles).await;
    let run = submit(&server, "make it").await;
    events.event(EventKind::Dispatched, Some(Role::Qa), 1).await;
    let report = TestReport {
        passed: true,
        tests: 9,
        ok: 9,
        failed: 0,
        errors: 0,
        skipped: 0,
        outcome: "passed".into(),
        sandbox: "bwrap".into(),
        exit: Some(0),
        judged: Some(ContentHash::of(b"the code of yesterday")),
        canary: None,
        wall_ms: 1,
        failures: Vec::new(),
        output: String::new(),
    };
    let outcome =
        Outcome::Completed { content: "9 tests ok".into(), artifacts: Vec::new(), report: Some(Report::Tests(report)) };
    let stale = Reply::new(Role::Qa, run.clone(), TaskId::planned(2), 1, outcome);
    server.store.results.publish(Point::Reply, &Reply { worker: "qa@elsewhere:1".into(), ..stale }).await.unwrap();
    let _qa = cast(&server, &story, &[Role::Qa]).await;
    assert_eq!(ended(&server, &run).await.status, RunStatus::Completed, "{:?}", result(&server, &run).await);
    let coder = reply(&server, &run, Role::Coder, 1, 1).await;
    let real = reply(&server, &run, Role::Qa, 2, 2).await;
    assert_eq!(tests_of(&real).judged, code_hash(coder.artifacts()), "qa says which code it judged");
    assert_eq!((tests_of(&real).ok, tests_of(&real).exit), (1, Some(0)));
    let whole = result(&server, &run).await;
    assert_eq!((tests_of(&whole).tests, &tests_of(&whole).judged), (1, &tests_of(&real).judged), "not the nine");
    server.assert_nothing_left().await;
}
