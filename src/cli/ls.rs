//! `oarlock ls`: the runs that are kept.

use futures::StreamExt;
use serde::Serialize;

use super::answer::out;
use super::args::LsArgs;
use super::attach;
use super::config::Config;
use super::story::{first_line, short};
use super::talk::say;
use crate::bus::clock::since;
use crate::store::Store;
use crate::wire::{RunId, RunStatus, Tenant};

/// Goals that are read at the same time.
const READS_MAX: usize = 16;

#[derive(Serialize)]
struct Line {
    run: RunId,
    status: RunStatus,
    submitted_at: i64,
    tenant: Tenant,
    goal: String,
}

pub(super) async fn ls(config: &Config, args: LsArgs) -> anyhow::Result<()> {
    let reached = attach::server(config).await?;
    let store = Store::new(&reached.bus);
    let (runs, total) = store.runs.list(usize::from(args.limit)).await?;
    let lines = futures::stream::iter(runs).map(|run| {
        let store = &store;
        async move {
            // A goal that cannot be read is no reason to hide the run.
            let goal = store.runs.goal(&run.run).await.ok().flatten();
            let (goal, tenant) = goal.map(|goal| (goal.text, goal.tenant)).unwrap_or_default();
            Line { run: run.run, status: run.status, submitted_at: run.submitted_at, tenant, goal }
        }
    });
    let lines: Vec<Line> = lines.buffered(READS_MAX).collect().await;
    if args.json {
        return out(&serde_json::to_string(&lines)?);
    }
    if lines.is_empty() {
        say("no run is kept; give the fleet a goal: oarlock run \"…\"");
        return Ok(());
    }
    let now = reached.bus.server_now().await?;
    let lines_shown = lines.len();
    out(&format!("{:<22}{:<16}{:>8}  GOAL", "RUN", "STATUS", "AGE"))?;
    for line in lines {
        let age = short(since(now, line.submitted_at.saturating_mul(1_000_000_000)));
        out(&format!("{:<22}{:<16}{age:>8}  {}", line.run.as_str(), line.status.name(), first_line(&line.goal)))?;
    }
    if total > lines_shown {
        say(&format!("{} older ones are not listed: oarlock ls -n {total}", total - lines_shown));
    }
    Ok(())
}
