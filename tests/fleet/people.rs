//! People steer runs, from any terminal and after any restart: gates that wait without a process, answers that count once,
//! deadlines, pauses, notes.

use std::time::Duration;

use oarlock::wire::{EventKind, FailureKind, Role, RunId, RunRecord, RunStatus, Said, TaskId};
use serde_json::{Value, json};

use crate::cancel::control;
use crate::harness::{Ended, Reply, TestServer, Worker, ended, oarlock, until};
use crate::story::{
    Ear, SLOW_CAST, assert_one_of_everything, cast, findings, json_rule, plan_rule, record, result, script, slow_story,
    text_rule,
};

/// A fleet of a small story.
pub async fn fleet() -> (TestServer, Vec<Worker>) {
    let server = TestServer::start().await;
    let workers = cast(&server, &slow_story(0), &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await;
    (server, workers)
}

pub async fn submit(server: &TestServer, gates: Value) -> RunId {
    let goal = json!({ "goal": "make it", "gates": gates }).to_string();
    let answer = server.request("oarlock.submit", goal).await;
    assert_eq!(answer.error_code(), "", "{}", answer.text());
    serde_json::from_str::<Value>(&answer.text()).unwrap()["run"].as_str().unwrap().parse().unwrap()
}

/// Waits until nobody holds the run, because it waits for a person.
pub async fn parked(server: &TestServer, run: &RunId) -> RunRecord {
    let waits = |record: &RunRecord| record.status == RunStatus::InputRequired && record.owner.is_none();
    until("the run to be parked", async || waits(&record(server, run).await)).await;
    record(server, run).await
}

pub async fn over(server: &TestServer, run: &RunId) -> RunStatus {
    crate::story::ended(server, run).await.status
}

/// One person's word: verb, item and name.
pub async fn says(server: &TestServer, verb: &str, run: &RunId, item: &str, by: &str) -> Reply {
    control(server, verb, json!({ "run": run, "item": item, "by": by, "reason": format!("{by} wants it shorter") }))
        .await
}

pub fn status(answer: &Reply) -> String {
    let text = answer.text();
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    value["status"].as_str().unwrap_or_default().to_owned()
}

pub async fn tool(server: &TestServer, arguments: &[&str]) -> Ended {
    let mut command = oarlock(server);
    command.args(["--server", server.url()]).args(arguments);
    ended(command, b"").await
}

async fn messages(server: &TestServer, stream: &str) -> u64 {
    server.bus.js.get_stream(stream).await.unwrap().cached_info().state.messages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_waits_for_a_person_and_nothing_is_begun_before() {
    let (server, _fleet) = fleet().await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, json!({ "approve": "plan" })).await;
    parked(&server, &run).await;
    let started: Vec<_> = events.events(EventKind::Started).into_iter().filter_map(|(_, event)| event.role).collect();
    assert_eq!(started, [Role::Planner]);
    assert!(events.events(EventKind::Waiting)[0].1.text.contains("planx1"));

    let inbox = tool(&server, &["inbox"]).await;
    assert!(inbox.out.contains(&format!("{run}/planx1")) && inbox.out.contains("part 1"), "{inbox:?}");
    let shown = tool(&server, &["show", run.as_str()]).await;
    assert!(shown.out.contains("input_required") && shown.out.contains("oarlock approve"), "{shown:?}");
    for (item, code, says_it) in [("t1x1", "404", "planx1"), ("planx2", "404", "no item planx2")] {
        let answer = says(&server, "approve", &run, item, "ann").await;
        assert!(answer.error_code() == code && answer.text().contains(says_it), "{}", answer.text());
    }
    let approved = tool(&server, &["approve", run.as_str(), "--as", "ann"]).await;
    assert!(approved.code == Some(0) && approved.err.contains("planx1 is approved"), "{approved:?}");
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
    assert_one_of_everything(&server, &run).await;
    let late = tool(&server, &["reject", run.as_str(), "--reason", "no"]).await;
    assert!(late.code == Some(5) && late.err.contains("is over"), "{late:?}");
    let history = tool(&server, &["history", run.as_str()]).await;
    assert!(history.out.lines().any(|line| line.contains("ann") && line.contains("approve")), "{history:?}");
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_plan_is_made_anew_with_the_reason() {
    let server = TestServer::start().await;
    let mut first = plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]);
    first["match"]["attempt"] = 1.into();
    // The second plan comes only to a prompt that tells why the first was not good enough.
    let mut second = plan_rule(&[(Role::Researcher, &[])]);
    second["match"]["user_contains"] = "ann rejected it: ann wants it shorter".into();
    let story = script(&[
        first,
        second,
        json_rule(Role::Researcher, 0, &findings()),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ]);
    let _fleet = cast(&server, &story, &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await;
    let run = submit(&server, json!({ "approve": "plan" })).await;
    parked(&server, &run).await;
    assert_eq!(status(&says(&server, "reject", &run, "planx1", "ann").await), "rejected");
    until("the second plan to wait", async || {
        server.view(run.as_str()).await.waiting.iter().any(|item| item.item.as_str() == "planx2")
    })
    .await;
    let old = says(&server, "approve", &run, "planx1", "bob").await;
    assert!(old.error_code() == "409" && old.text().contains("rejected by ann"), "{}", old.text());
    assert_eq!(status(&says(&server, "approve", &run, "planx2", "bob").await), "approved");
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
    assert_eq!(server.store.runs.plan(&run, 1).await.unwrap().unwrap().tasks.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_decide_and_each_has_one_vote() {
    let (server, _fleet) = fleet().await;
    let run = submit(&server, json!({ "approve": "plan", "quorum": 2 })).await;
    parked(&server, &run).await;
    assert_eq!(status(&says(&server, "approve", &run, "planx1", "ann").await), "counted");
    assert_eq!(status(&says(&server, "approve", &run, "planx1", "ann").await), "counted", "twice is once");
    let other = says(&server, "reject", &run, "planx1", "ann").await;
    assert!(other.error_code() == "409" && other.text().contains("not changed"), "{}", other.text());
    assert_eq!(status(&says(&server, "reject", &run, "planx1", "bob").await), "counted");
    parked(&server, &run).await;
    assert_eq!(status(&says(&server, "approve", &run, "planx1", "cat").await), "approved");
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
    assert_one_of_everything(&server, &run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_have_one_winner_and_both_are_told() {
    let (server, _fleet) = fleet().await;
    for _ in 0..5 {
        let run = submit(&server, json!({ "approve": "plan" })).await;
        parked(&server, &run).await;
        let (yes, no) = tokio::join!(
            says(&server, "approve", &run, "planx1", "ann"),
            says(&server, "reject", &run, "planx1", "bob")
        );
        let won = [&yes, &no].map(|answer| answer.error_code().is_empty());
        assert!(won == [true, false] || won == [false, true], "{} and {}", yes.text(), no.text());
        let loser = if won[0] { &no } else { &yes };
        assert_eq!(loser.error_code(), "409");
        assert!(loser.text().contains("that stands") || loser.text().contains("is over"), "{}", loser.text());
        if won[0] {
            assert_eq!(over(&server, &run).await, RunStatus::Completed);
        } else {
            let canceled = control(&server, "cancel", json!(run.as_str())).await;
            assert_eq!(canceled.error_code(), "", "{}", canceled.text());
            assert_eq!(over(&server, &run).await, RunStatus::Canceled);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_stands_for_who_does_not_answer() {
    let (server, _fleet) = fleet().await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, json!({ "approve": "plan", "within_s": 2 })).await;
    assert_eq!(over(&server, &run).await, RunStatus::Failed);
    let failure = result(&server, &run).await.failure().cloned().unwrap();
    assert_eq!(failure.kind, FailureKind::Unanswered);
    assert!(failure.message.contains("within 2 s"), "{failure}");
    assert_eq!(events.events(EventKind::Escalated).len(), 1);
    let approved = submit(&server, json!({ "approve": "plan", "within_s": 1, "default": "approve" })).await;
    assert_eq!(over(&server, &approved).await, RunStatus::Completed);
    // A new generation asks again.
    let again = control(&server, "retry", json!(run.as_str())).await;
    assert_eq!(again.error_code(), "", "{}", again.text());
    until("the plan to wait again", async || {
        let waiting = server.view(run.as_str()).await.waiting;
        waiting.iter().any(|item| item.item.as_str() == "planx2")
    })
    .await;
    assert_eq!(status(&says(&server, "approve", &run, "planx2", "ann").await), "approved");
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
    server.assert_nothing_left().await;
}

/// The name of what the clock says is taken, and what stands there cannot be read: the time is over all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_stands_whose_mark_is_damaged() {
    let (server, _fleet) = fleet().await;
    let run = submit(&server, json!({ "approve": "plan", "within_s": 3 })).await;
    parked(&server, &run).await;
    let runs = server.bus.js.get_key_value(server.bus.root.runs_bucket()).await.unwrap();
    for mark in ["escalated", "lapse"] {
        runs.put(format!("{run}.in.planx1.{mark}"), "damaged".into()).await.unwrap();
    }
    assert_eq!(over(&server, &run).await, RunStatus::Failed);
    assert_eq!(result(&server, &run).await.failure().map(|failure| failure.kind), Some(FailureKind::Unanswered));
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_a_week_costs_one_message_on_the_schedule() {
    let (server, _fleet) = fleet().await;
    let tasks = Ear::on(&server, "oarlock.task.>").await;
    let run = submit(&server, json!({ "approve": "plan", "within_s": 7 * 24 * 3600 })).await;
    let waits = parked(&server, &run).await;
    server.assert_nothing_left().await;
    let before = (tasks.all().len(), server.store.runs.record(&run).await.unwrap().unwrap().revision);
    let (asked_before, api) = (server.store.runs.history(&run).await.unwrap().len(), Ear::on(&server, "$KV.>").await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let root = &server.bus.root;
    assert_eq!((messages(&server, &root.tasks_stream()).await, messages(&server, &root.later_stream()).await), (0, 1));
    let scheduled = server.bus.scan(&root.later_stream(), &root.alarms_of(&run)).await.unwrap();
    assert_eq!(scheduled.len(), 1, "{scheduled:?}");
    let now = server.store.runs.record(&run).await.unwrap().unwrap();
    assert_eq!((tasks.all().len(), now.revision), before);
    assert_eq!((now.record, server.store.runs.history(&run).await.unwrap().len()), (waits, asked_before));
    assert!(api.all().is_empty(), "somebody wrote: {:?}", api.all());
    let canceled = tool(&server, &["cancel", run.as_str()]).await;
    assert_eq!(canceled.code, Some(0), "{canceled:?}");
    assert_eq!(over(&server, &run).await, RunStatus::Canceled);
    until("the schedule to be empty", async || messages(&server, &root.later_stream()).await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_begins_nothing_and_goes_on_when_it_is_resumed() {
    let server = TestServer::start().await;
    let story = script(&[
        plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]),
        json_rule(Role::Researcher, 1_500, &findings()),
        text_rule(Role::Documenter, 0, "# It\n\nIt is made."),
        // A note is for what begins after it.
        json!({ "match": { "role": "synthesizer", "user_contains": "say it in French" }, "response": { "content": "It is made." } }),
    ]);
    let _fleet = cast(&server, &story, &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, json!({})).await;
    events.event(EventKind::Started, Some(Role::Researcher), 1).await;
    for _ in 0..2 {
        let paused = tool(&server, &["pause", run.as_str(), "--as", "ann"]).await;
        assert_eq!(paused.code, Some(0), "{paused:?}");
    }
    parked(&server, &run).await;
    assert_eq!(events.events(EventKind::Completed).len(), 2, "what was under way went on");
    let noted = tool(&server, &["note", run.as_str(), "say it in French", "--as", "ann"]).await;
    assert_eq!(noted.code, Some(0), "{noted:?}");
    assert!(events.events(EventKind::Dispatched).iter().all(|(_, event)| event.role != Some(Role::Documenter)));
    let resumed = control(&server, "resume", json!({ "run": run, "by": "bob" })).await;
    assert_eq!(status(&resumed), "resumed");
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
    assert_one_of_everything(&server, &run).await;
    let said: Vec<_> =
        server.store.inputs.of_run(&run, 0).await.unwrap().into_iter().map(|heard| heard.input).collect();
    let words: Vec<_> = said.iter().map(|input| (input.by.as_str(), input.says.name())).collect();
    assert_eq!(words, [("ann", "pause"), ("ann", "note"), ("bob", "resume")]);
    assert!(matches!(&said[1].says, Said::Note { text } if text == "say it in French"));
    let shown = tool(&server, &["show", &format!("{run}/{}", TaskId::answer())]).await;
    assert!(shown.out.contains("Note from ann"), "{shown:?}");
}
