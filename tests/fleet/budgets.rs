//! A run within its budgets: however many work for it, wherever its orchestrator dies, and what is left when it stops.

use std::time::{Duration, Instant};

use oarlock::wire::{Event, EventKind, Failure, FailureKind, Reply, Role, RunId, RunStatus, Usage};
use serde_json::{Value, json};

use crate::harness::{self, TestServer, Worker, oarlock, until};
use crate::people::parked;
use crate::story::{
    Ear, assert_one_content_each, cast, cast_with, ended, findings, json_rule, plan_rule, record, result, script,
    slow_story, text_rule,
};

/// Workers that are busy at the same time.
const WORKERS: usize = 64;
/// Slots of each of their processes.
const SLOTS: usize = 8;

/// A rule's answer with what its vendor counts for it.
fn counted(mut rule: Value, input: u64, output: u64) -> Value {
    rule["response"]["usage"] = json!({ "input": input, "output": output });
    rule
}

/// As many tasks of the researcher as there are workers, all at once.
fn wide_plan() -> Value {
    let tasks: Vec<(Role, &[usize])> = vec![(Role::Researcher, &[]); WORKERS];
    counted(plan_rule(&tasks), 900, 100)
}

/// Everybody that a wide plan needs; 64 researchers in processes of eight.
async fn wide_cast(server: &TestServer, story: &str) -> Vec<Worker> {
    let others = [Role::Planner, Role::Synthesizer];
    let mut workers = cast(server, story, &others).await;
    workers.extend(cast_with(server, story, &[Role::Orchestrator], &[("OARLOCK_WINDOW_MAX", "64")]).await);
    for _ in 0..WORKERS / SLOTS {
        workers.push(server.worker_with(Role::Researcher, story, &["--slots", &SLOTS.to_string()]).await);
    }
    workers
}

/// Gives a goal with this budget to the submit door, and returns the run.
async fn bounded(server: &TestServer, budget: &Value) -> RunId {
    let answer = server.request("oarlock.submit", json!({ "goal": "make it", "budget": budget }).to_string()).await;
    assert_eq!(answer.error_code(), "", "{}", answer.text());
    answer.header("Oarlock-Run").parse().unwrap()
}

async fn failure(server: &TestServer, run: &RunId) -> Failure {
    let record = ended(server, run).await;
    let reply = result(server, run).await;
    assert_eq!(record.status, RunStatus::Failed, "{reply:?}");
    reply.failure().expect("a failure").clone()
}

async fn replies_of(server: &TestServer, run: &RunId, role: Role) -> Vec<Reply> {
    let all = server.store.results.of_run(run).await.unwrap();
    all.into_iter().filter(|(to, _)| to.role == role).map(|(_, reply)| reply).collect()
}

async fn spent(server: &TestServer, run: &RunId) -> Usage {
    let mut sum = Usage::default();
    for (to, reply) in server.store.results.of_run(run).await.unwrap() {
        if to.role != Role::Orchestrator {
            sum += reply.usage;
        }
    }
    sum
}

/// How many tasks were under way at the same time, by the events.
fn peak(events: &Ear, run: &RunId) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    for (_, _, payload) in events.all() {
        let Ok(event) = serde_json::from_slice::<Event>(&payload) else { continue };
        match event.kind {
            _ if event.run != *run || event.role != Some(Role::Researcher) => {}
            EventKind::Started => now += 1,
            EventKind::Completed | EventKind::Failed => now = now.saturating_sub(1),
            _ => {}
        }
        most = most.max(now);
    }
    most
}

