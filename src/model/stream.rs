//! A reply that comes in pieces, put together.
//!
//! A stream says when it is whole: by a finish reason, or by an end mark. One that merely stops is truncated, however
//! good its text looks, because half a file is no file.

use std::ops::ControlFlow;

use serde_json::{Map, Value};

use super::answer::Answer;
use super::classify::status_of;
use super::progress::{Progress, ProgressSink};
use super::{Finish, ModelError, Provider, anthropic, gemini, openai};
use crate::wire::Usage;

/// The end mark of OpenAI's streams.
const DONE: &str = "[DONE]";

/// What has come so far.
#[derive(Default)]
pub(super) struct Partial {
    pub(super) text: String,
    /// Words of a refusal, which take the place of the text.
    pub(super) refusal: String,
    pub(super) finish: Option<Finish>,
    pub(super) usage: Option<Usage>,
    pub(super) model: Option<String>,
    /// True once the model has written anything, thoughts that nobody is shown included.
    pub(super) begun: bool,
    sink: Option<ProgressSink>,
    ended: bool,
}

/// Why a stream is read no further.
pub(super) enum Stopped {
    /// It is whole.
    Ended,
    /// The server reports an error, with the status that it would have had as an answer.
    Error(u16, Value),
    /// A piece of it is not JSON, or no object; the text tells.
    Malformed(String),
}

impl Partial {
    pub(super) fn new(sink: Option<ProgressSink>) -> Self {
        Self { sink, ..Self::default() }
    }

    /// The next words.
    pub(super) fn say(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.begun = true;
        self.text += text;
        if let Some(sink) = &self.sink {
            sink.tell(Progress::Text(text));
        }
    }

    /// The model wrote something that is no part of its text.
    pub(super) fn think(&mut self, text: Option<&Value>) {
        self.begun |= text.and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    }

    /// The stream is over, as its server says.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Takes one event of `provider`'s format.
    pub(super) fn take(&mut self, provider: Provider, data: &str) -> ControlFlow<Stopped> {
        if data.trim() == DONE {
            self.end();
            return ControlFlow::Break(Stopped::Ended);
        }
        let event: Map<String, Value> = match serde_json::from_str(data) {
            Ok(event) => event,
            Err(error) => return ControlFlow::Break(Stopped::Malformed(error.to_string())),
        };
        if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
            return ControlFlow::Break(Stopped::Error(status_of(error), Value::Object(event)));
        }
        match provider {
            Provider::OpenAi | Provider::Ollama => openai::chunk(&event, self),
            Provider::Anthropic => anthropic::chunk(&event, self),
            Provider::Gemini => gemini::chunk(&event, self),
        }
        if self.ended { ControlFlow::Break(Stopped::Ended) } else { ControlFlow::Continue(()) }
    }

    /// The reply, or what says that it is not whole.
    pub(super) fn into_answer(self) -> Result<Answer, &'static str> {
        if self.finish.is_none() && !self.ended {
            return Err("the stream ended before the answer did");
        }
        let finish = self.finish.unwrap_or(Finish::Stop);
        let (text, finish) = match self.refusal.is_empty() {
            true => (self.text, finish),
            false => (self.refusal, Finish::Refusal),
        };
        Ok(Answer { text, finish, usage: self.usage, model: self.model })
    }
}

/// True for an error that the answer might not have if it were not streamed. Whole words: `upstream` is about something else.
pub(super) fn is_about_streaming(error: &ModelError) -> bool {
    let ModelError::BadRequest { said, .. } = error else { return false };
    let said = said.to_ascii_lowercase();
    said.split(|c: char| !c.is_alphanumeric())
        .any(|word| ["stream", "streams", "streamed", "streaming"].contains(&word))
}
