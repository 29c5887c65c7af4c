//! The researcher: findings with their sources, what could not be found, and what could not be read.
//!
//! Pages and files are read before the model is asked, by rules (`sources/gather.rs`), so the model chooses no address. What
//! was read, what was not and why is written into the reply by this code; the model's word does not count for it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use super::briefing::Briefing;
use super::citations::{Citable, unsupported};
use super::{Desk, Product};
use crate::sources::{self, Gathered, Page, Wanted, Web, words_of};
use crate::wire::{Failure, Role, Usage};

/// Part of a task's limit that reading may take: what the model's two calls leave.
const READ_SHARE: (u32, u32) = (1, 10);
/// Longest time for reading.
const READ_S_MAX: u64 = 60;
/// Bytes of one source that the prompt shows.
const SOURCE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of all sources that the prompt shows.
const SOURCES_BYTES_MAX: usize = 64 * 1024;
/// Bytes of all files that the prompt shows.
const EXCERPTS_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, Deserialize)]
struct Answer {
    findings: Vec<Finding>,
    not_found: Vec<String>,
}

#[derive(Clone, Deserialize)]
struct Finding {
    text: String,
    source: String,
}

/// What was read for a task, for its prompt.
#[derive(Default)]
pub(super) struct Material {
    pub(super) sources: Vec<Source>,
    pub(super) excerpts: Vec<sources::Excerpt>,
    pub(super) not_read: Vec<sources::NotRead>,
}

/// A page, as the prompt and the reply name it; its number is its place, from 1.
pub(super) struct Source {
    pub(super) title: String,
    pub(super) address: String,
    pub(super) text: String,
    cut: bool,
}

pub(super) async fn work(desk: &Desk, briefing: &mut Briefing, usage: &mut Usage) -> Result<Product, Failure> {
    briefing.material = material(desk, briefing).await;
    let briefing = &*briefing;
    let citable = citable(briefing);
    // An answer whose shape is good and whose citations are not: it is used, marked, when asking again brings no better one.
    let marked = Mutex::new(None);
    let answer = desk.ask_json(briefing, usage, |value| {
        let answer: Answer = serde_json::from_value(value.clone()).map_err(|error| vec![error.to_string()])?;
        if answer.findings.is_empty() && answer.not_found.is_empty() {
            return Err(vec!["say what was found, or what could not be found".into()]);
        }
        let mut faults: Vec<String> =
            answer.findings.iter().filter_map(|finding| citable.check(&finding.source).err()).collect();
        faults.dedup();
        if faults.is_empty() {
            return Ok(answer);
        }
        *marked.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        Err(faults)
    });
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(failure) => marked.into_inner().unwrap_or_else(PoisonError::into_inner).ok_or(failure)?,
    };
    Ok(Product::text(in_words(&answer, &citable, &briefing.material)))
}

/// Reads what the task refers to. Ends in time, and is dropped with the task when that is stopped.
async fn material(desk: &Desk, briefing: &Briefing) -> Material {
    let task = &briefing.task;
    let words = words_of(&format!("{} {}", task.description, briefing.goal));
    let files: Vec<(&str, &[u8])> =
        briefing.files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    let excerpts = sources::excerpts(&files, &words, EXCERPTS_BYTES_MAX);
    let Some(reading) = &desk.sources else { return Material { excerpts, ..Material::default() } };
    // What another role wrote is a model's word, whatever its name.
    let attached = task.files.iter().filter(|file| file.role == Role::Orchestrator);
    let attached: Vec<&[u8]> = attached.filter_map(|file| briefing.files.get(&file.path)).map(Vec::as_slice).collect();
    let mut written = vec![task.description.as_str()];
    if reading.web == Web::Open {
        written.extend(briefing.context.iter().map(|item| item.content.as_str()));
    }
    let wanted = Wanted { goal: &briefing.goal, attached: &attached, written: &written, words: &words };
    let (share, whole) = READ_SHARE;
    let time = (Duration::from_millis(task.limit_ms) * share / whole).min(Duration::from_secs(READ_S_MAX));
    let Gathered { pages, not_read } = reading.gather(&wanted, time).await;
    let room = SOURCE_BYTES_MAX.min(SOURCES_BYTES_MAX / pages.len().max(1));
    let sources = pages.into_iter().map(|page| source(page, &words, room));
    Material { sources: sources.collect(), excerpts, not_read }
}

fn source(page: Page, words: &[String], bytes_max: usize) -> Source {
    let text = sources::condensed(&page.text.text, words, bytes_max);
    let title = page.text.title.replace(char::is_control, " ");
    Source { title, address: page.address, text, cut: page.cut }
}

fn citable(briefing: &Briefing) -> Citable<'_> {
    Citable {
        sources: briefing.material.sources.iter().map(|source| source.address.as_str()).collect(),
        files: &briefing.files,
        results: briefing.context.iter().map(|item| &item.task).collect(),
    }
}

/// The reply: findings with their sources, then what is to be told by us and not by the model.
fn in_words(answer: &Answer, citable: &Citable<'_>, material: &Material) -> String {
    let finding = |finding: &Finding| {
        let source = citable.check(&finding.source).unwrap_or_else(|_| unsupported(&finding.source));
        format!("- {} [{source}]", indented(&finding.text))
    };
    let mut lines: Vec<String> = answer.findings.iter().map(finding).collect();
    if !answer.not_found.is_empty() {
        lines.push("Not found:".into());
        lines.extend(answer.not_found.iter().map(|text| format!("- {}", indented(text))));
    }
    if !material.sources.is_empty() {
        lines.push("Sources:".into());
        lines.extend(material.sources.iter().zip(1..).map(|(source, number)| {
            let title = if source.title.is_empty() { "untitled" } else { &source.title };
            let cut = if source.cut { " (only its beginning was read)" } else { "" };
            format!("[{number}] {title}: {}{cut}", source.address)
        }));
    }
    if !material.not_read.is_empty() {
        lines.push("Not read:".into());
        lines.extend(material.not_read.iter().map(|one| format!("- {}: {}", one.address, one.why)));
    }
    lines.join("\n")
}

/// A model's text inside a list, so that no line of it looks like one of ours.
fn indented(text: &str) -> String {
    text.trim().lines().collect::<Vec<_>>().join("\n  ")
}
