//! What the server has: itself, its storage, its clock, the fleet's streams and consumers, who serves which role.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::super::attach;
use super::super::config::Config;
use super::super::connection::{Named, Origin};
use super::super::ps::processes;
use super::{Line, broken, note, ok};
use crate::bus::clock::nanos;
use crate::bus::{Bus, presence};
use crate::store::Store;
use crate::wire::Role;

/// How far the clocks may be apart before it is worth a word.
const CLOCK_APART_MS: u128 = 2_000;
/// Part of the storage, in percent, from which on it is worth a word.
const STORAGE_PERCENT: u64 = 80;
/// Streams and consumers that one line names.
const NAMES_MAX: usize = 3;

pub(super) async fn fleet(config: &Config) -> Vec<Line> {
    match attach::server(config).await {
        Ok(reached) => served(config, &reached.bus, reached.is_own()).await,
        Err(error) if !matches!(config.connections.any(), Ok(Named { origin: Origin::Nobody, .. })) => {
            vec![broken(format!("{error:#}"), "start the server, or name another with --server")]
        }
        Err(error) => vec![note(format!("{error:#}"), "oarlock up (`oarlock run` starts its own)")],
    }
}

async fn served(config: &Config, bus: &Bus, own: bool) -> Vec<Line> {
    let version = bus.client.server_info().version;
    let mut lines = vec![ok(format!("NATS {version} is reachable, with JetStream"))];
    lines.push(storage(bus).await);
    lines.extend(clock(bus).await);
    lines.push(streams(config, bus, own).await);
    let counts = futures::future::join_all(Role::ALL.map(|role| processes(bus, role))).await;
    for (role, count) in Role::ALL.into_iter().zip(counts) {
        lines.push(match count {
            0 => nobody(bus, role).await,
            count => ok(format!("role {role}: {count} process{}", if count == 1 { "" } else { "es" })),
        });
    }
    let dead = Store::new(bus).dead.list(None).await;
    if let Some(count) = dead.ok().map(|letters| letters.len()).filter(|count| *count > 0) {
        lines.push(note(format!("{count} tasks were given up"), "oarlock dead ls; oarlock dead requeue, or drop"));
    }
    lines
}

async fn nobody(bus: &Bus, role: Role) -> Line {
    let waiting = presence(bus, role).await.ok().flatten().map_or(0, |seen| seen.waiting);
    let waits = if waiting > 0 { format!(", and {waiting} wait") } else { String::new() };
    broken(format!("nobody serves role {role}{waits}"), format!("oarlock worker {role}"))
}

/// What JetStream keeps for this account, and how much it may.
async fn storage(bus: &Bus) -> Line {
    let asked = Instant::now();
    match bus.js.query_account().await {
        Err(error) => note(
            format!("JetStream does not say how much it may keep ({error})"),
            "give our login the right to $JS.API.INFO; nothing else needs it",
        ),
        Ok(account) => {
            let (kept, took) = (bytes(account.storage), asked.elapsed());
            let bound = account.limits.max_storage.and_then(|max| u64::try_from(max).ok()).filter(|max| *max > 0);
            let bounds = bound.map_or("no limit of this account".to_owned(), |max| format!("at most {}", bytes(max)));
            let what =
                format!("JetStream keeps {kept}, {bounds}; it answers in {:.1} ms", took.as_secs_f64() * 1_000.0);
            match bound.filter(|max| account.storage > max / 100 * STORAGE_PERCENT) {
                Some(_) => {
                    note(what, "raise the account's limit, or remove finished runs: oarlock gc --older-than 86400")
                }
                None => ok(what),
            }
        }
    }
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        (size, unit) = (size / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{count} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

/// Our clock beside the server's; no decision hangs on ours, but people compare logs.
async fn clock(bus: &Bus) -> Option<Line> {
    let theirs = bus.server_now().await.ok()?;
    let ours = nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let apart = Duration::from_nanos(ours.abs_diff(theirs));
    Some(match apart.as_millis() > CLOCK_APART_MS {
        false => ok("clock: as the server's"),
        true => note(
            format!("clock: {:.1} s off the server's", apart.as_secs_f64()),
            "set it (ntp); only the times in logs and needless work hang on it",
        ),
    })
}

/// The streams, buckets and consumers, against what this version wants.
async fn streams(config: &Config, bus: &Bus, own: bool) -> Line {
    let settings = if own { attach::local_streams(config) } else { config.streams.clone() };
    let changes = match bus.migrate(&settings, true).await {
        Ok(changes) => changes,
        Err(error) => return broken(format!("{:#}", anyhow::Error::from(error)), "nats stream ls; nats stream info"),
    };
    let named = |wanted: fn(&&crate::bus::Change) -> bool| -> Vec<&str> {
        changes.iter().filter(wanted).map(|change| change.what.as_str()).collect()
    };
    let missing = named(|change| change.changes == ["created"]);
    let other = named(|change| !change.changes.is_empty() && change.changes != ["created"]);
    match (missing.len(), other.len()) {
        (0, 0) => ok(format!("{} streams and consumers are there, as this version wants them", changes.len())),
        (0, _) => note(
            format!("set otherwise than this version wants it: {}", some(&other)),
            "oarlock migrate --dry-run shows the difference, oarlock migrate changes it",
        ),
        (count, _) if count == changes.len() => {
            note(format!("no stream of root {} is there", config.root), "oarlock worker orchestrator declares them")
        }
        _ => broken(
            format!("missing: {}", some(&missing)),
            "oarlock migrate, or start an orchestrator: oarlock worker orchestrator",
        ),
    }
}

/// The first few names.
fn some(names: &[&str]) -> String {
    let shown = names.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
