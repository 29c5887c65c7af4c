//! One holder and its tenant's day: it takes before it sends (`tenants` says how much), tells people how far the day is spent, and
//! gives back what it did not use.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Orchestrator;
use super::budget::achieved;
use super::claim::{Lease, Lost};
use super::drive::Drive;
use super::facts::Facts;
use super::ledger::{Need, Share};
use super::next::Job;
use super::send::Unsent;
use super::tenants::{Ask, Sums, Used, Verdict, all_of, days, exhausted, more, share, shares, sum};
use crate::bus::Bus;
use crate::store::{Payer, Store, StoreError};
use crate::wire::{
    Allowance, Event, EventKind, Failure, FailureKind, Purse, RunId, Spending, Task, Tenant, TenantDay, limits,
};

/// Tries of one change against other runs of the tenant.
const TAKE_TRIES_MAX: u32 = 64;
/// Pause before a run looks again whether others gave something back.
const LOOK_AGAIN_MS: u64 = 3_000;

/// What one holder knows of its tenant's day.
#[derive(Default)]
pub(super) struct Tenancy {
    /// The day of what follows.
    pub(super) day: Option<TenantDay>,
    /// The run's part, as it was written last.
    own: Spending,
    /// What all runs took then.
    all: Spending,
    /// When others may have given something back, for the wait that comes next.
    pub(super) again: Option<Instant>,
    /// What was not needed is given back, and nothing was taken since.
    given_back: bool,
    /// What people were told of.
    told: BTreeSet<String>,
}

/// What each of some tasks gets, what all runs took, and the verdict.
type Taken = (Vec<Option<Purse>>, Spending, Verdict);

/// Why no new run of this tenant is taken: its day is spent. `None` when it is not.
///
/// # Errors
/// When the store cannot be read.
pub(super) async fn refused(of: &Orchestrator, tenant: &Tenant) -> Result<Option<String>, StoreError> {
    let day = TenantDay::of(tenant, of.bus.server_now().await?);
    let (all, limit) = (of.store.spent.all(&day).await?, of.settings.budgets.tenants.of(tenant));
    let least = Purse { tokens: limits::ANSWER_TOKENS_MIN, nano_usd: 1 };
    let why = exhausted(tenant, all.spent, limit, least);
    Ok(why.map(|why| format!("budget exceeded: {why}; give the goal again tomorrow, or have {} raised", more(tenant))))
}

/// Gives back what a run has taken of its tenant's days and does not use: all that is not spent when it is `over`, else all that is
/// not under way. `day` is the one of which its holder took last; whoever does not know it looks at today and at the day of the
/// last request. The inner error says that the run is somebody else's, who gives back himself.
///
/// # Errors
/// When the store cannot be used, or others changed the same [`TAKE_TRIES_MAX`] times.
pub(super) async fn settle(
    bus: &Bus,
    store: &Store,
    facts: &Facts,
    day: Option<TenantDay>,
    over: bool,
    mut fence: Fence<'_>,
) -> Result<Result<(), Lost>, StoreError> {
    for day in days(facts, day, bus.server_now().await?) {
        if let Err(lost) = settle_day(store, facts, &day, over, &mut fence).await? {
            return Ok(Err(lost));
        }
    }
    Ok(Ok(()))
}

async fn settle_day(
    store: &Store,
    facts: &Facts,
    day: &TenantDay,
    over: bool,
    fence: &mut Fence<'_>,
) -> Result<Result<(), Lost>, StoreError> {
    let payer = Payer { run: fence.run().clone(), began: facts.began };
    let used = Used::of(facts, day);
    let taken = if over { used.spent } else { used.total() };
    let own = Spending { spent: used.spent, taken, ..Spending::default() };
    for _ in 0..TAKE_TRIES_MAX {
        let book = store.spent.book(day, &payer).await?;
        if own == book.own {
            return Ok(Ok(()));
        }
        // After the book was read: what a holder after us takes from now on makes the change fail.
        if let Err(lost) = fence.holds(store).await? {
            return Ok(Err(lost));
        }
        if store.spent.change(day, &payer, &book, own).await?.is_some() {
            return Ok(Ok(()));
        }
    }
    Err(StoreError::Contended { names: day.to_string(), tries: TAKE_TRIES_MAX })
}

