//! OpenAI's chat completions: also llama.cpp, Ollama, vLLM and most gateways.
//!
//! Compatible servers differ in what they leave out, so nothing but the text is demanded of a reply. Two facts decide
//! the request: OpenAI's newer models take only `max_completion_tokens` while other servers know only `max_tokens`,
//! and OpenAI's strict mode takes only schemas that list every property as required.

use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::schema::{for_grammar, for_vendor, is_strict, wire_name};
use super::stream::Partial;
use super::{Author, ChatRequest, Finish, ModelSpec, Provider};
use crate::wire::Usage;

/// Names of models, served by whomever, that refuse `max_tokens`.
const NEW_LIMIT_PREFIXES: [&str; 5] = ["gpt-5", "gpt-6", "o1", "o3", "o4"];

/// The body of a request.
pub(super) fn body(spec: &ModelSpec, request: &ChatRequest, with_schema: bool, streamed: bool) -> Value {
    let is_vendor = spec.provider == Provider::OpenAi && spec.is_at_vendor();
    let mut messages = Vec::new();
    if !request.system.is_empty() {
        messages.push(json!({"role": "system", "content": request.system}));
    }
    messages.extend(request.messages.iter().map(|message| {
        let role = match message.author {
            Author::User => "user",
            Author::Assistant => "assistant",
        };
        json!({"role": role, "content": message.text})
    }));
    let limit = if is_vendor || NEW_LIMIT_PREFIXES.iter().any(|prefix| spec.model.starts_with(prefix)) {
        "max_completion_tokens"
    } else {
        "max_tokens"
    };
    let mut body = json!({"model": spec.model, "stream": streamed, "messages": messages});
    if streamed {
        // Without it a stream tells no usage.
        body["stream_options"] = json!({"include_usage": true});
    }
    body[limit] = request.max_output_tokens.into();
    if let Some(output) = request.schema.as_ref().filter(|_| with_schema) {
        // Local servers turn bounds into grammar, the vendor refuses some of them.
        let schema = if is_vendor { for_vendor(&output.schema) } else { for_grammar(&output.schema) };
        body["response_format"] = json!({
            "type": "json_schema",
            "json_schema": {"name": wire_name(&output.name), "strict": is_strict(&schema), "schema": schema},
        });
    }
    body
}

/// Reads a reply; the error says what is missing.
pub(super) fn read(reply: &Map<String, Value>) -> Result<Answer, &'static str> {
    let choice = reply.get("choices").and_then(|choices| choices.get(0)).ok_or("it has no choices")?;
    let message = choice.get("message").ok_or("its choice has no message")?;
    let finish = finish_of(choice).unwrap_or(Finish::Stop);
    let (text, finish) = match message.get("refusal").and_then(Value::as_str) {
        Some(refusal) if !refusal.is_empty() => (refusal.to_owned(), Finish::Refusal),
        _ => (text_of(message.get("content")), finish),
    };
    Ok(Answer {
        text,
        finish,
        usage: reply.get("usage").and_then(usage_of),
        model: reply.get("model").and_then(Value::as_str).map(str::to_owned),
    })
}

/// Takes one event of a stream: some words, the reason of the end, or, after it and without a choice, the usage.
pub(super) fn chunk(event: &Map<String, Value>, partial: &mut Partial) {
    partial.usage = event.get("usage").and_then(usage_of).or(partial.usage);
    if let Some(model) = event.get("model").and_then(Value::as_str) {
        partial.model = Some(model.to_owned());
    }
    let Some(choice) = event.get("choices").and_then(|choices| choices.get(0)) else { return };
    if let Some(delta) = choice.get("delta") {
        partial.say(&text_of(delta.get("content")));
        // Servers of models that think call it one or the other.
        ["reasoning_content", "reasoning", "refusal"].iter().for_each(|name| partial.think(delta.get(name)));
        partial.refusal += delta.get("refusal").and_then(Value::as_str).unwrap_or_default();
    }
    partial.finish = finish_of(choice).or(partial.finish.take());
}

fn finish_of(choice: &Value) -> Option<Finish> {
    Some(match choice.get("finish_reason")?.as_str()? {
        "stop" => Finish::Stop,
        "length" => Finish::Length,
        "content_filter" => Finish::Refusal,
        other => Finish::Other(other.to_owned()),
    })
}

/// A content is a text, or a list of parts of which the texts count.
fn text_of(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect::<String>()
        }
        _ => String::new(),
    }
}

/// Cached tokens are a part of `prompt_tokens` here.
fn usage_of(usage: &Value) -> Option<Usage> {
    let count = |path: &str| usage.pointer(path).and_then(Value::as_u64);
    Some(Usage {
        calls: 1,
        input: count("/prompt_tokens")?,
        output: count("/completion_tokens")?,
        cache_read: count("/prompt_tokens_details/cached_tokens").unwrap_or(0),
        cache_write: count("/prompt_tokens_details/cache_write_tokens").unwrap_or(0),
        ..Usage::default()
    })
}
