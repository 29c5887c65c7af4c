//! What people say comes through the doors within bounds, and nothing that is stored there locks anybody out.

use oarlock::bus::{Bucket, Point};
use oarlock::wire::{Input, ItemId, Plan, PlanTask, Role, RunId, RunStatus, Said, TaskId, WIRE_VERSION, limits};
use serde_json::{Value, json};

use crate::cancel::control;
use crate::harness::{Reply, TestServer, Worker, until};
use crate::people::{fleet, over, parked, says, status, submit, tool};
use crate::story::{Ear, SLOW_CAST, cast, cast_with, findings, json_rule, plan_rule, record, script, text_rule};

fn value(answer: &Reply) -> Value {
    serde_json::from_str(&answer.text()).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

fn refused(answer: &Reply, code: &str, words: &[&str]) {
    let text = answer.text();
    assert!(answer.error_code() == code && words.iter().all(|word| text.contains(word)), "{code} {words:?}: {text}");
}

/// Puts something under an input's key, as another program may.
pub async fn put_input(server: &TestServer, run: &RunId, key: &str, content: &str) {
    let runs = Bucket::new(&server.bus, server.bus.root.runs_bucket());
    runs.update(Point::Input, &format!("{run}.in.{key}"), content.to_owned(), 0).await.unwrap();
}

async fn inbox(server: &TestServer) -> Value {
    value(&control(server, "inbox", json!({})).await)
}

/// A planner and an orchestrator: enough for what waits before anything is begun.
async fn planners(rules: &[Value]) -> (TestServer, Vec<Worker>) {
    let server = TestServer::start().await;
    let workers = cast(&server, &script(rules), &[Role::Planner, Role::Orchestrator]).await;
    (server, workers)
}

fn plan_of(tasks: usize, role: Role, description: &str) -> Plan {
    let task = |number| PlanTask {
        id: TaskId::planned(number),
        description: description.to_owned(),
        role,
        depends_on: Vec::new(),
    };
    Plan { v: WIRE_VERSION, tasks: (1..=tasks).map(task).collect() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_counts_for_nothing_and_is_told() {
    let (server, _fleet) = fleet().await;
    let mut runs = Vec::new();
    for _ in 0..2 {
        let run = submit(&server, json!({ "approve": "plan" })).await;
        parked(&server, &run).await;
        let newer = json!({ "v": 1, "item": "planx1", "by": "eve", "says": { "kind": "wish", "text": "soon" } });
        put_input(&server, &run, "planx1.aaaa", &newer.to_string()).await;
        put_input(&server, &run, "planx1.bbbb", "no input").await;
        runs.push(run);
    }
    let seen = inbox(&server).await;
    assert_eq!(seen["items"].as_array().unwrap().len(), 2, "{seen}");
    let unreadable = seen["unreadable"].to_string();
    assert!(runs.iter().all(|run| unreadable.contains(run.as_str())) && unreadable.contains("aaaa"), "{seen}");
    let listed = tool(&server, &["inbox"]).await;
    assert!(listed.code == Some(0) && listed.err.contains("cannot be read"), "{listed:?}");
    assert_eq!(status(&says(&server, "approve", &runs[0], "planx1", "ann").await), "approved");
    assert_eq!(over(&server, &runs[0]).await, RunStatus::Completed);
    let canceled = control(&server, "cancel", json!(runs[1].as_str())).await;
    assert_eq!(canceled.error_code(), "", "{}", canceled.text());
    assert_eq!(record(&server, &runs[1]).await.status, RunStatus::Canceled);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_approves_what_nobody_has_seen() {
    let mut first = plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]);
    first["match"]["attempt"] = 1.into();
    let (server, _fleet) = planners(&[first, plan_rule(&[(Role::Coder, &[])])]).await;
    let run = submit(&server, json!({ "approve": "plan" })).await;
    parked(&server, &run).await;
    assert_eq!(status(&says(&server, "reject", &run, "planx1", "bob").await), "rejected");
    until("the second plan to wait", async || {
        server.view(run.as_str()).await.waiting.iter().any(|item| item.item.as_str() == "planx2")
    })
    .await;
    // Ann has read the first plan.
    refused(&control(&server, "approve", json!({ "run": run, "by": "ann" })).await, "409", &["planx2"]);
    refused(&control(&server, "approve", json!(run.as_str())).await, "409", &["planx2"]);
    // What is shown is what will be done: with the tests that the planner forgot.
    let seen = value(&control(&server, "inbox", json!({ "run": run })).await);
    let text = seen["items"][0]["waits"]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("t1 coder: part 1") && text.contains("t2 qa"), "{text}");
    let approved = tool(&server, &["approve", run.as_str(), "--as", "ann"]).await;
    assert!(approved.code == Some(0) && approved.err.contains("planx2 is approved"), "{approved:?}");
    assert!(approved.err.contains("t2 qa"), "the tool says what it approves: {approved:?}");
    assert_eq!(server.store.inputs.of_run(&run, 0).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_locked_out_by_notes() {
    let (server, _fleet) = fleet().await;
    let run = submit(&server, json!({ "approve": "plan" })).await;
    parked(&server, &run).await;
    for number in 0..1_000 {
        let note = Input::new(ItemId::note(), "eve", Said::Note { text: format!("n{number}") });
        server.store.inputs.keep(&run, &note).await.unwrap().unwrap();
    }
    let note = async |text: &str| control(&server, "note", json!({ "run": run, "by": "eve", "text": text })).await;
    refused(&note("one more").await, "413", &["notes_max", "cancel"]);
    assert_eq!(status(&note("n7").await), "noted", "said twice is said once");
    assert_eq!(status(&control(&server, "pause", json!({ "run": run, "by": "ann" })).await), "paused");
    assert_eq!(status(&control(&server, "pause", json!({ "run": run, "by": "ann" })).await), "paused");
    assert_eq!(status(&control(&server, "resume", json!({ "run": run, "by": "ann" })).await), "resumed");
    for _ in 0..2 {
        assert_eq!(status(&says(&server, "approve", &run, "planx1", "ann").await), "approved");
    }
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_differ_do_not_keep_others_from_deciding() {
    let (server, _fleet) = planners(&[plan_rule(&[(Role::Researcher, &[])])]).await;
    let run = submit(&server, json!({ "approve": "plan", "quorum": 2 })).await;
    parked(&server, &run).await;
    let edit = async |number: usize| {
        let plan = plan_of(1, Role::Researcher, &format!("another {number}"));
        control(&server, "edit", json!({ "run": run, "item": "planx1", "by": format!("eve{number}"), "plan": plan }))
            .await
    };
    for number in 0..limits::ITEM_EDITS_MAX {
        assert_eq!(status(&edit(number).await), "counted");
    }
    let bare = json!({ "run": run, "item": "planx1" });
    refused(&control(&server, "approve", bare).await, "400", &["who you are", "quorum"]);
    refused(&edit(limits::ITEM_EDITS_MAX).await, "413", &["item_edits_max", "approve", "cancel"]);
    assert_eq!(status(&edit(0).await), "counted", "said twice is said once");
    assert_eq!(status(&says(&server, "reject", &run, "planx1", "bob").await), "counted");
    assert_eq!(status(&says(&server, "approve", &run, "planx1", "ann").await), "counted");
    assert_eq!(status(&says(&server, "approve", &run, "planx1", "cat").await), "approved");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_edits_leave_every_answer_readable() {
    let (server, _fleet) = fleet().await;
    let run = submit(&server, json!({ "approve": "plan", "quorum": 3 })).await;
    parked(&server, &run).await;
    let edit = async |by: &str, plan: &Plan| {
        control(&server, "edit", json!({ "run": run, "item": "planx1", "by": by, "plan": plan })).await
    };
    let large = |word: char| plan_of(15, Role::Researcher, &word.to_string().repeat(16_000));
    for (by, word) in [("ann", 'a'), ("bob", 'b'), ("cat", 'c'), ("dan", 'd'), ("eve", 'e')] {
        assert_eq!(status(&edit(by, &large(word)).await), "counted");
    }
    let whole = plan_of(17, Role::Researcher, &"x".repeat(16_000));
    refused(&edit("fay", &whole).await, "413", &["edit_bytes_max"]);
    for verb in ["inbox", "status"] {
        let answer = control(&server, verb, json!({ "run": run })).await;
        let text = answer.text();
        assert_eq!(answer.error_code(), "", "{text}");
        assert!(text.len() < 64 * 1024, "{verb} has {} bytes", text.len());
        assert!(["ann", "bob", "cat", "dan", "eve"].iter().all(|by| text.contains(by)), "{verb}: {text}");
    }
    let small = plan_of(1, Role::Researcher, "part one");
    for (by, what) in [("fay", "counted"), ("gus", "counted"), ("hal", "edited")] {
        assert_eq!(status(&edit(by, &small).await), what);
    }
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_keeps_to_the_bounds_of_the_run() {
    let (server, _fleet) = planners(&[plan_rule(&[(Role::Researcher, &[])])]).await;
    let goal = json!({ "goal": "make it", "gates": { "approve": "plan" }, "budget": { "tasks": 2 } }).to_string();
    let run: RunId = value(&server.request("oarlock.submit", goal).await)["run"].as_str().unwrap().parse().unwrap();
    parked(&server, &run).await;
    let edit = async |plan: Plan| control(&server, "edit", json!({ "run": run, "by": "ann", "plan": plan })).await;
    refused(&edit(plan_of(3, Role::Researcher, "look")).await, "400", &["3 tasks", "budget tasks", "2"]);
    // With their tests these are four.
    refused(&edit(plan_of(2, Role::Coder, "make")).await, "400", &["4 tasks", "budget tasks"]);
    assert_eq!(status(&edit(plan_of(2, Role::Researcher, "look")).await), "edited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_comes_whole_or_not_at_all() {
    let (server, _fleet) = planners(&[plan_rule(&[(Role::Researcher, &[])])]).await;
    let run = submit(&server, json!({ "approve": "plan", "quorum": 2 })).await;
    parked(&server, &run).await;
    let reject = async |reason: &str| {
        control(&server, "reject", json!({ "run": run, "item": "planx1", "by": "ann", "reason": reason })).await
    };
    refused(&reject(&"x".repeat(limits::REASON_BYTES_MAX + 1)).await, "413", &["reason_bytes_max"]);
    let long = "because ".repeat(1_500);
    assert_eq!(status(&reject(&long).await), "counted");
    let heard = server.store.inputs.of_run(&run, 0).await.unwrap();
    assert_eq!(heard[0].input.says, Said::Reject { reason: long });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_was_ended_stays_ended() {
    let server = TestServer::start().await;
    let story = script(&[plan_rule(&[(Role::Researcher, &[])])]);
    let _planner = cast(&server, &story, &[Role::Planner]).await;
    // The door sleeps when it has stored its pause, and somebody ends the pause meanwhile.
    let sleeper = [("OARLOCK_STOP_AT", "input:after")];
    let orchestrator = cast_with(&server, &story, &[Role::Orchestrator], &sleeper).await.remove(0);
    let run = submit(&server, json!({ "approve": "plan" })).await;
    parked(&server, &run).await;
    let stopped = || {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", orchestrator.pid())).unwrap();
        status.rsplit(')').next().unwrap().trim().starts_with('T')
    };
    let meanwhile = async {
        until("the door to sleep", async || stopped()).await;
        let resume = Input::new(ItemId::hold(1, 2), "bob", Said::Resume);
        server.store.inputs.keep(&run, &resume).await.unwrap().unwrap();
        orchestrator.signal("CONT");
    };
    let (answer, ()) = tokio::join!(control(&server, "pause", json!({ "run": run, "by": "ann" })), meanwhile);
    assert_eq!(status(&answer), "paused");
    let heard = server.store.inputs.of_run(&run, 0).await.unwrap();
    let words: Vec<_> = heard.iter().map(|heard| (heard.input.by.as_str(), heard.input.says.name())).collect();
    assert_eq!(words, [("ann", "pause"), ("bob", "resume")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_that_came_side_by_side_keep_within_their_bound() {
    let server = TestServer::start().await;
    let story = script(&[
        plan_rule(&[(Role::Researcher, &[])]),
        json_rule(Role::Researcher, 0, &findings()),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ]);
    let _fleet = cast(&server, &story, &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await;
    let tasks = Ear::on(&server, "oarlock.task.>").await;
    let run = submit(&server, json!({ "approve": "plan" })).await;
    parked(&server, &run).await;
    for word in 'a'..='k' {
        let text = word.to_string().repeat(limits::NOTE_BYTES_MAX);
        server.store.inputs.keep(&run, &Input::new(ItemId::note(), "eve", Said::Note { text })).await.unwrap();
    }
    // As JSON each of these takes six bytes.
    let text = "\u{1}".repeat(limits::NOTE_BYTES_MAX);
    server.store.inputs.keep(&run, &Input::new(ItemId::note(), "eve", Said::Note { text })).await.unwrap();
    assert_eq!(status(&says(&server, "approve", &run, "planx1", "ann").await), "approved");
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
    let of_researcher = tasks.payloads(&format!("oarlock.task.researcher.{run}.t1.1"));
    let task: Value = serde_json::from_slice(&of_researcher[0]).unwrap();
    let notes = task["notes"].to_string();
    assert!((48 * 1024..=limits::NOTES_BYTES_MAX + 1_024).contains(&notes.len()), "{} bytes of notes", notes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_many_runs_comes_in_pages() {
    let task = |number: usize| json!({ "id": format!("t{number}"), "role": "researcher", "description": "look ".repeat(600), "depends_on": [] });
    let plan = json!({ "tasks": (1..=10).map(task).collect::<Vec<_>>() });
    let (server, _fleet) = planners(&[json_rule(Role::Planner, 0, &plan)]).await;
    let mut runs = Vec::new();
    for _ in 0..12 {
        runs.push(submit(&server, json!({ "approve": "plan" })).await.to_string());
    }
    runs.sort_unstable();
    for run in &runs {
        parked(&server, &run.parse().unwrap()).await;
    }
    // One that asks nobody is not there.
    submit(&server, json!({})).await;
    let (mut seen, mut pages, mut after) = (Vec::new(), 0, Value::Null);
    loop {
        let answer = control(&server, "inbox", json!({ "after": after })).await;
        assert!(answer.text().len() < 300 * 1024, "a page of {} bytes", answer.text().len());
        let page = value(&answer);
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["run"].as_str().unwrap().to_owned()));
        (pages, after) = (pages + 1, page["after"].clone());
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(seen, runs, "each once");
    assert!(pages > 1 && after.is_null(), "{pages} pages");
    let listed = tool(&server, &["inbox", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!((listed["items"].as_array().unwrap().len(), &listed["more"]), (12, &Value::Bool(false)));
    refused(&control(&server, "inbox", json!({ "after": "no/such/place" })).await, "400", &["after"]);
}
