//! What all runs of a tenant may spend in a day, however many they are, whoever holds them, wherever he dies.

use std::time::Instant;

use async_nats::HeaderMap;
use oarlock::store::Payer;
use oarlock::wire::{EventKind, FailureKind, Purse, Reply, Role, RunId, RunStatus, Spending, Tenant, TenantDay, Usage};
use serde_json::{Value, json};

use crate::harness::{self, TestServer, Worker, oarlock, until};
use crate::story::{
    Ear, SLOW_CAST, cast, cast_with, ended, findings, json_rule, plan_rule, result, script, slow_story, text_rule,
};

/// Workers that are busy at the same time.
const WORKERS: usize = 64;
/// Slots of each of their processes.
const SLOTS: usize = 8;
/// Runs of the tenant at the same time.
const RUNS: usize = 4;

fn acme() -> Tenant {
    "acme".parse().unwrap()
}

fn counted(mut rule: Value, input: u64, output: u64) -> Value {
    rule["response"]["usage"] = json!({ "input": input, "output": output });
    rule
}

/// Settings in which the tenant acme may take so many tokens a day.
fn bounded(server: &TestServer, tokens: u64) -> String {
    let file = server.file("tenants.toml", &format!("[tenant_budget.acme]\ntokens = {tokens}\n"));
    file.to_str().unwrap().to_owned()
}

async fn submit(server: &TestServer) -> harness::Reply {
    server.request("oarlock.submit", json!({ "goal": "make it", "tenant": "acme" }).to_string()).await
}

async fn submitted(server: &TestServer) -> RunId {
    let answer = submit(server).await;
    assert_eq!(answer.error_code(), "", "{}", answer.text());
    answer.header("Oarlock-Run").parse().unwrap()
}

async fn today(server: &TestServer) -> TenantDay {
    TenantDay::of(&acme(), server.bus.server_now().await.unwrap())
}

/// What the stored replies of these runs say that they spent.
async fn spent(server: &TestServer, runs: &[RunId]) -> Usage {
    let mut sum = Usage::default();
    for run in runs {
        let replies = server.store.results.of_run(run).await.unwrap();
        replies.iter().filter(|(to, _)| to.role != Role::Orchestrator).for_each(|(_, reply)| sum += reply.usage);
    }
    sum
}

/// The book says what the replies say, and nothing is reserved any more.
async fn assert_settled(server: &TestServer, day: &TenantDay, runs: &[RunId]) {
    if today(server).await != *day {
        return; // Midnight came in between; then two books say it.
    }
    let spent = Purse::of(&spent(server, runs).await);
    until("the tenant's day to be settled", async || {
        let all = server.store.spent.all(day).await.unwrap();
        all.spent == spent && all.taken == spent
    })
    .await;
}

