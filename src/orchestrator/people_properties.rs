//! Gates as properties of whole runs: random plans, random gates, and people who say anything at any time, also about what is
//! closed, while holders change. Every holder comes to the same step, every run ends, and nothing is begun past a closed gate.

use std::collections::HashSet;

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::properties::{World, orders, plain_worlds, request, worlds};
use super::*;
use crate::orchestrator::dispatch::files_in_sight;
use crate::orchestrator::gates::{decided, items};
use crate::store::Heard;
use crate::wire::{Approve, Gates, Input, ItemId, Otherwise, Said};

/// Pauses that people make in one run.
const PAUSES_MAX: u32 = 3;
/// People there are.
const PEOPLE: u64 = 4;

/// A world, with what of it waits for people.
#[derive(Clone, Debug)]
struct Guarded {
    world: World,
    gates: Gates,
    roles: HashSet<Role>,
    /// Of 100 words about a result: how many reject it.
    rejected: u64,
}

impl Guarded {
    fn must_wait(&self, task: &TaskId, role: Role) -> bool {
        let of_goal = match self.gates.approve {
            Approve::None => false,
            Approve::Plan => *task == TaskId::plan(),
            Approve::All => true,
        };
        of_goal || self.roles.contains(&role)
    }

    /// A roll that is another one each turn.
    fn roll(&self, turn: usize, salt: &str) -> u64 {
        self.world.roll(&TaskId::run(), u32::try_from(turn).unwrap(), salt)
    }
}

fn guarded(world: impl Strategy<Value = World>) -> impl Strategy<Value = Guarded> {
    let roles = [Role::Planner, Role::Researcher, Role::Coder, Role::Qa, Role::Reviewer, Role::Synthesizer];
    let approve = prop::sample::select(vec![Approve::None, Approve::Plan, Approve::All]);
    let roles = prop::collection::hash_set(prop::sample::select(roles.to_vec()), 0..3);
    (world, approve, 1..4_u32, any::<bool>(), roles, 0..60_u64).prop_map(
        |(world, approve, quorum, default, roles, rejected)| {
            let default = if default { Otherwise::Approve } else { Otherwise::Reject };
            let gates = Gates { approve, quorum, default, ..Gates::default() };
            Guarded { world, gates, roles, rejected }
        },
    )
}

fn hear(facts: &mut Facts, item: ItemId, by: &str, says: Said) {
    let input = Input::new(item, by, says);
    // One key for each voter: whoever comes second is not heard.
    if facts.inputs.iter().all(|heard| (&heard.input.item, heard.input.voter()) != (&input.item, input.voter())) {
        let revision = facts.inputs.len() as u64 + 1;
        facts.inputs.push(Heard { input, revision, at: 0 });
    }
}

/// A person says something about an item, or the clock does.
fn speak(guarded: &Guarded, facts: &mut Facts, item: ItemId, turn: usize) {
    let by = format!("person{}", guarded.roll(turn, "who") % PEOPLE);
    let edited = Plan { tasks: guarded.world.plan.tasks[..1].to_vec(), ..guarded.world.plan.clone() };
    let says = match guarded.roll(turn, "says") {
        roll if roll < guarded.rejected => Said::Reject { reason: format!("no, says {by}") },
        // Where everything is approved, nobody is late: that ends a run at a gate of the operator.
        60..64 if guarded.rejected > 0 => Said::Lapse,
        64..70 => Said::Edit { plan: edited },
        70..73 => Said::Edit { plan: Plan { tasks: Vec::new(), ..guarded.world.plan.clone() } },
        73..76 => Said::Escalated,
        _ => Said::Approve,
    };
    hear(facts, item, &by, says);
    // Four people may disagree for ever; the clock does not wait for them.
    if facts.inputs.len().is_multiple_of(16) {
        let open = items(facts, &now(facts), &rules());
        open.into_iter()
            .filter(|item| item.task != TaskId::run())
            .for_each(|item| hear(facts, item.id, "clock", Said::Lapse));
    }
}

fn now(facts: &Facts) -> Attempts {
    facts.plan.as_ref().and_then(|plan| attempts(facts, plan, &rules()).ok()).unwrap_or_default()
}

/// What another holder decides, who hears the replies in another order.
fn assert_all_decide(facts: &Facts, rules: &Rules, step: &Step) {
    let mut other = Facts { results: BTreeMap::new(), ..facts.clone() };
    for reply in facts.results.values().rev() {
        other.absorb(reply.clone());
    }
    assert_eq!(&next(&other, rules), step, "another holder decides otherwise");
}

/// Nothing that a new job builds on waits for people, or was refused by them; and a paused run begins nothing.
fn assert_past_no_gate(guarded: &Guarded, facts: &Facts, in_force: &Attempts, job: &Job) {
    assert!(gates::paused(facts).is_none(), "{job:?} is begun in a pause");
    let approved = |task: &TaskId, role: Role, attempt: u32| {
        let reply = facts.result(task, attempt);
        let gated = guarded.must_wait(task, role) && !reply.is_some_and(rejects);
        let decision = decided(facts, task, attempt).map(|(decision, _)| decision);
        assert!(
            !gated || matches!(decision, Some(Decision::Approved | Decision::Edited(_))),
            "{job:?} is begun past {task} {attempt}: {decision:?}"
        );
    };
    let Some(plan) = &facts.plan else { return };
    let adopted = facts.last_completed(&TaskId::plan(), 1..=u32::MAX).unwrap();
    approved(&TaskId::plan(), Role::Planner, adopted.attempt);
    let needs: Vec<&PlanTask> = match plan.task(&job.task) {
        Some(task) => task.depends_on.iter().filter_map(|id| plan.task(id)).collect(),
        None if job.task == TaskId::answer() => plan.tasks.iter().collect(),
        None => Vec::new(),
    };
    needs.iter().for_each(|need| approved(&need.id, need.role, in_force[&need.id]));
}

