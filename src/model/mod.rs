//! Asking a language model, whoever serves it.
//!
//! Every role asks through one trait, [`ChatModel`]; the second implementation besides HTTP is the scripted one, which
//! answers from a file, so that a whole fleet can be tested and shown without a key. Policy of this room:
//!
//! - nothing is read from the environment and nothing is printed: settings come as arguments, results as values;
//! - a reply is untrusted: its size is bounded while it is read, its JSON is parsed, repaired and checked before use;
//! - every wait ends: one completion takes at most [`ChatRequest::timeout`], retries included;
//! - an error says whom we asked, what they said and what to do next, and never holds a key or a whole prompt.

mod answer;
mod anthropic;
mod choose;
mod classify;
mod error;
mod gemini;
mod http;
mod json;
mod latency;
mod listing;
mod openai;
mod options;
mod prices;
mod progress;
mod provider;
mod repair;
mod retry;
mod rules;
mod schema;
mod script;
mod scripted;
mod spec;
mod sse;
mod stream;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use choose::{Choice, DEFAULT_MODELS, ModelSettings, Probes, ProviderSettings, choose};
pub use error::{ModelError, Peer, RETRY_AFTER_S_MAX, Silence};
pub use http::HttpModel;
pub use json::{JSON_BYTES_MAX, JsonError, JsonReply, complete_json, complete_json_checked};
pub use options::{CallLimits, FIRST_BYTE_S, ModelOptions, READ_S, Waits};
pub use prices::{PRICES_BYTES_MAX, PriceError, Prices};
pub use progress::{Progress, ProgressSink};
pub use provider::Provider;
pub use retry::{LIMITED_S, RETRIES_MAX, Retrying};
pub use script::{SCRIPT_BYTES_MAX, Script, ScriptError};
pub use scripted::{COMPLETION, ScriptedModel};
pub use spec::{ApiKey, ModelSpec};
pub use transport::REPLY_BYTES_MAX;

use crate::wire::Usage;

/// Something that completes a conversation.
#[async_trait]
pub trait ChatModel: Send + Sync {
    /// Asks for one completion. Ends within `request.timeout`, with a reply or with an error that names the peer.
    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError>;

    /// The model as it was configured, for logs and reports.
    fn name(&self) -> &str;
}

#[async_trait]
impl<M: ChatModel + ?Sized> ChatModel for Arc<M> {
    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        (**self).complete(request).await
    }

    fn name(&self) -> &str {
        (**self).name()
    }
}

/// What is asked of a model.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    /// Who the model is to be and what the rules are; empty for none.
    pub system: String,
    /// The conversation so far; the last message is the user's.
    pub messages: Vec<ChatMessage>,
    /// The shape that the answer must have, when it is to be JSON.
    pub schema: Option<OutputSchema>,
    /// The reply is cut off after so many tokens ([`Finish::Length`]).
    pub max_output_tokens: u32,
    /// The completion is given up after this time, retries included.
    pub timeout: Duration,
    /// For whom this is asked.
    pub context: CallContext,
    /// Who hears of it while it goes on; with one, servers are asked to stream.
    pub progress: Option<ProgressSink>,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// Whose turn it was.
    pub author: Author,
    /// What was said.
    pub text: String,
}

impl ChatMessage {
    /// A message of the user.
    pub fn user(text: impl Into<String>) -> Self {
        Self { author: Author::User, text: text.into() }
    }

    /// A message of the model.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self { author: Author::Assistant, text: text.into() }
    }
}

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

/// A JSON Schema with a name.
#[derive(Clone, Debug)]
pub struct OutputSchema {
    /// Short name; vendors see it, scripts match on it.
    pub name: String,
    /// The schema itself.
    pub schema: serde_json::Value,
}

/// For whom a completion is asked: the scripted model and the logs look at it; it is never sent to a provider.
#[derive(Clone, Debug, Default)]
pub struct CallContext {
    /// The run.
    pub run: String,
    /// Role of the worker that asks.
    pub role: String,
    /// Description of the task.
    pub task: String,
    /// Id of the task, unique in its run.
    pub task_id: String,
    /// Which attempt of the task this is, from 1.
    pub attempt: u32,
}

/// A completion.
#[derive(Clone, Debug)]
pub struct ChatReply {
    /// What the model said; for a refusal, its reason if it gave one.
    pub text: String,
    /// Why it stopped.
    pub finish: Finish,
    /// What it cost.
    pub usage: Usage,
    /// The model that answered, as the server names it.
    pub model: String,
    /// How it was asked, and how the answer came.
    pub way: Way,
}

/// How a completion was asked for, after what the server turned out not to have, and how it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Who was told of the schema.
    pub schema: SchemaTold,
    /// True when the server sent the answer as a stream of events, and not whole.
    pub streamed: bool,
}

/// Who was told which shape an answer must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchemaTold {
    /// Nobody: there was no schema, or no server.
    #[default]
    Nobody,
    /// The server, which took it. Some take a schema and do not heed it.
    Server,
    /// The model, in its prompt, because the server refused the schema.
    Model,
}

/// Why a completion ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model was done.
    Stop,
    /// The token limit or the context window cut it off.
    Length,
    /// The model paused a long turn and would go on if it were asked to.
    Paused,
    /// The model or the vendor's filter refused.
    Refusal,
    /// Anything else, in the server's word.
    Other(String),
}

/// The model behind `spec`, over HTTP, with retries, within the limits and at the prices of `options`.
pub fn open(spec: &ModelSpec, options: &ModelOptions) -> Result<Arc<dyn ChatModel>, ModelError> {
    let model = HttpModel::new(spec, options.waits)?;
    let peer = model.peer().clone();
    let model = prices::Priced::new(model, spec, &options.prices);
    Ok(Arc::new(Retrying::new(options::Limited::new(model, peer, &options.calls))))
}

/// Bytes per token of an estimate: the usual rule of thumb for English and code.
pub const BYTES_PER_TOKEN: u64 = 4;

/// About how many tokens the request's conversation has, its schema left out.
pub fn estimated_tokens(request: &ChatRequest) -> u64 {
    let asked = request.system.len() + request.messages.iter().map(|message| message.text.len()).sum::<usize>();
    (asked as u64).div_ceil(BYTES_PER_TOKEN)
}

/// Usage for a server that sent none.
fn estimate_usage(request: &ChatRequest, reply: &str) -> Usage {
    Usage {
        calls: 1,
        input: estimated_tokens(request),
        output: (reply.len() as u64).div_ceil(BYTES_PER_TOKEN),
        estimated: true,
        ..Usage::default()
    }
}

/// The first `chars_max` characters of a text on one line, for messages.
fn excerpt(text: &str, chars_max: usize) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &one_line[..end]),
        None => one_line,
    }
}
