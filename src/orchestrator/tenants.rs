//! A tenant's day: what all of its runs together may spend in a UTC day, by the server's clock.
//!
//! The runs of a tenant have many holders, so what a run may count on is taken in the store before anything is sent
//! (`store::Spent`): its own part and the sum change together, and what is taken never exceeds the limit. A run takes more than it
//! needs at once, a fixed part of what is free, so that one change serves many tasks while there is plenty, and less and less
//! towards the end; what it did not need it gives back when it ends, parks, or must wait for others. What it has used is derived
//! from its requests and replies, so whoever takes it over comes to the same; and what a task gets hangs on the limit and not on
//! what was taken, so two holders send the same. A request counts for the day on which it was sent.

use std::collections::HashMap;

use super::facts::Facts;
use super::ledger::{Need, Share};
use crate::wire::{Allowance, Purse, Spending, Tenant, TenantDay, limits};

/// The part of what is free that a run takes at once, as a divisor: 64 runs at a time have a lot each, and what is left for the
/// next never comes to nothing.
const TAKE_PARTS: u64 = 64;
/// The part of the limit that one task gets at most, as a divisor.
const TASK_PARTS: u64 = 1_024;
/// What one task gets at most where that is more, in times of what one call may take.
const TASK_CALLS: u64 = 4;
/// What one call may take of the day's money, in billionths of a dollar: its price is known to its worker alone.
const CALL_NANO_USD: u64 = 250_000_000;
/// The part of the limit, as a divisor, that is that where it is less: so many calls may be under way at a time.
const CALL_PARTS: u64 = 64;
/// The part of what is free, as a divisor, that is so much that tasks get no more than one call may take.
const MUCH_PARTS: u64 = 4;
/// What the runs of each tenant may take in a day.
#[derive(Clone, Debug)]
pub struct TenantBudgets {
    /// Of a tenant that is not named.
    pub others: Purse,
    /// Of those that are.
    pub named: HashMap<Tenant, Purse>,
}

impl Default for TenantBudgets {
    fn default() -> Self {
        let others = Purse { tokens: limits::TENANT_TOKENS_MAX, nano_usd: limits::TENANT_USD_MAX * 1_000_000_000 };
        Self { others, named: HashMap::new() }
    }
}

impl TenantBudgets {
    /// The limits of a tenant.
    pub fn of(&self, tenant: &Tenant) -> Purse {
        self.named.get(tenant).copied().unwrap_or(self.others)
    }
}

/// What a run has used of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) spent: Purse,
    pub(super) under_way: Purse,
}

/// A run's part of a day, and that of all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub(super) own: Spending,
    pub(super) all: Spending,
}

/// Whether a run has enough of its tenant's day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may send.
    Enough,
    /// Others have reserved what it needs.
    Wait,
    /// There will be too little whatever others give back.
    Spent,
}

impl Used {
    pub(super) fn of(facts: &Facts, day: &TenantDay) -> Self {
        let mut used = Self::default();
        for entry in &facts.requests {
            let about = &entry.message.metadata;
            if TenantDay::of(day.tenant(), entry.at) != *day {
                continue;
            }
            // Nobody may have decided on a reply yet; its calls are made.
            let mut undecided = facts.undecided.iter();
            let undecided = || undecided.find(|reply| (&reply.task, reply.attempt) == (&about.task, about.attempt));
            match facts.result(&about.task, about.attempt).or_else(undecided) {
                Some(reply) => used.spent = used.spent.plus(Purse::of(&reply.usage)),
                None => used.under_way = used.under_way.plus(Purse::reserved(about.budget)),
            }
        }
        used
    }

    pub(super) fn total(self) -> Purse {
        self.spent.plus(self.under_way)
    }
}

/// The days of which a run may have taken something that it does not use: the one of which its holder took last as far as that is
/// known, that of its last request, and today, for one that took and died before it sent.
pub(super) fn days(facts: &Facts, day: Option<TenantDay>, now: i64) -> Vec<TenantDay> {
    let last = facts.requests.iter().map(|entry| entry.at).max();
    let mut days: Vec<TenantDay> = day.into_iter().collect();
    for at in last.into_iter().chain([now]) {
        let day = TenantDay::of(&facts.goal.tenant, at);
        if !days.contains(&day) {
            days.push(day);
        }
    }
    days
}

/// What a task that is to be sent wants of the day.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// What one call may take.
    call: Purse,
    /// What is enough to begin when there will never be more.
    pub(super) floor: Purse,
    /// What it gets while there is plenty.
    pub(super) most: Purse,
}

