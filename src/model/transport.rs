//! One HTTP exchange with a model server: bounded, direct, and silent about the key.
//!
//! The client is our own so that these hold for every provider: a limit on connecting, no redirects (a redirected key
//! is a leaked key), no proxy for this machine, and an answer that is counted while it is read. A library that reads
//! the whole body first grew to 1.2 GiB in five seconds against an endless answer.

use std::error::Error as _;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, Url};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::Answer;
use super::classify::{Refusal, status_of};
use super::error::{ModelError, Peer, Silence};
use super::excerpt;
use super::options::Waits;
use super::provider::Provider;
use super::spec::{ApiKey, ModelSpec, blot_out, host_of, is_loopback};
use super::sse::{EVENT_BYTES_MAX, Events, TooLong};
use super::stream::{Partial, Stopped};

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
/// How long a stream may take to send its usage, and to end, after the reason of its answer's end.
const USAGE_S_MAX: u64 = 3;
/// How long a stream that said its last word may take to close, so that its connection can be used again.
const CLOSING_MS_MAX: u64 = 100;
/// Idle connections kept to the one server of a client.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// A way to one server.
pub(super) struct Transport {
    client: Client,
    headers: HeaderMap,
    key: Option<ApiKey>,
    peer: Arc<Peer>,
    waits: Waits,
}

/// The answer to a request for a stream.
pub(super) enum Streamed {
    /// The whole of what came in pieces.
    Answer(Answer),
    /// The server answered in one piece all the same.
    Whole(Map<String, Value>),
}