/// A vendor counts three times what one call could take by our estimate, and every first answer must be asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_workers_under_one_budget_are_over_by_one_call_each_at_most() {
    const CALL: u64 = 21_000;
    const TOKENS: u64 = 500_000;
    let server = TestServer::start().await;
    let broken = json!({ "match": { "role": "researcher", "nth": 0 }, "fault": { "kind": "malformed" },
        "response": { "json": findings(), "latency_ms": 6_000, "usage": { "input": CALL - 1_000, "output": 1_000 } } });
    let good = counted(json_rule(Role::Researcher, 0, &findings()), CALL - 1_000, 1_000);
    let story = script(&[wide_plan(), broken, good, text_rule(Role::Synthesizer, 0, "It is made.")]);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let _fleet = wide_cast(&server, &story).await;
    let run = bounded(&server, &json!({ "tokens": TOKENS })).await;
    let failure = failure(&server, &run).await;
    assert_eq!(failure.kind, FailureKind::BudgetExceeded, "{failure}");
    assert!(failure.message.contains(&format!("budget tokens {TOKENS}")), "{failure}");
    let (spent, busy) = (spent(&server, &run).await, peak(&events, &run));
    let replies = replies_of(&server, &run, Role::Researcher).await;
    let most = replies.iter().map(|reply| reply.usage.calls).max();
    println!(
        "measured: {busy} workers at once spent {} of {TOKENS} tokens in {} calls: {} over, {} calls each at most",
        spent.tokens(),
        spent.calls,
        spent.tokens().saturating_sub(TOKENS),
        most.unwrap()
    );
    assert_eq!(busy, WORKERS, "they did not work at the same time");
    assert!(spent.tokens() > TOKENS, "they were never near the bound");
    assert!(spent.tokens() <= TOKENS + WORKERS as u64 * CALL, "{spent:?}");
    assert_eq!((most, spent.calls), (Some(1), 1 + WORKERS as u32), "no one was asked twice: {spent:?}");
    server.assert_nothing_left().await;
}

/// With a vendor who counts as we do, nothing goes over: tasks wait for what others give back, and the run completes, or
/// stops in time.
#[tokio::test(flavor = "multi_thread")]
async fn honest_counts_are_never_over_and_waiting_tasks_go_on() {
    let server = TestServer::start().await;
    let story = script(&[
        wide_plan(),
        json_rule(Role::Researcher, 20, &findings()),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ]);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let _fleet = wide_cast(&server, &story).await;
    let run = bounded(&server, &json!({ "tokens": 160_000 })).await;
    assert_eq!(ended(&server, &run).await.status, RunStatus::Completed, "{:?}", result(&server, &run).await);
    let all = spent(&server, &run).await;
    println!("measured: {} of 160000 tokens spent, {} tasks at once", all.tokens(), peak(&events, &run));
    assert!(all.tokens() <= 160_000 && all.calls == 2 + WORKERS as u32, "{all:?}");
    assert!((2..WORKERS).contains(&peak(&events, &run)), "some waited: {}", peak(&events, &run));

    let tokens = all.tokens() / 2;
    let run = bounded(&server, &json!({ "tokens": tokens })).await;
    let failure = failure(&server, &run).await;
    let half = spent(&server, &run).await;
    println!("measured: {} of {tokens} tokens spent; {failure}", half.tokens());
    assert_eq!(failure.kind, FailureKind::BudgetExceeded, "{failure}");
    assert!(half.tokens() <= tokens && half.tokens() > tokens / 2, "{half:?} of {tokens}");
    let done = replies_of(&server, &run, Role::Researcher).await.iter().filter(|one| one.failure().is_none()).count();
    assert!(failure.message.contains(&format!("{done} of {WORKERS} tasks are done")), "{done}: {failure}");
    server.assert_nothing_left().await;
}

/// The run's time goes on while nobody is there, and whoever comes first ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_s_time_ends_although_every_process_was_dead_meanwhile() {
    let server = TestServer::start().await;
    let roles = [Role::Orchestrator, Role::Planner, Role::Researcher, Role::Documenter, Role::Synthesizer];
    let events = Ear::on(&server, "oarlock.event.>").await;
    let fleet = cast(&server, &slow_story(60_000), &roles).await;
    let began = Instant::now();
    let run = bounded(&server, &json!({ "time_s": 8 })).await;
    events.event(EventKind::Started, Some(Role::Documenter), 1).await;
    fleet.into_iter().for_each(Worker::kill_9);
    until("the run's time to be over", async || began.elapsed() > Duration::from_secs(9)).await;
    assert!(!record(&server, &run).await.status.terminal(), "nobody was there to end it");
    let _orchestrator = cast(&server, &slow_story(0), &[Role::Orchestrator]).await;
    let failure = failure(&server, &run).await;
    assert_eq!(failure.kind, FailureKind::BudgetExceeded, "{failure}");
    assert!(failure.message.contains("budget time_s 8") && failure.message.contains("1 of 2 tasks"), "{failure}");

    // With somebody there it ends in time, and its worker stops.
    let _workers = cast(&server, &slow_story(60_000), &roles[1..]).await;
    let began = Instant::now();
    let run = bounded(&server, &json!({ "time_s": 3 })).await;
    ended(&server, &run).await;
    println!("measured: time_s 3 ended after {} ms", began.elapsed().as_millis());
    assert!((2_900..6_000).contains(&(began.elapsed().as_millis() as u64)), "{:?}", began.elapsed());
    let told = events.events(EventKind::Budget).into_iter().filter(|(_, event)| event.run == run);
    assert!(told.map(|(_, event)| event.text).any(|text| text.contains("time_s 3")));
    server.assert_nothing_left().await;
}

