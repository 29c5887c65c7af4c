//! What a run took: every attempt and every question counts, whatever became of it, and a sum of known and unknown costs
//! says so.

use oarlock::wire::{Role, RunStatus, RunView, Usage};
use serde_json::{Value, json};

use crate::harness::{TestServer, ended, oarlock};
use crate::story::{cast, findings, plan_rule, script};

/// A rule's usage: 100 tokens in, 10 out, and so many nanodollars.
fn usage(cost: Option<u64>) -> Value {
    json!({ "input": 100, "output": 10, "cache_read": 40, "cost_nano_usd": cost })
}

/// A planner that is asked twice, a researcher whose model has no price, a documenter whose first attempt is cut off.
fn story() -> String {
    let rule = |role: Role, of: Value, mut response: Value, cost: Option<u64>| {
        let mut conditions = json!({ "role": role });
        conditions.as_object_mut().unwrap().extend(of.as_object().unwrap().clone());
        response["usage"] = usage(cost);
        json!({ "match": conditions, "response": response })
    };
    let mut plan = plan_rule(&[(Role::Researcher, &[]), (Role::Documenter, &[1])]);
    plan["response"]["usage"] = usage(Some(20_000_000));
    let unfit = json!({ "match": { "role": "planner", "nth": 0 }, "fault": { "kind": "malformed" },
        "response": { "content": "{\"tasks\": [", "usage": usage(Some(10_000_000)) } });
    script(&[
        unfit,
        plan,
        rule(Role::Researcher, json!({}), json!({ "json": findings() }), None),
        rule(
            Role::Documenter,
            json!({ "attempt": 1 }),
            json!({ "content": "# It", "finish": "length" }),
            Some(30_000_000),
        ),
        rule(Role::Documenter, json!({}), json!({ "content": "# It\n\nIt is made." }), Some(40_000_000)),
        rule(Role::Synthesizer, json!({}), json!({ "content": "It is made." }), Some(50_000_000)),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_attempts_repairs_planner_and_synthesizer_are_in_the_sum() {
    let server = TestServer::start().await;
    let roles = [Role::Orchestrator, Role::Planner, Role::Researcher, Role::Documenter, Role::Synthesizer];
    let _fleet = cast(&server, &story(), &roles).await;
    let mut command = oarlock(&server);
    command.args(["run", "make it", "--server", server.url()]);
    let told = ended(command, b"").await;
    assert_eq!(told.code, Some(0), "{told:?}");
    let words =
        "6 model calls, 600 tokens in, 60 out, at least $0.1500 (the cost of 1 of 6 calls is unknown), 1 repairs";
    assert!(told.err.contains(words), "{}", told.err);

    let mut command = oarlock(&server);
    command.args(["run", "make it again", "--json", "--server", server.url()]);
    let told = ended(command, b"").await;
    let reply: Value = serde_json::from_str(&told.out).unwrap();
    let expected = Usage {
        calls: 6,
        input: 600,
        output: 60,
        cache_read: 240,
        priced_calls: 5,
        cost_nano_usd: Some(150_000_000),
        repairs: 1,
        ..Usage::default()
    };
    assert_eq!(serde_json::from_value::<Usage>(reply["usage"].clone()).unwrap(), expected);

    let run = reply["run"].as_str().unwrap();
    let show = |json: bool| {
        let mut command = oarlock(&server);
        command.args(["show", run, "--server", server.url()]).args(json.then_some("--json"));
        ended(command, b"")
    };
    let view: RunView = serde_json::from_str(&show(true).await.out).unwrap();
    assert_eq!((view.status, view.usage), (RunStatus::Completed, expected));
    let shown = show(false).await;
    assert!(shown.out.contains(words), "{}", shown.out);
}
