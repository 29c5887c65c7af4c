//! `oarlock show <run>/<task>`: what a task's worker was asked, what it answered, and what changed between its attempts.

use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;

use super::answer::out;
use super::args::ShowArgs;
use super::attach::Reached;
use super::config::Config;
use super::exit::{Exit, ended};
use super::story::{Story, Try, short};
use crate::orchestrator::{Retold, retell};
use crate::roles::Prompt;
use crate::store::{FileSet, Store};
use crate::wire::{Artifact, Outcome, Reply, Report, Role, Task, TaskId, TaskView, limits};

/// Lines around a change that a diff shows.
const DIFF_CONTEXT_LINES: usize = 3;
/// Bytes of the diff of one attempt; what is over is left out, and said.
const DIFF_BYTES_MAX: usize = 512 * 1024;
/// How long the diff of one file may be thought about; then it is a coarse one.
const DIFF_MS_MAX: u64 = 500;
/// Bytes of the value of a proposed change that a line shows.
const CHANGE_BYTES_MAX: usize = 200;

/// One attempt, ready to be shown.
#[derive(Serialize)]
struct Shown<'a> {
    attempt: u32,
    /// Nanoseconds since 1970, by the server's clock.
    asked_at: Option<i64>,
    answered_at: Option<i64>,
    /// What the model was asked with, as far as it can be told.
    prompt: Option<Words>,
    evidence: Vec<Value>,
    reply: Option<&'a Reply>,
    /// What changed in the files since the attempt before, as a unified diff.
    diff: Option<String>,
}

#[derive(Serialize)]
struct Words {
    system: String,
    text: String,
    /// True when the worker began with exactly these words, false when it did not, nothing when nobody knows.
    as_sent: Option<bool>,
    /// True when the role has tools: what it was told about them, its calls and what they said are not kept.
    tools: bool,
}

pub(super) async fn show(
    config: &Config,
    reached: &Reached,
    story: &Story,
    task: &TaskId,
    args: &ShowArgs,
) -> anyhow::Result<()> {
    let run = &story.view.run;
    let Some(about) = story.view.tasks.iter().find(|known| known.id == *task) else {
        let known: Vec<&str> = story.view.tasks.iter().map(|task| task.id.as_str()).collect();
        let known = known.join(", ");
        return Err(ended(Exit::NotFound, format!("run {run} has no task {task}; it has: {known}")));
    };
    let tries: Vec<&Try> = story.of_task(task).collect();
    let wanted = |one: &&&Try| args.attempt.is_none_or(|attempt| one.attempt == attempt);
    if let Some(attempt) = args.attempt.filter(|_| tries.iter().filter(wanted).count() == 0) {
        let made = tries.len();
        return Err(ended(Exit::NotFound, format!("task {task} of run {run} has no attempt {attempt}; it has {made}")));
    }
    let store = Store::new(&reached.bus);
    let mut shown = Vec::new();
    for (index, one) in tries.iter().enumerate().filter(|(_, one)| wanted(one)) {
        let before = tries[..index].iter().rev().find_map(|one| files_of(one));
        let wanted = (&one.task, one.attempt);
        let retold = retell(&store, &reached.bus.root, run, &story.record, wanted).await?;
        shown.push(Shown {
            attempt: one.attempt,
            asked_at: one.asked_at,
            answered_at: one.answered_at,
            prompt: match &retold {
                Some(retold) => prompt(config, &store, retold, one).await,
                None => None,
            },
            evidence: retold.map(|retold| evidence(story, &retold.task)).unwrap_or_default(),
            reply: one.reply.as_ref(),
            diff: match (before, files_of(one)) {
                (Some(old), Some(new)) => Some(diff(&store, story, old, new).await),
                _ => None,
            },
        });
    }
    match args.json {
        true => out(&as_json(story, about, &shown)?),
        false => print(story, about, &shown, reached.bus.server_now().await?),
    }
}

fn files_of(one: &Try) -> Option<&[Artifact]> {
    one.reply.as_ref().map(Reply::artifacts).filter(|files| !files.is_empty())
}

