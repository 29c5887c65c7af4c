//! `oarlock retry`: a run that is over is tried again, from where it went wrong or from a task that is named.

use anyhow::Context;
use serde_json::json;
use tempfile::NamedTempFile;

use super::answer::out;
use super::args::RetryArgs;
use super::asking::Person;
use super::attach;
use super::config::Config;
use super::control;
use super::edit::kept;
use super::exit::{Exit, ended};
use super::fleet::{LocalFleet, Place, one_of_each};
use super::run::{Delivery, model_source, on_interrupt, wait_for_run};
use super::talk::say;
use crate::bus::Bus;
use crate::store::Store;
use crate::wire::{Plan, RunId};

pub(super) async fn retry(config: &Config, args: RetryArgs) -> anyhow::Result<()> {
    if args.model.script.is_some() {
        let why = "a script answers on a private fleet alone, and no run is kept there; name a model, or leave it out";
        return Err(ended(Exit::Usage, why));
    }
    if args.edit && config.no_input {
        let why =
            "--edit opens an editor, and --no-input asks nobody; change the plan over oarlock.control.retry instead";
        return Err(ended(Exit::Usage, why));
    }
    match attach::find(config).await? {
        Some(_) if args.model.model.is_some() || args.model.base_url.is_some() => {
            let how = "start it with another one, or stop it first";
            Err(ended(Exit::Usage, format!("a fleet is running, and its workers have their own model; {how}")))
        }
        Some(bus) => again(config, &bus, &args).await,
        None if args.detach => Err(ended(
            Exit::Usage,
            "--detach needs a fleet that goes on without this command; start one with `oarlock up`",
        )),
        None => {
            let source = model_source(config, &args.model).await?;
            say("no fleet is running; starting one for this run");
            let place = Place::Project(attach::project_folder());
            let local = LocalFleet::start(config, place, one_of_each(), &source).await?;
            let outcome = again(config, &local.bus, &args).await;
            local.stop().await;
            outcome
        }
    }
}

async fn again(config: &Config, bus: &Bus, args: &RetryArgs) -> anyhow::Result<()> {
    let run = &args.run;
    let edited = match args.edit {
        true => Some(edited(config, bus, run).await?),
        false => None,
    };
    let plan = edited.as_ref().map(|(plan, _)| plan);
    let events = bus.client.subscribe(bus.root.events_of(run)).await.context("subscribe to the run's events")?;
    let begun = control::ask(bus, "retry", &json!({ "run": run, "from": args.from, "plan": plan })).await;
    let begun = match (begun, edited) {
        (Err(error), Some((_, file))) => return Err(kept(error, file)?),
        (begun, _) => begun?,
    };
    let generation = begun.get("generation").and_then(serde_json::Value::as_u64);
    let generation = generation.and_then(|number| u32::try_from(number).ok()).context("read the answer of the door")?;
    if args.detach {
        say(&format!("the fleet has it; look with: oarlock show {run}"));
        return out(run.as_str());
    }
    let on_interrupt = on_interrupt(config, None)?;
    let (out, json, timeout) = (args.out.clone(), args.json, args.timeout);
    let delivery = Delivery { out, json, timeout, kept: true, on_interrupt, person: Person::at_terminal(config) };
    wait_for_run(bus, run, generation, events, &delivery).await
}

/// The plan as the person leaves it in the editor.
async fn edited(config: &Config, bus: &Bus, run: &RunId) -> anyhow::Result<(Plan, NamedTempFile)> {
    let runs = Store::new(bus).runs;
    let missing =
        || ended(Exit::NotFound, format!("run {run} has no plan on this server; how it ended: oarlock show {run}"));
    let record = runs.record(run).await?.ok_or_else(missing)?.record;
    if !record.status.terminal() {
        let why = format!("run {run} is {}; cancel it before it is tried again", record.status.name());
        return Err(ended(Exit::Conflict, why));
    }
    let plan = runs.plan(run, record.plan).await?.ok_or_else(missing)?;
    super::edit::edited(config, &plan)
}
