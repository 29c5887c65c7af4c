//! Retries as a table, and as a property: whatever went wrong, a new generation does exactly what is missing.
use super::super::next::{Rules, Step, next};
use super::*;
use crate::store::{Heard, HistoryEntry};
use crate::wire::{
    Approve, Failure, FailureKind, Goal, Input, ItemId, Message, MessageType, Metadata, Party, Reply, Report, Review,
    Role, RunId, Said, Verdict, WIRE_VERSION,
};

fn id(number: usize) -> TaskId {
    TaskId::planned(number)
}

fn task(number: usize, role: Role, needs: &[usize]) -> PlanTask {
    let depends_on = needs.iter().map(|number| id(*number)).collect();
    PlanTask { id: id(number), description: format!("part {number}"), role, depends_on }
}

/// research → code → test → document.
fn plan() -> Plan {
    let tasks = vec![
        task(1, Role::Researcher, &[]),
        task(2, Role::Coder, &[1]),
        task(3, Role::Qa, &[2]),
        task(4, Role::Documenter, &[2]),
    ];
    Plan { v: WIRE_VERSION, tasks }
}

fn good() -> Outcome {
    Outcome::Completed { content: "done".into(), artifacts: Vec::new(), report: None }
}

fn faulty() -> Outcome {
    let report = Some(Report::Review(Review { verdict: Verdict::Changes, findings: Vec::new(), judged: None }));
    Outcome::Completed { content: "wrong".into(), artifacts: Vec::new(), report }
}

fn failed() -> Outcome {
    Outcome::Failed { failure: Failure::never(FailureKind::ModelAuth, "no key") }
}

/// A run in which these attempts were asked for and answered.
fn facts(plan: &Plan, answered: &[(TaskId, u32, Outcome)]) -> Facts {
    let mut facts = Facts { plan: Some(plan.clone()), ..Facts::fresh(Goal::new("make it".into(), Vec::new())) };
    for (task, attempt, outcome) in answered {
        ask(&mut facts, task, *attempt);
        let role = plan.task(task).map_or(Role::Synthesizer, |task| task.role);
        facts.absorb(Reply::new(role, RunId::from_key("t", "restart"), task.clone(), *attempt, outcome.clone()));
    }
    facts
}

fn ask(facts: &mut Facts, task: &TaskId, attempt: u32) {
    let run = RunId::from_key("t", "restart");
    let metadata = Metadata {
        run,
        task: task.clone(),
        attempt,
        input: None,
        bytes: 0,
        notes: 0,
        hops: 0,
        reference: None,
        budget: None,
    };
    let (from, to) = (Party::Role(Role::Orchestrator), Party::Role(Role::Coder));
    let message = Message::new(from, to, MessageType::Request, String::new(), metadata);
    facts.requests.push(HistoryEntry { message, revision: 0, at: 0 });
}

/// What the new generation asks for until it is complete, if every attempt succeeds.
fn done_again(mut facts: Facts, from: Option<&TaskId>) -> Vec<(String, u32)> {
    let plan = facts.plan.clone();
    facts.restart = restart(&facts, plan.as_ref(), from, false).unwrap();
    let mut asked = Vec::new();
    for _ in 0..100 {
        let jobs = match next(&facts, &Rules::default()) {
            Step::Want(jobs) => jobs,
            Step::Complete => return asked,
            other => panic!("{other:?} after {asked:?}"),
        };
        for job in jobs {
            asked.push((job.task.to_string(), job.attempt));
            ask(&mut facts, &job.task, job.attempt);
            let run = RunId::from_key("t", "restart");
            facts.absorb(Reply::new(job.role, run, job.task, job.attempt, good()));
        }
    }
    panic!("the new generation does not end: {asked:?}");
}

fn named(asked: &[(&str, u32)]) -> Vec<(String, u32)> {
    asked.iter().map(|(task, attempt)| ((*task).to_owned(), *attempt)).collect()
}

#[test]
fn what_is_done_stays_and_what_failed_is_done_again() {
    let begun = facts(&plan(), &[(id(1), 1, good()), (id(2), 1, failed())]);
    assert_eq!(done_again(begun, None), named(&[("t2", 2), ("t3", 2), ("t4", 2), ("answer", 2)]));
    let canceled = Outcome::Canceled { reason: "enough".into() };
    let stopped = facts(&plan(), &[(id(1), 1, good()), (id(2), 1, good()), (id(3), 1, canceled)]);
    assert_eq!(done_again(stopped, None), named(&[("t3", 2), ("t4", 1), ("answer", 2)]));
    let answerless: Vec<_> = (1..=4).map(|number| (id(number), 1, good())).collect();
    let answerless = [answerless, vec![(TaskId::answer(), 1, failed())]].concat();
    assert_eq!(done_again(facts(&plan(), &answerless), None), named(&[("answer", 2)]));
}

