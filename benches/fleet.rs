//! What a fleet costs: one ask with an instant model, the memory of idle role processes, the time until `up` is ready, and
//! until the task of a worker that was killed or told to end is running elsewhere.
//! `cargo bench --bench fleet` prints the table of docs/benchmarks.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected should stop there"
)]

#[allow(dead_code, reason = "the harness serves the tests; only a part of it is needed here")]
#[path = "../tests/fleet/harness.rs"]
mod harness;
#[allow(dead_code, reason = "the stories serve the tests; only a part of them is needed here")]
#[path = "../tests/fleet/story.rs"]
mod story;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Fleet, TestServer, oarlock};
use oarlock::bus::StreamSettings;
use oarlock::wire::{EventKind, Role};
use story::{Ear, enqueue, json_rule, one_file, script, task};

/// Asks that are timed, after as many tenths that are not.
const ASKS: usize = 500;
/// Starts of a whole fleet.
const STARTS: usize = 5;
/// Workers that are killed, and that are told to end; under the ten deliveries after which a task is given up.
const RECOVERIES: usize = 8;
/// Silence after which the server gives a task to another worker, in these measurements.
const ACK_WAIT: Duration = Duration::from_secs(2);
/// A model that answers at once.
const INSTANT: &str = r#"{"version":1,"strict":true,"defaults":{"latency_ms":0,"tokens":"estimate"},
    "rules":[{"match":{"role":"synthesizer"},"response":{"content":"done"}}]}"#;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        println!("| what | min | p50 | p99 | max |\n|---|---|---|---|---|");
        ask().await;
        memory().await;
        up().await;
        recovery("KILL", "kill -9 of a worker until its task runs elsewhere, ack_wait 2 s (s)", 1.0).await;
        recovery("TERM", "SIGTERM of a worker without grace until its task runs elsewhere (ms)", 1e3).await;
    });
}

/// One durable task through a door, one after the other: request, queue, worker, stored result, answer.
async fn ask() {
    let server = TestServer::start().await;
    let _worker = server.worker(Role::Synthesizer, INSTANT).await;
    let mut times = Vec::new();
    for number in 0..ASKS + ASKS / 10 {
        let began = Instant::now();
        let answer = server.request("oarlock.ask.synthesizer", format!("task {number}")).await;
        assert_eq!(answer.text(), "done");
        if number >= ASKS / 10 {
            times.push(began.elapsed());
        }
    }
    row("one `oarlock.ask`, instant model (ms)", times.iter().map(|time| time.as_secs_f64() * 1e3).collect());
}

/// Resident memory of every role process of an idle fleet, in MB.
async fn memory() {
    let fleet = Fleet::start(INSTANT).await;
    for worker in &fleet.workers {
        let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kilobytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        row(&format!("memory of an idle {} (MB)", worker.role), vec![kilobytes / 1e3]);
    }
}

/// From the start of `oarlock up` to all eight doors open.
async fn up() {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let server = TestServer::bare().await;
        let script = server.file("script.json", INSTANT);
        let mut command: Command = oarlock(&server);
        command.arg("up").arg("--script").arg(&script).stdout(Stdio::null()).stderr(Stdio::piped());
        let began = Instant::now();
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        lines.find(|line| line.as_ref().unwrap().starts_with("ready")).unwrap().unwrap();
        times.push(began.elapsed());
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        child.wait().unwrap();
    }
    row("`oarlock up` until ready (s)", times.iter().map(Duration::as_secs_f64).collect());
}

/// From a signal to a worker in the middle of a task to the start of the task elsewhere; `unit` per second.
async fn recovery(signal: &str, what: &str, unit: f64) {
    let server = TestServer::with(&StreamSettings { ack_wait: ACK_WAIT, ..StreamSettings::default() }).await;
    let slow = script(&[json_rule(Role::Coder, 60_000, &one_file("x = 1"))]);
    let events = Ear::on(&server, "oarlock.event.>").await;
    let mut times = Vec::new();
    let mut holder = server.worker_with(Role::Coder, &slow, &["--grace", "0"]).await;
    enqueue(&server, &task(Role::Coder, "write it", Duration::from_secs(600))).await;
    events.event(EventKind::Started, Some(Role::Coder), 1).await;
    for number in 0..RECOVERIES {
        let next = server.worker_with(Role::Coder, &slow, &["--grace", "0"]).await;
        let signalled = Instant::now();
        holder.signal(signal);
        let (at, _) = events.event(EventKind::Started, Some(Role::Coder), number + 2).await;
        times.push((at - signalled).as_secs_f64() * unit);
        holder = next;
    }
    row(what, times);
}

fn row(what: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    println!("| {what} | {:.2} | {:.2} | {:.2} | {:.2} |", at(0.0), at(0.5), at(0.99), at(1.0));
}
