//! `@copilotkit/aimock`, a stand-in for the vendors' APIs that others keep in step with them, as a process of one test.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::npm::installed;

const PACKAGE: &str = "@copilotkit/aimock";
const VERSION: &str = "1.43.0";
const START_S_MAX: u64 = 30;

/// A running aimock.
pub struct Aimock {
    child: Child,
    /// Its address, without a path.
    pub url: String,
    _directory: tempfile::TempDir,
}

impl Aimock {
    /// Starts one with these fixtures; `None` when Node.js is missing and not required.
    pub async fn start(fixtures: Value) -> Option<Self> {
        let binary = installed(PACKAGE, VERSION, "llmock")?;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("fixtures.json");
        std::fs::write(&file, json!({"fixtures": fixtures}).to_string()).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(binary)
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "--validate-on-load", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut aimock = Self { child, url: format!("http://127.0.0.1:{port}"), _directory: directory };
        aimock.wait(port).await;
        Some(aimock)
    }

    /// What it was asked, in order: the requests whose last message is `text`.
    #[allow(dead_code, reason = "not every test binary looks")]
    pub async fn asked(&self, text: &str) -> Vec<Asked> {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let journal = client.get(format!("{}/__aimock/journal", self.url)).send().await.unwrap();
        let journal: Vec<Value> = serde_json::from_slice(&journal.bytes().await.unwrap()).unwrap();
        let is_it = |entry: &&Value| {
            let last = entry["body"]["messages"].as_array().and_then(|messages| messages.last());
            last.is_some_and(|last| last["content"] == text)
        };
        let asked = |entry: &Value| Asked { at_ms: entry["timestamp"].as_u64().unwrap(), body: entry["body"].clone() };
        journal.iter().filter(is_it).map(asked).collect()
    }

    async fn wait(&mut self, port: u16) {
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "aimock ended before it listened on port {port}");
            assert!(Instant::now() < deadline, "aimock does not listen on port {port} after {START_S_MAX} s");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// One request, as the server wrote it down.
#[allow(dead_code, reason = "not every test binary looks")]
pub struct Asked {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What was sent.
    pub body: Value,
}

impl Drop for Aimock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
