//! The scripted model: which rule answers, what its faults look like, and that wrong scripts fail early.

use std::sync::Arc;

use oarlock::model::{
    ChatModel, ChatRequest, Finish, ModelError, Retrying, Script, ScriptError, ScriptedModel, complete_json,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{request, with_schema};

fn model(script: Value) -> ScriptedModel {
    ScriptedModel::new(Arc::new(Script::parse(&script.to_string()).unwrap()), "test/scripted")
}

fn rules(rules: Value) -> ScriptedModel {
    model(json!({"version": 1, "rules": rules}))
}

fn call(role: &str, task_id: &str, attempt: u32) -> ChatRequest {
    let mut request = request("please");
    request.context.role = role.into();
    request.context.task_id = task_id.into();
    request.context.attempt = attempt;
    request
}

async fn text(model: &ScriptedModel, request: &ChatRequest) -> String {
    model.complete(request).await.unwrap().text
}

#[tokio::test]
async fn the_first_rule_that_fits_answers() {
    let model = rules(json!([
        {"match": {"role": "CODER", "task": "build * parser", "attempt": 2}, "response": {"content": "second {{attempt}}"}},
        {"match": {"role": "coder", "task": "*Parser"}, "response": {"content": "for {{task_id}}"}},
        {"match": {"task_id": "t9"}, "response": {"json": {"id": "{{task_id}}"}}},
        {"match": {"user_contains": "magic"}, "response": {"content": "by user"}},
        {"match": {"system_contains": "pirate"}, "response": {"content": "by system"}},
        {"match": {"model": "other/*"}, "response": {"content": "never"}},
        {"match": {"model": "test/*", "schema": "answer"}, "response": {"json": {"answer": "by schema"}}},
        {"match": {"role": "*"}, "response": {"echo": true}}
    ]));
    let mut coder = call("coder", "t1", 1);
    coder.context.task = "Build the\nbig parser".into();
    assert_eq!(text(&model, &coder).await, "for t1");
    coder.context.attempt = 2;
    assert_eq!(text(&model, &coder).await, "second 2");
    assert_eq!(text(&model, &call("qa", "t9", 1)).await, "{\"id\":\"t9\"}");
    let mut other = call("qa", "t2", 1);
    assert_eq!(text(&model, &other).await, "please");
    assert_eq!(text(&model, &with_schema(other.clone())).await, "{\"answer\":\"by schema\"}");
    other.system = "You are a pirate.".into();
    assert_eq!(text(&model, &other).await, "by system");
    other.messages[0].text = "magic word".into();
    assert_eq!(text(&model, &other).await, "by user");
    let unused = model.unused("qa");
    assert_eq!(unused.len(), 1, "{unused:?}");
    assert!(unused[0].contains("rule 6") && unused[0].contains("other/*"), "{unused:?}");
}

#[tokio::test]
async fn nth_and_times_count_per_task_and_per_conditions() {
    let model = rules(json!([
        {"match": {"role": "coder", "nth": 0}, "response": {"content": "first"}},
        {"match": {"role": "coder", "nth": 1}, "response": {"content": "second"}},
        {"match": {"role": "coder", "times": 1}, "response": {"content": "once"}},
        {"match": {"role": "coder"}, "response": {"content": "rest"}}
    ]));
    for task in ["a", "b"] {
        for expected in ["first", "second", "once", "rest", "rest"] {
            assert_eq!(text(&model, &call("coder", task, 1)).await, expected, "{task}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_script_answers_alike_under_concurrency() {
    let script = json!([
        {"match": {"role": "coder", "nth": 0}, "response": {"content": "0"}},
        {"match": {"role": "coder", "nth": 1}, "response": {"content": "1"}},
        {"match": {"role": "coder"}, "response": {"content": "2"}}
    ]);
    let model = Arc::new(rules(script));
    let tasks: Vec<_> = (0..200)
        .map(|task| {
            let model = Arc::clone(&model);
            tokio::spawn(async move {
                let request = call("coder", &format!("t{task}"), 1);
                for expected in ["0", "1", "2"] {
                    assert_eq!(text(&model, &request).await, expected);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_strict_script_names_the_nearest_rule() {
    let model = rules(json!([
        {"match": {"role": "planner"}, "response": {"content": "x"}},
        {"match": {"role": "coder", "attempt": 2}, "response": {"content": "x"}}
    ]));
    let error = model.complete(&call("coder", "t7", 3)).await.unwrap_err();
    assert!(!error.is_transient());
    let ModelError::Script(error) = error else { panic!("{error}") };
    let text = error.to_string();
    for part in ["\"coder\"", "write code", "t7", "attempt 3", "rule 2", "attempt differs"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let lax = self::model(json!({"version": 1, "strict": false, "rules": []}));
    assert_eq!(self::text(&lax, &call("coder", "t7", 3)).await, "please");
}

#[tokio::test(start_paused = true)]
async fn faults_come_as_real_errors_and_go_through_the_retries() {
    let model = Retrying::new(rules(json!([
        {"match": {"role": "coder", "nth": 0}, "fault": {"status": 429, "retry_after_ms": 1500, "type": "rate_limit_error"}},
        {"match": {"role": "coder", "nth": 1}, "fault": {"kind": "disconnect"}},
        {"match": {"role": "coder", "nth": 2}, "fault": {"status": 529}},
        {"match": {"role": "coder"}, "response": {"content": "at last", "usage": {"input": 12, "output": 3, "cache_read": 4}}}
    ])));
    let started = Instant::now();
    let reply = model.complete(&call("coder", "t1", 1)).await.unwrap();
    assert_eq!(reply.text, "at last");
    assert_eq!((reply.usage.calls, reply.usage.input, reply.usage.cache_read), (1, 12, 4));
    assert!(!reply.usage.estimated);
    let waited_ms = started.elapsed().as_millis();
    assert!((1500 + 750 + 1500..=1500 + 1000 + 2000 + 10).contains(&waited_ms), "{waited_ms}");
    assert!(model.inner().unused("coder").is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_fault_has_its_kind() {
    let model = rules(json!([
        {"match": {"role": "timeout"}, "fault": {"kind": "timeout"}},
        {"match": {"role": "quota"}, "fault": {"status": 429, "type": "insufficient_quota"}},
        {"match": {"role": "key"}, "fault": {"status": 401}},
        {"match": {"role": "slow"}, "response": {"content": "x"}, "fault": {"kind": "slow", "latency_ms": 60000}},
        {"match": {"role": "truncate"}, "response": {"content": "12345678"}, "fault": {"kind": "truncate"}},
        {"match": {"role": "malformed"}, "response": {"json": {"answer": "yes"}}, "fault": {"kind": "malformed"}},
        {"match": {"role": "refusal"}, "fault": {"kind": "refusal"}}
    ]));
    let started = Instant::now();
    let error = model.complete(&call("timeout", "t", 1)).await.unwrap_err();
    assert!(matches!(error, ModelError::Timeout { .. }) && started.elapsed().as_secs() == 20);
    assert!(matches!(model.complete(&call("slow", "t", 1)).await, Err(ModelError::Timeout { .. })));
    assert!(matches!(model.complete(&call("quota", "t", 1)).await, Err(ModelError::Quota { .. })));
    assert!(matches!(model.complete(&call("key", "t", 1)).await, Err(ModelError::Auth { .. })));
    let reply = model.complete(&call("truncate", "t", 1)).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.finish), ("1234", Finish::Length));
    let reply = model.complete(&with_schema(call("malformed", "t", 1))).await.unwrap();
    assert!(serde_json::from_str::<Value>(&reply.text).is_err() && reply.finish == Finish::Stop);
    assert_eq!(model.complete(&call("refusal", "t", 1)).await.unwrap().finish, Finish::Refusal);
}

#[tokio::test(start_paused = true)]
async fn latency_is_drawn_from_the_seed() {
    let script = |seed| {
        json!({
            "version": 1, "seed": seed, "defaults": {"latency_ms": {"min": 20, "max": 5000}, "tokens": "estimate"},
            "rules": [{"match": {"role": "fixed"}, "response": {"content": "x", "latency_ms": 300}}, {"response": {"content": "x"}}]
        })
    };
    let mut times = Vec::new();
    for (seed, attempt) in [(7, 1), (7, 1), (7, 2), (8, 1)] {
        let started = Instant::now();
        let reply = model(script(seed)).complete(&call("coder", "t1", attempt)).await.unwrap();
        assert!(reply.usage.estimated);
        times.push(started.elapsed().as_millis());
    }
    assert_eq!(times[0], times[1]);
    assert!(times[0] != times[2] && times[0] != times[3], "{times:?}");
    assert!(times.iter().all(|time| (20..=5001).contains(time)), "{times:?}");
    let started = Instant::now();
    model(script(7)).complete(&call("fixed", "t1", 1)).await.unwrap();
    assert!((300..302).contains(&started.elapsed().as_millis()));
}

#[tokio::test]
async fn an_answer_that_does_not_fit_the_schema_fails_early() {
    let model = rules(json!([{"response": {"json": {"answer": 5}}}]));
    let error = model.complete(&with_schema(call("coder", "t1", 1))).await.unwrap_err();
    let ModelError::Script(ScriptError::Shape { number: 1, complaints, .. }) = error else { panic!("{error}") };
    assert!(complaints.contains("/answer"), "{complaints}");
    assert_eq!(text(&model, &call("coder", "t1", 1)).await, "{\"answer\":5}");
}

#[tokio::test]
async fn a_malformed_first_answer_is_asked_again() {
    let model = rules(json!([
        {"match": {"role": "coder", "nth": 0}, "fault": {"kind": "malformed"}},
        {"match": {"role": "coder"}, "response": {"json": {"answer": "yes"}}}
    ]));
    let reply = complete_json(&model, with_schema(call("coder", "t1", 1))).await.unwrap();
    assert_eq!((reply.value, reply.usage.calls), (json!({"answer": "yes"}), 2));
}

#[test]
fn wrong_scripts_are_refused_with_key_and_line() {
    let parse = |text: &str| Script::parse(text).unwrap_err().to_string();
    let typo =
        "{\"version\": 1,\n \"rules\": [\n  {\"match\": {\"rolle\": \"x\"},\n   \"response\": {\"content\": \"\"}}]}";
    let text = parse(typo);
    assert!(text.contains("`rolle`") && text.contains("line 3"), "{text}");
    for (rule, part) in [
        (json!({}), "rule 1 has neither"),
        (json!({"response": {}}), "exactly one"),
        (json!({"response": {"content": "x", "echo": true}}), "exactly one"),
        (json!({"fault": {}}), "without kind"),
        (json!({"fault": {"status": 200}}), "400 to 599"),
        (json!({"fault": {"kind": "timeout", "status": 500}}), "no status fault"),
        (json!({"fault": {"kind": "slow"}}), "slow"),
        (json!({"response": {"content": "x"}, "fault": {"kind": "disconnect"}}), "never let through"),
        (json!({"match": {"task": "[a"}, "response": {"content": "x"}}), "rule 1"),
        (json!({"response": {"content": "x", "latency_ms": {"min": 5, "max": 1}}}), "latency"),
        (json!({"response": {"content": "x", "latency_ms": {"min": 5, "maxx": 1}}}), "`maxx`"),
        (json!({"fault": {"kind": "explode"}}), "explode"),
    ] {
        let text = parse(&json!({"version": 1, "rules": [rule]}).to_string());
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(Script::parse("{\"version\": 2, \"rules\": []}").unwrap_err(), ScriptError::Version(2));
    assert!(matches!(Script::parse(&" ".repeat(17 << 20)), Err(ScriptError::TooLong(_))));
    let example = r#"{"version":1,"seed":7,"strict":true,"defaults":{"latency_ms":{"min":20,"max":80},"tokens":"estimate"},
        "rules":[{"match":{"role":"planner","task":"plan*","attempt":1},"response":{"json":{"steps":[]},
        "usage":{"input":812,"output":96,"cache_read":700},"finish":"stop","latency_ms":300}},
        {"match":{"role":"coder","nth":0},"fault":{"status":429,"retry_after_ms":1500}},
        {"match":{"role":"coder","nth":1},"fault":{"kind":"timeout"}},{"match":{"role":"*"},"response":{"echo":true}}]}"#;
    Script::parse(example).unwrap();
}
