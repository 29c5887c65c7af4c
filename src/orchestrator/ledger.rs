//! What of a run's budgets is spent, what is reserved, and what the next tasks may take: pure, from stored facts.
//!
//! Spent is what the replies say; reserved is the allowance of every attempt that was asked for and has no reply. Both are
//! read from the store, so no counter can be lost and every holder comes to the same sums. Only the run's holder sends
//! tasks, and it reserves before it does; so the allowances under way and what is spent are never more than the budget,
//! and a worker that keeps to its own goes over by one call at most.

use std::collections::BTreeMap;

use super::facts::Facts;
use crate::wire::{Allowance, Party, Purse, Role, Usd};

/// Part of a budget, in percent, from which on people are told.
pub(super) const WARN_PERCENT: u64 = 80;

/// One budget: its bound, and what of it is gone.
#[derive(Clone, Copy, Debug, Default)]
struct Scope {
    limit: Allowance,
    spent: Purse,
    reserved: Purse,
}

/// What a task must get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) role: Role,
    /// What one call may take: its prompt and the longest answer.
    pub(super) call: Purse,
    /// What is enough to begin when nothing else is under way.
    pub(super) floor: Purse,
    /// Nothing can become ready before it is done, so nothing is kept back.
    pub(super) alone: bool,
}

/// The budgets of a run.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    whole: Scope,
    roles: BTreeMap<Role, Scope>,
}

/// How far a budget is spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// `tokens`, `usd`, or the same with the role before it.
    pub(super) name: String,
    pub(super) used: u64,
    pub(super) limit: u64,
}