/// The words that the model was asked with; `None` when none was asked, or they cannot be made again.
async fn prompt(config: &Config, store: &Store, retold: &Retold, one: &Try) -> Option<Words> {
    let sent = one.reply.as_ref().map(|reply| reply.prompt.clone());
    // A task that ended without a question, as a test run: nobody was asked.
    if sent == Some(None) && one.reply.as_ref().is_some_and(|reply| reply.usage.calls == 0) {
        return None;
    }
    match Prompt::again(store, config.roles.get(one.role), &retold.task).await {
        Ok(prompt) => {
            let as_sent = sent.flatten().map(|hash| hash == prompt.hash()).or((!retold.exact).then_some(false));
            let tools = !config.roles.get(one.role).tools.is_empty();
            Some(Words { system: prompt.system, text: prompt.text, as_sent, tools })
        }
        Err(failure) => {
            tracing::warn!("the prompt of {} #{} cannot be made again: {failure}", one.task, one.attempt);
            None
        }
    }
}

/// Why the attempt before was not good enough, as the worker was told.
fn evidence(story: &Story, task: &Task) -> Vec<Value> {
    let told = task.evidence.iter().map(|item| {
        let reply = story.attempt(&item.task, item.attempt).and_then(|one| one.reply.as_ref());
        let text = reply.map(|reply| reply.text().to_owned()).unwrap_or_default();
        serde_json::json!({ "task": item.task, "role": item.role, "attempt": item.attempt, "text": text })
    });
    told.collect()
}

async fn diff(store: &Store, story: &Story, old: &[Artifact], new: &[Artifact]) -> String {
    let run = &story.view.run;
    let changed = |one: &[Artifact], other: &[Artifact]| -> Vec<Artifact> {
        let same = |file: &&Artifact| !other.iter().any(|known| known.path == file.path && known.sha256 == file.sha256);
        one.iter().filter(same).cloned().collect()
    };
    let read = async |files: Vec<Artifact>| store.artifacts.get_all(run, &files).await;
    let (before, after) = (read(changed(old, new)).await, read(changed(new, old)).await);
    match (before, after) {
        (Ok(before), Ok(after)) => unified(&before, &after),
        (Err(error), _) | (_, Err(error)) => {
            format!("the files cannot be compared: {:#}\n", anyhow::Error::from(error))
        }
    }
}

fn unified(before: &FileSet, after: &FileSet) -> String {
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let mut text = String::new();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        let words = |content: Option<&Vec<u8>>| match content {
            None => Some(String::new()),
            Some(bytes) => String::from_utf8(bytes.clone()).ok(),
        };
        let (Some(old_text), Some(new_text)) = (words(old), words(new)) else {
            text += &format!("binary file {name} changed\n");
            continue;
        };
        let label = |side: &str, there: bool| if there { format!("{side}/{name}") } else { "/dev/null".to_owned() };
        let diff = TextDiff::configure()
            .timeout(std::time::Duration::from_millis(DIFF_MS_MAX))
            .diff_lines(old_text.as_str(), new_text.as_str());
        let mut unified = diff.unified_diff();
        unified.context_radius(DIFF_CONTEXT_LINES).header(&label("a", old.is_some()), &label("b", new.is_some()));
        text += &unified.to_string();
        if text.len() > DIFF_BYTES_MAX {
            text.truncate(text.floor_char_boundary(DIFF_BYTES_MAX));
            return text + &format!("\n… the rest is over diff_bytes_max {DIFF_BYTES_MAX}\n");
        }
    }
    text
}

