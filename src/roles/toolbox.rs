//! A role that has tools or may ask: call and answer in turn, until it answers or asks.
//!
//! No vendor's own tool calling is used, so that every model can do it: while a role has tools, each of its answers is one
//! JSON object with either a call or the answer. What a tool says goes back into the conversation as material between two
//! marks that it cannot know. Calls are bounded in number, time and bytes; past a bound the model is told to answer now.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::asking::{self, Askable};
use super::briefing::Briefing;
use super::toolwords::{self, Step, Ways};
use super::{CALL_SHARE, Desk, Stopped};
use crate::model::{ChatMessage, ChatRequest};
use crate::tools::{Offer, ToolAnswer, ToolError};
use crate::wire::{ContentHash, Event, EventKind, Usage, limits};

/// Part of a task's time in which calls may begin; the rest is for the answer.
const CALLS_SHARE: (u32, u32) = (1, 2);
/// Part of the time that is left which one call, or the start of all servers, may take.
const CALL_PART: u32 = 4;
/// Bytes of all results of one task.
const RESULTS_BYTES_MAX: usize = 128 * 1024;
/// Bytes of one call's arguments.
const ARGUMENTS_BYTES_MAX: usize = 64 * 1024;
/// The part of its own call that a model is shown again.
const SHOWN_AGAIN_BYTES_MAX: usize = 4 * 1024;

/// Asks for an answer of `shape` that `check` takes, with tools in between. The error may be a question to one of `asks`.
pub(super) async fn ask<T: Send>(
    desk: &Desk,
    asks: &[Askable],
    briefing: &Briefing,
    usage: &mut Usage,
    shape: &Value,
    check: impl Fn(&Value) -> Result<T, Vec<String>> + Send + Sync,
) -> Result<T, Stopped> {
    let request = desk.request(briefing, None)?;
    let mut talk = Talk::begin(desk, asks, briefing, request).await;
    loop {
        let ways = Ways { tools: desk.tools.is_some(), may_call: talk.may_call(), asks };
        talk.request.schema = Some(toolwords::schema(desk.definition.role, shape, ways));
        let (share, whole) = CALL_SHARE;
        talk.request.timeout = talk.time_left() * share / whole;
        let read = |value: &Value| toolwords::read(value, ways, &check);
        match desk.complete(talk.request.clone(), usage, read).await? {
            Step::Answer(answer) => return Ok(answer),
            Step::Question(question) => return Err(Stopped::Asks(question)),
            Step::Call { tool, arguments } => talk.call(&tool, arguments).await,
        }
    }
}

/// The conversation of one task.
struct Talk<'a> {
    desk: &'a Desk,
    briefing: &'a Briefing,
    offer: Offer,
    request: ChatRequest,
    calls: u32,
    bytes_left: usize,
    /// How often each call was made, by what was asked.
    made: HashMap<ContentHash, u32>,
}

