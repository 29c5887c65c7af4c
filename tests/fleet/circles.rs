//! Work that goes in circles: each is stopped by the detector that is for it, at the message that is expected; and an
//! orchestrator that takes over in the middle, after a kill -9, comes to the same verdict at the same message.

use oarlock::wire::{EventKind, Failure, FailureKind, Role, RunId, RunStatus};
use serde_json::{Value, json};

use crate::harness::TestServer;
use crate::story::{Ear, cast, cast_with, ended, json_rule, plan_rule, result, script, submit, text_rule};

/// How long a model takes where an orchestrator is to be killed meanwhile, in milliseconds.
const LATENCY_MS: u64 = 400;

/// A story that goes in circles.
struct Circle {
    rules: Vec<Value>,
    roles: Vec<Role>,
    settings: Vec<(&'static str, &'static str)>,
    /// The orchestrator is killed when this role begins for the so-many-th time.
    kill_at: (Role, usize),
}

/// How a circle ended: the failure, and each request (task, attempt, hops), in their order.
#[derive(Debug, PartialEq)]
struct Verdict {
    failure: Failure,
    asked: Vec<(String, u32, u32)>,
}

impl Verdict {
    fn attempts(&self, task: &str) -> usize {
        self.asked.iter().filter(|(asked, ..)| asked == task).count()
    }
}

impl Circle {
    /// Runs it twice, the second time with the orchestrator killed in the middle; both must come to the same.
    async fn verdict(self) -> Verdict {
        let whole = self.run(false).await;
        let taken_over = self.run(true).await;
        assert_eq!(whole, taken_over, "the verdict of a takeover");
        whole
    }

    async fn run(&self, kill: bool) -> Verdict {
        let server = TestServer::start().await;
        let story = script(&self.rules);
        let mut first = cast_with(&server, &story, &[Role::Orchestrator], &self.settings).await;
        let _workers = cast(&server, &story, &self.roles).await;
        let events = Ear::on(&server, "oarlock.event.>").await;
        let run = submit(&server, "make it").await;
        let mut second = Vec::new();
        if kill {
            let (role, number) = self.kill_at;
            events.event(EventKind::Started, Some(role), number).await;
            first.remove(0).kill_9();
            second = cast_with(&server, &story, &[Role::Orchestrator], &self.settings).await;
        }
        let record = ended(&server, &run).await;
        assert_eq!((record.status, record.takeovers), (RunStatus::Failed, u32::from(kill)));
        server.assert_nothing_left().await;
        drop((first, second));
        Verdict { failure: failure(&server, &run).await, asked: asked(&server, &run).await }
    }
}

async fn failure(server: &TestServer, run: &RunId) -> Failure {
    result(server, run).await.failure().expect("a failure").clone()
}

async fn asked(server: &TestServer, run: &RunId) -> Vec<(String, u32, u32)> {
    let history = server.store.runs.history(run).await.unwrap();
    let about = history.into_iter().map(|entry| entry.message.metadata);
    about.map(|about| (about.task.to_string(), about.attempt, about.hops)).collect()
}

/// A rule for one attempt.
fn at(attempt: u32, mut rule: Value) -> Value {
    rule["match"]["attempt"] = attempt.into();
    rule
}

/// A coder that writes this version of a file, and a test that passes or never does and says another number each time.
fn code(attempt: u32, version: u32, passes: bool) -> Value {
    let check = if passes { "x > 0" } else { "x == time.time_ns()" };
    let test = format!("import time\nfrom made import x\n\ndef test_x():\n    assert {check}\n");
    let answer = json!({
        "files": [{ "path": "made.py", "content": format!("x = {version}\n") }, { "path": "test_made.py", "content": test }],
        "deleted": [],
        "summary": "it is written",
    });
    at(attempt, json_rule(Role::Coder, LATENCY_MS, &answer))
}

/// A reviewer that wants another style, each time in other words.
fn style(attempt: u32) -> Value {
    let words = ["the names are dull", "I miss a joke", "too few blank lines", "shorter, please", "longer, please"];
    let finding = json!({ "file": "made.py", "text": words[attempt as usize % words.len()] });
    at(attempt, json_rule(Role::Reviewer, 0, &json!({ "verdict": "changes", "findings": [finding] })))
}

fn coder_and_qa() -> Value {
    plan_rule(&[(Role::Coder, &[]), (Role::Qa, &[1])])
}

fn coder_qa_and_reviewer() -> Value {
    plan_rule(&[(Role::Coder, &[]), (Role::Qa, &[1]), (Role::Reviewer, &[1])])
}