fn as_json(story: &Story, about: &TaskView, shown: &[Shown<'_>]) -> anyhow::Result<String> {
    let run = &story.view.run;
    let TaskView { id, description, role, status, dependencies, .. } = about;
    let whole = serde_json::json!({
        "run": run, "task": id, "role": role, "status": status, "description": description,
        "dependencies": dependencies, "attempts": shown,
    });
    Ok(serde_json::to_string(&whole)?)
}

fn print(story: &Story, about: &TaskView, shown: &[Shown<'_>], now: i64) -> anyhow::Result<()> {
    let needs: Vec<&str> = about.dependencies.iter().map(|id| id.as_str()).collect();
    let needs = if needs.is_empty() { String::new() } else { format!(", after {}", needs.join(", ")) };
    out(&format!("{}/{}  {}{needs}", story.view.run, about.id, about.role))?;
    out(&format!("task: {}", about.description))?;
    if shown.is_empty() {
        out("it has not been asked for yet")?;
    }
    for one in shown {
        let took = story.attempt(&about.id, one.attempt).and_then(|one| one.took(now)).map(short).unwrap_or_default();
        let (worker, usage) =
            one.reply.map_or(("nobody yet", None), |reply| (reply.worker.as_str(), Some(reply.usage)));
        let tokens = usage.map(|usage| format!(", {} tokens", usage.input + usage.output)).unwrap_or_default();
        out(&format!("\n=== attempt {}: {took}{tokens}, {worker}", one.attempt))?;
        for item in &one.evidence {
            let word = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            out(&format!("\n--- evidence from {} ({})\n{}", word("task"), word("role"), word("text").trim_end()))?;
        }
        print_prompt(about.role, one)?;
        print_reply(one.reply)?;
        if let Some(diff) = &one.diff {
            out(&format!("\n--- changed since the attempt before\n{}", diff.trim_end()))?;
        }
    }
    Ok(())
}

fn print_prompt(role: Role, one: &Shown<'_>) -> anyhow::Result<()> {
    let Some(words) = &one.prompt else {
        return out("\n--- no model was asked");
    };
    let how = match words.as_sent {
        Some(true) if words.tools => {
            "as it began; what was said about tools, the calls and what they said are not kept".to_owned()
        }
        Some(true) => "as it was sent".to_owned(),
        Some(false) => format!("NOT as it was sent: roles/{role}.md or its material has changed since, or it had more"),
        None => "made again; what was sent is not known".to_owned(),
    };
    out(&format!("\n--- prompt, {how}\n{}\n\n{}", words.system, words.text.trim_end()))
}

fn print_reply(reply: Option<&Reply>) -> anyhow::Result<()> {
    let Some(reply) = reply else { return out("\n--- no reply yet") };
    let verdict = match (&reply.outcome, reply.passed()) {
        (Outcome::Completed { .. }, None) => "completed",
        (Outcome::Completed { .. }, Some(true)) => "passed",
        (Outcome::Completed { .. }, Some(false)) => "found faults",
        (Outcome::Question(_), _) => "asked a question",
        (Outcome::Failed { .. }, _) => "failed",
        (Outcome::Canceled { .. }, _) => "canceled",
    };
    out(&format!("\n--- reply: {verdict}\n{}", reply.text().trim_end()))?;
    if let Some(Report::Review(review)) = reply.report() {
        for finding in &review.findings {
            let place = finding.file.as_ref().map(|file| format!(" {file}")).unwrap_or_default();
            out(&format!("{}{place}: {}", finding.id, finding.text))?;
        }
    }
    for change in &reply.state {
        let op = serde_json::to_value(change.op)?;
        let value = limits::cut(&change.value.to_string(), CHANGE_BYTES_MAX);
        out(&format!("state {} {}: {value}", op.as_str().unwrap_or_default(), change.name))?;
    }
    for file in reply.artifacts() {
        out(&format!("file {}  {} bytes  {}", file.path, file.bytes, &file.sha256.as_str()[..12]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_names_new_changed_and_deleted_files() {
        let set = |files: &[(&str, &[u8])]| -> FileSet {
            files.iter().map(|(name, content)| (name.parse().unwrap(), content.to_vec())).collect()
        };
        let before = set(&[("a.py", b"x = 1\ny = 2\n"), ("gone.py", b"z = 3\n"), ("b.bin", b"\xff")]);
        let after = set(&[("a.py", b"x = 1\ny = 3\n"), ("new.py", b"n = 1\n"), ("b.bin", b"\xfe")]);
        let text = unified(&before, &after);
        for part in
            ["--- a/a.py", "-y = 2\n+y = 3", "+++ /dev/null", "--- /dev/null\n+++ b/new.py", "binary file b.bin"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
