//! `oarlock run` asks in place what waits for a person: on a real terminal, with what is typed when; and without one it says
//! how to answer.

use std::process::Stdio;

use oarlock::wire::{EventKind, Role, RunId, RunStatus};
use serde_json::json;

use crate::harness::{TestServer, Worker, ended, oarlock};
use crate::interrupt::{can_type, typed};
use crate::people::{over, parked, says, status};
use crate::questions::asking_planner;
use crate::story::{Ear, SLOW_CAST, cast, findings, json_rule, plan_rule, script, text_rule};
use crate::tool::tool;
use crate::watch::Session;

const QUESTION: &str = "let it [w]ait?";

/// A fleet whose planner takes a second, and whose second plan comes only to who is told why the first was not good enough.
async fn fleet() -> (TestServer, Vec<Worker>, Ear) {
    let server = TestServer::start().await;
    let mut first = plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]);
    first["match"]["attempt"] = 1.into();
    first["response"]["latency_ms"] = 1_000.into();
    let mut second = plan_rule(&[(Role::Researcher, &[])]);
    second["match"]["user_contains"] = "rejected it: one task is enough".into();
    let story = script(&[
        first,
        second,
        json_rule(Role::Researcher, 50, &findings()),
        text_rule(Role::Documenter, 50, "# It\n\nIt is made."),
        text_rule(Role::Synthesizer, 50, "It is made."),
    ]);
    let workers = cast(&server, &story, &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    (server, workers, events)
}

/// The run whose plan waits, once it does.
async fn waiting(events: &Ear) -> RunId {
    events.event(EventKind::Waiting, Some(Role::Planner), 1).await.1.run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_rejected_and_the_next_one_changed_where_it_is_asked() {
    if !can_type() {
        return;
    }
    let (server, _fleet, _events) = fleet().await;
    let edit = [("EDITOR", "sed -i 's/part 1/the only part/'"), ("VISUAL", ""), ("USER", "ann")];
    let steps = [
        QUESTION,
        "r\\r",
        "why?",
        "one task is enough\\r",
        "planx2: [a]pprove",
        "x\\r",
        QUESTION,
        "e\\r",
        "planx2 is edited",
        "",
    ];
    let seen = typed(&server, &steps, &["--approve", "plan"], &edit).await;
    assert!(seen.code == Some(0) && !seen.out.contains("never seen"), "{seen:?}");
    assert!(
        seen.out.contains("t2 documenter: part 2")
            && seen.out.contains("[e]dit it")
            && seen.out.contains("It is made."),
        "{seen:?}"
    );
    let run = server.store.runs.list(1).await.unwrap().0.remove(0).run;
    let plan = server.store.runs.plan(&run, 1).await.unwrap().unwrap();
    assert_eq!(plan.tasks[0].description, "the only part");
    let heard = server.store.inputs.of_run(&run, 0).await.unwrap();
    let words: Vec<_> =
        heard.iter().map(|one| (one.input.by.split('@').next().unwrap(), one.input.says.name())).collect();
    assert_eq!(words, [("ann", "reject"), ("ann", "edit")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_it_waiting_and_what_was_typed_before_is_no_answer() {
    if !can_type() {
        return;
    }
    let (server, _fleet, events) = fleet().await;
    // The "a" is typed while the planner is at work.
    let steps = ["Make a plan", "a\\r", QUESTION, "\\x03"];
    let seen = typed(&server, &steps, &["--approve", "all"], &[]).await;
    let run = waiting(&events).await;
    assert!(seen.code == Some(130) && !seen.out.contains("[d]etach"), "{seen:?}");
    assert!(seen.out.contains(&format!("waits for a person: oarlock approve {run}/planx1")), "{seen:?}");
    parked(&server, &run).await;
    assert!(server.store.inputs.of_run(&run, 0).await.unwrap().is_empty(), "{seen:?}");
    let canceled = crate::cancel::control(&server, "cancel", json!(run.as_str())).await;
    assert_eq!(canceled.error_code(), "", "{}", canceled.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_taken_back_when_somebody_else_answers() {
    let (server, _fleet, events) = fleet().await;
    let mut command = tool(&server, &["run", "make it", "--server", server.url(), "--approve", "all", "--quorum", "2"]);
    command.env("TMPDIR", server.folder.path());
    let mut session = Session::start(command);
    session.shows(&["planx1: [a]pprove"]).await;
    session.type_keys("r\r");
    session.shows(&["why?"]).await;
    session.type_keys("no\r");
    session.shows(&["counted, 1 of 2 say reject"]).await;
    let run = waiting(&events).await;
    for item in ["planx1", "t1x1", "t2x1", "answerx1"] {
        if item != "planx1" {
            session.shows(&[&format!("{item}: [a]pprove")]).await;
        }
        assert_eq!(status(&says(&server, "approve", &run, item, "bob").await), "counted");
        assert_eq!(status(&says(&server, "approve", &run, item, "cat").await), "approved");
        if item != "planx1" {
            session.shows(&[&format!("{item} was decided elsewhere")]).await;
        }
    }
    session.shows(&["It is made.", "model calls"]).await;
    session.ends(0).await;
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_of_an_agent_is_answered_where_it_is_asked() {
    if !can_type() {
        return;
    }
    let server = TestServer::start().await;
    let rules = [&asking_planner()[..], &[text_rule(Role::Synthesizer, 50, "It is Ghent.")]].concat();
    let roles = [Role::Planner, Role::Researcher, Role::Synthesizer, Role::Orchestrator];
    let _fleet = cast(&server, &script(&rules), &roles).await;
    let steps = ["For which city?", "", "your answer?", "Ghent, please\\r", "is answered", ""];
    let seen = typed(&server, &steps, &["--ask"], &[("USER", "ann")]).await;
    assert!(seen.code == Some(0) && seen.out.contains("It is Ghent."), "{seen:?}");
    assert!(!seen.out.contains(QUESTION) && !seen.out.contains("never seen"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_it_says_how_to_answer_and_goes_on_waiting() {
    let (server, _fleet, events) = fleet().await;
    let mut command = oarlock(&server);
    command.args(["run", "make it", "--approve", "plan", "--server", server.url()]).stdin(Stdio::null());
    let elsewhere = async {
        let run = waiting(&events).await;
        parked(&server, &run).await;
        assert_eq!(status(&says(&server, "approve", &run, "planx1", "bob").await), "approved");
        run
    };
    let (seen, run) = tokio::join!(ended(command, b""), elsewhere);
    assert!(seen.code == Some(0) && seen.out.contains("It is made."), "{seen:?}");
    let told = format!("7 days more: oarlock approve {run}/planx1, or oarlock reject {run}/planx1 --reason");
    assert!(seen.err.contains(&told) && !seen.err.contains(QUESTION), "{seen:?}");
}
