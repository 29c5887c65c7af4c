//! What a person sees while a run goes on: its plan, a line for each task that ended, a spinner for each that is under way.
//! Without a terminal the same lines, and no spinner. While a person is asked something, nothing but lines moves.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use futures::StreamExt;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::asking::{Asking, LOOK_S};
use super::story::{first_line, tree};
use super::talk::{is_quiet, on_err, plain, say, say_marked};
use crate::store::Store;
use crate::wire::{Event, EventKind, Plan, Role, RunId, TaskId, TaskStatus, TaskView, one_line};

/// Pace of the spinners.
const TICK_MS: u64 = 120;
/// Characters of a task's words that a line shows.
const WORDS_CHARS: usize = 70;
/// How long the plan may be read for.
const PLAN_MS_MAX: u64 = 2_000;
/// How long the last events may be waited for.
const LAST_EVENTS_MS: u64 = 300;

/// A progress display that runs beside the wait for the result.
pub(super) struct Progress {
    shown: JoinHandle<Option<String>>,
    finish: oneshot::Sender<()>,
}

impl Progress {
    /// Shows the events of a run as they come, and its plan when there is one; what waits for people is asked when there is
    /// somebody to ask.
    pub(super) fn start(mut events: Subscriber, store: &Store, run: &RunId, mut asking: Option<Asking>) -> Self {
        let (finish, mut finished) = oneshot::channel::<()>();
        say(&format!("run {run}"));
        let (store, run) = (store.clone(), run.clone());
        let shown = tokio::spawn(async move {
            let mut screen = Screen::new(asking.is_some());
            let mut look = tokio::time::interval(Duration::from_secs(LOOK_S));
            loop {
                tokio::select! {
                    message = events.next() => match message.as_ref().map(|m| serde_json::from_slice::<Event>(&m.payload)) {
                        Some(Ok(event)) if event.kind == EventKind::Planned => {
                            screen.line(&format!("  plan: {}", one_line(&event.text, WORDS_CHARS)), "");
                            // Told as it is read: what happens meanwhile waits in the subscription.
                            let reading = tokio::time::timeout(Duration::from_millis(PLAN_MS_MAX), plan(&store, &run));
                            if let Ok(Some(plan)) = reading.await { screen.plan(&plan) }
                        },
                        Some(Ok(event)) => {
                            if screen.show(&event) { break }
                            if about_people(event.kind) { screen.ask(&mut asking).await }
                        },
                        Some(Err(_)) => {}
                        None => break,
                    },
                    typed = typed(&mut asking) => screen.answer(&mut asking, typed).await,
                    _ = look.tick() => screen.ask(&mut asking).await,
                    _ = &mut finished => break,
                }
            }
            screen.clear();
            asking.as_ref().and_then(Asking::left)
        });
        Self { shown, finish }
    }

    /// Ends the display, after the last events had a moment to come. Gives how what the person was being asked about is answered later.
    pub(super) async fn stop(self) -> Option<String> {
        let Self { mut shown, finish } = self;
        let last = tokio::time::timeout(Duration::from_millis(LAST_EVENTS_MS), &mut shown).await;
        let open = match last {
            Ok(open) => open,
            Err(_) => {
                let _ = finish.send(());
                shown.await
            }
        };
        open.ok().flatten()
    }
}

/// True for events after which something else may wait for people.
fn about_people(kind: EventKind) -> bool {
    matches!(kind, EventKind::Waiting | EventKind::Escalated | EventKind::Answered)
}

async fn typed(asking: &mut Option<Asking>) -> Option<String> {
    match asking {
        Some(asking) => asking.typed().await,
        None => std::future::pending().await,
    }
}

async fn plan(store: &Store, run: &RunId) -> Option<Plan> {
    let recorded = store.runs.record(run).await.ok()??;
    store.runs.plan(run, recorded.record.plan.max(1)).await.ok()?
}

struct Screen {
    bars: MultiProgress,
    running: HashMap<(TaskId, u32), (ProgressBar, Instant)>,
    /// True when the spinners are seen.
    live: bool,
    terminal: bool,
    /// True when what waits for people is asked.
    asks: bool,
}

impl Screen {
    fn new(asks: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && !is_quiet();
        Self { bars: MultiProgress::new(), running: HashMap::new(), live: terminal, terminal, asks }
    }

