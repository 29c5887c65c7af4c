//! A run with all that happened in it, as it is stored: for `show`, `history` and `watch`.

use std::time::Duration;

use crate::bus::clock::since;
use crate::orchestrator::{Rules, view};
use crate::store::{Store, StoreError};
use crate::wire::subject::TaskSubject;
use crate::wire::{Message, Outcome, Party, Reply, Role, RunId, RunRecord, RunView, TaskId, TaskStatus, TaskView};

/// Characters of a text that its line shows.
const LINE_CHARS: usize = 90;

/// Everything that is stored of a run.
pub(super) struct Story {
    pub(super) view: RunView,
    pub(super) record: RunRecord,
    /// Every attempt, in the order in which they were asked for.
    pub(super) tries: Vec<Try>,
    /// When its result was stored, in nanoseconds since 1970.
    pub(super) ended_at: Option<i64>,
}

/// One attempt of a task: what was asked, and what came of it.
pub(super) struct Try {
    pub(super) task: TaskId,
    pub(super) role: Role,
    pub(super) attempt: u32,
    pub(super) request: Option<Message>,
    /// By the server's clock, in nanoseconds since 1970, as all times here.
    pub(super) asked_at: Option<i64>,
    pub(super) reply: Option<Reply>,
    pub(super) answered_at: Option<i64>,
}

impl Story {
    /// Reads a run; `None` when it is not kept.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) async fn load(store: &Store, run: &RunId, rules: &Rules) -> Result<Option<Self>, StoreError> {
        let Some(recorded) = store.runs.record(run).await? else { return Ok(None) };
        let Some(view) = view(store, run, rules).await? else { return Ok(None) };
        let record = recorded.record;
        let asked = store.runs.history(run).await?.into_iter().filter_map(|entry| match entry.message.to {
            Party::Role(role) => Some(Try {
                task: entry.message.metadata.task.clone(),
                role,
                attempt: entry.message.metadata.attempt,
                asked_at: Some(entry.at),
                request: Some(entry.message),
                reply: None,
                answered_at: None,
            }),
            Party::User => None,
        });
        let mut tries: Vec<Try> = asked.collect();
        let mut ended_at = None;
        let result = TaskSubject::of_run(run, record.generation);
        let verdicts = store.state.verdicts(run).await?;
        for (to, reply, at) in store.results.dated(run).await? {
            let verdict = verdicts.get(&(to.task.clone(), to.attempt));
            let reply = match verdict {
                Some(verdict) => verdict.judged(reply),
                None => reply,
            };
            match tries.iter_mut().find(|one| one.task == to.task && one.attempt == to.attempt) {
                Some(one) => (one.reply, one.answered_at) = (Some(reply), Some(at)),
                None if to == result => ended_at = Some(at),
                None if to.role == Role::Orchestrator => {}
                None => tries.push(Try {
                    task: to.task,
                    role: to.role,
                    attempt: to.attempt,
                    request: None,
                    asked_at: None,
                    reply: Some(reply),
                    answered_at: Some(at),
                }),
            }
        }
        Ok(Some(Self { view, record, tries, ended_at }))
    }

    /// The attempts of a task, the oldest first.
    pub(super) fn of_task<'a>(&'a self, task: &'a TaskId) -> impl Iterator<Item = &'a Try> {
        self.tries.iter().filter(move |one| one.task == *task)
    }

    /// One attempt.
    pub(super) fn attempt(&self, task: &TaskId, attempt: u32) -> Option<&Try> {
        self.tries.iter().find(|one| one.task == *task && one.attempt == attempt)
    }

    /// How long the run has taken, until its end or until `now`.
    pub(super) fn took(&self, now: i64) -> Duration {
        let submitted = self.record.submitted_at.saturating_mul(1_000_000_000);
        let begun = self.tries.iter().find_map(|one| one.asked_at).unwrap_or(submitted);
        since(self.ended_at.unwrap_or(now), begun)
    }
}

impl Try {
    /// How long the attempt took, until its reply or until `now`.
    pub(super) fn took(&self, now: i64) -> Option<Duration> {
        self.asked_at.map(|at| since(self.answered_at.unwrap_or(now), at))
    }

