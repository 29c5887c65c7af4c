//! The decision as properties: whole runs with random plans against an oracle. What a task's attempt comes to is fixed by a
//! seed, and the order in which replies arrive is random.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;
use crate::orchestrator::dispatch::{Dispatch, files_in_sight};
use crate::store::{Heard, HistoryEntry};
use crate::wire::{Artifact, Gates, Input, Otherwise, Question, Review, Root, Said, code_hash};

/// Requests after which a run that asks is over, as the loop detector would have it.
const ASKING_REQUESTS_MAX: usize = 150;

/// What every attempt of every task comes to, and in which order replies arrive.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    seed: u64,
    /// Of 100 attempts: how many fail and may be tried again, how many fail for good, how many checks find faults.
    odds: (u64, u64, u64),
    /// Of 100 attempts: how many ask somebody.
    pub(super) asks: u64,
}

impl World {
    pub(super) fn roll(&self, task: &TaskId, attempt: u32, salt: &str) -> u64 {
        let text = format!("{}/{task}/{attempt}/{salt}", self.seed);
        let hash = crate::wire::ContentHash::of(text.as_bytes());
        u64::from_str_radix(&hash.as_str()[..8], 16).unwrap() % 100
    }

    /// `code` is what a check was given. Of the attempts that are to be tried again, those of checks are now and then a report
    /// about other files.
    pub(super) fn outcome(&self, job: &Job, code: Option<ContentHash>) -> Outcome {
        let (again, never, rejected) = self.odds;
        let roll = self.roll(&job.task, job.attempt, "outcome");
        let faults = self.roll(&job.task, job.attempt, "verdict") < rejected;
        let stale = code.is_some() && roll.is_multiple_of(2);
        match job.role {
            _ if self.roll(&job.task, job.attempt, "ask") < self.asks => Outcome::Question(self.question(job)),
            _ if job.task.asker().is_some() && roll >= never + again => done(None),
            _ if roll < never => broken(false),
            role if roll < never + again && stale => judged(role, faults, Some(ContentHash::of(b"other files"))),
            _ if roll < never + again => broken(true),
            Role::Planner => done(Some(Report::Plan(self.plan.clone()))),
            role if role.checks() => judged(role, faults, code),
            // Of four versions: some rework advances, and some does not.
            Role::Coder => written(&job.task, self.roll(&job.task, job.attempt, "file") % 4),
            _ => done(None),
        }
    }

    /// A question to a person, a role, a task of the plan or of another one, or nobody.
    fn question(&self, job: &Job) -> Question {
        let pick = self.roll(&job.task, job.attempt, "whom");
        let to = match pick % 8 {
            0 => "user".to_owned(),
            1 => Role::Researcher.to_string(),
            2 => "nobody".to_owned(),
            _ => format!("t{}", pick % (self.plan.tasks.len() as u64 + 1) + 1),
        };
        Question { to: to.into(), text: "which?".into() }
    }
}

/// A check's verdict on this code.
fn judged(role: Role, faults: bool, code: Option<ContentHash>) -> Outcome {
    if role == Role::Qa {
        return done(Some(Report::Tests(test_run(!faults, code))));
    }
    let verdict = if faults { Verdict::Changes } else { Verdict::Approve };
    done(Some(Report::Review(Review { verdict, findings: Vec::new(), judged: code })))
}

/// A version of the one file of a coder.
fn written(task: &TaskId, version: u64) -> Outcome {
    let sha256 = ContentHash::of(format!("{task}.{version}").as_bytes());
    let path = format!("{task}.py").parse().unwrap();
    let artifacts = vec![Artifact { path, sha256, bytes: 1, role: Role::Coder }];
    Outcome::Completed { content: "so it is".into(), artifacts, report: None }
}

/// The history entry of a request, as it is sent.
pub(super) fn request(facts: &Facts, attempts: &Attempts, job: &Job) -> HistoryEntry {
    let (root, run) = (Root::default(), RunId::from_key("t", "next"));
    let dispatch = Dispatch { root: &root, run: &run, facts, attempts, tasks_max: None, depth_max: None };
    HistoryEntry { message: dispatch.message(&dispatch.task(job, Duration::ZERO)), revision: 0, at: 0 }
}

/// What a simulated run came to.
pub(super) struct Ran {
    pub(super) facts: Facts,
    pub(super) end: Step,
    /// Of each attempt that was asked for: which attempts of its dependencies it was given.
    pub(super) given: BTreeMap<(TaskId, u32), Vec<(TaskId, u32)>>,
}

