//! `mountebank`, a server of other people's that answers with any status, headers and body and writes down what it was
//! asked: for what aimock cannot say.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::npm::installed;

const PACKAGE: &str = "mountebank";
const VERSION: &str = "2.9.1";
const START_S_MAX: u64 = 30;

/// A running mountebank.
pub struct Mountebank {
    child: Child,
    control: String,
    _directory: tempfile::TempDir,
}

impl Mountebank {
    /// Starts one without a server; `None` when Node.js is missing and not required.
    pub async fn start() -> Option<Self> {
        let binary = installed(PACKAGE, VERSION, "mb")?;
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(binary)
            .args(["start", "--host", "127.0.0.1", "--port", &port.to_string(), "--localOnly", "--nologfile"])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let control = format!("http://127.0.0.1:{port}/imposters");
        let mut mountebank = Self { child, control, _directory: directory };
        mountebank.wait(port).await;
        Some(mountebank)
    }

    /// A server that gives these answers one after the other, from the first again after the last.
    pub async fn serve(&self, answers: Vec<Value>) -> Served {
        let server = json!({
            "protocol": "http", "host": "127.0.0.1", "recordRequests": true, "stubs": [{"responses": answers}]
        });
        let made = client().post(&self.control).json(&server).send().await.unwrap();
        assert!(made.status().is_success(), "{}", made.text().await.unwrap());
        let made: Value = serde_json::from_slice(&made.bytes().await.unwrap()).unwrap();
        let port = made["port"].as_u64().unwrap();
        Served { url: format!("http://127.0.0.1:{port}"), about: format!("{}/{port}", self.control) }
    }

    async fn wait(&mut self, port: u16) {
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "mountebank ended before it listened on port {port}");
            assert!(Instant::now() < deadline, "mountebank does not listen on port {port} after {START_S_MAX} s");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// One server of a mountebank.
pub struct Served {
    /// Its address, without a path.
    pub url: String,
    about: String,
}

impl Served {
    /// When it was asked, in milliseconds since 1970.
    #[allow(dead_code, reason = "not every test binary looks")]
    pub async fn asked_ms(&self) -> Vec<i128> {
        let told = client().get(&self.about).send().await.unwrap();
        let told: Value = serde_json::from_slice(&told.bytes().await.unwrap()).unwrap();
        let at = |request: &Value| {
            let text = request["timestamp"].as_str().unwrap();
            let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap();
            time.unix_timestamp_nanos() / 1_000_000
        };
        told["requests"].as_array().unwrap().iter().map(at).collect()
    }
}

impl Drop for Mountebank {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}
