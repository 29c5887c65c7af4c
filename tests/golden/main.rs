//! Every wire type as JSON. A change of the wire is a change of a file here, in the same commit; with
//! `OARLOCK_UPDATE_GOLDEN=1` the files are written anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected should stop there"
)]

use std::fmt::Debug;
use std::path::PathBuf;

use oarlock::wire::subject::TaskSubject;
use oarlock::wire::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    if std::env::var_os("OARLOCK_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text, golden, "{name} has another form than {}", path.display());
    assert_eq!(&serde_json::from_str::<T>(&golden).unwrap(), value, "{name} is not read back");
    let mut later: Value = serde_json::from_str(&golden).unwrap();
    if let Some(object) = later.as_object_mut() {
        object.insert("a_field_of_a_later_version".into(), Value::Bool(true));
        assert_eq!(&serde_json::from_value::<T>(later).unwrap(), value, "{name} does not tolerate an unknown field");
    }
}

fn run() -> RunId {
    "f2k7q3x5n6m4a2b3c4d5".parse().unwrap()
}

fn task_id(text: &str) -> TaskId {
    text.parse().unwrap()
}

fn artifact() -> Artifact {
    Artifact {
        path: "todo/store.py".parse().unwrap(),
        sha256: ContentHash::of(b"content"),
        bytes: 7,
        role: Role::Coder,
    }
}

fn usage() -> Usage {
    Usage {
        calls: 1,
        input: 812,
        output: 96,
        cache_read: 700,
        cache_write: 12,
        estimated: false,
        priced_calls: 1,
        cost_nano_usd: Some(66_500),
        repairs: 1,
    }
}

fn reply(role: Role, task: &str, outcome: Outcome) -> Reply {
    let reply = Reply::new(role, run(), task_id(task), 2, outcome);
    Reply { usage: usage(), worker: "coder@host:4711".into(), ..reply }
}

fn allowance() -> Allowance {
    Allowance { tokens: Some(50_000), cost_nano_usd: Some(250_000_000) }
}

fn plan() -> Plan {
    let task = |id: &str, role, needs: &[&str]| PlanTask {
        id: task_id(id),
        description: format!("Do {id}."),
        role,
        depends_on: needs.iter().map(|id| task_id(id)).collect(),
    };
    Plan { v: WIRE_VERSION, tasks: vec![task("t1", Role::Coder, &[]), task("t2", Role::Qa, &["t1"])] }
}

fn state_view() -> StateView {
    let seen =
        |name: &str, json: Option<&str>| StateSeen { name: name.into(), revision: 12, json: json.map(Into::into) };
    StateView { seen: vec![seen("decisions", Some("[\"use scrypt\"]")), seen("long", None)], more: 0 }
}

fn changes() -> Vec<StateChange> {
    let change = |op, name: &str, value, expected| StateChange { op, name: name.into(), value, expected };
    vec![
        change(StateOp::Set, "port", 8080.into(), Some(12)),
        change(StateOp::Append, "decisions", "use sqlite".into(), None),
        change(StateOp::Merge, "owners", serde_json::json!({"todo/store.py": "t1"}), None),
    ]
}

fn failure() -> Failure {
    Failure::again(FailureKind::ModelCutOff, "the model's answer to coder was cut off at output_tokens 16384")
}

#[test]
fn goals() {
    let budget: Budget = "exchanges=40,tasks=10,time_s=600,tokens=200000,usd=2.5".parse().unwrap();
    let bounded = Goal { budget: budget.clone(), ..Goal::new("Write a function.".into(), vec![artifact()]) };
    check("goal", &bounded);
    let gates = Gates { approve: Approve::Plan, quorum: 2, within_s: 3600, default: Otherwise::Approve, ask: true };
    let tenant = "acme".parse().unwrap();
    check("goal_gated", &Goal { gates, tenant, ..Goal::new("Write a function.".into(), Vec::new()) });
    let purse = |tokens, nano_usd| Purse { tokens, nano_usd };
    let spent = Spending { spent: purse(9_000, 1_200_000), taken: purse(120_000, 50_000_000), ..Spending::default() };
    check("spending", &spent);
    let last = Some(DayPart { run: run(), began: 1_798_761_600_000_000_000, revision: 7, own: spent });
    check("day_sum", &DaySum { all: spent, last, ..DaySum::default() });
    check(
        "goal_request",
        &GoalRequest {
            goal: "Write a function.".into(),
            attachments: vec![
                Attachment {
                    path: "notes.md".parse().unwrap(),
                    body: AttachmentBody::Text { text: "Be brief.".into() },
                },
                Attachment { path: "big.csv".parse().unwrap(), body: AttachmentBody::Stored { artifact: artifact() } },
            ],
            budget,
            gates: Gates { approve: Approve::All, ..Gates::default() },
            tenant: "acme".parse().unwrap(),
        },
    );
    check("ask", &Ask { description: "Fix the typo.".into(), context: vec!["teh README".into()] });
}

