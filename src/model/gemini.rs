//! Google's generateContent.
//!
//! The model's name is part of the URL, a refusal can come as a missing candidate with a block reason, and thought
//! tokens are counted beside the candidates' ones.

use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::schema::for_vendor;
use super::stream::Partial;
use super::{Author, ChatRequest, Finish};
use crate::wire::Usage;

/// The body of a request.
pub(super) fn body(request: &ChatRequest, with_schema: bool) -> Value {
    let contents: Vec<Value> = request
        .messages
        .iter()
        .map(|message| {
            let role = match message.author {
                Author::User => "user",
                Author::Assistant => "model",
            };
            json!({"role": role, "parts": [{"text": message.text}]})
        })
        .collect();
    let mut config = json!({"maxOutputTokens": request.max_output_tokens});
    if let Some(output) = request.schema.as_ref().filter(|_| with_schema) {
        config["responseMimeType"] = "application/json".into();
        config["responseJsonSchema"] = for_vendor(&output.schema);
    }
    let mut body = json!({"contents": contents, "generationConfig": config});
    if !request.system.is_empty() {
        body["systemInstruction"] = json!({"parts": [{"text": request.system}]});
    }
    body
}

/// Reads a reply; the error says what is missing.
pub(super) fn read(reply: &Map<String, Value>) -> Result<Answer, &'static str> {
    let usage = reply.get("usageMetadata").and_then(usage_of);
    let model = reply.get("modelVersion").and_then(Value::as_str).map(str::to_owned);
    let Some(candidate) = candidate_of(reply) else {
        let reason = blocked(reply).ok_or("it has no candidates")?;
        return Ok(Answer { text: reason.to_owned(), finish: Finish::Refusal, usage, model });
    };
    Ok(Answer { text: text_of(candidate), finish: finish_of(candidate).unwrap_or(Finish::Stop), usage, model })
}

/// Takes one event of a stream; each has the form of a whole reply, and the usage so far.
pub(super) fn chunk(event: &Map<String, Value>, partial: &mut Partial) {
    partial.usage = event.get("usageMetadata").and_then(usage_of).or(partial.usage);
    if let Some(model) = event.get("modelVersion").and_then(Value::as_str) {
        partial.model = Some(model.to_owned());
    }
    match candidate_of(event) {
        Some(candidate) => {
            partial.say(&text_of(candidate));
            partial.think(candidate.pointer("/content/parts/0/text"));
            partial.finish = finish_of(candidate).or(partial.finish.take());
        }
        None => {
            if let Some(reason) = blocked(event) {
                partial.refusal = reason.to_owned();
                partial.finish = Some(Finish::Refusal);
            }
        }
    }
}

fn candidate_of(reply: &Map<String, Value>) -> Option<&Value> {
    reply.get("candidates")?.get(0)
}

/// Why the prompt was refused.
fn blocked(reply: &Map<String, Value>) -> Option<&str> {
    reply.get("promptFeedback")?.get("blockReason")?.as_str()
}

fn text_of(candidate: &Value) -> String {
    let parts = candidate.pointer("/content/parts").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    parts
        .iter()
        .filter(|part| part.get("thought").and_then(Value::as_bool) != Some(true))
        .filter_map(|part| part.get("text").and_then(Value::as_str))
        .collect()
}

fn finish_of(candidate: &Value) -> Option<Finish> {
    Some(match candidate.get("finishReason")?.as_str()? {
        "STOP" => Finish::Stop,
        "MAX_TOKENS" => Finish::Length,
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE" => Finish::Refusal,
        other => Finish::Other(other.to_owned()),
    })
}

fn usage_of(usage: &Value) -> Option<Usage> {
    let count = |name: &str| usage.get(name).and_then(Value::as_u64);
    let extra = |name: &str| count(name).unwrap_or(0);
    Some(Usage {
        calls: 1,
        input: count("promptTokenCount")?.saturating_add(extra("toolUsePromptTokenCount")),
        output: extra("candidatesTokenCount").saturating_add(extra("thoughtsTokenCount")),
        cache_read: extra("cachedContentTokenCount"),
        cache_write: 0,
        ..Usage::default()
    })
}
