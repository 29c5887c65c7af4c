//! A model behind an HTTP API.
//!
//! The three wire formats are written out in `openai.rs`, `anthropic.rs` and `gemini.rs`; what they share is here. The
//! protocol is what the settings say and is never guessed from the model's name, and the name is sent as given.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use reqwest::Url;
use serde_json::Value;

use super::error::ModelError;
use super::provider::Provider;
use super::spec::ModelSpec;
use super::transport::Transport;
use super::{ChatModel, ChatReply, ChatRequest, anthropic, estimate_usage, gemini, openai};

/// A model at a server. One request is one HTTP request; wrap it in [`super::Retrying`] for more patience.
pub struct HttpModel {
    spec: ModelSpec,
    name: String,
    url: Url,
    transport: Transport,
    /// Set once the server has refused a schema: from then on the prompt carries it.
    schema_refused: AtomicBool,
}

impl HttpModel {
    /// Prepares to ask; nothing is sent yet. Fails on a bad base URL, and without a key at a vendor's own address.
    pub fn new(spec: &ModelSpec) -> Result<Self, ModelError> {
        let base = spec.base()?;
        let transport = Transport::new(spec, &base)?;
        if spec.model.trim().is_empty() {
            return Err(ModelError::Settings(format!("no model is named for {}; name one", spec.provider)));
        }
        if spec.api_key.is_none() && spec.is_at_vendor() && spec.provider != Provider::Ollama {
            let said = "the vendor's own server needs one".to_owned();
            return Err(ModelError::Auth { peer: transport.peer().clone(), status: None, said });
        }
        Ok(Self {
            name: format!("{}/{}", spec.provider.id(), spec.model),
            url: completion_url(spec, base)?,
            transport,
            spec: spec.clone(),
            schema_refused: AtomicBool::new(false),
        })
    }

    async fn ask(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        let native = request.schema.is_some() && !self.schema_refused.load(Ordering::Relaxed);
        match self.ask_once(request, native).await {
            Err(ModelError::BadRequest { said, .. }) if native && is_about_schema(&said) => {
                tracing::warn!(model = %self.name, said, "schema refused; the prompt carries it instead");
                let reply = self.ask_once(request, false).await?;
                self.schema_refused.store(true, Ordering::Relaxed);
                Ok(reply)
            }
            outcome => outcome,
        }
    }

    async fn ask_once(&self, request: &ChatRequest, native_schema: bool) -> Result<ChatReply, ModelError> {
        let prompted = match &request.schema {
            Some(output) if !native_schema => Some(with_schema_in_prompt(request, &output.schema)),
            _ => None,
        };
        let sent = prompted.as_ref().unwrap_or(request);
        let body = match self.spec.provider {
            Provider::OpenAi | Provider::Ollama => openai::body(&self.spec, sent, native_schema),
            Provider::Anthropic => anthropic::body(&self.spec, sent, native_schema),
            Provider::Gemini => gemini::body(sent, native_schema),
        };
        let reply = self.transport.post(self.url.clone(), &body).await?;
        let answer = match self.spec.provider {
            Provider::OpenAi | Provider::Ollama => openai::read(&reply),
            Provider::Anthropic => anthropic::read(&reply),
            Provider::Gemini => gemini::read(&reply),
        };
        let answer = answer.map_err(|why| self.transport.garbled(why))?;
        // Servers that do not count send zeros or nothing.
        let counted = answer.usage.filter(|usage| usage.input > 0 || usage.output > 0);
        Ok(ChatReply {
            usage: counted.unwrap_or_else(|| estimate_usage(sent, &answer.text)),
            text: answer.text,
            finish: answer.finish,
            model: answer.model.unwrap_or_else(|| self.spec.model.clone()),
        })
    }
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

/// True for a refusal that complains about the schema or about structured output as such.
fn is_about_schema(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    ["schema", "response_format", "output_config", "structured output"].iter().any(|word| said.contains(word))
}

fn with_schema_in_prompt(request: &ChatRequest, schema: &Value) -> ChatRequest {
    let mut request = request.clone();
    let rule = format!("Answer with JSON alone, without any other text. It must fit this JSON Schema:\n{schema}");
    request.system = if request.system.is_empty() { rule } else { format!("{}\n\n{rule}", request.system) };
    request
}
