//! Google's generateContent.
//!
//! The model's name is part of the URL, a refusal can come as a missing candidate with a block reason, and thought
//! tokens are counted beside the candidates' ones.

use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::schema::for_vendor;
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
    let Some(candidate) = reply.get("candidates").and_then(|candidates| candidates.get(0)) else {
        let feedback = reply.get("promptFeedback").and_then(|feedback| feedback.get("blockReason"));
        let reason = feedback.and_then(Value::as_str).ok_or("it has no candidates")?;
        return Ok(Answer { text: reason.to_owned(), finish: Finish::Refusal, usage, model });
    };
    let parts = candidate.pointer("/content/parts").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text = parts
        .iter()
        .filter(|part| part.get("thought").and_then(Value::as_bool) != Some(true))
        .filter_map(|part| part.get("text").and_then(Value::as_str))
        .collect();
    let finish = match candidate.get("finishReason").and_then(Value::as_str) {
        Some("STOP") | None => Finish::Stop,
        Some("MAX_TOKENS") => Finish::Length,
        Some("SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE") => Finish::Refusal,
        Some(other) => Finish::Other(other.to_owned()),
    };
    Ok(Answer { text, finish, usage, model })
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
        estimated: false,
    })
}
