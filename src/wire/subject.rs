//! Every subject, stream, bucket and service name, built and parsed in one place.
//!
//! All of them derive from a root, `oarlock` unless configured, so that several fleets can share a server. The role
//! stands in task, result and blob subjects, so that permissions can say who may write what.

use std::fmt;
use std::str::FromStr;

use super::{ContentHash, EventKind, Role, RunId, TaskId, limits};

/// Characters of a root.
const ROOT_CHARS_MAX: usize = 32;

/// Header of a door's request: the caller's idempotency key.
pub const HEADER_KEY: &str = "Oarlock-Key";
/// On whose account a goal is.
pub const HEADER_TENANT: &str = "Oarlock-Tenant";
/// Header of a door's reply: the run.
pub const HEADER_RUN: &str = "Oarlock-Run";
/// Header of a door's reply: the status of the run or task.
pub const HEADER_STATUS: &str = "Oarlock-Status";
/// Header of a task that was never dispatched before, so that its worker need not look for a result first. Its value is the
/// server's time, in nanoseconds since 1970, at which its publisher knew that.
pub const HEADER_FIRST: &str = "Oarlock-First";

/// The token that all names of a fleet begin with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Root(String);

/// A root that cannot stand in names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("root {0:?} must be 1 to {ROOT_CHARS_MAX} lower-case ASCII letters, digits and underscores, a letter first")]
pub struct BadRoot(String);

/// The identity in a task or result subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSubject {
    /// The role that does the task.
    pub role: Role,
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// The attempt; for the orchestrator's own messages the generation.
    pub attempt: u32,
}

impl Default for Root {
    fn default() -> Self {
        Self("oarlock".into())
    }
}

