//! What runs may spend: the part of the settings that bounds tokens, money, time and tasks.

use std::collections::HashMap;

use serde::Deserialize;

use super::config::{File, by_role, usage, variable_of};
use crate::orchestrator::{Budgets, RoleBudget, TenantBudgets};
use crate::roles::RoleSet;
use crate::wire::{Allowance, Budget, Purse, Role, Usd, limits};

/// What all tasks of a role may spend in one run.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleTable {
    tokens: Option<u64>,
    usd: Option<Usd>,
}

/// What all runs of a tenant may take in a UTC day.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantTable {
    tokens: Option<u64>,
    usd: Option<Usd>,
}

/// The name of a table that is for whoever has none.
const OTHERS: &str = "*";

/// What runs may spend: the defaults, over them `[budget]`, over that `OARLOCK_BUDGET`; of a role `[role_budget.<role>]`, or
/// its file.
pub(super) fn budgets(file: &File, roles: &RoleSet, exchanges_max: Option<usize>) -> anyhow::Result<Budgets> {
    let named: Budget = variable_of("OARLOCK_BUDGET")
        .unwrap_or_default()
        .parse()
        .map_err(|why: String| usage(format!("OARLOCK_BUDGET: {why}")))?;
    let filed = file.budget.clone().unwrap_or_default();
    if named.exchanges.or(filed.exchanges).is_some() {
        return Err(usage("the operator's budget of exchanges is exchanges_max (OARLOCK_EXCHANGES_MAX); set that"));
    }
    let run = named.or(filed).or(Budgets::default().run);
    let run = Budget { exchanges: exchanges_max.map(|max| max as u64), ..run };
    if let Some(tasks) = run.tasks.filter(|tasks| *tasks > limits::PLAN_TASKS_MAX as u64) {
        return Err(usage(format!("budget tasks is {tasks}, more than plan_tasks_max {}", limits::PLAN_TASKS_MAX)));
    }
    let mut of_roles = HashMap::new();
    let tables = by_role(&file.role_budget, "role_budget")?;
    for role in Role::ALL {
        let bounds = roles.get(role).limits;
        let table = tables.get(&role);
        if table.is_some_and(|table| table.tokens == Some(0)) {
            return Err(usage(format!("role_budget.{role}: tokens is 0; it must be 1 or more")));
        }
        let own = bounds.allowance();
        let allowance = Allowance {
            tokens: table.and_then(|table| table.tokens).or(own.tokens),
            cost_nano_usd: table.and_then(|table| table.usd).map(Usd::nano).or(own.cost_nano_usd),
        };
        of_roles.insert(role, RoleBudget { allowance, output_tokens: bounds.output_tokens });
    }
    Ok(Budgets { run, roles: of_roles, tenants: tenants(file)? })
}

/// What tenants may take in a day: the defaults, over them `[tenant_budget."*"]`, over that `[tenant_budget.<tenant>]`.
fn tenants(file: &File) -> anyhow::Result<TenantBudgets> {
    let of = |name: &str, below: Purse| -> anyhow::Result<Purse> {
        let Some(table) = file.tenant_budget.get(name) else { return Ok(below) };
        if table.tokens == Some(0) {
            return Err(usage(format!("tenant_budget.{name}: tokens is 0; it must be 1 or more")));
        }
        let (tokens, nano_usd) = (table.tokens.unwrap_or(below.tokens), table.usd.map_or(below.nano_usd, Usd::nano));
        Ok(Purse { tokens, nano_usd })
    };
    let others = of(OTHERS, TenantBudgets::default().others)?;
    let mut named = HashMap::new();
    for name in file.tenant_budget.keys().filter(|name| *name != OTHERS) {
        let tenant = name.parse().map_err(|error| usage(format!("configuration table [tenant_budget]: {error}")))?;
        named.insert(tenant, of(name, others)?);
    }
    Ok(TenantBudgets { others, named })
}
