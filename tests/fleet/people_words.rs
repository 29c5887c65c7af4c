//! What people cannot say, and when they say it: bad words are refused with a reason and nothing is lost, and an answer at any
//! moment of parking is heard.

use std::time::Duration;

use futures::future::join_all;
use oarlock::wire::{Plan, Report, Role, RunStatus, limits};
use serde_json::json;

use crate::cancel::control;
use crate::harness::until;
use crate::people::{fleet, over, parked, says, status, submit, tool};
use crate::story::{assert_one_of_everything, cast, slow_story};

#[tokio::test(flavor = "multi_thread")]
async fn two_who_reject_outvote_one_who_approves() {
    let (server, _fleet) = fleet().await;
    let run = submit(&server, json!({ "approve": "plan", "quorum": 2 })).await;
    parked(&server, &run).await;
    for (verb, by, stands) in
        [("approve", "ann", "counted"), ("reject", "bob", "counted"), ("reject", "cat", "rejected")]
    {
        assert_eq!(status(&says(&server, verb, &run, "planx1", by).await), stands, "{by}");
    }
    until("the next plan to wait", async || {
        server.view(run.as_str()).await.waiting.iter().any(|item| item.item.as_str() == "planx2")
    })
    .await;
    // Both reasons are told, and the votes of the first plan do not count for the second.
    let shown = tool(&server, &["show", &format!("{run}/plan"), "--attempt", "2"]).await;
    assert!(shown.out.contains("bob wants it shorter") && shown.out.contains("cat wants it shorter"), "{shown:?}");
    let late = says(&server, "approve", &run, "planx1", "dan").await;
    assert!(late.error_code() == "409" && late.text().contains("waiting now: planx2"), "{}", late.text());
    assert_eq!(status(&says(&server, "approve", &run, "planx2", "ann").await), "counted");
    assert_eq!(status(&says(&server, "approve", &run, "planx2", "dan").await), "approved");
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_said_is_refused_and_the_run_waits_on() {
    let (server, _fleet) = fleet().await;
    let run = submit(&server, json!({ "approve": "plan", "quorum": 16 })).await;
    parked(&server, &run).await;
    let reply = server.store.results.of_run(&run).await.unwrap().remove(0).1;
    let Some(Report::Plan(plan)) = reply.report().cloned() else { panic!("{reply:?}") };
    let with = |description: String| {
        let mut other = plan.clone();
        other.tasks[0].description = description;
        other
    };
    let large = (1..=60).map(|number| {
        let mut task = plan.tasks[0].clone();
        (task.id, task.description) = (oarlock::wire::TaskId::planned(number), "x".repeat(15_000));
        task
    });
    let large = Plan { tasks: large.collect(), ..plan.clone() };
    let long = "x".repeat(limits::NOTE_BYTES_MAX);
    for verb in ["inbox", "approve", "reject", "edit", "note", "pause", "resume"] {
        let answer = control(&server, verb, json!({ "run": "nobody", "text": "x", "plan": plan })).await;
        assert_eq!(answer.error_code(), "404", "{verb}: {}", answer.text());
    }
    for (verb, words, code, says_it) in [
        ("note", json!({}), "400", "the note is empty"),
        ("note", json!({ "text": format!("{long}x") }), "413", "note_bytes_max"),
        ("edit", json!({}), "400", "an edit needs a plan"),
        ("edit", json!({ "plan": large }), "413", "edit_bytes_max"),
        ("edit", json!({ "plan": with(String::new()) }), "400", "has no description"),
        ("approve", json!({ "item": "planx7" }), "404", "no item planx7"),
    ] {
        let mut asked = words;
        (asked["run"], asked["by"]) = (json!(run), json!("eve"));
        let answer = control(&server, verb, asked).await;
        let fits = answer.error_code() == code && answer.text().contains(says_it);
        assert!(fits, "{verb}, {code} {says_it}: {} {}", answer.error_code(), answer.text());
    }
    assert!(server.store.inputs.of_run(&run, 0).await.unwrap().is_empty(), "nothing of that is kept");
    for (number, code) in [(0, ""), (1, ""), (2, ""), (3, ""), (4, "413")] {
        let text = format!("{number}{}", &long[1..]);
        let answer = control(&server, "note", json!({ "run": run, "text": text })).await;
        assert_eq!(answer.error_code(), code, "{number}: {}", answer.text());
    }
    // Votes that never agree do not fill the store, and leave room for those that decide.
    let mut voters = (0..).map(|number| format!("voter{number}"));
    for by in voters.by_ref().take(limits::ITEM_EDITS_MAX) {
        let plan = with(format!("as {by} wants it"));
        let answer = control(&server, "edit", json!({ "run": run, "by": by, "plan": plan })).await;
        assert_eq!(status(&answer), "counted");
    }
    let one_more = json!({ "run": run, "by": "ann", "plan": with("as ann wants it".into()) });
    let full = control(&server, "edit", one_more).await;
    assert!(full.error_code() == "413" && full.text().contains("item_edits_max"), "{}", full.text());
    assert_eq!(status(&says(&server, "approve", &run, "planx1", "ann").await), "counted");
    parked(&server, &run).await;
    assert_eq!(control(&server, "cancel", json!(run.as_str())).await.error_code(), "");
}

/// Whoever parks a run and whoever answers see each other, at whatever moment: a wake that is lost would leave the run to its
/// alarm, days from now.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_at_any_moment_of_parking_is_heard() {
    const RUNS: u64 = 40;
    let (server, _fleet) = fleet().await;
    let _second = cast(&server, &slow_story(0), &[Role::Orchestrator]).await;
    let one = async |number: u64| {
        let run = submit(&server, json!({ "approve": "plan" })).await;
        until("the plan to wait", async || !server.view(run.as_str()).await.waiting.is_empty()).await;
        tokio::time::sleep(Duration::from_millis(number % 20)).await;
        if number.is_multiple_of(3) {
            let (paused, resumed) = tokio::join!(
                control(&server, "pause", json!(run.as_str())),
                control(&server, "resume", json!(run.as_str()))
            );
            assert_eq!((paused.error_code(), resumed.error_code()), (String::new(), String::new()));
        }
        assert_eq!(status(&says(&server, "approve", &run, "planx1", "ann").await), "approved");
        assert_eq!(control(&server, "resume", json!(run.as_str())).await.error_code().replace("409", ""), "");
        assert_eq!(over(&server, &run).await, RunStatus::Completed);
        run
    };
    for run in join_all((0..RUNS).map(one)).await {
        assert_one_of_everything(&server, &run).await;
    }
    server.assert_nothing_left().await;
}

