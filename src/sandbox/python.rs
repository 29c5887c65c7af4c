//! Finds a Python that untrusted code may be given, and gives it pytest.
//!
//! A worker often runs as root with a Python under a private home directory; the sandbox user cannot execute that one.
//! So each candidate is really run as that user before it is believed. Virtual environments are followed to the
//! interpreter they stand on: the sandbox needs only the standard library and pytest.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::unistd::Uid;
use tokio::process::Command;

use super::{SandboxError, UNPRIVILEGED_ID, access, packages};

/// Oldest Python that the pinned pytest runs on.
const VERSION_MIN: (u32, u32) = (3, 9);

/// Oldest installed pytest that is good enough when none can be downloaded.
const PYTEST_MAJOR_MIN: u32 = 7;

/// Patience with one interpreter that is asked about itself.
const DESCRIBE_WAIT_S_MAX: u64 = 20;

/// Where interpreters usually are.
const USUAL_PLACES: [&str; 2] = ["/usr/bin/python3", "/usr/local/bin/python3"];

const DESCRIBE: &str = "import os, sys, sysconfig
print(os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable))
print(os.path.realpath(sys.base_prefix))
print(sys.version_info[0], sys.version_info[1])
print(os.path.realpath(sysconfig.get_path('stdlib')))";

const PYTEST_VERSION: &str = "import pytest; print(pytest.__version__)";

/// An interpreter that the sandbox user can execute, with a pytest that it can import.
#[derive(Clone, Debug)]
pub struct Python {
    pub(super) executable: PathBuf,
    pub(super) prefix: PathBuf,
    pub(super) version: (u32, u32),
    /// Directory that holds pytest; absent when pytest is installed beside the standard library.
    pub(super) packages: Option<PathBuf>,
}

impl Python {
    /// `python3` in each directory of `search_path` (the value of `PATH`, if any), then the usual places.
    pub fn default_candidates(search_path: Option<&OsStr>) -> Vec<PathBuf> {
        let searched =
            search_path.into_iter().flat_map(std::env::split_paths).map(|directory| directory.join("python3"));
        let mut candidates: Vec<PathBuf> = Vec::new();
        for candidate in searched.chain(USUAL_PLACES.map(PathBuf::from)) {
            if candidate.is_absolute() && candidate.exists() && !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        }
        candidates
    }

    /// Takes the first usable candidate and sees to it that pytest is in `cache`.
    ///
    /// The first call on a machine downloads some 2 MB through pip; later ones cost one start of Python.
    pub async fn prepare(candidates: &[PathBuf], cache: &Path) -> Result<Python, SandboxError> {
        let mut tried = Vec::new();
        for candidate in candidates {
            match describe(candidate).await {
                Ok(python) => return python.with_pytest(candidates, cache).await,
                Err(reason) => tried.push(format!("{} ({reason})", candidate.display())),
            }
        }
        if tried.is_empty() {
            tried.push("nothing, as no candidate exists".to_owned());
        }
        Err(SandboxError::NoPython { user: access::sandbox_user(), tried: tried.join(", ") })
    }

    /// The interpreter itself, links and virtual environments resolved.
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// Major and minor version.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    async fn with_pytest(mut self, candidates: &[PathBuf], cache: &Path) -> Result<Python, SandboxError> {
        match packages::ensure(&self, candidates, cache).await {
            Ok(directory) => self.packages = Some(directory),
            Err(error) if self.has_pytest().await => {
                tracing::info!(%error, "pytest is taken from the system, not from the cache");
            }
            Err(error) => return Err(error),
        }
        Ok(self)
    }

    async fn has_pytest(&self) -> bool {
        let Ok(output) = ask(&self.executable, PYTEST_VERSION).await else {
            return false;
        };
        let version = String::from_utf8_lossy(&output.stdout);
        let major = version.split('.').next().and_then(|major| major.trim().parse::<u32>().ok());
        output.status.success() && major.is_some_and(|major| major >= PYTEST_MAJOR_MIN)
    }
}

/// Runs the candidate as the sandbox user and reads what it says about itself.
async fn describe(candidate: &Path) -> Result<Python, String> {
    access::reachable(candidate)?;
    let output = ask(candidate, DESCRIBE).await?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
        return Err(format!("it ended with {}: {words}", output.status));
    }
    let text = String::from_utf8(output.stdout).map_err(|_| "its paths are not UTF-8".to_owned())?;
    let [executable, prefix, version, library] = text.lines().collect::<Vec<_>>()[..] else {
        return Err("it did not describe itself".to_owned());
    };
    let version = version
        .split_once(' ')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .ok_or_else(|| format!("its version is unreadable: {version}"))?;
    if version < VERSION_MIN {
        return Err(format!(
            "it is Python {}.{}, older than {}.{}",
            version.0, version.1, VERSION_MIN.0, VERSION_MIN.1
        ));
    }
    access::reachable(Path::new(executable))?;
    access::reachable(Path::new(library))?;
    Ok(Python { executable: executable.into(), prefix: prefix.into(), version, packages: None })
}

/// Runs a script in an interpreter as the sandbox user, with an empty environment.
async fn ask(python: &Path, script: &str) -> Result<Output, String> {
    let mut command = Command::new(python);
    command
        .args([OsStr::new("-I"), OsStr::new("-c"), OsStr::new(script)])
        .env_clear()
        .env("PATH", OsString::from("/usr/local/bin:/usr/bin:/bin"))
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if Uid::effective().is_root() {
        command.uid(UNPRIVILEGED_ID).gid(UNPRIVILEGED_ID);
    }
    match tokio::time::timeout(Duration::from_secs(DESCRIBE_WAIT_S_MAX), command.output()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it did not answer within {DESCRIBE_WAIT_S_MAX} s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_absolute_existing_and_single() {
        let found = Python::default_candidates(Some(OsStr::new("/usr/bin:relative:/nowhere:/usr/bin")));
        assert!(found.iter().all(|path| path.is_absolute() && path.exists()));
        let usual = found.iter().filter(|path| path.as_path() == Path::new("/usr/bin/python3")).count();
        assert!(usual <= 1);
    }

    #[tokio::test]
    async fn an_unusable_candidate_is_named_with_its_reason() {
        let cache = tempfile::tempdir().unwrap();
        let error = Python::prepare(&[PathBuf::from("/bin/false")], cache.path()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/bin/false") && text.contains("apt-get install python3"), "{text}");
    }
}
