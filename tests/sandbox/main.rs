//! The sandbox against real hostile code, and for real honest code, in every tier that this machine has.
//!
//! Each file below `hostile/` and `honest/` is one case, listed in `cases.rs`. Attacks that reach for something are
//! also run without a sandbox, where they must succeed: a test that cannot fail shows nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected should stop there"
)]

mod canary;
mod cases;
mod harness;
mod life;

use canary::Canary;
use cases::{HONEST, HOSTILE, Hostile};
use harness::{Case, Report, at_once, corpus, sandbox};
use oarlock::sandbox::{Choice, Outcome, TestRun, Tier};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_code_in_bwrap() {
    hostile(Choice::Bwrap).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_code_in_landlock() {
    hostile(Choice::Landlock).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_code_in_bwrap() {
    honest(Choice::Bwrap).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_code_in_landlock() {
    honest(Choice::Landlock).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_code_and_forged_verdicts_without_a_wall() {
    honest(Choice::Off).await;
    let sandbox = sandbox(Choice::Off).await.expect("tier off needs nothing but Python");
    let forged = HOSTILE.iter().filter(|(_, hostile)| matches!(hostile, Hostile::Forges(_) | Hostile::ReachesInside));
    let report = at_once(forged, |(name, hostile)| async move { attack(sandbox, name, hostile).await }).await;
    report.settle();
}

/// Without a wall, every attack that reaches for something has to work, or its test shows nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attacks_succeed_outside() {
    let reaching = HOSTILE.iter().filter(|(_, hostile)| matches!(hostile, Hostile::Reaches | Hostile::MayReach));
    let report = at_once(reaching, |(name, hostile)| async move {
        let canary = Canary::hatch().await;
        match (canary.attacked_without_sandbox(&Case::hostile(name, &canary)).await, hostile) {
            (Ok(()), _) => Ok(()),
            (Err(text), Hostile::MayReach) => {
                println!("control not possible on this machine: {name}: {text}");
                Ok(())
            }
            (Err(text), _) => Err(format!("{name} does not work even without a sandbox: {text}")),
        }
    })
    .await;
    report.settle();
}

#[test]
fn every_file_is_a_case() {
    assert_eq!(corpus("hostile"), HOSTILE.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>());
    assert_eq!(corpus("honest"), HONEST.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>());
}

async fn hostile(choice: Choice) {
    let Some(sandbox) = sandbox(choice).await else { return };
    let report = at_once(HOSTILE.iter(), |(name, hostile)| async move { attack(sandbox, name, hostile).await }).await;
    report.settle();
}

async fn attack(sandbox: &oarlock::sandbox::Sandbox, name: &str, hostile: &Hostile) -> Result<(), String> {
    let canary = Canary::hatch().await;
    let case = Case::hostile(name, &canary);
    let run = sandbox.run_pytest(&case.files, &hostile.limits()).await.map_err(|error| format!("{name}: {error}"))?;
    let mut report = Report::new(format!("{name} in {}", sandbox.tier()));
    report.expect(hostile.allows(&run), || format!("unexpected {}", summary(&run)));
    report.expect(!run.output.contains('\x1b'), || "terminal commands in the output".to_owned());
    report.expect(run.output.len() < 2 * 1024 * 1024, || "too much output kept".to_owned());
    canary.check(&mut report).await;
    report.result()
}

async fn honest(choice: Choice) {
    let Some(sandbox) = sandbox(choice).await else { return };
    let report = at_once(HONEST.iter(), |(name, honest)| async move {
        let run = sandbox
            .run_pytest(&Case::honest(name).files, &cases::usual_limits())
            .await
            .map_err(|error| format!("{name}: {error}"))?;
        let mut report = Report::new(format!("{name} in {}", sandbox.tier()));
        let limited = honest.limited_in_landlock && sandbox.tier() == Tier::Landlock;
        let expected = if limited { Outcome::Failed } else { honest.outcome };
        report.expect(run.outcome == expected, || format!("unexpected {}", summary(&run)));
        report.expect(run.limited == limited, || format!("limited is {}, not {limited}", run.limited));
        report.expect(!run.truncated && run.stragglers_killed == 0, || format!("left behind: {}", summary(&run)));
        report.result()
    })
    .await;
    report.settle();
}

fn summary(run: &TestRun) -> String {
    format!(
        "{} ({:?}; exit {:?}, signal {:?}, {} tests, {} stragglers, {:?}):\n{}",
        run.outcome, run.reason, run.exit, run.signal, run.tests, run.stragglers_killed, run.failed_names, run.output
    )
}
