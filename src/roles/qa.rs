//! Quality assurance: pytest, really run, in the sandbox; the verdict is what it showed, never what a model says. Tests of
//! its own that do not even begin say nothing about the code: qa writes them anew, once, and else has no verdict.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::briefing::{Briefing, Text, storage};
use super::canary::{self, CanaryRule, Survived};
use super::collection::uncollected;
use super::files::{self, WrittenFile};
use super::{Desk, Product, Stopped};
use crate::sandbox::{Limits, Outcome, Sandbox, TestRun};
use crate::store::FileSet;
use crate::wire::{
    Artifact, Canary, ContentHash, Failure, FailureKind, FilePath, Report, Role, TestFailure, TestReport, Usage,
    code_hash, limits,
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
    canary: CanaryRule,
}

#[derive(Deserialize)]
struct WrittenTests {
    files: Vec<WrittenFile>,
}

impl Tester {
    /// A tester whose sandbox comes from `prepare`. When that fails, the test task at hand is answered with the reason and
    /// the next one tries again; nothing is ever run outside a sandbox. `canary` says when tests are tried themselves.
    pub fn new(prepare: Prepare, limits: Limits, canary: CanaryRule) -> Self {
        Self { prepare, sandbox: OnceCell::new(), limits, canary }
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
        let run = sandbox.run_pytest(&named(files), &self.limits).await;
        run.map_err(|error| unavailable(format!("{:#}", anyhow::Error::from(error))))
    }

    /// What became of a known fault in a copy of the code, whose tests have passed.
    ///
    /// # Errors
    /// Where it decides: one that is due was not tried.
    async fn canary(&self, briefing: &Briefing, passed: &TestRun) -> Result<Option<Canary>, Failure> {
        let sandbox = self.sandbox().await.map_err(|why| untried(&why))?;
        let flown =
            canary::fly(&self.canary, sandbox, &self.limits, briefing, &named(&briefing.files), passed.wall).await;
        match flown {
            Err(why) if self.canary.survived == Survived::Fails => Err(untried(&why)),
            Err(why) => {
                tracing::info!("a known fault was not tried: {why}");
                Ok(None)
            }
            Ok(canary) => Ok(canary),
        }
    }

    /// Runs the tests of the files in sight, and tries them when they pass.
    async fn judge(&self, briefing: &Briefing) -> Result<Judged, Failure> {
        let run = self.run(&briefing.files).await?;
        let canary = match run.outcome {
            Outcome::Passed => self.canary(briefing, &run).await?,
            _ => None,
        };
        let missed = self.canary.survived == Survived::Fails && canary.as_ref().is_some_and(|canary| canary.survived);
        Ok(Judged { run, canary, missed })
    }
}

/// What tests came to.
struct Judged {
    run: TestRun,
    canary: Option<Canary>,
    /// They did not notice a known fault, and that counts.
    missed: bool,
}

fn untried(why: &str) -> Failure {
    let message = format!("a known fault is due for these tests (canary \"strict\") and was not tried: {why}");
    Failure::again(FailureKind::NoEvidence, message)
}

fn named(files: &FileSet) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(path, content)| (path.to_string(), content.clone())).collect()
}

pub(super) async fn work(desk: &Desk, briefing: &mut Briefing, usage: &mut Usage) -> Result<Product, Stopped> {
    if !briefing.files.keys().any(|path| path.is_python()) {
        let message = "qa got no Python file to test; the coder's reply names none, or the plan gives qa no coder task";
        return Err(Failure::never(FailureKind::NoFiles, message).into());
    }
    let tester = desk.tester.as_ref().ok_or_else(|| Failure::never(FailureKind::Internal, "this worker is no qa"))?;
    // Tests that qa wrote at an earlier attempt stay its own.
    let mut own: Vec<Artifact> = briefing.task.files.iter().filter(|file| file.role == Role::Qa).cloned().collect();
    // A person who rejects a test run misses tests; those that are there would only pass again.
    let wanted = briefing.evidence.iter().any(Text::is_peoples);
    if wanted || !briefing.files.keys().any(|path| path.is_test()) {
        own.extend(write(desk, briefing, usage).await?);
    }
    let mut judged = tester.judge(briefing).await?;
    if let Some(why) = unsound(&judged, &own, &briefing.files) {
        // No code can mend tests that are not the coder's, so their author is asked.
        own.iter().for_each(|file| drop(briefing.files.remove(&file.path)));
        briefing.evidence.push(Text { task: briefing.task.id.clone(), role: Role::Qa, content: rewrite_words(&why) });
        own = write(desk, briefing, usage).await?;
        judged = tester.judge(briefing).await?;
        if let Some(why) = unsound(&judged, &own, &briefing.files) {
            let why = limits::cut(&why, FAILURE_BYTES_MAX);
            let message = format!("qa wrote tests that prove nothing, also when it wrote them anew: {why}");
            return Err(Failure::again(FailureKind::NoEvidence, message).into());
        }
    }
    let Judged { run, canary, missed } = judged;
    let mut report = report(&run, code_hash(&briefing.task.files));
    if missed {
        (report.passed, report.outcome) = (false, "canary".into());
    }
    let report = TestReport { canary, ..report };
    let content = in_words(&run, &report);
    Ok(Product { artifacts: own, report: Some(Report::Tests(report)), ..Product::text(content) })
}

