//! `oarlock state watch`: the shared state of a run as it changes.
//!
//! As with `logs -f`, the live copy only wakes us: what is printed is read from the bucket, each change once and in the order in
//! which the server stored them. A bucket keeps the newest value of a name, so of values that follow each other faster than
//! they can be read the last one is printed.

use std::time::Duration;

use anyhow::Context;
use futures::{FutureExt, StreamExt};
use serde_json::json;

use super::answer::out;
use super::config::Config;
use super::logs::{is_over, moment};
use super::show::no_run;
use crate::bus::Bus;
use crate::store::Store;
use crate::wire::RunId;

/// How often the bucket is looked at when nothing is heard.
const LOOK_MS: u64 = 500;
/// Looks without a change after which the record is asked whether the run is over.
const SILENT_LOOKS: u32 = 4;

pub(super) async fn watch(config: &Config, bus: &Bus, run: &RunId, new: bool, json: bool) -> anyhow::Result<()> {
    let store = Store::new(bus);
    if store.runs.record(run).await?.is_none() {
        return Err(no_run(config, run));
    }
    let mut live = bus.client.subscribe(store.state.subjects(run)).await.context("subscribe to the shared state")?;
    let mut seen = if new { store.state.end().await? } else { 0 };
    let mut silent = 0;
    loop {
        let before = seen;
        show(&store, run, json, &mut seen).await?;
        silent = if seen == before { silent + 1 } else { 0 };
        if silent >= SILENT_LOOKS {
            silent = 0;
            if is_over(bus, run).await? {
                return show(&store, run, json, &mut seen).await;
            }
        }
        let _ = tokio::time::timeout(Duration::from_millis(LOOK_MS), live.next()).await;
        // One look is enough for all that was heard by now.
        while let Some(Some(_)) = live.next().now_or_never() {}
    }
}

/// Prints what was stored after the revision `seen`.
async fn show(store: &Store, run: &RunId, json: bool, seen: &mut u64) -> anyhow::Result<()> {
    for (name, entry, at) in store.state.after(run, *seen).await? {
        *seen = entry.revision;
        let (revision, value) = (entry.revision, entry.value);
        match json {
            true => out(&json!({ "at": moment(at), "name": name, "revision": revision, "value": value }).to_string())?,
            false => out(&format!("{revision}  {name} = {value}"))?,
        }
    }
    Ok(())
}