/// What was reserved is written with the request: the next holder sends the same, and comes to the same end.
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_reserves_what_was_reserved() {
    let server = TestServer::start().await;
    let story = script(&[
        counted(plan_rule(&[(Role::Researcher, &[]), (Role::Researcher, &[]), (Role::Documenter, &[1, 2])]), 900, 100),
        counted(json_rule(Role::Researcher, 5_000, &findings()), 9_000, 1_000),
        counted(text_rule(Role::Documenter, 0, "# It"), 9_000, 1_000),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ]);
    let tasks = Ear::on(&server, "oarlock.task.>").await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    let orchestrator = cast(&server, &story, &[Role::Orchestrator]).await;
    let _workers = cast(&server, &story, &[Role::Planner, Role::Researcher, Role::Documenter, Role::Synthesizer]).await;
    let run = bounded(&server, &json!({ "tokens": 31_200 })).await;
    events.event(EventKind::Started, Some(Role::Researcher), 2).await;
    orchestrator.into_iter().for_each(Worker::kill_9);
    let _next = cast(&server, &story, &[Role::Orchestrator]).await;
    let failure = failure(&server, &run).await;
    assert_eq!(failure.kind, FailureKind::BudgetExceeded, "{failure}");
    assert!(failure.message.contains("31000 of budget tokens 31200"), "{failure}");
    assert!(failure.message.contains("3 of 3 tasks are done"), "{failure}");
    let history = server.store.runs.history(&run).await.unwrap();
    assert!(history.iter().all(|entry| entry.message.metadata.budget.is_some()), "{history:?}");
    assert_one_content_each(&tasks);
    server.assert_nothing_left().await;
}

/// A task that needs more than its share is tried again with a larger one, once the others have given theirs back. A role that
/// has too little stops the run by name, and so does money.
#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_was_too_small_grows_and_the_budget_that_stops_a_run_is_named() {
    let server = TestServer::start().await;
    let mut plan = plan_rule(&[(Role::Researcher, &[]), (Role::Researcher, &[]), (Role::Documenter, &[1, 2])]);
    plan["response"]["usage"] = json!({ "input": 900, "output": 100, "cost_nano_usd": 20_000_000 });
    let large = json!({ "match": { "role": "researcher", "task_id": "t2", "attempt": 1 }, "fault": { "kind": "malformed" },
        "response": { "json": findings(), "usage": { "input": 15_500, "output": 500 } } });
    let small = counted(json_rule(Role::Researcher, 0, &findings()), 900, 100);
    let story = script(&[plan, large, small, text_rule(Role::Documenter, 0, "# It")]);
    let settings = server.file("settings.toml", "[role_budget.documenter]\ntokens = 200\n");
    let settings = ["--config", settings.to_str().unwrap()];
    let _orchestrator = server.worker_with(Role::Orchestrator, &story, &settings).await;
    let _workers = cast(&server, &story, &[Role::Planner, Role::Researcher, Role::Documenter]).await;
    let run = bounded(&server, &json!({ "tokens": 40_000 })).await;
    let stopped = failure(&server, &run).await;
    assert_eq!(stopped.kind, FailureKind::BudgetExceeded, "{stopped}");
    for part in ["0 of budget documenter tokens 200", "task t3 of documenter", "[role_budget.documenter] tokens"] {
        assert!(stopped.message.contains(part), "{part}: {stopped}");
    }
    let replies = replies_of(&server, &run, Role::Researcher).await;
    let refused: Vec<_> = replies.iter().filter_map(Reply::failure).collect();
    assert_eq!((replies.len(), refused.len()), (3, 1), "{replies:?}");
    assert_eq!(refused[0].kind, FailureKind::BudgetExceeded, "{:?}", refused[0]);
    assert!(refused[0].message.contains("16000 of"), "{}", refused[0].message);

    let run = bounded(&server, &json!({ "usd": 0.01 })).await;
    let stopped = failure(&server, &run).await;
    for part in ["$0.0200 of budget usd $0.0100", "0 of 3 tasks are done", "--budget usd=N"] {
        assert!(stopped.message.contains(part), "{part}: {stopped}");
    }
    server.assert_nothing_left().await;
}

