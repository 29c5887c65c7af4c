//! `oarlock inbox`, `approve`, `reject`, `note`, `pause`, `resume`: what people say to a run, through any orchestrator.

use serde_json::{Value, json};

use super::answer::out;
use super::args::{ApproveArgs, HoldArgs, InboxArgs, NoteArgs, RejectArgs, WhoArgs};
use super::config::Config;
use super::control;
use super::edit::{edited, kept};
use super::exit::{Exit, ended};
use super::story::{first_line, short};
use super::talk::say;
use crate::bus::Bus;
use crate::bus::clock::since;
use crate::store::Store;
use crate::wire::subject::TaskSubject;
use crate::wire::{ItemKind, ItemView, Otherwise, Plan, Report, Role, RunId, RunView, TaskId};

/// Pages of what waits that one look reads.
const INBOX_PAGES_MAX: usize = 20;

/// Something that waits, and whose it is.
#[derive(serde::Deserialize)]
pub(super) struct Waiting {
    run: RunId,
    goal: String,
    pub(super) waits: ItemView,
}

/// Who speaks: as the flag says, or the user of this machine.
fn who(config: &Config, who: &WhoArgs) -> String {
    who.who.clone().unwrap_or_else(|| config.who.clone())
}

pub(super) async fn waiting(bus: &Bus, run: Option<&RunId>) -> anyhow::Result<(Vec<Waiting>, Value)> {
    let (mut items, mut unreadable, mut after) = (Vec::new(), Vec::new(), Value::Null);
    for _ in 0..INBOX_PAGES_MAX {
        let request = json!({ "run": run, "after": after });
        let mut page = match run {
            Some(_) => control::ask_each(bus, "inbox", &request).await?,
            None => control::ask_slow(bus, "inbox", &request).await?,
        };
        let mut take = |name: &str| page.get_mut(name).map(Value::take).unwrap_or_default();
        items.extend(take("items").as_array().cloned().unwrap_or_default());
        unreadable.extend(take("unreadable").as_array().cloned().unwrap_or_default());
        after = take("after");
        if after.is_null() {
            break;
        }
    }
    let whole = json!({ "items": items, "unreadable": unreadable, "more": !after.is_null(), "after": after });
    Ok((serde_json::from_value(items.into())?, whole))
}

pub(super) async fn inbox(config: &Config, args: InboxArgs) -> anyhow::Result<()> {
    let bus = control::fleet(config).await?;
    let (items, whole) = waiting(&bus, args.run.as_ref()).await?;
    if args.json {
        return out(&whole.to_string());
    }
    if items.is_empty() {
        say("nothing waits for a person");
    }
    for one in whole.get("unreadable").and_then(Value::as_array).into_iter().flatten() {
        let word = |name: &str| one.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        say(&format!("run {}: {}", word("run"), word("why")));
    }
    let now = bus.server_now().await?;
    for Waiting { run, goal, waits } in &items {
        let name = format!("{run}/{}", waits.item);
        out(&format!("{name}  {}  goal: {}", line(waits, now), first_line(goal)))?;
        waits.text.lines().try_for_each(|line| out(&format!("  {line}")))?;
        for vote in waits.votes.iter().filter(|vote| vote.says.name() != "escalated") {
            out(&format!("  {} says {}", vote.by, vote.says.name()))?;
        }
    }
    if whole.get("more").and_then(Value::as_bool) == Some(true) {
        say("there are more runs than were looked at; name one: oarlock inbox <run>");
    }
    Ok(())
}

/// What waits, since when and how long still; `now` is the server's.
pub(super) fn line(item: &ItemView, now: i64) -> String {
    let nanos = |seconds: i64| seconds.saturating_mul(1_000_000_000);
    let (waited, left) = (short(since(now, nanos(item.since))), short(since(nanos(item.until), now)));
    let default = match (item.default, item.kind) {
        (Otherwise::Reject, _) => "the run ends",
        (Otherwise::Approve, ItemKind::Question) => "it decides alone",
        (Otherwise::Approve, _) => "approved",
    };
    let quorum = if item.quorum > 1 { format!(", {} people must say the same", item.quorum) } else { String::new() };
    let (task, attempt, role) = (&item.task, item.attempt, item.role);
    let what = match item.kind {
        ItemKind::Pause => "paused".to_owned(),
        ItemKind::Approval => format!("{task} #{attempt} by {role}"),
        ItemKind::Question => format!("{role} asks ({task} #{attempt})"),
    };
    format!("{what}, since {waited}; in {left} {default}{quorum}")
}

/// A line for each thing of a run that waits, with what to do about it.
pub(super) fn all_waits(view: &RunView, now: i64) -> Vec<(TaskId, String)> {
    view.waiting.iter().map(|item| (item.task.clone(), waits(&view.run, item, now))).collect()
}

fn waits(run: &RunId, item: &ItemView, now: i64) -> String {
    let (how, text) = match item.kind {
        ItemKind::Pause => (format!("resume {run}"), String::new()),
        ItemKind::Approval => (format!("approve {run}/{}", item.item), String::new()),
        ItemKind::Question => (format!("answer {run}/{} TEXT", item.item), format!(": {}", first_line(&item.text))),
    };
    format!("waits for a person: {}: oarlock {how}{text}", line(item, now))
}

