//! The one place that removes anything. Whoever may not purge streams can do everything else.
//!
//! A run goes when it has been over for longer than the retention: its record is first marked `expired`, so that whoever
//! pulls a late message of it acknowledges that and goes on, then everything else is removed, and the record last; a janitor
//! that dies in between is followed by another. What has no record (replies and files of asks, what came late) goes after the
//! same time. A live run is never touched, not even by a janitor that sleeps before it removes: the same key can be a new run
//! by then, so only what lies before a known end of each stream is removed, and the record is looked at after that end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Recorded, Runs, StoreError};
use crate::bus::clock::nanos;
use crate::bus::{Bus, BusError, Point};
use crate::wire::subject::TaskSubject;
use crate::wire::{Root, RunId, RunRecord, RunStatus};

/// Runs that one sweep removes; the next one goes on.
const SWEEP_RUNS_MAX: usize = 1_000;

/// Where streams ended at a moment, by name.
type Ends = BTreeMap<String, u64>;

/// Removes what is over.
#[derive(Clone)]
pub struct Janitor {
    bus: Bus,
    runs: Runs,
}

/// What a sweep found to remove, and removed unless it was a trial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Finished runs whose time is over.
    pub runs: Vec<RunId>,
    /// Runs without a record, of which replies or files are left.
    pub strays: Vec<RunId>,
    /// True when there may be more: a sweep removes so many and no more.
    pub full: bool,
}

impl Janitor {
    pub(super) fn new(bus: &Bus, runs: &Runs) -> Self {
        Self { bus: bus.clone(), runs: runs.clone() }
    }

    /// Finds the runs that ended longer than `retention` ago by the server's clock, and removes them unless `dry_run`.
    ///
    /// # Errors
    /// When the store cannot be used; what was removed by then stays removed.
    pub async fn sweep(&self, retention: Duration, dry_run: bool) -> Result<Swept, StoreError> {
        let before = self.bus.server_now().await?.saturating_sub(nanos(retention));
        let mut swept = Swept::default();
        // A newer version's run is its own to remove; it may be alive.
        let (mut over, mut old) = (Vec::new(), Vec::new());
        let see = |run: RunId, recorded: Recorded, at: i64| {
            let status = recorded.record.status;
            // A record that is marked was begun by a janitor who did not come to the end.
            let is_over = status == RunStatus::Expired || (at < before && status.terminal());
            let found = if is_over { &mut over } else { &mut old };
            if (is_over || at < before) && found.len() < SWEEP_RUNS_MAX {
                found.push((run, recorded));
            }
        };
        self.runs.each(see).await?;
        for (run, recorded) in old {
            if over.len() < SWEEP_RUNS_MAX && self.is_nobody_s(&run).await? {
                over.push((run, recorded));
            }
        }
        swept.full = over.len() >= SWEEP_RUNS_MAX;
        // Only what is removed now is marked: the rest can still be tried again.
        for (run, recorded) in over {
            if dry_run || self.mark(&run, &recorded).await? {
                swept.runs.push(run);
            }
        }
        swept.strays = self.strays(before).await?;
        swept.full |= swept.strays.len() >= SWEEP_RUNS_MAX;
        let nothing = swept.runs.is_empty() && swept.strays.is_empty();
        if !dry_run && !nothing {
            let ends = self.ends().await?;
            for run in swept.runs.iter().chain(&swept.strays) {
                self.remove(run, &ends).await?;
            }
        }
        Ok(swept)
    }