#[test]
fn plans_and_tasks() {
    check("plan", &plan());
    check(
        "task",
        &Task {
            v: WIRE_VERSION,
            run: run(),
            id: task_id("t1"),
            attempt: 2,
            role: Role::Coder,
            description: "Write the package todo.".into(),
            goal: Content::Goal,
            context: vec![ContextItem {
                task: task_id("t0"),
                role: Role::Researcher,
                attempt: 1,
                content: Content::inline("- use scrypt"),
            }],
            evidence: vec![ContextItem {
                task: task_id("t2"),
                role: Role::Qa,
                attempt: 1,
                content: Content::Result { subject: "oarlock.result.qa.f2k7q3x5n6m4a2b3c4d5.t2.1".into() },
            }],
            findings: vec![Finding { id: "t3.1.f1".into(), file: None, text: "closes too late".into() }],
            files: vec![artifact()],
            state: state_view(),
            notes: vec![Note { by: "ann@desk".into(), text: "use scrypt".into() }],
            asked_by: Some(Role::Reviewer),
            attended: true,
            limit_ms: 900_000,
            budget: Some(allowance()),
        },
    );
}

#[test]
fn replies() {
    let completed =
        |content: &str, report| Outcome::Completed { content: content.into(), artifacts: vec![artifact()], report };
    let tests = TestReport {
        passed: false,
        tests: 23,
        ok: 22,
        failed: 1,
        errors: 0,
        skipped: 0,
        outcome: "failed".into(),
        sandbox: "bwrap".into(),
        exit: Some(1),
        judged: code_hash([&artifact()]),
        canary: None,
        wall_ms: 842,
        failures: vec![TestFailure { name: "test_api.test_delete".into(), message: "assert 200 == 404".into() }],
        output: "1 failed, 22 passed".into(),
    };
    let review = Review {
        verdict: Verdict::Changes,
        findings: vec![Finding { id: "t3.2.f1".into(), file: Some("a.py".into()), text: "closes too late".into() }],
        judged: code_hash([&artifact()]),
    };
    let canary = Canary { fault: "todo/store.py: add raises an error".into(), survived: true };
    let passed = TestReport { passed: true, ok: 23, failed: 0, exit: Some(0), canary: Some(canary), ..tests.clone() };
    let answers = Answers {
        answers: vec![FindingAnswer {
            finding: "t3.1.f1".into(),
            verdict: AnswerVerdict::Rejected,
            why: "the goal asks for it".into(),
        }],
    };
    let asked = Some(ContentHash::of(b"words"));
    check("reply_proposing", &Reply { state: changes(), ..reply(Role::Coder, "t1", completed("done", None)) });
    check("reply_completed", &Reply { prompt: asked, ..reply(Role::Coder, "t1", completed("done", None)) });
    check("reply_plan", &reply(Role::Planner, "plan", completed("t1 coder", Some(Report::Plan(plan())))));
    check("reply_tests", &reply(Role::Qa, "t2", completed("did not pass", Some(Report::Tests(tests)))));
    check("reply_tests_canary", &reply(Role::Qa, "t2", completed("passed", Some(Report::Tests(passed)))));
    check("reply_answers", &reply(Role::Coder, "t1", completed("done", Some(Report::Answers(answers)))));
    check("reply_review", &reply(Role::Reviewer, "t3", completed("changes", Some(Report::Review(review)))));
    check("reply_failed", &reply(Role::Coder, "t1", Outcome::Failed { failure: failure() }));
    let doubted = Reply {
        doubts: vec!["t1 #1 (coder): no such file".into()],
        ..reply(Role::Coder, "t1", completed("done", None))
    };
    check("reply_doubted", &doubted);
    let question = Question { to: "t3".to_owned().into(), text: "Which database?".into() };
    check("reply_question", &reply(Role::Coder, "t1", Outcome::Question(question)));
    check("reply_canceled", &reply(Role::Coder, "t1", Outcome::Canceled { reason: "the run ended".into() }));
}

#[test]
fn messages_and_events() {
    let metadata = Metadata {
        run: run(),
        task: task_id("t1"),
        attempt: 2,
        input: Some(ContentHash::of(b"input")),
        bytes: 23,
        hops: 4,
        notes: 1,
        reference: Some("oarlock.task.coder.f2k7q3x5n6m4a2b3c4d5.t1.2".into()),
        budget: Some(allowance()),
    };
    let from = Party::Role(Role::Orchestrator);
    let to = Party::Role(Role::Coder);
    let message = Message::new(from, to, MessageType::Request, "Write it.".into(), metadata.clone());
    let mut older = serde_json::to_value(&message).unwrap();
    older["metadata"].as_object_mut().unwrap().remove("hops");
    let older: Message = serde_json::from_value(older).unwrap();
    assert_eq!(older.metadata.hops, 0, "a message of before there were hops");
    check("message", &Message::new(from, to, MessageType::Request, "Write the package todo.".into(), metadata.clone()));
    let shown = Message::new(from, to, MessageType::Request, "Write it.".into(), metadata.clone());
    check("message_state", &Message { state: state_view(), ..shown });
    let question = Message::new(to, Party::User, MessageType::Question, "Which database?".into(), metadata);
    check("message_question", &question);
    let event = Event::of_task(&run(), &task_id("t1"), Role::Coder, 2, EventKind::Completed, "done");
    check("event", &Event { usage: Some(usage()), ..event });
    let task = task_id("t1");
    let text = "def add(a, b):".to_owned();
    check(
        "event_token",
        &TokenEvent { v: WIRE_VERSION, run: run(), task, role: Role::Coder, attempt: 2, offset: 57, text },
    );
    check("event_run", &Event::of_run(&run(), EventKind::Finished, "completed"));
}