/// Runs it to its end, or panics.
fn simulate(guarded: &Guarded, order: &[u8]) -> (Facts, Step) {
    let rules = rules();
    let mut facts = facts(None);
    facts.goal.gates = guarded.gates;
    facts.goal.gated = guarded.roles.iter().copied().collect();
    let mut open: Vec<(Job, Option<ContentHash>)> = Vec::new();
    let mut pauses = 0;
    for turn in 0..10_000 {
        let step = next(&facts, &rules);
        assert_all_decide(&facts, &rules, &step);
        let in_force = now(&facts);
        let waiting = items(&facts, &in_force, &rules);
        match step {
            Step::Adopt(plan) => {
                facts.plan = Some(plan);
                continue;
            }
            Step::Want(jobs) => {
                let asked = |job: &Job| facts.was_asked(&job.task, job.attempt);
                for job in jobs.into_iter().filter(|job| !asked(job)).collect::<Vec<_>>() {
                    assert_past_no_gate(guarded, &facts, &in_force, &job);
                    facts.requests.push(request(&facts, &in_force, &job));
                    let code = code_hash(&files_in_sight(&facts, &in_force, &job.task, job.attempt, job.role));
                    let of_check = job.role.checks();
                    open.push((job, code.filter(|_| of_check)));
                }
            }
            Step::Wait => assert!(!waiting.is_empty() || !open.is_empty(), "it waits for nothing: {guarded:?}"),
            end => return (facts, end),
        }
        let pick = usize::from(order[turn % order.len()]);
        let about = waiting.get(pick % waiting.len().max(1)).cloned();
        let holds = gates::holds(&facts).0 + 1;
        match (about, guarded.roll(turn, "turn")) {
            (_, 0..3) if pauses < PAUSES_MAX && gates::paused(&facts).is_none() => {
                pauses += 1;
                hear(&mut facts, ItemId::hold(1, holds), "ann", Said::Pause);
            }
            // About what is closed, or was never there.
            (_, 3..8) => speak(guarded, &mut facts, ItemId::of(&TaskId::planned(pick % 4), 1), turn),
            (Some(item), 8..50) if item.task == TaskId::run() => {
                hear(&mut facts, ItemId::hold(1, holds), "bob", Said::Resume);
            }
            (Some(item), 8..50) => speak(guarded, &mut facts, item.id, turn),
            _ if open.is_empty() => {}
            _ => {
                let (job, code) = open.swap_remove(pick % open.len());
                facts.absorb(reply(job.role, &job.task, job.attempt, guarded.world.outcome(&job, code)));
            }
        }
    }
    panic!("the run does not end: {guarded:?}");
}

proptest! {
    #![proptest_config(Config { cases: 150, failure_persistence: None, ..Config::default() })]

    #[test]
    fn guarded_runs_end_and_nothing_is_begun_past_a_closed_gate(guarded in guarded(worlds((0..20_u64, Just(0), 0..40_u64))), order in orders()) {
        let (facts, end) = simulate(&guarded, &order);
        let deadlock = matches!(&end, Step::Fail(failure) if failure.kind == FailureKind::Deadlock);
        prop_assert!(!deadlock, "{:?}", end);
        // What people say when all is over changes nothing but the end of a gate that is open still.
        let rules = rules();
        let mut late = facts.clone();
        let closed: Vec<ItemId> = facts.results.keys().map(|(task, attempt)| ItemId::of(task, *attempt)).collect();
        for item in closed.into_iter().filter(|item| facts.inputs.iter().any(|heard| heard.input.item == *item)) {
            let attempt = facts.results.keys().find(|(task, attempt)| ItemId::of(task, *attempt) == item).unwrap();
            if decided(&facts, &attempt.0, attempt.1).is_some() {
                hear(&mut late, item, "late", Said::Reject { reason: "late".into() });
            }
        }
        prop_assert_eq!(next(&late, &rules), end);
    }

    /// People who approve everything change nothing in how a run ends.
    #[test]
    fn a_run_that_is_approved_ends_as_one_that_asks_nobody(guarded in guarded(plain_worlds((0..20_u64, Just(0), 0..40_u64))), order in orders()) {
        let nobody = Guarded { gates: Gates::default(), roles: HashSet::new(), ..guarded.clone() };
        let approving = Guarded { gates: Gates { quorum: 1, default: Otherwise::Approve, ..guarded.gates }, rejected: 0, ..guarded };
        // Edits and rejections apart, an input only opens a gate.
        let quiet = |guarded: &Guarded| {
            let (facts, end) = simulate(guarded, &order);
            let changed = facts.inputs.iter().any(|heard| matches!(heard.input.says, Said::Edit { .. }));
            (changed, end)
        };
        let ((one, with), (_, without)) = (quiet(&approving), quiet(&nobody));
        if !one {
            prop_assert_eq!(with == Step::Complete, without == Step::Complete, "{:?} and {:?}", with, without);
        }
    }
}
