//! `oarlock logs`: what happened in a run, from its beginning, and on until its end with `-f`.

use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answer::out_on;
use super::args::LogsArgs;
use super::attach;
use super::config::Config;
use super::show::no_run;
use crate::bus::{Bus, Kept};
use crate::store::Store;
use crate::wire::{Event, EventKind, RunId, one_line};

/// How often the events are looked at when nothing is heard.
const LOOK_MS: u64 = 500;
/// Looks without an event after which the record is asked whether the run is over.
const SILENT_LOOKS: u32 = 4;

pub(super) async fn logs(config: &Config, args: LogsArgs) -> anyhow::Result<()> {
    let reached = attach::server(config).await?;
    let bus = &reached.bus;
    let record = Store::new(bus).runs.record(&args.run).await?;
    if record.is_none() {
        return Err(no_run(config, &args.run));
    }
    let mut seen = 0;
    if !args.follow {
        return show(bus, &args, &mut seen).await.map(drop);
    }
    // The live copy only wakes us: what is shown is read from the stream, each event once and in its order.
    let mut live =
        bus.client.subscribe(bus.root.events_of(&args.run)).await.context("subscribe to the run's events")?;
    let mut silent = 0;
    loop {
        let before = seen;
        let shown = show(bus, &args, &mut seen).await?;
        silent = if seen == before { silent + 1 } else { 0 };
        let asked = shown == Shown::Finished || silent >= SILENT_LOOKS;
        if shown == Shown::Unread || (asked && is_over(bus, &args.run).await?) {
            return show(bus, &args, &mut seen).await.map(drop);
        }
        if silent >= SILENT_LOOKS {
            silent = 0;
        }
        // What a model is writing is not stored.
        let words = bus.root.tokens(&args.run);
        let stored = async { while live.next().await.is_some_and(|heard| heard.subject.as_str() == words) {} };
        let _ = tokio::time::timeout(Duration::from_millis(LOOK_MS), stored).await;
    }
}

/// How far the showing of events came.
#[derive(PartialEq, Eq)]
enum Shown {
    /// There may be more.
    All,
    /// The last one says that the run is finished.
    Finished,
    /// Nobody reads any more.
    Unread,
}

/// A run that was removed meanwhile is over as well.
pub(super) async fn is_over(bus: &Bus, run: &RunId) -> anyhow::Result<bool> {
    let recorded = Store::new(bus).runs.record(run).await?;
    Ok(recorded.is_none_or(|recorded| recorded.record.status.terminal()))
}

/// Prints the events after the sequence `seen`.
async fn show(bus: &Bus, args: &LogsArgs, seen: &mut u64) -> anyhow::Result<Shown> {
    let mut shown = Shown::All;
    for kept in events_after(bus, &args.run, *seen).await? {
        *seen = kept.sequence;
        let Ok(event) = serde_json::from_slice::<Event>(&kept.payload) else { continue };
        shown = if event.kind == EventKind::Finished { Shown::Finished } else { Shown::All };
        let read = match args.json {
            true => out_on(&as_json(&kept, &event)?)?,
            false => out_on(&line(&kept, &event))?,
        };
        if !read {
            return Ok(Shown::Unread);
        }
    }
    Ok(shown)
}

/// The stored events of a run after a sequence.
pub(super) async fn events_after(bus: &Bus, run: &RunId, seen: u64) -> anyhow::Result<Vec<Kept>> {
    Ok(bus.scan_from(&bus.root.events_stream(), &bus.root.events_of(run), seen + 1).await?)
}

/// The event, with the time that the server stored it.
fn as_json(kept: &Kept, event: &Event) -> anyhow::Result<String> {
    let mut value = serde_json::to_value(event)?;
    if let Value::Object(map) = &mut value {
        map.insert("at".into(), moment(kept.at).into());
    }
    Ok(value.to_string())
}

/// One line: time of day (UTC), what, to which task, by whom.
pub(super) fn line(kept: &Kept, event: &Event) -> String {
    let moment = moment(kept.at);
    let time = moment.split_once('T').map_or(moment.as_str(), |(_, time)| time.get(..12).unwrap_or(time));
    let text = one_line(&event.text, usize::MAX);
    let task = match (&event.task, event.attempt) {
        (Some(task), Some(attempt)) if attempt > 1 => format!("{task} #{attempt}"),
        (Some(task), _) => task.to_string(),
        (None, _) => String::new(),
    };
    let role = event.role.map(|role| role.name()).unwrap_or_default();
    format!("{time}  {:<11}{task:<9} {role:<12} {text}", event.kind.name()).trim_end().to_owned()
}

/// A time in nanoseconds since 1970, in UTC, with milliseconds.
pub(super) fn moment(at: i64) -> String {
    let whole = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) / 1_000_000 * 1_000_000).ok();
    let whole = whole.map(|time| time.to_offset(time::UtcOffset::UTC));
    let text = whole.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default();
    match text.split_once('.') {
        Some((seconds, rest)) => format!("{seconds}.{:0<3}Z", rest.trim_end_matches('Z')),
        None => format!("{}.000Z", text.trim_end_matches('Z')),
    }
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn a_moment_has_milliseconds() {
        assert_eq!(moment(1_000_000_000_123_456_789), "2001-09-09T01:46:40.123Z");
        assert_eq!(moment(1_000_000_000_000_000_000), "2001-09-09T01:46:40.000Z");
        assert_eq!(moment(1_000_000_000_120_000_000), "2001-09-09T01:46:40.120Z");
    }
}