#[test]
fn records_and_views() {
    check("state_changed", &StateVerdict::changed(vec!["decisions".into(), "port".into()]));
    let why = "was to be replaced at revision 12, and is at revision 19 now: 9090";
    let refusal = StateRefusal { raced: true, ..StateRefusal::of("port", why) };
    check("state_refused", &StateVerdict::refused(vec![refusal]));
    check("state_void", &StateVerdict::void("attempt 2 of its task is in force"));
    let owner = Owner { seq: 17, at: 1_790_000_000_000_000_000, nonce: "00ff".into() };
    let record = RunRecord::submitted(1_790_000_000);
    check("run_record_submitted", &record);
    let working = RunRecord { status: RunStatus::Working, owner: Some(owner), plan: 1, ..record };
    check("run_record", &working);
    let first = [(task_id("t1"), 1), (task_id("t2"), 3), (task_id("answer"), 2)].into();
    let spent = [(Role::Coder, usage())].into();
    let restart = Some(Restart { first, messages: 7, at: 1_790_000_000_000_000_000, spent });
    check("run_record_retried", &RunRecord { generation: 2, restart, ..working });
    let to = TaskSubject { role: Role::Coder, run: run(), task: task_id("t1"), attempt: 2 };
    check("dead_letter", &DeadLetter::new(to, failure(), 10, "coder@host:1".into(), b"{\"v\":1}"));
    check("run_summary", &RunSummary { run: run(), status: RunStatus::InputRequired, submitted_at: 1_790_000_000 });
    let task = TaskView {
        id: task_id("t2"),
        description: "Test it.".into(),
        role: Role::Qa,
        status: TaskStatus::InProgress,
        dependencies: vec![task_id("t1")],
        attempt: 2,
        result: Some("did not pass".into()),
        passed: Some(false),
    };
    check(
        "run_view",
        &RunView {
            v: WIRE_VERSION,
            run: run(),
            status: RunStatus::Failed,
            goal: "Write a function.".into(),
            tenant: "acme".parse().unwrap(),
            tasks: vec![task],
            answer: None,
            evidence: vec!["pytest did not pass: 22 of 23 tests ok, in sandbox bwrap".into()],
            doubts: vec!["t2 #1 (qa): this is no evidence".into()],
            failure: Some(failure()),
            artifacts: vec![artifact()],
            usage: usage(),
            waiting: vec![ItemView {
                item: ItemId::of(&task_id("t2"), 2),
                task: task_id("t2"),
                role: Role::Qa,
                attempt: 2,
                kind: ItemKind::Question,
                text: "pytest passed".into(),
                since: 1_790_000_000,
                until: 1_790_604_800,
                default: Otherwise::Reject,
                quorum: 2,
                votes: vec![Vote { by: "ann@desk".into(), says: Said::Approve.in_short(), at: 1_790_000_060 }],
            }],
            unreadable: Vec::new(),
        },
    );
}

#[test]
fn inputs() {
    let plan_item = ItemId::of(&TaskId::plan(), 1);
    let check = |name: &str, item: ItemId, says| check(name, &Input::new(item, "ann@desk", says));
    check("input_approve", plan_item.clone(), Said::Approve);
    check("input_reject", plan_item.clone(), Said::Reject { reason: "one task is enough".into() });
    check("input_edit", plan_item, Said::Edit { plan: plan() });
    check("input_answer", ItemId::of(&task_id("t1"), 1), Said::Answer { text: "sqlite".into() });
    check("input_note", ItemId::note(), Said::Note { text: "use scrypt".into() });
    check("input_pause", ItemId::hold(1, 1), Said::Pause);
    check("input_lapse", ItemId::of(&task_id("t1"), 2), Said::Lapse);
}

#[test]
fn every_golden_file_is_checked() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let source = include_str!("main.rs");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(stem) = name.strip_suffix(".json") {
            assert!(source.contains(&format!("\"{stem}\"")), "{name} belongs to no check");
        }
    }
}

#[test]
fn unknown_kinds_of_failure_are_read_as_internal() {
    let text = r#"{"kind":"of_a_later_version","message":"x","retry":{"when":"never"}}"#;
    assert_eq!(serde_json::from_str::<Failure>(text).unwrap().kind, FailureKind::Internal);
}