impl Ask {
    /// `grant` is what the run's own budgets give it.
    pub(super) fn of(need: &Need, grant: Allowance, limit: Purse) -> Self {
        let money = CALL_NANO_USD.min(limit.nano_usd / CALL_PARTS);
        let call = Purse { nano_usd: need.call.nano_usd.max(money), ..need.call };
        let most = |grant: Option<u64>, call: u64, limit: u64| {
            grant.unwrap_or(u64::MAX).min(call.saturating_mul(TASK_CALLS).max(limit / TASK_PARTS))
        };
        let most = Purse {
            tokens: most(grant.tokens, call.tokens, limit.tokens),
            nano_usd: most(grant.cost_nano_usd, call.nano_usd, limit.nano_usd),
        };
        Self { call: call.min(most), floor: need.floor.min(most), most }
    }
}

pub(super) fn all_of(purse: Purse) -> Allowance {
    Allowance { tokens: Some(purse.tokens), cost_nano_usd: Some(purse.nano_usd) }
}

/// What each task gets of what is free: all that it wants, or, when that is much of what there is, what one call may take, or
/// nothing.
fn given(asks: &[Ask], free: Purse) -> Vec<Option<Purse>> {
    let all = asks.iter().fold(Purse::default(), |sum, ask| sum.plus(ask.most));
    let plenty =
        all.fits(Allowance { tokens: Some(free.tokens / MUCH_PARTS), cost_nano_usd: Some(free.nano_usd / MUCH_PARTS) });
    let mut left = free;
    let give = |ask: &Ask| {
        let purse = Some(if plenty { ask.most } else { ask.call }).filter(|purse| purse.fits(all_of(left)))?;
        left = left.minus(purse);
        Some(purse)
    };
    asks.iter().map(give).collect()
}

pub(super) fn sum(given: &[Option<Purse>]) -> Purse {
    given.iter().flatten().fold(Purse::default(), |sum, purse| sum.plus(*purse))
}

/// What a run takes when so much is free, its tasks got `given`, and `rest` is left of its own budget.
fn room(free: u64, given: u64, rest: Option<u64>) -> u64 {
    given.max((free / TAKE_PARTS).min(rest.unwrap_or(u64::MAX)))
}

/// What the run's part should be before it sends, what each task gets, and whether any may be sent. What it has taken and could
/// still need it never gives back here while it may send, so that a holder who slept takes nothing from under another.
pub(super) fn share(
    sums: Sums,
    used: Used,
    asks: &[Ask],
    rest: Allowance,
    limit: Purse,
) -> (Spending, Vec<Option<Purse>>, Verdict) {
    let free = limit.minus(sums.all.taken.minus(sums.own.taken)).minus(used.total());
    let ever = limit.minus(sums.all.spent.minus(sums.own.spent).plus(used.spent));
    let part = |taken: Purse| Spending { spent: used.spent, taken, ..Spending::default() };
    let mut given = given(asks, free);
    if let Some(first) = asks.first().filter(|_| given.iter().all(Option::is_none)) {
        let some_call = asks.iter().any(|ask| ask.call.fits(all_of(ever)));
        match () {
            () if some_call => return (part(used.total()), given, Verdict::Wait),
            () if !first.floor.fits(all_of(ever)) => return (part(used.total()), given, Verdict::Spent),
            () if !first.floor.fits(all_of(free)) => return (part(used.total()), given, Verdict::Wait),
            // Crumbs, because there will never be more.
            () => given[0] = Some(first.call.min(free)),
        }
    }
    let now = sum(&given);
    let room = Purse {
        tokens: room(free.tokens, now.tokens, rest.tokens),
        nano_usd: room(free.nano_usd, now.nano_usd, rest.cost_nano_usd),
    };
    (part(sums.own.taken.max(used.total().plus(room))), given, Verdict::Enough)
}

/// How far a tenant's limits are spent.
pub(super) fn shares(tenant: &Tenant, spent: Purse, limit: Purse) -> [Share; 2] {
    let share = |name: &str, used, limit| Share { name: format!("tenant {tenant} {name}"), used, limit };
    [share("tokens", spent.tokens, limit.tokens), share("usd", spent.nano_usd, limit.nano_usd)]
}

/// Those of a tenant's limits that leave less than this, in words, and how to have more.
pub(super) fn exhausted(tenant: &Tenant, spent: Purse, limit: Purse, least: Purse) -> Option<String> {
    let left = limit.minus(spent);
    let [tokens, usd] = shares(tenant, spent, limit);
    let few = [(tokens, left.tokens < least.tokens), (usd, left.nano_usd < least.nano_usd)];
    let few: Vec<String> = few.iter().filter(|(_, is_few)| *is_few).map(|(share, _)| share.to_string()).collect();
    (!few.is_empty()).then(|| format!("{} are spent by its runs of this UTC day", few.join(" and ")))
}

pub(super) fn more(tenant: &Tenant) -> String {
    format!("[tenant_budget.{tenant}] of the orchestrators' oarlock.toml")
}

#[cfg(test)]
#[path = "tenants_tests.rs"]
mod tests;
