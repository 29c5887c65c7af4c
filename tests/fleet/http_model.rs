//! A whole run against an OpenAI-compatible server over real HTTP: the prompts, the schemas and the replies travel as they
//! do with a vendor.

use oarlock::wire::{Role, RunStatus};
use serde_json::{Value, json};

use crate::aimock_process::Aimock;
use crate::harness::{TestServer, Worker, scripts};

/// Words that only the prompt of one role has.
const PROMPTS: [(Role, &str); 7] = [
    (Role::Planner, "Make a plan for this goal"),
    (Role::Researcher, "Find what the task asks for"),
    (Role::Coder, "Write the files. Python 3"),
    (Role::Qa, "There are no tests yet"),
    (Role::Reviewer, "Review the files against the goal"),
    (Role::Documenter, "Write README.md for these files"),
    (Role::Synthesizer, "Answer the goal from these results"),
];

/// The recorded replies of the fibonacci goal as fixtures of the foreign server.
fn fixtures() -> Value {
    let script: Value = serde_json::from_str(scripts::FIBONACCI).unwrap();
    let fixture = |(role, words): &(Role, &str)| {
        let rules = script["rules"].as_array().unwrap();
        let rule = rules.iter().find(|rule| rule["match"]["role"] == role.name()).unwrap();
        let response = &rule["response"];
        let content = response["content"].as_str().map_or_else(|| response["json"].to_string(), str::to_owned);
        let usage = json!({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110});
        json!({"match": {"userMessage": words}, "response": {"content": content, "usage": usage}})
    };
    PROMPTS.iter().map(fixture).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_run_goes_through_a_foreign_openai_server() {
    let Some(aimock) = Aimock::start(fixtures()).await else { return };
    let server = TestServer::start().await;
    let prices = "[models]\n\"openai/gpt-test\" = { in = 1, out = 10 }\n";
    let prices = server.file("prices.toml", prices);
    let mut workers: Vec<Worker> = Role::ALL
        .into_iter()
        .map(|role| {
            Worker::spawn(&server, role, |command| {
                command.args(["--model", "openai/gpt-test", "--base-url", &aimock.url]).env("OARLOCK_PRICES", &prices);
            })
        })
        .collect();
    for worker in &mut workers {
        worker.ready(&server).await;
    }
    let answer = server.request("oarlock.run", "Write a function to calculate fibonacci").await;
    assert_eq!(answer.header("Oarlock-Status"), "completed", "{}", answer.text());
    assert!(answer.text().contains("def fibonacci"), "{}", answer.text());
    let view = server.view(&answer.header("Oarlock-Run")).await;
    assert_eq!(view.status, RunStatus::Completed);
    assert_eq!((view.usage.calls, view.usage.input, view.usage.output), (7, 700, 70), "{:?}", view.usage);
    assert!(!view.usage.estimated);
    // 100 tokens at a microdollar each, and 10 at ten.
    assert_eq!((view.usage.cost_nano_usd, view.usage.priced_calls), (Some(7 * 200_000), 7));
    server.assert_nothing_left().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let journal = client.get(format!("{}/__aimock/journal", aimock.url)).send().await.unwrap().text().await.unwrap();
    let schemas = journal.matches("\"json_schema\"").count();
    assert!(schemas >= 5, "only {schemas} requests carried a schema: {journal}");
}
