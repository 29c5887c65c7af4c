//! Can the unprivileged user reach a file? Root can read everything, so root must ask this before it lends a path.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::Uid;

use super::UNPRIVILEGED_ID;

const READ: u32 = 0o4;
const ENTER: u32 = 0o1;

/// The user that untrusted code runs as, for messages.
pub(super) fn sandbox_user() -> String {
    if Uid::effective().is_root() { format!("{UNPRIVILEGED_ID} (nobody)") } else { Uid::effective().to_string() }
}

/// Whether the sandbox user can enter every directory above `path` and read it; the reason if not.
///
/// Looks at mode bits only (access lists are not consulted); when we are not root, the real attempt decides instead.
pub(super) fn reachable(path: &Path) -> Result<(), String> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let real = fs::canonicalize(path).map_err(|error| format!("{} cannot be resolved: {error}", path.display()))?;
    for ancestor in real.ancestors().skip(1) {
        if !allows(ancestor, ENTER)? {
            return Err(format!("{} is private (user {} may not enter it)", ancestor.display(), sandbox_user()));
        }
    }
    let needed = if real.is_dir() { READ | ENTER } else { READ };
    if allows(&real, needed)? {
        Ok(())
    } else {
        Err(format!("{} is not readable by user {}", real.display(), sandbox_user()))
    }
}

fn allows(path: &Path, needed: u32) -> Result<bool, String> {
    let status = fs::metadata(path).map_err(|error| format!("{} cannot be examined: {error}", path.display()))?;
    let shift = if status.uid() == UNPRIVILEGED_ID {
        6
    } else if status.gid() == UNPRIVILEGED_ID {
        3
    } else {
        0
    };
    Ok((status.mode() >> shift) & needed == needed)
}
