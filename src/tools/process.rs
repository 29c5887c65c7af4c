//! A tool server's processes: started through the keeper in a group of their own, and ended as one.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;

use super::spec::ServerSpec;
use crate::wire::one_line;

/// First argument that makes any of our executables the keeper.
const KEEPER_VERB: &str = "tool-server";
/// Bytes of a server's standard error that are kept, the last ones.
const COMPLAINT_BYTES_KEPT: usize = 4 * 1024;
/// Characters of it that an error shows.
const COMPLAINT_CHARS_SHOWN: usize = 400;
/// How long a server may take to end by itself.
const END_WAIT_MS: u64 = 2_000;
/// How long the last words of a dead server may take to come.
const LAST_WORDS_MS: u64 = 200;

/// The processes of a server; they are killed when this is dropped, and when the first of them ends.
pub(super) struct Process {
    group: Group,
    ended: watch::Receiver<Option<String>>,
    complaint: Arc<Mutex<Vec<u8>>>,
}

impl Process {
    /// Starts a server; its standard streams are for the one who speaks with it.
    pub(super) fn start(spec: &ServerSpec, keeper: &Path) -> io::Result<(Self, ChildStdout, ChildStdin)> {
        let mut command = Command::new(keeper);
        command.arg(KEEPER_VERB).arg(std::process::id().to_string()).arg(spec.command()).args(spec.arguments());
        command.env_clear().envs(spec.variables().iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        let missing = || io::Error::other("it has no standard streams");
        let (stdin, stdout) = (child.stdin.take().ok_or_else(missing)?, child.stdout.take().ok_or_else(missing)?);
        let complaint = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(keep_end(stderr, complaint.clone()));
        }
        let group = Group::led_by(&child);
        let (tell, ended) = watch::channel(None);
        let left = group.clone();
        tokio::spawn(async move {
            let status = child.wait().await;
            // What it left behind holds its streams open, as if it still lived.
            left.kill();
            tell.send_replace(Some(status.map_or_else(|error| error.to_string(), |status| status.to_string())));
        });
        Ok((Self { group, ended, complaint }, stdout, stdin))
    }

    /// How it ended, if it did, and the end of what it wrote to its standard error: for people, on one line.
    pub(super) async fn last_words(&mut self) -> String {
        let ended = tokio::time::timeout(Duration::from_millis(LAST_WORDS_MS), self.ended.wait_for(Option::is_some));
        let ended = match ended.await {
            Ok(Ok(status)) => format!("it ended with {}", status.as_deref().unwrap_or_default()),
            _ => "it runs".to_owned(),
        };
        let complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let complaint = String::from_utf8_lossy(&complaint);
        let start = complaint.char_indices().rev().nth(COMPLAINT_CHARS_SHOWN).map_or(0, |(at, _)| at);
        match one_line(&complaint[start..], COMPLAINT_CHARS_SHOWN) {
            nothing if nothing.is_empty() => ended,
            said => format!("{ended}, and said: {said}"),
        }
    }

    /// Waits until it has ended by itself, as it should when its standard input has closed; then kills what is left.
    pub(super) async fn end(mut self) {
        let waited = tokio::time::timeout(Duration::from_millis(END_WAIT_MS), self.ended.wait_for(Option::is_some));
        if waited.await.is_err() {
            tracing::debug!("a tool server did not end by itself and is killed");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.group.kill();
    }
}

/// The number of the keeper's process group, until it was killed: as long as the keeper was not waited for, or one of the
/// group lives, the number is nobody else's; later it may be.
#[derive(Clone)]
struct Group(Arc<Mutex<Option<i32>>>);

impl Group {
    fn led_by(keeper: &Child) -> Self {
        Self(Arc::new(Mutex::new(keeper.id().and_then(|id| i32::try_from(id).ok()))))
    }

    /// Kills the keeper with everything in its group, once.
    fn kill(&self) {
        let number = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        #[cfg(unix)]
        if let Some(number) = number {
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(number), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Reads a server's standard error to its end, so that it never waits for us, and keeps the last bytes.
async fn keep_end(mut stderr: ChildStderr, kept: Arc<Mutex<Vec<u8>>>) {
    let mut bytes = [0; 1024];
    while let Ok(count @ 1..) = stderr.read(&mut bytes).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&bytes[..count]);
        let over = kept.len().saturating_sub(COMPLAINT_BYTES_KEPT);
        kept.drain(..over);
    }
}