/// The same file again for the same failure: the third attempt would be given what the second one was.
#[tokio::test(flavor = "multi_thread")]
async fn a_coder_and_a_qa_that_never_agree_are_a_repeated_pattern() {
    let circle = Circle {
        rules: [vec![coder_and_qa()], (1..=9).map(|attempt| code(attempt, 1, false)).collect()].concat(),
        roles: vec![Role::Planner, Role::Coder, Role::Qa],
        settings: vec![("OARLOCK_REWORK_MAX", "8")],
        kill_at: (Role::Coder, 2),
    };
    let verdict = circle.verdict().await;
    assert_eq!(verdict.failure.kind, FailureKind::RepeatedPattern, "{verdict:?}");
    let asked = |task: &str, attempt, hops| (task.to_owned(), attempt, hops);
    let expected = [("plan", 1, 1), ("t1", 1, 2), ("t2", 1, 3), ("t1", 2, 4), ("t2", 2, 5)];
    assert_eq!(verdict.asked, expected.map(|(task, attempt, hops)| asked(task, attempt, hops)), "the sixth is refused");
    for part in ["period 2", "orchestrator to qa (t2 #2)", "orchestrator to coder (t1 #3): \"part 1\""] {
        assert!(verdict.failure.message.contains(part), "{}", verdict.failure);
    }
}

/// Other files each time are progress, as far as anybody can tell: that ends at its bound.
#[tokio::test(flavor = "multi_thread")]
async fn a_coder_who_tries_something_new_each_time_ends_at_the_rework_bound() {
    let circle = Circle {
        rules: [vec![coder_and_qa()], (1..=9).map(|attempt| code(attempt, attempt, false)).collect()].concat(),
        roles: vec![Role::Planner, Role::Coder, Role::Qa],
        settings: Vec::new(),
        kill_at: (Role::Coder, 3),
    };
    let (whole, taken_over) = (circle.run(false).await, circle.run(true).await);
    // The failure shows what pytest printed, and how long it took.
    assert_eq!((whole.failure.kind, &whole.asked), (taken_over.failure.kind, &taken_over.asked));
    assert_eq!(whole.failure.kind, FailureKind::ReworkExhausted, "{whole:?}");
    assert_eq!((whole.attempts("t1"), whole.attempts("t2")), (4, 4), "{whole:?}");
}

/// An attempt that fails by itself is no rework: the bound is reached by those that were sent back.
#[tokio::test(flavor = "multi_thread")]
async fn failures_in_between_are_no_rework() {
    let written = |attempt| code(attempt, attempt, false);
    let broken = |attempt| {
        let mut rule = written(attempt);
        rule["fault"] = json!({ "kind": "malformed" });
        rule
    };
    let circle = Circle {
        rules: vec![coder_and_qa(), written(1), broken(2), written(3), broken(4), written(5), written(6)],
        roles: vec![Role::Planner, Role::Coder, Role::Qa],
        settings: Vec::new(),
        kill_at: (Role::Coder, 5),
    };
    let whole = circle.run(false).await;
    assert_eq!(whole.failure.kind, FailureKind::ReworkExhausted, "{whole:?}");
    assert!(whole.failure.message.contains("after 4 attempts (rework_max 3)"), "{}", whole.failure);
    assert_eq!((whole.attempts("t1"), whole.attempts("t2")), (6, 4), "{whole:?}");
    let taken_over = circle.run(true).await;
    assert_eq!((whole.failure.kind, &whole.asked), (taken_over.failure.kind, &taken_over.asked));
}

/// The same, with an answer to what the reviewer found in the attempt before.
fn answering(mut rule: Value, attempt: u32) -> Value {
    if attempt > 1 {
        let finding = format!("t3.{}.f1", attempt - 1);
        let answers = json!([{ "finding": finding, "verdict": "rejected", "why": "it is a matter of taste" }]);
        rule["response"]["json"]["answers"] = answers;
    }
    rule
}

/// The coder has nothing to change, and the reviewer always finds something to say.
#[tokio::test(flavor = "multi_thread")]
async fn a_reviewer_that_rejects_for_style_for_ever_is_no_progress() {
    let rules = (1..=9).flat_map(|attempt| [answering(code(attempt, 1, true), attempt), style(attempt)]);
    let circle = Circle {
        rules: [coder_qa_and_reviewer()].into_iter().chain(rules).collect(),
        roles: vec![Role::Planner, Role::Coder, Role::Qa, Role::Reviewer],
        settings: vec![("OARLOCK_REWORK_MAX", "8")],
        kill_at: (Role::Coder, 3),
    };
    let verdict = circle.verdict().await;
    assert_eq!(verdict.failure.kind, FailureKind::NoProgress, "{verdict:?}");
    assert_eq!((verdict.attempts("t1"), verdict.attempts("t3")), (3, 3), "{verdict:?}");
    for part in ["no_progress_max is 2", "t1 #2: reviewer", "too few blank lines", "t1 #3: reviewer", "shorter, please"]
    {
        assert!(verdict.failure.message.contains(part), "{}", verdict.failure);
    }
}