/// Runs `world` to its end; `order` picks which of the open attempts answers next, and repeats some replies.
pub(super) fn simulate(world: &World, order: &[u8]) -> Ran {
    let mut facts = facts(None);
    facts.goal.gates = Gates { ask: world.asks > 0, default: Otherwise::Approve, ..Gates::default() };
    let mut given = BTreeMap::new();
    let mut open: Vec<(Job, Option<ContentHash>)> = Vec::new();
    let mut before = Attempts::new();
    for turn in 0.. {
        assert!(turn < 10_000, "the run does not end: {world:?}");
        if world.asks > 0 && facts.requests.len() > ASKING_REQUESTS_MAX {
            let end = Step::Fail(Failure::never(FailureKind::MaxIterations, "exchanges_max"));
            return Ran { facts, end, given };
        }
        let jobs = match next(&facts, &rules()) {
            Step::Adopt(plan) => {
                facts.plan = Some(plan);
                continue;
            }
            Step::Want(jobs) => jobs,
            Step::Refuse(refused) => {
                for (job, failure) in refused {
                    facts.absorb(reply(job.role, &job.task, job.attempt, Outcome::Failed { failure }));
                }
                continue;
            }
            Step::Wait if world.asks > 0 => {
                heard(&mut facts, world);
                continue;
            }
            end => return Ran { facts, end, given },
        };
        let now = facts.plan.as_ref().map(|plan| attempts(&facts, plan, &rules()).unwrap()).unwrap_or_default();
        for (task, attempt) in &before {
            assert!(now[task] >= *attempt, "{task} went back from attempt {attempt}: {world:?}");
        }
        before = now.clone();
        for job in jobs {
            let needs = facts.plan.as_ref().and_then(|plan| plan.task(&job.task)).map(|task| task.depends_on.clone());
            let needs: Vec<_> = needs.unwrap_or_default().into_iter().map(|need| (need.clone(), now[&need])).collect();
            for (need, attempt) in &needs {
                let there = facts.result(need, *attempt).is_some_and(|reply| reply.failure().is_none());
                assert!(there, "{job:?} was asked for before {need} was done: {world:?}");
            }
            if let Entry::Vacant(place) = given.entry((job.task.clone(), job.attempt)) {
                place.insert(needs);
                facts.requests.push(request(&facts, &now, &job));
                let code = code_hash(&files_in_sight(&facts, &now, &job.task, job.attempt, job.role));
                let of_check = job.role.checks();
                if !job.is_for_people() {
                    open.push((job, code.filter(|_| of_check)));
                }
            }
        }
        if world.asks > 0 && open.is_empty() {
            heard(&mut facts, world);
            continue;
        }
        let pick = usize::from(order[turn % order.len()]);
        assert!(!open.is_empty(), "nothing is open and nothing ends: {world:?}");
        let (job, code) = open.swap_remove(pick % open.len());
        let reply = reply(job.role, &job.task, job.attempt, world.outcome(&job, code));
        assert!(facts.absorb(reply.clone()));
        assert!(!facts.absorb(reply), "a reply counts once");
    }
    unreachable!("the loop returns")
}

/// A person answers what waits, or nobody does in time.
fn heard(facts: &mut Facts, world: &World) {
    let items = gates::items(facts, &Attempts::new(), &rules());
    let item = items.first().unwrap_or_else(|| panic!("nobody is waited for and nothing ends: {world:?}"));
    let late = world.roll(&item.task, item.attempt, "late") < 30;
    let says = if late { Said::Lapse } else { Said::Answer { text: "this".into() } };
    let input = Input::new(item.id.clone(), "ann", says);
    facts.inputs.push(Heard { input, revision: facts.inputs.len() as u64 + 1, at: 0 });
}

pub(super) fn worlds(odds: impl Strategy<Value = (u64, u64, u64)>) -> impl Strategy<Value = World> {
    let roles = [Role::Researcher, Role::Coder, Role::Coder, Role::Qa, Role::Reviewer, Role::Documenter];
    let task = (prop::sample::select(roles.to_vec()), any::<u8>());
    (prop::collection::vec(task, 1..8), any::<u64>(), odds).prop_map(|(tasks, seed, odds)| {
        let needs = |index: usize, bits: u8| (1..=index).filter(|number| bits >> (number % 8) & 1 == 1).collect();
        let needs: Vec<Vec<usize>> = tasks.iter().enumerate().map(|(index, (_, bits))| needs(index, *bits)).collect();
        let tasks: Vec<_> = tasks.iter().zip(&needs).map(|((role, _), needs)| (*role, &needs[..])).collect();
        World { plan: plan(&tasks), seed, odds, asks: 0 }
    })
}

