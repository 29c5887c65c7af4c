//! Files of the user, as they are attached: a file by its name, a directory with what is worth reading in it.
//!
//! A directory is bounded before it is read: hidden files and what `.gitignore` leaves out are no material, links lead
//! elsewhere, and a directory with too much in it is refused, with how to take less. A file is taken only as it
//! was while it held still.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use ignore::WalkBuilder;

use crate::wire::{FilePath, limits};

/// Entries of a directory tree that are looked at.
const ENTRIES_MAX: usize = 20_000;
/// Times that a file is read in the hope that it holds still.
const READS_MAX: u32 = 4;
/// Pause between two of them.
const READ_DELAY_MS: u64 = 50;
/// Names of each kind that are told.
const TOLD_MAX: usize = 3;
/// Bytes at a file's head that tell whether it is text.
const HEAD_BYTES: usize = 8 * 1024;

/// What a directory gave.
#[derive(Debug, Default)]
pub struct Collected {
    /// Text files, by their name in the workspace.
    pub files: BTreeMap<FilePath, Vec<u8>>,
    /// What was there and is not among them.
    pub left_out: LeftOut,
}

/// Files that were left out, by reason.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LeftOut(BTreeMap<&'static str, Vec<String>>);

impl LeftOut {
    /// True when everything was taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, reason: &'static str, path: &Path) {
        self.0.entry(reason).or_default().push(path.display().to_string());
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.0.iter().map(|(reason, names)| {
            let more = if names.len() > TOLD_MAX { ", …" } else { "" };
            format!("{} {reason} ({}{more})", names.len(), names[..names.len().min(TOLD_MAX)].join(", "))
        });
        f.write_str(&told.collect::<Vec<_>>().join("; "))
    }
}

/// The text files under `folder`, named `prefix/…`, without what is hidden, ignored, linked, binary or too large.
///
/// # Errors
/// When there is too much, or a file cannot be read; the text names the bound and what to do.
pub fn collect(folder: &Path, prefix: &str) -> Result<Collected, String> {
    let mut collected = Collected::default();
    let mut bytes = 0;
    let walk = WalkBuilder::new(folder).require_git(false).max_depth(Some(limits::PATH_DEPTH_MAX)).build();
    for (count, entry) in walk.enumerate() {
        if count > ENTRIES_MAX {
            return Err(too_much(&format!("more than entries_max {ENTRIES_MAX} entries")));
        }
        let entry = entry.map_err(|error| error.to_string())?;
        let (path, kind) = (entry.path(), entry.file_type());
        if kind.is_none_or(|kind| kind.is_dir()) {
            continue;
        }
        let inside = path.strip_prefix(folder).unwrap_or(path);
        if !kind.is_some_and(|kind| kind.is_file()) {
            collected.left_out.add("links or devices", inside);
            continue;
        }
        let name = format!("{prefix}{}{}", if prefix.is_empty() { "" } else { "/" }, inside.to_string_lossy());
        let Ok(name) = name.parse::<FilePath>() else {
            collected.left_out.add("with names that are not portable", inside);
            continue;
        };
        if entry.metadata().is_ok_and(|data| data.len() > limits::FILE_BYTES_MAX as u64) {
            collected.left_out.add("over file_bytes_max", inside);
            continue;
        }
        let content = read_still(path, Links::Refused).map_err(|why| format!("{}: {why}", inside.display()))?;
        if is_binary(&content) {
            collected.left_out.add("binary", inside);
            continue;
        }
        bytes += content.len();
        collected.files.insert(name, content);
        if collected.files.len() > limits::ATTACHMENTS_MAX {
            return Err(too_much(&format!("more than attachments_max {} text files", limits::ATTACHMENTS_MAX)));
        }
        if bytes > limits::FILES_BYTES_MAX {
            return Err(too_much(&format!("more than files_bytes_max {} bytes of text", limits::FILES_BYTES_MAX)));
        }
    }
    Ok(collected)
}

fn too_much(what: &str) -> String {
    format!("it has {what}; attach a part of it, or leave files out with a .gitignore or .ignore file in it")
}

/// Whether a file may be a link to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// It may: somebody named it.
    Followed,
    /// It may not: it was only found.
    Refused,
}

/// True for content that is no text.
pub fn is_binary(content: &[u8]) -> bool {
    content[..content.len().min(HEAD_BYTES)].contains(&0) || std::str::from_utf8(content).is_err()
}

/// The content of a regular file of at most `file_bytes_max`, all of one moment: a system's clock for files is too coarse
/// to tell of every change, so it is read until two readings are the same.
///
/// # Errors
/// When it is no regular file, too large, cannot be read, or changes each time while it is read.
pub fn read_still(path: &Path, links: Links) -> Result<Vec<u8>, String> {
    let mut before = read_once(path, links)?;
    for _ in 1..READS_MAX {
        let again = read_once(path, links)?;
        if again.1 == before.1 && same(&again.0, &before.0) {
            return Ok(again.1);
        }
        before = again;
        std::thread::sleep(Duration::from_millis(READ_DELAY_MS));
    }
    Err("it changes while it is read; attach a copy of it".into())
}

/// What the file was when it was opened, and what was read of it.
fn read_once(path: &Path, links: Links) -> Result<(Metadata, Vec<u8>), String> {
    let mut file = open(path, links).map_err(|error| error.to_string())?;
    let status = file.metadata().map_err(|error| error.to_string())?;
    if !status.is_file() {
        return Err("it is no regular file".into());
    }
    let max = limits::FILE_BYTES_MAX as u64;
    let mut content = Vec::new();
    Read::by_ref(&mut file).take(max + 1).read_to_end(&mut content).map_err(|error| error.to_string())?;
    let bytes = status.len().max(content.len() as u64);
    match bytes > max {
        true => Err(format!("it has {bytes} bytes, more than file_bytes_max {max}")),
        false => Ok((status, content)),
    }
}

fn same(before: &Metadata, after: &Metadata) -> bool {
    before.len() == after.len() && before.modified().ok() == after.modified().ok()
}

/// Opens without waiting: somebody may have put a pipe there since we looked.
#[cfg(unix)]
fn open(path: &Path, links: Links) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    use nix::fcntl::OFlag;
    let no_links = if links == Links::Refused { OFlag::O_NOFOLLOW } else { OFlag::empty() };
    OpenOptions::new().read(true).custom_flags((OFlag::O_NONBLOCK | no_links).bits()).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path, _: Links) -> std::io::Result<File> {
    OpenOptions::new().read(true).open(path)
}