pub(super) async fn approve(config: &Config, args: ApproveArgs) -> anyhow::Result<()> {
    let (run, item) = control::parse(&args.what)?;
    let bus = control::fleet(config).await?;
    let by = who(config, &args.who);
    if !args.edit {
        let item = meant(&bus, &run, item, "approve", &by).await?;
        let said = decide(&bus, "approve", &json!({ "run": run, "item": item, "by": by })).await?;
        say(&said);
        return Ok(());
    }
    let (item, plan) = proposed(&bus, &run, item.as_ref().map(|item| item.as_str())).await?;
    let (plan, file) = edited(config, &plan)?;
    match decide(&bus, "edit", &json!({ "run": run, "item": item.item, "by": by, "plan": plan })).await {
        Ok(said) => {
            say(&said);
            Ok(())
        }
        Err(error) => Err(kept(error, file)?),
    }
}

/// The item that a person means who names only the run: the one that waits, which is shown first, or the one about which that
/// person said the same before. So nothing is decided that came a moment later.
pub(super) async fn meant(
    bus: &Bus,
    run: &RunId,
    item: Option<TaskId>,
    verb: &str,
    by: &str,
) -> anyhow::Result<String> {
    if let Some(item) = item {
        return Ok(item.to_string());
    }
    let (mut items, _) = waiting(bus, Some(run)).await?;
    let is_answer = verb == "answer";
    items.retain(|one| one.waits.task != TaskId::run() && (!is_answer || one.waits.kind == ItemKind::Question));
    if let [Waiting { waits, .. }] = items.as_slice() {
        say(&format!("{run}/{}  {}", waits.item, line(waits, bus.server_now().await?)));
        waits.text.lines().for_each(|line| say(&format!("  {line}")));
        return Ok(waits.item.to_string());
    }
    if !items.is_empty() {
        let names: Vec<&str> = items.iter().map(|one| one.waits.item.as_str()).collect();
        let names = names.join(", ");
        return Err(ended(Exit::Usage, format!("several things of run {run} wait: {names}; name one as {run}/<item>")));
    }
    let store = Store::new(bus);
    let said = store.inputs.of_run(run, 0).await?;
    let before = said.iter().rev().find(|heard| heard.input.by == by && heard.input.says.name() == verb);
    match (before, store.runs.record(run).await?) {
        (Some(before), _) => Ok(before.input.item.to_string()),
        (None, Some(kept)) if kept.record.status.terminal() => {
            Err(ended(Exit::Conflict, format!("run {run} is over; `oarlock show {run}` tells how it ended")))
        }
        _ => Err(ended(Exit::Conflict, format!("nothing of run {run} waits for a person: oarlock inbox {run}"))),
    }
}

/// The plan that waits.
pub(super) async fn proposed(bus: &Bus, run: &RunId, item: Option<&str>) -> anyhow::Result<(ItemView, Plan)> {
    let (items, _) = waiting(bus, Some(run)).await?;
    let mut plans = items.into_iter().map(|one| one.waits).filter(|one| one.task == TaskId::plan());
    let fits = |one: &ItemView| item.is_none_or(|item| item == one.item.as_str());
    let missing = || ended(Exit::Conflict, format!("no plan of run {run} waits for a person: oarlock inbox {run}"));
    let view = plans.find(fits).ok_or_else(missing)?;
    let to = TaskSubject { role: Role::Planner, run: run.clone(), task: TaskId::plan(), attempt: view.attempt };
    match Store::new(bus).results.known(&to).await?.as_ref().and_then(|reply| reply.report()) {
        Some(Report::Plan(plan)) => Ok((view, plan.clone())),
        _ => Err(missing()),
    }
}

pub(super) async fn reject(config: &Config, args: RejectArgs) -> anyhow::Result<()> {
    let (run, item) = control::parse(&args.what)?;
    let bus = control::fleet(config).await?;
    let by = who(config, &args.who);
    let item = meant(&bus, &run, item, "reject", &by).await?;
    let said = decide(&bus, "reject", &json!({ "run": run, "item": item, "by": by, "reason": args.reason })).await?;
    say(&said);
    Ok(())
}

/// Says it at the door; what came of it, in words.
///
/// # Errors
/// What stands instead, or why nobody heard it.
pub(super) async fn decide(bus: &Bus, verb: &str, request: &Value) -> anyhow::Result<String> {
    let answer = control::ask_each(bus, verb, request).await?;
    let word = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = format!("{}/{}", word("run"), word("item"));
    Ok(match word("status").as_str() {
        "counted" => {
            let number = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
            format!("{name}: counted, {} of {} say {verb}", number("votes"), number("quorum"))
        }
        status => format!("{name} is {status}"),
    })
}

pub(super) async fn note(config: &Config, args: NoteArgs) -> anyhow::Result<()> {
    let bus = control::fleet(config).await?;
    let request = json!({ "run": args.run, "text": args.text, "by": who(config, &args.who) });
    control::ask_each(&bus, "note", &request).await?;
    say(&format!("every task of run {} that begins from now on is told", args.run));
    Ok(())
}

pub(super) async fn hold(config: &Config, args: HoldArgs, verb: &str) -> anyhow::Result<()> {
    let bus = control::fleet(config).await?;
    control::ask_each(&bus, verb, &json!({ "run": args.run, "by": who(config, &args.who) })).await?;
    let run = &args.run;
    match verb {
        "pause" => say(&format!("run {run} begins nothing new; what is under way goes on. Then: oarlock resume {run}")),
        _ => say(&format!("run {run} goes on")),
    }
    Ok(())
}
