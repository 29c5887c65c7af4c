//! A tenant's day as a property: whatever its runs need and however their holders take turns, the sum is that of its parts,
//! nothing is taken beyond the limit, and every run comes to an end.

use proptest::prelude::*;

use super::*;
use crate::store::HistoryEntry;
use crate::wire::{
    Goal, Message, MessageType, Metadata, Outcome, Party, Reply, Role, RunId, StateChange, StateOp, TaskId, Usage,
};

/// Turns after which a run that has not ended never will.
const TURNS_MAX: usize = 20_000;

fn tokens(tokens: u64) -> Purse {
    Purse { tokens, nano_usd: 1 }
}

fn need(call: u64) -> Need {
    Need { role: Role::Coder, call: tokens(call), floor: tokens(call.min(256)), alone: false }
}

fn ask(call: u64, limit: Purse) -> Ask {
    Ask::of(&need(call), Allowance::default(), limit)
}

fn request(facts: &mut Facts, number: usize, at: i64) {
    let (run, task, budget) = (RunId::from_key("t", "tenants"), TaskId::planned(number), Some(all_of(tokens(300))));
    let metadata =
        Metadata { run, task, attempt: 1, input: None, bytes: 0, notes: 0, hops: 1, reference: None, budget };
    let (from, to) = (Party::Role(Role::Orchestrator), Party::Role(Role::Coder));
    let message = Message::new(from, to, MessageType::Request, String::new(), metadata);
    facts.requests.push(HistoryEntry { message, revision: 0, at });
}

fn limit(tokens: u64) -> Purse {
    Purse { tokens, nano_usd: u64::MAX }
}

/// One run: calls that it has yet to make, and what it has used.
#[derive(Clone, Debug)]
struct Run {
    to_do: Vec<u64>,
    used: Used,
    own: Spending,
    over: bool,
}

#[derive(Clone, Debug)]
struct World {
    limit: Purse,
    all: Spending,
    runs: Vec<Run>,
    overrun: u64,
}

impl World {
    fn write(&mut self, index: usize, own: Spending) {
        self.all = self.all.with(&self.runs[index].own, &own);
        self.runs[index].own = own;
    }

    /// One turn of a run's holder: what is under way is answered, `over` of them by more than they had; then the next is sent.
    fn turn(&mut self, index: usize, over: bool) {
        let Run { used, to_do, own, .. } = self.runs[index].clone();
        if used.under_way != Purse::default() {
            let extra = if over { used.under_way.tokens } else { 0 };
            self.overrun += extra;
            let spent = used.under_way.tokens / 2 + extra;
            self.runs[index].used =
                Used { spent: used.spent.plus(Purse { tokens: spent, nano_usd: 0 }), ..Used::default() };
            return;
        }
        let Some(call) = to_do.last().copied() else { return self.end(index) };
        let sums = Sums { own, all: self.all };
        let (own, given, verdict) = share(sums, used, &[ask(call, self.limit)], Allowance::default(), self.limit);
        self.write(index, own);
        match verdict {
            Verdict::Enough => {
                let given = sum(&given);
                assert!(given.tokens >= call.min(256), "enough is enough to begin: {given:?} for {call}");
                assert!(given.fits(all_of(own.taken.minus(used.total()))), "it is taken before it is sent");
                self.runs[index].used.under_way = Purse { tokens: given.tokens, nano_usd: 0 };
                self.runs[index].to_do.pop();
            }
            Verdict::Wait => {}
            Verdict::Spent => self.end(index),
        }
    }

    fn end(&mut self, index: usize) {
        let spent = self.runs[index].used.spent;
        self.write(index, Spending { spent, taken: spent, ..Spending::default() });
        self.runs[index].over = true;
    }

