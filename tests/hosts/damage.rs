//! Damaged files of the store. What nats-server 2.15 does about them, as seen here:
//!
//! - It checks each message when it reads it. A flipped byte is never given out: the message is "not found", nothing is
//!   logged, and its place stays taken.
//! - Started after a kill it has no index and reads the files: the damaged message *and all after it in that file* are
//!   gone, nothing is logged, and their places are free. A cut file: the same, with a warning if there is an index.
//! - A damaged index is rebuilt, with a warning. A damaged `meta.inf` or `meta.sum`: a warning, and the stream is not there.
//!
//! So damage looks like absence, and the fleet has to tell one from the other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use oarlock::store::{FileSet, StoreError};
use oarlock::wire::subject::TaskSubject;
use oarlock::wire::{Artifact, ContentHash, FailureKind, Reply, Role, RunId, RunStatus, Task, TaskId};

use crate::harness::{TestServer, Worker, until};
use crate::host::{Again, CONFIGURATION, Start, back, serve, stop};
use crate::story::{
    SLOW_CAST, assert_one_of_everything, cast_with, ended, enqueue, result, slow_story, subject_of, submit, task,
};

const QUICK: &[(&str, &str)] = &[("OARLOCK_ACK_WAIT_S", "2"), ("OARLOCK_TIMEOUT_S", "4")];

/// A server with its store in a folder of the test.
struct Site {
    server: TestServer,
    again: Option<Again>,
    folder: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let start = Start { configuration: Path::new(CONFIGURATION), stands: folder.path(), login: None };
        Self { server: serve(&start).await, again: None, folder }
    }

    /// The fleet of a small story, without some of its roles.
    async fn fleet(&self, without: &[Role]) -> Vec<Worker> {
        let roles: Vec<Role> = SLOW_CAST.into_iter().filter(|role| !without.contains(role)).collect();
        let mut fleet = cast_with(&self.server, &slow_story(0), &[Role::Orchestrator], QUICK).await;
        fleet.extend(cast_with(&self.server, &slow_story(0), &roles, &[]).await);
        fleet
    }

    fn file(&self, stream: &str, name: &str) -> PathBuf {
        self.folder.path().join("nats-data/jetstream/$G/streams").join(stream).join(name)
    }

    /// Stops the server, changes one of its files, and starts it again.
    async fn damage(&mut self, signal: &str, file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        stop(&self.server, signal).await;
        let mut bytes = std::fs::read(file).unwrap();
        change(&mut bytes);
        std::fs::write(file, bytes).unwrap();
        let start = Start { configuration: Path::new(CONFIGURATION), stands: self.folder.path(), login: None };
        self.again = Some(Again::start(&self.server, &start).await);
        until("the server to be back", async || self.server.bus.js.get_stream("OARLOCK_TASKS").await.is_ok()).await;
    }

    /// Flips one bit of the last message of a stream that holds these words.
    async fn flip(&mut self, signal: &str, stream: &str, words: &str) {
        let file = self.file(stream, "msgs/1.blk");
        self.damage(signal, &file, |bytes| *last(bytes, words) ^= 1).await;
    }

    /// A run whose researcher has answered, and whose documenter is missing; nobody holds it any more.
    async fn half_a_run(&self) -> RunId {
        let fleet = self.fleet(&[Role::Documenter]).await;
        let run = submit(&self.server, "make it").await;
        until("the documenter's task to be queued", async || {
            self.server.store.runs.history(&run).await.unwrap().len() == 3
        })
        .await;
        for mut worker in fleet {
            worker.signal("TERM");
            assert_eq!(worker.exit_code().await, Some(0), "{}", worker.log_text());
        }
        run
    }

    /// A new goal is done as ever.
    async fn assert_up(&self) {
        back(&self.server).await;
        let run = submit(&self.server, "make it again").await;
        ended(&self.server, &run).await;
        assert_one_of_everything(&self.server, &run).await;
    }

    async fn replies(&self, run: &RunId) -> Vec<(TaskSubject, Reply)> {
        self.server.store.results.of_run(run).await.unwrap()
    }
}

