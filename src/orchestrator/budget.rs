//! A run within its budgets: what its tasks get, when people are told, and when it stops.
//!
//! The goal names some bounds and the operator has all of them; the lower one counts, whoever holds the run. Tokens and
//! money are reserved when a task is sent (`ledger`) and written with its request, so that a takeover sends the same task
//! with the same allowance. Time is the server's, and counts from when the goal was stored.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::drive::Drive;
use super::facts::Facts;
use super::ledger::{Ledger, Need, Share, WARN_PERCENT};
use super::next::Job;
use super::tenants::TenantBudgets;
use crate::bus::clock::{nanos, since};
use crate::model::BYTES_PER_TOKEN;
use crate::store::StoreError;
use crate::wire::{
    Allowance, Budget, Event, EventKind, Failure, FailureKind, Outcome, Plan, Purse, Role, Task, TaskId, Usd, limits,
};

/// Bytes of a role's own words in a prompt, for the estimate of one call.
const PROMPT_BYTES: u64 = 8 * 1024;
/// Tokens of an answer of a role that the settings do not name.
const OUTPUT_TOKENS: u32 = 4096;
/// The next share of a task whose share was too small, in times of that.
const GROWTH: u64 = 2;
/// The smallest price that can be known.
const NANO_USD_MIN: u64 = 1;

/// What an operator lets runs spend.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// Of one run: what a goal that names nothing gets, and the most that one can name. Without `exchanges` they are scaled
    /// with the plan.
    pub run: Budget,
    /// Of all tasks of a role in one run.
    pub roles: HashMap<Role, RoleBudget>,
    /// Of all runs of a tenant in a UTC day.
    pub tenants: TenantBudgets,
}

/// What all tasks of a role may spend in one run.
#[derive(Clone, Copy, Debug)]
pub struct RoleBudget {
    /// The bound; the run's alone where it has none.
    pub allowance: Allowance,
    /// Tokens of one completion.
    pub output_tokens: u32,
}

impl Default for RoleBudget {
    fn default() -> Self {
        Self { allowance: Allowance::default(), output_tokens: OUTPUT_TOKENS }
    }
}

impl Default for Budgets {
    fn default() -> Self {
        let run = Budget {
            exchanges: None,
            depth: Some(limits::PLAN_DEPTH_MAX as u64),
            tasks: Some(limits::PLAN_TASKS_MAX as u64),
            time_s: Some(limits::RUN_TIME_S_MAX),
            tokens: Some(limits::RUN_TOKENS_MAX),
            usd: Some(Usd::from_nano(limits::RUN_USD_MAX * 1_000_000_000)),
        };
        Self { run, roles: HashMap::new(), tenants: TenantBudgets::default() }
    }
}

impl Budgets {
    fn role(&self, role: Role) -> RoleBudget {
        self.roles.get(&role).copied().unwrap_or_default()
    }

    /// The budget of a run whose goal asks for `asked`: of each bound the lower one.
    pub(super) fn of(&self, asked: &Budget) -> Budget {
        let lower = |asked: Option<u64>, max: Option<u64>| asked.into_iter().chain(max).min();
        Budget {
            exchanges: lower(asked.exchanges, self.run.exchanges),
            depth: lower(asked.depth, self.run.depth),
            tasks: lower(asked.tasks, self.run.tasks),
            time_s: lower(asked.time_s, self.run.time_s),
            tokens: lower(asked.tokens, self.run.tokens),
            usd: asked.usd.into_iter().chain(self.run.usd).min(),
        }
    }

    /// When the time of a run is over, by the server's clock, in nanoseconds since 1970.
    pub(super) fn time_over(&self, facts: &Facts) -> Option<i64> {
        let time_s = self.of(&facts.goal.budget).time_s?;
        Some(facts.time_began().saturating_add(nanos(Duration::from_secs(time_s))))
    }

    fn ledger(&self, facts: &Facts) -> Ledger {
        let budget = self.of(&facts.goal.budget);
        let whole = Allowance { tokens: budget.tokens, cost_nano_usd: budget.usd.map(Usd::nano) };
        Ledger::of(facts, whole, |role| self.role(role).allowance)
    }

