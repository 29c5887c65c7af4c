//! A real nats-server as a child process, for a laptop, a demo, a test: same server, same streams, no set-up.
//!
//! It listens on a free loopback port that it chooses itself and tells in a file. It must not outlive us: a small
//! shell waits beside it and stops it when our end of a pipe closes, which also happens when we are killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use super::{BusError, ServerSources};

/// How long the server may take to listen.
const START_WAIT_S_MAX: u64 = 20;
/// Pause between two looks for its ports file.
const START_DELAY_MS: u64 = 10;
/// How long it may take to stop before it is killed.
const STOP_WAIT_S_MAX: u64 = 10;
/// Runs the server, and stops it when standard input closes.
const KEEPER: &str = r#"exec 3<&0; "$0" "$@" </dev/null 3<&- & server=$!
(read -r _ <&3; kill -TERM $server) & reader=$!; exec 3<&-; wait $server; code=$?; kill $reader 2>/dev/null; exit $code"#;

/// Where an embedded server keeps its data.
#[derive(Clone, Debug)]
pub enum Storage {
    /// A directory that is gone afterwards.
    Temporary,
    /// A directory that stays.
    Folder(PathBuf),
}

/// How to start an embedded server.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// Where the binary is.
    pub sources: ServerSources,
    /// Where the data is.
    pub storage: Storage,
    /// Whether every write is on the disk before it is acknowledged.
    pub sync_always: bool,
}

/// A running nats-server child; it stops when this is dropped.
pub struct Embedded {
    url: String,
    child: Child,
    binary: PathBuf,
    folder: PathBuf,
    sync_always: bool,
    _temporary: Option<tempfile::TempDir>,
}

impl Embedded {
    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    /// When there is no binary, or it does not listen within [`START_WAIT_S_MAX`] seconds; with its log's last lines.
    pub async fn start(config: &EmbeddedConfig) -> Result<Self, BusError> {
        let failed = |why: String| BusError::Embedded { why };
        let binary = config.sources.find().await.map_err(|error| failed(error.to_string()))?;
        let (folder, temporary) = match &config.storage {
            Storage::Folder(folder) => (folder.clone(), None),
            Storage::Temporary => {
                let made = tempfile::Builder::new().prefix("oarlock-").tempdir();
                let made = made.map_err(|error| failed(format!("no temporary directory: {error}")))?;
                (made.path().to_owned(), Some(made))
            }
        };
        let child = launch(&binary, &folder, None, config.sync_always).map_err(failed)?;
        let (url, sync_always) = (String::new(), config.sync_always);
        let mut server = Self { url, child, binary, folder, sync_always, _temporary: temporary };
        server.url = server.wait_for_url().await.map_err(failed)?;
        Ok(server)
    }

    /// Kills the server as a crash would; what it stored stays, and [`Embedded::restart`] brings it back.
    pub async fn kill(&mut self) {
        if let (Ok(None), Some(pid)) = (self.child.try_wait(), self.pid()) {
            kill_9(pid);
        }
        drop(self.child.stdin.take());
        let _ = self.child.wait().await;
    }

    /// Starts a killed server again, with its data, at its old address.
    ///
    /// # Errors
    /// Like [`Embedded::start`].
    pub async fn restart(&mut self) -> Result<(), BusError> {
        let failed = |why: String| BusError::Embedded { why };
        let port = self.url.rsplit(':').next().and_then(|port| port.parse().ok());
        self.child = launch(&self.binary, &self.folder, port, self.sync_always).map_err(failed)?;
        self.url = self.wait_for_url().await.map_err(failed)?;
        Ok(())
    }

    /// The address to connect to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's process id, for tests that kill it.
    pub fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.folder.join("nats.pid")).ok()?.trim().parse().ok()
    }

    /// Stops the server and waits until it is gone.
    pub async fn stop(mut self) {
        drop(self.child.stdin.take());
        let gone = tokio::time::timeout(Duration::from_secs(STOP_WAIT_S_MAX), self.child.wait()).await;
        if gone.is_err() {
            tracing::warn!("nats-server did not stop within {STOP_WAIT_S_MAX} s and is killed");
        }
    }

    async fn wait_for_url(&mut self) -> Result<String, String> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(START_WAIT_S_MAX) {
            if let Some(url) = self.pid().and_then(|pid| read_ports(&self.folder, pid)) {
                return Ok(url);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended at once ({status}); its log says: {}", self.log_end()));
            }
            tokio::time::sleep(Duration::from_millis(START_DELAY_MS)).await;
        }
        Err(format!("it did not listen within {START_WAIT_S_MAX} s; its log says: {}", self.log_end()))
    }

    fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("nats.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Embedded {
    /// A server that was not stopped in order is killed at once, so that it writes nothing more into a directory that is
    /// being removed. Nothing acknowledged is lost by that.
    fn drop(&mut self) {
        if let (Ok(None), Some(pid)) = (self.child.try_wait(), self.pid()) {
            kill_9(pid);
        }
    }
}

#[cfg(unix)]
fn kill_9(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(not(unix))]
fn kill_9(_pid: u32) {}

/// Starts the server and its keeper on `port`, or on a free one.
fn launch(binary: &Path, folder: &Path, port: Option<u16>, sync_always: bool) -> Result<Child, String> {
    let written = write_config(folder, port, sync_always);
    let config = written.map_err(|error| format!("cannot write {}: {error}", folder.display()))?;
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(KEEPER).arg(binary).arg("-c").arg(&config);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).kill_on_drop(true);
    command.spawn().map_err(|error| format!("cannot run /bin/sh: {error}"))
}

fn write_config(folder: &Path, port: Option<u16>, sync_always: bool) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    for old in std::fs::read_dir(folder)?.filter_map(Result::ok) {
        if old.path().extension().is_some_and(|end| end == "ports" || end == "pid") {
            std::fs::remove_file(old.path())?;
        }
    }
    let quoted = |name: &str| serde_json::Value::from(folder.join(name).display().to_string()).to_string();
    let path = folder.join("nats-embedded.conf");
    let port = port.map_or(-1, i32::from);
    let sync = if sync_always { ", sync_interval: always" } else { "" };
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\nmax_payload: 1MB\nports_file_dir: {}\npid_file: {}\nlog_file: {}\n\
         jetstream {{ store_dir: {}{sync} }}\n",
        quoted(""),
        quoted("nats.pid"),
        quoted("nats.log"),
        quoted("store"),
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

/// The server writes `<its file name>_<pid>.ports`, a JSON object, once it listens.
fn read_ports(folder: &Path, pid: u32) -> Option<String> {
    let end = format!("_{pid}.ports");
    let mut files = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let file = files.find(|file| file.file_name().to_string_lossy().ends_with(&end))?;
    let ports: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file.path()).ok()?).ok()?;
    Some(ports.get("nats")?.get(0)?.as_str()?.to_owned())
}