/// A vendor counts three times what one call could take by our estimate, every first answer must be asked for again, and one of
/// the two orchestrators dies while all of them work.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_workers_of_four_runs_are_over_by_one_call_each_at_most() {
    const CALL: u64 = 21_000;
    const TOKENS: u64 = 500_000;
    let server = TestServer::start().await;
    let tasks: Vec<(Role, &[usize])> = vec![(Role::Researcher, &[]); WORKERS / RUNS];
    let broken = json!({ "match": { "role": "researcher", "nth": 0 }, "fault": { "kind": "malformed" },
        "response": { "json": findings(), "latency_ms": 6_000, "usage": { "input": CALL - 1_000, "output": 1_000 } } });
    let good = counted(json_rule(Role::Researcher, 0, &findings()), CALL - 1_000, 1_000);
    let story =
        script(&[counted(plan_rule(&tasks), 900, 100), broken, good, text_rule(Role::Synthesizer, 0, "It is made.")]);
    let settings = bounded(&server, TOKENS);
    let settings = [("OARLOCK_WINDOW_MAX", "64"), ("OARLOCK_CONFIG", &settings)];
    let events = Ear::on(&server, "oarlock.event.>").await;
    let doomed = cast_with(&server, &story, &[Role::Orchestrator], &settings).await;
    let _workers = cast(&server, &story, &[Role::Planner, Role::Synthesizer]).await;
    let mut researchers: Vec<Worker> = Vec::new();
    for _ in 0..WORKERS / SLOTS {
        researchers.push(server.worker_with(Role::Researcher, &story, &["--slots", &SLOTS.to_string()]).await);
    }
    let day = today(&server).await;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(submitted(&server).await);
    }
    events.event(EventKind::Started, Some(Role::Researcher), WORKERS / 2).await;
    let _next = cast_with(&server, &story, &[Role::Orchestrator], &settings).await;
    doomed.into_iter().for_each(Worker::kill_9);
    let mut stopped = 0;
    for run in &runs {
        ended(&server, run).await;
        let reply = result(&server, run).await;
        if let Some(failure) = reply.failure() {
            stopped += 1;
            assert_eq!(failure.kind, FailureKind::BudgetExceeded, "{failure}");
            for part in [&format!("of budget tenant acme tokens {TOKENS}"), "tasks are done", "[tenant_budget.acme]"] {
                assert!(failure.message.contains(part), "{part}: {failure}");
            }
        }
    }
    let all = spent(&server, &runs).await;
    println!(
        "measured: {RUNS} runs with {WORKERS} workers spent {} of {TOKENS} tokens in {} calls: {} over; {stopped} stopped",
        all.tokens(),
        all.calls,
        all.tokens().saturating_sub(TOKENS)
    );
    assert!(all.tokens() > TOKENS, "they were never near the bound");
    assert!(all.tokens() <= TOKENS + WORKERS as u64 * CALL, "{all:?}");
    assert!(stopped > 0, "a run of a tenant that is spent is stopped");
    assert_settled(&server, &day, &runs).await;
    let told = events.events(EventKind::Budget);
    assert!(told.iter().any(|(_, event)| event.text.contains("of budget tenant acme tokens")), "{told:?}");
    if today(&server).await == day {
        let refused = submit(&server).await;
        assert_eq!(refused.error_code(), "429", "{}", refused.text());
        assert!(refused.text().contains(&format!("budget tenant acme tokens {TOKENS}")), "{}", refused.text());
        let mut command = oarlock(&server);
        command.args(["run", "x", "--tenant", "acme", "--server", server.url()]);
        let told = harness::ended(command, b"").await;
        assert_eq!(told.code, Some(9), "{told:?}");
    }
    let other = server.request("oarlock.submit", "make it").await;
    assert_eq!(other.error_code(), "", "another tenant has a day of its own: {}", other.text());
    ended(&server, &other.header("Oarlock-Run").parse().unwrap()).await;
    server.assert_nothing_left().await;
}

/// A run that may send nothing ends without a part of the day.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_refused_takes_nothing_of_the_day() {
    let server = TestServer::start().await;
    let settings = bounded(&server, 16_000);
    let _fleet = cast_with(&server, &slow_story(0), &[Role::Orchestrator], &[("OARLOCK_CONFIG", &settings)]).await;
    let day = today(&server).await;
    let goal = json!({ "goal": "make it", "tenant": "acme", "budget": { "exchanges": 1 } });
    let answer = server.request("oarlock.submit", goal.to_string()).await;
    let run: RunId = answer.header("Oarlock-Run").parse().unwrap();
    ended(&server, &run).await;
    let failure = result(&server, &run).await.failure().cloned().unwrap();
    assert!(failure.message.contains("exchanges"), "{failure}");
    let all = server.store.spent.all(&day).await.unwrap();
    assert_eq!((all.taken, all.spent), (Purse::default(), Purse::default()));
    server.assert_nothing_left().await;
}

