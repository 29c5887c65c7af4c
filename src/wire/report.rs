//! What came of a task, in types: a verdict is data, never a phrase in a text.

use serde::{Deserialize, Serialize};

use super::{Artifact, Failure, Plan};

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome {
    /// Done. A check that found faults is done as well: its verdict is in the report.
    Completed {
        /// The answer in words; at most `reply_content_bytes_max`.
        content: String,
        /// Files; for a coder the whole set, the unchanged ones included.
        #[serde(default)]
        artifacts: Vec<Artifact>,
        /// The typed part, by role.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<Report>,
    },
    /// Could not be done.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// Was stopped by a decision.
    Canceled {
        /// Whose, and why.
        reason: String,
    },
}

/// The typed part of a reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Report {
    /// A planner's plan.
    Plan(Plan),
    /// A qa's test run.
    Tests(TestReport),
    /// A reviewer's verdict.
    Review(Review),
}

/// One run of pytest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestReport {
    /// True only with exit code 0 and a JUnit report with at least one test and no failure.
    pub passed: bool,
    /// Tests collected.
    pub tests: u32,
    /// Tests that passed.
    pub ok: u32,
    /// Tests that failed.
    pub failed: u32,
    /// Tests that broke outside an assertion of theirs.
    pub errors: u32,
    /// Tests that were skipped.
    pub skipped: u32,
    /// How the run ended: passed, failed, timeout, memory, output_flood, killed, inconclusive.
    pub outcome: String,
    /// The sandbox it ran in: bwrap, landlock or off.
    pub sandbox: String,
    /// Milliseconds of wall time.
    pub wall_ms: u64,
    /// What failed.
    #[serde(default)]
    pub failures: Vec<TestFailure>,
    /// What pytest printed, head and tail.
    pub output: String,
}

/// One test that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestFailure {
    /// Its name, with module and class.
    pub name: String,
    /// Its message, cut.
    pub message: String,
}

/// A reviewer's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Whether the files may go on.
    pub verdict: Verdict,
    /// What was found, with ids that the next attempt can answer.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

/// A reviewer's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Good enough.
    Approve,
    /// Must be changed.
    Changes,
}

/// One thing that a reviewer found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `r1`, `r2`, …
    pub id: String,
    /// The file, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl Report {
    /// The verdict of a check; `None` for a report that is none.
    pub fn passed(&self) -> Option<bool> {
        match self {
            Report::Plan(_) => None,
            Report::Tests(tests) => Some(tests.passed),
            Report::Review(review) => Some(review.verdict == Verdict::Approve),
        }
    }
}
