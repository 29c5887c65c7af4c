//! A power cut: what was acknowledged is on the disk, with the configuration that the repository recommends.
//!
//! The store is on a disk of its own, which is cut off in the middle of the load and then copied block by block; what the
//! system had not written yet is gone. The same cut with the server's default shows that the method is strong enough: there
//! acknowledged goals are lost.

use std::path::Path;
use std::sync::{Arc, Mutex};

use oarlock::store::Store;
use oarlock::wire::{Reply, Role, RunId};

use crate::harness::{TestServer, rules, until};
use crate::host::{CONFIGURATION, Disk, Start, changed, serve};
use crate::story::{assert_one_of_everything, cast_with, ended, result};

/// Acknowledged goals before the cut.
const GOALS: usize = 30;
/// Runs that are finished before it.
const FINISHED: usize = 5;
/// Callers at the door at the same time.
const CALLERS: usize = 4;
const DISK_MB: u32 = 64;
const QUICK: &[(&str, &str)] = &[("OARLOCK_ACK_WAIT_S", "2")];
const CAST: [Role; 3] = [Role::Planner, Role::Researcher, Role::Synthesizer];

fn goal(number: usize) -> String {
    format!("make it, number {number}")
}

/// Goals that were acknowledged, by their numbers.
type Acknowledged = Arc<Mutex<Vec<(usize, RunId)>>>;

/// Callers who give goals for as long as there is somebody who takes them.
fn callers(server: &TestServer) -> Acknowledged {
    let acknowledged = Acknowledged::default();
    for caller in 0..CALLERS {
        let (client, heard) = (server.bus.client.clone(), acknowledged.clone());
        tokio::spawn(async move {
            for number in (caller..).step_by(CALLERS) {
                let Ok(answer) = client.request("oarlock.submit", goal(number).into()).await else { return };
                let Ok(run) = std::str::from_utf8(&answer.payload).unwrap().parse() else { return };
                heard.lock().unwrap().push((number, run));
            }
        });
    }
    acknowledged
}

/// What was confirmed before the cut.
struct Confirmed {
    goals: Vec<(usize, RunId)>,
    results: Vec<(RunId, Reply)>,
}

/// A fleet that works under load, the cut in the middle of it, and the disk afterwards.
async fn cut(configuration: &Path) -> Option<(Disk, Confirmed)> {
    let disk = Disk::new(DISK_MB)?;
    let server = serve(&Start { configuration, stands: disk.path(), login: None }).await;
    let script = rules::script(&rules::small());
    let _orchestrator = cast_with(&server, &script, &[Role::Orchestrator], QUICK).await;
    let _workers = cast_with(&server, &script, &CAST, &[]).await;
    let heard = callers(&server);
    let mut results = Vec::new();
    until("goals to be acknowledged and runs to be finished", async || {
        results.clear();
        for run in server.store.runs.list(1_000).await.unwrap().0 {
            if run.status.terminal() {
                results.push((run.run.clone(), result(&server, &run.run).await));
            }
        }
        heard.lock().unwrap().len() >= GOALS && results.len() >= FINISHED
    })
    .await;
    let confirmed = Confirmed { goals: heard.lock().unwrap().clone(), results };
    Some((disk.cut(), confirmed))
}

/// True when a run is there: its goal, its record, and either its end or a message that goes on with it.
async fn is_kept(server: &TestServer, number: usize, run: &RunId) -> bool {
    let store: &Store = &server.store;
    let queued = server.bus.scan("OARLOCK_TASKS", &format!("oarlock.task.orchestrator.{run}.>")).await;
    let record = store.runs.record(run).await.ok().flatten();
    let kept = store.runs.goal(run).await.ok().flatten();
    kept.is_some_and(|kept| kept.text == goal(number))
        && record.is_some_and(|kept| kept.record.status.terminal() || queued.is_ok_and(|queued| !queued.is_empty()))
}

async fn lost(server: &TestServer, confirmed: &Confirmed) -> usize {
    let mut lost = 0;
    for (number, run) in &confirmed.goals {
        lost += usize::from(!is_kept(server, *number, run).await);
    }
    println!("measured: {lost} of {} acknowledged goals were lost by a power cut", confirmed.goals.len());
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_loses_nothing_that_was_acknowledged_and_a_fleet_finishes_it() {
    let Some((disk, confirmed)) = cut(Path::new(CONFIGURATION)).await else { return };
    let start = Start { configuration: Path::new(CONFIGURATION), stands: disk.path(), login: None };
    let server = serve(&start).await;
    assert_eq!(lost(&server, &confirmed).await, 0);
    for (run, reply) in &confirmed.results {
        assert_eq!(&result(&server, run).await, reply);
    }
    let script = rules::script(&rules::small());
    let _fleet = cast_with(&server, &script, &[Role::Orchestrator], QUICK).await;
    let _workers = cast_with(&server, &script, &CAST, &[]).await;
    for (_, run) in &confirmed.goals {
        ended(&server, run).await;
        assert_one_of_everything(&server, run).await;
    }
    server.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_server_s_default_the_same_cut_loses_acknowledged_goals() {
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("default.conf");
    std::fs::write(&configuration, changed("sync_interval: always", "")).unwrap();
    let Some((disk, confirmed)) = cut(&configuration).await else { return };
    let server = serve(&Start { configuration: &configuration, stands: disk.path(), login: None }).await;
    assert_ne!(lost(&server, &confirmed).await, 0, "the method is too weak: it does not lose what was never written");
}
