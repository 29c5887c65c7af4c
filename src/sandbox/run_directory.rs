//! The throw-away directory of one run: private to the sandbox user, filled before it is handed over, removed twice
//! over (by the helper when all processes are dead, and by us when the value is dropped).

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, chown};
use tempfile::TempDir;

use super::job::{Layout, REPORT};
use super::{Limits, SandboxError, Tier, UNPRIVILEGED_ID};

/// Where run directories live: reachable by every user, cleaned by the system after a crash.
const ROOT: &str = "/tmp";

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

/// Makes and fills the directory, then gives it to the sandbox user.
pub(super) fn create(files: &BTreeMap<String, Vec<u8>>, limits: &Limits) -> Result<TempDir, SandboxError> {
    check(files, limits)?;
    let directory = tempfile::Builder::new()
        .prefix("oarlock-run-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(ROOT)
        .map_err(failed("make a run directory in", Path::new(ROOT)))?;
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
    fn the_directory_is_private_and_goes_away() {
        let directory = create(&one("pkg/a.py"), &Limits::default()).unwrap();
        let path = directory.path().to_owned();
        assert_eq!(fs::read(path.join("source/pkg/a.py")).unwrap(), b"x");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(directory);
        assert!(!path.exists());
    }
}
