//! How a run ends before its time, and where the sandbox finds its tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::unistd::Uid;
use oarlock::sandbox::{Choice, Limits, Outcome, Python, Sandbox, SandboxError};

use crate::canary::{processes_named, run_directories_of, sandbox_user, users_of, vanished};
use crate::harness::{self, Case, Report, helper, python, sandbox};

/// Longest wait for a run to be under way.
const START_WAIT: Duration = Duration::from_secs(15);

const POLL: Duration = Duration::from_millis(10);

/// Tells the test binary to be a worker that will be killed.
const DOOMED: &str = "OARLOCK_TEST_DOOMED";

/// A test that starts a daemon of this name and then never ends.
fn endless(word: &str) -> BTreeMap<String, Vec<u8>> {
    let script = format!(
        "import subprocess, sys, time\ndef test_endless():\n    \
         subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', '{word}'])\n    time.sleep(600)\n"
    );
    let marker = format!("WORD = '{word}'\n");
    BTreeMap::from([
        ("test_endless.py".to_owned(), script.into_bytes()),
        ("parameters.py".to_owned(), marker.into_bytes()),
    ])
}

async fn under_way(word: &str) {
    let deadline = Instant::now() + START_WAIT;
    while processes_named(word).is_empty() || run_directories_of(word).is_empty() {
        assert!(Instant::now() < deadline, "the endless run {word} did not start");
        tokio::time::sleep(POLL).await;
    }
}

async fn nothing_left(word: &str, subject: String) {
    let mut report = Report::new(subject);
    vanished(&mut report, "processes", || processes_named(word)).await;
    vanished(&mut report, "run directories", || run_directories_of(word)).await;
    report.result().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_run_leaves_nothing() {
    for choice in [Choice::Bwrap, Choice::Landlock, Choice::Off] {
        let Some(sandbox) = sandbox(choice).await else { continue };
        let word = format!("od{:x}{choice}", std::process::id());
        let files = endless(&word);
        let run = tokio::spawn(async move { sandbox.run_pytest(&files, &Limits::default()).await });
        under_way(&word).await;
        assert_eq!(users_of(&word), BTreeSet::from([sandbox_user()]), "{choice} must not run as root");
        run.abort();
        assert!(run.await.unwrap_err().is_cancelled());
        nothing_left(&word, format!("dropped run in {choice}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_leaves_nothing() {
    for choice in [Choice::Bwrap, Choice::Landlock] {
        if sandbox(choice).await.is_none() {
            continue;
        }
        let word = format!("ok{:x}{choice}", std::process::id());
        let mut worker = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "life::be_a_doomed_worker", "--nocapture"])
            .env(DOOMED, format!("{choice} {word}"))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        under_way(&word).await;
        worker.kill().await.unwrap();
        nothing_left(&word, format!("killed worker in {choice}")).await;
    }
}

/// Does nothing by itself; the test above starts it in a process of its own.
#[tokio::test]
async fn be_a_doomed_worker() {
    let Ok(order) = std::env::var(DOOMED) else { return };
    let (choice, word) = order.split_once(' ').unwrap();
    let sandbox = sandbox(choice.parse().unwrap()).await.unwrap();
    let run = sandbox.run_pytest(&endless(word), &Limits::default()).await;
    panic!("nobody killed this worker: {run:?}");
}

#[tokio::test]
async fn the_helper_may_be_private() {
    let private = tempfile::tempdir().unwrap();
    fs::set_permissions(private.path(), Permissions::from_mode(0o700)).unwrap();
    let copy = private.path().join("oarlock");
    fs::copy(helper(), &copy).unwrap();
    for mode in [0o755, 0o700] {
        fs::set_permissions(&copy, Permissions::from_mode(mode)).unwrap();
        for choice in [Choice::Bwrap, Choice::Landlock] {
            if sandbox(choice).await.is_some() {
                let sandbox = Sandbox::probe(choice, copy.clone(), python().await).await.unwrap();
                let run = sandbox.run_pytest(&Case::honest("plain").files, &Limits::default()).await.unwrap();
                assert_eq!(run.outcome, Outcome::Passed, "{choice} with mode {mode:o}: {run:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_helper_that_is_not_ours_is_refused_with_the_reason() {
    let error = Sandbox::probe(Choice::Auto, PathBuf::from("/bin/true"), python().await).await.unwrap_err();
    let SandboxError::Unavailable { attempts } = &error else { panic!("{error}") };
    assert_eq!(attempts.len(), 2);
    assert!(error.to_string().contains("bwrap:") && error.to_string().contains("landlock:"), "{error}");
}

#[tokio::test]
async fn auto_takes_the_strongest_tier() {
    let Ok(auto) = Sandbox::probe(Choice::Auto, helper(), python().await).await else {
        let _ = writeln!(std::io::stderr(), "not run: this machine has no tier");
        return;
    };
    let best = if sandbox(Choice::Bwrap).await.is_some() { "bwrap" } else { "landlock" };
    assert_eq!(auto.tier().to_string(), best);
    assert!(auto.layers().contains(&"seccomp".to_owned()), "{:?}", auto.layers());
}

#[tokio::test]
async fn a_private_cache_is_refused_with_the_reason() {
    if !Uid::effective().is_root() {
        let _ = writeln!(std::io::stderr(), "not run: only root lends its cache to another user");
        return;
    }
    let private = tempfile::tempdir().unwrap();
    fs::set_permissions(private.path(), Permissions::from_mode(0o700)).unwrap();
    let candidates = [python().await.executable().to_owned()];
    let error = Python::prepare(&candidates, &private.path().join("cache")).await.unwrap_err();
    assert!(matches!(error, SandboxError::CacheUnreachable { .. }), "{error}");
    assert!(error.to_string().contains("is private"), "{error}");
}

#[tokio::test]
async fn two_workers_install_pytest_once() {
    let cache = tempfile::Builder::new().prefix("oarlock-cache-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(cache.path(), Permissions::from_mode(0o755)).unwrap();
    let candidates = [python().await.executable().to_owned()];
    let (one, other) =
        tokio::join!(Python::prepare(&candidates, cache.path()), Python::prepare(&candidates, cache.path()));
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    let homes: Vec<_> = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(homes.len(), 2, "one lock and one directory: {homes:?}");
    assert!(harness::cache().exists());
}
