//! Completion needs evidence: about the bytes in force, from somebody else than the author, with real pytest behind it.

use oarlock::bus::Point;
use oarlock::wire::subject::TaskSubject;
use oarlock::wire::{
    AnswerVerdict, ContentHash, EventKind, FailureKind, Outcome, Reply, Report, Role, RunId, RunStatus, TaskId,
    TestReport, code_hash,
};
use serde_json::{Value, json};

use crate::harness::{TestServer, Worker};
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
    let (_, doubted) = events.event(EventKind::Doubted, Some(Role::Qa), 1).await;
    assert!(doubted.text.contains("about other files"), "{}", doubted.text);
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

fn doubts(events: &Ear) -> Vec<String> {
    events.events(EventKind::Doubted).into_iter().map(|(_, event)| event.text).collect()
}

const TEAM: [Role; 6] = [Role::Orchestrator, Role::Planner, Role::Coder, Role::Qa, Role::Reviewer, Role::Synthesizer];

/// A coder's rule for one question of one attempt.
fn coder_rule(attempt: u32, nth: u32, code: &str, answers: &Value) -> Value {
    let mut answer = files(&[("made.py", code), ("test_made.py", TESTS)]);
    if !answers.is_null() {
        answer["answers"] = answers.clone();
    }
    let mut rule = json_rule(Role::Coder, 0, &answer);
    rule["match"]["attempt"] = attempt.into();
    rule["match"]["nth"] = nth.into();
    rule
}

/// A reviewer that finds one fault in the first attempt, and approves the next one if its prompt holds `wanted`.
fn reviewer_rules(wanted: &str) -> Vec<Value> {
    let finding = json!({ "file": "made.py", "text": "double takes no text" });
    let mut first = json_rule(Role::Reviewer, 0, &json!({ "verdict": "changes", "findings": [finding] }));
    first["match"]["attempt"] = 1.into();
    let mut then = json_rule(Role::Reviewer, 0, &json!({ "verdict": "approve", "findings": [] }));
    then["match"]["user_contains"] = wanted.into();
    vec![first, then]
}

fn answered(verdict: &str, why: &str) -> Value {
    json!([{ "finding": "t3.1.f1", "verdict": verdict, "why": why }])
}

/// A run of a coder, a qa and a reviewer.
async fn reviewed(server: &TestServer, coder: &[Value], wanted: &str) -> (RunId, Ear) {
    let plan = plan_rule(&[(Role::Coder, &[]), (Role::Qa, &[1]), (Role::Reviewer, &[1])]);
    let rules = [vec![plan, text_rule(Role::Synthesizer, 0, "It is made.")], coder.to_vec(), reviewer_rules(wanted)];
    let events = Ear::on(server, "oarlock.event.>").await;
    let fleet: Vec<Worker> = cast(server, &script(&rules.concat()), &TEAM).await;
    let run = submit(server, "make it").await;
    assert_eq!(ended(server, &run).await.status, RunStatus::Completed, "{:?}", result(server, &run).await);
    drop(fleet);
    (run, events)
}

const OTHER: &str = "def double(x):\n    return int(x) + int(x)\n";

/// Twice asked and not answered is a failure with the finding's name; the attempt after that answers it.
#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_finding_is_told_to_the_coder_and_then_a_failure() {
    let server = TestServer::start().await;
    let coder = [
        coder_rule(1, 0, CODE, &Value::Null),
        coder_rule(2, 0, OTHER, &json!([])),
        coder_rule(2, 1, OTHER, &json!([{ "finding": "f1", "verdict": "fixed", "why": "another id" }])),
        coder_rule(3, 0, OTHER, &answered("fixed", "it takes text now")),
    ];
    let (run, _) = reviewed(&server, &coder, "t3.1.f1 (double takes no text) fixed: it takes text now").await;
    let silent = reply(&server, &run, Role::Coder, 1, 2).await;
    let failure = silent.failure().expect("a failure");
    assert_eq!((failure.kind, silent.usage.calls), (FailureKind::ModelOutput, 2), "{failure}");
    assert!(failure.message.contains("no answer to finding t3.1.f1"), "{failure}");
    let third = reply(&server, &run, Role::Coder, 1, 3).await;
    let Some(Report::Answers(answers)) = third.report() else { panic!("{third:?}") };
    assert_eq!((answers.answers.len(), answers.answers[0].verdict), (1, AnswerVerdict::Fixed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_is_fixed_without_a_change_is_not_believed() {
    let server = TestServer::start().await;
    let coder = [
        coder_rule(1, 0, CODE, &Value::Null),
        coder_rule(2, 0, CODE, &answered("fixed", "done")),
        coder_rule(2, 1, OTHER, &answered("fixed", "really done")),
    ];
    let (run, events) = reviewed(&server, &coder, "t3.1.f1 (double takes no text) fixed: really done").await;
    let second = reply(&server, &run, Role::Coder, 1, 2).await;
    assert_eq!((second.usage.calls, second.failure()), (2, None), "told once");
    assert_eq!(doubts(&events), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_finding_comes_back_to_the_reviewer_with_its_reason() {
    let server = TestServer::start().await;
    let coder = [
        coder_rule(1, 0, CODE, &Value::Null),
        coder_rule(2, 0, CODE, &answered("rejected", "the goal speaks of numbers")),
    ];
    let (run, _) =
        reviewed(&server, &coder, "t3.1.f1 (double takes no text) rejected: the goal speaks of numbers").await;
    let second = reply(&server, &run, Role::Coder, 1, 2).await;
    assert_eq!(second.usage.calls, 1);
    assert_eq!(second.artifacts(), reply(&server, &run, Role::Coder, 1, 1).await.artifacts(), "nothing was changed");
}
