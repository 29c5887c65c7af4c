//! What agents see of a run's shared state, what they propose to change in it, and what became of that.
//!
//! An agent never writes: it proposes in its reply, and the orchestrator changes everything that one reply proposes, or nothing
//! of it. What an agent sets, it has to have seen as it is; so of two that saw the same value the slower one is told,
//! and nothing of the quicker one is lost.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Failure, FailureKind, Outcome, Reply, WIRE_VERSION, limits};

/// First part of the keys that hold verdicts; no name of a value begins with it.
pub const STATE_RESERVED: &str = "_applied";
/// Bytes of one reason in a verdict.
const WHY_BYTES_MAX: usize = 512;

/// The shared state as a task shows it, at the moment when the task was first asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateView {
    /// Names in their order, with values as far as [`limits::STATE_INLINE_BYTES_MAX`] allows.
    #[serde(default)]
    pub seen: Vec<StateSeen>,
    /// Names that are not shown at all, because there was no room for them; there may be more than so many.
    #[serde(default)]
    pub more: u64,
}

/// One value of the shared state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSeen {
    /// Its name.
    pub name: String,
    /// Its revision: a later one is greater.
    pub revision: u64,
    /// The value as JSON text; `None` when there was no room for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<String>,
}

/// One change that an agent proposes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateChange {
    /// What to do.
    pub op: StateOp,
    /// The name of the value.
    pub name: String,
    /// What to set, to append, or to merge.
    pub value: Value,
    /// The revision that the value must have, 0 for one that must not be there; any when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
}

/// The ways to change a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateOp {
    /// Puts `value` in place of what is there.
    Set,
    /// Adds `value` to the end of the list that is there, or begins one.
    Append,
    /// Puts each field of the object `value` into the object that is there, or begins one; fields of the same name are replaced.
    Merge,
}

/// What became of the changes that one reply proposed: all were made, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateVerdict {
    /// Wire version.
    pub v: u32,
    /// The names whose values were changed, when nothing was refused.
    #[serde(default)]
    pub changed: Vec<String>,
    /// Why nothing was changed; empty when all was.
    #[serde(default)]
    pub refused: Vec<StateRefusal>,
    /// Why the reply counts for nothing, so that its changes were not even looked at; empty when it counts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub void: String,
}

/// A change that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRefusal {
    /// The name of the value.
    pub name: String,
    /// Why not, for the agent and for people.
    pub why: String,
    /// True when somebody else was quicker: the value has another revision than the one that was expected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub raced: bool,
}

impl StateView {
    /// True when there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty() && self.more == 0
    }

    /// Shows as many of `values`, in their order, as there is room for: names first, then the values, each whole or not at all.
    /// `more` names are left out already.
    pub fn of(values: Vec<StateSeen>, more: u64) -> Self {
        let mut room = limits::STATE_INLINE_BYTES_MAX;
        let all = values.len();
        let named = values.into_iter().take_while(|one| {
            let fits = one.name.len() <= room;
            room -= one.name.len().min(room);
            fits
        });
        let mut seen: Vec<StateSeen> = named.collect();
        for one in &mut seen {
            one.json = one.json.take().filter(|json| json.len() <= room);
            room -= one.json.as_ref().map_or(0, String::len);
        }
        Self { more: more + (all - seen.len()) as u64, seen }
    }

    /// The revision that this shows for `name`: 0 when it shows that there is none, `None` when it does not show that either.
    pub fn revision(&self, name: &str) -> Option<u64> {
        let seen = self.seen.iter().find(|seen| seen.name == name).map(|seen| seen.revision);
        seen.or((self.more == 0).then_some(0))
    }
}

impl StateChange {
    /// What is wrong with changes as such, whatever the state holds: one sentence each, naming the bound that was hit.
    pub fn faults(changes: &[StateChange]) -> Vec<StateRefusal> {
        let mut faults: Vec<StateRefusal> = changes.iter().filter_map(StateChange::fault).collect();
        let names: BTreeSet<&str> = changes.iter().map(|change| change.name.as_str()).collect();
        if names.len() > limits::STATE_KEYS_MAX || changes.len() > limits::STATE_CHANGES_MAX {
            let (count, keys) = (changes.len(), names.len());
            let why = format!(
                "{count} changes of {keys} names at once are over state_changes_max {} or state_keys_max {}",
                limits::STATE_CHANGES_MAX,
                limits::STATE_KEYS_MAX
            );
            faults.push(StateRefusal { name: String::new(), why, raced: false });
        }
        faults
    }

