//! The decision as a table: facts in, step out. Whole runs with random plans are in `next_properties.rs`.

use super::*;
use crate::orchestrator::dispatch::files_in_sight;
use crate::wire::{Artifact, Goal, Report, Review, RunId, TestFailure, TestReport, Verdict, WIRE_VERSION, code_hash};

#[path = "evidence_tests.rs"]
mod evidence;
#[path = "people_properties.rs"]
mod people;
#[path = "progress_tests.rs"]
mod progress;
#[path = "next_properties.rs"]
mod properties;
#[path = "next_questions.rs"]
mod questions;

const REWORK_MAX: u32 = 3;

/// The built-in roles' rules: one retry for the planner and the synthesizer, three for the others.
fn rules() -> Rules {
    let once = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    let retries = HashMap::from([(Role::Planner, once), (Role::Synthesizer, once)]);
    Rules { rework_max: REWORK_MAX, retries, ..Rules::default() }
}

fn id(number: usize) -> TaskId {
    TaskId::planned(number)
}

/// A plan from roles and the numbers of what each depends on.
fn plan(tasks: &[(Role, &[usize])]) -> Plan {
    let task = |(index, (role, needs)): (usize, &(Role, &[usize]))| PlanTask {
        id: id(index + 1),
        description: format!("{role} does part {}", index + 1),
        role: *role,
        depends_on: needs.iter().map(|number| id(*number)).collect(),
    };
    Plan { v: WIRE_VERSION, tasks: tasks.iter().enumerate().map(task).collect() }
}

fn facts(plan: Option<Plan>) -> Facts {
    Facts { plan, ..Facts::fresh(Goal::new("make it".into(), Vec::new())) }
}

fn reply(role: Role, task: &TaskId, attempt: u32, outcome: Outcome) -> Reply {
    Reply::new(role, RunId::from_key("t", "next"), task.clone(), attempt, outcome)
}

fn done(report: Option<Report>) -> Outcome {
    Outcome::Completed { content: "so it is".into(), artifacts: Vec::new(), report }
}

/// A coder's reply with this version of its one file.
fn files(version: u32) -> Outcome {
    let (path, sha256) = ("made.py".parse().unwrap(), ContentHash::of(&version.to_be_bytes()));
    let artifacts = vec![Artifact { path, sha256, bytes: 4, role: Role::Coder }];
    Outcome::Completed { content: format!("version {version}"), artifacts, report: None }
}

/// A qa's reply to an attempt, about the code in its sight: so many tests, of which these failed.
fn tests(facts: &Facts, (task, attempt): (usize, u32), all: u32, failed: &[&str]) -> Outcome {
    let tasks = &facts.plan.as_ref().unwrap().tasks;
    let now: Attempts = tasks.iter().map(|task| (task.id.clone(), attempt)).collect();
    let judged = code_hash(&files_in_sight(facts, &now, &id(task), attempt, Role::Qa));
    let count = u32::try_from(failed.len()).unwrap();
    let failure = |name: &&str| TestFailure { name: (*name).to_owned(), message: "assert 1 == 2".into() };
    done(Some(Report::Tests(TestReport {
        passed: failed.is_empty(),
        tests: all,
        ok: all - count,
        failed: count,
        errors: 0,
        skipped: 0,
        outcome: "failed".into(),
        sandbox: "bwrap".into(),
        exit: Some(i32::from(count > 0)),
        judged,
        canary: None,
        wall_ms: u64::from(all),
        failures: failed.iter().map(failure).collect(),
        output: "it took 0.03s".into(),
    })))
}

fn verdict(verdict: Verdict) -> Outcome {
    done(Some(Report::Review(Review { verdict, findings: Vec::new(), judged: None })))
}

/// A test run of this code, by its numbers.
fn test_run(passed: bool, judged: Option<ContentHash>) -> TestReport {
    TestReport {
        passed,
        tests: 2,
        ok: if passed { 2 } else { 1 },
        failed: u32::from(!passed),
        errors: 0,
        skipped: 0,
        outcome: if passed { "passed" } else { "failed" }.into(),
        sandbox: "bwrap".into(),
        exit: Some(i32::from(!passed)),
        judged,
        canary: None,
        wall_ms: 1,
        failures: Vec::new(),
        output: String::new(),
    }
}

fn broken(retry: bool) -> Outcome {
    let failure = if retry { Failure::again } else { Failure::never }(FailureKind::ModelOutput, "no JSON");
    Outcome::Failed { failure }
}

