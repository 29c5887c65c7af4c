//! From the planner's replies to the plan in force: which of them is a plan, what people decided about it, and what every plan
//! needs that a planner forgets.

use super::facts::Facts;
use super::gates::{self, Decision, Gate, rejected_for_good, unanswered};
use super::next::{Attempts, Rules, Step, about, job};
use super::questions::Questions;
use crate::wire::{Failure, FailureKind, Outcome, Plan, PlanTask, Reply, Report, Retry, Role, TaskId};

/// The step of a run that has no plan yet.
pub(super) fn plan_step(facts: &Facts, rules: &Rules) -> Step {
    let task = TaskId::plan();
    let questions = Questions { facts, plan: None, rules };
    let (mut faulty, mut rejected) = (0, 0);
    for attempt in facts.first(&task).. {
        let Some(reply) = facts.result(&task, attempt) else {
            return Step::Want(vec![job(facts, rules, &task, Role::Planner, attempt)]);
        };
        if reply.question().is_some() {
            match questions.goes_on(&task, attempt) {
                Ok(true) => continue,
                Ok(false) => return questions.todo(&[(task, attempt)], &Attempts::new()).step(Vec::new()),
                Err(failure) => return Step::Fail(failure),
            }
        }
        match proposed(reply).and_then(completed) {
            Ok(plan) => match gates::gate(facts, reply) {
                Gate::Open => return Step::Wait,
                Gate::Passed(None | Some(Decision::Approved)) => return Step::Adopt(plan),
                Gate::Passed(Some(Decision::Unanswered)) => return Step::Fail(unanswered(facts, "the plan")),
                Gate::Passed(Some(Decision::Edited(plan))) => {
                    return match plan.recheck().map_err(no_plan).and_then(completed) {
                        Ok(plan) => Step::Adopt(plan),
                        Err(failure) => Step::Fail(about("the edited plan cannot be used", &failure)),
                    };
                }
                Gate::Passed(Some(Decision::Rejected(why))) if rejected >= rules.rework_max => {
                    return Step::Fail(rejected_for_good("the plan", rejected + 1, rules, &why));
                }
                Gate::Passed(Some(Decision::Rejected(_))) => rejected += 1,
            },
            Err(failure) if faulty >= rules.retry(Role::Planner).attempts || failure.retry == Retry::Never => {
                return Step::Fail(about("the planner made no plan", &failure));
            }
            Err(_) => faulty += 1,
        }
    }
    unreachable!("an attempt without a reply is always reached")
}

/// The plan in a planner's reply, checked again: the planner may be anybody's program.
pub(super) fn proposed(reply: &Reply) -> Result<Plan, Failure> {
    match (reply.failure(), reply.report()) {
        (Some(failure), _) => Err(failure.clone()),
        (None, None) if matches!(reply.outcome, Outcome::Canceled { .. }) => {
            Err(Failure::never(FailureKind::Internal, format!("it was canceled: {}", reply.text())))
        }
        (None, Some(Report::Plan(plan))) => plan.recheck().map_err(no_plan),
        (None, _) => Err(Failure::again(FailureKind::PlanInvalid, "the planner's reply holds no plan")),
    }
}

fn no_plan(faults: Vec<String>) -> Failure {
    Failure::again(FailureKind::PlanInvalid, format!("the plan is no plan: {}", faults.join("; ")))
}

/// The plan with what a planner forgot: a qa task that has no coder task behind it gets all that do not wait for it, and a
/// coder task that no qa task depends on gets one. So no code is finished without evidence, and no test runs on nothing.
pub(super) fn completed(mut plan: Plan) -> Result<Plan, Failure> {
    let of = |role: Role, plan: &Plan| -> Vec<TaskId> {
        plan.tasks.iter().filter(|task| task.role == role).map(|task| task.id.clone()).collect()
    };
    let coders = of(Role::Coder, &plan);
    for qa in of(Role::Qa, &plan) {
        if plan.ancestors(&qa).iter().all(|ancestor| ancestor.role != Role::Coder) {
            let waits = |coder: &&TaskId| plan.ancestors(coder).iter().any(|ancestor| ancestor.id == qa);
            let behind: Vec<TaskId> = coders.iter().filter(|coder| !waits(coder)).cloned().collect();
            plan.tasks.iter_mut().filter(|task| task.id == qa).for_each(|task| task.depends_on.extend(behind.clone()));
            plan = in_order(&plan)?;
        }
    }
    for coder in of(Role::Coder, &plan) {
        let tested = plan.tasks.iter().any(|task| task.role == Role::Qa && task.depends_on.contains(&coder));
        if !tested {
            let id = TaskId::unused(plan.tasks.iter().map(|task| &task.id));
            let description = format!("Test the files of task {coder}.");
            plan.tasks.push(PlanTask { id, description, role: Role::Qa, depends_on: vec![coder] });
        }
    }
    in_order(&plan)
}

fn in_order(plan: &Plan) -> Result<Plan, Failure> {
    let told =
        |faults: Vec<String>| format!("with a qa task for each coder task, the plan is no plan: {}", faults.join("; "));
    plan.ordered().map_err(|faults| Failure::again(FailureKind::PlanInvalid, told(faults)))
}