impl Transport {
    /// Prepares to ask the server of `spec` at `base`. Sends nothing.
    pub(super) fn new(spec: &ModelSpec, base: &Url, waits: Waits) -> Result<Self, ModelError> {
        let mut builder = Client::builder()
            .connect_timeout(Duration::from_secs(CONNECT_S_MAX))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .redirect(Policy::none())
            .no_gzip()
            .user_agent(concat!("oarlock/", env!("CARGO_PKG_VERSION")));
        if is_loopback(base) {
            builder = builder.no_proxy();
        }
        let client =
            builder.build().map_err(|error| ModelError::Settings(format!("no HTTP client could be made: {error}")))?;
        let peer = Peer { provider: Some(spec.provider), host: host_of(base), model: spec.model.clone() };
        Ok(Self { client, headers: headers(spec)?, key: spec.api_key.clone(), peer: Arc::new(peer), waits })
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

    /// Sends `body`, which asks for a stream, and puts what comes into `partial`.
    pub(super) async fn stream(&self, url: Url, body: &Value, partial: Partial) -> Result<Streamed, ModelError> {
        let begun = Instant::now();
        let sent = timeout(self.waits.first_byte, self.send(self.client.post(url).json(body))).await;
        let mut response = sent.map_err(|_| self.silent(Silence::FirstByte))??;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.to_ascii_lowercase().starts_with("text/event-stream") {
            return self.whole(response).await.map(Streamed::Whole);
        }
        self.events(&mut response, partial, begun + self.waits.first_byte).await.map(Streamed::Answer)
    }

    async fn events(
        &self,
        response: &mut Response,
        mut partial: Partial,
        first_until: Instant,
    ) -> Result<Answer, ModelError> {
        let (mut events, mut bytes) = (Events::default(), 0);
        let provider = self.peer.provider.unwrap_or(Provider::OpenAi);
        let mut last_until = None;
        let stopped = loop {
            let chunk = match self.next_chunk(response, &partial, first_until, &mut last_until).await {
                Ok(chunk) => chunk,
                // The answer is there, whatever becomes of what is behind it.
                Err(_) if partial.finish.is_some() => break Stopped::Ended,
                Err(error) => return Err(error),
            };
            let mut take = |data: &str| partial.take(provider, data);
            let taken = match &chunk {
                Some(chunk) => {
                    bytes += chunk.len();
                    events.feed(chunk, &mut take)
                }
                None => events.end(&mut take),
            };
            match taken {
                Ok(ControlFlow::Break(Stopped::Error(..) | Stopped::Malformed(_))) | Err(TooLong)
                    if partial.finish.is_some() =>
                {
                    break Stopped::Ended;
                }
                // Half an event is no broken one: the rest did not come.
                Ok(ControlFlow::Break(Stopped::Malformed(_))) if chunk.is_none() => break Stopped::Ended,
                Ok(ControlFlow::Break(stopped)) => break stopped,
                Ok(ControlFlow::Continue(())) if chunk.is_none() => break Stopped::Ended,
                Ok(ControlFlow::Continue(())) if bytes <= REPLY_BYTES_MAX => {}
                Ok(ControlFlow::Continue(())) => return Err(self.too_long()),
                Err(TooLong) => return Err(self.malformed(format!("an event has more than {EVENT_BYTES_MAX} bytes"))),
            }
        };
        match stopped {
            Stopped::Ended => {
                let closing = async { while let Ok(Some(_)) = response.chunk().await {} };
                let _ = timeout(Duration::from_millis(CLOSING_MS_MAX), closing).await;
                partial.into_answer().map_err(|why| self.truncated(why, None))
            }
            Stopped::Error(status, body) => Err(self.refusal(status, response.headers(), body.to_string().as_bytes())),
            Stopped::Malformed(why) => Err(self.malformed(format!("an event of its stream is no JSON object: {why}"))),
        }
    }

    /// The next piece of a stream, `None` at its end. Servers open a stream, and keep it alive, long before they have read the
    /// prompt: until the model's first word the wait is `first_until`'s, whatever else comes.
    async fn next_chunk(
        &self,
        response: &mut Response,
        partial: &Partial,
        first_until: Instant,
        last_until: &mut Option<Instant>,
    ) -> Result<Option<Bytes>, ModelError> {
        let now = Instant::now();
        let (until, silence) = match (&partial.finish, partial.begun) {
            (Some(_), _) => (*last_until.get_or_insert(now + Duration::from_secs(USAGE_S_MAX)), Silence::Between),
            (None, true) => (now + self.waits.read, Silence::Between),
            (None, false) if now >= first_until => return Err(self.silent(Silence::FirstByte)),
            (None, false) => (first_until, Silence::FirstByte),
        };
        let chunk = timeout_at(until, response.chunk()).await.map_err(|_| self.silent(silence))?;
        chunk.map_err(|error| self.truncated(what_broke(&error), Some(error)))
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Map<String, Value>, ModelError> {
        let response = self.send(request).await?;
        self.whole(response).await
    }

    /// Sends a request; an answer with an error status is an error.
    async fn send(&self, request: RequestBuilder) -> Result<Response, ModelError> {
        let request = request.headers(self.headers.clone());
        let mut response = request.send().await.map_err(|error| self.unavailable(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let (body, _) = read(&mut response, ERROR_BYTES_MAX, self.waits.read).await;
        Err(self.refusal(status.as_u16(), response.headers(), &body))
    }

    /// An answer in one piece.
    async fn whole(&self, mut response: Response) -> Result<Map<String, Value>, ModelError> {
        let (body, end) = read(&mut response, REPLY_BYTES_MAX, self.waits.read).await;
        match end {
            End::Complete => self.object(response.headers(), &body),
            End::TooLong => Err(self.too_long()),
            End::Silent => Err(self.silent(Silence::Between)),
            End::Broken(error) => Err(self.truncated(what_broke(&error), Some(error))),
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
                Err(self.refusal(status_of(error), headers, body))
            }
            _ => Ok(object),
        }
    }

    fn refusal(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> ModelError {
        let body = String::from_utf8_lossy(body);
        Refusal::read(Arc::clone(&self.peer), status, headers, &body, self.key.as_ref()).into_error()
    }

    fn malformed(&self, why: String) -> ModelError {
        ModelError::Malformed { peer: Arc::clone(&self.peer), why: blot_out(self.key.as_ref(), &why) }
    }

    fn too_long(&self) -> ModelError {
        self.garbled(format!("it has more than {} MiB", REPLY_BYTES_MAX / 1024 / 1024))
    }

    fn truncated(&self, why: &str, source: Option<reqwest::Error>) -> ModelError {
        let source = source.map(reqwest::Error::without_url);
        ModelError::Truncated { peer: Arc::clone(&self.peer), why: why.to_owned(), source }
    }

    fn silent(&self, silence: Silence) -> ModelError {
        let limit = match silence {
            Silence::FirstByte => self.waits.first_byte,
            Silence::Between => self.waits.read,
        };
        ModelError::Silent { peer: Arc::clone(&self.peer), silence, limit }
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
    Silent,
    Broken(reqwest::Error),
}

/// Reads an answer's body up to `bytes_max`, with at most `wait` between two pieces.
async fn read(response: &mut Response, bytes_max: usize, wait: Duration) -> (Vec<u8>, End) {
    let mut body = Vec::new();
    loop {
        let Ok(chunk) = timeout(wait, response.chunk()).await else { return (body, End::Silent) };
        match chunk {
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