/// What a person sees of it: a word at 80 %, a stop with its own exit code, the files, and a way on.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_keeps_what_was_made_and_a_retry_goes_on_from_there() {
    let server = TestServer::start().await;
    let story = script(&[
        counted(plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]), 900, 100),
        counted(json_rule(Role::Researcher, 0, &findings()), 9_000, 1_000),
        counted(text_rule(Role::Documenter, 0, "# It\n\nIt is made."), 8_000, 900),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ]);
    let roles = [Role::Orchestrator, Role::Planner, Role::Researcher, Role::Documenter, Role::Synthesizer];
    let events = Ear::on(&server, "oarlock.event.>").await;
    let _fleet = cast(&server, &story, &roles).await;
    let tool = async |arguments: &[&str]| {
        let mut command = oarlock(&server);
        command.args(arguments).args(["--server", server.url()]);
        harness::ended(command, b"").await
    };
    let told = tool(&["run", "make it", "--budget", "tokens=20000,usd=1", "--json"]).await;
    assert_eq!(told.code, Some(9), "{told:?}");
    let parts =
        ["budget exceeded", "19900 of budget tokens 20000", "2 of 2 tasks are done", "oarlock retry", "--budget"];
    for part in parts {
        assert!(told.err.contains(part), "{part}: {}", told.err);
    }
    let reply: Reply = serde_json::from_str(&told.out).unwrap();
    let run = reply.run.to_string();
    let high: Vec<String> = events.events(EventKind::Budget).into_iter().map(|(_, event)| event.text).collect();
    assert_eq!(high, ["most of a budget is spent: 19900 of budget tokens 20000"]);
    assert!(told.err.contains(&high[0]), "{}", told.err);
    let files = tool(&["artifacts", &run]).await;
    assert!(files.out.contains("README.md"), "{files:?}");
    let shown = tool(&["show", &run]).await;
    assert!(shown.out.contains("budget exceeded"), "{shown:?}");

    let again = tool(&["retry", &run]).await;
    assert_eq!((again.code, again.out.trim()), (Some(0), "It is made."), "{again:?}");
    let asked = replies_of(&server, &reply.run, Role::Researcher).await.len();
    assert_eq!(asked, 1, "what was done stayed done");
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_over_the_budget_of_tasks_is_refused_and_the_planner_knew() {
    let server = TestServer::start().await;
    let _fleet = cast(&server, &slow_story(0), &[Role::Orchestrator, Role::Planner]).await;
    let run = bounded(&server, &json!({ "tasks": 1 })).await;
    let failure = failure(&server, &run).await;
    assert_eq!(failure.kind, FailureKind::BudgetExceeded, "{failure}");
    assert!(failure.message.contains("2 tasks") && failure.message.contains("budget tasks is 1"), "{failure}");
    let history = server.store.runs.history(&run).await.unwrap();
    assert!(history[0].message.content.contains("at most 1 tasks"), "{}", history[0].message.content);
    server.assert_nothing_left().await;
}

