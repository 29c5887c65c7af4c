//! What a command leaves behind: the answer on standard output, the files in a folder.

use std::fs::{self, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::exit::{Exit, ended};
use super::talk::{on_out, plain, say};
use crate::store::FileSet;
use crate::wire::{Artifact, ContentHash, FailureKind, FilePath, Outcome, Reply, limits};

/// How an answer is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// The answer alone.
    Text,
    /// The whole reply, one line.
    Json,
}

/// Prints the answer; a failed run is an error whose text is the failure, and how to look closer if it is kept.
pub(super) fn print(reply: &Reply, shape: Shape, kept: bool) -> anyhow::Result<()> {
    reply.evidence().iter().for_each(|line| say(line));
    let usage = reply.usage;
    let about = if usage.estimated { "about " } else { "" };
    let tokens = format!("{about}{} tokens in, {} out", usage.input, usage.output);
    let repairs = if usage.repairs > 0 { format!(", {} repairs", usage.repairs) } else { String::new() };
    say(&format!("{} model calls, {tokens}, {}{repairs}", usage.calls, usage.cost_in_words()));
    match (shape, &reply.outcome) {
        (Shape::Json, _) => out(&serde_json::to_string(reply)?)?,
        (Shape::Text, Outcome::Completed { content, .. }) => out(content.trim_end())?,
        (Shape::Text, _) => {}
    }
    match &reply.outcome {
        Outcome::Completed { .. } => Ok(()),
        Outcome::Question(question) => {
            Err(ended(Exit::Failed, format!("run {} asks {}: {}", reply.run, question.to, question.text)))
        }
        Outcome::Canceled { reason } => {
            let again = if kept { format!("\n  try again: oarlock retry {}", reply.run) } else { String::new() };
            Err(ended(Exit::Failed, format!("run {} was canceled: {reason}{again}", reply.run)))
        }
        Outcome::Failed { failure } => {
            let exit = match failure.kind {
                FailureKind::Timeout => Exit::Timeout,
                FailureKind::BudgetExceeded => Exit::OverBudget,
                _ => Exit::Failed,
            };
            let run = &reply.run;
            let look = format!("\n  look closer: oarlock show {run}\n  try again: oarlock retry {run}");
            let look = if kept { look } else { String::new() };
            Err(ended(exit, format!("run {} failed: {failure}{look}", reply.run)))
        }
    }
}

/// Prints text; a reader that went away (`| head`) is no error. On a terminal, what would be commands to it is shown as
/// blanks: much of what is printed here was written by a model.
pub(super) fn out(text: &str) -> anyhow::Result<()> {
    out_marked(text, "")
}

/// Prints text for a reader who may have enough; false when that one is gone.
pub(super) fn out_on(text: &str) -> anyhow::Result<bool> {
    written(text, "")
}

/// Prints a line, with its first `mark` in colour if colours are wanted.
pub(super) fn out_marked(text: &str, mark: &str) -> anyhow::Result<()> {
    written(text, mark).map(drop)
}

fn written(text: &str, mark: &str) -> anyhow::Result<bool> {
    let mut stdout = std::io::stdout();
    let written = match stdout.is_terminal() {
        true => writeln!(stdout, "{}", on_out(&plain(text), mark)),
        false => writeln!(stdout, "{}", on_out(text, mark)),
    };
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).context("write the answer"),
    }
}

/// Which files that are there already may be replaced.
pub(super) enum Replace<'a> {
    /// All of them.
    All,
    /// Those that are still as they were attached.
    Attached(&'a [Artifact]),
}

impl Replace<'_> {
    fn allows(&self, name: &FilePath, there: &[u8]) -> bool {
        match self {
            Replace::All => true,
            Replace::Attached(files) => {
                files.iter().any(|file| file.path == *name && file.sha256 == ContentHash::of(there))
            }
        }
    }
}