    /// What a task needs: what one call of its role may take, and more than an attempt before had that was refused for it.
    fn need(&self, facts: &Facts, job: &Job, task: &Task) -> Need {
        let bytes = serde_json::to_vec(task).map_or(0, |json| json.len() as u64) + PROMPT_BYTES;
        let bytes = task.files.iter().fold(bytes, |sum, file| sum.saturating_add(file.bytes));
        let answer = u64::from(self.role(job.role).output_tokens);
        let mut call = Purse { tokens: bytes / BYTES_PER_TOKEN + answer, nano_usd: NANO_USD_MIN };
        let mut floor = Purse { tokens: limits::ANSWER_TOKENS_MIN.min(answer), nano_usd: NANO_USD_MIN };
        if let Some(before) = refused(facts, job) {
            let grown = |had: u64, least: u64| had.saturating_mul(GROWTH).max(least);
            call = Purse { tokens: grown(before.tokens, call.tokens), nano_usd: grown(before.nano_usd, call.nano_usd) };
            // More of what it lacked; a little more of the other does no harm.
            floor.tokens = floor.tokens.max(before.tokens.saturating_add(1));
        }
        let alone = job.task == TaskId::plan() || job.task == TaskId::answer();
        Need { role: job.role, call, floor, alone }
    }
}

/// What the attempt before had, when it failed because that was too little.
fn refused(facts: &Facts, job: &Job) -> Option<Purse> {
    let before = facts.before_work(&job.task, job.attempt)?;
    before.failure().filter(|failure| failure.kind == FailureKind::BudgetExceeded)?;
    let request = facts.request_of(&job.task, before.attempt)?;
    Some(Purse::reserved(request.message.metadata.budget))
}

/// How many of the plan's tasks have a good reply.
pub(super) fn achieved(facts: &Facts) -> String {
    let Some(plan) = &facts.plan else { return "there is no plan yet".to_owned() };
    let done = |id: &TaskId| {
        let mut replies = facts.results.range((id.clone(), facts.first(id))..=(id.clone(), u32::MAX));
        replies.any(|(_, reply)| matches!(reply.outcome, Outcome::Completed { .. }))
    };
    let count = plan.tasks.iter().filter(|task| done(&task.id)).count();
    format!("{count} of {} tasks are done", plan.tasks.len())
}

/// The end of a run whose budget of this name is spent, with what is there and what to do. That of a role has it before.
fn exceeded(facts: &Facts, what: &str, name: &str) -> Failure {
    let raise = match name.split_once(' ') {
        Some((role, name)) => {
            format!("[role_budget.{role}] {name} in oarlock.toml, or limits.{name} of roles/{role}.md")
        }
        None => format!(
            "--budget {name}=N, or \"budget\" of the goal, up to the operator's (OARLOCK_BUDGET, or [budget] in oarlock.toml)"
        ),
    };
    let message = format!(
        "budget exceeded: {what}; {}, and what they made is kept: `oarlock show` and `oarlock artifacts`. `oarlock retry` \
         goes on from there with the whole budget once more; a higher one is {raise}",
        achieved(facts)
    );
    Failure::never(FailureKind::BudgetExceeded, message)
}

/// What one holder knows of a run's time, and has told of its budgets.
#[derive(Default)]
pub(super) struct Watch {
    /// When its time is over.
    ends: Option<Instant>,
    /// When most of it is.
    warns: Option<Instant>,
    /// The budgets that people were told of.
    told: BTreeSet<String>,
}