    fn fault(&self) -> Option<StateRefusal> {
        let why = match () {
            () if !is_state_name(&self.name) => format!("is no name of shared state; use {STATE_NAME_RULE}"),
            () if self.op == StateOp::Merge && !self.value.is_object() => "merge needs an object as its value".into(),
            () => too_large(&self.value)?,
        };
        Some(StateRefusal::of(&self.name, why))
    }

    /// The value that the change makes of what is there.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn applied(&self, there: Option<&Value>) -> Result<Value, StateRefusal> {
        let refused = |why: String| StateRefusal::of(&self.name, why);
        let value = match (self.op, there) {
            (StateOp::Set, _) | (StateOp::Merge, None) => self.value.clone(),
            (StateOp::Append, None) => Value::Array(vec![self.value.clone()]),
            (StateOp::Append, Some(Value::Array(list))) => {
                Value::Array(list.iter().chain([&self.value]).cloned().collect())
            }
            (StateOp::Append, Some(other)) => {
                return Err(refused(format!("is {}, and only a list can be appended to", kind(other))));
            }
            (StateOp::Merge, Some(Value::Object(there))) => {
                let mut merged = there.clone();
                merged.extend(self.value.as_object().cloned().unwrap_or_default());
                Value::Object(merged)
            }
            (StateOp::Merge, Some(other)) => {
                return Err(refused(format!("is {}, and only an object can be merged into", kind(other))));
            }
        };
        too_large(&value).map_or(Ok(value), |why| Err(refused(why)))
    }
}

impl StateVerdict {
    /// The verdict that everything was changed.
    pub fn changed(names: Vec<String>) -> Self {
        Self { v: WIRE_VERSION, changed: names, refused: Vec::new(), void: String::new() }
    }

    /// The verdict that nothing was changed, because the reply counts for nothing.
    pub fn void(why: &str) -> Self {
        Self { void: limits::cut(why, WHY_BYTES_MAX), ..Self::changed(Vec::new()) }
    }

    /// The verdict that nothing was; of many reasons the first [`limits::STATE_REFUSALS_MAX`] are kept.
    pub fn refused(mut refused: Vec<StateRefusal>) -> Self {
        refused.truncate(limits::STATE_REFUSALS_MAX);
        Self { refused, ..Self::changed(Vec::new()) }
    }

    /// True when nothing was changed for no other reason than that others were quicker.
    pub fn raced(&self) -> bool {
        !self.refused.is_empty() && self.refused.iter().all(|refusal| refusal.raced)
    }

    /// The reply as it counts: one whose changes were refused is a failure that tells why, so that its task is tried again.
    pub fn judged(&self, reply: Reply) -> Reply {
        if self.refused.is_empty() {
            return reply;
        }
        let why: Vec<String> = self.refused.iter().map(StateRefusal::to_string).collect();
        let message = format!(
            "nothing of the reply counts, because its changes of the shared state were refused: {}; look at the state as it is now, \
             and propose what still fits",
            why.join("; ")
        );
        Reply { outcome: Outcome::Failed { failure: Failure::again(FailureKind::StateConflict, message) }, ..reply }
    }
}

impl StateRefusal {
    /// A refusal, its texts cut to their bounds.
    pub fn of(name: &str, why: impl AsRef<str>) -> Self {
        let (name, why) = (limits::cut(name, limits::STATE_NAME_CHARS_MAX), limits::cut(why.as_ref(), WHY_BYTES_MAX));
        Self { name, why, raced: false }
    }
}

impl std::fmt::Display for StateRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.name.is_empty() { String::new() } else { format!("{:?} ", self.name) };
        write!(f, "{name}{}", self.why)
    }
}

/// What a name may be, in words.
pub const STATE_NAME_RULE: &str = "letters, digits, '-', '_', '/', '=' and single '.' inside, at most 128 of them, and not \"_applied\" at the beginning";

