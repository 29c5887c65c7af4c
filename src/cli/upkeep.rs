//! `oarlock gc` and `oarlock migrate`: what an operator does to a store.

use serde_json::json;

use super::answer::out;
use super::args::{GcArgs, MigrateArgs};
use super::attach;
use super::config::Config;
use super::talk::say;
use crate::store::Store;

/// Removes what is over; orchestrators do the same by themselves now and then.
pub(super) async fn gc(config: &Config, args: GcArgs) -> anyhow::Result<()> {
    let reached = attach::server(config).await?;
    let retention = args.older_than.unwrap_or(config.retention);
    let swept = Store::new(&reached.bus).janitor.sweep(retention, args.dry_run).await?;
    if args.json {
        return out(&json!({ "dry_run": args.dry_run, "runs": swept.runs, "strays": swept.strays }).to_string());
    }
    for run in &swept.runs {
        out(run.as_str())?;
    }
    for run in &swept.strays {
        out(&format!("{run} (replies or files without a run)"))?;
    }
    let verb = if args.dry_run { "would be removed" } else { "removed" };
    let more = if swept.full { "; there are more, do it again" } else { "" };
    say(&format!("{} runs and {} strays {verb}{more}", swept.runs.len(), swept.strays.len()));
    Ok(())
}

/// Compares what is there with what this version wants, and changes it.
pub(super) async fn migrate(config: &Config, args: MigrateArgs) -> anyhow::Result<()> {
    let reached = attach::server(config).await?;
    let settings = if reached.is_own() { attach::local_streams(config) } else { config.streams.clone() };
    let changes = reached.bus.migrate(&settings, args.dry_run).await?;
    if args.json {
        let all: Vec<_> =
            changes.iter().map(|change| json!({ "what": change.what, "changes": change.changes })).collect();
        return out(&json!({ "dry_run": args.dry_run, "all": all }).to_string());
    }
    let changed: Vec<_> = changes.iter().filter(|change| !change.changes.is_empty()).collect();
    for change in &changed {
        out(&format!("{}: {}", change.what, change.changes.join(", ")))?;
    }
    let verb = if args.dry_run { "would be changed" } else { "changed" };
    say(&format!("{} of {} streams and consumers {verb}", changed.len(), changes.len()));
    Ok(())
}