/// To and fro between two versions: each is another one than before, and none is new.
#[tokio::test(flavor = "multi_thread")]
async fn a_coder_who_goes_to_and_fro_for_a_reviewer_is_no_progress() {
    let rules = (1..=9).flat_map(|attempt| [answering(code(attempt, attempt % 2 + 1, true), attempt), style(attempt)]);
    let circle = Circle {
        rules: [coder_qa_and_reviewer()].into_iter().chain(rules).collect(),
        roles: vec![Role::Planner, Role::Coder, Role::Qa, Role::Reviewer],
        settings: vec![("OARLOCK_REWORK_MAX", "8"), ("OARLOCK_NO_PROGRESS_MAX", "3")],
        kill_at: (Role::Coder, 4),
    };
    let verdict = circle.verdict().await;
    assert_eq!(verdict.failure.kind, FailureKind::NoProgress, "{verdict:?}");
    assert_eq!(verdict.attempts("t1"), 5, "two versions, and three times nothing new: {verdict:?}");
    assert!(verdict.failure.message.contains("no_progress_max is 3"), "{}", verdict.failure);
}

/// A planner whose plans are no plans, again and again: its retries bound it, and the fault is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_planner_that_never_makes_a_plan_ends_with_the_fault_of_its_plan() {
    let task =
        |id: &str, needs: &str| json!({ "id": id, "role": "planner", "description": "plan it", "depends_on": [needs] });
    let cycle = json!({ "tasks": [task("t1", "t2"), task("t2", "t1")] });
    let circle = Circle {
        rules: vec![json_rule(Role::Planner, LATENCY_MS, &cycle)],
        roles: vec![Role::Planner],
        settings: vec![("OARLOCK_REWORK_MAX", "8")],
        kill_at: (Role::Planner, 2),
    };
    let verdict = circle.verdict().await;
    assert_eq!(verdict.failure.kind, FailureKind::ModelOutput, "{verdict:?}");
    for part in ["the planner made no plan", "cycle: t1 → t2"] {
        assert!(verdict.failure.message.contains(part), "{}", verdict.failure);
    }
    assert_eq!(verdict.asked, [("plan".to_owned(), 1, 1), ("plan".to_owned(), 2, 2)]);
}

/// A chain longer than its bound, although the run has few messages.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_far_from_the_goal_is_refused() {
    let circle = Circle {
        rules: vec![
            plan_rule(&[
                (Role::Documenter, &[]),
                (Role::Documenter, &[1]),
                (Role::Documenter, &[2]),
                (Role::Documenter, &[3]),
            ]),
            text_rule(Role::Documenter, LATENCY_MS, "# It\n\nIt is made."),
        ],
        roles: vec![Role::Planner, Role::Documenter],
        settings: vec![("OARLOCK_HOPS_MAX", "4")],
        kill_at: (Role::Documenter, 2),
    };
    let verdict = circle.verdict().await;
    assert_eq!(verdict.failure.kind, FailureKind::MaxIterations, "{verdict:?}");
    let hops: Vec<u32> = verdict.asked.iter().map(|(_, _, hops)| *hops).collect();
    assert_eq!(hops, [1, 2, 3, 4], "the fourth documenter would be the fifth hop");
    for part in ["hops_max is 4", "OARLOCK_HOPS_MAX", "orchestrator to documenter (t4 #1)", "5 hops"] {
        assert!(verdict.failure.message.contains(part), "{}", verdict.failure);
    }
}

/// A plan whose tasks are the planner's own: they are answered in prose, once each, and nothing plans again.
#[tokio::test(flavor = "multi_thread")]
async fn a_planner_that_plans_itself_plans_once() {
    for kill in [false, true] {
        let server = TestServer::start().await;
        let mut plan = plan_rule(&[(Role::Planner, &[]), (Role::Planner, &[1]), (Role::Planner, &[2])]);
        plan["match"]["user_contains"] = "Make a plan for this goal".into();
        let again = json!({ "tasks": [{ "id": "t1", "role": "planner", "description": "plan it", "depends_on": [] }] });
        let prose = text_rule(Role::Planner, LATENCY_MS, &again.to_string());
        let story = script(&[plan, prose, text_rule(Role::Synthesizer, 0, "It is planned.")]);
        let mut orchestrators = cast(&server, &story, &[Role::Orchestrator]).await;
        let _workers = cast(&server, &story, &[Role::Planner, Role::Synthesizer]).await;
        let events = Ear::on(&server, "oarlock.event.>").await;
        let run = submit(&server, "make it").await;
        if kill {
            events.event(EventKind::Started, Some(Role::Planner), 3).await;
            orchestrators.remove(0).kill_9();
            orchestrators = cast(&server, &story, &[Role::Orchestrator]).await;
        }
        assert_eq!(ended(&server, &run).await.status, RunStatus::Completed, "{:?}", result(&server, &run).await);
        let asked: Vec<String> = asked(&server, &run).await.into_iter().map(|(task, ..)| task).collect();
        assert_eq!(asked, ["plan", "t1", "t2", "t3", "answer"]);
        assert_eq!(server.store.runs.plan(&run, 1).await.unwrap().unwrap().tasks.len(), 3);
        server.assert_nothing_left().await;
        drop(orchestrators);
    }
}
