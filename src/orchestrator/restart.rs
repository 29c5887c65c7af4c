//! Where a new generation of a run begins: a pure function of its facts, like every other decision.
//!
//! What is done stays done. What failed, was canceled, or was found faulty is done again, and whatever builds on it. No
//! old reply is touched: a task is done again under an attempt that is above all that was made from its old ones.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::gates;
use super::next::{newest_built_on, rejects, targets};
use super::planning::completed as with_checks;
use crate::wire::{Outcome, Plan, PlanTask, Restart, TaskId};

/// A retry that makes no sense, in words for the person who asked.
pub(super) type Refusal = String;

/// The beginning of the next generation; with `from`, that task is done again whatever came of it. `plan` is the plan in
/// force from now on, which may be another one than before. `completed` says that the run ended well: an answer alone does
/// not, when people did not approve it.
pub(super) fn restart(
    facts: &Facts,
    plan: Option<&Plan>,
    from: Option<&TaskId>,
    completed: bool,
) -> Result<Restart, Refusal> {
    let messages = facts.requests.len();
    let spent = facts.usages();
    let (Some(plan), false) = (plan, from == Some(&TaskId::plan())) else {
        return match from {
            Some(task) if *task != TaskId::plan() => Err(format!("the run has no plan, so no task {task}")),
            _ => {
                let mut first = plan_anew(facts);
                // What people put in the planner's place is not thrown away, unless they ask for that.
                if from.is_none()
                    && let Some(attempt) = edited_by_people(facts)
                {
                    first.insert(TaskId::plan(), attempt);
                }
                Ok(Restart { first, messages, at: 0, spent })
            }
        };
    };
    let newest = |id: &TaskId| facts.newest(id).max(facts.first(id));
    let above = |id: &TaskId| newest_built_on(plan, id, newest) + 1;
    let mut first: BTreeMap<TaskId, u32> = plan.tasks.iter().map(|task| (task.id.clone(), newest(&task.id))).collect();
    let mut again: Vec<TaskId> =
        plan.tasks.iter().flat_map(|task| undone(facts, plan, task, first[&task.id])).collect();
    let answer = TaskId::answer();
    match from {
        Some(task) if *task == answer => {}
        Some(task) if plan.task(task).is_none() => {
            let known: Vec<&str> = plan.tasks.iter().map(|task| task.id.as_str()).collect();
            return Err(format!("there is no task {task}; there are plan, {}, answer", known.join(", ")));
        }
        Some(task) => again.push(task.clone()),
        None => {}
    }
    let waiting = plan.tasks.iter().any(|task| facts.newest(&task.id) == 0);
    if again.is_empty() && !waiting && completed && from.is_none() {
        return Err("everything in it is done; name the task to do again with --from".into());
    }
    first.extend(again.into_iter().map(|id| (id.clone(), above(&id))));
    first.insert(answer.clone(), facts.newest(&answer) + 1);
    // The planner's own attempts go on from where they were, should this generation be planned anew later.
    first.insert(TaskId::plan(), facts.newest(&TaskId::plan()).max(1));
    Ok(Restart { first, messages, at: 0, spent })
}

/// All is made again from a new plan, whose tasks may have the old ones' names.
fn plan_anew(facts: &Facts) -> BTreeMap<TaskId, u32> {
    let asked = facts.requests.iter().map(|entry| &entry.message.metadata.task);
    let known = asked.chain(facts.results.keys().map(|(task, _)| task)).chain(facts.restart.first.keys());
    let mut first: BTreeMap<TaskId, u32> = known.map(|task| (task.clone(), facts.newest(task) + 1)).collect();
    first.entry(TaskId::plan()).or_insert(1);
    first
}

/// The planner's last attempt, when people decided on a plan of their own instead.
fn edited_by_people(facts: &Facts) -> Option<u32> {
    let attempt = facts.newest(&TaskId::plan());
    let decided = gates::decided(facts, &TaskId::plan(), attempt);
    matches!(decided, Some((gates::Decision::Edited(_), _))).then_some(attempt)
}

/// What must be done again because of a task: itself when it has no good reply, or what its faults are about.
fn undone(facts: &Facts, plan: &Plan, task: &PlanTask, attempt: u32) -> Vec<TaskId> {
    match facts.result(&task.id, attempt) {
        Some(reply) if !is_good(&reply.outcome) || gates::refused(facts, &task.id, attempt) => vec![task.id.clone()],
        Some(reply) if rejects(reply) => {
            let faulty = targets(plan, task);
            if faulty.is_empty() { vec![task.id.clone()] } else { faulty }
        }
        _ => Vec::new(),
    }
}

fn is_good(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Completed { .. })
}

/// The plan that a person's changes make of `old`: a task that was changed, or that depends on a changed one, gets a new id,
/// so that nothing made for the old one counts for it. `taken` are ids that were used before.
///
/// # Errors
/// Everything that is wrong with `edited`, one sentence each.
pub(super) fn edited(old: &Plan, edited: &Plan, taken: &Facts) -> Result<Plan, Vec<String>> {
    let sound = edited.ordered()?;
    let asked = taken.requests.iter().map(|entry| &entry.message.metadata.task);
    let mut used: Vec<TaskId> = asked.chain(old.tasks.iter().map(|task| &task.id)).cloned().collect();
    let mut names: BTreeMap<TaskId, TaskId> = BTreeMap::new();
    let mut tasks: Vec<PlanTask> = Vec::with_capacity(sound.tasks.len());
    for task in sound.tasks {
        let depends_on: Vec<TaskId> = task.depends_on.iter().map(|id| names.get(id).unwrap_or(id).clone()).collect();
        let mut renamed = PlanTask { depends_on, ..task.clone() };
        if old.task(&task.id) != Some(&renamed) {
            renamed.id = TaskId::unused(&used);
            used.push(renamed.id.clone());
            names.insert(task.id, renamed.id.clone());
        }
        tasks.push(renamed);
    }
    let plan = Plan { v: old.v, tasks }.ordered()?;
    // Nobody edits the evidence away.
    with_checks(plan).map_err(|failure| vec![failure.message])
}

#[cfg(test)]
#[path = "restart_tests.rs"]
mod tests;
