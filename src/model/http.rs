//! A model behind an HTTP API.
//!
//! The three wire formats are written out in `openai.rs`, `anthropic.rs` and `gemini.rs`; what they share is here. The
//! protocol is what the settings say and is never guessed from the model's name, and the name is sent as given.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Url;
use serde_json::Value;

use super::answer::Answer;
use super::error::{ModelError, Peer};
use super::listing::{models, shown};
use super::options::Waits;
use super::progress::Progress;
use super::provider::Provider;
use super::spec::ModelSpec;
use super::stream::{Partial, is_about_streaming};
use super::transport::{Streamed, Transport};
use super::{ChatModel, ChatReply, ChatRequest, SchemaTold, Way, anthropic, estimate_usage, gemini, openai};

/// How long a server has to list its models when it does not have the one that was asked for.
const LIST_S_MAX: u64 = 5;

/// A model at a server. One request is one HTTP request; wrap it in [`super::Retrying`] for more patience.
pub struct HttpModel {
    spec: ModelSpec,
    name: String,
    base: Url,
    url: Url,
    transport: Transport,
    /// Set once the server has refused a schema: from then on the prompt carries it.
    schema_refused: AtomicBool,
    /// Set once the server has refused to stream.
    stream_refused: AtomicBool,
}

impl HttpModel {
    /// Prepares to ask; nothing is sent yet. Fails on a bad base URL, and without a key at a vendor's own address.
    pub fn new(spec: &ModelSpec, waits: Waits) -> Result<Self, ModelError> {
        let base = spec.base()?;
        let transport = Transport::new(spec, &base, waits)?;
        if spec.model.trim().is_empty() {
            return Err(ModelError::Settings(format!("no model is named for {}; name one", spec.provider)));
        }
        if spec.api_key.is_none() && spec.is_at_vendor() && spec.provider != Provider::Ollama {
            let said = "the vendor's own server needs one".to_owned();
            return Err(ModelError::Auth { peer: transport.peer().clone(), status: None, said });
        }
        Ok(Self {
            name: format!("{}/{}", spec.provider.id(), spec.model),
            url: completion_url(spec, base.clone())?,
            base,
            transport,
            spec: spec.clone(),
            schema_refused: AtomicBool::new(false),
            stream_refused: AtomicBool::new(false),
        })
    }

    /// Whom this asks.
    pub(super) fn peer(&self) -> &Arc<Peer> {
        self.transport.peer()
    }

