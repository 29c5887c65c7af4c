//! `oarlock show`: a run as it is stored, whether anybody works on it or not.

use super::answer::out;
use super::args::ShowArgs;
use super::attach;
use super::config::Config;
use super::exit::{Exit, ended};
use crate::orchestrator::view;
use crate::store::Store;
use crate::wire::{RunView, TaskStatus, TaskView};

/// Characters of a task's result that its line shows.
const RESULT_CHARS: usize = 90;

pub(super) async fn show(config: &Config, args: ShowArgs) -> anyhow::Result<()> {
    let reached = attach::server(config).await?;
    let bus = &reached.bus;
    let seen = view(&Store::new(bus), &args.run, &config.runs.rules).await?;
    let seen = seen.ok_or_else(|| ended(Exit::NotFound, format!("there is no run {} on this server", args.run)))?;
    if args.json {
        return out(&serde_json::to_string(&seen)?);
    }
    print(&seen)
}

fn print(seen: &RunView) -> anyhow::Result<()> {
    let usage = seen.usage;
    let tokens = format!("{} tokens in, {} out", usage.input, usage.output);
    let repairs = if usage.repairs > 0 { format!(", {} repairs", usage.repairs) } else { String::new() };
    let spent = format!("{} model calls, {tokens}, {}{repairs}", usage.calls, usage.cost_in_words());
    out(&format!("{}  {}  {spent}", seen.run, seen.status.name()))?;
    out(&format!("goal: {}", first_line(&seen.goal)))?;
    for task in &seen.tasks {
        out(&line(task))?;
    }
    if let Some(failure) = &seen.failure {
        out(&format!("failed: {failure}"))?;
    }
    if !seen.artifacts.is_empty() {
        let names: Vec<String> =
            seen.artifacts.iter().map(|file| format!("{} ({} bytes)", file.path, file.bytes)).collect();
        out(&format!("files: {}", names.join(", ")))?;
    }
    match &seen.answer {
        Some(answer) => out(&format!("\n{}", answer.trim_end())),
        None => Ok(()),
    }
}

fn line(task: &TaskView) -> String {
    let mark = match (task.status, task.passed) {
        (TaskStatus::Pending, _) => "·",
        (TaskStatus::InProgress, _) => "…",
        (TaskStatus::Completed, Some(false)) | (TaskStatus::Failed | TaskStatus::Canceled, _) => "✗",
        (TaskStatus::Completed, _) => "✓",
    };
    let attempt = if task.attempt > 1 { format!(" #{}", task.attempt) } else { String::new() };
    let needs: Vec<&str> = task.dependencies.iter().map(|id| id.as_str()).collect();
    let needs = if needs.is_empty() { String::new() } else { format!("  (after {})", needs.join(", ")) };
    let words = task.result.as_deref().unwrap_or(&task.description);
    format!(" {mark} {:<9} {:<12} {}{needs}", format!("{}{attempt}", task.id), task.role.name(), first_line(words))
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(RESULT_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