/// Facts with these outcomes of (task, attempt); the roles are the plan's.
fn after(plan: &Plan, outcomes: &[(usize, u32, Outcome)]) -> Facts {
    let mut facts = facts(Some(plan.clone()));
    for (number, attempt, outcome) in outcomes {
        let role = plan.task(&id(*number)).unwrap().role;
        assert!(facts.absorb(reply(role, &id(*number), *attempt, outcome.clone())));
    }
    facts
}

fn wants(facts: &Facts) -> Vec<(String, u32)> {
    match next(facts, &rules()) {
        Step::Want(jobs) => jobs.into_iter().map(|job| (job.task.to_string(), job.attempt)).collect(),
        other => panic!("{other:?}"),
    }
}

fn failure(facts: &Facts) -> Failure {
    match next(facts, &rules()) {
        Step::Fail(failure) => failure,
        other => panic!("{other:?}"),
    }
}

fn named(jobs: &[(&str, u32)]) -> Vec<(String, u32)> {
    jobs.iter().map(|(task, attempt)| ((*task).to_owned(), *attempt)).collect()
}

const TEAM: &[(Role, &[usize])] =
    &[(Role::Researcher, &[]), (Role::Coder, &[1]), (Role::Qa, &[2]), (Role::Reviewer, &[2]), (Role::Documenter, &[2])];

#[test]
fn a_run_begins_with_the_planner_who_gets_a_second_try() {
    let mut facts = facts(None);
    assert_eq!(wants(&facts), named(&[("plan", 1)]));
    facts.absorb(reply(Role::Planner, &TaskId::plan(), 1, done(None)));
    assert_eq!(wants(&facts), named(&[("plan", 2)]));
    facts.absorb(reply(Role::Planner, &TaskId::plan(), 2, broken(true)));
    assert!(failure(&facts).message.contains("the planner made no plan"), "{facts:?}");
}

#[test]
fn a_planner_that_can_not_is_not_asked_again() {
    let mut facts = facts(None);
    facts.absorb(reply(Role::Planner, &TaskId::plan(), 1, broken(false)));
    assert_eq!(failure(&facts).kind, FailureKind::ModelOutput);
}

#[test]
fn a_plan_is_adopted_with_a_qa_task_for_untested_code() {
    for (tasks, completed_with) in [
        (&[(Role::Coder, &[][..])][..], 1),
        (&[(Role::Coder, &[]), (Role::Reviewer, &[1])], 1),
        (&[(Role::Coder, &[]), (Role::Qa, &[1])], 0),
        (&[(Role::Coder, &[]), (Role::Coder, &[]), (Role::Qa, &[2])], 1),
        (&[(Role::Researcher, &[])], 0),
    ] {
        let mut facts = facts(None);
        facts.absorb(reply(Role::Planner, &TaskId::plan(), 1, done(Some(Report::Plan(plan(tasks))))));
        let Step::Adopt(adopted) = next(&facts, &rules()) else { panic!("{tasks:?}") };
        assert_eq!(adopted.tasks.len(), tasks.len() + completed_with, "{adopted:?}");
        for coder in adopted.tasks.iter().filter(|task| task.role == Role::Coder) {
            assert!(
                adopted.tasks.iter().any(|t| t.role == Role::Qa && t.depends_on.contains(&coder.id)),
                "{adopted:?}"
            );
        }
    }
}

