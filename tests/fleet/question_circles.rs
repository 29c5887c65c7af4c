//! Questions that go in circles: each is stopped by the detector that is for it, with its name, at the message that is
//! expected; and an orchestrator that takes over in the middle, after a kill -9, comes to the same.

use oarlock::wire::{EventKind, FailureKind, Reply, Role, RunStatus};
use serde_json::{Value, json};

use crate::harness::TestServer;
use crate::questions::assert_each_once;
use crate::story::{
    Ear, answer_rule, asking_roles, assert_one_content_each, cast_with, ended, plan_rule, result, script, submit,
    text_rule,
};

/// How long a model takes, in milliseconds: time to kill an orchestrator.
const LATENCY_MS: u64 = 300;

/// Agents that ask, and when the orchestrator is killed: when this role begins for the so-many-th time.
struct Talk {
    rules: Vec<Value>,
    asks: Vec<(Role, &'static str)>,
    kill_at: (Role, usize),
}

/// How it ended: the run's result, and what was asked, in its order.
struct Ended {
    reply: Reply,
    status: RunStatus,
    asked: Vec<String>,
}

impl Talk {
    /// Runs it twice, the second time with the orchestrator killed in the middle; both must come to the same.
    async fn end(&self) -> Ended {
        let (whole, taken_over) = (self.run(false).await, self.run(true).await);
        assert_eq!((&whole.asked, whole.reply.text()), (&taken_over.asked, taken_over.reply.text()));
        whole
    }

