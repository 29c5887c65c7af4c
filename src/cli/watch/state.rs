//! What is looked at, and what a key changes in that. The keys are those of k9s.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::people::all_waits;
use super::super::show::row;
use super::super::story::{first_line, mark, short, tree};
use super::super::talk::plain;
use super::feed::Snapshot;
use crate::bus::clock::since;
use crate::wire::{Reply, Report, RunId, TaskId, TaskStatus, TaskView};

/// Pages that esc can lead back through.
const PAGES_MAX: usize = 16;
/// Characters of a jump or a filter.
const TYPED_CHARS_MAX: usize = 64;
/// Lines that one key of a page goes over.
const PAGE_LINES: usize = 10;
/// Characters of a model's words that a task's line shows while they are written.
const LIVE_CHARS: usize = 80;

/// The keys, as the help page has them.
const HELP: [(&str, &str); 13] = [
    ("j k ↓ ↑", "the next, the one before; a page: ctrl-f ctrl-b"),
    ("g G", "the first, the last"),
    ("enter d", "open a run; describe a task"),
    ("l", "the run's messages, whole"),
    ("esc", "back; first it forgets a filter"),
    (":", "jump: runs, plan, logs, help, q, a task's id, the beginning of a run's id"),
    ("/", "show only lines with these words"),
    ("?", "this page"),
    ("q ctrl-c", "leave"),
    ("", ""),
    ("✓ ✗ … ·", "done; failed or faults found; at work; waits"),
    ("?", "waits for a person, and how to answer"),
    ("#2", "the second attempt"),
];

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Runs,
    Plan,
    Task(TaskId),
    Logs,
    Help,
}

/// What is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    Nothing,
    Jump(String),
    Filter(String),
}

/// A line of a page.
pub(super) struct Row {
    pub(super) text: String,
    pub(super) mark: &'static str,
    /// The run or task behind it.
    id: String,
}

/// All that decides what is drawn.
pub(super) struct Screen {
    /// The run that is looked at.
    pub(super) run: Option<RunId>,
    pub(super) seen: Snapshot,
    pub(super) typed: Typed,
    pub(super) filter: String,
    /// A word to the person, until the next key.
    pub(super) notice: Option<String>,
    pages: Vec<(Page, usize)>,
    selected: usize,
}

impl Screen {
    pub(super) fn new(run: Option<RunId>) -> Self {
        let pages = match run {
            Some(_) => vec![(Page::Runs, 0), (Page::Plan, 0)],
            None => vec![(Page::Runs, 0)],
        };
        let (seen, typed, filter) = (Snapshot::default(), Typed::Nothing, String::new());
        Self { run, seen, typed, filter, notice: None, pages, selected: 0 }
    }

    /// Takes a newer snapshot. One of a run that is not looked at any more is left.
    pub(super) fn take(&mut self, snapshot: Snapshot) {
        let of = snapshot.story.as_ref().map(|story| &story.view.run);
        if of.is_none() || of == self.run.as_ref() {
            self.seen = snapshot;
        }
    }

    pub(super) fn page(&self) -> &Page {
        self.pages.last().map_or(&Page::Runs, |(page, _)| page)
    }

    /// The line that is selected; the last one on a page that grows at its end.
    pub(super) fn selected(&self, lines: usize) -> usize {
        self.selected.min(lines.saturating_sub(1))
    }

