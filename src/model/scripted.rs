//! A model that answers from a script: for tests, demonstrations, and faults that no vendor sells.
//!
//! It keeps every promise of a real one: it takes time, costs tokens, and fails in the same kinds of error, which go
//! through the same retries. Time is tokio's, so a paused clock works.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::classify::Refusal;
use super::error::{ModelError, Peer};
use super::json::violations;
use super::latency::Latency;
use super::progress::Progress;
use super::repair::readings;
use super::rules::{Counts, compare, nearest};
use super::script::{Fault, Response, RuleAnswer, Says, Script, ScriptError};
use super::{
    Author, CallContext, ChatModel, ChatReply, ChatRequest, Finish, OutputSchema, Way, estimate_usage, excerpt,
};

/// What the log says at each call of a scripted model, once.
pub const COMPLETION: &str = "a completion is asked for";
/// What an error shows of a task's description.
const TASK_CHARS_MAX: usize = 120;
/// What the rule-less answers of the faults say.
const REFUSAL_TEXT: &str = "I cannot help with that.";
/// Text of a truncate or malformed fault whose rule has no response.
const BROKEN_TEXT: &str = "{\"answer\": \"this was cut in two\"}";

/// A model that answers from a [`Script`].
pub struct ScriptedModel {
    script: Arc<Script>,
    name: String,
    peer: Arc<Peer>,
    counts: Mutex<Counts>,
}

impl ScriptedModel {
    /// A model called `name` (rules can match on it) that answers from `script`.
    pub fn new(script: Arc<Script>, name: impl Into<String>) -> Self {
        let name = name.into();
        let peer = Arc::new(Peer { provider: None, host: "script".to_owned(), model: name.clone() });
        let counts = Mutex::new(Counts::new(&script.whens));
        Self { script, name, peer, counts }
    }

