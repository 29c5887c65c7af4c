//! The model: which one it is, and with `--model` whether it answers, and how well.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::super::args::{DoctorArgs, ModelArgs};
use super::super::config::Config;
use super::{Line, broken, note, ok};
use crate::model::{
    self, CallContext, ChatMessage, ChatModel, ChatRequest, Choice, JsonError, JsonReply, OutputSchema, Progress,
    ProgressSink, complete_json,
};

/// How long the one small call may take: a local server may have to load its model first.
const CALL_S_MAX: u64 = 120;
/// Tokens that the answer may have; a reasoning model thinks within them.
const CALL_TOKENS_MAX: u32 = 1_024;
const FIX: &str = "mend OARLOCK_MODEL, the base URL or the key";

pub(super) async fn lines(config: &Config, args: &DoctorArgs) -> Vec<Line> {
    let named = args.model.clone().flatten();
    let flags = ModelArgs { model: named, base_url: args.base_url.clone(), script: None };
    let choice = match model::choose(&config.models(&flags)).await {
        Ok(choice) => choice,
        Err(error) => {
            let what = format!("failed to {:#}", anyhow::Error::from(error));
            return vec![broken(what, FIX)];
        }
    };
    let ways = "set ANTHROPIC_API_KEY, OPENAI_API_KEY or GEMINI_API_KEY; or start Ollama; or give --base-url";
    match (choice, args.model.is_some()) {
        (None, true) => vec![broken("no model is configured, so none can be tried", ways)],
        (None, false) => vec![note("no model is configured", ways)],
        (Some(choice), tried) => {
            let chosen = ok(format!("model {}/{}: {}", choice.spec.provider.id(), choice.spec.model, choice.why));
            let mut lines = vec![chosen];
            if tried {
                lines.extend(call(config, &choice).await);
            }
            lines
        }
    }
}

/// One small question whose answer must have a shape.
fn question(progress: ProgressSink) -> ChatRequest {
    let schema = serde_json::json!({
        "type": "object", "additionalProperties": false, "required": ["sum"],
        "properties": { "sum": { "type": "integer" } },
    });
    ChatRequest {
        system: "You answer in JSON and nothing else.".into(),
        messages: vec![ChatMessage::user("What is 2 + 3? Answer with JSON only: {\"sum\": <number>}")],
        schema: Some(OutputSchema { name: "sum".into(), schema }),
        max_output_tokens: CALL_TOKENS_MAX,
        timeout: Duration::from_secs(CALL_S_MAX),
        context: CallContext {
            role: "doctor".into(),
            task: "answer a small question".into(),
            ..CallContext::default()
        },
        progress: Some(progress),
    }
}

async fn call(config: &Config, choice: &Choice) -> Vec<Line> {
    let failed = |error: anyhow::Error| broken(format!("the model does not answer: {error:#}"), FIX);
    let model = match model::open(&choice.spec, &config.model_options) {
        Ok(model) => model,
        Err(error) => return vec![failed(error.into())],
    };
    let began = Instant::now();
    let heard = Arc::new(AtomicUsize::new(0));
    let counter = heard.clone();
    let progress = ProgressSink::new(move |progress| match progress {
        Progress::Begun => counter.store(0, Ordering::Relaxed),
        Progress::Text(_) => drop(counter.fetch_add(1, Ordering::Relaxed)),
        Progress::Limited(_) => {}
    });
    match complete_json(model.as_ref() as &dyn ChatModel, question(progress)).await {
        Ok(reply) => answered(&reply, began.elapsed(), heard.load(Ordering::Relaxed)),
        Err(error @ JsonError::Model { .. }) => vec![failed(error.into())],
        Err(error) => vec![
            ok(format!("the model answers, in {:.1} s", began.elapsed().as_secs_f32())),
            broken(
                format!("schema: its answer does not fit, also when it is told so: {:#}", anyhow::Error::from(error)),
                "take a larger model: every role but the documenter and the synthesizer answers in JSON",
            ),
        ],
    }
}

fn answered(reply: &JsonReply<serde_json::Value>, took: Duration, pieces: usize) -> Vec<Line> {
    let usage = reply.usage;
    let shape = match (usage.calls, reply.repaired) {
        (..=1, false) => ok("schema: the answer fits at once"),
        (..=1, true) => note("schema: the answer fits after a repair", "nothing must be done; expect some rework"),
        _ => note(
            "schema: the answer fits when it is asked for again",
            "nothing must be done; a larger model costs less",
        ),
    };
    let right = reply.value.get("sum").and_then(serde_json::Value::as_i64) == Some(5);
    let counted = match usage.estimated {
        false => {
            let tokens = format!("{} tokens in, {} out, as the server counts them", usage.input, usage.output);
            ok(format!("usage: {tokens}; {}", usage.cost_in_words()))
        }
        true => note("usage: the server does not say, tokens are estimated (bytes / 4)", "turn on its usage reports"),
    };
    let streamed = match pieces {
        0 | 1 => note("streaming: the answer came in one piece", "nothing must be done; nobody sees it being written"),
        pieces => ok(format!("streaming: the answer came in {pieces} pieces")),
    };
    let cached = match (usage.cache_read, usage.cache_write) {
        (0, 0) => ok("cache: not used for a question this small"),
        (read, write) => ok(format!("cache: {read} tokens read, {write} written")),
    };
    let mut lines = vec![ok(format!("the model answers, in {:.1} s, as {}", took.as_secs_f32(), reply.model)), shape];
    if !right {
        lines.push(note(format!("it says that 2 + 3 is {}", reply.value), "take a larger model"));
    }
    lines.extend([streamed, counted, cached]);
    lines
}
