//! From what was observed to a verdict. A pass needs two witnesses that agree: the exit code, and a report that names
//! every test which the sources promise. Everything else is a failure, a limit, or no evidence.

use std::time::Duration;

use super::junit::Report;
use super::names::TestName;
use super::record::{Record, Stop};
use super::{Outcome, TestRun, Tier, text};

/// Exit codes of pytest that say that tests ran and some did not pass, or could not be collected.
const EXIT_FAILED: [i32; 2] = [1, 2];

/// Exit code of pytest for "no tests collected".
const EXIT_NO_TESTS: i32 = 5;

/// Signal that the kernel sends when a process is out of processor time.
const SIGNAL_CPU: i32 = nix::libc::SIGXCPU;

/// Missing tests that are named in a reason.
const MISSING_NAMED_MAX: usize = 5;

/// What code says that hit the wall of tier landlock while doing something harmless.
const FORBIDDEN_SIGNS: [&str; 4] = ["PermissionError", "Operation not permitted", "Permission denied", "gaierror"];

/// Weighs a record against the tests that the sources promise.
pub(super) fn judge(tier: Tier, record: Record, promised: &[TestName]) -> TestRun {
    let report = match &record.report_error {
        Some(error) => Err(error.clone()),
        None if record.report.is_empty() => Err("pytest wrote no report".to_owned()),
        None => Report::parse(&record.report),
    };
    let (outcome, reason) = decide(&record, report.as_ref(), promised);
    let report = report.unwrap_or_default();
    let output = output_text(&record);
    let limited = tier == Tier::Landlock && outcome != Outcome::Passed && {
        let said = |text: &str| FORBIDDEN_SIGNS.iter().any(|sign| text.contains(sign));
        said(&output) || report.failed.iter().any(|failed| said(&failed.message))
    };
    TestRun {
        tier,
        layers: record.layers,
        outcome,
        reason,
        exit: record.exit,
        signal: record.signal,
        wall: Duration::from_millis(record.wall_ms),
        peak_memory_bytes: record.peak_memory_bytes,
        stragglers_killed: record.stragglers,
        tests: report.tests,
        passed: report.passed(),
        failures: report.failures,
        errors: report.errors,
        skipped: report.skipped,
        failed_names: report.failed,
        truncated: record.output_bytes > (record.head.len() + record.tail.len()) as u64,
        output,
        limited,
    }
}

fn decide(record: &Record, report: Result<&Report, &String>, promised: &[TestName]) -> (Outcome, Option<String>) {
    if let Some((stop, reason)) = &record.stopped {
        let outcome = match stop {
            Stop::Timeout => Outcome::Timeout,
            Stop::Memory => Outcome::Memory,
            Stop::OutputFlood => Outcome::OutputFlood,
            Stop::Killed | Stop::Cancelled => Outcome::Killed,
        };
        return (outcome, Some(reason.clone()));
    }
    if let Some(signal) = record.signal {
        return match signal {
            SIGNAL_CPU => (Outcome::Timeout, Some("a process used up its processor time".to_owned())),
            _ => (Outcome::Killed, Some(format!("pytest was ended by signal {signal}"))),
        };
    }
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            return (Outcome::Inconclusive, Some(format!("{error} (exit code {})", exit_text(record))));
        }
    };
    if report.failures > 0 || report.errors > 0 {
        let reason = format!("{} failed, {} in error, of {} tests", report.failures, report.errors, report.tests);
        return (Outcome::Failed, Some(reason));
    }
    match missing_evidence(record, report, promised) {
        None => (Outcome::Passed, None),
        Some(reason) => (Outcome::Inconclusive, Some(reason)),
    }
}