/// What was never decided waits anew, for its whole time, when the run is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_retried_run_waits_for_its_whole_time_again() {
    const WITHIN_S: u64 = 4;
    let (server, _fleet) = fleet().await;
    let run = submit(&server, json!({ "approve": "all", "within_s": WITHIN_S })).await;
    let waits = async |item: &str| {
        until(&format!("{item} to wait"), async || {
            server.view(run.as_str()).await.waiting.iter().any(|one| one.item.as_str() == item)
        })
        .await;
    };
    waits("planx1").await;
    assert_eq!(status(&says(&server, "approve", &run, "planx1", "ann").await), "approved");
    waits("t1x1").await;
    assert_eq!(control(&server, "cancel", json!(run.as_str())).await.error_code(), "");
    assert_eq!(over(&server, &run).await, RunStatus::Canceled);
    // Longer than the item may wait.
    tokio::time::sleep(Duration::from_secs(WITHIN_S + 1)).await;
    let again = control(&server, "retry", json!(run.as_str())).await;
    assert_eq!(again.error_code(), "", "{}", again.text());
    for item in ["t1x1", "t2x1"] {
        waits(item).await;
        assert_eq!(status(&says(&server, "approve", &run, item, "ann").await), "approved");
    }
    until("the answer to be waited for", async || !server.view(run.as_str()).await.waiting.is_empty()).await;
    // Nobody approves the answer, and the next generation makes it again.
    assert_eq!(over(&server, &run).await, RunStatus::Failed);
    let again = control(&server, "retry", json!(run.as_str())).await;
    assert_eq!(again.error_code(), "", "{}", again.text());
    until("the next answer to be waited for", async || !server.view(run.as_str()).await.waiting.is_empty()).await;
    let next = server.view(run.as_str()).await.waiting.remove(0).item;
    assert_eq!(status(&says(&server, "approve", &run, next.as_str(), "ann").await), "approved");
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
}
