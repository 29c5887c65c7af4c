//! Sleepers that need more than one step: one that sleeps from one generation of a run to the next, one that is given a
//! run while it sleeps.

use oarlock::bus::Point;
use oarlock::bus::failpoint::{Fault, Side};
use oarlock::wire::{EventKind, RunStatus, TaskId};

use crate::case::{Case, Tale, Wake};
use crate::harness::until;
use crate::holder;
use crate::picture::Picture;
use crate::stage::{ACK_WAIT, Stage, messages, struck};

/// What the new generation has on the schedule stays there.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_generation_s_sleeper_leaves_the_schedule_of_the_new_one_alone() {
    for (point, side) in [(Point::Result, Side::After), (Point::End, Side::Before)] {
        let case = Case { point, side, time: 1, tale: Tale::Generations, fault: Fault::Stop, wake: Wake::Amid };
        let stage = Stage::of(case.tale).await;
        let mut holder = stage.armed(&case);
        let run = stage.submit("make it").await;
        struck(&mut holder, &case).await;
        let _other = stage.orchestrator().await;
        stage.over(&run).await;
        let answer = stage.insist("oarlock.control.retry", run.as_str()).await;
        assert!(["", "409"].contains(&answer.error_code().as_str()), "{}", answer.text());
        let waiting = (TaskId::planned(1), 3);
        until("the third attempt to be on the schedule", async || {
            let history = stage.server.store.runs.history(&run).await.unwrap();
            let mut asked = history.iter().map(|entry| &entry.message.metadata);
            asked.any(|asked| (asked.task.clone(), asked.attempt) == waiting)
        })
        .await;
        assert!(messages(&stage.server, &stage.server.bus.root.later_stream()).await > 0);
        holder.signal("CONT");
        stage.idle(2).await;
        until("the second generation to end", async || stage.is_over(&run).await).await;
        let record = stage.server.store.runs.record(&run).await.unwrap().unwrap().record;
        assert_eq!((record.status, record.generation), (RunStatus::Completed, 2), "{case}");
        stage.nothing_left().await;
    }
}

/// The server gives a message to whoever asked first, asleep or not.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_given_a_run_in_its_sleep_changes_nothing() {
    let undisturbed = holder::undisturbed(Tale::Normal).await;
    for wake in [Wake::Amid, Wake::Late] {
        let stage = Stage::of(Tale::Normal).await;
        let sleeper = stage.orchestrator().await;
        stage.idle(1).await;
        sleeper.signal("STOP");
        let other = stage.orchestrator().await;
        let run = stage.submit("make it").await;
        let (given, ..) = stage.tasks.all().remove(0);
        let (claimed, _) = stage.events.event(EventKind::Claimed, None, 1).await;
        assert!(claimed - given > ACK_WAIT / 2, "the sleeper was given it, and the other one only after ack_wait");
        if wake == Wake::Late {
            stage.over(&run).await;
            Picture::of(&stage.server, &run, &stage.workers).await.assert_is(&undisturbed);
        }
        sleeper.signal("CONT");
        stage.over(&run).await;
        stage.idle(2).await;
        stage.assert_like(&run, &undisturbed).await;
        drop(other);
    }
}
