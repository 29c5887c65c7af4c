//! The researcher: findings with their sources, what could not be found, and what could not be read.
//!
//! Pages and files are read before the model is asked, by rules (`sources/gather.rs`), so the model chooses no address. What
//! was read, what was not and why is written into the reply by this code; the model's word does not count for it.

use std::cmp::Reverse;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use super::briefing::Briefing;
use super::citations::Citable;
use super::prompt::attribute;
use super::{Desk, Product, Stopped, state};
use crate::sources::{self, Gathered, Page, Wanted, Web, words_of};
use crate::wire::{Failure, FailureKind, Role, StateChange, Usage};

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

/// What a model found, and what it proposes.
type Reading = (Answer, Vec<StateChange>);

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
    /// The stranger's words for it, fit for one line and for between quotes.
    pub(super) title: String,
    pub(super) address: String,
    pub(super) text: String,
    cut: bool,
}

pub(super) async fn work(desk: &Desk, briefing: &mut Briefing, usage: &mut Usage) -> Result<Product, Stopped> {
    briefing.material = material(desk, briefing).await?;
    let briefing = &*briefing;
    let citable = citable(desk, briefing);
    // A reading whose shape is good and whose citations are not: the best one is used, marked, when asking again brings
    // none without faults.
    let marked = Mutex::new(None);
    let answer = desk.ask_json(briefing, usage, |value| {
        let answer: Answer = serde_json::from_value(value.clone()).map_err(|error| vec![error.to_string()])?;
        let state = state::proposed(&briefing.task, value)?;
        if answer.findings.is_empty() && answer.not_found.is_empty() {
            return Err(vec!["say what was found, or what could not be found".into()]);
        }
        let mut faults: Vec<String> =
            answer.findings.iter().filter_map(|finding| citable.check(&finding.source).err()).collect();
        faults.dedup();
        if faults.is_empty() {
            return Ok((answer, state));
        }
        keep_better(&mut marked.lock().unwrap_or_else(PoisonError::into_inner), answer, state, &citable);
        Err(faults)
    });
    let (answer, state) = match answer.await {
        Ok(answer) => answer,
        Err(failure) => marked.into_inner().unwrap_or_else(PoisonError::into_inner).ok_or(failure)?,
    };
    Ok(Product::text(in_words(&answer, &citable, &briefing.material)).proposing(state))
}

/// Keeps of two readings the one of which more stands; of equal ones the first, which is the more trusted reading of an
/// answer and the earlier answer.
fn keep_better(kept: &mut Option<Reading>, answer: Answer, state: Vec<StateChange>, citable: &Citable<'_>) {
    let worth = |answer: &Answer| {
        let stands = answer.findings.iter().filter(|finding| citable.check(&finding.source).is_ok()).count();
        (stands, Reverse(answer.findings.len() - stands))
    };
    if kept.as_ref().is_none_or(|(kept, _)| worth(&answer) > worth(kept)) {
        *kept = Some((answer, state));
    }
}

/// Reads what the task refers to. Ends in time, and is dropped with the task when that is stopped.
async fn material(desk: &Desk, briefing: &mut Briefing) -> Result<Material, Failure> {
    let words = words_of(&format!("{} {}", briefing.task.description, briefing.goal));
    let (files, about) = (std::mem::take(&mut briefing.files), words.clone());
    let (files, excerpts) = aside(move || {
        let texts: Vec<(&str, &[u8])> =
            files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
        let excerpts = sources::excerpts(&texts, &about, EXCERPTS_BYTES_MAX);
        (files, excerpts)
    })
    .await?;
    briefing.files = files;
    let (briefing, task) = (&*briefing, &briefing.task);
    let Some(reading) = &desk.sources else { return Ok(Material { excerpts, ..Material::default() }) };
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
    let sources = aside(move || pages.into_iter().map(|page| source(page, &words, room)).collect()).await?;
    Ok(Material { sources, excerpts, not_read })
}

/// Does pure work over megabytes where no other task of this process waits for it.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::again(FailureKind::Internal, format!("the search in files and pages ended: {error}")))
}

fn source(page: Page, words: &[String], bytes_max: usize) -> Source {
    let text = sources::condensed(&page.text.text, words, bytes_max);
    Source { title: attribute(&page.text.title), address: page.address, text, cut: page.cut }
}

fn citable<'a>(desk: &'a Desk, briefing: &'a Briefing) -> Citable<'a> {
    Citable {
        sources: briefing.material.sources.iter().map(|source| source.address.as_str()).collect(),
        files: &briefing.files,
        results: briefing.context.iter().map(|item| &item.task).collect(),
        tools: &desk.definition.tools,
        called: &briefing.called,
    }
}

/// The reply: findings with their sources, then what is to be told by us and not by the model.
fn in_words(answer: &Answer, citable: &Citable<'_>, material: &Material) -> String {
    let finding = |finding: &Finding| {
        let source = citable.check(&finding.source).unwrap_or_else(|_| citable.mark(&finding.source));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles::briefing::Called;
    use crate::store::FileSet;

    #[test]
    fn of_faulty_readings_the_best_is_kept_and_of_equal_ones_the_first() {
        let files = FileSet::new();
        let citable = Citable {
            sources: vec!["http://a.example/"],
            files: &files,
            results: Vec::new(),
            tools: &[],
            called: &Called::default(),
        };
        let answer = |sources: &[&str], text: &str| {
            let finding = |source: &&str| Finding { text: text.to_owned(), source: (*source).to_owned() };
            Answer { findings: sources.iter().map(finding).collect(), not_found: Vec::new() }
        };
        let mut kept = None;
        for (sources, text, then) in [
            (&["[1]", "[7]"][..], "first", "first"),
            (&["[7]"], "a part of it", "first"),
            (&["[1]", "[8]"], "the second answer, as good", "first"),
            (&["[1]", "[1]", "[8]"], "a better one", "a better one"),
            (&["[1]", "[1]", "[8]", "[9]"], "more that does not stand", "a better one"),
        ] {
            keep_better(&mut kept, answer(sources, text), Vec::new(), &citable);
            assert_eq!(kept.as_ref().unwrap().0.findings[0].text, then);
        }
    }
}