/// What one run has reserved another waits for, and goes on when it is given back.
#[tokio::test(flavor = "multi_thread")]
async fn runs_wait_for_what_others_give_back_and_all_complete() {
    let server = TestServer::start().await;
    let settings = bounded(&server, 16_000);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let story = slow_story(3_000);
    let _orchestrator = cast_with(&server, &story, &[Role::Orchestrator], &[("OARLOCK_CONFIG", &settings)]).await;
    let _workers = cast(&server, &story, &SLOW_CAST).await;
    let day = today(&server).await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(submitted(&server).await);
    }
    for run in &runs {
        assert_eq!(ended(&server, run).await.status, RunStatus::Completed, "{:?}", result(&server, run).await);
    }
    let all = spent(&server, &runs).await;
    println!("measured: 3 runs spent {} of 16000 tokens", all.tokens());
    assert!(all.tokens() <= 16_000, "{all:?}");
    let waited = events.events(EventKind::Budget);
    assert!(waited.iter().any(|(_, event)| event.text.contains("give back")), "nobody waited: {waited:?}");
    assert_settled(&server, &day, &runs).await;
    server.assert_nothing_left().await;
}

/// A tenant is said in JSON, in a header, by a flag, a variable or a file; it is shown, and it has keys of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_named_shown_and_refused_by_its_name() {
    let server = TestServer::start().await;
    let fleet = slow_story(0);
    let _orchestrator = cast(&server, &fleet, &[Role::Orchestrator]).await;
    let _workers = cast(&server, &fleet, &SLOW_CAST).await;
    let header = |tenant: &str, key: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("Oarlock-Tenant", tenant);
        headers.insert("Oarlock-Key", key);
        headers
    };
    let ours = server.request_with("oarlock.submit", header("acme", "k"), "make it").await.text();
    let theirs = server.request_with("oarlock.submit", header("other", "k"), "make it").await.text();
    let again = server.request_with("oarlock.submit", header("acme", "k"), "make it").await.text();
    assert_eq!(ours, again, "the same key is the same run");
    assert_ne!(ours, theirs, "another tenant's key is another run");
    assert_eq!(ours, RunId::from_key("acme", "k").to_string());
    assert_eq!(server.view(&ours).await.tenant, acme());
    for (tenant, payload, says) in [
        ("a.b", "make it".to_owned(), "header Oarlock-Tenant: tenant \"a.b\" must be 1 to 32"),
        ("acme", json!({ "goal": "x", "tenant": "other" }).to_string(), "says acme, and the goal other"),
        ("acme", json!({ "goal": "x", "tenant": "" }).to_string(), "tenant \"\" must be"),
    ] {
        let answer = server.request_with("oarlock.run", header(tenant, "bad"), payload).await;
        assert_eq!(answer.error_code(), "400", "{}", answer.text());
        assert!(answer.text().contains(says), "{says}: {}", answer.text());
    }
    let tool = async |arguments: &[&str], variable: Option<&str>| {
        let mut command = oarlock(&server);
        command.args(arguments).args(["--server", server.url()]).envs(variable.map(|name| ("OARLOCK_TENANT", name)));
        harness::ended(command, b"").await
    };
    for (arguments, variable, tenant) in
        [(&["--tenant", "acme"][..], Some("other"), "acme"), (&[], Some("other"), "other"), (&[], None, "default")]
    {
        let told = tool(&[&["run", "make it", "--json"], arguments].concat(), variable).await;
        assert_eq!(told.code, Some(0), "{told:?}");
        let reply: Reply = serde_json::from_str(&told.out).unwrap();
        assert_eq!(server.view(reply.run.as_str()).await.tenant.as_str(), tenant);
    }
    let listed: Vec<Value> = serde_json::from_str(&tool(&["ls", "--json"], None).await.out).unwrap();
    assert!(listed.iter().any(|line| line["run"] == ours.as_str() && line["tenant"] == "acme"), "{listed:?}");
    assert!(tool(&["show", &ours], None).await.out.contains("tenant: acme"));

    let file = |name: &str, text: &str| server.file(name, text).to_str().unwrap().to_owned();
    let (zero, name) =
        (file("zero.toml", "[tenant_budget.acme]\ntokens = 0"), file("name.toml", "[tenant_budget.\"a.b\"]\nusd = 1"));
    let money = file("money.toml", "[tenant_budget.acme]\nusd = -1");
    for (arguments, variable, says) in [
        (&["run", "x", "--tenant", "a b"][..], None, "tenant \"a b\" must be 1 to 32 ASCII letters and digits"),
        (&["run", "x"], Some("a/b"), "tenant \"a/b\" must be"),
        (&["doctor", "--config", &zero], None, "tenant_budget.acme: tokens is 0"),
        (&["doctor", "--config", &money], None, "budget usd is -1"),
        (&["doctor", "--config", &name], None, "[tenant_budget]: tenant \"a.b\" must be"),
    ] {
        let told = tool(arguments, variable).await;
        assert_eq!(told.code, Some(2), "{arguments:?}: {told:?}");
        assert!(told.err.contains(says), "{arguments:?}: {}", told.err);
    }
    let good = file("good.toml", "[tenant_budget.\"*\"]\ntokens = 5\n[tenant_budget.acme]\nusd = 2.5");
    let told = tool(&["doctor", "--config", &good], None).await;
    let line = "budget of a tenant in a UTC day: tokens 5, usd $1000.0000; acme tokens 5, usd $2.5000";
    assert!(told.out.contains(line), "{}", told.out);
    server.assert_nothing_left().await;
}

