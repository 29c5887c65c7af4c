//! Asking in place: `oarlock run` on a terminal puts what waits for people before the one who sits there. The answer goes
//! through the same door as that of `oarlock approve`, so whoever answers first decides; then the question is taken back.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::config::Config;
use super::edit::{opened, place};
use super::people::{decide, line, proposed, waiting};
use super::questions::tell;
use super::talk::is_quiet;
use super::typed::Line;
use crate::bus::Bus;
use crate::wire::{ItemId, ItemKind, ItemView, RunId, TaskId};

/// How often it is looked at what waits, when no event tells of it.
pub(super) const LOOK_S: u64 = 10;
/// How long one look may take.
const LOOK_MS_MAX: u64 = 5_000;

/// The person who may be asked.
#[derive(Clone)]
pub(super) struct Person {
    who: String,
    editor: Option<String>,
}

impl Person {
    /// Who sits at the terminal; nobody when there is none, or when nothing may be asked.
    pub(super) fn at_terminal(config: &Config) -> Option<Self> {
        let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        let asks = terminal && !config.no_input && !is_quiet();
        asks.then(|| Self { who: config.who.clone(), editor: config.editor.clone() })
    }
}

/// What is asked of a person about one run.
pub(super) struct Asking {
    person: Person,
    bus: Bus,
    run: RunId,
    open: Option<Question>,
    /// Items that were answered here, or that shall wait.
    settled: HashSet<ItemId>,
    /// True while an editor has the terminal.
    editing: Arc<AtomicBool>,
}

struct Question {
    item: ItemView,
    line: Line,
    /// True when the reason of a rejection is asked for.
    reason: bool,
}

impl Asking {
    /// Nothing is asked yet. `editing` tells others while an editor is open.
    pub(super) fn new(person: Person, bus: &Bus, run: &RunId, editing: Arc<AtomicBool>) -> Self {
        Self { person, bus: bus.clone(), run: run.clone(), open: None, settled: HashSet::new(), editing }
    }

    /// The item that is asked about.
    pub(super) fn open(&self) -> Option<&ItemId> {
        self.open.as_ref().map(|question| &question.item.item)
    }

    /// How what is asked now is answered from anywhere.
    pub(super) fn left(&self) -> Option<String> {
        self.open.as_ref().map(|question| how(&self.run, &question.item))
    }

    /// What is typed to the open question; for ever nothing while there is none.
    pub(super) async fn typed(&mut self) -> Option<String> {
        match &mut self.open {
            Some(question) => question.line.typed().await,
            None => std::future::pending().await,
        }
    }

    /// Looks at what waits, and asks or takes a question back. Gives the lines to show.
    pub(super) async fn look(&mut self) -> Vec<String> {
        let asked = waiting(&self.bus, Some(&self.run));
        let Ok(Ok((items, _))) = tokio::time::timeout(Duration::from_millis(LOOK_MS_MAX), asked).await else {
            return Vec::new();
        };
        let items: Vec<ItemView> = items.into_iter().map(|one| one.waits).collect();
        let mut lines = Vec::new();
        if let Some(open) = self.open().filter(|open| !items.iter().any(|item| item.item == **open)).cloned() {
            lines.push(format!("{open} was decided elsewhere meanwhile"));
            self.open = None;
        }
        let mine = |item: &&ItemView| item.votes.iter().any(|vote| vote.by == self.person.who);
        let new = |item: &&ItemView| item.task != TaskId::run() && !self.settled.contains(&item.item) && !mine(item);
        if self.open.is_none()
            && let Some(item) = items.iter().find(new)
        {
            lines.extend(self.ask(item.clone()).await);
        }
        lines
    }

    /// Opens a question, and gives its words.
    async fn ask(&mut self, item: ItemView) -> Vec<String> {
        let now = self.bus.server_now().await.unwrap_or_default();
        let mut lines = vec![format!("{}  {}", item.item, line(&item, now))];
        lines.extend(item.text.lines().map(|line| format!("  {line}")));
        lines.extend(item.votes.iter().filter(|vote| vote.says.name() != "escalated").map(|vote| {
            let (by, says) = (&vote.by, vote.says.name());
            format!("  {by} says {says}")
        }));
        lines.push(format!("  whole: oarlock show {}/{}", self.run, item.task));
        lines.push(self.choose(item));
        lines
    }

