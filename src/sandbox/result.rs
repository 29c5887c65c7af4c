//! What a run of pytest showed.

use std::fmt;
use std::time::Duration;

use super::Tier;

/// The evidence of one run.
#[derive(Clone, Debug)]
pub struct TestRun {
    /// The wall it ran behind.
    pub tier: Tier,
    /// What the wall is made of, for the record.
    pub layers: Vec<String>,
    /// The verdict.
    pub outcome: Outcome,
    /// One sentence on why it is not a pass; absent on a pass.
    pub reason: Option<String>,
    /// Exit code of pytest, if it exited.
    pub exit: Option<i32>,
    /// Signal that ended pytest, if one did.
    pub signal: Option<i32>,
    /// From start to end.
    pub wall: Duration,
    /// Highest memory of the process tree seen by the watchdog.
    pub peak_memory_bytes: u64,
    /// Processes that outlived pytest and were killed. In tier bwrap the kernel kills most before they are counted.
    pub stragglers_killed: u32,
    /// Tests in the report.
    pub tests: u32,
    /// Of these, passed.
    pub passed: u32,
    /// Of these, failed.
    pub failures: u32,
    /// Of these, in error.
    pub errors: u32,
    /// Of these, skipped.
    pub skipped: u32,
    /// Failed and erroneous tests, bounded.
    pub failed_names: Vec<FailedTest>,
    /// The start and the end of what was printed, made safe to show.
    pub output: String,
    /// Whether the middle of the output was dropped.
    pub truncated: bool,
    /// Not passed, and it looks as if the tier forbade something that harmless code may do.
    pub limited: bool,
}

/// The verdict on a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0 and a report that shows every test of the sources, no failure.
    Passed,
    /// The report shows a failure or an error.
    Failed,
    /// Out of wall time or processor time.
    Timeout,
    /// Out of memory.
    Memory,
    /// Printed without end.
    OutputFlood,
    /// Ended by a signal or by the watchdog for another limit.
    Killed,
    /// No evidence either way.
    Inconclusive,
}

/// A test that did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedTest {
    /// Module, class and function.
    pub name: String,
    /// What it said, shortened and made safe to show.
    pub message: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "failed",
            Outcome::Timeout => "timeout",
            Outcome::Memory => "memory",
            Outcome::OutputFlood => "output_flood",
            Outcome::Killed => "killed",
            Outcome::Inconclusive => "inconclusive",
        })
    }
}
