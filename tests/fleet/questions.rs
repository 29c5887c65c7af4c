//! Questions between agents, and to people: who is asked answers, and whoever asked goes on with the answer, also when no
//! process of before is left.

use std::time::Duration;

use oarlock::wire::{
    EventKind, FailureKind, Input, ItemId, ItemKind, MessageType, Outcome, Party, Role, RunId, RunStatus, Said, TaskId,
    limits,
};
use serde_json::{Value, json};

use crate::cancel::control;
use crate::harness::{TestServer, Worker, until};
use crate::people::{over, parked, status, submit, tool};
use crate::people_doors::put_input;
use crate::story::{
    Ear, answer_rule, ask_rule, asking_roles, cast_with, findings, json_rule, plan_rule, result, script, text_rule,
};

const CAST: [Role; 5] = [Role::Planner, Role::Researcher, Role::Documenter, Role::Synthesizer, Role::Orchestrator];

/// Bytes of one of the notes that fill a run's room for what people say.
const LONG_BYTES: usize = 512 * 1024;

async fn fleet(server: &TestServer, rules: &[Value], asks: &[(Role, &str)]) -> Vec<Worker> {
    let roles = asking_roles(server, asks);
    cast_with(server, &script(rules), &CAST, &[("OARLOCK_ROLES", &roles)]).await
}

/// A rule that answers a question in prose, when it is shown `seen`.
fn told_rule(role: Role, task: &str, seen: &str, text: &str) -> Value {
    let mut rule = text_rule(role, 0, text);
    rule["match"]["task_id"] = task.into();
    rule["match"]["user_contains"] = seen.into();
    rule
}

/// What was asked, in its order: from, to, task, attempt.
async fn asked(server: &TestServer, run: &RunId) -> Vec<String> {
    let history = server.store.runs.history(run).await.unwrap().into_iter().map(|entry| entry.message);
    let shown = |message: oarlock::wire::Message| {
        let about = &message.metadata;
        let kind = if message.kind == MessageType::Question { "asks" } else { "tells" };
        format!("{} {kind} {} {}.{}", message.from, message.to, about.task, about.attempt)
    };
    history.map(shown).collect()
}

/// Each message was written once, and each that went to a worker was answered once.
pub async fn assert_each_once(server: &TestServer, run: &RunId) {
    let history = server.store.runs.history(run).await.unwrap().into_iter().map(|entry| entry.message);
    let all: Vec<_> = history.map(|message| (message.to, message.metadata.task, message.metadata.attempt)).collect();
    let mut once = all.clone();
    once.sort_by_key(|(_, task, attempt)| (task.clone(), *attempt));
    once.dedup_by_key(|(_, task, attempt)| (task.clone(), *attempt));
    assert_eq!(once.len(), all.len(), "{all:?}");
    let replies = server.store.results.of_run(run).await.unwrap();
    for (_, task, attempt) in all.iter().filter(|(to, ..)| *to != Party::User) {
        let to_it = replies.iter().filter(|(to, _)| (&to.task, to.attempt) == (task, *attempt)).count();
        assert_eq!(to_it, 1, "replies to {task} #{attempt}");
    }
}

