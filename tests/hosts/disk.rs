//! A full disk, and a store at its limit: goals are refused with the reason, what was acknowledged stays, and with room
//! again the same processes finish it.
//!
//! A disk that fills up in a sandboxed test run is another matter: `tests/sandbox`, `hostile/disk_one.py` and its neighbours.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use oarlock::wire::{EventKind, Role, RunId};
use serde_json::json;

use crate::harness::{Ended, TestServer, ended as command_ended, oarlock, until};
use crate::host::{Again, CONFIGURATION, Mounted, Start, back, changed, log_of, serve, stop};
use crate::story::{Ear, SLOW_CAST, assert_one_of_everything, cast_with, ended, slow_story, submit};

/// Clients wait for 30 s at the door.
const REFUSED_WITHIN: Duration = Duration::from_secs(28);
const DISK_MB: u32 = 24;
const QUICK: &[(&str, &str)] = &[("OARLOCK_ACK_WAIT_S", "2")];

/// Fills what is left of a file system.
fn fill(place: &Path) {
    let mut ballast = std::fs::File::create(place.join("ballast")).unwrap();
    for bytes in [1 << 20, 1 << 12, 1] {
        while ballast.write_all(&vec![7; bytes]).is_ok() {}
    }
}

/// Gives a goal with the user's tool, and says how that ended and how long it took.
async fn give(server: &TestServer, goal: &str) -> (Ended, Duration) {
    let mut command = oarlock(server);
    command.args(["run", "--detach", goal, "--server", server.url()]);
    let started = Instant::now();
    (command_ended(command, b"").await, started.elapsed())
}

/// Runs that are finished, in the middle of a task, and not begun, on a fleet that works.
async fn busy(server: &TestServer) -> (Vec<crate::harness::Worker>, Vec<RunId>) {
    let story = slow_story(1_500);
    let mut fleet = cast_with(server, &story, &[Role::Orchestrator], QUICK).await;
    fleet.extend(cast_with(server, &story, &SLOW_CAST, &[]).await);
    let mut runs = vec![submit(server, "make it").await];
    ended(server, &runs[0]).await;
    let events = Ear::on(server, "oarlock.event.>").await;
    runs.push(submit(server, "make it").await);
    events.event(EventKind::Started, Some(Role::Documenter), 1).await;
    runs.push(submit(server, "make it").await);
    (fleet, runs)
}

async fn all_end(server: &TestServer, runs: &[RunId]) {
    for run in runs {
        ended(server, run).await;
        assert_one_of_everything(server, run).await;
    }
    server.assert_nothing_left().await;
}

/// The server freezes a stream whose write failed, also when there is room again, so it has to be started anew; nobody else
/// has.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_goals_and_loses_nothing() {
    let Some(disk) = Mounted::tmpfs(DISK_MB) else { return };
    let start = Start { configuration: Path::new(CONFIGURATION), stands: disk.path(), login: None };
    let server = serve(&start).await;
    let (mut fleet, mut runs) = busy(&server).await;
    fill(disk.path());
    // Larger than the room in blocks that are begun.
    let (refused, took) = give(&server, &"x".repeat(100_000)).await;
    println!("measured: a goal was refused by a full disk after {} ms", took.as_millis());
    assert!(refused.code == Some(1) && refused.err.contains("(503)"), "{refused:?}");
    assert!(refused.err.contains("a full disk is the usual reason"), "{refused:?}");
    assert!(took < REFUSED_WITHIN, "it took {took:?}");
    assert!(log_of(&server).contains("no space left on device"), "the disk was not full");

    disk.grow(4 * DISK_MB);
    stop(&server, "-9").await;
    let _again = Again::start(&server, &start).await;
    let roomy = Instant::now();
    back(&server).await;
    all_end(&server, &runs).await;
    println!("measured: all runs ended {} ms after there was room", roomy.elapsed().as_millis());
    runs.push(submit(&server, "make it again").await);
    all_end(&server, &runs).await;
    for worker in &mut fleet {
        worker.signal("TERM");
        assert_eq!(worker.exit_code().await, Some(0), "{}", worker.log_text());
    }
}

/// A store at its own limit answers, and takes again as soon as there is room: nobody has to be started anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_at_its_limit_refuses_goals_at_once_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small.conf");
    // Streams reserve their bytes when they are made, so the limit comes after that.
    std::fs::write(&small, changed("max_file_store: 8GB", "max_file_store: 4MB")).unwrap();
    let start = Start { configuration: Path::new(CONFIGURATION), stands: folder.path(), login: None };
    let server = serve(&start).await;
    let (_fleet, mut runs) = busy(&server).await;
    let ballast = async_nats::jetstream::stream::Config { name: "BALLAST".into(), ..Default::default() };
    let ballast = server.bus.js.create_stream(ballast).await.unwrap();
    stop(&server, "-9").await;
    let _again = Again::start(&server, &Start { configuration: &small, ..start }).await;
    back(&server).await;
    let mut full = None;
    until("the store to be full", async || {
        let sent = server.bus.js.publish("BALLAST", vec![7; 200_000].into()).await.unwrap();
        full = sent.await.err();
        full.is_some()
    })
    .await;
    println!("the server says: {full:?}");
    let (refused, took) = give(&server, &"x".repeat(100_000)).await;
    println!("measured: a goal was refused by a full store after {} ms", took.as_millis());
    assert!(refused.code == Some(1) && refused.err.contains("(503)"), "{refused:?}");
    assert!(refused.err.contains("it is full"), "{refused:?}");
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    let asked = server.request("oarlock.ask.researcher", json!({ "description": "look" }).to_string()).await;
    assert_eq!(asked.error_code(), "503", "{}", asked.text());

    ballast.purge().await.unwrap();
    all_end(&server, &runs).await;
    runs.push(submit(&server, "make it again").await);
    all_end(&server, &runs).await;
}