/// The last place where these words stand.
fn last<'a>(bytes: &'a mut [u8], words: &str) -> &'a mut u8 {
    let place = bytes.windows(words.len()).rposition(|window| window == words.as_bytes());
    &mut bytes[place.unwrap_or_else(|| panic!("{words:?} is not in the file"))]
}

/// Whatever is done to the file, a reply is read as it was written or not at all, and the fleet serves on.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_reply_is_absent_and_never_other_words() {
    for signal in ["-TERM", "-KILL"] {
        for (case, survivors) in [("flip", [4, 2]), ("cut", [2, 2]), ("zeroes", [2, 2])] {
            let mut site = Site::new().await;
            let fleet = site.fleet(&[]).await;
            let run = submit(&site.server, "make it").await;
            ended(&site.server, &run).await;
            let before = site.replies(&run).await;
            assert_eq!(before.len(), 5);
            let file = site.file("OARLOCK_RESULTS", "msgs/1.blk");
            site.damage(signal, &file, |bytes| match case {
                // The reply of the documenter, third of five.
                "flip" => {
                    let words = bytes.windows(6).position(|window| window == b"# It\\n").unwrap();
                    bytes[words + 2] ^= 1;
                }
                "cut" => bytes.truncate(bytes.len() / 2),
                _ => {
                    let half = bytes.len() / 2;
                    bytes[half..].fill(0);
                }
            })
            .await;
            let after = site.replies(&run).await;
            println!("seen: {case} after {signal}: {} of {} replies are left", after.len(), before.len());
            assert_eq!(after.len(), survivors[usize::from(signal == "-KILL")], "{case} after {signal}");
            assert!(after.iter().all(|reply| before.contains(reply)), "{case} after {signal}: {after:?}");
            site.assert_up().await;
            drop(fleet);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_result_is_damaged_says_so() {
    let mut site = Site::new().await;
    let _fleet = site.fleet(&[]).await;
    let run = submit(&site.server, "make it").await;
    ended(&site.server, &run).await;
    site.flip("-TERM", "OARLOCK_RESULTS", "\"role\":\"orchestrator\"").await;
    let view = site.server.view(run.as_str()).await;
    let failure = view.failure.expect("a failure");
    assert!(view.answer.is_none() && failure.kind == FailureKind::Storage, "{failure}");
    assert!(failure.message.contains("damaged"), "{failure}");
    site.assert_up().await;
}

/// Nobody can store a reply in the place of a damaged one. The run gets past it with a new attempt, after its task's limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_gets_past_a_damaged_reply() {
    for (signal, attempt) in [("-TERM", 2), ("-KILL", 1)] {
        let mut site = Site::new().await;
        let run = site.half_a_run().await;
        site.flip(signal, "OARLOCK_RESULTS", "it is known").await;
        let _fleet = site.fleet(&[]).await;
        assert_eq!(
            ended(&site.server, &run).await.status,
            RunStatus::Completed,
            "{:?}",
            result(&site.server, &run).await
        );
        let replies = site.replies(&run).await;
        let researched = replies.iter().find(|(to, _)| to.role == Role::Researcher);
        let (to, reply) = researched.expect("the researcher's reply");
        assert!(to.attempt == attempt && reply.failure().is_none(), "after {signal}: {replies:?}");
        site.server.assert_nothing_left().await;
        site.assert_up().await;
    }
}

/// What a run cannot go on without: it fails, with the reason, and whoever waits for it is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_own_facts_are_damaged_fails_with_the_reason() {
    for (stream, words, kind, says) in [
        ("KV_oarlock_runs", "\"working\"", FailureKind::Storage, "the run's record is damaged"),
        ("KV_oarlock_runs", "\"text\":\"make it\"", FailureKind::Storage, "no stored goal"),
        ("OARLOCK_TASKS", "\"description\":\"part 2\"", FailureKind::Timeout, "documenter did not answer"),
    ] {
        let mut site = Site::new().await;
        let run = site.half_a_run().await;
        site.flip("-TERM", stream, words).await;
        let _fleet = site.fleet(&[]).await;
        until(&format!("a result after damage to {words}"), async || {
            site.server.store.results.get(&TaskSubject::of_run(&run, 1)).await.unwrap().is_some()
        })
        .await;
        let reply = result(&site.server, &run).await;
        let failure = reply.failure().expect("a failure");
        assert!(failure.kind == kind && failure.message.contains(says), "{words}: {failure}");
        site.assert_up().await;
    }
}

