//! What people decide survives every process, goes through the real `nats` tool, and holds for every task where a goal says so.

use oarlock::wire::{EventKind, Plan, Report, Role, RunStatus};
use serde_json::json;

use crate::harness::{TestServer, Worker, ended, have, oarlock, until};
use crate::nats_cli::{GET_IT, cli, nats};
use crate::people::{fleet, over, parked, says, status, submit, tool};
use crate::story::{
    Ear, SLOW_CAST, assert_one_of_everything, cast, cast_with, json_rule, one_file, plan_rule, script, slow_story,
    text_rule,
};
use crate::watch::Session;

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_comes_after_everything_was_killed_and_started_again() {
    let (mut server, fleet) = fleet().await;
    let run = submit(&server, json!({ "approve": "plan" })).await;
    parked(&server, &run).await;
    fleet.into_iter().for_each(Worker::kill_9);
    server.server.kill().await;
    server.server.restart().await.unwrap();
    let _fleet = cast(&server, &slow_story(0), &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await;
    parked(&server, &run).await;
    assert_eq!(status(&says(&server, "approve", &run, "planx1", "ann").await), "approved");
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
    assert_one_of_everything(&server, &run).await;
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_every_result_waits_and_a_rejected_one_is_made_again() {
    let (server, _fleet) = fleet().await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let run = submit(&server, json!({ "approve": "all" })).await;
    for (item, verb) in
        [("planx1", "approve"), ("t1x1", "approve"), ("t2x1", "reject"), ("t2x2", "approve"), ("answerx2", "approve")]
    {
        until(&format!("{item} to wait"), async || {
            server.view(run.as_str()).await.waiting.iter().any(|waiting| waiting.item.as_str() == item)
        })
        .await;
        let answer = says(&server, verb, &run, item, "ann").await;
        assert_eq!(answer.error_code(), "", "{}", answer.text());
    }
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
    let begun: Vec<_> = events.events(EventKind::Started).into_iter().filter_map(|(_, event)| event.role).collect();
    assert_eq!(
        begun,
        [Role::Planner, Role::Researcher, Role::Documenter, Role::Documenter, Role::Synthesizer],
        "each after the approval of what it builds on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_changes_the_plan_before_it_is_carried_out() {
    let (server, _fleet) = fleet().await;
    let run = submit(&server, json!({ "approve": "plan" })).await;
    parked(&server, &run).await;
    let edit = async |editor: &str| {
        let mut command = oarlock(&server);
        command.env("VISUAL", "").env("EDITOR", editor).env("TMPDIR", server.folder.path());
        command.args(["approve", run.as_str(), "--edit", "--server", server.url()]);
        ended(command, b"").await
    };
    let bad = edit("sed -i 's/researcher/wizard/'").await;
    assert!(bad.code == Some(2) && bad.err.contains("what you wrote is in"), "{bad:?}");
    let reply = server.store.results.of_run(&run).await.unwrap().remove(0).1;
    let Some(Report::Plan(plan)) = reply.report().cloned() else { panic!("{reply:?}") };
    let cycle = Plan { tasks: [&plan.tasks[1..], &plan.tasks[1..]].concat(), ..plan };
    let refused = crate::cancel::control(&server, "edit", json!({ "run": run, "plan": cycle })).await;
    assert_eq!(refused.error_code(), "400", "{}", refused.text());
    let edited = edit("sed -i 's/part 2/part two/'").await;
    assert!(edited.code == Some(0) && edited.err.contains("is edited"), "{edited:?}");
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
    let plan = server.store.runs.plan(&run, 1).await.unwrap().unwrap();
    assert_eq!(plan.tasks[1].description, "part two");
    assert_one_of_everything(&server, &run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nats_tool_is_enough_to_steer() {
    if !have("nats-cli", cli().is_some(), GET_IT) {
        return;
    }
    let (server, _fleet) = fleet().await;
    let run = submit(&server, json!({ "approve": "plan" })).await;
    parked(&server, &run).await;
    let inbox = nats(&server, &["req", "oarlock.control.inbox", "", "--raw"]).await;
    assert!(inbox.out.contains("planx1"), "{inbox:?}");
    let note = nats(&server, &["req", "oarlock.control.note", &format!("{run} be brief"), "--raw"]).await;
    assert!(note.out.contains("noted"), "{note:?}");
    let approved = nats(&server, &["req", "oarlock.control.approve", &format!("{run}/planx1"), "--raw"]).await;
    assert!(approved.out.contains("approved"), "{approved:?}");
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
    let late = tool(&server, &["approve", run.as_str(), "--as", "ann"]).await;
    assert_eq!(late.code, Some(5), "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_on_the_screen_until_it_is_answered() {
    let (server, _fleet) = fleet().await;
    let run = submit(&server, json!({ "approve": "plan" })).await;
    parked(&server, &run).await;
    let mut list = Session::watch(&server, &[], &[]);
    list.shows(&[run.as_str(), "input_required"]).await;
    let mut session = Session::watch(&server, &[run.as_str()], &[]);
    session
        .shows(&["input_required", "? waits for a person: plan #1 by planner", " messages ──", "waiting    plan"])
        .await;
    let listed = tool(&server, &["ls"]).await;
    assert!(
        listed.out.lines().any(|line| line.contains(run.as_str()) && line.contains("input_required")),
        "{listed:?}"
    );
    let seen = crate::cancel::control(&server, "status", json!(run.as_str())).await.text();
    assert!(seen.contains("\"item\":\"planx1\""), "{seen}");
    let logged = async |kind: &str| {
        let logs = tool(&server, &["logs", run.as_str(), "--json"]).await.out;
        logs.lines().any(|line| line.contains(&format!("\"kind\":\"{kind}\"")) && line.contains("planx1"))
    };
    assert!(logged("waiting").await && !logged("answered").await);
    assert_eq!(status(&says(&server, "approve", &run, "planx1", "ann").await), "approved");
    session.shows_no("waits for a person").await;
    session.shows(&["completed"]).await;
    session.type_keys("l");
    session.shows(&["ann says approve about planx1"]).await;
    list.shows_no("input_required").await;
    assert!(logged("answered").await);
    for session in [&mut session, &mut list] {
        session.type_keys("q");
    }
}

/// Every check and every author is asked again with what a person said of the attempt before, the real pytest among them.
#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_reaches_the_coder_the_qa_and_the_reviewer() {
    let server = TestServer::start().await;
    let told = |role: Role, why: &str, answer: &serde_json::Value| {
        let mut rule = json_rule(role, 0, answer);
        rule["match"]["user_contains"] = format!("ann rejected it: {why}").into();
        rule
    };
    let review = json!({ "verdict": "approve", "findings": [] });
    let tests = |path: &str, name: &str| {
        let content = format!("from made import one\n\n\ndef test_{name}():\n    assert one() == 1\n");
        json!({ "files": [{ "path": path, "content": content }] })
    };
    let story = script(&[
        plan_rule(&[(Role::Coder, &[]), (Role::Qa, &[1]), (Role::Reviewer, &[1])]),
        told(Role::Coder, "use a constant", &one_file("ONE = 1\n\n\ndef one():\n    return ONE\n")),
        json_rule(Role::Coder, 0, &one_file("def one():\n    return 1\n")),
        told(Role::Qa, "test it twice", &tests("test_made_more.py", "more")),
        json_rule(Role::Qa, 0, &tests("test_made.py", "one")),
        told(Role::Reviewer, "look at the name", &review),
        json_rule(Role::Reviewer, 0, &review),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ]);
    let roles = [Role::Orchestrator, Role::Planner, Role::Coder, Role::Qa, Role::Reviewer, Role::Synthesizer];
    let _fleet = cast(&server, &story, &roles).await;
    let run = submit(&server, json!({ "approve": "all" })).await;
    let mut reasons = vec![("t1", "use a constant"), ("t2", "test it twice"), ("t3", "look at the name")];
    until("the run to be over", async || {
        for waiting in server.view(run.as_str()).await.waiting {
            let about = reasons.iter().position(|(task, _)| *task == waiting.task.as_str());
            let (verb, reason) = about.map_or(("approve", ""), |place| ("reject", reasons.remove(place).1));
            let said = json!({ "run": run, "item": waiting.item, "by": "ann", "reason": reason });
            let answer = crate::cancel::control(&server, verb, said).await;
            assert_eq!(answer.error_code(), "", "{}", answer.text());
        }
        server.view(run.as_str()).await.status.terminal()
    })
    .await;
    assert_eq!((over(&server, &run).await, reasons.len()), (RunStatus::Completed, 0));
    let view = server.view(run.as_str()).await;
    let task = |id: &str| view.tasks.iter().find(|task| task.id.as_str() == id).unwrap();
    assert!(task("t2").result.as_ref().unwrap().contains("2 tests, 2 ok"), "{:?}", task("t2"));
    let files: Vec<_> = view.artifacts.iter().map(|file| file.path.as_str()).collect();
    assert!(files.contains(&"test_made_more.py") && files.contains(&"test_made.py"), "{files:?}");
}

/// The operator's gate: a role file makes its results wait, for goals that ask nobody, and is there for every caller to see.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_file_makes_its_results_wait() {
    let server = TestServer::start().await;
    let text = include_str!("../../roles/documenter.md").replacen("model: default", "model: default\napprove: true", 1);
    let folder = server.folder.path().join("roles");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("documenter.md"), text).unwrap();
    let roles = folder.display().to_string();
    let _orchestrator = cast_with(&server, &slow_story(0), &[Role::Orchestrator], &[("OARLOCK_ROLES", &roles)]).await;
    let _workers = cast(&server, &slow_story(0), &SLOW_CAST).await;
    let run = submit(&server, json!({})).await;
    parked(&server, &run).await;
    let inbox = tool(&server, &["inbox", run.as_str()]).await;
    assert!(inbox.out.contains(&format!("{run}/t2x1")), "{inbox:?}");
    // The run knows it, so whoever has other role files sees it too.
    let shown = tool(&server, &["show", run.as_str()]).await;
    assert!(shown.out.contains("waits for a person: t2 #1 by documenter"), "{shown:?}");
    assert!(shown.out.contains(&format!("oarlock approve {run}/t2x1")), "{shown:?}");
    let approved = tool(&server, &["approve", &format!("{run}/t2x1")]).await;
    assert_eq!(approved.code, Some(0), "{approved:?}");
    assert_eq!(over(&server, &run).await, RunStatus::Completed);
    assert_one_of_everything(&server, &run).await;
}