    /// Shows one event; true when it was the run's last.
    fn show(&mut self, event: &Event) -> bool {
        let text = one_line(&event.text, WORDS_CHARS);
        match (event.kind, &event.task, event.attempt) {
            (EventKind::Claimed, ..) => self.line(&format!("  · {text}"), "·"),
            (EventKind::Finished, ..) => return true,
            (EventKind::Dispatched, Some(task), Some(attempt)) => self.begin(event, task, attempt, &text),
            (EventKind::Tool, Some(task), Some(attempt)) => {
                self.line(&format!("  · {} tool {text}", label(event, task, attempt)), "·");
            }
            (EventKind::Doubted, Some(task), Some(attempt)) => {
                self.line(&format!("  ! {} doubt: {text}", label(event, task, attempt)), "!");
            }
            (EventKind::Paused | EventKind::Budget, ..) => self.line(&format!("  · {text}"), "·"),
            // It is about to be asked.
            (EventKind::Waiting, Some(task), _) if self.asks && *task != TaskId::run() => {}
            // Whole, because it says how to answer.
            (kind, ..) if about_people(kind) => self.line(&format!("  · {}", one_line(&event.text, usize::MAX)), "·"),
            (EventKind::Completed, Some(task), Some(attempt)) => self.end(event, task, attempt, "✓", &text),
            (EventKind::Question, Some(task), Some(attempt)) => self.end(event, task, attempt, "·", &text),
            (EventKind::Rejected | EventKind::Failed, Some(task), Some(attempt)) => {
                self.end(event, task, attempt, "✗", &text);
            }
            _ => {}
        }
        false
    }

    fn begin(&mut self, event: &Event, task: &TaskId, attempt: u32, text: &str) {
        let bar = if self.terminal { self.bars.add(ProgressBar::new_spinner()) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}  {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(format!("{} {text}", label(event, task, attempt)));
        bar.enable_steady_tick(Duration::from_millis(TICK_MS));
        if let Some((old, _)) = self.running.insert((task.clone(), attempt), (bar, Instant::now())) {
            old.finish_and_clear();
        }
    }

    fn end(&mut self, event: &Event, task: &TaskId, attempt: u32, mark: &str, text: &str) {
        let took = self.running.remove(&(task.clone(), attempt)).map(|(bar, began)| {
            bar.finish_and_clear();
            format!("{:>6.1}s", began.elapsed().as_secs_f32())
        });
        let tokens = event.usage.map(|usage| usage.input + usage.output).filter(|tokens| *tokens > 0);
        let tokens = tokens.map(|tokens| format!(" {tokens} tok")).unwrap_or_default();
        let took = took.unwrap_or_default();
        self.line(&format!("  {mark} {}{took}{tokens}  {text}", label(event, task, attempt)), mark);
    }

    /// The tasks to come, each below the one that it waits for.
    fn plan(&self, plan: &Plan) {
        let root = TaskView {
            id: TaskId::plan(),
            description: String::new(),
            role: Role::Planner,
            status: TaskStatus::Completed,
            dependencies: Vec::new(),
            attempt: 1,
            result: None,
            passed: None,
        };
        let tasks = plan.tasks.iter().map(|task| TaskView {
            id: task.id.clone(),
            description: task.description.clone(),
            role: task.role,
            status: TaskStatus::Pending,
            dependencies: task.depends_on.clone(),
            attempt: 0,
            ..root.clone()
        });
        let tasks: Vec<TaskView> = std::iter::once(root.clone()).chain(tasks).collect();
        for (prefix, index) in tree(&tasks).into_iter().skip(1) {
            let task = &tasks[index];
            let name = format!("{prefix}{}", task.id);
            self.line(
                &format!(
                    "    {name:<14} {:<12} {}",
                    task.role.name(),
                    one_line(&first_line(&task.description), WORDS_CHARS)
                ),
                "",
            );
        }
    }

    /// Asks what there is to ask.
    async fn ask(&mut self, asking: &mut Option<Asking>) {
        let Some(asking) = asking else { return };
        let lines = asking.look().await;
        self.hold(asking.open().is_some());
        lines.iter().for_each(|text| self.line(&format!("  {text}"), ""));
    }

    /// Does what was typed.
    async fn answer(&mut self, asking: &mut Option<Asking>, typed: Option<String>) {
        let Some(asking) = asking else { return };
        let lines = asking.answer(typed).await;
        self.hold(asking.open().is_some());
        lines.iter().for_each(|text| self.line(&format!("  {text}"), ""));
    }

    /// Takes the spinners off the screen while a person types, and back.
    fn hold(&mut self, held: bool) {
        if held && self.live {
            let _ = self.bars.clear();
            self.bars.set_draw_target(ProgressDrawTarget::hidden());
        } else if !held && !self.live && self.terminal {
            self.bars.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.live = self.terminal && !held;
    }

    fn line(&self, text: &str, mark: &str) {
        match self.live {
            true => drop(self.bars.println(on_err(&plain(text), mark))),
            false => say_marked(text, mark),
        }
    }

    fn clear(&mut self) {
        self.running.drain().for_each(|(_, (bar, _))| bar.finish_and_clear());
    }
}

fn label(event: &Event, task: &TaskId, attempt: u32) -> String {
    let role = event.role.map(|role| role.name()).unwrap_or_default();
    let task = if attempt > 1 { format!("{task} #{attempt}") } else { task.to_string() };
    format!("{task:<9} {role:<11}")
}