async fn completed(server: &TestServer, run: &RunId) {
    assert_eq!(over(server, run).await, RunStatus::Completed, "{:?}", result(server, run).await);
    assert_each_once(server, run).await;
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_asked_and_its_answer_is_used() {
    let server = TestServer::start().await;
    let rules = [
        plan_rule(&[(Role::Documenter, &[])]),
        ask_rule(Role::Documenter, "t1", 1, "researcher", "Which database?"),
        told_rule(Role::Researcher, "t1q1", "The documenter, who works on a part", "It is sqlite."),
        answer_rule(Role::Documenter, "t1", "Answer: It is sqlite.", &json!("# It uses sqlite")),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ];
    let _fleet = fleet(&server, &rules, &[(Role::Documenter, "researcher")]).await;
    let run = submit(&server, json!({})).await;
    completed(&server, &run).await;
    let expected = [
        "orchestrator tells planner plan.1",
        "orchestrator tells documenter t1.1",
        "documenter asks researcher t1q1.1",
        "orchestrator tells documenter t1.2",
        "orchestrator tells synthesizer answer.2",
    ];
    assert_eq!(asked(&server, &run).await, expected);
    let history = tool(&server, &["history", run.as_str()]).await;
    let columns: Vec<Vec<&str>> = history.out.lines().map(|line| line.split_whitespace().collect()).collect();
    for [from, to, kind] in [["documenter", "researcher", "question"], ["researcher", "documenter", "response"]] {
        let is_it = |row: &Vec<&str>| row.get(1..6) == Some(&[from, "→", to, kind, "t1q1"][..]);
        assert!(columns.iter().any(is_it), "{history:?}");
    }
    let shown = tool(&server, &["show", run.as_str()]).await;
    assert!(shown.out.contains("t1q1"), "{shown:?}");
    let task = tool(&server, &["show", &format!("{run}/t1q1")]).await;
    assert!(task.out.contains("prompt, as it was sent") && task.out.contains("<question>"), "{task:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_asked_when_it_is_done() {
    let server = TestServer::start().await;
    let mut slow = json_rule(Role::Researcher, 600, &findings());
    slow["match"]["task_id"] = "t2".into();
    let mut question = ask_rule(Role::Documenter, "t1", 1, "t2", "What did you find?");
    question["match"]["user_contains"] = "The other tasks are:\n- t2 (researcher): part 2".into();
    let rules = [
        plan_rule(&[(Role::Documenter, &[]), (Role::Researcher, &[])]),
        question,
        slow,
        told_rule(Role::Researcher, "t1q1", "it is known", "That it is known."),
        answer_rule(Role::Documenter, "t1", "You asked t2: What did you find?", &json!("# It is known")),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ];
    let _fleet = fleet(&server, &rules, &[(Role::Documenter, "tasks")]).await;
    let run = submit(&server, json!({})).await;
    completed(&server, &run).await;
}

/// A planner that asks the user, as the built-in one may, and plans with the answer.
pub fn asking_planner() -> [Value; 3] {
    let mut plan = plan_rule(&[(Role::Researcher, &[])]);
    let tasks = plan["response"]["json"].take();
    [
        ask_rule(Role::Planner, "plan", 1, "user", "For which city?"),
        answer_rule(Role::Planner, "plan", "Answer of ann: Ghent, please", &tasks),
        json_rule(Role::Researcher, 0, &findings()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_answers_after_all_processes_were_killed() {
    let server = TestServer::start().await;
    let rules = [&asking_planner()[..], &[text_rule(Role::Synthesizer, 300, "It is Ghent.")]].concat();
    let first = cast_with(&server, &script(&rules), &CAST, &[]).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, json!({ "ask": true })).await;
    parked(&server, &run).await;
    first.into_iter().for_each(Worker::kill_9);
    let _second = cast_with(&server, &script(&rules), &CAST, &[]).await;

    let inbox = tool(&server, &["inbox"]).await;
    assert!(inbox.out.contains(&format!("{run}/planx1")) && inbox.out.contains("For which city?"), "{inbox:?}");
    let shown = tool(&server, &["show", run.as_str()]).await;
    assert!(shown.out.contains(&format!("oarlock answer {run}/planx1")), "{shown:?}");
    assert!(events.events(EventKind::Waiting)[0].1.text.contains("oarlock answer"));
    let named = format!("{run}/planx1");
    for (arguments, code, says) in [
        (["answer", &format!("{run}/t7x1"), "Ghent"], 3, "no question t7x1"),
        (["answer", named.as_str(), "  "], 2, "empty"),
        (["answer", "nosuchrun", "Ghent"], 3, "no run"),
        (["approve", named.as_str(), "--as=ann"], 2, "is a question"),
        (["reject", named.as_str(), "--reason=no"], 2, "is a question"),
    ] {
        let refused = tool(&server, &arguments).await;
        assert!(refused.code == Some(code) && refused.err.contains(says), "{arguments:?}: {refused:?}");
    }
    let answered = tool(&server, &["answer", run.as_str(), "Ghent, please", "--as", "ann"]).await;
    assert!(answered.code == Some(0) && answered.err.contains("planx1 is answered"), "{answered:?}");
    let again = tool(&server, &["answer", &named, "Ghent, please", "--as", "ann"]).await;
    assert!(again.code == Some(0) || again.err.contains("is over"), "{again:?}");
    for who in ["ann", "bob"] {
        let other = tool(&server, &["answer", &named, "Bruges", "--as", who]).await;
        assert!(other.code == Some(5), "{other:?}");
        assert!(other.err.contains("answered by ann already") || other.err.contains("is over"), "{other:?}");
    }
    completed(&server, &run).await;
    let late = tool(&server, &["answer", &named, "Bruges"]).await;
    assert!(late.code == Some(5) && late.err.contains("is over"), "{late:?}");
    for what in [named.as_str(), run.as_str()] {
        let again = tool(&server, &["answer", what, "Ghent, please", "--as", "ann"]).await;
        assert!(again.code == Some(0) && again.err.contains("planx1 is answered"), "{again:?}");
    }
    let history = tool(&server, &["history", run.as_str()]).await;
    assert!(history.out.lines().any(|line| line.contains("ann") && line.contains("Ghent, please")), "{history:?}");
    let to_user = server.store.runs.history(&run).await.unwrap().into_iter().map(|entry| entry.message);
    let to_user: Vec<_> = to_user.filter(|message| message.to == Party::User).collect();
    assert!(to_user.len() == 1 && to_user[0].content == "For which city?", "{to_user:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers_what_nobody_has_seen_and_whoever_is_not_heard_is_told() {
    let server = TestServer::start().await;
    let rules = [
        ask_rule(Role::Planner, "plan", 1, "user", "For which city?"),
        ask_rule(Role::Planner, "plan", 2, "user", "For which year?"),
    ];
    let _fleet = cast_with(&server, &script(&rules), &[Role::Planner, Role::Orchestrator], &[]).await;
    let run = submit(&server, json!({ "ask": true })).await;
    parked(&server, &run).await;
    let say = async |item: Option<&str>, by: &str, text: &str| {
        let answer = control(&server, "answer", json!({ "run": run, "item": item, "by": by, "text": text })).await;
        (answer.error_code(), answer.text())
    };
    assert_eq!(say(None, "ann", "Ghent").await.0, "");
    until("the second question", async || {
        server.view(run.as_str()).await.waiting.iter().any(|item| item.item.as_str() == "planx2")
    })
    .await;
    // Bob has read the first question.
    let (code, text) = say(None, "bob", "Bruges").await;
    assert!(code == "409" && text.contains(&format!("{run}/planx2")), "{text}");

    let bob = Input::new("planx2".parse().unwrap(), "bob", Said::Answer { text: "2020".into() });
    put_input(&server, &run, &format!("planx2.{}", bob.voter()), "no input").await;
    let (code, text) = say(Some("planx2"), "bob", "2020").await;
    assert!(code == "409" && text.contains("this version cannot read"), "{text}");

    for number in 0..=limits::INPUTS_BYTES_MAX / LONG_BYTES {
        let note = Said::Note { text: format!("{number} {}", "x".repeat(LONG_BYTES)) };
        server.store.inputs.keep(&run, &Input::new(ItemId::note(), "eve", note)).await.unwrap().unwrap();
    }
    let (code, text) = say(Some("planx2"), "cat", &"long ".repeat(400)).await;
    assert!(code == "413" && text.contains("inputs_bytes_max"), "{text}");
    let answered = tool(&server, &["answer", run.as_str(), "2021", "--as", "cat"]).await;
    assert!(answered.code == Some(0) && answered.err.contains("planx2 is answered"), "{answered:?}");
    assert!(answered.err.contains("For which year?"), "the tool says what it answers: {answered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_answers_at_once_have_one_winner() {
    let server = TestServer::start().await;
    let mut plan = plan_rule(&[(Role::Researcher, &[])]);
    let tasks = plan["response"]["json"].take();
    let rules = [
        ask_rule(Role::Planner, "plan", 1, "user", "For which city?"),
        answer_rule(Role::Planner, "plan", "Answer of", &tasks),
        json_rule(Role::Researcher, 0, &findings()),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ];
    let _fleet = cast_with(&server, &script(&rules), &CAST, &[]).await;
    for _ in 0..5 {
        let run = submit(&server, json!({ "ask": true })).await;
        parked(&server, &run).await;
        let say = |by: &'static str, text: &'static str| {
            control(&server, "answer", json!({ "run": run, "by": by, "text": text }))
        };
        let (one, other) = tokio::join!(say("ann", "Ghent"), say("bob", "Bruges"));
        let won = [&one, &other].map(|answer| answer.error_code().is_empty());
        assert!(won == [true, false] || won == [false, true], "{} and {}", one.text(), other.text());
        let (winner, loser) = if won[0] { (&one, &other) } else { (&other, &one) };
        assert!(status(winner) == "answered" && loser.error_code() == "409", "{}", loser.text());
        assert_eq!(over(&server, &run).await, RunStatus::Completed);
        let told = tool(&server, &["show", &format!("{run}/plan")]).await;
        let word = if won[0] { "Answer of ann: Ghent" } else { "Answer of bob: Bruges" };
        assert!(told.out.contains(word), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_has_a_deadline_and_its_default_stands() {
    let server = TestServer::start().await;
    let mut plan = plan_rule(&[(Role::Researcher, &[])]);
    let tasks = plan["response"]["json"].take();
    let rules = [
        ask_rule(Role::Planner, "plan", 1, "user", "For which city?"),
        answer_rule(Role::Planner, "plan", "nobody answered in time", &tasks),
        answer_rule(Role::Planner, "plan", "Answer of ann", &tasks),
        ask_rule(Role::Planner, "plan", 2, "user", "For which city, then?"),
        json_rule(Role::Researcher, 0, &findings()),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ];
    let _fleet = cast_with(&server, &script(&rules), &CAST, &[]).await;
    let ends = submit(&server, json!({ "ask": true, "within_s": 3 })).await;
    let goes_on = submit(&server, json!({ "ask": true, "within_s": 1, "default": "approve" })).await;
    assert_eq!(over(&server, &ends).await, RunStatus::Failed);
    let failure = result(&server, &ends).await.failure().cloned().unwrap();
    assert!(failure.kind == FailureKind::Unanswered && failure.message.contains("planx1"), "{failure}");
    assert_eq!(over(&server, &goes_on).await, RunStatus::Completed, "{:?}", result(&server, &goes_on).await);
    // A new generation may ask again.
    let again = control(&server, "retry", json!(ends.as_str())).await;
    assert_eq!(again.error_code(), "", "{}", again.text());
    until("the second question", async || {
        let waiting = server.view(ends.as_str()).await.waiting;
        waiting.iter().any(|item| item.item.as_str() == "planx2" && item.kind == ItemKind::Question)
    })
    .await;
    let answer = json!({ "run": ends, "item": "planx2", "by": "ann", "text": "Ghent" });
    assert_eq!(status(&control(&server, "answer", answer).await), "answered");
    assert_eq!(over(&server, &ends).await, RunStatus::Completed, "{:?}", result(&server, &ends).await);
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_asked_is_named_and_the_task_goes_on() {
    let server = TestServer::start().await;
    // A worker of anybody's may ask whom it likes; the built-in ones are told before.
    let rules = [
        plan_rule(&[(Role::Documenter, &[])]),
        ask_rule(Role::Documenter, "t1", 1, "t9", "Which database?"),
        answer_rule(Role::Documenter, "t1", "this was not asked: the plan has no task t9", &json!("# It has none")),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ];
    let _fleet = fleet(&server, &rules, &[(Role::Documenter, "tasks, user")]).await;
    let run = submit(&server, json!({})).await;
    completed(&server, &run).await;
    let id: TaskId = "t1q1".parse().unwrap();
    let all = server.store.results.of_run(&run).await.unwrap();
    let refused = all.into_iter().map(|(_, reply)| reply).find(|reply| reply.task == id).unwrap();
    let Outcome::Failed { failure } = refused.outcome else { panic!("{refused:?}") };
    assert_eq!(failure.kind, FailureKind::InvalidInput);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_question_has_no_answer_and_its_task_goes_on() {
    let server = TestServer::start().await;
    let mut endless = text_rule(Role::Researcher, 60_000, "At last.");
    endless["match"]["task_id"] = "t1q1".into();
    let rules = [
        plan_rule(&[(Role::Documenter, &[])]),
        ask_rule(Role::Documenter, "t1", 1, "researcher", "Which database?"),
        endless,
        answer_rule(Role::Documenter, "t1", "There is no answer: too slow", &json!("# It has none")),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ];
    let _fleet = fleet(&server, &rules, &[(Role::Documenter, "researcher")]).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, json!({})).await;
    events.event(EventKind::Started, Some(Role::Researcher), 1).await;
    let canceled = control(&server, "cancel", json!({ "run": run, "task": "t1q1", "reason": "too slow" })).await;
    assert_eq!(canceled.error_code(), "", "{}", canceled.text());
    completed(&server, &run).await;
}

/// Whoever may ask nobody is asked as ever, and hears nothing of questions.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_hears_of_questions_in_a_run_that_nobody_attends() {
    let server = TestServer::start().await;
    let rules = [
        plan_rule(&[(Role::Researcher, &[])]),
        json_rule(Role::Researcher, 0, &findings()),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ];
    let _fleet = cast_with(&server, &script(&rules), &CAST, &[]).await;
    let run = submit(&server, json!({})).await;
    completed(&server, &run).await;
    let plan = tool(&server, &["show", &format!("{run}/plan")]).await;
    assert!(plan.out.contains("as it was sent") && !plan.out.contains("question"), "{plan:?}");
    until("the run to be over for good", async || server.store.inputs.of_run(&run, 0).await.unwrap().is_empty()).await;
    tokio::time::timeout(Duration::from_secs(10), over(&server, &run)).await.unwrap();
}
