//! Puts a pinned pytest into the cache, once per machine and Python version.
//!
//! `pip install --target` needs no virtual environment and no system packages; hashes pin every file, and only wheels
//! are taken, so nothing of the downloaded code runs here. The directory appears by a rename, so it is whole or absent.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::{Python, SandboxError, access, text};

/// Every package with its version and hash.
const REQUIREMENTS: &str = include_str!("pytest-requirements.txt");

/// Patience with one run of pip.
const PIP_WAIT_S_MAX: u64 = 300;

/// Patience with another process that is installing the same; longer than its pip may take.
const LOCK_WAIT_S_MAX: u64 = 2 * PIP_WAIT_S_MAX;

/// Pause between two looks at the lock.
const LOCK_PAUSE_MS: u64 = 100;

/// Characters of pip's complaint in an error.
const DETAIL_CHARS_MAX: usize = 600;

const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// The directory in `cache` that holds pytest for this Python, installed if absent.
pub(super) async fn ensure(python: &Python, candidates: &[PathBuf], cache: &Path) -> Result<PathBuf, SandboxError> {
    create_public(cache).map_err(file_error("create", cache))?;
    access::reachable(cache).map_err(|reason| SandboxError::CacheUnreachable { cache: cache.to_owned(), reason })?;
    let home = cache.join(directory_name(python.version));
    if home.is_dir() {
        return Ok(home);
    }
    let _lock = lock(&cache.join("pytest.lock")).await?;
    if !home.is_dir() {
        install(python, candidates, cache, &home).await?;
    }
    Ok(home)
}

async fn install(python: &Python, candidates: &[PathBuf], cache: &Path, home: &Path) -> Result<(), SandboxError> {
    let stage = tempfile::Builder::new().prefix(".pytest-").tempdir_in(cache).map_err(file_error("write to", cache))?;
    let requirements = stage.path().join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).map_err(file_error("write", &requirements))?;
    let target = stage.path().join("packages");
    let mut complaints = Vec::new();
    for interpreter in std::iter::once(&python.executable).chain(candidates) {
        match pip(interpreter, python.version, &requirements, &target).await {
            Ok(()) => {
                compile(python, &target).await;
                publish(&target).map_err(file_error("publish", &target))?;
                return fs::rename(&target, home).map_err(file_error("rename pytest to", home));
            }
            Err(complaint) => complaints.push(format!("{}: {complaint}", interpreter.display())),
        }
    }
    Err(SandboxError::Pytest { cache: cache.to_owned(), detail: complaints.join("; ") })
}

/// Any interpreter's pip will do: the wheels are pure Python and chosen for the version of the one that runs tests.
async fn pip(interpreter: &Path, version: (u32, u32), requirements: &Path, target: &Path) -> Result<(), String> {
    let mut command = Command::new(interpreter);
    command
        .args(["-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir"])
        .args(["--no-compile", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--root-user-action=ignore"])
        .arg("--python-version")
        .arg(format!("{}.{}", version.0, version.1))
        .arg("--target")
        .arg(target)
        .arg("--requirement")
        .arg(requirements)
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = match tokio::time::timeout(Duration::from_secs(PIP_WAIT_S_MAX), command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("pip did not finish within {PIP_WAIT_S_MAX} s")),
    };
    if output.status.success() {
        return Ok(());
    }
    Err(text::shortened(text::neutralised(&output.stderr).trim(), DETAIL_CHARS_MAX))
}

/// Byte code ahead of time makes every later run start faster; without it, all still works.
async fn compile(python: &Python, target: &Path) {
    let mut command = Command::new(&python.executable);
    command.args(["-I", "-m", "compileall", "-q", "-j", "1"]).arg(target);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(Duration::from_secs(PIP_WAIT_S_MAX), command.status()).await {
        Ok(Ok(status)) if status.success() => {}
        other => tracing::warn!(?other, "pytest was not compiled ahead; test runs start slower"),
    }
}

async fn lock(path: &Path) -> Result<File, SandboxError> {
    let file = File::create(path).map_err(file_error("create", path))?;
    let deadline = Instant::now() + Duration::from_secs(LOCK_WAIT_S_MAX);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(file_error("lock", path)(source)),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                return Err(file_error("lock", path)(io::ErrorKind::TimedOut.into()));
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(LOCK_PAUSE_MS)).await,
        }
    }
}

/// Creates a directory, and what is missing above it, open to readers whatever the umask.
fn create_public(directory: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = directory.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev().filter(|path| !path.as_os_str().is_empty()) {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Ok(()) => fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Opens a tree to readers whatever the umask.
fn publish(path: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_dir() {
        fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))?;
        for entry in fs::read_dir(path)? {
            publish(&entry?.path())?;
        }
    } else if kind.is_file() {
        fs::set_permissions(path, Permissions::from_mode(FILE_MODE))?;
    }
    Ok(())
}

fn directory_name(version: (u32, u32)) -> String {
    let digest = Sha256::digest(REQUIREMENTS.as_bytes());
    let pins: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("pytest-{pins}-py{}.{}", version.0, version.1)
}

fn file_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError::File { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_is_pinned_and_hashed() {
        let lines: Vec<&str> = REQUIREMENTS.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(lines.iter().any(|line| line.starts_with("pytest==")));
        assert!(lines.iter().all(|line| line.contains("==") && line.contains(" --hash=sha256:")), "{lines:?}");
    }

    #[test]
    fn published_trees_are_readable_by_all() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a");
        DirBuilder::new().mode(0o700).create(&inner).unwrap();
        fs::write(inner.join("b.py"), "").unwrap();
        fs::set_permissions(inner.join("b.py"), Permissions::from_mode(0o600)).unwrap();
        publish(&inner).unwrap();
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, DIRECTORY_MODE);
        assert_eq!(fs::metadata(inner.join("b.py")).unwrap().permissions().mode() & 0o777, FILE_MODE);
    }
}