    /// The rules that could answer `role` and never did, for a report at shutdown.
    pub fn unused(&self, role: &str) -> Vec<String> {
        let counts = self.counts();
        let rules = self.script.whens.iter().zip(counts.used()).enumerate();
        rules
            .filter(|(_, (when, used))| !**used && when.conditions.concerns_role(role))
            .map(|(index, (when, _))| format!("rule {} {}", index + 1, when.conditions))
            .collect()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer of the rule that applies, with its number; `None` for the echo of a script that is not strict.
    fn pick(&self, request: &ChatRequest) -> Result<Option<(usize, &RuleAnswer)>, ScriptError> {
        let rules = &self.script.whens;
        let fits = compare(rules, request, &self.name);
        let task = format!("{}/{}", request.context.run, request.context.task_id);
        let picked = self.counts().pick(rules, &fits, &task);
        match picked {
            Some(index) => Ok(Some((index + 1, &self.script.answers[index]))),
            None if !self.script.strict => Ok(None),
            None => Err(ScriptError::NoMatch {
                role: request.context.role.clone(),
                task: excerpt(&request.context.task, TASK_CHARS_MAX),
                task_id: request.context.task_id.clone(),
                attempt: request.context.attempt,
                nearest: nearest(rules, &fits),
            }),
        }
    }

    /// Waits as the rule says; a wait longer than the request's timeout is a timeout.
    async fn wait(&self, latency: Latency, request: &ChatRequest) -> Result<(), ModelError> {
        let wait = latency.draw(self.script.seed, &request.context);
        sleep(wait.min(request.timeout)).await;
        if wait >= request.timeout && !wait.is_zero() { Err(self.timeout(request)) } else { Ok(()) }
    }

    fn timeout(&self, request: &ChatRequest) -> ModelError {
        ModelError::Timeout { peer: Arc::clone(&self.peer), limit: request.timeout }
    }

    fn disconnect(&self) -> ModelError {
        ModelError::Unavailable {
            peer: Arc::clone(&self.peer),
            status: None,
            said: "the script cut the connection".to_owned(),
            retry_after: None,
            retry: true,
            source: None,
        }
    }

    fn status(&self, status: u16, retry_after: Option<Duration>, kind: &str) -> ModelError {
        let mut headers = HeaderMap::new();
        if let Some(wait) = retry_after {
            headers.insert("retry-after-ms", HeaderValue::from(wait.as_millis() as u64));
        }
        let body = json!({"error": {"type": kind, "message": format!("the script says {kind}")}}).to_string();
        Refusal::read(Arc::clone(&self.peer), status, &headers, &body, None).into_error()
    }

    fn reply(&self, request: &ChatRequest, text: String, response: Option<&Response>, finish: Finish) -> ChatReply {
        let usage = response.and_then(|response| response.usage);
        let usage = usage.unwrap_or_else(|| estimate_usage(request, &text));
        if let Some(sink) = &request.progress {
            sink.tell(Progress::Begun);
            sink.tell(Progress::Text(&text));
        }
        ChatReply { text, finish, usage, model: self.name.clone(), way: Way::default() }
    }
}

#[async_trait]
impl ChatModel for ScriptedModel {
    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        let CallContext { run, task_id, attempt, .. } = &request.context;
        tracing::debug!(%run, task = %task_id, attempt, "{COMPLETION}");
        let Some((number, answer)) = self.pick(request)? else {
            self.wait(self.script.latency, request).await?;
            return Ok(self.reply(request, echo(request), None, Finish::Stop));
        };
        let response = answer.response.as_ref();
        let latency = match &answer.fault {
            Some(Fault::Timeout) => {
                sleep(request.timeout).await;
                return Err(self.timeout(request));
            }
            Some(Fault::Slow(latency)) => *latency,
            _ => response.and_then(|response| response.latency).unwrap_or(self.script.latency),
        };
        self.wait(latency, request).await?;
        let text = response.map(|response| text_of(response, request));
        let broken = |text: Option<String>| half(text.as_deref().unwrap_or(BROKEN_TEXT));
        let (text, finish) = match &answer.fault {
            Some(Fault::Status { status, retry_after, kind }) => return Err(self.status(*status, *retry_after, kind)),
            Some(Fault::Disconnect) => return Err(self.disconnect()),
            Some(Fault::Truncate) => (broken(text), Finish::Length),
            Some(Fault::Malformed) => (broken(text), Finish::Stop),
            Some(Fault::Refusal) => (text.unwrap_or_else(|| REFUSAL_TEXT.to_owned()), Finish::Refusal),
            Some(Fault::Slow(_) | Fault::Timeout) | None => {
                let text = text.unwrap_or_default();
                let finish = response.map_or(Finish::Stop, |response| response.finish.clone());
                match &request.schema {
                    Some(output) if finish == Finish::Stop => check_shape(number, &text, output)?,
                    _ => {}
                }
                (text, finish)
            }
        };
        Ok(self.reply(request, text, response, finish))
    }

    fn name(&self) -> &str {
        &self.name
    }
}

fn text_of(response: &Response, request: &ChatRequest) -> String {
    let (template, is_json) = match &response.says {
        Says::Echo => return echo(request),
        Says::Text(text) => (text.clone(), false),
        Says::Json(value) => (value.to_string(), true),
    };
    let task_id = &request.context.task_id;
    let quoted = Value::from(task_id.as_str()).to_string();
    let task_id = if is_json { quoted.trim_matches('"') } else { task_id };
    template.replace("{{task_id}}", task_id).replace("{{attempt}}", &request.context.attempt.to_string())
}

/// The last thing that the user said.
fn echo(request: &ChatRequest) -> String {
    let last = request.messages.iter().rfind(|message| message.author == Author::User);
    last.map(|message| message.text.clone()).unwrap_or_default()
}

/// The first half of a text.
fn half(text: &str) -> String {
    text.chars().take(text.chars().count() / 2).collect()
}

/// A wrong script fails here, and not as a mysterious second question.
fn check_shape(number: usize, text: &str, output: &OutputSchema) -> Result<(), ScriptError> {
    let misfit = |complaints: String| Err(ScriptError::Shape { number, schema: output.name.clone(), complaints });
    let schema = match jsonschema::validator_for(&output.schema) {
        Ok(schema) => schema,
        Err(error) => return misfit(format!("the schema itself is wrong: {error}")),
    };
    let mut first = None;
    for reading in readings(text) {
        let found = violations(&schema, &reading.value);
        if found.is_empty() {
            return Ok(());
        }
        first = first.or(Some(found));
    }
    misfit(first.map_or_else(|| "there is no JSON in it".to_owned(), |found| found.join("; ")))
}