    fn assert_sound(&self) {
        let sum =
            |of: fn(&Spending) -> Purse| self.runs.iter().fold(Purse::default(), |sum, run| sum.plus(of(&run.own)));
        assert_eq!((self.all.taken, self.all.spent), (sum(|own| own.taken), sum(|own| own.spent)));
        assert!(self.all.taken.tokens <= self.limit.tokens + self.overrun, "{self:?}");
        let spent: u64 = self.runs.iter().map(|run| run.used.total().tokens).sum();
        assert!(spent <= self.limit.tokens + self.overrun, "{self:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_sum_is_that_of_its_parts_and_every_run_ends(
        limit_tokens in 1_u64..2_000_000,
        calls in prop::collection::vec(prop::collection::vec(1_u64..20_000, 0..12), 1..8),
        order in prop::collection::vec((0_usize..8, prop::bool::weighted(0.1)), 64),
    ) {
        let run = |to_do: Vec<u64>| Run { to_do, used: Used::default(), own: Spending::default(), over: false };
        let runs = calls.into_iter().map(run).collect();
        let mut world = World { limit: limit(limit_tokens), all: Spending::default(), runs, overrun: 0 };
        for (index, over) in order.iter().cycle().take(TURNS_MAX) {
            let index = index % world.runs.len();
            if !world.runs[index].over {
                world.turn(index, *over);
                world.assert_sound();
            }
        }
        // Those whose turn is never drawn end too.
        for index in 0..world.runs.len() {
            for _ in 0..TURNS_MAX {
                if world.runs[index].over { break; }
                world.turn(index, false);
                world.assert_sound();
            }
        }
        prop_assert!(world.runs.iter().all(|run| run.over), "{world:?}");
        prop_assert_eq!(world.all.taken, world.all.spent);
    }
}

#[test]
fn one_change_serves_many_tasks_while_there_is_plenty() {
    let limit = TenantBudgets::default().others;
    let rest = Allowance { tokens: Some(limits::RUN_TOKENS_MAX), cost_nano_usd: Some(50_000_000_000) };
    let (mut sums, task) = (Sums::default(), ask(8_000, limit));
    let (own, given, verdict) = share(sums, Used::default(), &[task], rest, limit);
    assert_eq!((verdict, given), (Verdict::Enough, vec![Some(task.most)]));
    assert_eq!(own.taken.tokens, limits::TENANT_TOKENS_MAX / TAKE_PARTS);
    assert_eq!(task.most.tokens, limits::TENANT_TOKENS_MAX / TASK_PARTS, "fifteen more tasks find enough taken");
    // Two hundred more runs at the same time, and the next one's task has as much.
    for _ in 0..200 {
        let own = share(sums, Used::default(), &[task], rest, limit).0;
        sums.all = sums.all.with(&Spending::default(), &own);
    }
    assert_eq!(share(sums, Used::default(), &[task], rest, limit).1, vec![Some(task.most)]);
}

/// The share of a task is a function of its need, its run's budgets and the limit: whoever sends it sends the same.
#[test]
fn what_a_task_gets_does_not_hang_on_what_was_taken() {
    let limit = limit(50_000_000);
    let task = ask(8_000, limit);
    let all = |taken| Spending { taken: tokens(taken), ..Spending::default() };
    for (own, others) in [(0, 0), (40_000, 0), (1_000_000, 10_000_000), (0, 40_000_000)] {
        let sums = Sums { own: all(own), all: all(own + others) };
        assert_eq!(
            share(sums, Used::default(), &[task], Allowance::default(), limit).1,
            vec![Some(task.most)],
            "{sums:?}"
        );
    }
}

#[test]
fn what_others_have_reserved_is_waited_for_and_what_is_spent_is_not() {
    let others = |spent, taken| Spending { spent: tokens(spent), taken: tokens(taken), ..Spending::default() };
    for (all, verdict) in [
        (others(0, 0), Verdict::Enough),
        (others(500, 9_000), Verdict::Enough),
        (others(500, 9_500), Verdict::Wait),
        (others(9_300, 9_300), Verdict::Enough),
        (others(500, 9_900), Verdict::Wait),
        (others(9_744, 9_900), Verdict::Wait),
        (others(9_745, 9_900), Verdict::Spent),
        (others(20_000, 20_000), Verdict::Spent),
    ] {
        let sums = Sums { all, ..Sums::default() };
        assert_eq!(
            share(sums, Used::default(), &[ask(1_000, limit(10_000))], Allowance::default(), limit(10_000)).2,
            verdict,
            "{all:?}"
        );
    }
}

#[test]
fn a_limit_is_told_by_its_name() {
    let acme: Tenant = "acme".parse().unwrap();
    let (spent, limit) = (Purse { tokens: 1_100, nano_usd: 5 }, Purse { tokens: 1_000, nano_usd: 2_000_000_000 });
    let why = exhausted(&acme, spent, limit, tokens(256)).unwrap();
    assert_eq!(why, "1100 of budget tenant acme tokens 1000 are spent by its runs of this UTC day");
    assert_eq!(exhausted(&acme, Purse::default(), limit, tokens(256)), None);
    let high: Vec<String> =
        shares(&acme, spent, limit).iter().filter(|share| share.is_high()).map(Share::to_string).collect();
    assert_eq!(high, ["1100 of budget tenant acme tokens 1000"]);
}

/// A run that was refused before it sent anything has a part too.
#[test]
fn what_is_given_back_is_of_every_day_on_which_it_can_have_been_taken() {
    const DAY: i64 = 24 * 3_600 * 1_000_000_000;
    let mut facts = Facts::fresh(Goal::new("make it".into(), Vec::new()));
    let day = |number: i64| TenantDay::of(&Tenant::default(), number * DAY);
    assert_eq!(days(&facts, None, 9 * DAY), [day(9)]);
    assert_eq!(days(&facts, Some(day(9)), 9 * DAY), [day(9)]);
    assert_eq!(days(&facts, Some(day(8)), 9 * DAY), [day(8), day(9)]);
    request(&mut facts, 1, 7 * DAY);
    assert_eq!(days(&facts, Some(day(8)), 9 * DAY), [day(8), day(7), day(9)]);
}

/// A reply that proposes changes of shared state is spent, whatever becomes of them.
#[test]
fn what_nobody_has_decided_on_is_spent() {
    let mut facts = Facts::fresh(Goal::new("make it".into(), Vec::new()));
    request(&mut facts, 1, 0);
    let day = TenantDay::of(&Tenant::default(), 0);
    assert_eq!(Used::of(&facts, &day), Used { under_way: tokens(300), ..Used::default() });
    let outcome = Outcome::Completed { content: "done".into(), artifacts: Vec::new(), report: None };
    let reply = Reply::new(Role::Coder, RunId::from_key("t", "tenants"), TaskId::planned(1), 1, outcome);
    let state = vec![StateChange { op: StateOp::Set, name: "port".into(), value: 1.into(), expected: None }];
    let usage = Usage { input: 200, cost_nano_usd: Some(1), ..Usage::default() };
    assert!(!facts.absorb(Reply { state, usage, ..reply }), "it does not count yet");
    assert_eq!(Used::of(&facts, &day), Used { spent: tokens(200), ..Used::default() });
}

/// Nobody here knows a price: what a task gets of a small limit is enough for a call of a dear model.
#[test]
fn a_small_limit_of_money_gives_a_task_what_a_call_may_cost() {
    const CENT: u64 = 10_000_000;
    let limit = |cents: u64| Purse { tokens: limits::TENANT_TOKENS_MAX, nano_usd: cents * CENT };
    for (cents, call, most) in [(500, 78_125_000, 312_500_000), (100_000, 25 * CENT, 100 * CENT), (64, CENT, 4 * CENT)]
    {
        let task = ask(8_000, limit(cents));
        assert_eq!((task.call.nano_usd, task.most.nano_usd), (call, most), "of {cents} cents");
    }
    let five = limit(500);
    let taken = |cents: u64| Spending { taken: Purse { tokens: 0, nano_usd: cents * CENT }, ..Spending::default() };
    for (cents, gets) in [(0, 312_500_000), (480, 78_125_000)] {
        let sums = Sums { all: taken(cents), ..Sums::default() };
        let given = share(sums, Used::default(), &[ask(8_000, five)], Allowance::default(), five).1;
        assert_eq!(given[0].unwrap().nano_usd, gets, "{cents} cents are taken");
    }
    let granted = Allowance { tokens: None, cost_nano_usd: Some(CENT) };
    assert_eq!(Ask::of(&need(8_000), granted, five).most.nano_usd, CENT, "never more than the run's own budget gives");
}