/// Why a report without failures is still no pass.
fn missing_evidence(record: &Record, report: &Report, promised: &[TestName]) -> Option<String> {
    match record.exit {
        Some(0) => {}
        Some(EXIT_NO_TESTS) => return Some("no test was found".to_owned()),
        Some(code) if EXIT_FAILED.contains(&code) => {
            return Some(format!("exit code {code}, but the report shows no failure"));
        }
        _ => {
            return Some(format!("pytest could not run the tests (exit code {})", exit_text(record)));
        }
    }
    if report.tests == 0 {
        return Some("the report shows no test".to_owned());
    }
    if report.passed() == 0 {
        return Some("every test was skipped".to_owned());
    }
    let missing: Vec<String> = promised
        .iter()
        .filter(|name| !report.names.contains(name))
        .map(|(class, function)| format!("{class}::{function}"))
        .collect();
    let named = missing.iter().take(MISSING_NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    (!missing.is_empty()).then(|| format!("{} tests in the sources did not run: {named}", missing.len()))
}

fn exit_text(record: &Record) -> String {
    record.exit.map_or("unknown".to_owned(), |code| code.to_string())
}

fn output_text(record: &Record) -> String {
    let kept = (record.head.len() + record.tail.len()) as u64;
    let mut bytes = record.head.clone();
    if record.output_bytes > kept {
        bytes.extend_from_slice(format!("\n[{} bytes dropped]\n", record.output_bytes - kept).as_bytes());
    }
    bytes.extend_from_slice(&record.tail);
    text::neutralised(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_PASSED: &[u8] = b"<testsuite><testcase classname='test_a' name='test_one'/></testsuite>";

    fn judged(record: Record) -> TestRun {
        judge(Tier::Landlock, record, &[("test_a".to_owned(), "test_one".to_owned())])
    }

    fn exited(code: i32, report: &[u8]) -> Record {
        Record { ready: true, exit: Some(code), report: report.to_vec(), ..Record::default() }
    }

    #[test]
    fn a_pass_needs_both_witnesses() {
        assert_eq!(judged(exited(0, ONE_PASSED)).outcome, Outcome::Passed);
        assert_eq!(judged(exited(0, b"")).outcome, Outcome::Inconclusive);
        assert_eq!(judged(exited(1, ONE_PASSED)).outcome, Outcome::Inconclusive);
        assert_eq!(judged(exited(5, b"<testsuite/>")).outcome, Outcome::Inconclusive);
        let failed = b"<testsuite><testcase classname='test_a' name='test_one'><failure/></testcase></testsuite>";
        assert_eq!(judged(exited(0, failed)).outcome, Outcome::Failed);
    }

    #[test]
    fn a_missing_or_skipped_test_is_no_pass() {
        let other = b"<testsuite><testcase classname='test_b' name='test_one'/></testsuite>";
        let run = judged(exited(0, other));
        assert_eq!(run.outcome, Outcome::Inconclusive);
        assert!(run.reason.unwrap().contains("test_a::test_one"));
        let skipped = b"<testsuite><testcase classname='test_a' name='test_one'><skipped/></testcase></testsuite>";
        assert_eq!(judged(exited(0, skipped)).outcome, Outcome::Inconclusive);
    }

    #[test]
    fn limits_win_over_reports() {
        let stopped = Some((Stop::Memory, "too much".to_owned()));
        assert_eq!(judged(Record { stopped, ..exited(0, ONE_PASSED) }).outcome, Outcome::Memory);
        let signal = Some(SIGNAL_CPU);
        assert_eq!(judged(Record { signal, exit: None, ..exited(0, ONE_PASSED) }).outcome, Outcome::Timeout);
    }

    #[test]
    fn a_forbidden_but_harmless_act_is_marked() {
        let report = b"<testsuite><testcase classname='test_a' name='test_one'>\
            <failure message='PermissionError: [Errno 1]'/></testcase></testsuite>";
        assert!(judged(exited(1, report)).limited);
    }

    #[test]
    fn dropped_output_is_marked() {
        let record = Record { head: b"a".to_vec(), tail: b"z".to_vec(), output_bytes: 10, ..exited(0, ONE_PASSED) };
        let run = judged(record);
        assert!(run.truncated);
        assert_eq!(run.output, "a\n[8 bytes dropped]\nz");
    }
}
