//! On whose account a run is: a name that its goal gives, and what the runs of that name took of a day.
//!
//! Nobody here checks that a caller is who he says. Where that matters, NATS does: an account of its own for each tenant, or
//! a service in front of the doors that sets the name (docs/operations.md).

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Allowance, RunId, Tenant, Usage, WIRE_VERSION};

/// The name of a goal that names nobody.
const DEFAULT: &str = "default";
/// Nanoseconds of a second.
const NANOS: i128 = 1_000_000_000;

impl Default for Tenant {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl Tenant {
    /// True for the name of a goal that names nobody.
    pub fn is_default(&self) -> bool {
        self.0 == DEFAULT
    }

    /// What an idempotency key is counted under. That of the default tenant is empty, as it was before there were tenants: so
    /// a key of that time is still the same run.
    pub fn of_keys(&self) -> &str {
        if self.is_default() { "" } else { &self.0 }
    }
}

/// Tokens and money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Purse {
    /// Tokens read and written by models.
    pub tokens: u64,
    /// Billionths of a US dollar, as far as prices are known.
    pub nano_usd: u64,
}

impl Purse {
    /// What some calls took.
    pub fn of(usage: &Usage) -> Self {
        Self { tokens: usage.tokens(), nano_usd: usage.cost_nano_usd.unwrap_or(0) }
    }

    /// What an attempt with this allowance had; what it had no bound of counts as nothing.
    pub fn reserved(allowance: Option<Allowance>) -> Self {
        let allowance = allowance.unwrap_or_default();
        Self { tokens: allowance.tokens.unwrap_or(0), nano_usd: allowance.cost_nano_usd.unwrap_or(0) }
    }

    /// The larger of each.
    pub fn max(self, other: Self) -> Self {
        Self { tokens: self.tokens.max(other.tokens), nano_usd: self.nano_usd.max(other.nano_usd) }
    }

    /// The smaller of each.
    pub fn min(self, other: Self) -> Self {
        Self { tokens: self.tokens.min(other.tokens), nano_usd: self.nano_usd.min(other.nano_usd) }
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            nano_usd: self.nano_usd.saturating_add(other.nano_usd),
        }
    }

    /// What is left without `other`, never less than nothing.
    pub fn minus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            nano_usd: self.nano_usd.saturating_sub(other.nano_usd),
        }
    }

    /// True when `left` has room for it.
    pub fn fits(self, left: Allowance) -> bool {
        left.tokens.is_none_or(|left| self.tokens <= left)
            && left.cost_nano_usd.is_none_or(|left| self.nano_usd <= left)
    }
}

/// What a run took of a day, or all runs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    /// Wire version.
    pub v: u32,
    /// What is spent, as it was last written.
    pub spent: Purse,
    /// What nobody else can have: what is spent, and what is reserved.
    pub taken: Purse,
}

impl Default for Spending {
    fn default() -> Self {
        Self { v: WIRE_VERSION, spent: Purse::default(), taken: Purse::default() }
    }
}

impl Spending {
    /// These sums after one part of them has changed.
    pub fn with(self, before: &Self, after: &Self) -> Self {
        Self {
            v: WIRE_VERSION,
            spent: self.spent.minus(before.spent).plus(after.spent),
            taken: self.taken.minus(before.taken).plus(after.taken),
        }
    }
}

/// What all runs of a tenant took of a day, and the part that changed last with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaySum {
    /// Wire version.
    pub v: u32,
    /// The sum.
    pub all: Spending,
    /// The part that this sum was changed with; whoever changes the sum next sees to it that it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<DayPart>,
}

/// One run's part of a day, as it is to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayPart {
    /// The run.
    pub run: RunId,
    /// When its goal was stored, in nanoseconds since 1970.
    pub began: i64,
    /// The revision of the part that it replaces, 0 for none.
    pub revision: u64,
    /// The part.
    pub own: Spending,
}

impl Default for DaySum {
    fn default() -> Self {
        Self { v: WIRE_VERSION, all: Spending::default(), last: None }
    }
}

/// A day of a tenant, in UTC; in keys `<tenant>.<year, month, day>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantDay {
    tenant: Tenant,
    /// 20261231.
    day: u32,
}

impl TenantDay {
    /// The day that a time lies in, in nanoseconds since 1970.
    pub fn of(tenant: &Tenant, at: i64) -> Self {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at).div_euclid(NANOS) * NANOS);
        let date = time.unwrap_or(OffsetDateTime::UNIX_EPOCH).date();
        let year = u32::try_from(date.year()).unwrap_or_default();
        Self {
            tenant: tenant.clone(),
            day: year * 10_000 + u32::from(u8::from(date.month())) * 100 + u32::from(date.day()),
        }
    }

    /// Whose day it is.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }
}

impl fmt::Display for TenantDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08}", self.tenant, self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::RunId;

    #[test]
    fn a_day_is_one_of_utc() {
        let acme: Tenant = "acme".parse().unwrap();
        for (at, day) in [
            (0, "acme.19700101"),
            (1_798_761_599_999_999_999, "acme.20261231"),
            (1_798_761_600_000_000_000, "acme.20270101"),
        ] {
            assert_eq!(TenantDay::of(&acme, at).to_string(), day);
        }
        assert!(TenantDay::of(&acme, i64::MIN).to_string().starts_with("acme."));
    }

    #[test]
    fn tenants_are_names_and_their_keys_do_not_meet() {
        for bad in ["", "a.b", "a b", "*", "a-b", "é", &"x".repeat(33)] {
            assert!(bad.parse::<Tenant>().is_err(), "{bad:?} was taken");
        }
        let acme: Tenant = "acme".parse().unwrap();
        assert_eq!(RunId::from_key(Tenant::default().of_keys(), "k"), RunId::from_key("", "k"));
        assert_ne!(RunId::from_key(acme.of_keys(), "k"), RunId::from_key("", "k"));
    }

    #[test]
    fn sums_follow_their_parts() {
        let purse = |tokens| Purse { tokens, nano_usd: 2 * tokens };
        let sum = Spending { spent: purse(10), taken: purse(100), ..Spending::default() };
        let (before, after) = (
            Spending { spent: purse(5), taken: purse(50), ..Spending::default() },
            Spending { spent: purse(7), taken: purse(7), ..Spending::default() },
        );
        assert_eq!(sum.with(&before, &after), Spending { spent: purse(12), taken: purse(57), ..Spending::default() });
    }
}
