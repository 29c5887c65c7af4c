//! Proposals of shared state that cannot all be made: many of one name at the same time, and those of replies that count for
//! nothing.

use std::collections::BTreeMap;

use oarlock::bus::Point;
use oarlock::wire::{
    ContentHash, EventKind, Outcome, Reply, Report, Review, Role, RunStatus, StateOp, TaskId, Verdict,
};
use serde_json::json;

use crate::harness::{TestServer, until};
use crate::proposals::{CAST, answer, change, research, submit, the_run, tool, values};
use crate::story::{Ear, cast, ended, json_rule, plan_rule, result, script};

/// Each round one of them is first, and the others look at what it set: more rounds than an attempt may fail.
#[tokio::test(flavor = "multi_thread")]
async fn many_agents_that_set_one_name_at_the_same_time_come_to_an_end() {
    const AGENTS: usize = 6;
    let server = TestServer::start().await;
    server.store.state.set(&the_run(), "port", json!(80)).await.unwrap();
    let none: &[usize] = &[];
    let set = |number: usize| {
        let mut rule = research(
            &format!("t{number}"),
            1,
            "<state>\nport (revision ",
            300,
            json!([{"op": "set", "name": "port", "value": number}]),
        );
        rule["match"].as_object_mut().unwrap().remove("attempt");
        rule
    };
    let mut rules = vec![plan_rule(&[(Role::Researcher, none); AGENTS]), answer()];
    rules.extend((1..=AGENTS).map(set));
    let mut workers = cast(&server, &script(&rules), &CAST).await;
    workers.extend(cast(&server, &script(&rules), &[Role::Researcher, Role::Researcher]).await);
    let run = submit(&server).await;
    assert_eq!(ended(&server, &run).await.status, RunStatus::Completed, "{:?}", result(&server, &run).await);
    let verdicts = server.store.state.verdicts(&run).await.unwrap();
    let made = verdicts.iter().filter(|(_, verdict)| verdict.refused.is_empty());
    let made: Vec<&TaskId> = made.map(|((task, _), _)| task).collect();
    let all: Vec<TaskId> = (1..=AGENTS).map(TaskId::planned).collect();
    assert_eq!(made, all.iter().collect::<Vec<_>>(), "each set it once");
    assert!(verdicts.values().all(|verdict| verdict.refused.is_empty() || verdict.raced()), "{verdicts:?}");
    println!("measured: {AGENTS} agents that set one name took {} attempts", verdicts.len());
}

/// A verdict on other code than the one in force is asked for again, and what it proposed is not done.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_counts_for_nothing_changes_nothing() {
    let server = TestServer::start().await;
    server.store.state.set(&the_run(), "log", json!([])).await.unwrap();
    let code = json!({ "files": [{ "path": "made.py", "content": "x = 1\n" },
        { "path": "test_made.py", "content": "from made import x\n\ndef test_x():\n    assert x\n" }], "deleted": [], "summary": "it" });
    let mut good = json_rule(
        Role::Reviewer,
        0,
        &json!({ "verdict": "approve", "findings": [], "state": [{"op": "append", "name": "log", "value": "good"}] }),
    );
    good["match"]["user_contains"] = "nothing that it proposed to change in the shared state was changed".into();
    let plan = plan_rule(&[(Role::Coder, &[]), (Role::Qa, &[1]), (Role::Reviewer, &[1])]);
    let story = script(&[plan, json_rule(Role::Coder, 0, &code), good, answer()]);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let _fleet =
        cast(&server, &story, &[Role::Orchestrator, Role::Planner, Role::Coder, Role::Qa, Role::Synthesizer]).await;
    let run = submit(&server).await;
    events.event(EventKind::Dispatched, Some(Role::Reviewer), 1).await;
    let judged = Some(ContentHash::of(b"the code of yesterday"));
    let report = Report::Review(Review { verdict: Verdict::Approve, findings: Vec::new(), judged });
    let outcome = Outcome::Completed { content: "good".into(), artifacts: Vec::new(), report: Some(report) };
    let stale = Reply::new(Role::Reviewer, run.clone(), TaskId::planned(3), 1, outcome);
    let stale = Reply { state: vec![change(StateOp::Append, "log", json!("stale"), None)], ..stale };
    server.store.results.publish(Point::Reply, &stale).await.unwrap();
    until("two doubts", async || events.events(EventKind::Doubted).len() >= 2).await;
    let doubts: Vec<String> = events.events(EventKind::Doubted).into_iter().map(|(_, event)| event.text).collect();
    assert!(doubts.iter().any(|doubt| doubt.contains("nothing was changed of the shared state")), "{doubts:?}");
    let _reviewer = cast(&server, &story, &[Role::Reviewer]).await;
    assert_eq!(ended(&server, &run).await.status, RunStatus::Completed, "{:?}", result(&server, &run).await);
    assert_eq!(values(&server).await, BTreeMap::from([("log".into(), json!(["good"]))]));
    let shown = tool(&server, &["show", run.as_str()]).await.out;
    assert!(shown.contains("doubt: t3 #1 (reviewer): nothing was changed of the shared state"), "{shown}");
}
