//! `oarlock artifacts`: the files of a run, listed or fetched.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::Context;

use super::answer::{Replace, out, write_files};
use super::args::ArtifactsArgs;
use super::attach;
use super::config::Config;
use super::control;
use super::exit::{Exit, ended};
use super::show::story;
use super::story::Story;
use super::talk::say;
use crate::bus::Bus;
use crate::store::Store;
use crate::wire::{Artifact, Outcome, Reply, RunId, TaskId};

/// Digits of a hash that a line shows.
const HASH_DIGITS: usize = 12;

pub(super) async fn artifacts(config: &Config, args: ArtifactsArgs) -> anyhow::Result<()> {
    let (run, task) = control::parse(&args.what)?;
    let reached = attach::server(config).await?;
    let story = story(config, &reached, &run).await?;
    let mut files = match &task {
        Some(task) => of_task(&story, task)?,
        None => of_run(&story),
    };
    if let Some(name) = &args.name {
        let known: Vec<String> = files.iter().map(|file| file.path.to_string()).collect();
        files.retain(|file| file.path == *name);
        if files.is_empty() {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(ended(Exit::NotFound, format!("{} has no file {name}; it has: {known}", args.what)));
        }
    }
    match (&args.out, &args.name) {
        (None, None) => list(&files, &args),
        (None, Some(_)) if args.json => list(&files, &args),
        (Some(folder), _) if folder != Path::new("-") => fetch(&reached.bus, &run, &files, (folder, args.force)).await,
        _ => print(&reached.bus, &run, &files, &args.what).await,
    }
}

/// The files of the result; of a run without an answer, what its tasks have written so far.
fn of_run(story: &Story) -> Vec<Artifact> {
    if story.view.answer.is_some() {
        return story.view.artifacts.clone();
    }
    let mut files = std::collections::BTreeMap::new();
    for one in &story.tries {
        let written = one.reply.as_ref().map(Reply::artifacts).unwrap_or_default();
        files.extend(written.iter().map(|file| (file.path.clone(), file.clone())));
    }
    files.into_values().collect()
}

fn of_task(story: &Story, task: &TaskId) -> anyhow::Result<Vec<Artifact>> {
    let run = &story.view.run;
    if !story.view.tasks.iter().any(|known| known.id == *task) {
        let why = format!("run {run} has no task {task}; `oarlock show {run}` lists its tasks");
        return Err(ended(Exit::NotFound, why));
    }
    let completed = |reply: &&Reply| matches!(reply.outcome, Outcome::Completed { .. });
    let last = story.of_task(task).filter_map(|one| one.reply.as_ref()).filter(completed).last();
    Ok(last.map(|reply| reply.artifacts().to_vec()).unwrap_or_default())
}

fn list(files: &[Artifact], args: &ArtifactsArgs) -> anyhow::Result<()> {
    if args.json {
        return out(&serde_json::to_string(files)?);
    }
    if files.is_empty() {
        say(&format!("{} has no files", args.what));
    }
    for file in files {
        let hash = &file.sha256.as_str()[..HASH_DIGITS];
        out(&format!("{:>9}  {hash}  {:<13} {}", file.bytes, file.role.name(), file.path))?;
    }
    Ok(())
}

async fn fetch(bus: &Bus, run: &RunId, files: &[Artifact], to: (&Path, bool)) -> anyhow::Result<()> {
    let (store, (folder, force)) = (Store::new(bus), to);
    let got = store.artifacts.get_all(run, files).await?;
    let attached = store.runs.goal(run).await?.map(|goal| goal.attachments).unwrap_or_default();
    write_files(folder, &got, &if force { Replace::All } else { Replace::Attached(&attached) })?;
    say(&format!("{} files in {}", got.len(), folder.display()));
    Ok(())
}

/// Prints one file as it is; a terminal gets text alone.
async fn print(bus: &Bus, run: &RunId, files: &[Artifact], what: &str) -> anyhow::Result<()> {
    let [file] = files else {
        let count = files.len();
        return Err(ended(
            Exit::Usage,
            format!("{what} has {count} files, and one can be printed; name it, or give -o a folder"),
        ));
    };
    let content = Store::new(bus).artifacts.get(run, file).await?;
    let mut stdout = std::io::stdout();
    let written = match (stdout.is_terminal(), std::str::from_utf8(&content)) {
        (true, Ok(text)) => return out(text.trim_end_matches('\n')),
        (true, Err(_)) => {
            let why = format!("{} is no text; redirect it into a file, or give -o a folder", file.path);
            return Err(ended(Exit::Usage, why));
        }
        (false, _) => stdout.write_all(&content).and_then(|()| stdout.flush()),
    };
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write the file"),
    }
}
