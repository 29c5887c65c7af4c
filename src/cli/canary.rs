//! The settings of the canary: how often tests are tried with a known fault, and what it means when they miss it.

use super::config::{File, usage, variable_of};
use crate::roles::{CanaryRule, Survived};

/// `OARLOCK_CANARY_SHARE` and `OARLOCK_CANARY`, or `canary_share` and `canary` of the file.
///
/// # Errors
/// A share that is none, or a word that is not known.
pub(super) fn rule(file: &File) -> anyhow::Result<CanaryRule> {
    let mut rule = CanaryRule::default();
    let said = variable_of("OARLOCK_CANARY_SHARE");
    if let Some(text) = said.or_else(|| file.canary_share.map(|share| share.to_string())) {
        let share = text.trim().parse().ok().filter(|share| (0.0..=1.0).contains(share));
        let why =
            || usage(format!("canary_share is {text:?}; set a number from 0 (never) to 1 (after every test run)"));
        rule.share = share.ok_or_else(why)?;
    }
    match variable_of("OARLOCK_CANARY").or_else(|| file.canary.clone()).as_deref() {
        None | Some("report") => {}
        Some("strict") => rule.survived = Survived::Fails,
        Some(other) => return Err(usage(format!("canary is {other:?}; set \"report\" or \"strict\""))),
    }
    Ok(rule)
}