impl<'a> Talk<'a> {
    async fn begin(desk: &'a Desk, asks: &[Askable], briefing: &'a Briefing, request: ChatRequest) -> Self {
        let offer = Offer { tools: Vec::new(), missing: Vec::new() };
        let (bytes_left, made) = (RESULTS_BYTES_MAX, HashMap::new());
        let mut talk = Self { desk, briefing, offer, request, calls: 0, bytes_left, made };
        if let Some(tools) = &desk.tools {
            talk.offer = tools.offer(talk.time_left() / CALL_PART).await;
        }
        for error in &talk.offer.missing {
            talk.tell(false, &format!("failed to {error}")).await;
        }
        let others = asking::others(&desk.store, &briefing.task, asks).await;
        let offer = desk.tools.is_some().then_some(&talk.offer);
        let words = toolwords::introduction(offer, desk.definition.limits.tool_calls, asks, &others);
        if let Some(prompt) = talk.request.messages.last_mut() {
            prompt.text += &words;
        }
        talk
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.briefing.task.limit_ms)
    }

    fn time_left(&self) -> Duration {
        self.limit().saturating_sub(self.briefing.started.elapsed())
    }

    fn may_call(&self) -> bool {
        let (share, whole) = CALLS_SHARE;
        let in_time = self.briefing.started.elapsed() < self.limit() * share / whole;
        let left = self.calls < self.desk.definition.limits.tool_calls && self.bytes_left > 0;
        in_time && left && !self.offer.tools.is_empty()
    }

    /// Makes one call, whatever comes of it, and adds both to the conversation.
    async fn call(&mut self, tool: &str, arguments: Value) {
        self.calls += 1;
        let shown = toolwords::shown_call(tool, &arguments, SHOWN_AGAIN_BYTES_MAX);
        let began = Instant::now();
        let outcome = self.outcome(tool, arguments).await;
        let ms = began.elapsed().as_millis();
        let (answer, name) = match outcome {
            Ok((answer, name)) => (answer, name),
            Err(error) => {
                let text = format!("failed to {error}");
                (ToolAnswer { bytes: text.len(), text, ok: false }, toolwords::shown_name(tool))
            }
        };
        let text = limits::cut(&answer.text, self.bytes_left);
        self.bytes_left = self.bytes_left.saturating_sub(text.len());
        let verdict = if answer.ok { "ok".to_owned() } else { format!("failed: {}", toolwords::shown_name(&text)) };
        self.tell(answer.ok, &format!("{name}: {} bytes in {ms} ms, {verdict}", answer.bytes)).await;
        let left = if self.may_call() { self.desk.definition.limits.tool_calls - self.calls } else { 0 };
        self.request.messages.push(ChatMessage::assistant(shown));
        self.request.messages.push(ChatMessage::user(toolwords::result(&name, answer.ok, &text, left)));
    }

    async fn outcome(&mut self, tool: &str, arguments: Value) -> Result<(ToolAnswer, String), ToolError> {
        let limit = self.time_left() / CALL_PART;
        let offered = self.offer.tool(tool)?;
        let arguments = object(&offered.name(), arguments)?;
        let key = key(&mut self.made, self.briefing, &offered.name(), &arguments);
        let answer = offered.call(arguments, &key, limit).await?;
        self.briefing.called.answered(offered.name());
        Ok((answer, offered.name()))
    }

    /// Tells people what was called, as an event and in the log, and never with which words.
    async fn tell(&self, ok: bool, text: &str) {
        let task = &self.briefing.task;
        let (run, id, attempt) = (&task.run, &task.id, task.attempt);
        match ok {
            true => tracing::info!(%run, task = %id, attempt, "tool {text}"),
            false => tracing::warn!(%run, task = %id, attempt, "tool {text}"),
        }
        self.desk.bus.tell(&Event::of_task(run, id, task.role, attempt, EventKind::Tool, text)).await;
    }
}

/// The name of a call for its server: the same for the same call of the same attempt, also when the task is worked on again
/// after its worker died.
fn key(
    made: &mut HashMap<ContentHash, u32>,
    briefing: &Briefing,
    tool: &str,
    arguments: &Map<String, Value>,
) -> String {
    let task = &briefing.task;
    let asked = ContentHash::of(format!("{tool} {}", Value::Object(arguments.clone())).as_bytes());
    let times = made.entry(asked.clone()).or_default();
    *times += 1;
    format!("{}.{}.{}.{asked}.{times}", task.run, task.id, task.attempt)
}

/// Arguments are an object, or one as text: strict structured outputs know no object of any shape.
fn object(tool: &str, arguments: Value) -> Result<Map<String, Value>, ToolError> {
    let refused = |why: String| ToolError::Arguments { tool: tool.to_owned(), complaints: vec![why] };
    let bytes = arguments.to_string().len();
    if bytes > ARGUMENTS_BYTES_MAX {
        return Err(refused(format!("they have {bytes} bytes, more than arguments_bytes_max {ARGUMENTS_BYTES_MAX}")));
    }
    let arguments = match arguments {
        Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
        Value::String(text) => {
            serde_json::from_str(&text).map_err(|error| refused(format!("the text is no JSON ({error})")))?
        }
        other => other,
    };
    match arguments {
        Value::Object(map) => Ok(map),
        _ => Err(refused("they are no JSON object".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_come_as_an_object_or_as_its_text() {
        let read = |value| object("s/t", value).map(Value::Object);
        assert_eq!(read(json!({"a": 1})), Ok(json!({"a": 1})));
        assert_eq!(read(json!("{\"a\": 1}")), Ok(json!({"a": 1})));
        assert_eq!(read(json!("")), Ok(json!({})));
        for (value, says) in [
            (json!("{\"a\": "), "no JSON"),
            (json!("[1]"), "no JSON object"),
            (json!("x".repeat(70_000)), "arguments_bytes_max"),
        ] {
            let error = read(value).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
