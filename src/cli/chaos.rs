//! `oarlock chaos`: anybody can see for themselves that nothing is lost.

use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::answer::out;
use super::args::ChaosArgs;
use super::config::Config;
use super::connection::NATS_VARIABLES;
use super::exit::{Exit, ended};
use super::talk::say;
use crate::supervisor::chaos::{ChaosConfig, ChaosReport, chaos as run};

pub(super) async fn chaos(config: &Config, args: ChaosArgs) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let chaos = ChaosConfig {
        executable: std::env::current_exe().context("find our own executable")?,
        sources: config.server_sources.clone(),
        without: NATS_VARIABLES.to_vec(),
        runs: args.runs,
        time: Duration::from_secs(args.seconds),
        seed,
        sync_always: args.sync_always,
    };
    let report = tokio::select! {
        report = run(&chaos, &say) => report?,
        // What is dropped here ends the fleet and its server and removes their folder.
        _ = tokio::signal::ctrl_c() => return Err(ended(Exit::Interrupted, "interrupted; the private fleet is gone")),
    };
    match args.json {
        true => out(&as_json(&report, seed))?,
        false => as_table(&report, seed)?,
    }
    match report.sound() {
        true => Ok(()),
        false => Err(ended(
            Exit::Failed,
            format!(
                "something was lost, doubled or left: {}\n  again: oarlock chaos --seed {seed}",
                report.faults.join("; ")
            ),
        )),
    }
}

fn as_json(report: &ChaosReport, seed: u64) -> String {
    let kills = report.kills;
    json!({
        "runs": report.runs,
        "refused": report.refused,
        "tasks": report.tasks,
        "executions": report.executions,
        "repeats": report.repeats,
        "kills": { "worker": kills.worker, "orchestrator": kills.orchestrator, "server": kills.server },
        "stopped": kills.stopped,
        "terminated": kills.terminated,
        "lost": report.lost,
        "duplicated_effects": report.duplicated_effects,
        "orphans": report.orphans,
        "left": report.left,
        "extra_model_calls": report.extra_model_calls,
        "faults": report.faults,
        "seconds": report.seconds,
        "seed": seed,
    })
    .to_string()
}

fn as_table(report: &ChaosReport, seed: u64) -> anyhow::Result<()> {
    let kills = report.kills;
    let rows: [(&str, usize, &str); 13] = [
        ("runs", report.runs, "goals that a door acknowledged"),
        ("tasks", report.tasks, "accepted replies of their tasks"),
        ("executions", report.executions, "times that a worker began a task"),
        ("repeats", report.repeats, "of them, times that one was begun again"),
        ("kills: worker", kills.worker, "kill -9"),
        ("kills: orchestrator", kills.orchestrator, "kill -9"),
        ("kills: server", kills.server, "kill -9, and started again"),
        ("stopped and woken", kills.stopped, "SIGSTOP, SIGCONT"),
        ("told to end", kills.terminated, "SIGTERM"),
        ("extra model calls", report.extra_model_calls, "work that was done twice"),
        ("lost", report.lost, "must be 0"),
        ("duplicated effects", report.duplicated_effects, "must be 0"),
        ("orphans + left", report.orphans + report.left, "must be 0"),
    ];
    for (name, number, what) in rows {
        out(&format!("{name:<20} {number:>7}   {what}"))?;
    }
    out(&format!("\nseed {seed}, {} s", report.seconds))
}
