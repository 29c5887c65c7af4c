//! What a command leaves behind: the answer on standard output, the files in a folder.

use std::fs::{self, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::Context;

use super::exit::{Exit, ended};
use super::talk::{on_out, plain, say};
use crate::store::FileSet;
use crate::wire::{FailureKind, Outcome, Reply, Report};

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
    if let Some(Report::Tests(tests)) = reply.report() {
        let verdict = if tests.passed { "passed" } else { "did not pass" };
        say(&format!("pytest {verdict}: {} of {} tests ok, in sandbox {}", tests.ok, tests.tests, tests.sandbox));
    }
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
        Outcome::Canceled { reason } => {
            let again = if kept { format!("\n  try again: oarlock retry {}", reply.run) } else { String::new() };
            Err(ended(Exit::Failed, format!("run {} was canceled: {reason}{again}", reply.run)))
        }
        Outcome::Failed { failure } => {
            let exit = if failure.kind == FailureKind::Timeout { Exit::Timeout } else { Exit::Failed };
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

/// Prints a line, with its first `mark` in colour if colours are wanted.
pub(super) fn out_marked(text: &str, mark: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    let written = match stdout.is_terminal() {
        true => writeln!(stdout, "{}", on_out(&plain(text), mark)),
        false => writeln!(stdout, "{}", on_out(text, mark)),
    };
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write the answer"),
    }
}

/// Writes files below `folder`. The names were checked when they were parsed; a link that stands in the way on this disk
/// is not followed.
pub(super) fn write_files(folder: &Path, files: &FileSet) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    for (name, content) in files {
        let mut place = folder.to_owned();
        let parts: Vec<&str> = name.as_str().split('/').collect();
        let (file, folders) = parts.split_last().context("a file without a name")?;
        for part in folders {
            place.push(part);
            match fs::symlink_metadata(&place) {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => {
                    return Err(ended(
                        Exit::Conflict,
                        format!("{} is in the way of {name}; move it, or name another folder", place.display()),
                    ));
                }
                Err(_) => fs::create_dir(&place).with_context(|| format!("create {}", place.display()))?,
            }
        }
        place.push(file);
        if fs::symlink_metadata(&place).is_ok_and(|meta| !meta.is_file()) {
            return Err(ended(
                Exit::Conflict,
                format!("{} is in the way of {name}; move it, or name another folder", place.display()),
            ));
        }
        let opened = OpenOptions::new().write(true).create(true).truncate(true).open(&place);
        let written = opened.and_then(|mut file| file.write_all(content));
        written.with_context(|| format!("write {}", place.display()))?;
    }
    Ok(())
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
            assert!(write_files(place.path(), &files).is_err(), "{name}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        let files = FileSet::from([("pkg/b.py".parse().unwrap(), b"y".to_vec())]);
        write_files(place.path(), &files).unwrap();
        assert_eq!(fs::read(place.path().join("pkg/b.py")).unwrap(), b"y");
    }
}
