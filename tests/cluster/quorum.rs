//! Two of three servers are cut off: nothing can be stored, so nothing may be promised.

use std::time::{Duration, Instant};

use crate::callers::{Callers, assert_none_lost, longest_pause, refusals};
use crate::harness::until;
use crate::leader::{end, fleet};

/// How long there is no quorum.
const LOST: Duration = Duration::from_secs(8);
/// How long after the links are back the fleet may take no goal.
const AFTER_MAX: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_no_goal_is_accepted_and_lost() {
    let Some((server, workers)) = fleet(1_000).await else { return };
    let callers = Callers::start(&server);
    callers.accepted_after(Instant::now(), 3).await;
    let leader = server.leader(&server.bus.root.tasks_stream()).await;
    let cut = [leader, server.others(leader)[0]];
    cut.iter().for_each(|node| node.host.cut());
    let since = Instant::now();
    until("the quorum to be lost for long enough", async || since.elapsed() >= LOST).await;
    let healed = Instant::now();
    cut.iter().for_each(|node| node.host.heal());
    callers.accepted_after(healed, 3).await;
    server.whole().await;
    let all = callers.stop().await;
    let accepted = assert_none_lost(&server, &all).await;
    let early = all.iter().filter(|given| given.at > since && given.accepted().is_some_and(|at| at < healed)).count();
    assert_eq!(early, 0, "goals were accepted that nobody could store");
    let within = all.iter().filter(|given| given.at > since && given.at < healed).count();
    let pause = longest_pause(&all, since);
    println!("measured: quorum lost for {} ms: no goal was taken for {} ms", LOST.as_millis(), pause.as_millis());
    println!(
        "measured: quorum: {} goals given, {within} of them without a quorum, {accepted} accepted at once, all completed once",
        all.len()
    );
    println!("measured: quorum: not accepted at once: {:?}", refusals(&all));
    assert!(pause < LOST + AFTER_MAX, "the fleet took no goal for {pause:?}");
    end(server, workers);
}
