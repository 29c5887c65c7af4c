//! `oarlock state`: the shared state of a run, from a shell.

use std::collections::BTreeMap;

use serde_json::{Number, Value, json};

use super::answer::out;
use super::args::{StateArgs, StateVerb};
use super::attach;
use super::config::Config;
use super::exit::{Exit, ended};
use super::state_watch;
use crate::store::{StateEntry, Store};

/// One change of an update.
enum Change {
    Set(Value),
    Add(f64),
}

pub(super) async fn state(config: &Config, args: StateArgs) -> anyhow::Result<()> {
    let reached = attach::server(config).await?;
    let bus = &reached.bus;
    let state = Store::new(bus).state;
    match args.verb {
        StateVerb::Get { run, name: Some(name), json } => match state.get(&run, &name).await? {
            Some(entry) if json => out(&with_revision(&entry).to_string()),
            Some(entry) => out(&entry.value.to_string()),
            None => {
                Err(ended(Exit::NotFound, format!("run {run} has no state {name}; all of it: oarlock state get {run}")))
            }
        },
        StateVerb::Get { run, name: None, json } => {
            let all = state.all(&run).await?;
            let shown = |entry: StateEntry| if json { with_revision(&entry) } else { entry.value };
            let values: BTreeMap<String, Value> = all.into_iter().map(|(name, entry)| (name, shown(entry))).collect();
            out(&serde_json::to_string(&values)?)
        }
        StateVerb::Set { run, name, value, expect } => {
            let set = |values: &mut BTreeMap<String, Value>| drop(values.insert(name.clone(), parse(&value)));
            Ok(state.update_at(&run, &[&name], expect, set).await.map(drop)?)
        }
        StateVerb::Watch { run, new, json } => state_watch::watch(config, bus, &run, new, json).await,
        StateVerb::Update { run, changes, expect } => {
            let changes = changes.iter().map(|text| change(text)).collect::<anyhow::Result<Vec<_>>>()?;
            let names: Vec<&str> = changes.iter().map(|(name, _)| name.as_str()).collect();
            let mut wrong = None;
            let written = state.update_at(&run, &names, expect, |values| wrong = apply(&changes, values).err()).await?;
            match wrong {
                Some(why) => Err(ended(Exit::Usage, why)),
                None => out(&serde_json::to_string(&written)?),
            }
        }
    }
}

/// A value as `--json` shows it.
pub(super) fn with_revision(entry: &StateEntry) -> Value {
    json!({ "value": entry.value, "revision": entry.revision })
}

/// JSON, or else text as it is.
fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn change(text: &str) -> anyhow::Result<(String, Change)> {
    let refused = |why: &str| ended(Exit::Usage, format!("{text:?} {why}; write name=value or name+=number"));
    let (name, value) = text.split_once('=').ok_or_else(|| refused("has no '='"))?;
    match name.strip_suffix('+') {
        None => Ok((name.to_owned(), Change::Set(parse(value)))),
        Some(name) => match value.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok((name.to_owned(), Change::Add(number))),
            _ => Err(refused("adds no number")),
        },
    }
}

/// Applies all changes, or none when one of them does not fit what is there.
fn apply(changes: &[(String, Change)], values: &mut BTreeMap<String, Value>) -> Result<(), String> {
    let before = values.clone();
    let mut apply_all = || {
        for (name, change) in changes {
            let value = match change {
                Change::Set(value) => value.clone(),
                Change::Add(number) => sum(name, values.get(name), *number)?,
            };
            values.insert(name.clone(), value);
        }
        Ok(())
    };
    let applied = apply_all();
    if applied.is_err() {
        *values = before;
    }
    applied
}

fn sum(name: &str, there: Option<&Value>, number: f64) -> Result<Value, String> {
    let there = there.unwrap_or(&Value::Null);
    if let (Some(whole), true) = (there.as_i64().or(there.is_null().then_some(0)), number.fract() == 0.0) {
        let added = whole.checked_add(number as i64).ok_or_else(|| format!("{name} would be too large"))?;
        return Ok(added.into());
    }
    let sum = there.as_f64().or(there.is_null().then_some(0.0)).map(|there| there + number).and_then(Number::from_f64);
    sum.map(Value::Number).ok_or_else(|| format!("{name} is {there}, to which no number can be added"))
}
