//! What a run may spend, and what of it one task gets.
//!
//! A budget is asked for with a goal and set by an operator in the same form; the operator's is the ceiling. A bound that
//! is zero, less, or not understood is refused and never taken for "no bound".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Plan, limits};

/// Nanodollars in a dollar.
const NANO: f64 = 1e9;

/// Bounds of one run; what is not named is the operator's. In words `tokens=200000,usd=2.5`, in JSON
/// `{"tokens": 200000, "usd": 2.5}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Named")]
pub struct Budget {
    /// Messages, requests and replies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchanges: Option<u64>,
    /// Tasks of the plan that wait for each other in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<u64>,
    /// Tasks of the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// Seconds from when the goal was stored, or tried again, by the server's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_s: Option<u64>,
    /// Tokens read and written by models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Money, as far as prices are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd: Option<Usd>,
}

/// Money: billionths of a US dollar, in JSON a number of dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Usd(u64);

/// What one attempt of a task may spend: it is reserved when the task is sent, and given back by its reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allowance {
    /// Tokens read and written; no bound when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Billionths of a US dollar; no bound when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_nano_usd: Option<u64>,
}

/// A budget as it is written, before its numbers are looked at. A name that is not known here is an error: a bound that
/// is passed over silently is worse than none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Named {
    exchanges: Option<f64>,
    depth: Option<f64>,
    tasks: Option<f64>,
    time_s: Option<f64>,
    tokens: Option<f64>,
    usd: Option<Usd>,
}

impl TryFrom<Named> for Budget {
    type Error = String;
    fn try_from(named: Named) -> Result<Self, String> {
        let count = |name, number: Option<f64>, max| number.map(|number| count(name, number, max)).transpose();
        Ok(Self {
            exchanges: count("exchanges", named.exchanges, limits::BUDGET_COUNT_MAX)?,
            depth: count("depth", named.depth, limits::BUDGET_COUNT_MAX)?,
            tasks: count("tasks", named.tasks, limits::BUDGET_COUNT_MAX)?,
            time_s: count("time_s", named.time_s, limits::BUDGET_TIME_S_MAX)?,
            tokens: count("tokens", named.tokens, limits::BUDGET_TOKENS_MAX)?,
            usd: named.usd,
        })
    }
}

/// A whole number from 1 to `max`.
fn count(name: &str, number: f64, max: u64) -> Result<u64, String> {
    match number.fract() == 0.0 && (1.0..=max as f64).contains(&number) {
        true => Ok(number as u64),
        false => Err(format!("budget {name} is {number}; it must be a whole number from 1 to {max}")),
    }
}

impl Budget {
    /// What this names, and for the rest what `other` names.
    pub fn or(self, other: Self) -> Self {
        Self {
            exchanges: self.exchanges.or(other.exchanges),
            depth: self.depth.or(other.depth),
            tasks: self.tasks.or(other.tasks),
            time_s: self.time_s.or(other.time_s),
            tokens: self.tokens.or(other.tokens),
            usd: self.usd.or(other.usd),
        }
    }

    /// True when it bounds nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The first bound that a plan does not keep to: its name, and the sentence that says so.
    pub fn broken_by(&self, plan: &Plan) -> Option<(&'static str, String)> {
        let (tasks, depth) = (plan.tasks.len() as u64, plan.depth() as u64);
        if let Some(max) = self.tasks.filter(|max| tasks > *max) {
            return Some((
                "tasks",
                format!("the plan has {tasks} tasks, with the tests that it forgot, and budget tasks is {max}"),
            ));
        }
        let max = self.depth.filter(|max| depth > *max)?;
        let what = format!("{depth} tasks of the plan wait for each other in a row, the tests that it forgot included");
        Some(("depth", format!("{what}, and budget depth is {max}")))
    }

    /// The first of its bounds that is above that of `ceiling`, in words.
    ///
    /// # Errors
    /// The name of the bound, and both values.
    pub fn within(&self, ceiling: &Self) -> Result<(), String> {
        let counts = [
            ("exchanges", self.exchanges, ceiling.exchanges),
            ("depth", self.depth, ceiling.depth),
            ("tasks", self.tasks, ceiling.tasks),
            ("time_s", self.time_s, ceiling.time_s),
            ("tokens", self.tokens, ceiling.tokens),
        ];
        for (name, asked, max) in counts {
            if let (Some(asked), Some(max)) = (asked, max)
                && asked > max
            {
                return Err(over(name, &asked.to_string(), &max.to_string()));
            }
        }
        match (self.usd, ceiling.usd) {
            (Some(asked), Some(max)) if asked > max => Err(over("usd", &asked.to_string(), &max.to_string())),
            _ => Ok(()),
        }
    }
}

fn over(name: &str, asked: &str, max: &str) -> String {
    format!("budget {name} is {asked}, more than the operator's {max}; ask for less, or let the operator raise it")
}

