//! Gates as properties: people may say anything, in any order, and every holder comes to the same step.

use proptest::prelude::*;

use super::*;
use crate::orchestrator::next::{Step, next};
use crate::wire::{Gates, Goal, Input, PlanTask, Report, WIRE_VERSION};

fn plan(description: &str) -> Plan {
    let (id, description) = (TaskId::planned(1), description.to_owned());
    Plan { v: WIRE_VERSION, tasks: vec![PlanTask { id, description, role: Role::Researcher, depends_on: Vec::new() }] }
}

fn gated(quorum: u32, default: Otherwise) -> Facts {
    let gates = Gates { approve: Approve::Plan, quorum, default, ..Gates::default() };
    let mut facts = Facts::fresh(Goal { gates, ..Goal::new("make it".into(), Vec::new()) });
    let report = Some(Report::Plan(plan("as planned")));
    let outcome = Outcome::Completed { content: "t1".into(), artifacts: Vec::new(), report };
    facts.absorb(Reply::new(Role::Planner, RunId::from_key("t", "gates"), TaskId::plan(), 1, outcome));
    facts
}

fn heard(number: usize, by: &str, says: Said) -> Heard {
    let input = Input::new(ItemId::of(&TaskId::plan(), 1), by, says);
    Heard { input, revision: number as u64 + 1, at: 0 }
}

fn words() -> impl Strategy<Value = Said> {
    let reject = ("[a-c]").prop_map(|reason| Said::Reject { reason });
    let edit = ("[xy]").prop_map(|text| Said::Edit { plan: plan(&text) });
    let no_plan = Just(Said::Edit { plan: Plan { v: WIRE_VERSION, tasks: Vec::new() } });
    prop_oneof![4 => Just(Said::Approve), 4 => reject, 2 => edit, 1 => no_plan, 1 => Just(Said::Lapse), 1 => Just(Said::Escalated)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is decided stays decided, whatever is said later; before that the run waits, and the item is there to be seen.
    #[test]
    fn the_first_decision_stands(said in prop::collection::vec(words(), 0..12), quorum in 1..4_u32, approve: bool) {
        let default = if approve { Otherwise::Approve } else { Otherwise::Reject };
        let mut facts = gated(quorum, default);
        let rules = Rules::default();
        let mut stands: Option<Step> = None;
        for (number, says) in said.into_iter().enumerate() {
            let step = next(&facts, &rules);
            prop_assert_eq!(step == Step::Wait, decided(&facts, &TaskId::plan(), 1).is_none());
            prop_assert_eq!(items(&facts, &Attempts::new(), &rules).len(), usize::from(step == Step::Wait));
            match &stands {
                Some(before) => prop_assert_eq!(before, &step),
                None if step != Step::Wait => stands = Some(step),
                None => {}
            }
            facts.inputs.push(heard(number, &format!("voter{number}"), says));
        }
    }

    /// Nobody decides alone when two are asked for, except the clock.
    #[test]
    fn a_quorum_is_of_equal_votes(said in prop::collection::vec(words(), 0..12)) {
        let mut facts = gated(2, Otherwise::Reject);
        facts.inputs = said.iter().enumerate().map(|(number, says)| heard(number, &number.to_string(), says.clone())).collect();
        if let Some((_, by)) = decided(&facts, &TaskId::plan(), 1) {
            let until = usize::try_from(by.revision).unwrap();
            let equal = said[..until].iter().filter(|says| says.agrees(&by.input.says)).count();
            prop_assert!(by.input.says == Said::Lapse || equal == 2, "{:?} after {equal}", by.input.says);
        }
    }
}

#[test]
fn a_rejection_asks_the_planner_again_until_rework_max() {
    let mut facts = gated(1, Otherwise::Reject);
    facts.inputs.push(heard(0, "ann", Said::Reject { reason: "too long".into() }));
    let rules = Rules::default();
    assert!(matches!(next(&facts, &rules), Step::Want(jobs) if jobs[0].task == TaskId::plan() && jobs[0].attempt == 2));
    let (attempt, why) = rejection(&facts, &TaskId::plan(), 2).unwrap();
    assert!(attempt == 1 && why.contains("ann rejected it: too long"), "{why}");
    let strict = Rules { rework_max: 0, ..Rules::default() };
    assert!(matches!(next(&facts, &strict), Step::Fail(failure) if failure.kind == FailureKind::ReworkExhausted));
}

#[test]
fn a_gate_of_the_operator_is_never_passed_by_default() {
    let mut facts = gated(1, Otherwise::Approve);
    facts.goal.gates.approve = Approve::None;
    assert!(matches!(next(&facts, &Rules::default()), Step::Adopt(_)), "the goal asks nobody");
    facts.goal.gated = vec![Role::Planner];
    assert_eq!(next(&facts, &Rules::default()), Step::Wait);
    facts.inputs.push(heard(0, "clock", Said::Lapse));
    let Step::Fail(failure) = next(&facts, &Rules::default()) else { panic!("it went on") };
    assert_eq!(failure.kind, FailureKind::Unanswered);
}

#[test]
fn a_pause_that_cannot_be_read_leaves_a_gap_and_the_newest_counts() {
    let mut facts = gated(1, Otherwise::Reject);
    let set = |number: u32, says: Said| {
        let input = Input::new(ItemId::hold(facts.generation, number), "ann", says);
        Heard { input, revision: number.into(), at: 0 }
    };
    let said = [set(1, Said::Pause), set(3, Said::Pause), set(4, Said::Resume)];
    facts.inputs.extend(said[..2].to_vec());
    assert_eq!((holds(&facts).0, paused(&facts).is_some()), (3, true));
    facts.inputs.push(said[2].clone());
    assert_eq!((holds(&facts).0, paused(&facts).is_some()), (4, false));
}
