//! Plans: as a model proposes them, as a planner of anybody's replies them, and what the orchestrator asks of them.

use std::collections::{BTreeMap, BTreeSet};

use oarlock::wire::plan::Proposal;
use oarlock::wire::{Plan, PlanTask, TaskId, limits};

use super::wire::round_trip;

/// Complaints go to a model or a person: so many bytes of them are enough for anybody.
const FAULTS_BYTES_MAX: usize = 64 * 1024;
/// Tasks of the largest refused plan whose ancestors are looked at; an accepted one is smaller.
const TASKS_MAX: usize = 2 * limits::PLAN_TASKS_MAX;

pub fn run(data: &[u8]) {
    if let Ok(proposal) = serde_json::from_slice::<Proposal>(data) {
        match proposal.check() {
            Ok(plan) => {
                assert_eq!(plan.tasks.len(), proposal.tasks.len());
                accepted(&plan);
                for (index, task) in plan.tasks.iter().enumerate() {
                    assert_eq!(task.id, TaskId::planned(index + 1), "the ids are not t1 to tn");
                }
            }
            Err(faults) => refused(&faults),
        }
    }
    if let Some(plan) = round_trip::<Plan>(data) {
        match (plan.recheck(), plan.ordered()) {
            (Ok(checked), Ok(ordered)) => {
                accepted(&checked);
                in_order(&ordered);
                same_tasks(&plan, &ordered);
                assert_eq!(checked.tasks.len(), plan.tasks.len());
            }
            (Err(faults), Err(_)) => refused(&faults),
            (checked, ordered) => panic!("recheck says {checked:?}, ordered says {ordered:?}"),
        }
        if plan.tasks.len() <= TASKS_MAX {
            plan.tasks.iter().take(4).for_each(|task| drop(plan.ancestors(&task.id)));
        }
    }
}

fn refused(faults: &[String]) {
    assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.is_empty()), "refused without a reason");
    let bytes: usize = faults.iter().map(String::len).sum();
    assert!(bytes <= FAULTS_BYTES_MAX, "{} faults of {bytes} bytes", faults.len());
}

/// What a checked plan promises.
fn accepted(plan: &Plan) {
    assert!((1..=limits::PLAN_TASKS_MAX).contains(&plan.tasks.len()));
    for task in &plan.tasks {
        assert!(task.role.plannable());
        assert!(!task.description.trim().is_empty() && task.description.len() <= limits::DESCRIPTION_BYTES_MAX);
    }
    in_order(plan);
    assert_eq!(plan.recheck().as_ref(), Ok(plan), "a checked plan is checked into another");
    assert_eq!(plan.ordered().as_ref(), Ok(plan), "a checked plan is put into another order");
    let written = serde_json::to_vec(plan).expect("a plan can be written");
    assert_eq!(round_trip::<Plan>(&written).as_ref(), Some(plan));
    ancestors(plan);
}

/// Every task stands after all that it depends on, so there is no cycle; no id and no dependency is there twice.
fn in_order(plan: &Plan) {
    let mut before = BTreeSet::new();
    for task in &plan.tasks {
        assert!(task.depends_on.iter().all(|id| before.contains(id)), "{} stands before what it needs", task.id);
        assert!(before.insert(&task.id), "{} is there twice", task.id);
    }
}

fn same_tasks(one: &Plan, other: &Plan) {
    let by_id = |plan: &Plan| -> BTreeMap<TaskId, PlanTask> {
        plan.tasks.iter().map(|task| (task.id.clone(), task.clone())).collect()
    };
    assert_eq!(by_id(one), by_id(other), "the order changed more than the order");
}

/// The ancestors of each task, by the definition.
fn ancestors(plan: &Plan) {
    let mut of: BTreeMap<&TaskId, BTreeSet<&TaskId>> = BTreeMap::new();
    for task in &plan.tasks {
        let mut all: BTreeSet<&TaskId> = task.depends_on.iter().collect();
        task.depends_on.iter().for_each(|id| all.extend(&of[id]));
        let found: Vec<&TaskId> = plan.ancestors(&task.id).into_iter().map(|task| &task.id).collect();
        let expected: Vec<&TaskId> = plan.tasks.iter().map(|task| &task.id).filter(|id| all.contains(id)).collect();
        assert_eq!(found, expected, "ancestors of {}", task.id);
        of.insert(&task.id, all);
    }
}
