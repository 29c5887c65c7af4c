//! Space on disk: how much a run holds, and how all of it goes away again, however the code tried to prevent that.

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::tree::{self, Process};

/// Files and directories that one run may hold; each costs kernel memory even when empty.
pub(super) const ENTRIES_MAX: u64 = 50_000;

const BLOCK_BYTES: u64 = 512;

/// What a run holds.
#[derive(Debug, Default)]
pub(super) struct Usage {
    pub bytes: u64,
    pub entries: u64,
}

/// What lies below these directories. Gives up with too many entries on a tree that cannot be walked.
pub(super) fn of_trees(roots: &[&Path]) -> Usage {
    let mut usage = Usage::default();
    let mut waiting: Vec<PathBuf> = roots.iter().map(|root| root.to_path_buf()).collect();
    while let Some(directory) = waiting.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => continue,
            Err(_) => {
                return Usage { entries: u64::MAX, ..usage };
            }
        };
        for entry in entries.flatten() {
            let Ok(status) = entry.metadata() else { continue };
            usage.bytes += status.blocks() * BLOCK_BYTES;
            usage.entries += 1;
            if status.is_dir() {
                waiting.push(entry.path());
            }
        }
        if usage.entries > ENTRIES_MAX {
            break;
        }
    }
    usage
}

/// Files that are deleted but still open: invisible in any directory, yet they fill the disk.
pub(super) fn of_deleted(processes: &[Process]) -> u64 {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for process in processes {
        let directory = format!("/proc/{}/fd", process.pid);
        for descriptor in tree::numbers(&directory) {
            let Ok(status) = fs::metadata(format!("{directory}/{descriptor}")) else {
                continue;
            };
            if status.is_file() && status.nlink() == 0 && seen.insert((status.dev(), status.ino())) {
                bytes += status.blocks() * BLOCK_BYTES;
            }
        }
    }
    bytes
}

/// Entries on the tmpfs mounts of tier bwrap, seen through the first process inside that lets us look.
pub(super) fn entries_behind(processes: &[Process], mounts: &[&Path]) -> u64 {
    let used = |process: &Process| {
        let root = format!("/proc/{}/root", process.pid);
        let count = |mount: &&Path| {
            let status = statvfs(&Path::new(&root).join(mount.strip_prefix("/").unwrap_or(mount))).ok()?;
            Some(status.files().saturating_sub(status.files_free()))
        };
        // The first mount exists only inside; a process of bwrap itself that still stands outside is passed over.
        mounts.iter().map(count).sum::<Option<u64>>()
    };
    processes.iter().find_map(used).unwrap_or(0)
}

/// Removes a run directory when all processes are dead: any depth, any mode.
pub(super) fn remove(root: &Path) -> io::Result<()> {
    match fs::remove_dir_all(root) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => {
            flatten(root)?;
            fs::remove_dir(root)
        }
    }
}

/// Lifts every directory to the top before it is removed, so that depth costs neither stack nor descriptors.
fn flatten(root: &Path) -> io::Result<()> {
    let mut lifted = 0_u64;
    loop {
        let tops: Vec<fs::DirEntry> = fs::read_dir(root)?.collect::<io::Result<_>>()?;
        if tops.is_empty() {
            return Ok(());
        }
        for top in tops {
            if !top.file_type()?.is_dir() {
                fs::remove_file(top.path())?;
                continue;
            }
            fs::set_permissions(top.path(), Permissions::from_mode(0o700))?;
            for child in fs::read_dir(top.path())? {
                let child = child?;
                if child.file_type()?.is_dir() {
                    fs::set_permissions(child.path(), Permissions::from_mode(0o700))?;
                    lifted += 1;
                    fs::rename(child.path(), root.join(format!("lifted-{}-{lifted}", std::process::id())))?;
                } else {
                    fs::remove_file(child.path())?;
                }
            }
            fs::remove_dir(top.path())?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_counts_bytes_and_entries() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        fs::write(root.path().join("a/b"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/", root.path().join("link")).unwrap();
        let usage = of_trees(&[root.path()]);
        assert!(usage.bytes >= 100_000 && usage.bytes < 1_000_000, "{usage:?}");
        assert_eq!(usage.entries, 3);
    }

    #[test]
    fn deep_and_locked_trees_go_away_and_links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("keep"), "x").unwrap();
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("run");
        fs::create_dir_all(root.join("a/b/c/d/e")).unwrap();
        fs::write(root.join("a/b/f"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("a/b/link")).unwrap();
        fs::set_permissions(root.join("a/b/c"), Permissions::from_mode(0o0)).unwrap();
        flatten(&root).unwrap();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        remove(&root).unwrap();
        remove(&root).unwrap();
        assert!(outside.path().join("keep").exists());
    }
}