impl Drive<'_> {
    /// The budget in force.
    pub(super) fn budget(&self) -> Budget {
        self.of.settings.budgets.of(&self.facts.goal.budget)
    }

    /// Looks up when the run's time is over.
    pub(super) async fn begin_watch(&mut self) -> Result<(), StoreError> {
        let Some(time_s) = self.budget().time_s else { return Ok(()) };
        let began = self.facts.time_began();
        let now = self.of.bus.server_now().await?;
        let at = |part_ms: u64| {
            let end = began.saturating_add(nanos(Duration::from_millis(part_ms)));
            Instant::now().checked_add(since(end, now))
        };
        self.watch.ends = at(time_s.saturating_mul(1_000));
        self.watch.warns = at(time_s.saturating_mul(10 * WARN_PERCENT));
        Ok(())
    }

    /// When the run's time is over, by the server's clock, in nanoseconds since 1970.
    pub(super) fn time_over(&self) -> Option<i64> {
        self.of.settings.budgets.time_over(&self.facts)
    }

    /// The failure of a run whose time is over.
    pub(super) fn over_time(&self) -> Option<Failure> {
        self.watch.ends.filter(|ends| *ends <= Instant::now())?;
        let time_s = self.budget().time_s.unwrap_or_default();
        Some(exceeded(&self.facts, &format!("the run took longer than its budget time_s {time_s}"), "time_s"))
    }

    /// The failure of a run whose plan has too many tasks, or too many in a row.
    pub(super) fn too_large(&self, plan: &Plan) -> Option<Failure> {
        self.budget().broken_by(plan).map(|(name, what)| exceeded(&self.facts, &what, name))
    }

    /// When the run's time is over, for whoever sets an alarm.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.watch.ends
    }

    /// When something is to be told or ended although nothing comes.
    pub(super) fn next_watch(&self) -> Option<Instant> {
        let warns = self.watch.warns.filter(|_| !self.watch.told.contains("time_s"));
        self.watch.ends.into_iter().chain(warns).chain(self.tenancy.again).min()
    }

    /// What each task that was not asked for before needs.
    pub(super) fn needs(&self, tasks: &[(Job, Task, bool)]) -> Vec<Need> {
        let new = tasks.iter().filter(|(_, _, known)| !known);
        new.map(|(job, task, _)| self.of.settings.budgets.need(&self.facts, job, task)).collect()
    }

    /// What is left of the run's own budget.
    pub(super) fn rest(&self) -> Allowance {
        self.of.settings.budgets.ledger(&self.facts).left()
    }

    /// What these tasks may spend, `None` for those that wait; those that were asked for before have what they had.
    ///
    /// # Errors
    /// The end of the run: nothing is under way, and too little is left for a task.
    pub(super) fn granted(
        &self,
        tasks: &[(Job, Task, bool)],
        needs: &[Need],
        under_way: usize,
    ) -> Result<Vec<Option<Allowance>>, Failure> {
        let ledger = self.of.settings.budgets.ledger(&self.facts);
        let new = || tasks.iter().filter(|(_, _, known)| !known);
        let granted = ledger.grant(needs, under_way).map_err(|short| {
            let job = needs.iter().zip(new()).find(|(need, _)| **need == short).map(|(_, (job, ..))| job);
            self.short(&ledger, &short, job)
        })?;
        let mut granted = granted.into_iter();
        let allowance = |(job, _, known): &(Job, Task, bool)| match known {
            true => Some(self.facts.request_of(&job.task, job.attempt)?.message.metadata.budget.unwrap_or_default()),
            false => granted.next().flatten(),
        };
        Ok(tasks.iter().map(allowance).collect())
    }

    /// The end of a run in which too little is left for a task.
    fn short(&self, ledger: &Ledger, need: &Need, job: Option<&Job>) -> Failure {
        let shares = ledger.short(need);
        let spent: Vec<String> = shares.iter().map(Share::to_string).collect();
        let task = job.map(|job| format!(" {}", job.task)).unwrap_or_default();
        let before = job.and_then(|job| self.facts.before_work(&job.task, job.attempt)?.failure());
        let before = before.filter(|failure| failure.kind == FailureKind::BudgetExceeded);
        let before = before.map(|failure| format!(" ({})", failure.message)).unwrap_or_default();
        let what = format!("{}, too little is left for task{task} of {}{before}", spent.join(" and "), need.role);
        exceeded(&self.facts, &what, shares.first().map_or("tokens", |share| &share.name))
    }

    /// Tells people, once per holder, of each budget of which most is spent.
    pub(super) async fn tell_budgets(&mut self) {
        let budget = self.budget();
        let mut shares = self.of.settings.budgets.ledger(&self.facts).shares();
        let share = |name: &str, used: usize, limit: u64| Share { name: name.to_owned(), used: used as u64, limit };
        let exchanges = 2 * self.facts.requests.len().saturating_sub(self.facts.restart.messages);
        shares.push(share("exchanges", exchanges, self.exchanges_max() as u64));
        if let (Some(plan), Some(max)) = (&self.facts.plan, budget.tasks) {
            shares.push(share("tasks", plan.tasks.len(), max));
        }
        if let (Some(plan), Some(max)) = (&self.facts.plan, budget.depth) {
            shares.push(share("depth", plan.depth(), max));
        }
        let mut high: Vec<(String, String)> = shares
            .into_iter()
            .filter(|share| share.is_high() && !self.watch.told.contains(&share.name))
            .map(|share| (share.to_string(), share.name))
            .collect();
        if self.watch.warns.is_some_and(|warns| warns <= Instant::now()) && !self.watch.told.contains("time_s") {
            let time_s = budget.time_s.unwrap_or_default();
            high.push((format!("{WARN_PERCENT} % of budget time_s {time_s}"), "time_s".to_owned()));
        }
        for (text, name) in high {
            let text = format!("most of a budget is spent: {text}");
            self.of.bus.tell(&Event::of_run(&self.lease.run, EventKind::Budget, text)).await;
            self.watch.told.insert(name);
        }
    }
}