/// Writes files below `folder`, all or, when one is in the way, none. The names were checked when they were parsed; a link
/// that stands in the way on this disk is not followed.
///
/// # Errors
/// [`Exit::Conflict`] names what is in the way: no folder where one is needed, or a file of other content that must not be
/// replaced.
pub(super) fn write_files(folder: &Path, files: &FileSet, replace: &Replace<'_>) -> anyhow::Result<()> {
    let places: Vec<_> = files.iter().map(|(name, content)| (folder.join(name.as_str()), name, content)).collect();
    for (place, name, content) in &places {
        if let Some(what) = in_the_way(folder, place, name, content, replace)? {
            let how = "nothing was written; move it, name another folder, or use `oarlock artifacts … --force`";
            return Err(ended(Exit::Conflict, format!("{} is in the way of {name}: {how}", what.display())));
        }
    }
    for (place, _, content) in places {
        let parent = place.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        let opened = OpenOptions::new().write(true).create(true).truncate(true).open(&place);
        let written = opened.and_then(|mut file| file.write_all(content));
        written.with_context(|| format!("write {}", place.display()))?;
    }
    Ok(())
}

/// What stands between a file and its place, if anything does.
fn in_the_way(
    folder: &Path,
    place: &Path,
    name: &FilePath,
    content: &[u8],
    replace: &Replace<'_>,
) -> anyhow::Result<Option<PathBuf>> {
    let within = |path: &&Path| *path != folder && path.starts_with(folder);
    let parents: Vec<&Path> = place.ancestors().skip(1).take_while(within).collect();
    let no_folder = |path: &&&Path| fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_dir());
    if let Some(parent) = parents.iter().find(no_folder) {
        return Ok(Some(parent.to_path_buf()));
    }
    let free = match fs::symlink_metadata(place) {
        Err(_) => true,
        Ok(meta) if !meta.is_file() => false,
        Ok(_) if matches!(replace, Replace::All) => true,
        Ok(meta) if meta.len() > limits::FILE_BYTES_MAX as u64 => false,
        Ok(_) => {
            let there = fs::read(place).with_context(|| format!("read {}", place.display()))?;
            there == content || replace.allows(name, &there)
        }
    };
    Ok((!free).then(|| place.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_link_on_the_way_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), place.path().join("src")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("x"), place.path().join("link.py")).unwrap();
        for name in ["src/a.py", "link.py"] {
            let files = FileSet::from([(name.parse().unwrap(), b"x".to_vec())]);
            assert!(write_files(place.path(), &files, &Replace::All).is_err(), "{name}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        let files = FileSet::from([("pkg/b.py".parse().unwrap(), b"y".to_vec())]);
        write_files(place.path(), &files, &Replace::Attached(&[])).unwrap();
        assert_eq!(fs::read(place.path().join("pkg/b.py")).unwrap(), b"y");
    }

    #[test]
    fn a_file_of_the_user_is_replaced_only_when_it_was_attached_and_is_unchanged() {
        let place = tempfile::tempdir().unwrap();
        let path: FilePath = "a.py".parse().unwrap();
        let files = FileSet::from([("b.py".parse().unwrap(), b"b".to_vec()), (path.clone(), b"new".to_vec())]);
        let attached = |content: &[u8]| {
            let (sha256, bytes) = (ContentHash::of(content), content.len() as u64);
            vec![Artifact { path: path.clone(), sha256, bytes, role: crate::wire::Role::Orchestrator }]
        };
        let there = place.path().join("a.py");
        fs::write(&there, "mine").unwrap();
        for known in [vec![], attached(b"older")] {
            let error = write_files(place.path(), &files, &Replace::Attached(&known)).unwrap_err().to_string();
            assert!(error.contains("a.py is in the way") && error.contains("--force"), "{error}");
            assert_eq!((fs::read(&there).unwrap(), place.path().join("b.py").exists()), (b"mine".to_vec(), false));
        }
        write_files(place.path(), &files, &Replace::Attached(&attached(b"mine"))).unwrap();
        assert_eq!(fs::read(&there).unwrap(), b"new");
        write_files(place.path(), &files, &Replace::Attached(&[])).unwrap();
        fs::write(&there, "mine").unwrap();
        write_files(place.path(), &files, &Replace::All).unwrap();
        assert_eq!(fs::read(&there).unwrap(), b"new");
    }
}