/// Has the model write tests, which join the files.
async fn write(desk: &Desk, briefing: &mut Briefing, usage: &mut Usage) -> Result<Vec<Artifact>, Stopped> {
    let written = desk.ask_json(briefing, usage, |value| read_tests(value, &briefing.files)).await?;
    let stored = desk.store.artifacts.put(&briefing.task.run, Role::Qa, &written).await.map_err(storage)?;
    briefing.files.extend(written);
    Ok(stored)
}

/// Why tests of qa's own have to be written anew: they cannot be collected, or they missed a known fault where that counts.
fn unsound(judged: &Judged, own: &[Artifact], all: &FileSet) -> Option<String> {
    let fault = judged.canary.as_ref().filter(|_| judged.missed && !own.is_empty()).map(|canary| &canary.fault);
    let missed = |fault| {
        format!(
            "A known fault in a copy of the code was not noticed ({fault}). Call what is tested, and compare what it gives."
        )
    };
    fault.map(missed).or_else(|| broken(&judged.run, own, all).map(|why| format!("They cannot be collected:\n{why}")))
}

/// What pytest says of tests of qa's own that it cannot collect.
fn broken(run: &TestRun, own: &[Artifact], all: &FileSet) -> Option<String> {
    if run.errors == 0 {
        return None;
    }
    let own: Vec<&str> = own.iter().map(|file| file.path.as_str()).collect();
    let all: Vec<&str> = all.keys().map(FilePath::as_str).collect();
    uncollected(&run.output, &own, &all).map(|why| limits::cut(&why, OUTPUT_BYTES_MAX))
}

fn rewrite_words(why: &str) -> String {
    format!(
        "The tests that you wrote prove nothing. {why}\nThey are gone. Write them anew, and import only what the files define."
    )
}

fn read_tests(value: &serde_json::Value, known: &FileSet) -> Result<FileSet, Vec<String>> {
    let answer: WrittenTests = serde_json::from_value(value.clone()).map_err(|error| vec![error.to_string()])?;
    let written = files::checked(&answer.files)?;
    let wrong = written.keys().filter(|path| !path.is_test() || known.contains_key(path));
    let faults: Vec<String> = wrong.map(|path| format!("{path} is no new test file (test_*.py)")).collect();
    if faults.is_empty() { Ok(written) } else { Err(faults) }
}

fn report(run: &TestRun, judged: Option<ContentHash>) -> TestReport {
    let failures = run
        .failed_names
        .iter()
        .take(FAILURES_MAX)
        .map(|test| TestFailure { name: test.name.clone(), message: limits::cut(&test.message, FAILURE_BYTES_MAX) });
    TestReport {
        passed: run.outcome == Outcome::Passed,
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
    }
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
    match &report.canary {
        Some(canary) if canary.survived => {
            text += &format!(
                "\nA known fault in a copy of the code was not noticed ({}): these tests prove little. Tests have to call what \
                 they are about, and compare what it gives with what it should.",
                canary.fault
            );
        }
        Some(canary) => text += &format!("\nA known fault in a copy of the code was noticed ({}).", canary.fault),
        None => {}
    }
    if !report.passed {
        text += &format!("\n\n{}", report.output);
    }
    text
}