/// The plan and the requests are made again from what is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_gets_past_a_damaged_plan_and_a_damaged_request() {
    for (stream, words) in [("KV_oarlock_runs", "\"description\":\"part 1\""), ("KV_oarlock_history", "part 1")] {
        let mut site = Site::new().await;
        let run = site.half_a_run().await;
        site.flip("-TERM", stream, words).await;
        let _fleet = site.fleet(&[]).await;
        assert_eq!(ended(&site.server, &run).await.status, RunStatus::Completed, "{words}");
        site.assert_up().await;
    }
}

/// The server leaves a stream out whose description is damaged, and says so; declared anew it has its messages again.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_description_is_damaged_is_declared_anew() {
    let mut site = Site::new().await;
    let run = site.half_a_run().await;
    let before = site.replies(&run).await;
    let file = site.file("OARLOCK_RESULTS", "meta.inf");
    site.damage("-TERM", &file, |bytes| *last(bytes, "max_msgs_per_subject") ^= 1).await;
    let log = site.again.as_ref().unwrap().log_text();
    assert!(log.contains("OARLOCK_RESULTS/meta.inf") && log.contains("checksums do not match"), "{log}");
    assert!(site.server.bus.js.get_stream("OARLOCK_RESULTS").await.is_err(), "the stream is there");
    let _fleet = site.fleet(&[]).await;
    let after = site.replies(&run).await;
    assert!(after.starts_with(&before), "{after:?}");
    ended(&site.server, &run).await;
    assert_one_of_everything(&site.server, &run).await;
}

/// A file is what its hash says, or it is refused: damaged on the disk, or stored wrong by somebody who may.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_refused_and_named() {
    let mut site = Site::new().await;
    drop(site.fleet(&[]).await);
    let run = RunId::random();
    let kept = async |path: &str, content: &str| {
        let files = FileSet::from([(path.parse().unwrap(), content.as_bytes().to_vec())]);
        site.server.store.artifacts.put(&run, Role::Coder, &files).await.unwrap().remove(0)
    };
    let (good, bad) = (kept("good.py", "x = 'whole'").await, kept("bad.py", "x = 'broken'").await);
    // In the place of a third file lies something else, of the same length.
    let wrong =
        Artifact { path: "wrong.py".parse().unwrap(), sha256: ContentHash::of(b"one"), bytes: 3, ..bad.clone() };
    let part = site.server.bus.root.blob(Role::Coder, &run, &wrong.sha256, 0);
    site.server.bus.js.publish(part, "two".into()).await.unwrap().await.unwrap();
    site.flip("-TERM", "OARLOCK_BLOBS", "x = 'broken'").await;
    let _reviewer = cast_with(&site.server, &crate::rights::story(), &[Role::Reviewer], &[]).await;

    let store = &site.server.store;
    assert_eq!(store.artifacts.get(&run, &good).await.unwrap(), b"x = 'whole'");
    for (number, file, says) in [(1, &bad, "part 0 is missing"), (2, &wrong, "does not match its hash")] {
        let error = store.artifacts.get(&run, file).await.unwrap_err();
        assert!(matches!(&error, StoreError::Damaged { why, .. } if why.contains(says)), "{error}");
        let work = task(Role::Reviewer, "look at it", Duration::from_secs(10));
        let work = Task { run: run.clone(), id: TaskId::planned(number), files: vec![file.clone()], ..work };
        enqueue(&site.server, &work).await;
        let to = subject_of(&work);
        until("the reviewer's reply", async || store.results.get(&to).await.unwrap().is_some()).await;
        let reply = store.results.get(&to).await.unwrap().unwrap();
        let failure = reply.failure().unwrap_or_else(|| panic!("{reply:?}"));
        assert_eq!(failure.kind, FailureKind::Storage, "{failure}");
        assert!(failure.message.contains(file.path.as_str()) && failure.message.contains(says), "{failure}");
    }
}
