//! Starts the helper process and waits for its record.
//!
//! The executable is opened once and started through `/proc/self/fd`: so it works from a directory that the sandbox
//! user may not enter, and a new build on disk does not change a running worker. The helper's standard input is a
//! leash: when it closes (we drop the future, or die by any signal), the helper kills its whole tree and tidies up.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::unistd::Uid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::job::Job;
use super::junit::REPORT_BYTES_MAX;
use super::record::Record;
use super::{HELPER_VERB, SandboxError, UNPRIVILEGED_ID, text};

/// Time that the helper may take beyond the wall limit, to kill, read and tidy up.
const HELPER_GRACE_S: u64 = 20;

/// The lines of a record, without its three parts.
const RECORD_LINES_BYTES_MAX: u64 = 64 * 1024;

/// What is kept of the helper's own complaints.
const COMPLAINT_BYTES_MAX: u64 = 8 * 1024;

/// Everyone may read and execute.
const OPEN_TO_ALL: u32 = 0o005;

/// Our own executable, held open.
#[derive(Debug)]
pub(super) struct Helper {
    path: PathBuf,
    file: File,
}

impl Helper {
    /// Opens it once, for good; root lends the sandbox user a copy if the file itself is private.
    pub fn open(path: PathBuf) -> Result<Helper, SandboxError> {
        let opened = File::open(&path).and_then(|file| {
            let mode = file.metadata()?.mode();
            if Uid::effective().is_root() && mode & OPEN_TO_ALL != OPEN_TO_ALL { public_copy(file) } else { Ok(file) }
        });
        match opened {
            Ok(file) => Ok(Helper { path, file }),
            Err(source) => Err(SandboxError::HelperStart { helper: path, source }),
        }
    }

    /// Runs one job to its end. Dropping the future ends the job and everything it started.
    pub async fn run(&self, job: &Job) -> Result<Record, SandboxError> {
        let mut child = self
            .command(job)
            .spawn()
            .map_err(|source| SandboxError::HelperStart { helper: self.path.clone(), source })?;
        let leash = child.stdin.take();
        let record_bytes_max = job.limits.output_bytes_kept + REPORT_BYTES_MAX + RECORD_LINES_BYTES_MAX;
        let reading = async {
            tokio::join!(
                read_bounded(child.stdout.take(), record_bytes_max),
                read_bounded(child.stderr.take(), COMPLAINT_BYTES_MAX),
            )
        };
        let wait = job.limits.wall + Duration::from_secs(HELPER_GRACE_S);
        let Ok((answer, complaint)) = tokio::time::timeout(wait, reading).await else {
            child.start_kill().map_err(|source| SandboxError::HelperStart { helper: self.path.clone(), source })?;
            return Err(SandboxError::HelperRecord { detail: format!("nothing within {} s", wait.as_secs()) });
        };
        drop(leash);
        let record = Record::decode(&answer).ok_or_else(|| SandboxError::HelperRecord {
            detail: format!("{} bytes, and {:?}", answer.len(), text::neutralised(&complaint)),
        })?;
        if record.ready || record.stopped.is_some() {
            return Ok(record);
        }
        let printed = text::neutralised(&[&record.head[..], &record.tail[..]].concat());
        let detail = record.setup_error.unwrap_or_default();
        Err(SandboxError::Setup { tier: job.tier, detail: format!("{detail} {}", printed.trim()).trim().to_owned() })
    }

    fn command(&self, job: &Job) -> Command {
        let mut command = if cfg!(target_os = "linux") {
            Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
        } else {
            Command::new(&self.path)
        };
        command
            .arg0("oarlock")
            .args([HELPER_VERB, "supervise"])
            .args(job.to_arguments())
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if Uid::effective().is_root() {
            command.uid(UNPRIVILEGED_ID).gid(UNPRIVILEGED_ID);
        }
        command
    }
}

/// An executable that only root may execute, as an anonymous file that everyone may.
#[cfg(target_os = "linux")]
fn public_copy(mut private: File) -> io::Result<File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::os::unix::fs::PermissionsExt;

    let mut copy = File::from(memfd_create("oarlock", MFdFlags::MFD_CLOEXEC)?);
    io::copy(&mut private, &mut copy)?;
    copy.set_permissions(PermissionsExt::from_mode(0o555))?;
    // Linux executes no file that is open for writing; this one stays open for reading only.
    File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))
}

#[cfg(not(target_os = "linux"))]
fn public_copy(private: File) -> io::Result<File> {
    Ok(private)
}

async fn read_bounded(stream: Option<impl AsyncRead + Unpin>, bytes_max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream
        && let Err(error) = stream.take(bytes_max).read_to_end(&mut bytes).await
    {
        tracing::warn!(%error, "the sandbox helper's output broke off");
    }
    bytes
}
