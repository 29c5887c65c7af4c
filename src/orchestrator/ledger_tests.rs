//! The sums of a run, and that they hold: whole runs of random tasks under random budgets, with workers that keep to their
//! allowances but for one call.

use proptest::prelude::*;

use super::*;
use crate::store::HistoryEntry;
use crate::wire::{Goal, Message, MessageType, Metadata, Outcome, Reply, RunId, TaskId, Usage};

fn run() -> RunId {
    RunId::from_key("t", "ledger")
}

fn facts() -> Facts {
    Facts::fresh(Goal::new("make it".into(), Vec::new()))
}

fn tokens(count: u64) -> Allowance {
    Allowance { tokens: Some(count), cost_nano_usd: None }
}

fn ask(facts: &mut Facts, role: Role, number: usize, budget: Option<Allowance>) {
    let task = TaskId::planned(number);
    let metadata =
        Metadata { run: run(), task, attempt: 1, input: None, bytes: 0, notes: 0, hops: 1, reference: None, budget };
    let (from, to) = (Party::Role(Role::Orchestrator), Party::Role(role));
    let message = Message::new(from, to, MessageType::Request, String::new(), metadata);
    facts.requests.push(HistoryEntry { message, revision: 0, at: 0 });
}

fn answer(facts: &mut Facts, role: Role, number: usize, input: u64) {
    let outcome = Outcome::Completed { content: String::new(), artifacts: Vec::new(), report: None };
    let usage = Usage { input, cost_nano_usd: Some(input), ..Usage::default() };
    facts.absorb(Reply { usage, ..Reply::new(role, run(), TaskId::planned(number), 1, outcome) });
}

fn need(role: Role, call: u64) -> Need {
    let purse = |tokens| Purse { tokens, nano_usd: 1 };
    Need { role, call: purse(call), floor: purse(10.min(call)), alone: false }
}

fn of(facts: &Facts, whole: u64) -> Ledger {
    Ledger::of(facts, tokens(whole), |_| Allowance::default())
}

fn sums(granted: &[Option<Allowance>]) -> Vec<Option<u64>> {
    granted.iter().map(|allowance| allowance.map(|allowance| allowance.tokens.unwrap())).collect()
}

fn told(ledger: &Ledger, need: &Need) -> String {
    ledger.short(need).iter().map(Share::to_string).collect::<Vec<_>>().join(" and ")
}

#[test]
fn what_is_spent_and_reserved_is_not_given_again() {
    let mut facts = facts();
    ask(&mut facts, Role::Coder, 1, Some(tokens(300)));
    ask(&mut facts, Role::Coder, 2, Some(tokens(200)));
    answer(&mut facts, Role::Coder, 1, 100);
    // 1,000 without 100 spent and 200 reserved: a call of 50 each, and a third of the other 600.
    let granted = of(&facts, 1_000).grant(&[need(Role::Qa, 50), need(Role::Qa, 50)], 1).unwrap();
    assert_eq!(sums(&granted), [Some(250), Some(250)]);
    let alone = Need { alone: true, ..need(Role::Planner, 50) };
    assert_eq!(sums(&of(&facts, 1_000).grant(&[alone], 1).unwrap()), [Some(700)]);
    // Only one fits now, and none as long as the other has not answered.
    assert_eq!(sums(&of(&facts, 380).grant(&[need(Role::Qa, 50), need(Role::Qa, 50)], 1).unwrap()), [Some(65), None]);
    assert_eq!(sums(&of(&facts, 340).grant(&[need(Role::Qa, 50)], 1).unwrap()), [None]);
    answer(&mut facts, Role::Coder, 2, 200);
    assert_eq!(
        sums(&of(&facts, 340).grant(&[need(Role::Qa, 50)], 0).unwrap()),
        [Some(40)],
        "the rest is enough to begin"
    );
    let short = of(&facts, 309).grant(&[need(Role::Qa, 50)], 0).unwrap_err();
    assert_eq!(told(&of(&facts, 309), &short), "300 of budget tokens 309");
}

#[test]
fn a_role_has_a_budget_of_its_own_within_the_run_s() {
    let mut facts = facts();
    let ledger = |facts: &Facts| {
        let roles = |role| if role == Role::Coder { tokens(100) } else { Allowance::default() };
        Ledger::of(facts, tokens(1_000), roles)
    };
    let both = [need(Role::Coder, 60), need(Role::Qa, 60), need(Role::Coder, 60)];
    assert_eq!(sums(&ledger(&facts).grant(&both, 0).unwrap()), [Some(80), Some(353), None]);
    ask(&mut facts, Role::Coder, 1, None);
    answer(&mut facts, Role::Coder, 1, 95);
    assert_eq!(ledger(&facts).grant(&both, 1), Ok(vec![None; 3]), "what is under way may finish, and nothing is begun");
    let short = ledger(&facts).grant(&both, 0).unwrap_err();
    assert_eq!(told(&ledger(&facts), &short), "95 of budget coder tokens 100");
    let shares = ledger(&facts).shares();
    let high: Vec<&str> = shares.iter().filter(|share| share.is_high()).map(|share| share.name.as_str()).collect();
    assert_eq!(high, ["coder tokens"]);
}