/// A run that was forgotten and begins again under its id has a part of its own, also when the last change was not ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_begins_again_keeps_what_it_spent_before() {
    let server = TestServer::start().await;
    let (day, run) = (today(&server).await, RunId::from_key("acme", "k"));
    let purse = |tokens| Purse { tokens, nano_usd: 0 };
    for (began, tokens, all) in [(1, 700, 700), (2, 40, 740), (2, 50, 750), (1, 600, 650)] {
        let (payer, own) =
            (Payer { run: run.clone(), began }, Spending { spent: purse(tokens), ..Spending::default() });
        let book = server.store.spent.book(&day, &payer).await.unwrap();
        server.store.spent.change(&day, &payer, &book, own).await.unwrap().unwrap();
        assert_eq!(server.store.spent.all(&day).await.unwrap().spent, purse(all));
        assert_eq!(server.store.spent.book(&day, &payer).await.unwrap().own, own);
    }
}

/// Eight runs change their parts at the same time: the sum is exactly that of the parts, and it is quick enough to be no part of a
/// task's time.
#[tokio::test(flavor = "multi_thread")]
async fn parts_that_change_at_the_same_time_come_to_their_sum() {
    const WRITERS: usize = 8;
    const CHANGES: u64 = 50;
    let server = TestServer::start().await;
    let day = today(&server).await;
    let writer = |run: RunId| {
        let (store, day) = (server.store.clone(), day.clone());
        tokio::spawn(async move {
            let (mut tries, payer) = (0, Payer { run, began: 1 });
            for number in 1..=CHANGES {
                let purse = Purse { tokens: number, nano_usd: 2 * number };
                let own = Spending { spent: purse, taken: purse.plus(purse), ..Spending::default() };
                loop {
                    tries += 1;
                    let book = store.spent.book(&day, &payer).await.unwrap();
                    if store.spent.change(&day, &payer, &book, own).await.unwrap().is_some() {
                        break;
                    }
                }
            }
            tries
        })
    };
    let alone = Instant::now();
    let tries = writer(RunId::random()).await.unwrap();
    println!("measured: one change of a tenant's day takes {} µs", alone.elapsed().as_micros() / u128::from(CHANGES));
    assert_eq!(tries, CHANGES);
    let began = Instant::now();
    let writers: Vec<_> = (1..WRITERS).map(|_| writer(RunId::random())).collect();
    let mut tries = 0;
    for writer in writers {
        tries += writer.await.unwrap();
    }
    let changes = (WRITERS as u64 - 1) * CHANGES;
    println!("measured: {changes} changes by {} at once in {tries} tries, {:?}", WRITERS - 1, began.elapsed());
    let all = server.store.spent.all(&day).await.unwrap();
    let tokens = WRITERS as u64 * CHANGES;
    assert_eq!(all.spent, Purse { tokens, nano_usd: 2 * tokens });
    assert_eq!(all.taken, all.spent.plus(all.spent));
}
