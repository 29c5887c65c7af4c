//! `oarlock cancel`: a run, or one task of it, is stopped.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use super::args::CancelArgs;
use super::config::Config;
use super::control;
use super::exit::{Exit, ended};
use super::talk::say;
use crate::bus::{Bus, presence};
use crate::store::Store;
use crate::wire::{RunId, TaskId};

/// How long workers may take to let go of what was canceled.
const STOP_WAIT_S_MAX: u64 = 30;
/// Pause between two looks at the queue.
const STOP_DELAY_MS: u64 = 50;

pub(super) async fn cancel(config: &Config, args: CancelArgs) -> anyhow::Result<()> {
    let (run, task) = control::parse(&args.what)?;
    let bus = control::fleet(config).await?;
    cancel_run(&bus, &run, task.as_ref(), args.reason.as_deref()).await?;
    match args.kill {
        true => say(&format!("{} is canceled; its workers stop within a moment", args.what)),
        false => {
            let took = wait_until_stopped(&bus, &run, task.as_ref()).await?;
            say(&format!("{} is canceled, and nobody works on it any more ({:.1} s)", args.what, took.as_secs_f32()));
        }
    }
    Ok(())
}

/// Stores the cancel; from then on it holds, whoever dies.
pub(super) async fn cancel_run(bus: &Bus, run: &RunId, task: Option<&TaskId>, why: Option<&str>) -> anyhow::Result<()> {
    // The generation that is meant: an orchestrator that slept may hear this when another one has begun.
    let generation = Store::new(bus).runs.record(run).await?.map(|recorded| recorded.record.generation);
    let request = json!({ "run": run, "task": task, "reason": why, "generation": generation });
    control::ask_each(bus, "cancel", &request).await.map(drop)
}

/// Waits until no message of the run, or of its task, is with a worker.
async fn wait_until_stopped(bus: &Bus, run: &RunId, task: Option<&TaskId>) -> anyhow::Result<Duration> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(STOP_WAIT_S_MAX) {
        let left = bus.scan(&bus.root.tasks_stream(), &bus.root.tasks_of_run(run)).await?;
        let about = left.iter().filter_map(|kept| bus.root.parse(&kept.subject));
        let roles: BTreeSet<_> =
            about.filter(|to| task.is_none_or(|task| to.task == *task)).map(|to| to.role).collect();
        let mut in_hand = false;
        for role in roles {
            // What nobody has pulled is answered without work when somebody does.
            in_hand |= presence(bus, role).await?.is_some_and(|seen| seen.running > 0);
        }
        if !in_hand {
            return Ok(started.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(STOP_DELAY_MS)).await;
    }
    let what = format!(
        "it is canceled, but after {STOP_WAIT_S_MAX} s a worker still holds a task of it; `oarlock ps` shows who is there"
    );
    Err(ended(Exit::Timeout, what))
}
