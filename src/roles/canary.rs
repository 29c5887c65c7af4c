//! The canary: now and then, after tests have passed, a known fault goes into a copy of the code in the sandbox, and the tests
//! run again. Tests that pass all the same prove little, and whoever reads their verdict is told so.
//!
//! Which test runs get one follows from run, task and attempt, so a task that is done twice is tried twice alike. A verdict
//! of failed tests never waits for it, and it takes only time that the task has left.

use std::collections::BTreeMap;
use std::time::Duration;

use super::briefing::Briefing;
use crate::sandbox::{Limits, Outcome, Sandbox, with_fault};
use crate::wire::{Canary, ContentHash, Task};

/// Part of the passing test runs that get one, unless configured.
const SHARE: f64 = 0.1;
/// How much longer than the tests themselves they may take with a fault in the code, as a factor and in seconds.
const LONGER: u32 = 2;
const LONGER_S: u64 = 5;
/// Time of the task that must be left after it, for the reply.
const REPLY_S: u64 = 5;

/// When a known fault is tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CanaryRule {
    /// Part of the passing test runs, 0 to 1.
    pub share: f64,
    /// What it means when the tests pass all the same.
    pub survived: Survived,
}

/// What tests are worth that do not notice a known fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survived {
    /// They have passed; their report says that a fault survived.
    Reported,
    /// They have not passed.
    Fails,
}

impl Default for CanaryRule {
    fn default() -> Self {
        Self { share: SHARE, survived: Survived::Reported }
    }
}

impl CanaryRule {
    /// The number that chooses the fault for a task whose tests have passed; `None` when it gets none.
    pub(super) fn choice(&self, task: &Task) -> Option<u64> {
        let hash = ContentHash::of(format!("canary.{}.{}.{}", task.run, task.id, task.attempt).as_bytes());
        let (draw, choice) = hash.as_str().split_at(8);
        let draw = f64::from(u32::from_str_radix(draw, 16).ok()?) / f64::from(u32::MAX);
        (self.share > 0.0 && draw <= self.share).then(|| u64::from_str_radix(&choice[..8], 16).ok()).flatten()
    }
}

/// Runs the tests of `files`, which took `took` and passed, with a known fault, the one of `choice`; `None` when there is no
/// time or no place for one, or the run showed nothing either way.
pub(super) async fn fly(
    choice: u64,
    sandbox: &Sandbox,
    limits: &Limits,
    briefing: &Briefing,
    files: &BTreeMap<String, Vec<u8>>,
    took: Duration,
) -> Option<Canary> {
    let faulty = with_fault(files, choice)?;
    let wall = limits.wall.min(took * LONGER + Duration::from_secs(LONGER_S));
    let left = Duration::from_millis(briefing.task.limit_ms).saturating_sub(briefing.started.elapsed());
    if left < wall + Duration::from_secs(REPLY_S) {
        tracing::debug!("no time is left to try a known fault");
        return None;
    }
    let run = sandbox.run_pytest(&faulty.files, &Limits { wall, ..limits.clone() }).await;
    let run = run.inspect_err(|error| tracing::warn!("a known fault was not tried: {error}")).ok()?;
    match run.outcome {
        Outcome::Passed => Some(Canary { fault: faulty.fault, survived: true }),
        Outcome::Failed => Some(Canary { fault: faulty.fault, survived: false }),
        other => {
            tracing::info!("a known fault ({}) showed nothing: the tests ended {other}", faulty.fault);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::RunId;

    fn task() -> Task {
        serde_json::from_str(include_str!("../../tests/golden/task.json")).unwrap()
    }

    #[test]
    fn the_share_is_kept_and_the_same_task_is_tried_alike() {
        let tenth = CanaryRule::default();
        let tasks: Vec<Task> =
            (0..2_000).map(|number| Task { run: RunId::from_key("t", &number.to_string()), ..task() }).collect();
        let tried = tasks.iter().filter(|task| tenth.choice(task).is_some()).count();
        assert!((120..280).contains(&tried), "{tried} of 2000 at a share of 0.1");
        for task in &tasks {
            assert_eq!(tenth.choice(task), tenth.choice(task));
            assert!(CanaryRule { share: 1.0, ..tenth }.choice(task).is_some());
            assert!(CanaryRule { share: 0.0, ..tenth }.choice(task).is_none());
        }
    }
}
