//! Quality assurance: pytest, really run, in the sandbox; the verdict is what it showed, never what a model says.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::briefing::{Briefing, storage};
use super::files::{self, WrittenFile};
use super::{Desk, Product};
use crate::sandbox::{Limits, Sandbox, TestRun};
use crate::store::FileSet;
use crate::wire::{
    Artifact, ContentHash, Failure, FailureKind, Report, Role, TestFailure, TestReport, Usage, code_hash, limits,
};

/// Failed tests that a report names.
const FAILURES_MAX: usize = 20;
/// Bytes of one failed test's message.
const FAILURE_BYTES_MAX: usize = 1_000;
/// Bytes of output that a report keeps.
const OUTPUT_BYTES_MAX: usize = 32 * 1024;

/// How a sandbox is made ready; the error is for people.
pub type Prepare = Box<dyn Fn() -> BoxFuture<'static, Result<Sandbox, String>> + Send + Sync>;

/// The means to run tests: a sandbox, made ready once, by a trial.
pub struct Tester {
    prepare: Prepare,
    sandbox: OnceCell<Sandbox>,
    limits: Limits,
}

#[derive(Deserialize)]
struct WrittenTests {
    files: Vec<WrittenFile>,
}

impl Tester {
    /// A tester whose sandbox comes from `prepare`. When that fails, the test task at hand is answered with the reason and
    /// the next one tries again; nothing is ever run outside a sandbox.
    pub fn new(prepare: Prepare, limits: Limits) -> Self {
        Self { prepare, sandbox: OnceCell::new(), limits }
    }

    /// Makes the sandbox ready, or waits until it is.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn sandbox(&self) -> Result<&Sandbox, String> {
        self.sandbox.get_or_try_init(|| (self.prepare)()).await
    }

    async fn run(&self, files: &FileSet) -> Result<TestRun, Failure> {
        let unavailable =
            |why: String| Failure::never(FailureKind::SandboxUnavailable, format!("qa has no sandbox: {why}"));
        let sandbox = self.sandbox().await.map_err(unavailable)?;
        let named: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(path, content)| (path.to_string(), content.clone())).collect();
        let run = sandbox.run_pytest(&named, &self.limits).await;
        run.map_err(|error| unavailable(format!("{:#}", anyhow::Error::from(error))))
    }
}

pub(super) async fn work(desk: &Desk, briefing: &Briefing, usage: &mut Usage) -> Result<Product, Failure> {
    if !briefing.files.keys().any(|path| path.is_python()) {
        let message = "qa got no Python file to test; the coder's reply names none, or the plan gives qa no coder task";
        return Err(Failure::never(FailureKind::NoFiles, message));
    }
    let mut all = briefing.files.clone();
    let mut artifacts = Vec::new();
    if !all.keys().any(|path| path.is_test()) {
        let written = desk.ask_json(briefing, usage, |value| read_tests(value, &briefing.files)).await?;
        artifacts = desk.store.artifacts.put(&briefing.task.run, Role::Qa, &written).await.map_err(storage)?;
        all.extend(written);
    } else {
        // Tests that qa wrote at an earlier attempt stay its own.
        artifacts.extend(briefing.task.files.iter().filter(|file| file.role == Role::Qa).cloned());
    }
    let tester = desk.tester.as_ref().ok_or_else(|| Failure::never(FailureKind::Internal, "this worker is no qa"))?;
    let run = tester.run(&all).await?;
    Ok(product(&run, artifacts, code_hash(&briefing.task.files)))
}

fn read_tests(value: &serde_json::Value, known: &FileSet) -> Result<FileSet, Vec<String>> {
    let answer: WrittenTests = serde_json::from_value(value.clone()).map_err(|error| vec![error.to_string()])?;
    let written = files::checked(&answer.files)?;
    let wrong = written.keys().filter(|path| !path.is_test() || known.contains_key(path));
    let faults: Vec<String> = wrong.map(|path| format!("{path} is no new test file (test_*.py)")).collect();
    if faults.is_empty() { Ok(written) } else { Err(faults) }
}

fn product(run: &TestRun, artifacts: Vec<Artifact>, judged: Option<ContentHash>) -> Product {
    let failures = run
        .failed_names
        .iter()
        .take(FAILURES_MAX)
        .map(|test| TestFailure { name: test.name.clone(), message: limits::cut(&test.message, FAILURE_BYTES_MAX) });
    let report = TestReport {
        passed: run.outcome == crate::sandbox::Outcome::Passed,
        tests: run.tests,
        ok: run.passed,
        failed: run.failures,
        errors: run.errors,
        skipped: run.skipped,
        outcome: run.outcome.to_string(),
        sandbox: run.tier.to_string(),
        exit: run.exit,
        judged,
        canary: None,
        wall_ms: u64::try_from(run.wall.as_millis()).unwrap_or(u64::MAX),
        failures: failures.collect(),
        output: limits::cut(&run.output, OUTPUT_BYTES_MAX),
    };
    Product { content: in_words(run, &report), artifacts, report: Some(Report::Tests(report)) }
}

fn in_words(run: &TestRun, report: &TestReport) -> String {
    let verdict = if report.passed { "pytest passed" } else { "pytest did not pass" };
    let mut text = format!(
        "{verdict}: {} tests, {} ok, {} failed, {} errors, {} skipped (sandbox {})",
        report.tests, report.ok, report.failed, report.errors, report.skipped, report.sandbox
    );
    if let Some(reason) = &run.reason {
        text += &format!("\n{reason}");
    }
    if run.limited {
        text += "\nThe sandbox forbids what these tests seem to need (a server, several processes, a new session); \
                 test in one process, without sockets.";
    }
    if !report.passed {
        text += &format!("\n\n{}", report.output);
    }
    text
}