    /// True for a record without a goal. A goal comes before the record and goes before it, so this is what an unclean
    /// restart of the server brought back of a record that was removed.
    async fn is_nobody_s(&self, run: &RunId) -> Result<bool, StoreError> {
        match self.runs.goal(run).await {
            Ok(goal) => Ok(goal.is_none()),
            Err(StoreError::Unreadable { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Marks a finished run; false when it was begun again meanwhile.
    async fn mark(&self, run: &RunId, recorded: &Recorded) -> Result<bool, StoreError> {
        if recorded.record.status == RunStatus::Expired {
            return Ok(true);
        }
        let expired = RunRecord { status: RunStatus::Expired, ..recorded.record.clone() };
        Ok(self.runs.write(Point::Expire, run, &expired, recorded.revision).await?.is_some())
    }

    /// Runs without a record of which something is older than `before`: replies and files of asks, what a door wrote before it
    /// died, what came late.
    async fn strays(&self, before: i64) -> Result<Vec<RunId>, StoreError> {
        let root = &self.bus.root;
        let mut found = BTreeSet::new();
        let bucket = |name: String| (format!("KV_{name}"), format!("$KV.{name}.*.>"), 2);
        // Where the run stands in the subject: <root>.result.<role>.<run>.…, $KV.<bucket>.<run>.…
        for (stream, filter, place) in [
            (root.results_stream(), root.all_results(), 3),
            (root.blobs_stream(), root.all_blobs(), 3),
            bucket(root.runs_bucket()),
            bucket(root.history_bucket()),
            bucket(root.state_bucket()),
        ] {
            let old = self.bus.subjects_before(&stream, &filter, before).await?;
            let runs = old.iter().filter_map(|subject| subject.split('.').nth(place)?.parse::<RunId>().ok());
            found.extend(runs);
        }
        let kept = |run: RunId| {
            found.remove(&run);
        };
        self.runs.each_kept(kept).await?;
        Ok(found.into_iter().take(SWEEP_RUNS_MAX).collect())
    }

    /// Where the streams that a run is kept in end now.
    async fn ends(&self) -> Result<Ends, StoreError> {
        let mut ends = Ends::new();
        // Their names are the same for every run.
        for (stream, _) in everything(&self.bus.root, &RunId::random()) {
            ends.insert(stream.clone(), self.end(&stream).await?);
        }
        Ok(ends)
    }

    /// Removes everything of a run that lies before `ends`, its record last; nothing when the run was begun anew meanwhile.
    async fn remove(&self, run: &RunId, ends: &Ends) -> Result<(), StoreError> {
        let now = self.runs.record(run).await?;
        if now.is_some_and(|now| now.record.status != RunStatus::Expired) {
            return Ok(());
        }
        for (stream, filter) in everything(&self.bus.root, run) {
            let end = ends.get(&stream).copied().unwrap_or_default();
            self.purge(&stream, &filter, end).await?;
        }
        Ok(())
    }

    /// Where the schedule ends now: what a run sets later is not dropped by [`Janitor::drop_schedules`].
    pub async fn end_of_schedules(&self) -> Result<u64, StoreError> {
        self.end(&self.bus.root.later_stream()).await
    }

    /// Drops what a run that is over still had on the schedule before `end`.
    pub async fn drop_schedules(&self, run: &RunId, end: u64) -> Result<(), StoreError> {
        self.purge(&self.bus.root.later_stream(), &self.bus.root.later_of(run), end).await
    }

    /// Drops the alarms of a run that were set before `end`.
    pub async fn drop_alarms(&self, run: &RunId, end: u64) -> Result<(), StoreError> {
        self.purge(&self.bus.root.later_stream(), &self.bus.root.alarms_of(run), end).await
    }

    /// Drops one alarm.
    pub async fn drop_alarm(&self, to: &TaskSubject) -> Result<(), StoreError> {
        self.drop_all(&self.bus.root.later_stream(), &self.bus.root.later(to)).await
    }

    /// Drops a dead letter.
    pub async fn drop_letter(&self, subject: &str) -> Result<(), StoreError> {
        self.drop_all(&self.bus.root.dead_stream(), subject).await
    }

    /// Removes what is on a subject now.
    async fn drop_all(&self, stream: &str, subject: &str) -> Result<(), StoreError> {
        let end = self.end(stream).await?;
        self.purge(stream, subject, end).await
    }

    /// The first sequence that a stream has not given yet.
    async fn end(&self, stream: &str) -> Result<u64, StoreError> {
        Ok(self.bus.last_sequence(stream).await? + 1)
    }

    /// Removes what lies before `end`.
    async fn purge(&self, stream: &str, filter: &str, end: u64) -> Result<(), StoreError> {
        // Of a stream that never held anything there is nothing; and the server takes an end of 0 or 1 for no end.
        if end <= 1 {
            return Ok(());
        }
        let failed = |source| BusError::Core { what: format!("remove {filter} from stream {stream}"), source };
        let handle = self.bus.js.get_stream_no_info(stream).await.map_err(|error| failed(error.into()))?;
        handle.purge().sequence(end).filter(filter).await.map_err(|error| failed(error.into()))?;
        Ok(())
    }
}

/// The streams that a run is kept in, each with the run's subjects there, the record last.
fn everything(root: &Root, run: &RunId) -> [(String, String); 9] {
    let bucket = |name: String, keys: &str| (format!("KV_{name}"), format!("$KV.{name}.{run}{keys}"));
    [
        (root.later_stream(), root.later_of(run)),
        (root.tasks_stream(), root.tasks_of_run(run)),
        (root.results_stream(), root.results_of(run)),
        (root.blobs_stream(), root.blobs_of(run)),
        (root.dead_stream(), root.dead_of(run)),
        bucket(root.state_bucket(), ".>"),
        bucket(root.history_bucket(), ".>"),
        bucket(root.runs_bucket(), ".>"),
        bucket(root.runs_bucket(), ""),
    ]
}
