//! What a model said, read as JSON, mended where it must be, and judged; and scripts, which say it in a model's place.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oarlock::model::{
    CallContext, ChatMessage, ChatModel, ChatReply, ChatRequest, Finish, JsonError, ModelError, OutputSchema, Script,
    ScriptedModel, Way, complete_json, complete_json_checked,
};
use oarlock::wire::plan::Proposal;
use oarlock::wire::{Plan, Role, Usage};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::role::built_in;

/// Complaints of an answer that does not fit, all together: ten of 240 characters, and some.
const COMPLAINTS_BYTES_MAX: usize = 16 * 1024;

thread_local! {
    static RUNTIME: Runtime =
        Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime can be made");
}

/// Says one text, and when asked again something that is no JSON.
struct Saying(String);

#[async_trait]
impl ChatModel for Saying {
    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        let text = if request.messages.len() == 1 { self.0.clone() } else { "no".to_owned() };
        let usage = Usage { calls: 1, input: u64::MAX / 2 + 1, output: 2, ..Usage::default() };
        Ok(ChatReply { text, finish: Finish::Stop, usage, model: "saying".to_owned(), way: Way::default() })
    }

    fn name(&self) -> &str {
        "saying"
    }
}

pub fn prepare() {
    RUNTIME.with(|runtime| runtime.block_on(async {}));
}

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            any_json(text).await;
            a_plan(text).await;
            script(text).await;
        });
    });
}

fn request(schema: Option<OutputSchema>) -> ChatRequest {
    ChatRequest {
        system: "You are the planner.".to_owned(),
        messages: vec![ChatMessage::user("Make a plan.")],
        schema,
        max_output_tokens: 4096,
        timeout: Duration::from_secs(60),
        context: CallContext {
            run: "r".to_owned(),
            role: "planner".to_owned(),
            task: "Make a plan.".to_owned(),
            task_id: "plan".to_owned(),
            attempt: 1,
        },
        progress: None,
    }
}

fn schema(role: Role) -> OutputSchema {
    let schema = built_in().get(role).output.clone().unwrap_or(Value::Bool(true));
    OutputSchema { name: role.to_string(), schema }
}

/// Without a schema: JSON that needs no mending is taken as it stands.
async fn any_json(text: &str) {
    let reply = complete_json(&Saying(text.to_owned()), request(None)).await;
    match (serde_json::from_str::<Value>(text), reply) {
        (Ok(value), Ok(reply)) => {
            assert_eq!(reply.value, value, "JSON was read as other JSON");
            assert!(!reply.repaired, "JSON needs no mending");
        }
        (Ok(value), Err(error)) => panic!("{value} is JSON, but {error}"),
        (Err(_), Ok(_)) => {}
        (Err(_), Err(error)) => refused(&error),
    }
}

/// With the planner's schema and check.
async fn a_plan(text: &str) {
    let check = |value: &Value| -> Result<Plan, Vec<String>> {
        let proposal: Proposal = serde_json::from_value(value.clone()).map_err(|error| vec![error.to_string()])?;
        proposal.check()
    };
    let planner = request(Some(schema(Role::Planner)));
    match complete_json_checked(&Saying(text.to_owned()), planner, check).await {
        Ok(reply) => assert_eq!(reply.value.recheck(), Ok(reply.value), "a checked plan is checked into another"),
        Err(error) => refused(&error),
    }
}

fn refused(error: &JsonError) {
    assert_eq!(error.usage().calls, 2, "an answer that does not fit is asked for again");
    assert!(error.usage().input > u64::MAX / 2, "the costs of two questions are less than those of one");
    let JsonError::Invalid { complaints, .. } = error else { panic!("{error}") };
    let bytes: usize = complaints.iter().map(String::len).sum();
    assert!(
        !complaints.is_empty() && bytes <= COMPLAINTS_BYTES_MAX,
        "{} complaints of {bytes} bytes",
        complaints.len()
    );
}

/// A script that is taken answers or says why not, with and without a schema.
async fn script(text: &str) {
    let Ok(script) = Script::parse(text) else { return };
    let model = ScriptedModel::new(Arc::new(script), "scripted:fuzz");
    for schema in [None, Some(schema(Role::Planner))] {
        match model.complete(&request(schema)).await {
            Ok(reply) => assert_eq!(reply.model, "scripted:fuzz"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    drop(model.unused("planner"));
}
