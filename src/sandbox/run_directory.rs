//! The throw-away directory of one run: private to the sandbox user, filled before it is handed over, removed twice
//! over (by the helper when all processes are dead, and by us when the value is dropped).
//!
//! A worker that is killed before the helper runs can do neither. So each holds a lock on its directories, which ends with
//! it, and whoever makes a directory removes those that nobody holds.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::unistd::{Gid, Uid, chown};

use super::job::{Layout, REPORT};
use super::{Limits, SandboxError, Tier, UNPRIVILEGED_ID};

/// Where run directories live: reachable by every user.
const ROOT: &str = "/tmp";

/// How a run directory is called, with random letters behind. An earlier version called them `oarlock-run-` and held no lock; these
/// are nobody else's to remove.
const PREFIX: &str = "oarlock-pytest-";

/// The same in the moment before its maker holds it.
const NEW_PREFIX: &str = "oarlock-new-";

/// How long that moment may be; what is older was left by a dead one.
const NEW_S_MAX: u64 = 60;

/// Files in one workspace.
const FILES_MAX: usize = 10_000;

/// Characters of one path.
const PATH_CHARS_MAX: usize = 1_024;

/// What programs expect in `/etc`, with nothing in it.
const SYNTHETIC_FILES: [(&str, &str); 4] = [
    ("passwd", "root:x:0:0::/:/bin/false\nsandbox:x:65534:65534::/tmp:/bin/false\n"),
    ("group", "root:x:0:\nsandbox:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
];

/// A directory that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct RunDirectory {
    path: PathBuf,
    _held: File,
}

impl RunDirectory {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn make() -> io::Result<Self> {
        let made =
            tempfile::Builder::new().prefix(NEW_PREFIX).permissions(Permissions::from_mode(0o700)).tempdir_in(ROOT)?;
        let held = File::open(made.path())?;
        held.try_lock()?;
        let name = made.path().file_name().unwrap_or_default().to_string_lossy().replace(NEW_PREFIX, PREFIX);
        let path = Path::new(ROOT).join(name);
        fs::rename(made.path(), &path)?;
        // It has its name from now on, and is removed under that.
        let _ = made.keep();
        Ok(Self { path, _held: held })
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes the directories of makers that are dead.
fn sweep() {
    for entry in fs::read_dir(ROOT).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let forsaken = match (name.starts_with(PREFIX), name.starts_with(NEW_PREFIX)) {
            (true, _) => File::open(&path).is_ok_and(|directory| directory.try_lock().is_ok()),
            (_, true) => entry.metadata().and_then(|about| about.modified()).is_ok_and(is_old),
            _ => false,
        };
        if forsaken {
            tracing::info!("{} was left by a worker that died; it is removed", path.display());
            remove(&path);
        }
    }
}

fn is_old(made: SystemTime) -> bool {
    SystemTime::now().duration_since(made).is_ok_and(|age| age > Duration::from_secs(NEW_S_MAX))
}

/// Links in it are not followed. The helper may be removing it at the same time.
fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("{} could not be removed: {error}", path.display());
        }
        _ => {}
    }
}

/// Makes and fills the directory, then gives it to the sandbox user.
pub(super) fn create(files: &BTreeMap<String, Vec<u8>>, limits: &Limits) -> Result<RunDirectory, SandboxError> {
    check(files, limits)?;
    sweep();
    let directory = RunDirectory::make().map_err(failed("make a run directory in", Path::new(ROOT)))?;
    let root = directory.path();
    fill(root, files).map_err(failed("fill", root))?;
    if Uid::effective().is_root() {
        give_away(root).map_err(failed("hand over", root))?;
    }
    Ok(directory)
}

fn fill(root: &Path, files: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let layout = Layout::new(Tier::Landlock, root, None);
    for directory in [&layout.source, &layout.workspace, &layout.temporary, &root.join("etc")] {
        fs::create_dir(directory)?;
    }
    for (name, content) in SYNTHETIC_FILES {
        fs::write(root.join("etc").join(name), content)?;
    }
    // Ends pytest's search for a configuration above the workspace.
    fs::write(root.join("pytest.ini"), "[pytest]\n")?;
    fs::write(root.join(REPORT), "")?;
    for (name, content) in files {
        let path = layout.source.join(name);
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write(path, content)?;
    }
    Ok(())
}

fn check(files: &BTreeMap<String, Vec<u8>>, limits: &Limits) -> Result<(), SandboxError> {
    let bytes = files.values().map(|content| content.len() as u64).sum();
    if files.len() > FILES_MAX || bytes > limits.disk_bytes {
        return Err(SandboxError::TooMuchInput {
            files: files.len(),
            bytes,
            files_max: FILES_MAX,
            bytes_max: limits.disk_bytes,
        });
    }
    for path in files.keys() {
        if let Some(reason) = refusal(path) {
            return Err(SandboxError::RefusedPath { path: super::text::shortened(path, PATH_CHARS_MAX), reason });
        }
    }
    Ok(())
}

fn refusal(path: &str) -> Option<&'static str> {
    if path.is_empty() || path.ends_with('/') {
        return Some("it names no file");
    }
    if path.len() > PATH_CHARS_MAX {
        return Some("it is too long");
    }
    if path.contains(['\0', '\n', '\r']) {
        return Some("it contains a control character");
    }
    let leaves = path.split('/').any(|part| matches!(part, "" | "." | ".."));
    leaves.then_some("it is absolute, leaves the workspace or has an empty part")
}

/// Children before parents, so that nobody but us can enter while it happens.
fn give_away(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give_away(&entry?.path())?;
        }
    }
    chown(path, Some(Uid::from_raw(UNPRIVILEGED_ID)), Some(Gid::from_raw(UNPRIVILEGED_ID))).map_err(io::Error::from)
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError::File { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(path: &str) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([(path.to_owned(), b"x".to_vec())])
    }

    #[test]
    fn paths_that_leave_are_refused() {
        for path in ["", "/etc/passwd", "../x", "a/../../x", "a/", "a\0b", "./x", "a//b", "a\nb"] {
            let result = create(&one(path), &Limits::default());
            assert!(matches!(result, Err(SandboxError::RefusedPath { .. })), "{path:?}: {result:?}");
        }
    }

    #[test]
    fn too_much_is_refused() {
        let limits = Limits { disk_bytes: 0, ..Limits::default() };
        assert!(matches!(create(&one("a.py"), &limits), Err(SandboxError::TooMuchInput { .. })));
    }

    #[test]
    fn what_a_dead_worker_left_is_removed_and_what_is_held_stays() {
        let held = create(&one("a.py"), &Limits::default()).unwrap();
        let left = Path::new(ROOT).join(format!("{PREFIX}left-{}", std::process::id()));
        fs::create_dir_all(left.join("source")).unwrap();
        std::os::unix::fs::symlink("/etc", left.join("link")).unwrap();
        sweep();
        assert!(!left.exists() && held.path().exists() && Path::new("/etc/passwd").exists());
    }

    #[test]
    fn the_directory_is_private_and_goes_away() {
        let directory = create(&one("pkg/a.py"), &Limits::default()).unwrap();
        let path = directory.path().to_owned();
        assert_eq!(fs::read(path.join("source/pkg/a.py")).unwrap(), b"x");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(directory);
        assert!(!path.exists());
    }
}