    async fn run(&self, kill: bool) -> Ended {
        let server = TestServer::start().await;
        let (story, folder) = (script(&self.rules), asking_roles(&server, &self.asks));
        let roles: Vec<Role> =
            self.asks.iter().map(|(role, _)| *role).chain([Role::Planner, Role::Synthesizer]).collect();
        let mut first = cast_with(&server, &story, &[Role::Orchestrator], &[]).await;
        let _workers = cast_with(&server, &story, &roles, &[("OARLOCK_ROLES", &folder)]).await;
        let events = Ear::on(&server, "oarlock.event.>").await;
        let tasks = Ear::on(&server, "oarlock.task.>").await;
        let run = submit(&server, "make it").await;
        let mut second = Vec::new();
        if kill {
            let (role, number) = self.kill_at;
            events.event(EventKind::Started, Some(role), number).await;
            first.remove(0).kill_9();
            second = cast_with(&server, &story, &[Role::Orchestrator], &[]).await;
        }
        let record = ended(&server, &run).await;
        assert_eq!(record.takeovers, u32::from(kill));
        assert_each_once(&server, &run).await;
        assert_one_content_each(&tasks);
        server.assert_nothing_left().await;
        let history = server.store.runs.history(&run).await.unwrap().into_iter().map(|entry| entry.message);
        let asked = history.map(|message| format!("{} to {} {}", message.from, message.to, message.metadata.task));
        drop((first, second));
        Ended { reply: result(&server, &run).await, status: record.status, asked: asked.collect() }
    }
}

/// A role that asks another one, whatever it is asked.
fn asks(role: Role, to: Role) -> Value {
    let text = format!("What do you need from the {role}?");
    let question = json!({ "question": { "to": to, "text": text }, "answer": null });
    json!({ "match": { "role": role }, "response": { "json": question, "latency_ms": LATENCY_MS } })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_ask_each_other_for_ever_are_a_repeated_pattern() {
    let talk = Talk {
        rules: vec![
            plan_rule(&[(Role::Documenter, &[])]),
            asks(Role::Documenter, Role::Researcher),
            asks(Role::Researcher, Role::Documenter),
        ],
        asks: vec![(Role::Documenter, "researcher"), (Role::Researcher, "documenter")],
        kill_at: (Role::Researcher, 1),
    };
    let end = talk.end().await;
    let failure = end.reply.failure().unwrap();
    assert_eq!((end.status, failure.kind), (RunStatus::Failed, FailureKind::RepeatedPattern), "{failure}");
    let expected = [
        "orchestrator to planner plan",
        "orchestrator to documenter t1",
        "documenter to researcher t1q1",
        "researcher to documenter t1q1q1",
        "documenter to researcher t1q1q1q1",
    ];
    assert_eq!(end.asked, expected, "the fourth question is refused");
    for part in ["period 2", "documenter to researcher (t1q1q1q1 #1)", "researcher to documenter (t1q1q1q1q1 #1)"] {
        assert!(failure.message.contains(part), "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_in_a_ring_are_a_repeated_pattern() {
    let talk = Talk {
        rules: vec![
            plan_rule(&[(Role::Documenter, &[])]),
            asks(Role::Documenter, Role::Researcher),
            asks(Role::Researcher, Role::Reviewer),
            asks(Role::Reviewer, Role::Documenter),
        ],
        asks: vec![(Role::Documenter, "researcher"), (Role::Researcher, "reviewer"), (Role::Reviewer, "documenter")],
        kill_at: (Role::Reviewer, 1),
    };
    let end = talk.end().await;
    let failure = end.reply.failure().unwrap();
    assert_eq!((end.status, failure.kind), (RunStatus::Failed, FailureKind::RepeatedPattern), "{failure}");
    assert_eq!(end.asked.len(), 7, "the sixth question is refused: {:?}", end.asked);
    for part in ["period 3", "documenter to researcher", "researcher to reviewer", "reviewer to documenter"] {
        assert!(failure.message.contains(part), "{failure}");
    }
}

/// The same agent asks the same thing in other numbers, and is never content with the answer.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_asks_the_same_again_and_again_is_a_repeated_pattern() {
    let again = |attempt: u32| {
        let text = format!("What stands in chapter {attempt}?");
        let question = json!({ "question": { "to": "researcher", "text": text }, "answer": null });
        let when = json!({ "role": "documenter", "attempt": attempt });
        json!({ "match": when, "response": { "json": question, "latency_ms": LATENCY_MS } })
    };
    let talk = Talk {
        rules: [plan_rule(&[(Role::Documenter, &[])]), text_rule(Role::Researcher, 0, "Much.")]
            .into_iter()
            .chain((1..5).map(again))
            .collect(),
        asks: vec![(Role::Documenter, "researcher"), (Role::Researcher, "")],
        kill_at: (Role::Documenter, 2),
    };
    let end = talk.end().await;
    let failure = end.reply.failure().unwrap();
    assert_eq!((end.status, failure.kind), (RunStatus::Failed, FailureKind::RepeatedPattern), "{failure}");
    let questions: Vec<&String> = end.asked.iter().filter(|line| line.starts_with("documenter")).collect();
    assert_eq!(questions, ["documenter to researcher t1q1", "documenter to researcher t1q2"]);
}

/// A task that asks about a task that asks about it, round and round: the circle is named when it closes, one of them is told
/// and decides by itself, and the others get their answers.
async fn deadlock(tasks: usize, named: &str) {
    let task = |number: usize| format!("t{number}");
    let next = |number: usize| task(number % tasks + 1);
    let mut rules = vec![plan_rule(&vec![(Role::Documenter, &[][..]); tasks])];
    for number in 1..=tasks {
        let text = format!("What did you write in {}?", next(number));
        let question = json!({ "question": { "to": next(number), "text": text }, "answer": null });
        let when = json!({ "role": "documenter", "task_id": task(number), "attempt": 1 });
        rules.push(json!({ "match": when, "response": { "json": question, "latency_ms": LATENCY_MS } }));
        let seen = if number == 1 { format!("There is no answer: deadlock: {named};") } else { "Answer: words".into() };
        rules.push(answer_rule(Role::Documenter, &task(number), &seen, &json!("# words")));
        rules.push(answer_rule(Role::Documenter, &format!("t{number}q1"), "# words", &json!("words")));
    }
    rules.push(text_rule(Role::Synthesizer, 0, "It is made."));
    let asks = vec![(Role::Documenter, "tasks")];
    let end = Talk { rules, asks, kill_at: (Role::Documenter, tasks) }.end().await;
    assert_eq!(end.status, RunStatus::Completed, "{:?}", end.reply);
    let mut questions: Vec<&str> = end.asked.iter().filter_map(|line| line.strip_prefix("documenter to ")).collect();
    questions.sort_unstable();
    let expected: Vec<String> = (1..=tasks).map(|number| format!("documenter t{number}q1")).collect();
    assert_eq!(questions, expected, "each asked once, the one that was refused too");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tasks_that_wait_for_each_other_are_told_of_the_deadlock() {
    deadlock(2, "t1 → t2 → t1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_tasks_that_wait_in_a_ring_are_told_of_the_deadlock() {
    deadlock(3, "t1 → t2 → t3 → t1").await;
}