#[test]
fn money_is_shared_as_tokens_are_and_a_new_generation_has_its_own() {
    let mut facts = facts();
    ask(&mut facts, Role::Coder, 1, None);
    answer(&mut facts, Role::Coder, 1, 900);
    let whole = Allowance { tokens: Some(1_000), cost_nano_usd: Some(1_000) };
    let ledger = |facts: &Facts| Ledger::of(facts, whole, |_| Allowance::default());
    let granted = ledger(&facts).grant(&[need(Role::Qa, 50)], 0).unwrap();
    assert_eq!(granted, [Some(Allowance { tokens: Some(75), cost_nano_usd: Some(50) })]);
    let high: Vec<String> =
        ledger(&facts).shares().iter().filter(|share| share.is_high()).map(Share::to_string).collect();
    assert_eq!(high, ["900 of budget tokens 1000", "$0.0001 of budget usd $0.0001"]);
    facts.restart.spent.insert(Role::Coder, Usage { input: 900, cost_nano_usd: Some(900), ..Usage::default() });
    assert!(ledger(&facts).shares().iter().all(|share| share.used == 0));
}

/// Runs tasks of one to eighty calls under a budget until all are done or the run stops; returns what was spent, the most
/// that one worker may have been over, and how many tasks are done.
fn simulate(whole: u64, of_coder: u64, jobs: &[(bool, u64, u64)], order: u64) -> (u64, u64, usize) {
    let mut facts = facts();
    let roles = |role| if role == Role::Coder { tokens(of_coder) } else { Allowance::default() };
    let role = |coder: bool| if coder { Role::Coder } else { Role::Researcher };
    let (mut open, mut waiting): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..jobs.len()).collect());
    let (mut over, mut done, mut turn) = (0, 0, order);
    loop {
        let ledger = Ledger::of(&facts, tokens(whole), roles);
        let needs: Vec<Need> = waiting.iter().map(|index| need(role(jobs[*index].0), jobs[*index].1)).collect();
        let Ok(granted) = ledger.grant(&needs, open.len()) else {
            assert!(open.is_empty(), "what is under way may finish");
            break;
        };
        let before = open.len();
        for (index, allowance) in waiting.clone().into_iter().zip(granted) {
            if let Some(allowance) = allowance {
                assert!(allowance.tokens.unwrap() >= 10.min(jobs[index].1));
                ask(&mut facts, role(jobs[index].0), index, Some(allowance));
                open.push(index);
                waiting.retain(|one| *one != index);
            }
        }
        if open.is_empty() {
            assert!(waiting.is_empty(), "nothing is under way, nothing is sent, and the run goes on");
            break;
        }
        assert!(open.len() > before || before > 0);
        // One of those under way answers: it makes calls as long as its allowance lasts, and the last may go over.
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let index = open.swap_remove(turn as usize % open.len());
        let (coder, call, calls) = jobs[index];
        let about = facts
            .requests
            .iter()
            .map(|entry| &entry.message.metadata)
            .find(|about| about.task == TaskId::planned(index));
        let allowance = about.unwrap().budget.unwrap().tokens.unwrap();
        let mut spent = 0;
        for _ in 0..calls {
            if spent >= allowance {
                break;
            }
            spent += call;
        }
        over += spent.saturating_sub(allowance);
        assert!(spent < allowance + call, "by one call");
        answer(&mut facts, role(coder), index, spent);
        done += 1;
    }
    let spent = facts.results.values().map(|reply| reply.usage.tokens()).sum();
    (spent, over, done)
}

proptest! {
    #[test]
    fn a_budget_is_over_by_no_more_than_its_workers_are_and_every_run_ends(
        whole in 1_u64..20_000,
        of_coder in 1_u64..20_000,
        jobs in proptest::collection::vec((any::<bool>(), 1_u64..500, 1_u64..80), 1..40),
        order in any::<u64>(),
    ) {
        let (spent, over, done) = simulate(whole, of_coder, &jobs, order);
        prop_assert!(spent <= whole + over, "{spent} of {whole}, {over} over");
        let wanted: u64 = jobs.iter().map(|(_, call, calls)| call * calls).sum();
        if wanted.saturating_mul(2) + 1_000 < whole.min(of_coder) {
            prop_assert_eq!(done, jobs.len());
        }
    }
}
