//! One HTTP exchange with a model server: bounded, direct, and silent about the key.
//!
//! The client is our own so that these hold for every provider: a limit on connecting, no redirects (a redirected key
//! is a leaked key), no proxy for this machine, and an answer that is counted while it is read. A library that reads
//! the whole body first grew to 1.2 GiB in five seconds against an endless answer.

use std::error::Error as _;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, Url};
use serde_json::{Map, Value};

use super::classify::Refusal;
use super::error::{ModelError, Peer};
use super::excerpt;
use super::provider::Provider;
use super::spec::{ApiKey, ModelSpec, blot_out, host_of, is_loopback};

/// Largest answer that is read. The longest outputs sold (128k tokens) are under 1 MiB of text.
pub const REPLY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What is read of an error answer; the rest is dropped.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for a connection, as in the vendors' SDKs.
const CONNECT_S_MAX: u64 = 5;
/// Version of the Anthropic API that the wire format in `anthropic.rs` is of.
const ANTHROPIC_VERSION: &str = "2023-06-01";
/// What an error shows of an answer that is no JSON.
const START_CHARS_MAX: usize = 80;
/// What the answers of the APIs have, one or the other, and an error has not.
const ANSWER_KEYS: [&str; 5] = ["choices", "content", "candidates", "data", "models"];
/// Idle connections kept to the one server of a client.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// A way to one server.
pub(super) struct Transport {
    client: Client,
    headers: HeaderMap,
    key: Option<ApiKey>,
    peer: Arc<Peer>,
}

impl Transport {
    /// Prepares to ask the server of `spec` at `base`. Sends nothing.
    pub(super) fn new(spec: &ModelSpec, base: &Url) -> Result<Self, ModelError> {
        let mut builder = Client::builder()
            .connect_timeout(Duration::from_secs(CONNECT_S_MAX))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .redirect(Policy::none())
            .user_agent(concat!("oarlock/", env!("CARGO_PKG_VERSION")));
        if is_loopback(base) {
            builder = builder.no_proxy();
        }
        let client =
            builder.build().map_err(|error| ModelError::Settings(format!("no HTTP client could be made: {error}")))?;
        let peer = Peer { provider: Some(spec.provider), host: host_of(base), model: spec.model.clone() };
        Ok(Self { client, headers: headers(spec)?, key: spec.api_key.clone(), peer: Arc::new(peer) })
    }

    /// Whom this asks.
    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Sends `body`; a success is a JSON object.
    pub(super) async fn post(&self, url: Url, body: &Value) -> Result<Map<String, Value>, ModelError> {
        self.exchange(self.client.post(url).json(body)).await
    }

    /// Asks for `url`; a success is a JSON object.
    pub(super) async fn get(&self, url: Url) -> Result<Map<String, Value>, ModelError> {
        self.exchange(self.client.get(url)).await
    }

    /// An answer of this server that is no use.
    pub(super) fn garbled(&self, why: impl Into<String>) -> ModelError {
        ModelError::Garbled { peer: Arc::clone(&self.peer), why: blot_out(self.key.as_ref(), &why.into()) }
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Map<String, Value>, ModelError> {
        let request = request.headers(self.headers.clone());
        let mut response = request.send().await.map_err(|error| self.unavailable(error))?;
        let status = response.status();
        if !status.is_success() {
            let (body, _) = read(&mut response, ERROR_BYTES_MAX).await;
            return Err(self.refusal(status.as_u16(), response.headers(), &body));
        }
        let (body, end) = read(&mut response, REPLY_BYTES_MAX).await;
        match end {
            End::Complete => self.object(response.headers(), &body),
            End::TooLong => Err(self.garbled(format!("it has more than {} MiB", REPLY_BYTES_MAX / 1024 / 1024))),
            End::Broken(error) => Err(self.unavailable(error)),
        }
    }

    fn object(&self, headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, ModelError> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(self.garbled("it is empty"));
        }
        let Ok(Value::Object(object)) = serde_json::from_slice(body) else {
            let start = excerpt(&String::from_utf8_lossy(&body[..body.len().min(1024)]), START_CHARS_MAX);
            return Err(self.garbled(format!("it is no JSON object and begins with {start:?}")));
        };
        // Some gateways send an error with status 200.
        match object.get("error") {
            Some(error) if !ANSWER_KEYS.iter().any(|key| object.contains_key(*key)) => {
                let code = error.get("code").and_then(Value::as_u64);
                let status = code.filter(|code| (400..600).contains(code)).unwrap_or(502);
                Err(self.refusal(status as u16, headers, body))
            }
            _ => Ok(object),
        }
    }

    fn refusal(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> ModelError {
        let body = String::from_utf8_lossy(body);
        Refusal::read(Arc::clone(&self.peer), status, headers, &body, self.key.as_ref()).into_error()
    }

    fn unavailable(&self, error: reqwest::Error) -> ModelError {
        ModelError::Unavailable {
            peer: Arc::clone(&self.peer),
            status: None,
            said: what_broke(&error).to_owned(),
            retry_after: None,
            retry: !error.is_builder(),
            source: Some(error.without_url()),
        }
    }
}

/// How reading an answer ended.
enum End {
    Complete,
    TooLong,
    Broken(reqwest::Error),
}

/// Reads an answer's body up to `bytes_max`.
async fn read(response: &mut Response, bytes_max: usize) -> (Vec<u8>, End) {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > bytes_max => {
                body.extend_from_slice(&chunk[..bytes_max - body.len()]);
                return (body, End::TooLong);
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return (body, End::Complete),
            Err(error) => return (body, End::Broken(error)),
        }
    }
}

/// The headers that let us in, marked as secret.
fn headers(spec: &ModelSpec) -> Result<HeaderMap, ModelError> {
    let mut headers = HeaderMap::new();
    if spec.provider == Provider::Anthropic {
        headers.insert("anthropic-version", HeaderValue::from_static(ANTHROPIC_VERSION));
    }
    if let Some(key) = &spec.api_key {
        let (name, text) = match spec.provider {
            Provider::OpenAi | Provider::Ollama => ("authorization", format!("Bearer {}", key.reveal())),
            Provider::Anthropic => ("x-api-key", key.reveal().to_owned()),
            Provider::Gemini => ("x-goog-api-key", key.reveal().to_owned()),
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| ModelError::Settings("the API key cannot be sent as a header; copy it again".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(headers)
}

/// What happened to the connection, in words; the source has the details.
fn what_broke(error: &reqwest::Error) -> &'static str {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            match io.kind() {
                ErrorKind::ConnectionRefused => return "connection refused",
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return "connection reset",
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => return "network unreachable",
                _ => {}
            }
        }
        source = cause.source();
    }
    match error {
        _ if error.is_connect() && error.is_timeout() => "connecting took too long",
        _ if error.is_connect() => "no connection",
        _ if error.is_body() || error.is_decode() => "the answer broke off",
        _ => "the connection broke off before an answer",
    }
}
