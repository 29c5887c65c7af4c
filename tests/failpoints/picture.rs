//! What is left of a run when all is over: what the undisturbed run and the disturbed one must have in common.

use std::collections::{BTreeMap, BTreeSet};

use oarlock::wire::subject::TaskSubject;
use oarlock::wire::{Outcome, Plan, Reply, Role, RunId, RunStatus};
use oarlock::worker::EXECUTION;
use serde_json::Value;

use crate::harness::{TestServer, Worker};
use crate::story::record;

/// A task and its attempt.
type Try = (String, u32);

/// All that may be asked of a run that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    pub status: RunStatus,
    pub owned: bool,
    pub generation: u32,
    plan: (u32, Option<Plan>),
    /// The run's own reply.
    pub answer: Said,
    /// The requests in the history.
    asked: BTreeSet<Try>,
    /// The one reply to each.
    pub replies: BTreeMap<Try, Said>,
    /// How often each was begun by a worker.
    pub begun: BTreeMap<Try, usize>,
    /// The shared state.
    state: BTreeMap<String, Value>,
}

/// A reply without what differs from run to run: who, how long, how many tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    how: &'static str,
    text: String,
    files: Vec<(String, String)>,
}

impl Said {
    pub fn of(reply: &Reply) -> Self {
        let how = match reply.outcome {
            Outcome::Completed { .. } => "completed",
            Outcome::Question(_) => "asked",
            Outcome::Failed { .. } => "failed",
            Outcome::Canceled { .. } => "canceled",
        };
        let files = reply.artifacts().iter().map(|file| (file.path.to_string(), file.sha256.as_str().to_owned()));
        Self { how, text: reply.text().to_owned(), files: files.collect() }
    }
}

impl Picture {
    /// Reads everything anew. `workers` are all that did tasks, the dead ones too.
    pub async fn of(server: &TestServer, run: &RunId, workers: &[Worker]) -> Self {
        let record = record(server, run).await;
        let history = server.store.runs.history(run).await.unwrap();
        let asked: Vec<Try> = history
            .iter()
            .map(|entry| (entry.message.metadata.task.to_string(), entry.message.metadata.attempt))
            .collect();
        let own = TaskSubject::of_run(run, record.generation);
        let answer = server.store.results.get(&own).await.unwrap().expect("the run's result");
        let mut replies = BTreeMap::new();
        for (to, reply) in server.store.results.of_run(run).await.unwrap() {
            if to.role != Role::Orchestrator {
                let before = replies.insert((to.task.to_string(), to.attempt), Said::of(&reply));
                assert_eq!(before, None, "{} attempt {} has two replies", to.task, to.attempt);
            }
        }
        let state = server.store.state.all(run).await.unwrap();
        let picture = Self {
            status: record.status,
            owned: record.owner.is_some(),
            generation: record.generation,
            plan: (record.plan, server.store.runs.plan(run, record.plan.max(1)).await.unwrap()),
            answer: Said::of(&answer),
            asked: asked.iter().cloned().collect(),
            replies,
            begun: begun(run, workers),
            state: state.into_iter().map(|(name, entry)| (name, entry.value)).collect(),
        };
        assert_eq!(asked.len(), picture.asked.len(), "the history has each request once");
        let unasked: Vec<_> = picture.replies.keys().filter(|key| !picture.asked.contains(*key)).collect();
        assert!(unasked.is_empty(), "replies that nobody asked for: {unasked:?}");
        picture
    }

    /// Fails with what differs.
    pub fn assert_is(&self, undisturbed: &Self) {
        let (this, other) = (format!("{self:#?}"), format!("{undisturbed:#?}"));
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let (this, other) = (lines(&this), lines(&other));
        let only = |these: &[String], those: &[String]| {
            let only: Vec<_> = these.iter().filter(|line| !those.contains(line)).cloned().collect();
            only.join("\n")
        };
        assert!(
            self == undisturbed,
            "it differs; here:\n{}\nundisturbed:\n{}\nall:\n{self:?}",
            only(&this, &other),
            only(&other, &this)
        );
    }
}

/// How often each attempt of a run was begun, as the workers' logs tell it.
pub fn begun(run: &RunId, workers: &[Worker]) -> BTreeMap<Try, usize> {
    let mut begun = BTreeMap::new();
    for log in workers.iter().map(Worker::log_text) {
        for line in log.lines().filter(|line| line.contains(EXECUTION)) {
            let field = |name: &str| {
                let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
                value.unwrap_or_else(|| panic!("{name} in {line:?}")).to_owned()
            };
            if field("run") == run.as_str() {
                *begun.entry((field("task"), field("attempt").parse().unwrap())).or_default() += 1;
            }
        }
    }
    begun
}