#[test]
fn a_plan_as_large_as_allowed_finishes_no_code_untested() {
    let tasks = vec![(Role::Coder, &[][..]); limits::PLAN_TASKS_MAX];
    let mut facts = facts(None);
    facts.absorb(reply(Role::Planner, &TaskId::plan(), 1, done(Some(Report::Plan(plan(&tasks))))));
    match next(&facts, &rules()) {
        Step::Adopt(plan) => {
            let tested = |id: &TaskId| plan.tasks.iter().any(|t| t.role == Role::Qa && t.depends_on.contains(id));
            let bare = plan.tasks.iter().filter(|t| t.role == Role::Coder && !tested(&t.id)).count();
            assert_eq!(bare, 0, "coder tasks that nobody tests");
        }
        Step::Want(jobs) => assert_eq!(jobs[0].task, TaskId::plan()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plan_that_is_none_is_told_to_the_planner() {
    let mut facts = facts(None);
    let circle = plan(&[(Role::Researcher, &[2]), (Role::Researcher, &[1])]);
    facts.absorb(reply(Role::Planner, &TaskId::plan(), 1, done(Some(Report::Plan(circle)))));
    assert_eq!(wants(&facts), named(&[("plan", 2)]));
}

#[test]
fn tasks_are_wanted_when_what_they_need_is_done_and_checked() {
    let team = plan(TEAM);
    let ok = || done(None);
    let good = || verdict(Verdict::Approve);
    for (outcomes, wanted) in [
        (vec![], named(&[("t1", 1)])),
        (vec![(1, 1, ok())], named(&[("t2", 1)])),
        (vec![(1, 1, ok()), (2, 1, ok())], named(&[("t3", 1), ("t4", 1)])),
        (vec![(1, 1, ok()), (2, 1, ok()), (3, 1, good())], named(&[("t4", 1)])),
        (vec![(1, 1, ok()), (2, 1, ok()), (3, 1, good()), (4, 1, good())], named(&[("t5", 1)])),
        (vec![(1, 1, ok()), (2, 1, ok()), (3, 1, good()), (4, 1, good()), (5, 1, ok())], named(&[("answer", 1)])),
    ] {
        assert_eq!(wants(&after(&team, &outcomes)), wanted);
    }
}

/// Each of t2 and t3 would wait for the check that waits for the other one.
#[test]
fn tasks_do_not_wait_for_each_other_s_checks_for_ever() {
    let tasks = [(Role::Coder, &[][..]), (Role::Researcher, &[1]), (Role::Documenter, &[1]), (Role::Reviewer, &[2])];
    let team = plan(&[&tasks[..], &[(Role::Reviewer, &[3]), (Role::Qa, &[1])]].concat());
    let facts = after(&team, &[(1, 1, done(None)), (6, 1, verdict(Verdict::Approve))]);
    assert!(!wants(&facts).is_empty());
}

#[test]
fn tasks_that_wait_for_each_other_are_a_deadlock_with_names() {
    // No check of a plan lets this through; a store that was tampered with might.
    let failure = failure(&facts(Some(plan(&[(Role::Coder, &[2]), (Role::Qa, &[1])]))));
    assert_eq!(failure.kind, FailureKind::Deadlock);
    for part in ["no task is ready and none is running", "t1 waits for t2", "t2 waits for t1"] {
        assert!(failure.message.contains(part), "{failure}");
    }
}

#[test]
fn rework_waits_for_all_checks_and_raises_what_hangs_on_it() {
    let team = plan(TEAM);
    let bad = || verdict(Verdict::Changes);
    let mut facts = after(&team, &[(1, 1, done(None)), (2, 1, done(None)), (3, 1, bad())]);
    assert_eq!(wants(&facts), named(&[("t4", 1)]), "the reviewer has not spoken yet");
    facts.absorb(reply(Role::Reviewer, &id(4), 1, verdict(Verdict::Approve)));
    assert_eq!(wants(&facts), named(&[("t2", 2)]));
    facts.absorb(reply(Role::Coder, &id(2), 2, done(None)));
    assert_eq!(wants(&facts), named(&[("t3", 2), ("t4", 2)]), "both look at the new code");
}

#[test]
fn rework_ends_at_its_bound_and_says_so() {
    let pair = plan(&[(Role::Coder, &[]), (Role::Qa, &[1])]);
    let mut facts = after(&pair, &[]);
    for attempt in 1..=1 + REWORK_MAX {
        assert_eq!(wants(&facts), named(&[("t1", attempt)]));
        facts.absorb(reply(Role::Coder, &id(1), attempt, files(attempt)));
        assert_eq!(wants(&facts), named(&[("t2", attempt)]));
        let tested = tests(&facts, (2, attempt), 3, &["a"]);
        facts.absorb(reply(Role::Qa, &id(2), attempt, tested));
    }
    let failure = failure(&facts);
    assert_eq!(failure.kind, FailureKind::ReworkExhausted);
    assert!(failure.message.contains("rework_max 3") && failure.message.contains("t1"), "{failure}");
}

#[test]
fn failures_are_tried_again_only_when_that_may_help() {
    let one = plan(&[(Role::Researcher, &[])]);
    assert_eq!(wants(&after(&one, &[(1, 1, broken(true))])), named(&[("t1", 2)]));
    assert_eq!(failure(&after(&one, &[(1, 1, broken(false))])).kind, FailureKind::ModelOutput);
    let all: Vec<_> = (1..=1 + REWORK_MAX).map(|attempt| (1, attempt, broken(true))).collect();
    let failure = failure(&after(&one, &all));
    assert!(failure.message.contains("4 times (retry attempts 3)"), "{failure}");
}

#[test]
fn the_answer_is_asked_for_at_the_newest_attempt_and_once_more() {
    let pair = plan(&[(Role::Coder, &[]), (Role::Qa, &[1])]);
    let bad = verdict(Verdict::Changes);
    let good = verdict(Verdict::Approve);
    let reworked = [(1, 1, done(None)), (2, 1, bad), (1, 2, done(None)), (2, 2, good)];
    let mut facts = after(&pair, &reworked);
    assert_eq!(wants(&facts), named(&[("answer", 2)]));
    facts.absorb(reply(Role::Synthesizer, &TaskId::answer(), 2, broken(true)));
    assert_eq!(wants(&facts), named(&[("answer", 3)]));
    let mut given = facts.clone();
    given.absorb(reply(Role::Synthesizer, &TaskId::answer(), 3, done(None)));
    assert_eq!(next(&given, &rules()), Step::Complete);
    facts.absorb(reply(Role::Synthesizer, &TaskId::answer(), 3, broken(true)));
    assert!(failure(&facts).message.contains("the synthesizer made no answer"));
}

#[test]
fn a_canceled_answer_is_no_answer() {
    let one = plan(&[(Role::Researcher, &[])]);
    let mut facts = after(&one, &[(1, 1, done(None))]);
    let canceled = Outcome::Canceled { reason: "by hand".into() };
    facts.absorb(reply(Role::Synthesizer, &TaskId::answer(), 1, canceled));
    assert!(matches!(next(&facts, &rules()), Step::Fail(_)), "{:?}", next(&facts, &rules()));
}

/// The reviewer broke once and then approved attempt 1 of the code, as its own attempt 2; qa rejects attempt 1. The new
/// code has to be reviewed anew, whichever of the two checks stands first in the plan.
#[test]
fn a_verdict_on_older_code_does_not_count_for_newer_code() {
    for (qa, reviewer) in [(2, 3), (3, 2)] {
        let mut tasks = vec![(Role::Coder, &[][..]), (Role::Qa, &[1]), (Role::Reviewer, &[1])];
        tasks[qa - 1].0 = Role::Qa;
        tasks[reviewer - 1].0 = Role::Reviewer;
        let team = plan(&tasks);
        let mut facts = after(&team, &[(1, 1, done(None)), (reviewer, 1, broken(true))]);
        assert_eq!(wants(&facts).len(), 2, "qa, and the reviewer again");
        facts.absorb(reply(Role::Reviewer, &id(reviewer), 2, verdict(Verdict::Approve)));
        facts.absorb(reply(Role::Qa, &id(qa), 1, verdict(Verdict::Changes)));
        let [(code, attempt)] = &wants(&facts)[..] else { panic!("{:?}", wants(&facts)) };
        assert_eq!(code, "t1");
        facts.absorb(reply(Role::Coder, &id(1), *attempt, done(None)));
        let asked: Vec<String> = wants(&facts).into_iter().map(|(task, _)| task).collect();
        assert_eq!(asked, ["t2", "t3"], "both checks must look at attempt {attempt} of the code");
    }
}

/// Two coders, a qa each, a reviewer for both. The first qa and then the second one find faults, at different times; the
/// reviewer is content each time. In the end it must have seen the newest code of both.
#[test]
fn a_check_of_two_coders_looks_again_whenever_one_of_them_wrote() {
    let coders = [(Role::Coder, &[][..]), (Role::Coder, &[]), (Role::Qa, &[1]), (Role::Qa, &[2])];
    let team = plan(&[&coders[..], &[(Role::Reviewer, &[1, 2])]].concat());
    let good = || verdict(Verdict::Approve);
    let bad = || verdict(Verdict::Changes);
    let mut facts = after(&team, &[(1, 1, done(None)), (2, 1, done(None)), (3, 1, bad()), (5, 1, good())]);
    let answer = |facts: &mut Facts, number: usize, outcome: Outcome| {
        let wanted = wants(facts).into_iter().find(|(task, _)| *task == format!("t{number}"));
        let (_, attempt) = wanted.unwrap_or_else(|| panic!("t{number} is not asked for: {:?}", wants(facts)));
        assert!(facts.absorb(reply(team.task(&id(number)).unwrap().role, &id(number), attempt, outcome)));
    };
    answer(&mut facts, 1, done(None));
    answer(&mut facts, 3, good());
    answer(&mut facts, 5, good());
    answer(&mut facts, 4, bad());
    answer(&mut facts, 2, done(None));
    answer(&mut facts, 4, good());
    answer(&mut facts, 5, good());
}

#[test]
fn a_rejected_check_is_never_simply_dropped() {
    let odd = plan(&[(Role::Researcher, &[]), (Role::Reviewer, &[1])]);
    let facts = after(&odd, &[(1, 1, done(None)), (2, 1, verdict(Verdict::Changes))]);
    let step = next(&facts, &rules());
    let answered = matches!(&step, Step::Want(jobs) if jobs.iter().any(|job| job.task == TaskId::answer()));
    assert!(!answered, "a run whose only check says no goes straight to its answer: {step:?}");
}
