//! One copy of the streams is behind: its server is cut off from the other two, and not from the fleet.

use std::sync::Arc;
use std::time::Duration;

use oarlock::store::Store;
use oarlock::wire::{Goal, Role, RunId};

use crate::harness::{TestServer, connect, until};
use crate::leader::end;
use crate::story::{cast, slow_story};

/// How long a copy that is behind is listened to.
const SILENCE: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_behind_does_not_deny_what_is_stored() {
    let Some(server) = TestServer::start().await else { return };
    let workers = cast(&server, &slow_story(0), &[Role::Orchestrator]).await;
    server.whole().await;
    let leader = server.leader(&format!("KV_{}", server.bus.root.runs_bucket())).await;
    let (near, far) = (server.others(leader)[0], server.others(leader)[1]);
    let (at_near, at_far) = (connect(&near.url()).await, connect(&far.url()).await);
    for other in [leader, near] {
        far.host.shut_out(&other.host);
        other.host.shut_out(&far.host);
    }
    let (run, goal) = (RunId::random(), Goal::new("make it".into(), Vec::new()));
    until("two of three to keep the goal", async || Store::new(&at_near).runs.accept(&run, &goal).await.is_ok()).await;
    // It may say that it does not know, or nothing for a while; it may not say that there is none.
    let behind = tokio::time::timeout(SILENCE, Store::new(&at_far).runs.goal(&run)).await;
    assert!(!matches!(behind, Ok(Ok(_))), "it was denied: {behind:?}");
    for other in [leader, near] {
        far.host.let_in(&other.host);
        other.host.let_in(&far.host);
    }
    server.whole().await;
    assert_eq!(Store::new(&at_far).runs.goal(&run).await.unwrap(), Some(goal));
    let unknown = Store::new(&at_far).runs.goal(&RunId::random()).await.unwrap();
    assert_eq!(unknown, None, "what is nowhere is denied");
    drop((at_near, at_far));
    end(Arc::new(server), workers);
}
