//! The coder: files, whole, stored by their hash. Its reply names the whole set, so that the next attempt and the checks
//! work on what it says and nothing else.

use serde::Deserialize;

use super::briefing::{Briefing, storage};
use super::files::{self, WrittenFile};
use super::{Desk, Product};
use crate::store::FileSet;
use crate::wire::{Artifact, Failure, FilePath, Role, Usage, clashes};

#[derive(Deserialize)]
struct Answer {
    files: Vec<WrittenFile>,
    #[serde(default)]
    deleted: Vec<String>,
    summary: String,
}

struct Change {
    written: FileSet,
    deleted: Vec<FilePath>,
    summary: String,
}

pub(super) async fn work(desk: &Desk, briefing: &Briefing, usage: &mut Usage) -> Result<Product, Failure> {
    let task = &briefing.task;
    let change = desk.ask_json(briefing, usage, |value| read(value, &briefing.files)).await?;
    let stored = desk.store.artifacts.put(&task.run, Role::Coder, &change.written).await.map_err(storage)?;
    // What coders wrote before stays in the set, unless it was rewritten or deleted.
    let untouched = |file: &&Artifact| {
        file.role == Role::Coder && !change.written.contains_key(&file.path) && !change.deleted.contains(&file.path)
    };
    let mut artifacts: Vec<Artifact> = task.files.iter().filter(untouched).cloned().collect();
    artifacts.extend(stored);
    artifacts.sort_by(|one, other| one.path.cmp(&other.path));
    let names: Vec<String> = artifacts.iter().map(|file| file.path.to_string()).collect();
    let content = format!("{}\n\nFiles: {}", change.summary.trim(), names.join(", "));
    Ok(Product { content, artifacts, report: None })
}

fn read(value: &serde_json::Value, known: &FileSet) -> Result<Change, Vec<String>> {
    let answer: Answer = serde_json::from_value(value.clone()).map_err(|error| vec![error.to_string()])?;
    let written = files::checked(&answer.files)?;
    let mut faults = Vec::new();
    let mut deleted = Vec::new();
    for name in &answer.deleted {
        match name.parse::<FilePath>() {
            Ok(path) if known.contains_key(&path) && !written.contains_key(&path) => deleted.push(path),
            Ok(path) => faults.push(format!("{path} is in \"deleted\" but is not there, or is written as well")),
            Err(bad) => faults.push(bad.to_string()),
        }
    }
    let mut whole: FileSet = known.iter().filter(|(path, _)| !deleted.contains(path)).map(copy).collect();
    whole.extend(written.iter().map(copy));
    faults.extend(clashes(whole.keys()));
    if faults.is_empty() { Ok(Change { written, deleted, summary: answer.summary }) } else { Err(faults) }
}

fn copy((path, content): (&FilePath, &Vec<u8>)) -> (FilePath, Vec<u8>) {
    (path.clone(), content.clone())
}