/// True for a name that a value of the shared state may have.
pub fn is_state_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_/=.".contains(c);
    let tokens = name.split('.').all(|token| !token.is_empty());
    let reserved = name.split('.').next() == Some(STATE_RESERVED);
    name.len() <= limits::STATE_NAME_CHARS_MAX && tokens && !reserved && name.chars().all(legal)
}

/// Why a value is too large, if it is.
fn too_large(value: &Value) -> Option<String> {
    let bytes = value.to_string().len();
    let over =
        || format!("would have {bytes} bytes, more than state_value_bytes_max {}", limits::STATE_VALUE_BYTES_MAX);
    (bytes > limits::STATE_VALUE_BYTES_MAX).then(over)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(op: StateOp, value: Value) -> StateChange {
        StateChange { op, name: "notes".into(), value, expected: None }
    }

    #[test]
    fn each_way_to_change_does_what_it_says_or_says_why_not() {
        let applied = |op, value: Value, there: Option<Value>| change(op, value).applied(there.as_ref());
        assert_eq!(applied(StateOp::Set, json!(1), Some(json!([2]))), Ok(json!(1)));
        assert_eq!(applied(StateOp::Append, json!(1), None), Ok(json!([1])));
        assert_eq!(applied(StateOp::Append, json!([2]), Some(json!([1]))), Ok(json!([1, [2]])));
        assert_eq!(
            applied(StateOp::Merge, json!({"a": 2}), Some(json!({"a": 1, "b": 1}))),
            Ok(json!({"a": 2, "b": 1}))
        );
        assert_eq!(applied(StateOp::Merge, json!({"a": 2}), None), Ok(json!({"a": 2})));
        for (op, value, there, says) in [
            (StateOp::Append, json!(1), json!("x"), "a text"),
            (StateOp::Append, json!(1), json!({}), "an object"),
            (StateOp::Merge, json!({}), json!([1]), "a list"),
            (StateOp::Merge, json!({}), json!(null), "null"),
            (StateOp::Append, json!("x"), json!(["y".repeat(64 * 1024 - 5)]), "state_value_bytes_max 65536"),
        ] {
            let refusal = applied(op, value, Some(there)).unwrap_err();
            assert!(refusal.name == "notes" && refusal.why.contains(says), "{refusal}");
        }
    }

    #[test]
    fn faults_name_what_is_wrong_and_the_bound() {
        let named = |name: &str| StateChange { name: name.into(), ..change(StateOp::Set, json!(1)) };
        assert!(StateChange::faults(&[change(StateOp::Set, json!(null)), named("a.b/c=d_e-f")]).is_empty());
        let many: Vec<_> = (0..101).map(|number| named(&format!("n{number}"))).collect();
        for (changes, says) in [
            (vec![named("")], "no name"),
            (vec![named("a..b")], "no name"),
            (vec![named("_applied.t1.1")], "no name"),
            (vec![named("_applied")], "no name"),
            (vec![change(StateOp::Merge, json!([1]))], "needs an object"),
            (vec![change(StateOp::Set, json!("x".repeat(64 * 1024)))], "state_value_bytes_max 65536"),
            (many, "state_keys_max 100"),
            (vec![named("a"); 201], "state_changes_max 200"),
        ] {
            let faults = StateChange::faults(&changes);
            assert!(faults.len() == 1 && faults[0].to_string().contains(says), "{says}: {faults:?}");
        }
    }

    #[test]
    fn a_view_says_what_it_leaves_out() {
        let value = |name: &str, bytes| StateSeen { name: name.into(), revision: 7, json: Some("x".repeat(bytes)) };
        let view = StateView::of(vec![value("a", 20_000), value("b", 20_000), value("c", 10)], 0);
        let whole: Vec<bool> = view.seen.iter().map(|seen| seen.json.is_some()).collect();
        assert_eq!((whole, view.more), (vec![true, false, true], 0));
        assert_eq!((view.revision("b"), view.revision("d")), (Some(7), Some(0)));
        let many = (0..400).map(|number| value(&format!("{number:0>100}"), 1)).collect();
        let view = StateView::of(many, 5);
        assert_eq!((view.seen.len(), view.more), (327, 78));
        assert_eq!(view.revision("d"), None, "it may be among those that are not shown");
    }
}