#[test]
fn faults_send_back_whoever_can_mend_them_with_a_new_budget() {
    let mut rounds: Vec<_> = vec![(id(1), 1, good())];
    for attempt in 1..=4 {
        rounds.extend([(id(2), attempt, good()), (id(3), attempt, faulty())]);
    }
    let exhausted = facts(&plan(), &rounds);
    assert!(matches!(next(&exhausted, &Rules::default()), Step::Fail(_)));
    assert_eq!(done_again(exhausted, None), named(&[("t2", 5), ("t3", 5), ("t4", 5), ("answer", 5)]));
}

#[test]
fn a_task_that_is_named_is_done_again_with_all_that_builds_on_it() {
    let all: Vec<_> = (1..=4).map(|number| (id(number), 1, good())).collect();
    let all = [all, vec![(TaskId::answer(), 1, good())]].concat();
    let whole = || facts(&plan(), &all);
    let refusal = |from: Option<TaskId>| restart(&whole(), Some(&plan()), from.as_ref(), true).unwrap_err();
    assert!(refusal(None).contains("--from"), "{}", refusal(None));
    assert!(refusal(Some(id(9))).contains("t1, t2, t3, t4"), "{}", refusal(Some(id(9))));
    assert_eq!(done_again(whole(), Some(&id(4))), named(&[("t4", 2), ("answer", 2)]));
    assert_eq!(done_again(whole(), Some(&id(2))), named(&[("t2", 2), ("t3", 2), ("t4", 2), ("answer", 2)]));
    assert_eq!(done_again(whole(), Some(&TaskId::answer())), named(&[("answer", 2)]));
    // An answer that nobody approved is no end.
    assert_eq!(done_again(whole(), None), named(&[("answer", 2)]));
}

#[test]
fn a_new_plan_does_not_inherit_the_old_one_s_work() {
    let all: Vec<_> = (1..=4).map(|number| (id(number), 1, good())).collect();
    let restart = restart(&facts(&plan(), &all), Some(&plan()), Some(&TaskId::plan()), true).unwrap();
    assert_eq!(restart.messages, 4);
    assert!((1..=4).all(|number| restart.first[&id(number)] == 2), "{restart:?}");
    assert_eq!(restart.first[&TaskId::plan()], 1);
}

#[test]
fn what_a_person_changed_gets_new_ids_and_the_rest_keeps_its_own() {
    let done = facts(&plan(), &[(id(1), 1, good()), (id(2), 1, failed())]);
    assert_eq!(edited(&plan(), &plan(), &done).unwrap(), plan(), "nothing changed");
    let mut changed = plan();
    changed.tasks[1].description = "write less".into();
    changed.tasks.push(PlanTask { id: id(5), ..task(5, Role::Reviewer, &[1]) });
    let made = edited(&plan(), &changed, &done).unwrap();
    let shape: Vec<_> =
        made.tasks.iter().map(|task| (task.description.as_str(), task.id.as_str().to_owned())).collect();
    assert_eq!(shape[0], ("part 1", "t1".into()), "unchanged");
    for (description, id) in &shape[1..] {
        assert!(!["t1", "t2", "t3", "t4"].contains(&id.as_str()), "{description} is {id}: {shape:?}");
    }
    let code = made.tasks.iter().find(|task| task.description == "write less").unwrap();
    let qa = made.tasks.iter().find(|task| task.role == Role::Qa).unwrap();
    assert_eq!(qa.depends_on, vec![code.id.clone()]);
    let again = done_again(Facts { plan: Some(made), ..done }, None);
    assert!(again.iter().all(|(task, _)| task != "t1" && task != "t2"), "{again:?}");
    let mut cyclic = plan();
    cyclic.tasks[0].depends_on = vec![id(4)];
    assert!(edited(&plan(), &cyclic, &facts(&plan(), &[])).unwrap_err()[0].contains("cycle"));
}

#[test]
fn a_plan_that_people_made_outlives_a_retry() {
    let mut failed = Facts::fresh(Goal::new("make it".into(), Vec::new()));
    failed.goal.gates.approve = Approve::Plan;
    ask(&mut failed, &TaskId::plan(), 1);
    let outcome =
        Outcome::Completed { content: String::new(), artifacts: Vec::new(), report: Some(Report::Plan(plan())) };
    failed.absorb(Reply::new(Role::Planner, RunId::from_key("t", "restart"), TaskId::plan(), 1, outcome));
    let edited = Plan { v: WIRE_VERSION, tasks: vec![task(1, Role::Researcher, &[])] };
    let input = Input::new(ItemId::of(&TaskId::plan(), 1), "ann", Said::Edit { plan: edited.clone() });
    failed.inputs.push(Heard { input, revision: 1, at: 0 });
    failed.restart = restart(&failed, None, None, false).unwrap();
    assert_eq!(next(&failed, &Rules::default()), Step::Adopt(edited));
    failed.restart = restart(&failed, None, Some(&TaskId::plan()), false).unwrap();
    assert!(matches!(next(&failed, &Rules::default()), Step::Want(jobs) if jobs[0].attempt == 2));
}