    /// Puts the choice before the person.
    fn choose(&mut self, item: ItemView) -> String {
        if item.kind == ItemKind::Question {
            let words = format!("{}: your answer? An empty line lets it wait", item.item);
            self.open = Some(Question { item, line: Line::read(), reason: false });
            return words;
        }
        let edit = if item.task == TaskId::plan() { ", [e]dit it" } else { "" };
        let words = format!("{}: [a]pprove, [r]eject{edit}, or let it [w]ait?", item.item);
        self.open = Some(Question { item, line: Line::read(), reason: false });
        words
    }

    /// Does what was typed, `None` for the end of all typing. Gives the lines to show.
    pub(super) async fn answer(&mut self, typed: Option<String>) -> Vec<String> {
        let Some(Question { item, line, reason }) = self.open.take() else { return Vec::new() };
        // The terminal is free for whatever comes next.
        drop(line);
        let text = typed.as_deref().unwrap_or("w");
        if item.kind == ItemKind::Question {
            return match typed.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
                Some(text) => self.tell(&item, text).await,
                None => self.wait(item),
            };
        }
        let word = text.to_lowercase();
        match word.chars().next() {
            None if reason => vec![self.choose(item)],
            _ if reason && typed.is_some() => self.say("reject", &item, json!({ "reason": text })).await,
            Some('a') => self.say("approve", &item, json!({})).await,
            Some('r') => {
                let words = format!("{}: why? Its next attempt is told; an empty line takes it back", item.item);
                self.open = Some(Question { item, line: Line::read(), reason: true });
                vec![words]
            }
            Some('e') if item.task == TaskId::plan() => self.edit(item).await,
            Some('w') => self.wait(item),
            _ => vec![self.choose(item)],
        }
    }

    fn wait(&mut self, item: ItemView) -> Vec<String> {
        let how = how(&self.run, &item);
        self.settled.insert(item.item);
        vec![format!("it waits: {how}")]
    }

    /// Answers a question.
    async fn tell(&mut self, item: &ItemView, text: &str) -> Vec<String> {
        let told = tell(&self.bus, &self.run, item.item.as_str(), &self.person.who, text).await;
        self.told(item, told).await
    }

    /// Says it at the door.
    async fn say(&mut self, verb: &str, item: &ItemView, mut request: Value) -> Vec<String> {
        request["run"] = json!(self.run);
        request["item"] = json!(item.item);
        request["by"] = json!(self.person.who);
        let said = decide(&self.bus, verb, &request).await;
        self.told(item, said).await
    }

    /// What came of it, and what is asked next.
    async fn told(&mut self, item: &ItemView, said: anyhow::Result<String>) -> Vec<String> {
        match said {
            Ok(line) => {
                self.settled.insert(item.item.clone());
                std::iter::once(line).chain(self.look().await).collect()
            }
            // Somebody else was faster, or nobody hears: what waits now is asked about anew.
            Err(error) => {
                let mut lines = vec![format!("not done: {error:#}")];
                lines.extend(self.look().await);
                if self.open.is_none() {
                    lines.push(format!("what waits still: {}", how(&self.run, item)));
                }
                lines
            }
        }
    }

    /// The plan in the person's editor, which has the terminal meanwhile.
    async fn edit(&mut self, item: ItemView) -> Vec<String> {
        let plan = match proposed(&self.bus, &self.run, Some(item.item.as_str())).await {
            Ok((_, plan)) => plan,
            Err(error) => return vec![format!("not done: {error:#}")],
        };
        let editor = self.person.editor.clone();
        self.editing.store(true, Ordering::SeqCst);
        let left = tokio::task::spawn_blocking(move || opened(editor.as_deref(), &plan)).await;
        self.editing.store(false, Ordering::SeqCst);
        match left {
            Ok(Ok((plan, file))) => {
                let mut lines = self.say("edit", &item, json!({ "plan": plan })).await;
                if !self.settled.contains(&item.item) {
                    lines.extend(place(file).map_or_else(|error| Some(format!("{error:#}")), Some));
                }
                lines
            }
            Ok(Err(error)) => vec![format!("not done: {error:#}"), self.choose(item)],
            Err(error) => vec![format!("not done: {error}"), self.choose(item)],
        }
    }
}

/// How an item is answered from anywhere.
fn how(run: &RunId, item: &ItemView) -> String {
    let id = &item.item;
    match item.kind {
        ItemKind::Question => format!("oarlock answer {run}/{id} TEXT"),
        _ => format!("oarlock approve {run}/{id}, or oarlock reject {run}/{id} --reason …"),
    }
}