fn smaller(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

impl Scope {
    fn less(&self, gone: Purse) -> Allowance {
        Allowance {
            tokens: self.limit.tokens.map(|limit| limit.saturating_sub(gone.tokens)),
            cost_nano_usd: self.limit.cost_nano_usd.map(|limit| limit.saturating_sub(gone.nano_usd)),
        }
    }

    /// What is neither spent nor reserved.
    fn left(&self) -> Allowance {
        self.less(self.spent.plus(self.reserved))
    }

    /// What can ever be left, should all that is reserved be given back.
    fn ever(&self) -> Allowance {
        self.less(self.spent)
    }

    /// An equal part of what is left.
    fn part(&self, parts: u64) -> Allowance {
        let left = self.left();
        Allowance {
            tokens: left.tokens.map(|left| left / parts),
            cost_nano_usd: left.cost_nano_usd.map(|left| left / parts),
        }
    }

    fn shares(&self, of: &str) -> Vec<Share> {
        let share =
            |name: &str, used, limit: Option<u64>| Some(Share { name: format!("{of}{name}"), used, limit: limit? });
        let tokens = share("tokens", self.spent.tokens, self.limit.tokens);
        tokens.into_iter().chain(share("usd", self.spent.nano_usd, self.limit.cost_nano_usd)).collect()
    }
}

impl Ledger {
    /// The sums of a run's generation, with the bounds of the run and of single roles.
    pub(super) fn of(facts: &Facts, whole: Allowance, roles: impl Fn(Role) -> Allowance) -> Self {
        let mut ledger = Self { whole: Scope { limit: whole, ..Scope::default() }, roles: BTreeMap::new() };
        for role in Role::ALL {
            ledger.roles.insert(role, Scope { limit: roles(role), ..Scope::default() });
        }
        for (role, usage) in facts.usages() {
            let before = facts.restart.spent.get(&role).map(Purse::of).unwrap_or_default();
            let spent = Purse::of(&usage).minus(before);
            ledger.each(role, |scope| scope.spent = scope.spent.plus(spent));
        }
        for entry in &facts.requests {
            let about = &entry.message.metadata;
            if let Party::Role(role) = entry.message.to
                && facts.result(&about.task, about.attempt).is_none()
            {
                ledger.reserve(role, Purse::reserved(about.budget));
            }
        }
        ledger
    }

    /// What is left of the run's own budget.
    pub(super) fn left(&self) -> Allowance {
        self.whole.left()
    }

    fn each(&mut self, role: Role, change: impl Fn(&mut Scope)) {
        change(&mut self.whole);
        change(self.roles.entry(role).or_default());
    }

    fn reserve(&mut self, role: Role, purse: Purse) {
        self.each(role, |scope| scope.reserved = scope.reserved.plus(purse));
    }

    /// Both budgets that a task of a role is under.
    fn both(&self, role: Role) -> [Scope; 2] {
        [self.whole, self.roles.get(&role).copied().unwrap_or_default()]
    }

    fn least(&self, role: Role, of: impl Fn(&Scope) -> Allowance) -> Allowance {
        let [whole, own] = self.both(role).map(|scope| of(&scope));
        Allowance {
            tokens: smaller(whole.tokens, own.tokens),
            cost_nano_usd: smaller(whole.cost_nano_usd, own.cost_nano_usd),
        }
    }

    /// What each of these tasks may spend, `None` for those that wait until something is given back. `under_way` says how
    /// many attempts are. Each gets what one call may take, and an equal share of the rest; one more share is kept for what
    /// becomes ready meanwhile.
    ///
    /// # Errors
    /// The task that can never get enough, when nothing is under way. While something is, it may finish, and nothing is sent.
    pub(super) fn grant(&self, needs: &[Need], under_way: usize) -> Result<Vec<Option<Allowance>>, Need> {
        let none = || vec![None; needs.len()];
        let hopeless = |need: &&Need| !need.floor.fits(self.least(need.role, Scope::ever));
        if let Some(need) = needs.iter().find(hopeless) {
            return if under_way > 0 { Ok(none()) } else { Err(*need) };
        }
        let mut after = self.clone();
        let mut given: Vec<Option<Purse>> = Vec::with_capacity(needs.len());
        for need in needs {
            let left = after.least(need.role, Scope::left);
            let first = under_way == 0 && given.iter().all(Option::is_none);
            let purse = match () {
                () if need.call.fits(left) => Some(need.call),
                () if first && need.floor.fits(left) => Some(Purse {
                    tokens: need.call.tokens.min(left.tokens.unwrap_or(u64::MAX)),
                    nano_usd: need.call.nano_usd.min(left.cost_nano_usd.unwrap_or(u64::MAX)),
                }),
                () => None,
            };
            purse.into_iter().for_each(|purse| after.reserve(need.role, purse));
            given.push(purse);
        }
        let sent = |role: Option<Role>| {
            let of_role = needs
                .iter()
                .zip(&given)
                .filter(|(need, purse)| purse.is_some() && role.is_none_or(|role| need.role == role));
            of_role.count() as u64
        };
        match needs.first() {
            // What is reserved is nobody's whom we could wait for.
            Some(need) if sent(None) == 0 && under_way == 0 => return Err(*need),
            _ => {}
        }
        let granted = needs.iter().zip(&given).map(|(need, purse)| {
            let kept = u64::from(!need.alone);
            let [whole, own] = after.both(need.role);
            let (whole, own) = (whole.part(sent(None) + kept), own.part(sent(Some(need.role)) + kept));
            let more = |whole, own, purse: u64| smaller(whole, own).map(|part| purse.saturating_add(part));
            purse.map(|purse| Allowance {
                tokens: more(whole.tokens, own.tokens, purse.tokens),
                cost_nano_usd: more(whole.cost_nano_usd, own.cost_nano_usd, purse.nano_usd),
            })
        });
        Ok(granted.collect())
    }

    /// How far each budget is spent, the run's first.
    pub(super) fn shares(&self) -> Vec<Share> {
        let of_roles = self.roles.iter().flat_map(|(role, scope)| scope.shares(&format!("{role} ")));
        self.whole.shares("").into_iter().chain(of_roles).collect()
    }

    /// The budgets that are too small for this task; those of the run when none is, because the rest is reserved.
    pub(super) fn short(&self, need: &Need) -> Vec<Share> {
        let names = [String::new(), format!("{} ", need.role)];
        let scopes = self.both(need.role);
        let named = scopes.iter().zip(&names).flat_map(|(scope, name)| {
            let ever = scope.ever();
            let few = ever.tokens.is_some_and(|left| left < need.floor.tokens);
            let poor = ever.cost_nano_usd.is_some_and(|left| left < need.floor.nano_usd);
            let short = move |share: &Share| if share.name.ends_with("usd") { poor } else { few };
            scope.shares(name).into_iter().filter(short)
        });
        let short: Vec<Share> = named.collect();
        if short.is_empty() { self.whole.shares("") } else { short }
    }
}

impl Share {
    /// True when people should be told.
    pub(super) fn is_high(&self) -> bool {
        u128::from(self.used) * 100 >= u128::from(self.limit) * u128::from(WARN_PERCENT)
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, used, limit } = self;
        match name.ends_with("usd") {
            true => write!(f, "{} of budget {name} {}", Usd::from_nano(*used), Usd::from_nano(*limit)),
            false => write!(f, "{used} of budget {name} {limit}"),
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