/// However a plan comes to be too deep: the planner's, a person's edit, a retry with another plan.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_over_the_budget_of_depth_is_refused_wherever_it_comes_from() {
    let server = TestServer::start().await;
    let _fleet = cast(&server, &slow_story(0), &[Role::Orchestrator, Role::Planner]).await;
    let run = bounded(&server, &json!({ "depth": 1 })).await;
    let failure = failure(&server, &run).await;
    assert_eq!(failure.kind, FailureKind::BudgetExceeded, "{failure}");
    for part in ["2 tasks of the plan wait for each other in a row", "budget depth is 1", "--budget depth=N"] {
        assert!(failure.message.contains(part), "{part}: {failure}");
    }
    let history = server.store.runs.history(&run).await.unwrap();
    assert!(history[0].message.content.contains("At most 1 tasks may depend"), "{}", history[0].message.content);

    let task = |id: usize, needs: &[&str]| json!({ "id": format!("t{id}"), "role": "documenter", "description": format!("Write {id}."), "depends_on": needs });
    let deep = json!({ "v": 1, "tasks": [task(1, &[]), task(2, &["t1"]), task(3, &["t2"])] });
    let goal = json!({ "goal": "make it", "budget": { "depth": 2 }, "gates": { "approve": "plan" } }).to_string();
    let run: RunId = server.request("oarlock.submit", goal).await.header("Oarlock-Run").parse().unwrap();
    parked(&server, &run).await;
    let about = json!({ "run": run, "plan": deep });
    let edited = server.request("oarlock.control.edit", about.to_string()).await;
    assert_eq!(edited.error_code(), "400", "{}", edited.text());
    assert!(
        edited.text().contains("3 tasks of the plan") && edited.text().contains("budget depth is 2"),
        "{}",
        edited.text()
    );
    let approved = server.request("oarlock.control.approve", run.to_string()).await;
    assert_eq!(approved.error_code(), "", "a plan at the bound is good: {}", approved.text());
    until("the plan to be in force", async || record(&server, &run).await.plan == 1).await;
    server.request("oarlock.control.cancel", run.to_string()).await;
    ended(&server, &run).await;
    let again = server.request("oarlock.control.retry", about.to_string()).await;
    assert_eq!(again.error_code(), "400", "{}", again.text());
    assert!(again.text().contains("budget depth is 2"), "{}", again.text());
}

/// A budget that bounds nothing, cannot be read, or is over the operator's is refused wherever it is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_budget_of_nothing_is_refused_everywhere() {
    let server = TestServer::start().await;
    let set = [("OARLOCK_BUDGET", "tokens=1000,time_s=60"), ("OARLOCK_EXCHANGES_MAX", "40")];
    let _orchestrator = cast_with(&server, &slow_story(0), &[Role::Orchestrator], &set).await;
    for (budget, says) in [
        (json!({ "tokens": 0 }), "budget tokens is 0"),
        (json!({ "tokens": -7 }), "budget tokens is -7"),
        (json!({ "depth": 0 }), "budget depth is 0"),
        (json!({ "usd": 0 }), "budget usd is 0"),
        (json!({ "tokens": "many" }), "invalid type"),
        (json!({ "tokenz": 5 }), "unknown field"),
        (json!({ "tokens": 1_001 }), "more than the operator's 1000"),
        (json!({ "time_s": 61 }), "more than the operator's 60"),
        (json!({ "exchanges": 41 }), "more than the operator's 40"),
    ] {
        for door in ["oarlock.run", "oarlock.submit"] {
            let answer = server.request(door, json!({ "goal": "x", "budget": budget }).to_string()).await;
            assert_eq!(answer.error_code(), "400", "{budget}: {}", answer.text());
            assert!(answer.text().contains(says), "{budget}: {}", answer.text());
        }
    }
    let zero = server.file("zero.toml", "[budget]\ntokens = 0\n");
    let role = server.file("role.toml", "[role_budget.coder]\ntokens = 0\n");
    let (zero, role) = (zero.to_str().unwrap(), role.to_str().unwrap());
    let url = server.url();
    let rows: [(&[&str], &str, &str); 10] = [
        (&["run", "x", "--budget", "tokens=0"], "", "budget tokens is 0"),
        (&["run", "x", "--budget", "usd=-1"], "", "budget usd is -1"),
        (&["run", "x", "--budget", "tokens=many"], "", "no number"),
        (&["run", "x", "--budget", "token=5"], "", "no budget \"token\""),
        (&["run", "x", "--budget", "tokens=20000001"], "", "more than the operator's 20000000"),
        (&["run", "x", "--budget", "tokens=2000", "--server", url], "", "more than the operator's 1000"),
        (&["doctor", "--config", zero], "", "budget tokens is 0"),
        (&["doctor", "--config", role], "", "role_budget.coder: tokens is 0"),
        (&["doctor"], "time_s=0", "OARLOCK_BUDGET: budget time_s is 0"),
        (&["doctor"], "exchanges=10", "OARLOCK_EXCHANGES_MAX"),
    ];
    for (arguments, variable, says) in rows {
        let mut command = oarlock(&server);
        command.args(arguments);
        if !variable.is_empty() {
            command.env("OARLOCK_BUDGET", variable);
        }
        let told = harness::ended(command, b"").await;
        assert_eq!(told.code, Some(2), "{arguments:?}: {told:?}");
        assert!(told.err.contains(says), "{arguments:?}: {}", told.err);
    }
}
