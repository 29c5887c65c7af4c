//! A whole run at the door, by processes that this test started one by one.

use oarlock::wire::Role;

use crate::harness::{Fleet, scripts};

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_at_the_run_door_comes_back_as_an_answer() {
    let fleet = Fleet::start(scripts::FIBONACCI).await;
    let answer = fleet.request("oarlock.run", "Write a function to calculate fibonacci").await;
    assert_eq!(answer.header("Oarlock-Status"), "completed", "{}", answer.text());
    assert!(answer.text().contains("def fibonacci"), "{}", answer.text());
    let view = fleet.view(&answer.header("Oarlock-Run")).await;
    assert!(view.tasks.iter().any(|task| task.role == Role::Qa && task.passed == Some(true)), "{view:?}");
    fleet.assert_nothing_left().await;
}