impl FromStr for Budget {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut named = Named::default();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                format!("{pair:?} is no bound; write name=number, several with commas: tokens=200000,usd=2.5")
            })?;
            let (name, value) = (name.trim(), value.trim());
            let number: f64 =
                value.parse().map_err(|_| format!("budget {name} is {value:?}, which is no number; write one"))?;
            let place = match name {
                "exchanges" => &mut named.exchanges,
                "depth" => &mut named.depth,
                "tasks" => &mut named.tasks,
                "time_s" => &mut named.time_s,
                "tokens" => &mut named.tokens,
                "usd" => {
                    named.usd = Some(Usd::try_from(number)?);
                    continue;
                }
                _ => {
                    return Err(format!(
                        "there is no budget {name:?}; there are exchanges, depth, tasks, time_s, tokens and usd"
                    ));
                }
            };
            *place = Some(number);
        }
        named.try_into()
    }
}

impl Usd {
    /// So many billionths of a dollar.
    pub const fn from_nano(nano: u64) -> Self {
        Self(nano)
    }

    /// The same in billionths of a dollar.
    pub const fn nano(self) -> u64 {
        self.0
    }
}

impl TryFrom<f64> for Usd {
    type Error = String;
    fn try_from(dollars: f64) -> Result<Self, String> {
        let nano = (dollars * NANO).round();
        match nano >= 1.0 && dollars <= limits::BUDGET_USD_MAX as f64 {
            true => Ok(Self(nano as u64)),
            false => {
                let max = limits::BUDGET_USD_MAX;
                Err(format!("budget usd is {dollars}; it must be more than 0 and at most {max} dollars"))
            }
        }
    }
}

impl From<Usd> for f64 {
    fn from(usd: Usd) -> f64 {
        usd.0 as f64 / NANO
    }
}

impl fmt::Display for Usd {
    /// To a hundredth of a cent, rounded up: what is not nothing is not shown as nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.0.div_ceil(100_000);
        write!(f, "${}.{:04}", parts / 10_000, parts % 10_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_json(text: &str) -> Result<Budget, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn words_and_json_say_the_same() {
        let words: Budget = "tokens=200000, usd=2.5,time_s=600,tasks=10,exchanges=40,depth=4".parse().unwrap();
        let json = r#"{"exchanges":40,"depth":4,"tasks":10,"time_s":600,"tokens":200000,"usd":2.5}"#;
        assert_eq!(of_json(json), Ok(words.clone()));
        assert_eq!(serde_json::to_string(&words).unwrap(), json);
        assert_eq!(words.usd, Some(Usd::from_nano(2_500_000_000)));
        assert!("".parse::<Budget>().unwrap().is_empty() && of_json("{}").unwrap().is_empty());
        assert_eq!(Usd::from_nano(2_500_000_000).to_string(), "$2.5000");
    }

    #[test]
    fn what_bounds_nothing_is_refused_by_name() {
        for (words, says) in [
            ("tokens=0", "budget tokens is 0; it must be a whole number from 1 to"),
            ("tokens=-5", "budget tokens is -5"),
            ("tasks=1.5", "whole number"),
            ("depth=0", "budget depth is 0"),
            ("time_s=NaN", "budget time_s is NaN"),
            ("time_s=1e30", "budget time_s is 1000000000000000000000000000000"),
            ("exchanges=inf", "budget exchanges is inf"),
            ("tokens=many", "\"many\", which is no number"),
            ("usd=0", "budget usd is 0; it must be more than 0"),
            ("usd=-1", "budget usd is -1"),
            ("usd=nan", "budget usd is NaN"),
            ("usd=1e-10", "budget usd is 0.0000000001"),
            ("usd=2e6", "at most 1000000"),
            ("token=5", "no budget \"token\"; there are"),
            ("tokens", "is no bound"),
        ] {
            let why = words.parse::<Budget>().unwrap_err();
            assert!(why.contains(says), "{words}: {why}");
        }
        for (json, says) in [
            (r#"{"tokens":0}"#, "budget tokens is 0"),
            (r#"{"tokens":-1}"#, "budget tokens is -1"),
            (r#"{"tokens":"5"}"#, "invalid type"),
            (r#"{"usd":0}"#, "budget usd is 0"),
            (r#"{"token":5}"#, "unknown field"),
        ] {
            let why = of_json(json).unwrap_err();
            assert!(why.contains(says), "{json}: {why}");
        }
    }

    #[test]
    fn more_than_the_ceiling_is_named() {
        let budget = |words: &str| words.parse::<Budget>().unwrap();
        let ceiling = budget("tokens=100,usd=1,tasks=5,time_s=60,depth=3");
        assert_eq!(budget("tokens=100,usd=1,exchanges=1000").within(&ceiling), Ok(()));
        for (asked, says) in [
            ("tokens=101", "budget tokens is 101, more than the operator's 100"),
            ("tasks=6", "budget tasks"),
            ("depth=4", "budget depth is 4, more than the operator's 3"),
            ("time_s=61", "budget time_s"),
            ("usd=1.01", "budget usd is $1.0100, more than the operator's $1.0000"),
        ] {
            let why = budget(asked).within(&ceiling).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }
}