    /// Lets a key do what it does; true when it ends the watch.
    pub(super) fn key(&mut self, key: KeyEvent) -> bool {
        self.notice = None;
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return true;
        }
        if self.typed != Typed::Nothing {
            return self.type_key(key.code);
        }
        let lines = self.rows().len();
        let at = self.selected(lines);
        match key.code {
            KeyCode::Char('f') if control => self.selected = at + PAGE_LINES,
            KeyCode::Char('b') if control => self.selected = at.saturating_sub(PAGE_LINES),
            KeyCode::Char('q') => return true,
            KeyCode::Char('j') | KeyCode::Down => self.selected = at + 1,
            KeyCode::Char('k') | KeyCode::Up => self.selected = at.saturating_sub(1),
            KeyCode::PageDown => self.selected = at + PAGE_LINES,
            KeyCode::PageUp => self.selected = at.saturating_sub(PAGE_LINES),
            KeyCode::Char('g') | KeyCode::Home => self.selected = 0,
            KeyCode::Char('G') | KeyCode::End => self.selected = usize::MAX,
            KeyCode::Enter | KeyCode::Char('d') => self.enter(),
            KeyCode::Char('l') => self.jump("logs"),
            KeyCode::Char('?') => self.jump("help"),
            KeyCode::Char(':') => self.typed = Typed::Jump(String::new()),
            KeyCode::Char('/') => self.typed = Typed::Filter(self.filter.clone()),
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Esc => self.back(),
            _ => {}
        }
        // Past the end means: with the end.
        if self.selected >= self.rows().len().saturating_sub(1) && matches!(self.page(), Page::Logs) {
            self.selected = usize::MAX;
        }
        false
    }

    fn type_key(&mut self, code: KeyCode) -> bool {
        let (Typed::Jump(text) | Typed::Filter(text)) = &mut self.typed else { return false };
        match code {
            KeyCode::Char(c) if text.chars().count() < TYPED_CHARS_MAX => text.push(c),
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Esc => self.typed = Typed::Nothing,
            KeyCode::Enter => match std::mem::replace(&mut self.typed, Typed::Nothing) {
                Typed::Jump(text) if matches!(text.trim(), "q" | "quit") => return true,
                Typed::Jump(text) => self.jump(text.trim()),
                Typed::Filter(text) => (self.filter, self.selected) = (text, 0),
                Typed::Nothing => {}
            },
            _ => {}
        }
        false
    }

    fn enter(&mut self) {
        let rows = self.rows();
        let Some(row) = rows.get(self.selected(rows.len())) else { return };
        let id = row.id.clone();
        match self.page() {
            Page::Runs => self.open_run(&id),
            Page::Plan => id.parse().into_iter().for_each(|task| self.open(Page::Task(task))),
            Page::Task(_) | Page::Logs | Page::Help => {}
        }
    }

    fn jump(&mut self, to: &str) {
        let task =
            self.seen.story.as_ref().and_then(|story| story.view.tasks.iter().find(|task| task.id.as_str() == to));
        let in_run = self.run.is_some();
        match (to, task.map(|task| task.id.clone())) {
            ("", _) => {}
            ("help", _) => self.open(Page::Help),
            ("runs" | "ls", _) => {
                (self.pages, self.run, self.selected) = (vec![(Page::Runs, 0)], None, 0);
                self.filter.clear();
            }
            ("logs" | "l", _) if in_run => {
                self.open(Page::Logs);
                self.selected = usize::MAX;
            }
            ("plan" | "tree", _) if in_run => self.open(Page::Plan),
            (_, Some(task)) => self.open(Page::Task(task)),
            (run, None) => match self.seen.runs.iter().find(|line| line.run.as_str().starts_with(run)) {
                Some(line) => self.open_run(&line.run.to_string()),
                None if in_run => self.notice = Some(format!("no task {to} here; :runs leads to the other runs")),
                None => self.notice = Some(format!("no run {to} here; :help lists what there is")),
            },
        }
    }

    fn open_run(&mut self, id: &str) {
        if let Ok(run) = id.parse::<RunId>() {
            self.run = Some(run);
            self.open(Page::Plan);
        }
    }

    fn open(&mut self, page: Page) {
        if *self.page() == page {
            return;
        }
        if let Some((_, selected)) = self.pages.last_mut() {
            *selected = self.selected;
        }
        if self.pages.len() >= PAGES_MAX {
            // The list of runs stays the first.
            self.pages.remove(1);
        }
        self.pages.push((page, 0));
        self.selected = 0;
        self.filter.clear();
    }

    fn back(&mut self) {
        if self.pages.len() > 1 {
            self.pages.pop();
            self.selected = self.pages.last().map_or(0, |(_, selected)| *selected);
        }
        if *self.page() == Page::Runs {
            self.run = None;
        }
    }

    /// The lines of the page that is looked at, those that fit the filter.
    pub(super) fn rows(&self) -> Vec<Row> {
        let all = match self.page() {
            Page::Runs => self.run_rows(),
            Page::Plan => self.task_rows(),
            Page::Task(task) => self.task_lines(task).iter().map(|line| text_row(line)).collect(),
            Page::Logs => self.seen.events.iter().map(|line| text_row(line)).collect(),
            Page::Help => HELP.iter().map(|(keys, what)| text_row(&format!("{keys:<10} {what}"))).collect(),
        };
        let wanted = self.filter.to_lowercase();
        all.into_iter().filter(|row| row.text.to_lowercase().contains(&wanted)).collect()
    }

    fn run_rows(&self) -> Vec<Row> {
        let now = self.seen.now();
        let row = |line: &super::feed::RunLine| {
            let age = short(since(now, line.submitted_at.saturating_mul(1_000_000_000)));
            let text =
                format!("{:<21} {:<15} {age:>7}  {}", line.run.as_str(), line.status.name(), first_line(&line.goal));
            Row { text: plain(&text), mark: "", id: line.run.to_string() }
        };
        self.seen.runs.iter().map(row).collect()
    }

    fn task_rows(&self) -> Vec<Row> {
        let Some(story) = &self.seen.story else { return Vec::new() };
        let tasks = &story.view.tasks;
        let lines = tree(tasks).into_iter();
        let rows = lines.map(|(prefix, index)| self.task_row(&tasks[index], &prefix));
        let waiting = all_waits(&story.view, self.seen.now()).into_iter();
        let waiting =
            waiting.map(|(task, line)| Row { text: plain(&format!("? {line}")), mark: "?", id: task.to_string() });
        rows.chain(waiting).collect()
    }

    fn task_row(&self, task: &TaskView, prefix: &str) -> Row {
        let last = self.seen.story.as_ref().and_then(|story| story.attempt(&task.id, task.attempt));
        let took = last.and_then(|one| one.took(self.seen.now())).map(short).unwrap_or_default();
        let name = if task.attempt > 1 { format!("{} #{}", task.id, task.attempt) } else { task.id.to_string() };
        let written = self.seen.live.get(&(task.id.clone(), task.attempt));
        let words = match (task.status, written) {
            (TaskStatus::InProgress, Some(words)) => tail(words),
            _ => first_line(task.result.as_deref().unwrap_or(&task.description)),
        };
        let tokens = last.map_or(0, |one| one.tokens());
        let text = row(prefix, mark(task), &name, task, &took, tokens, &words);
        Row { text: plain(&text), mark: mark(task), id: task.id.to_string() }
    }

    /// A task, described.
    fn task_lines(&self, id: &TaskId) -> Vec<String> {
        let Some(story) = &self.seen.story else { return Vec::new() };
        let Some(task) = story.view.tasks.iter().find(|task| task.id == *id) else { return Vec::new() };
        let mut text = format!("{}  {}  {}\n", task.id, task.role, task.description);
        if !task.dependencies.is_empty() {
            let needs: Vec<&str> = task.dependencies.iter().map(|id| id.as_str()).collect();
            text += &format!("after {}\n", needs.join(", "));
        }
        for one in story.of_task(id) {
            let took = one.took(self.seen.now()).map(short).unwrap_or_default();
            let worker = one.reply.as_ref().map_or("", |reply| reply.worker.as_str());
            text += &format!("\n{} attempt {}  {took}  {} tok  {worker}\n", one.mark(), one.attempt, one.tokens());
            match (&one.reply, self.seen.live.get(&(id.clone(), one.attempt))) {
                (Some(reply), _) => text += &described(reply),
                (None, Some(words)) => text += words,
                (None, None) => text += "at work\n",
            }
        }
        text += &format!("\nprompts and what changed: oarlock show {}/{id}", story.view.run);
        text.lines().map(str::to_owned).collect()
    }
}

fn described(reply: &Reply) -> String {
    let mut text = format!("{}\n", reply.text().trim_end());
    if let Some(Report::Review(review)) = reply.report() {
        for finding in &review.findings {
            text += &format!("{} {}: {}\n", finding.id, finding.file.as_deref().unwrap_or_default(), finding.text);
        }
    }
    for file in reply.artifacts() {
        text += &format!("file {} ({} bytes)\n", file.path, file.bytes);
    }
    text
}

fn text_row(line: &str) -> Row {
    Row { text: plain(line).replace('\t', "    "), mark: "", id: String::new() }
}

/// The end of a text that is being written, on one line.
fn tail(words: &str) -> String {
    let line = words.replace(char::is_whitespace, " ");
    let skip = line.chars().count().saturating_sub(LIVE_CHARS);
    line.chars().skip(skip).collect()
}
