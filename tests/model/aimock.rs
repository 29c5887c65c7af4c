//! The real client over real HTTP against `@copilotkit/aimock`, a stand-in for the vendors' APIs that others keep in
//! step with them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oarlock::model::{Finish, ModelError, Provider, complete_json};
use serde_json::{Value, json};

use crate::support::{ask, request, spec, with_schema};

const PACKAGE: &str = "@copilotkit/aimock";
const VERSION: &str = "1.43.0";
const START_S_MAX: u64 = 30;

/// A running aimock.
struct Aimock {
    child: Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Aimock {
    /// Starts one with these fixtures; `None` when Node.js is missing and not required.
    async fn start(fixtures: Value) -> Option<Self> {
        let binary = installed()?;
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

    async fn wait(&mut self, port: u16) {
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "aimock ended before it listened on port {port}");
            assert!(Instant::now() < deadline, "aimock does not listen on port {port} after {START_S_MAX} s");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Aimock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The installed program; installs it once into the cache.
fn installed() -> Option<PathBuf> {
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = LOCK.lock();
    let has =
        |program: &str| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !has("node") || !has("npm") {
        let required = std::env::var("OARLOCK_TEST_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|name| name.trim() == "node"), "node is required: install Node.js 20");
        println!("not run: node (install Node.js 20)");
        return None;
    }
    let cache =
        std::env::var_os("OARLOCK_TEST_CACHE").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let directory = cache.join(format!("aimock-{VERSION}"));
    let binary = directory.join("node_modules/.bin/llmock");
    if !binary.exists() {
        install(&directory);
    }
    Some(binary)
}

fn install(directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    let output = Command::new("npm")
        .args(["install", "--no-save", "--no-audit", "--no-fund", "--prefix"])
        .arg(directory)
        .arg(format!("{PACKAGE}@{VERSION}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "npm install failed: {}", String::from_utf8_lossy(&output.stderr));
}

fn fixtures() -> Value {
    json!([
        {"match": {"userMessage": "limited", "sequenceIndex": 0}, "response":
            {"error": {"message": "Rate limit reached", "type": "rate_limit_error"}, "status": 429, "retryAfter": 1}},
        {"match": {"userMessage": "limited"}, "response": {"content": "after the wait"}},
        {"match": {"userMessage": "broken"}, "response":
            {"error": {"message": "The server had an error", "type": "server_error"}, "status": 500}},
        {"match": {"userMessage": "cut"}, "response": {"content": "and then", "finishReason": "length"}},
        {"match": {"userMessage": "json"}, "response": {"content": "{\"answer\":\"yes\"}"}},
        {"match": {"userMessage": "hello"}, "response":
            {"content": "hi there", "usage": {"prompt_tokens": 123, "completion_tokens": 45, "total_tokens": 168,
             "input_tokens": 123, "output_tokens": 45}}}
    ])
}

#[tokio::test]
async fn both_shapes_answer_with_usage() {
    let Some(aimock) = Aimock::start(fixtures()).await else {
        return;
    };
    for provider in [Provider::OpenAi, Provider::Anthropic] {
        let spec = spec(provider, &aimock.url, "some-model");
        let reply = ask(&spec, &request("hello")).await.unwrap();
        assert_eq!((reply.text.as_str(), reply.finish), ("hi there", Finish::Stop), "{provider}");
        assert_eq!((reply.usage.input, reply.usage.output, reply.usage.estimated), (123, 45, false), "{provider}");
        assert_eq!(ask(&spec, &request("cut")).await.unwrap().finish, Finish::Length, "{provider}");
        let model = oarlock::model::open(&spec).unwrap();
        let reply = complete_json(&*model, with_schema(request("json"))).await.unwrap();
        assert_eq!((reply.value, reply.repaired), (json!({"answer": "yes"}), false), "{provider}");
    }
}

#[tokio::test]
async fn gemini_answers_too() {
    let Some(aimock) = Aimock::start(fixtures()).await else {
        return;
    };
    let reply = ask(&spec(Provider::Gemini, &aimock.url, "gemini-3.8-flash"), &request("hello")).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.finish), ("hi there", Finish::Stop));
}

#[tokio::test]
async fn a_rate_limit_is_waited_for() {
    for provider in [Provider::OpenAi, Provider::Anthropic] {
        let Some(aimock) = Aimock::start(fixtures()).await else {
            return;
        };
        let started = Instant::now();
        let reply = ask(&spec(provider, &aimock.url, "some-model"), &request("limited")).await.unwrap();
        assert_eq!(reply.text, "after the wait", "{provider}");
        assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn errors_have_their_kinds() {
    let Some(aimock) = Aimock::start(fixtures()).await else {
        return;
    };
    for provider in [Provider::OpenAi, Provider::Anthropic] {
        let spec = spec(provider, &aimock.url, "some-model");
        let error = ask(&spec, &request("broken")).await.unwrap_err();
        assert!(matches!(&error, ModelError::Unavailable { status: Some(500), .. }), "{error}");
        assert!(error.to_string().contains("The server had an error"), "{error}");
        let error = ask(&spec, &request("nobody knows this")).await.unwrap_err();
        assert!(matches!(&error, ModelError::BadRequest { .. }), "{error}");
    }
}
