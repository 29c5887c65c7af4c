//! `oarlock dead`: tasks that killed their workers.

use serde_json::json;

use super::answer::out;
use super::args::{DeadArgs, DeadVerb};
use super::attach;
use super::config::Config;
use super::control;
use super::exit::{Exit, ended};
use super::talk::say;
use crate::store::Store;
use crate::wire::one_line;

/// Characters of a failure that its line shows.
const WHY_CHARS: usize = 80;

pub(super) async fn dead(config: &Config, args: DeadArgs) -> anyhow::Result<()> {
    match args.verb {
        DeadVerb::Ls(args) => list(config, args.json).await,
        DeadVerb::Show { what } => show(config, &what).await,
        DeadVerb::Requeue { what } => {
            let done = change(config, "requeue", &what).await?;
            out(&done.to_string())
        }
        DeadVerb::Drop { what } => {
            change(config, "drop", &what).await?;
            say(&format!("{what} is forgotten"));
            Ok(())
        }
    }
}

async fn list(config: &Config, json: bool) -> anyhow::Result<()> {
    let reached = attach::server(config).await?;
    let letters = Store::new(&reached.bus).dead.list(None).await?;
    if json {
        let letters: Vec<_> = letters.iter().map(|(letter, _)| letter).collect();
        return out(&serde_json::to_string(&letters)?);
    }
    if letters.is_empty() {
        say("no task was given up");
        return Ok(());
    }
    out(&format!("{:<34} {:<13}{:>8}  WHY", "RUN/TASK", "ROLE", "TIMES"))?;
    for (letter, _) in letters {
        let name = format!("{}/{}", letter.run, letter.task);
        let why = one_line(&letter.failure.message, WHY_CHARS);
        out(&format!("{name:<34} {:<13}{:>8}  {why}", letter.role.name(), letter.deliveries))?;
    }
    Ok(())
}

async fn show(config: &Config, what: &str) -> anyhow::Result<()> {
    let (run, task) = control::parse(what)?;
    let reached = attach::server(config).await?;
    let letters = Store::new(&reached.bus).dead.list(Some(&run)).await?.into_iter().map(|(letter, _)| letter);
    let fitting: Vec<_> = letters.filter(|letter| task.as_ref().is_none_or(|task| letter.task == *task)).collect();
    if fitting.is_empty() {
        return Err(ended(Exit::NotFound, format!("there is no dead letter of {what}; `oarlock dead ls` lists them")));
    }
    for letter in fitting {
        out(&serde_json::to_string_pretty(&letter)?)?;
    }
    Ok(())
}

async fn change(config: &Config, verb: &str, what: &str) -> anyhow::Result<serde_json::Value> {
    let (run, task) = control::parse(what)?;
    let bus = control::fleet(config).await?;
    control::ask(&bus, verb, &json!({ "run": run, "task": task })).await
}
