//! Anthropic's messages API.
//!
//! `max_tokens` is required, `temperature` is refused by newer models and never sent, and a schema goes into
//! `output_config.format`. `input_tokens` leaves the cached tokens out, so they are added up to our meaning of input.

use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::schema::for_vendor;
use super::stream::Partial;
use super::{Author, ChatRequest, Finish, ModelSpec};
use crate::wire::Usage;

/// The body of a request.
pub(super) fn body(spec: &ModelSpec, request: &ChatRequest, with_schema: bool, streamed: bool) -> Value {
    let messages: Vec<Value> = request
        .messages
        .iter()
        .map(|message| {
            let role = match message.author {
                Author::User => "user",
                Author::Assistant => "assistant",
            };
            json!({"role": role, "content": message.text})
        })
        .collect();
    let mut body = json!({"model": spec.model, "max_tokens": request.max_output_tokens, "messages": messages});
    if streamed {
        body["stream"] = true.into();
    }
    if !request.system.is_empty() {
        body["system"] = request.system.as_str().into();
    }
    if let Some(output) = request.schema.as_ref().filter(|_| with_schema) {
        body["output_config"] = json!({"format": {"type": "json_schema", "schema": for_vendor(&output.schema)}});
    }
    body
}

/// Reads a reply; the error says what is missing.
pub(super) fn read(reply: &Map<String, Value>) -> Result<Answer, &'static str> {
    let content = reply.get("content").and_then(Value::as_array).ok_or("it has no content")?;
    let text = content
        .iter()
        .filter(|block| block.get("type").and_then(Value::as_str) == Some("text"))
        .filter_map(|block| block.get("text").and_then(Value::as_str))
        .collect();
    let finish = reply.get("stop_reason").and_then(finish_of).unwrap_or(Finish::Stop);
    Ok(Answer {
        text,
        finish,
        usage: reply.get("usage").and_then(usage_of),
        model: reply.get("model").and_then(Value::as_str).map(str::to_owned),
    })
}

/// Takes one event of a stream. The usage comes in two parts: with the first event, and with the last but one, whose counts
/// are of the whole call and take the place of what was told before.
pub(super) fn chunk(event: &Map<String, Value>, partial: &mut Partial) {
    let at = |one: &str, two: &str| event.get(one)?.get(two);
    match event.get("type").and_then(Value::as_str) {
        Some("message_start") => {
            partial.usage = at("message", "usage").and_then(usage_of);
            partial.model = at("message", "model").and_then(Value::as_str).map(str::to_owned);
        }
        Some("content_block_delta") => {
            partial.say(at("delta", "text").and_then(Value::as_str).unwrap_or_default());
            partial.think(at("delta", "thinking"));
        }
        Some("message_delta") => {
            partial.finish = at("delta", "stop_reason").and_then(finish_of).or(partial.finish.take());
            if let Some(told) = event.get("usage") {
                partial.usage = partial.usage.map(|usage| updated(usage, told)).or_else(|| usage_of(told));
            }
        }
        Some("message_stop") => partial.end(),
        _ => {}
    }
}

fn finish_of(reason: &Value) -> Option<Finish> {
    Some(match reason.as_str()? {
        "end_turn" | "stop_sequence" => Finish::Stop,
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "refusal" => Finish::Refusal,
        "pause_turn" => Finish::Paused,
        other => Finish::Other(other.to_owned()),
    })
}

fn usage_of(usage: &Value) -> Option<Usage> {
    let has = |name: &str| usage.get(name).is_some_and(Value::is_u64);
    let none = Usage { calls: 1, ..Usage::default() };
    (has("input_tokens") && has("output_tokens")).then(|| updated(none, usage))
}

/// `usage` with the counts that `told` names.
fn updated(usage: Usage, told: &Value) -> Usage {
    let count = |name: &str, before: u64| told.get(name).and_then(Value::as_u64).unwrap_or(before);
    let uncached = usage.input.saturating_sub(usage.cache_read).saturating_sub(usage.cache_write);
    let cache_read = count("cache_read_input_tokens", usage.cache_read);
    let cache_write = count("cache_creation_input_tokens", usage.cache_write);
    Usage {
        input: count("input_tokens", uncached).saturating_add(cache_read).saturating_add(cache_write),
        output: count("output_tokens", usage.output),
        cache_read,
        cache_write,
        ..usage
    }
}
