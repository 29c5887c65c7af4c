//! A server that answers as told and remembers what it was asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use oarlock::model::{
    ApiKey, CallContext, ChatMessage, ChatModel, ChatRequest, ModelError, ModelOptions, ModelSpec, OutputSchema,
    Provider,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// What the server does with one request.
#[derive(Clone)]
pub enum Act {
    /// Status, further header lines, body.
    Answer(u16, &'static str, String),
    /// These bytes as they are, then the end of the connection.
    Raw(&'static str),
    /// These bytes as they are, and then nothing more, for ever.
    Open(&'static str),
    /// These bytes, then this after each pause, for ever.
    Drip(&'static str, Duration, &'static str),
    /// Headers, then spaces for ever.
    Endless,
    /// Nothing, for ever.
    Silence,
    /// The connection is reset.
    Reset,
}

impl Act {
    pub fn ok(body: &Value) -> Self {
        Self::Answer(200, "content-type: application/json\r\n", body.to_string())
    }
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub head: String,
    pub body: Value,
}

/// A server on a free port; the last act is repeated.
pub struct Server {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, acts.clone(), Arc::clone(&log)));
            }
        });
        Self { url, seen, task }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, acts: Vec<Act>, log: Arc<Mutex<Vec<Seen>>>) {
    while let Some(seen) = read_request(&mut stream).await {
        let act = {
            let mut log = log.lock().unwrap();
            log.push(seen);
            acts[(log.len() - 1).min(acts.len() - 1)].clone()
        };
        match act {
            Act::Answer(status, headers, body) => {
                let head = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n", body.len());
                if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
                    return;
                }
            }
            Act::Raw(bytes) => {
                let _ = stream.write_all(bytes.as_bytes()).await;
                return;
            }
            Act::Open(bytes) => {
                let _ = stream.write_all(bytes.as_bytes()).await;
                return std::future::pending().await;
            }
            Act::Drip(bytes, pause, more) => {
                let _ = stream.write_all(bytes.as_bytes()).await;
                while stream.write_all(more.as_bytes()).await.is_ok() {
                    tokio::time::sleep(pause).await;
                }
                return;
            }
            Act::Endless => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n").await;
                while stream.write_all(&[b' '; 65536]).await.is_ok() {}
                return;
            }
            Act::Silence => return std::future::pending().await,
            Act::Reset => {
                let socket = stream.into_std().unwrap();
                let _ = tokio::net::TcpStream::from_std(socket).unwrap().set_zero_linger();
                return;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0u8; 4096];
        let n = stream.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            let body = serde_json::from_str(body).unwrap_or_default();
            return Some(Seen { at: Instant::now(), head: head.to_owned(), body });
        }
    }
}

pub fn request(text: &str) -> ChatRequest {
    ChatRequest {
        system: "Be brief.".into(),
        messages: vec![ChatMessage::user(text)],
        schema: None,
        max_output_tokens: 256,
        timeout: Duration::from_secs(20),
        context: CallContext {
            run: "r1".into(),
            role: "coder".into(),
            task: "write code".into(),
            task_id: "t1".into(),
            attempt: 1,
        },
        progress: None,
    }
}

pub fn with_schema(mut request: ChatRequest) -> ChatRequest {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["answer"],
        "properties": {"answer": {"type": "string", "minLength": 1}}
    });
    request.schema = Some(OutputSchema { name: "answer".into(), schema });
    request
}

pub fn spec(provider: Provider, url: &str, model: &str) -> ModelSpec {
    ModelSpec {
        provider,
        model: model.into(),
        base_url: Some(url.into()),
        api_key: Some(ApiKey::new("sk-hunter2").unwrap()),
    }
}

/// Asks once through everything that `open` puts together.
pub async fn ask(spec: &ModelSpec, request: &ChatRequest) -> Result<oarlock::model::ChatReply, ModelError> {
    let model = oarlock::model::open(spec, &ModelOptions::default()).unwrap();
    ChatModel::complete(&model, request).await
}
