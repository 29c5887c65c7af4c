//! What came of a task, in types: a verdict is data, never a phrase in a text.

use serde::{Deserialize, Serialize};

use super::{Artifact, ContentHash, Failure, Plan, Question, Role};

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
    /// Cannot be done before something is known: the task goes on as a new attempt, with the answer.
    Question(Question),
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
    /// What a coder says to the findings that it got.
    Answers(Answers),
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
    /// Exit code of pytest, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// The code that was tested: [`code_hash`] of the files. Workers of earlier versions do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<ContentHash>,
    /// What became of a fault that was put into a copy of the code, when that was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
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

/// A known fault in a copy of the code, and whether the tests noticed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// The fault: which function of which file does what.
    pub fault: String,
    /// True when the tests passed all the same, so that their pass says little.
    pub survived: bool,
}

/// A reviewer's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Whether the files may go on.
    pub verdict: Verdict,
    /// What was found, with ids that the next attempt can answer.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// The code that was read: [`code_hash`] of the files. Workers of earlier versions do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<ContentHash>,
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
    /// `<task>.<attempt>.f1`, `.f2`, …: unique in the run.
    pub id: String,
    /// The file, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What is wrong, and what would be right.
    pub text: String,
}

/// What a coder says to findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// One for each finding.
    pub answers: Vec<FindingAnswer>,
}

/// What a coder says to one finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingAnswer {
    /// The finding's id.
    pub finding: String,
    /// What was done about it.
    pub verdict: AnswerVerdict,
    /// How it was mended, or why it is no fault.
    pub why: String,
}

/// What was done about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerVerdict {
    /// The files mend it.
    Fixed,
    /// It is no fault, for the reason given.
    Rejected,
}

/// Identity of the code in a set of files: SHA-256 of the lines `<sha256>  <path>\n` of the files of coders, in the order of
/// their paths' bytes, as `sha256sum` prints them. `None` when no coder wrote any.
pub fn code_hash<'a>(files: impl IntoIterator<Item = &'a Artifact>) -> Option<ContentHash> {
    let mut code: Vec<&Artifact> = files.into_iter().filter(|file| file.role == Role::Coder).collect();
    code.sort_by(|one, other| one.path.as_str().cmp(other.path.as_str()));
    let lines: String = code.iter().map(|file| format!("{}  {}\n", file.sha256, file.path)).collect();
    (!code.is_empty()).then(|| ContentHash::of(lines.as_bytes()))
}

impl TestReport {
    /// The verdict in one line, from the numbers alone.
    pub fn line(&self) -> String {
        let verdict = if self.passed { "passed" } else { "did not pass" };
        let canary = match &self.canary {
            Some(canary) if canary.survived => {
                format!("; canary survived ({}), so these tests prove little", canary.fault)
            }
            Some(_) => "; canary killed".to_owned(),
            None => String::new(),
        };
        format!("pytest {verdict}: {} of {} tests ok, in sandbox {}{canary}", self.ok, self.tests, self.sandbox)
    }
}

impl Report {
    /// The code that a check judged, when it says so.
    pub fn judged(&self) -> Option<&ContentHash> {
        match self {
            Report::Plan(_) | Report::Answers(_) => None,
            Report::Tests(tests) => tests.judged.as_ref(),
            Report::Review(review) => review.judged.as_ref(),
        }
    }

    /// The verdict of a check; `None` for a report that is none.
    pub fn passed(&self) -> Option<bool> {
        match self {
            Report::Plan(_) | Report::Answers(_) => None,
            Report::Tests(tests) => Some(tests.passed),
            Report::Review(review) => Some(review.verdict == Verdict::Approve),
        }
    }
}
