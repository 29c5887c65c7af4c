//! The server that leads a stream dies, or is cut off from everybody, while goals come in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use oarlock::bus::presence;
use oarlock::wire::Role;

use crate::callers::{Callers, assert_none_lost, longest_pause, refusals};
use crate::harness::{Node, TestServer, Worker, until};
use crate::story::{SLOW_CAST, cast, enqueue, slow_story, subject_of, task};

/// Goals accepted before the trouble, and again after it.
const GOALS: usize = 3;
/// The longest that a fleet may take no goal when a leader is lost.
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// A fleet on a cluster: two orchestrators, and one process of each role that the story needs.
pub async fn fleet(latency_ms: u64) -> Option<(Arc<TestServer>, Vec<Worker>)> {
    let server = TestServer::start().await?;
    let started = Instant::now();
    let mut workers = cast(&server, &slow_story(0), &[Role::Orchestrator, Role::Orchestrator]).await;
    workers.extend(cast(&server, &slow_story(latency_ms), &SLOW_CAST).await);
    server.whole().await;
    println!(
        "measured: streams, consumers and processes ready on three servers in {} ms",
        started.elapsed().as_millis()
    );
    Some((Arc::new(server), workers))
}

/// Loses the leader of each of these streams, one after the other, with goals coming in, and gets it back each time.
async fn lose(server: &Arc<TestServer>, how: &str, streams: &[String], lose: impl Fn(&Node), regain: impl Fn(&Node)) {
    let callers = Callers::start(server);
    callers.accepted_after(Instant::now(), GOALS).await;
    let mut troubles = Vec::new();
    for stream in streams {
        let node = server.leader(stream).await;
        let since = Instant::now();
        lose(node);
        callers.accepted_after(since, GOALS).await;
        let done = first_done_after(server, &callers, since).await;
        troubles.push((stream, since, Instant::now(), done));
        regain(node);
        server.whole().await;
    }
    let all = callers.stop().await;
    let accepted = assert_none_lost(server, &all).await;
    for (stream, since, until, done) in troubles {
        let of_it: Vec<_> = all.iter().filter(|given| given.at < until).cloned().collect();
        let pause = longest_pause(&of_it, since);
        println!(
            "measured: leader of {stream} {how}: no goal was taken for {} ms, the first new goal was done after {} ms",
            pause.as_millis(),
            done.as_millis()
        );
        assert!(pause < PAUSE_MAX, "the fleet took no goal for {pause:?}");
    }
    println!("measured: {how}: {} goals given, {accepted} accepted at once, all completed once", all.len());
    println!("measured: {how}: not accepted at once: {:?}", refusals(&all));
}

/// Time from `since` until a goal that was given later has its result.
async fn first_done_after(server: &TestServer, callers: &Callers, since: Instant) -> Duration {
    until("a goal given in the trouble to be done", async || {
        for given in callers.given().iter().filter(|given| given.at > since) {
            let record = server.store.runs.record(&given.run).await;
            if record.is_ok_and(|record| record.is_some_and(|record| record.record.status.terminal())) {
                return true;
            }
        }
        false
    })
    .await;
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_costs_a_pause_and_nothing_else() {
    let Some((server, workers)) = fleet(1_000).await else { return };
    let root = &server.bus.root;
    let streams = [root.tasks_stream(), root.results_stream(), format!("KV_{}", root.runs_bucket())];
    lose(&server, "killed", &streams, Node::kill_9, Node::revive).await;
    end(server, workers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_costs_a_pause_and_nothing_else() {
    let Some((server, workers)) = fleet(1_000).await else { return };
    let streams = [server.bus.root.tasks_stream()];
    lose(&server, "cut off", &streams, |node| node.host.cut(), |node| node.host.heal()).await;
    end(server, workers);
}

/// A worker's open pull was made to the leader that died, and its own connection is to a server that did not.
#[tokio::test(flavor = "multi_thread")]
async fn idle_workers_get_work_soon_after_the_leader_of_their_queue_died() {
    let Some(server) = TestServer::start().await else { return };
    let mut workers = cast(&server, &slow_story(0), &[Role::Orchestrator]).await;
    server.whole().await;
    let leader = server.leader_of_queue(Role::Documenter).await;
    let steady = server.others(leader)[0];
    workers.push(Worker::with(steady, &server, Role::Documenter, &slow_story(0)).await);
    until("the worker to wait for work", async || {
        presence(&server.bus, Role::Documenter).await.is_ok_and(|seen| seen.is_some_and(|seen| seen.idle > 0))
    })
    .await;
    leader.kill_9();
    let since = Instant::now();
    let next = task(Role::Documenter, "write", Duration::from_secs(60));
    enqueue(&server, &next).await;
    until("its reply", async || server.store.results.get(&subject_of(&next)).await.is_ok_and(|reply| reply.is_some()))
        .await;
    println!("measured: an idle worker replied {} ms after the leader of its queue died", since.elapsed().as_millis());
    assert!(since.elapsed() < PAUSE_MAX, "it took {:?}", since.elapsed());
    leader.revive();
    server.whole().await;
    server.assert_nothing_left().await;
    end(Arc::new(server), workers);
}

/// Ends everything, and looks that nothing is left.
pub fn end(server: Arc<TestServer>, workers: Vec<Worker>) {
    let server = Arc::into_inner(server).expect("nobody else uses it");
    server.end(workers);
}