    /// Tokens that it cost.
    pub(super) fn tokens(&self) -> u64 {
        self.reply.as_ref().map_or(0, |reply| reply.usage.input.saturating_add(reply.usage.output))
    }

    /// The sign of what came of it.
    pub(super) fn mark(&self) -> &'static str {
        match self.reply.as_ref().map(|reply| (&reply.outcome, reply.passed())) {
            None => "…",
            Some((Outcome::Completed { .. }, None | Some(true))) => "✓",
            Some(_) => "✗",
        }
    }
}

/// The sign of a task.
pub(super) fn mark(task: &TaskView) -> &'static str {
    match (task.status, task.passed) {
        (TaskStatus::Pending, _) => "·",
        (TaskStatus::InProgress, _) => "…",
        (TaskStatus::Completed, Some(false)) | (TaskStatus::Failed | TaskStatus::Canceled, _) => "✗",
        (TaskStatus::Completed, _) => "✓",
    }
}

/// The tasks as lines of a tree: what stands before each one's sign, and which one it is. A task stands below the last task
/// that it waits for; the planner's is the root, the answer comes last.
pub(super) fn tree(tasks: &[TaskView]) -> Vec<(String, usize)> {
    let answer = TaskId::answer();
    let place = |id: &TaskId| tasks.iter().position(|task| task.id == *id);
    let parent = |index: usize| {
        let task = &tasks[index];
        let last = task.dependencies.iter().filter_map(place).filter(|before| *before < index).max();
        // Without dependencies a task waits for the plan.
        last.unwrap_or(0)
    };
    let mut children = vec![Vec::new(); tasks.len()];
    let inner = (1..tasks.len()).filter(|index| tasks[*index].id != answer);
    inner.for_each(|index| children[parent(index)].push(index));
    let mut lines = Vec::with_capacity(tasks.len());
    // An explicit stack: a plan may be as deep as it is long.
    let mut stack: Vec<(String, String, usize)> = Vec::new();
    if !tasks.is_empty() {
        stack.push((String::new(), String::new(), 0));
    }
    while let Some((prefix, below, index)) = stack.pop() {
        for (position, child) in children[index].iter().enumerate().rev() {
            let last = position + 1 == children[index].len();
            let (branch, line) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            stack.push((format!("{below}{branch}"), format!("{below}{line}"), *child));
        }
        lines.push((prefix, index));
    }
    lines.extend(place(&answer).filter(|index| *index > 0).map(|index| (String::new(), index)));
    lines
}

/// A time as people read it: `1.2s`, `34s`, `2m14s`, `3h05m`.
pub(super) fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", time.as_secs_f32()),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// The first line of a text, cut.
pub(super) fn first_line(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    match line.char_indices().nth(LINE_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, needs: &[&str]) -> TaskView {
        TaskView {
            id: id.parse().unwrap(),
            description: String::new(),
            role: Role::Coder,
            status: TaskStatus::Pending,
            dependencies: needs.iter().map(|id| id.parse().unwrap()).collect(),
            attempt: 0,
            result: None,
            passed: None,
        }
    }

    #[test]
    fn a_plan_is_a_tree() {
        let tasks = [
            task("plan", &[]),
            task("t1", &[]),
            task("t2", &["t1"]),
            task("t3", &["t2"]),
            task("t4", &["t2", "t1"]),
            task("t5", &[]),
            task("answer", &["t1", "t2", "t3", "t4", "t5"]),
        ];
        let drawn: Vec<String> =
            tree(&tasks).into_iter().map(|(prefix, index)| format!("{prefix}{}", tasks[index].id)).collect();
        assert_eq!(drawn, ["plan", "├─ t1", "│  └─ t2", "│     ├─ t3", "│     └─ t4", "└─ t5", "answer"]);
        assert!(tree(&[]).is_empty());
    }

    #[test]
    fn times_are_short() {
        for (ms, text) in [(40, "0.0s"), (1_234, "1.2s"), (34_900, "34s"), (134_000, "2m14s"), (11_100_000, "3h05m")] {
            assert_eq!(short(Duration::from_millis(ms)), text);
        }
    }
}