/// How whoever gives back knows that nobody went on with the run meanwhile.
pub(super) enum Fence<'a> {
    /// He holds it.
    Held(&'a mut Lease),
    /// This generation of it is over, and the last.
    Over(&'a RunId, u32),
}

impl Fence<'_> {
    fn run(&self) -> &RunId {
        match self {
            Self::Held(lease) => &lease.run,
            Self::Over(run, _) => run,
        }
    }

    async fn holds(&mut self, store: &Store) -> Result<Result<(), Lost>, StoreError> {
        let (run, generation) = match self {
            Self::Held(lease) => return lease.prove(store).await,
            Self::Over(run, generation) => (*run, *generation),
        };
        let now = store.runs.record(run).await?;
        let same = now.is_some_and(|now| now.record.generation == generation);
        Ok(if same { Ok(()) } else { Err(Lost { superseded: true }) })
    }
}

impl Drive<'_> {
    /// What these tasks may spend within their tenant's day as well; `granted` is what the run's own budgets give them. Those that
    /// must wait get nothing: for what others give back, or, when there is nothing to wait for, for what is under way.
    ///
    /// # Errors
    /// The inner one ends the run or our part: the day is spent and nothing is under way, or the run is somebody else's.
    pub(super) async fn within_tenant(
        &mut self,
        tasks: &[(Job, Task, bool)],
        needs: &[Need],
        granted: Vec<Option<Allowance>>,
        now: i64,
    ) -> Result<Result<Vec<Option<Allowance>>, Unsent>, StoreError> {
        let limit = self.of.settings.budgets.tenants.of(&self.facts.goal.tenant);
        let new = || tasks.iter().zip(&granted).enumerate().filter(|(_, ((_, _, known), _))| !known);
        let asking = new().zip(needs).filter_map(|((index, (_, grant)), need)| Some((index, need, (*grant)?)));
        let (places, asks): (Vec<usize>, Vec<Ask>) =
            asking.map(|(index, need, grant)| (index, Ask::of(need, grant, limit))).unzip();
        if asks.is_empty() {
            return Ok(Ok(granted));
        }
        let role = needs.first().map(|need| need.role.to_string()).unwrap_or_default();
        let under_way =
            self.open().count() + tasks.iter().filter(|(job, _, known)| *known && !job.is_for_people()).count();
        let given = match self.take(&asks, limit, now).await? {
            Ok((given, all, verdict)) => {
                self.tell_tenant(all.spent, limit, verdict).await;
                if verdict == Verdict::Spent && under_way == 0 {
                    return Ok(Err(Unsent::Failed(self.spent_out(all.spent, limit, asks[0].floor, &role))));
                }
                given
            }
            Err(lost) => return Ok(Err(Unsent::Lost(lost))),
        };
        if given.iter().any(Option::is_none) {
            self.look_again();
        }
        let mut granted = granted;
        for (place, purse) in places.into_iter().zip(given) {
            granted[place] = purse.map(all_of);
        }
        Ok(Ok(granted))
    }

    /// Takes what these tasks want, unless enough was taken before: what each gets, the sum of all runs, and the verdict.
    async fn take(&mut self, asks: &[Ask], limit: Purse, now: i64) -> Result<Result<Taken, Lost>, StoreError> {
        let day = TenantDay::of(&self.facts.goal.tenant, now);
        let (used, rest, payer) = (Used::of(&self.facts, &day), self.rest(), self.payer());
        if self.tenancy.day.as_ref() == Some(&day) {
            let all: Vec<Option<Purse>> = asks.iter().map(|ask| Some(ask.most)).collect();
            if sum(&all).fits(all_of(self.tenancy.own.taken.minus(used.total()))) {
                return Ok(Ok((all, self.tenancy.all, Verdict::Enough)));
            }
        }
        for _ in 0..TAKE_TRIES_MAX {
            let book = self.of.store.spent.book(&day, &payer).await?;
            let (own, given, verdict) = share(Sums { own: book.own, all: book.all }, used, asks, rest, limit);
            if verdict != Verdict::Enough
                && let Err(lost) = self.lease.prove(&self.of.store).await?
            {
                return Ok(Err(lost));
            }
            let all = match own == book.own {
                true => book.all,
                false => match self.of.store.spent.change(&day, &payer, &book, own).await? {
                    Some(all) => all,
                    None => continue,
                },
            };
            (self.tenancy.own, self.tenancy.all, self.tenancy.day) = (own, all, Some(day));
            self.tenancy.given_back = false;
            return Ok(Ok((given, all, verdict)));
        }
        // Many runs take at this moment, and each try of ours met another's.
        Ok(Ok((vec![None; asks.len()], self.tenancy.all, Verdict::Wait)))
    }

    /// The end of a run whose tenant has spent its day.
    fn spent_out(&self, spent: Purse, limit: Purse, least: Purse, role: &str) -> Failure {
        let tenant = &self.facts.goal.tenant;
        let why = exhausted(tenant, spent, limit, least).unwrap_or_default();
        let message = format!(
            "budget exceeded: {why}, too little is left for a task of {role}; {}, and what they made is kept: `oarlock show` and \
             `oarlock artifacts`. `oarlock retry` goes on from there tomorrow, or when {} is raised",
            achieved(&self.facts),
            more(tenant)
        );
        Failure::never(FailureKind::BudgetExceeded, message)
    }

    fn look_again(&mut self) {
        let pause = Duration::from_millis(LOOK_AGAIN_MS + rand::random_range(0..=LOOK_AGAIN_MS));
        self.tenancy.again = Some(Instant::now() + pause);
    }

    /// Tells people, once per holder, that most of the day is spent, and that the run waits for others.
    async fn tell_tenant(&mut self, spent: Purse, limit: Purse, verdict: Verdict) {
        let tenant = &self.facts.goal.tenant;
        let high = shares(tenant, spent, limit).into_iter().filter(Share::is_high);
        let mut texts: Vec<(String, String)> = high
            .map(|share| (share.name.clone(), format!("most of a budget is spent: {share}, of this UTC day")))
            .collect();
        if verdict == Verdict::Wait {
            let text =
                format!("waits until other runs of tenant {tenant} give back what they have reserved of this UTC day");
            texts.push(("wait".to_owned(), text));
        }
        for (name, text) in texts {
            if self.tenancy.told.insert(name) {
                self.of.bus.tell(&Event::of_run(&self.lease.run, EventKind::Budget, text)).await;
            }
        }
    }

    /// Writes what calls took beyond what the run has taken: others must not count on it. Nothing to do while models keep to their
    /// shares.
    pub(super) async fn report_overrun(&mut self) -> Result<(), StoreError> {
        let Some(day) = self.tenancy.day.clone() else { return Ok(()) };
        let (used, payer) = (Used::of(&self.facts, &day), self.payer());
        if used.total().fits(all_of(self.tenancy.own.taken)) {
            return Ok(());
        }
        for _ in 0..TAKE_TRIES_MAX {
            let book = self.of.store.spent.book(&day, &payer).await?;
            let own = Spending { spent: used.spent, taken: book.own.taken.max(used.total()), ..Spending::default() };
            if own == book.own || self.of.store.spent.change(&day, &payer, &book, own).await?.is_some() {
                self.tenancy.own = own;
                break;
            }
        }
        Ok(())
    }

    fn payer(&self) -> Payer {
        Payer { run: self.lease.run.clone(), began: self.facts.began }
    }

    /// Gives back what is not under way, before a wait that may be long. The inner error ends our part.
    pub(super) async fn give_back(&mut self) -> Result<Result<(), Lost>, StoreError> {
        if self.tenancy.given_back {
            return Ok(Ok(()));
        }
        let (of, day, fence) = (self.of, self.tenancy.day.clone(), Fence::Held(&mut self.lease));
        if let Err(lost) = settle(&of.bus, &of.store, &self.facts, day, false, fence).await? {
            return Ok(Err(lost));
        }
        (self.tenancy.day, self.tenancy.given_back) = (None, true);
        Ok(Ok(()))
    }
}
