//! `oarlock show`: a run as it is stored, whether anybody works on it or not.

use super::answer::{out, out_marked};
use super::args::ShowArgs;
use super::attach::{self, Reached};
use super::config::Config;
use super::control;
use super::exit::{Exit, ended};
use super::people::all_waits;
use super::show_task;
use super::story::{Story, first_line, mark, short, tree};
use crate::store::Store;
use crate::wire::{RunId, TaskView};

pub(super) async fn show(config: &Config, args: ShowArgs) -> anyhow::Result<()> {
    let (run, task) = control::parse(&args.what)?;
    let reached = attach::server(config).await?;
    let story = story(config, &reached, &run).await?;
    match task {
        Some(task) => show_task::show(config, &reached, &story, &task, &args).await,
        None if args.attempt.is_some() => {
            Err(ended(Exit::Usage, format!("--attempt is about one task; write {run}/<task>, for example {run}/t1")))
        }
        None if args.json => out(&serde_json::to_string(&story.view)?),
        None => print(&story, reached.bus.server_now().await?),
    }
}

/// The run with all that happened in it.
///
/// # Errors
/// A missing run is one that ends the command as not found.
pub(super) async fn story(config: &Config, reached: &Reached, run: &RunId) -> anyhow::Result<Story> {
    let story = Story::load(&Store::new(&reached.bus), run, &config.runs.rules).await?;
    story.ok_or_else(|| no_run(config, run))
}

/// The error for a run that is not kept where it was looked for.
pub(super) fn no_run(config: &Config, run: &RunId) -> anyhow::Error {
    let selected = match config.connections.named() {
        Ok(None) => config.connections.selected_name().unwrap_or_default(),
        _ => None,
    };
    let place = selected.map(|name| {
        format!(" (the one of the selected nats context {name:?}, unless a fleet of this folder is up; --no-context looks elsewhere)")
    });
    let place = place.unwrap_or_default();
    let how = "`oarlock ls` lists those that are kept";
    ended(Exit::NotFound, format!("there is no run {run} on this server{place}; {how}"))
}

fn print(story: &Story, now: i64) -> anyhow::Result<()> {
    let seen = &story.view;
    let usage = seen.usage;
    let took = short(story.took(now));
    let tokens = format!("{} tokens in, {} out", usage.input, usage.output);
    let repairs = if usage.repairs > 0 { format!(", {} repairs", usage.repairs) } else { String::new() };
    let spent = format!("{} model calls, {tokens}, {}{repairs}", usage.calls, usage.cost_in_words());
    out(&format!("{}  {}  {took}, {spent}", seen.run, seen.status.name()))?;
    out(&format!("goal: {}", first_line(&seen.goal)))?;
    if !seen.tenant.is_default() {
        out(&format!("tenant: {}", seen.tenant))?;
    }
    for (prefix, index) in tree(&seen.tasks) {
        for (line, mark) in lines(story, &seen.tasks[index], &prefix, now) {
            out_marked(&line, mark)?;
        }
    }
    all_waits(seen, now).iter().try_for_each(|(_, line)| out(line))?;
    if let Some(failure) = &seen.failure {
        out(&format!("failed: {failure}"))?;
    }
    if !seen.artifacts.is_empty() {
        let names: Vec<String> =
            seen.artifacts.iter().map(|file| format!("{} ({} bytes)", file.path, file.bytes)).collect();
        out(&format!("files: {}", names.join(", ")))?;
    }
    seen.evidence.iter().try_for_each(|line| out(line))?;
    // Those of the result are among the evidence.
    let earlier = |doubt: &&String| !seen.evidence.iter().any(|line| line.ends_with(doubt.as_str()));
    seen.doubts.iter().filter(earlier).try_for_each(|doubt| out(&format!("doubt: {doubt}")))?;
    if let Some(answer) = &seen.answer {
        out(&format!("\n{}", answer.trim_end()))?;
    }
    Ok(())
}

/// A task's line, and before it one for each attempt that was not good enough.
fn lines(story: &Story, task: &TaskView, prefix: &str, now: i64) -> Vec<(String, &'static str)> {
    let earlier = story.of_task(&task.id).filter(|one| one.attempt < task.attempt && one.reply.is_some());
    let mut lines: Vec<(String, &'static str)> = earlier
        .map(|one| {
            let words = one.reply.as_ref().map(|reply| first_line(reply.text())).unwrap_or_default();
            let name = format!("{} #{}", task.id, one.attempt);
            let took = one.took(now).map(short).unwrap_or_default();
            let row = row(&prefix.replace("└─", "├─"), one.mark(), &name, task, &took, one.tokens(), &words);
            (row, one.mark())
        })
        .collect();
    let last = story.attempt(&task.id, task.attempt);
    let name = if task.attempt > 1 { format!("{} #{}", task.id, task.attempt) } else { task.id.to_string() };
    let took = last.and_then(|one| one.took(now)).map(short).unwrap_or_default();
    let mut words = first_line(task.result.as_deref().unwrap_or(&task.description));
    if task.dependencies.len() > 1 && task.attempt == 0 {
        let needs: Vec<&str> = task.dependencies.iter().map(|id| id.as_str()).collect();
        words += &format!("  (after {})", needs.join(", "));
    }
    let tokens = last.map_or(0, |one| one.tokens());
    lines.push((row(prefix, mark(task), &name, task, &took, tokens, &words), mark(task)));
    lines
}

/// A task's line.
pub(super) fn row(
    prefix: &str,
    mark: &str,
    name: &str,
    task: &TaskView,
    took: &str,
    tokens: u64,
    words: &str,
) -> String {
    let tokens = if tokens > 0 { format!("{tokens} tok") } else { String::new() };
    let name = format!("{prefix}{mark} {name}");
    format!("{name:<18} {:<12} {took:>6} {tokens:>10}  {words}", task.role.name()).trim_end().to_owned()
}