    /// Asks, and once more without what the server turns out not to have.
    async fn ask(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        let mut asked = Asked {
            schema: request.schema.is_some() && !self.schema_refused.load(Ordering::Relaxed),
            stream: request.progress.is_some() && !self.stream_refused.load(Ordering::Relaxed),
        };
        let first = asked;
        loop {
            let error = match self.ask_once(request, asked).await {
                Ok(reply) => {
                    self.schema_refused.fetch_or(first.schema && !asked.schema, Ordering::Relaxed);
                    self.stream_refused.fetch_or(first.stream && !asked.stream, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(error) => error,
            };
            if asked.schema && is_about_schema(&error) {
                tracing::warn!(model = %self.name, %error, "schema refused; the prompt carries it instead");
                asked.schema = false;
            } else if asked.stream && is_about_streaming(&error) {
                tracing::warn!(model = %self.name, %error, "streaming refused; answers come in one piece");
                asked.stream = false;
            } else {
                return Err(self.with_models(error).await);
            }
        }
    }

    async fn ask_once(&self, request: &ChatRequest, asked: Asked) -> Result<ChatReply, ModelError> {
        let prompted = match &request.schema {
            Some(output) if !asked.schema => Some(with_schema_in_prompt(request, &output.schema)),
            _ => None,
        };
        let sent = prompted.as_ref().unwrap_or(request);
        let body = match self.spec.provider {
            Provider::OpenAi | Provider::Ollama => openai::body(&self.spec, sent, asked.schema, asked.stream),
            Provider::Anthropic => anthropic::body(&self.spec, sent, asked.schema, asked.stream),
            Provider::Gemini => gemini::body(sent, asked.schema),
        };
        let schema = match (&request.schema, asked.schema) {
            (None, _) => SchemaTold::Nobody,
            (Some(_), true) => SchemaTold::Server,
            (Some(_), false) => SchemaTold::Model,
        };
        let way = |streamed| Way { schema, streamed };
        if let Some(sink) = &request.progress {
            sink.tell(Progress::Begun);
        }
        let whole = match asked.stream {
            true => {
                let partial = Partial::new(request.progress.clone());
                match self.transport.stream(self.stream_url(), &body, partial).await? {
                    Streamed::Answer(answer) => return Ok(self.reply(sent, answer, way(true))),
                    Streamed::Whole(reply) => reply,
                }
            }
            false => self.transport.post(self.url.clone(), &body).await?,
        };
        let answer = match self.spec.provider {
            Provider::OpenAi | Provider::Ollama => openai::read(&whole),
            Provider::Anthropic => anthropic::read(&whole),
            Provider::Gemini => gemini::read(&whole),
        };
        let answer = answer.map_err(|why| self.transport.garbled(why))?;
        if let Some(sink) = &request.progress {
            sink.tell(Progress::Text(&answer.text));
        }
        Ok(self.reply(sent, answer, way(false)))
    }

    fn reply(&self, sent: &ChatRequest, answer: Answer, way: Way) -> ChatReply {
        // Servers that do not count send zeros or nothing.
        let counted = answer.usage.filter(|usage| usage.input > 0 || usage.output > 0);
        ChatReply {
            usage: counted.unwrap_or_else(|| estimate_usage(sent, &answer.text)),
            text: answer.text,
            finish: answer.finish,
            model: answer.model.unwrap_or_else(|| self.spec.model.clone()),
            way,
        }
    }

    /// Gemini streams at another address; the others are told in the request.
    fn stream_url(&self) -> Url {
        let mut url = self.url.clone();
        if self.spec.provider == Provider::Gemini {
            let path = url.path().replace(":generateContent", ":streamGenerateContent");
            url.set_path(&path);
            url.set_query(Some("alt=sse"));
        }
        url
    }

    /// A refusal that may mean that the model does not exist, with the models that do. A bare 404 says so when a gateway lists
    /// the model under our whole name for it.
    async fn with_models(&self, error: ModelError) -> ModelError {
        let ModelError::BadRequest { peer, status, said } = error else { return error };
        let is_about_model = is_about_model(status, &said);
        if is_about_model || status == 404 {
            let limit = Duration::from_secs(LIST_S_MAX);
            let listed = models(&self.transport, self.spec.provider, &self.base, limit).await;
            if let Some(listing) = listed.ok().filter(|listing| listing.lacks(&self.spec.model)) {
                let served = listing.names.iter().find(|name| **name == self.name).cloned();
                if is_about_model || served.is_some() {
                    return ModelError::UnknownModel { peer, status, said, has: shown(&listing.names), served };
                }
            }
        }
        ModelError::BadRequest { peer, status, said }
    }
}

/// What is asked of a server beyond a completion.
#[derive(Clone, Copy)]
struct Asked {
    /// The schema goes into the request, and not into the prompt.
    schema: bool,
    /// The answer is to come in pieces.
    stream: bool,
}

#[async_trait]
impl ChatModel for HttpModel {
    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        match tokio::time::timeout(request.timeout, self.ask(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ModelError::Timeout { peer: self.transport.peer().clone(), limit: request.timeout }),
        }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// Where completions are asked for.
fn completion_url(spec: &ModelSpec, mut url: Url) -> Result<Url, ModelError> {
    {
        let mut path = url
            .path_segments_mut()
            .map_err(|()| ModelError::Settings("the base URL cannot hold a path; write it with http".to_owned()))?;
        match spec.provider {
            Provider::OpenAi | Provider::Ollama => path.extend(["chat", "completions"]),
            Provider::Anthropic => path.push("messages"),
            Provider::Gemini => {
                let model = spec.model.strip_prefix("models/").unwrap_or(&spec.model);
                path.push("models").push(&format!("{model}:generateContent"))
            }
        };
    }
    Ok(url)
}

/// True for a refusal that complains about the schema, about what a server made of it (llama.cpp: "Failed to initialize
/// samplers: failed to parse grammar"), or about structured output as such.
fn is_about_schema(error: &ModelError) -> bool {
    let ModelError::BadRequest { said, .. } = error else { return false };
    let said = said.to_ascii_lowercase();
    ["schema", "response_format", "output_config", "structured output", "grammar", "initialize samplers"]
        .iter()
        .any(|word| said.contains(word))
}

/// True for a refusal that may mean that there is no such model.
fn is_about_model(status: u16, said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    let unknown = ["not found", "not exist", "unknown", "no such", "not supported", "invalid model"];
    said.contains("model") && (status == 404 || unknown.iter().any(|words| said.contains(words)))
}

fn with_schema_in_prompt(request: &ChatRequest, schema: &Value) -> ChatRequest {
    let mut request = request.clone();
    let rule = format!("Answer with JSON alone, without any other text. It must fit this JSON Schema:\n{schema}");
    request.system = if request.system.is_empty() { rule } else { format!("{}\n\n{rule}", request.system) };
    request
}
