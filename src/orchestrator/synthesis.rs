//! The last step of a run: one answer of all results.

use super::facts::Facts;
use super::gates::{self, Decision, Gate, rejected_for_good, unanswered};
use super::next::{Attempts, Rules, Step, about, job};
use super::questions::Questions;
use crate::wire::{Failure, FailureKind, Outcome, Retry, Role, TaskId};

/// The failure of a run whose answer was canceled, under whichever attempt of this generation: which one the answer will be
/// is not known before all else is done.
pub(super) fn no_answer(facts: &Facts) -> Option<Failure> {
    let task = TaskId::answer();
    let mut of_answer = facts.results.range((task.clone(), facts.first(&task))..=(task, u32::MAX));
    let (_, reply) = of_answer.find(|(_, reply)| matches!(reply.outcome, Outcome::Canceled { .. }))?;
    let canceled = Failure::never(FailureKind::Internal, format!("it was canceled: {}", reply.text()));
    Some(about("the synthesizer made no answer", &canceled))
}

/// The step of a run whose tasks are all done.
pub(super) fn answer_step(facts: &Facts, attempts: &Attempts, rules: &Rules) -> Step {
    let task = TaskId::answer();
    let newest = attempts.values().max().copied().unwrap_or(1).max(facts.first(&task));
    let questions = Questions { facts, plan: facts.plan.as_ref(), rules };
    let (mut failed, mut rejected) = (0, 0);
    for attempt in newest.. {
        let Some(reply) = facts.result(&task, attempt) else {
            return Step::Want(vec![job(facts, rules, &task, Role::Synthesizer, attempt)]);
        };
        if reply.question().is_some() {
            match questions.goes_on(&task, attempt) {
                Ok(true) => continue,
                Ok(false) => return questions.todo(&[(task, attempt)], attempts).step(Vec::new()),
                Err(failure) => return Step::Fail(failure),
            }
        }
        match (reply.failure(), gates::gate(facts, reply)) {
            (None, Gate::Open) => return Step::Wait,
            (None, Gate::Passed(Some(Decision::Unanswered))) => return Step::Fail(unanswered(facts, "the answer")),
            (None, Gate::Passed(Some(Decision::Rejected(why)))) if rejected >= rules.rework_max => {
                return Step::Fail(rejected_for_good("the answer", rejected + 1, rules, &why));
            }
            (None, Gate::Passed(Some(Decision::Rejected(_)))) => rejected += 1,
            (None, Gate::Passed(_)) => return Step::Complete,
            (Some(failure), _)
                if failure.retry == Retry::Never || failed >= rules.retry(Role::Synthesizer).attempts =>
            {
                return Step::Fail(about("the synthesizer made no answer", failure));
            }
            (Some(_), _) => failed += 1,
        }
    }
    unreachable!("an attempt without a reply is always reached")
}