impl FromStr for Root {
    type Err = BadRoot;
    fn from_str(text: &str) -> Result<Self, BadRoot> {
        let legal = (1..=ROOT_CHARS_MAX).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if legal { Ok(Self(text.to_owned())) } else { Err(BadRoot(text.chars().take(2 * ROOT_CHARS_MAX).collect())) }
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Streams and buckets.
impl Root {
    fn stream(&self, name: &str) -> String {
        format!("{}_{name}", self.0.to_uppercase())
    }
    /// The work queue.
    pub fn tasks_stream(&self) -> String {
        self.stream("TASKS")
    }
    /// The replies, one per subject, first writer wins.
    pub fn results_stream(&self) -> String {
        self.stream("RESULTS")
    }
    /// The files.
    pub fn blobs_stream(&self) -> String {
        self.stream("BLOBS")
    }
    /// What happened.
    pub fn events_stream(&self) -> String {
        self.stream("EVENTS")
    }
    /// What is to come at a time.
    pub fn later_stream(&self) -> String {
        self.stream("LATER")
    }
    /// What could not be done.
    pub fn dead_stream(&self) -> String {
        self.stream("DEAD")
    }
    /// Records, goals and plans.
    pub fn runs_bucket(&self) -> String {
        format!("{}_runs", self.0)
    }
    /// Shared state.
    pub fn state_bucket(&self) -> String {
        format!("{}_state", self.0)
    }
    /// The requests sent.
    pub fn history_bucket(&self) -> String {
        format!("{}_history", self.0)
    }
    /// What the runs of a tenant took of a day.
    pub fn spent_bucket(&self) -> String {
        format!("{}_spent", self.0)
    }
}

/// Subjects of the durable plane.
impl Root {
    /// Where a task is queued.
    pub fn task(&self, to: &TaskSubject) -> String {
        format!("{}.task.{}.{}.{}.{}", self.0, to.role, to.run, to.task, to.attempt)
    }
    /// Where its reply is stored.
    pub fn result(&self, to: &TaskSubject) -> String {
        format!("{}.result.{}.{}.{}.{}", self.0, to.role, to.run, to.task, to.attempt)
    }
    /// Where an accepted reply is seen live.
    pub fn stored(&self, to: &TaskSubject) -> String {
        format!("{}.stored.{}.{}.{}.{}", self.0, to.role, to.run, to.task, to.attempt)
    }
    /// All queued messages of a run.
    pub fn tasks_of_run(&self, run: &RunId) -> String {
        format!("{}.task.*.{run}.>", self.0)
    }
    /// All tasks.
    pub fn all_tasks(&self) -> String {
        format!("{}.task.>", self.0)
    }
    /// All tasks of a role: its consumer's filter.
    pub fn tasks_of(&self, role: Role) -> String {
        format!("{}.task.{role}.>", self.0)
    }
    /// All results.
    pub fn all_results(&self) -> String {
        format!("{}.result.>", self.0)
    }
    /// All results of a run.
    pub fn results_of(&self, run: &RunId) -> String {
        format!("{}.result.*.{run}.>", self.0)
    }
    /// Where the server republishes accepted replies.
    pub fn all_stored(&self) -> String {
        format!("{}.stored.>", self.0)
    }
    /// All accepted replies of a run, live.
    pub fn stored_of(&self, run: &RunId) -> String {
        format!("{}.stored.*.{run}.>", self.0)
    }
    /// One part of a file.
    pub fn blob(&self, role: Role, run: &RunId, hash: &ContentHash, part: u64) -> String {
        format!("{}.blob.{role}.{run}.{hash}.{part}", self.0)
    }
    /// All files.
    pub fn all_blobs(&self) -> String {
        format!("{}.blob.>", self.0)
    }
    /// All files of a run.
    pub fn blobs_of(&self, run: &RunId) -> String {
        format!("{}.blob.*.{run}.>", self.0)
    }
    /// Where a task waits for its time.
    pub fn later(&self, to: &TaskSubject) -> String {
        format!("{}.later.{}.{}.{}.{}", self.0, to.run, to.role, to.task, to.attempt)
    }
    /// All of a run that waits for its time.
    pub fn later_of(&self, run: &RunId) -> String {
        format!("{}.later.{run}.>", self.0)
    }
    /// The alarms of a run among it.
    pub fn alarms_of(&self, run: &RunId) -> String {
        format!("{}.later.{run}.{}.>", self.0, Role::Orchestrator)
    }
    /// Where the server puts it when its time has come.
    pub fn due(&self, to: &TaskSubject) -> String {
        format!("{}.due.{}.{}.{}.{}", self.0, to.role, to.run, to.task, to.attempt)
    }
    /// All that waits for its time.
    pub fn all_later(&self) -> String {
        format!("{}.later.>", self.0)
    }
    /// All whose time has come.
    pub fn all_due(&self) -> String {
        format!("{}.due.>", self.0)
    }
    /// A task that was given up.
    pub fn dead(&self, role: Role, run: &RunId, task: &TaskId) -> String {
        format!("{}.dead.{role}.{run}.{task}", self.0)
    }
    /// All given-up tasks of a run.
    pub fn dead_of(&self, run: &RunId) -> String {
        format!("{}.dead.*.{run}.*", self.0)
    }
    /// All given-up tasks.
    pub fn all_dead(&self) -> String {
        format!("{}.dead.>", self.0)
    }
    /// "Look again" for whoever works on a run; the truth is stored.
    pub fn nudge(&self, run: &RunId) -> String {
        format!("{}.nudge.{run}", self.0)
    }
    /// One event.
    pub fn event(&self, run: &RunId, kind: EventKind) -> String {
        format!("{}.event.{run}.{}", self.0, kind.name())
    }
    /// All events of a run.
    pub fn events_of(&self, run: &RunId) -> String {
        format!("{}.event.{run}.*", self.0)
    }
    /// What a model of a run writes, live; not kept.
    pub fn tokens(&self, run: &RunId) -> String {
        format!("{}.event.{run}.token", self.0)
    }
    /// The events that are kept: all kinds, and not the tokens beside them.
    pub fn kept_events(&self) -> Vec<String> {
        EventKind::ALL.iter().map(|kind| format!("{}.event.*.{}", self.0, kind.name())).collect()
    }

    /// Reads a task, due, result or stored subject; `None` when it is none of this fleet, or not as this fleet writes it:
    /// two subjects of one attempt would hold two results.
    pub fn parse(&self, subject: &str) -> Option<TaskSubject> {
        let rest = subject.strip_prefix(&self.0)?.strip_prefix('.')?;
        let mut tokens = rest.split('.');
        let kind = tokens.next()?;
        if !["task", "due", "result", "stored"].contains(&kind) {
            return None;
        }
        let found = TaskSubject {
            role: tokens.next()?.parse().ok()?,
            run: tokens.next()?.parse().ok()?,
            task: tokens.next()?.parse().ok()?,
            attempt: tokens.next().and_then(plain_number).filter(|attempt| *attempt <= limits::ATTEMPT_MAX)?,
        };
        tokens.next().is_none().then_some(found)
    }
}

/// A number as it is written here: no sign, no zero in front.
fn plain_number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

/// Reads an attempt that can stand in a subject.
pub(super) fn attempt<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let attempt = serde::Deserialize::deserialize(deserializer)?;
    match attempt > limits::ATTEMPT_MAX {
        true => Err(serde::de::Error::custom(format!("attempt {attempt} is above {}", limits::ATTEMPT_MAX))),
        false => Ok(attempt),
    }
}

/// Doors and services.
impl Root {
    /// A goal comes in, the answer goes out.
    pub fn run_door(&self) -> String {
        format!("{}.run", self.0)
    }
    /// A goal comes in, the run's id goes out.
    pub fn submit_door(&self) -> String {
        format!("{}.submit", self.0)
    }
    /// A task for one role comes in, its result goes out.
    pub fn ask_door(&self, role: Role) -> String {
        format!("{}.ask.{role}", self.0)
    }
    /// One control verb.
    pub fn control_door(&self, verb: &str) -> String {
        format!("{}.control.{verb}", self.0)
    }
    /// The micro service's name of a role.
    pub fn service(&self, role: Role) -> String {
        format!("{}-{role}", self.0)
    }
}

impl TaskSubject {
    /// The run's own result, under a generation.
    pub fn of_run(run: &RunId, generation: u32) -> Self {
        Self { role: Role::Orchestrator, run: run.clone(), task: TaskId::run(), attempt: generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_back() {
        let root = Root::default();
        for role in Role::ALL {
            let to = TaskSubject { role, run: RunId::random(), task: TaskId::planned(12), attempt: 3 };
            for subject in [root.task(&to), root.due(&to), root.result(&to), root.stored(&to)] {
                assert_eq!(root.parse(&subject).as_ref(), Some(&to), "{subject}");
            }
        }
    }

    #[test]
    fn strange_subjects_are_nobody_s() {
        let root = Root::default();
        for strange in [
            "oarlock.task.coder.r.t1",
            "oarlock.task.coder.r.t1.1.2",
            "oarlock.task.tester.r.t1.1",
            "oarlock.task.coder.r.t1.x",
            "oarlock.task.coder.r.t1.4294967295",
            "oarlock.result.coder.r.t1.01",
            "oarlock.result.coder.r.t1.+1",
            "oarlock.blob.coder.r.t1.1",
            "oarlocks.task.coder.r.t1.1",
            "",
        ] {
            assert_eq!(root.parse(strange), None, "{strange}");
        }
    }

    #[test]
    fn a_root_is_one_plain_token() {
        assert_eq!("team_2".parse::<Root>().unwrap().tasks_stream(), "TEAM_2_TASKS");
        for bad in ["", "A", "a.b", "2a", "a-b", "a>", &"a".repeat(ROOT_CHARS_MAX + 1)] {
            assert!(bad.parse::<Root>().is_err(), "{bad:?}");
        }
    }
}
