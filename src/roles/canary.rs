//! The canary: now and then, after tests have passed, a known fault goes into a copy of the code in the sandbox, and the tests
//! run again. Tests that pass all the same prove little, and whoever reads their verdict is told so.
//!
//! Which test runs get one, and which fault, follows from the run and the bytes of the code, whatever tests it: who looks at the
//! same code again, at another attempt or with other tests, meets the same fault. A verdict of failed tests never waits for
//! it, and it takes only time that the task has left.

use std::collections::BTreeMap;
use std::time::Duration;

use super::briefing::Briefing;
use crate::sandbox::{Limits, Outcome, Sandbox, code_under_test, with_fault};
use crate::wire::{Canary, ContentHash, RunId};

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
    /// They have not passed: qa writes its own anew, and a coder whose tests they are is sent back.
    Fails,
}

impl Default for CanaryRule {
    fn default() -> Self {
        Self { share: SHARE, survived: Survived::Reported }
    }
}

impl CanaryRule {
    /// True when tests of `code` that have passed are tried with a known fault.
    fn due(&self, run: &RunId, code: &ContentHash) -> bool {
        let hash = ContentHash::of(format!("canary.{run}.{code}").as_bytes());
        let draw = u32::from_str_radix(&hash.as_str()[..8], 16).unwrap_or(u32::MAX);
        self.share > 0.0 && f64::from(draw) / f64::from(u32::MAX) <= self.share
    }
}

/// Runs the tests of `files`, which took `took` and passed, with a known fault; `None` when none is due, there is no place for
/// one, or the run showed nothing either way.
///
/// # Errors
/// Why one that is due was not tried.
pub(super) async fn fly(
    rule: &CanaryRule,
    sandbox: &Sandbox,
    limits: &Limits,
    briefing: &Briefing,
    files: &BTreeMap<String, Vec<u8>>,
    took: Duration,
) -> Result<Option<Canary>, String> {
    let due = code_under_test(files).is_some_and(|code| rule.due(&briefing.task.run, &code));
    let Some(faulty) = due.then(|| with_fault(files)).flatten() else { return Ok(None) };
    let wall = limits.wall.min(took * LONGER + Duration::from_secs(LONGER_S));
    let left = Duration::from_millis(briefing.task.limit_ms).saturating_sub(briefing.started.elapsed());
    if left < wall + Duration::from_secs(REPLY_S) {
        return Err(format!("the task has {} s left, and it may take {} s", left.as_secs(), wall.as_secs()));
    }
    let run = sandbox.run_pytest(&faulty.files, &Limits { wall, ..limits.clone() }).await;
    let run = run.map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
    Ok(match run.outcome {
        Outcome::Passed => Some(Canary { fault: faulty.fault, survived: true }),
        Outcome::Failed => Some(Canary { fault: faulty.fault, survived: false }),
        other => {
            tracing::info!("a known fault ({}) showed nothing: the tests ended {other}", faulty.fault);
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_the_same_code_is_tried_alike() {
        let tenth = CanaryRule::default();
        let run = RunId::from_key("t", "canary");
        let codes: Vec<ContentHash> = (0..2_000_u32).map(|number| ContentHash::of(&number.to_be_bytes())).collect();
        let tried = codes.iter().filter(|code| tenth.due(&run, code)).count();
        assert!((120..280).contains(&tried), "{tried} of 2000 at a share of 0.1");
        for code in &codes {
            assert!(CanaryRule { share: 1.0, ..tenth }.due(&run, code));
            assert!(!CanaryRule { share: 0.0, ..tenth }.due(&run, code));
        }
    }
}