/// The same, but each check looks at one coder, so that no two reworks touch each other.
pub(super) fn plain_worlds(odds: impl Strategy<Value = (u64, u64, u64)>) -> impl Strategy<Value = World> {
    worlds(odds).prop_map(|mut world| {
        for index in 0..world.plan.tasks.len() {
            let (before, rest) = world.plan.tasks.split_at_mut(index);
            let task = &mut rest[0];
            let coder = before.iter().rfind(|other| other.role == Role::Coder).map(|coder| coder.id.clone());
            match coder {
                Some(coder) if task.role.checks() => task.depends_on = vec![coder],
                None if task.role.checks() => task.role = Role::Researcher,
                _ => {}
            }
            let checks = |id: &TaskId| before.iter().any(|other| other.id == *id && other.role.checks());
            task.depends_on.retain(|id| !checks(id));
        }
        world
    })
}

pub(super) fn orders() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 1..40)
}

fn keys(ran: &Ran) -> BTreeSet<(TaskId, u32)> {
    ran.facts.results.keys().cloned().collect()
}

proptest! {
    #![proptest_config(Config { cases: 500, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_run_ends_within_its_exchanges(world in worlds((0..40_u64, 0..5_u64, 0..100_u64)), order in orders()) {
        let ran = simulate(&world, &order);
        let tasks = ran.facts.plan.as_ref().map_or(0, |plan| plan.tasks.len());
        let exchanges = 2 * ran.given.len();
        let exchanges_max = limits::exchanges_max(tasks, rules().attempts_max());
        prop_assert!(exchanges <= exchanges_max, "{exchanges} exchanges of {tasks} tasks, exchanges_max {exchanges_max}");
        let depth = ran.facts.plan.as_ref().map_or(0, Plan::depth);
        let hops_max = limits::hops_max(depth, rules().attempts_max());
        let hops = ran.facts.messages().map(|message| message.metadata.hops).max().unwrap_or_default();
        prop_assert!(2 * hops <= hops_max, "{hops} hops of a plan {depth} deep, hops_max {hops_max}");
        let deadlock = matches!(&ran.end, Step::Fail(failure) if failure.kind == FailureKind::Deadlock);
        prop_assert!(!deadlock, "{:?}", ran.end);
    }

    #[test]
    fn any_order_of_arrival_comes_to_the_same_end(
        world in plain_worlds((0..30_u64, Just(0), 0..60_u64)), one in orders(), other in orders()
    ) {
        let (one, other) = (simulate(&world, &one), simulate(&world, &other));
        prop_assert_eq!(one.end == Step::Complete, other.end == Step::Complete, "{:?} and {:?}", one.end, other.end);
        let mut shuffled = Facts { results: BTreeMap::new(), ..one.facts.clone() };
        for reply in one.facts.results.values().rev().chain(one.facts.results.values()) {
            shuffled.absorb(reply.clone());
        }
        prop_assert_eq!(&next(&shuffled, &rules()), &one.end, "the order and number of arrivals");
        if one.end == Step::Complete {
            prop_assert_eq!(keys(&one), keys(&other));
            prop_assert_eq!(one.given, other.given, "the same attempt was given other input");
        }
    }

    #[test]
    fn what_counts_in_the_end_was_made_from_what_counts(
        world in worlds((0..30_u64, Just(0), 0..60_u64)), order in orders()
    ) {
        let ran = simulate(&world, &order);
        if ran.end == Step::Complete {
            let plan = ran.facts.plan.as_ref().unwrap();
            let in_force = attempts(&ran.facts, plan, &rules()).unwrap();
            for task in &plan.tasks {
                let needs: Vec<_> = task.depends_on.iter().map(|need| (need.clone(), in_force[need])).collect();
                prop_assert_eq!(&ran.given[&(task.id.clone(), in_force[&task.id])], &needs, "{}", task.id);
                let reply = ran.facts.result(&task.id, in_force[&task.id]).unwrap();
                let void = no_evidence(&ran.facts, plan, &in_force, task, reply);
                prop_assert!(void.is_none(), "{}: {void:?}", task.id);
            }
        }
    }
}
