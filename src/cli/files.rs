//! Files and directories that are attached to a goal.

use std::path::Path;

use super::exit::{Exit, ended};
use super::talk::say;
use crate::sources::{Links, collect, is_binary, read_still};
use crate::store::FileSet;
use crate::wire::{BadPath, FilePath, limits};

/// The attached files under the names that the fleet sees: the path as given when it is relative, the last name otherwise;
/// of a directory what is worth reading in it. Says what was left out.
///
/// # Errors
/// When a file cannot be taken, or there are too many.
pub(super) fn attached(paths: &[std::path::PathBuf]) -> anyhow::Result<FileSet> {
    let mut files = FileSet::new();
    for path in paths {
        let refused = |why: String| {
            ended(Exit::Usage, format!("attached file {}: {why}; attach another, or leave it out", path.display()))
        };
        let more = if path.is_dir() { directory(path) } else { file(path) }.map_err(refused)?;
        for (name, content) in more {
            if files.insert(name.clone(), content).is_some() {
                return Err(refused(format!("another attached file is called {name} as well")));
            }
        }
    }
    let bytes: usize = files.values().map(Vec::len).sum();
    for (what, count, bound, max) in [
        ("files", files.len(), "attachments_max", limits::ATTACHMENTS_MAX),
        ("bytes", bytes, "files_bytes_max", limits::FILES_BYTES_MAX),
    ] {
        if count > max {
            return Err(ended(
                Exit::Usage,
                format!("{count} {what} are attached, more than {bound} {max}; attach less"),
            ));
        }
    }
    Ok(files)
}

fn file(path: &Path) -> Result<FileSet, String> {
    let name = name_of(path).map_err(|error| error.to_string())?;
    let content = read_still(path, Links::Followed)?;
    if is_binary(&content) {
        say(&format!("{name} is no UTF-8 text: it is attached, but models are told of its size alone"));
    }
    Ok(FileSet::from([(name, content)]))
}

fn directory(path: &Path) -> Result<FileSet, String> {
    let prefix = match path.components().all(|part| matches!(part, std::path::Component::CurDir)) {
        true => String::new(),
        false => name_of(path).map_err(|error| error.to_string())?.to_string(),
    };
    let collected = collect(path, &prefix)?;
    if collected.files.is_empty() {
        let why = if collected.left_out.is_empty() { String::new() } else { format!(": {}", collected.left_out) };
        return Err(format!("there is no text file in it that could be attached{why}"));
    }
    let left_out = match collected.left_out.is_empty() {
        true => String::new(),
        false => format!("; left out: {}", collected.left_out),
    };
    say(&format!("{} files of {} are attached{left_out}", collected.files.len(), path.display()));
    Ok(collected.files)
}

fn name_of(path: &Path) -> Result<FilePath, BadPath> {
    let text = path.to_string_lossy().into_owned();
    let plain = text.strip_prefix("./").unwrap_or(&text).trim_end_matches('/').parse::<FilePath>();
    let last = || path.file_name().unwrap_or_default().to_string_lossy().parse();
    plain.or_else(|_| last())
}
