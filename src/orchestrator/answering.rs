//! What people answer to the questions of agents. The first answer counts; the same one again is harmless, and whoever comes
//! too late, or answers a second time in other words, hears what stands.

use serde_json::{Value, json};

use super::Orchestrator;
use super::answers::{conflict, is_over, known, not_first, others_said, unread};
use super::claim::rouse;
use super::facts::Facts;
use super::gates::{self, Item};
use super::questions::Questions;
use super::request::{ControlRequest, Refused};
use super::room::has_room;
use crate::store::Heard;
use crate::wire::{Asked, Event, EventKind, Input, ItemId, ItemKind, Otherwise, Reply, Said, TaskId, limits};

/// Answers one question.
pub(super) async fn answer(of: &Orchestrator, asked: &ControlRequest) -> Result<Value, Refused> {
    let run = &asked.run;
    let says = Said::Answer { text: words(asked)? };
    let (mut facts, over) = known(of, run).await?;
    let open = open(of, &facts);
    let item = match chosen(&facts, &open, asked, &says) {
        Err(Refused::Because(..)) if over => return is_over(run),
        item => item?,
    };
    let input = Input::new(item.id.clone(), asked.by(), says);
    let mine = |heard: &&Heard| heard.input.voter() == input.voter();
    let before = gates::said(&facts, &item.id).into_iter().find(mine);
    // Who says the same again, because nobody answered, hears what came of it, also when the run has ended by that.
    if over && before.is_none_or(|before| before.input.says != input.says) {
        return is_over(run);
    }
    let new = match before.is_none() && open.contains(&item) {
        true => {
            has_room(run, &facts, &input)?;
            of.store.inputs.keep(run, &input).await?
        }
        false => None,
    };
    if new.is_some() {
        let text = format!("{} answers {}", input.by, item.id);
        let about = Event::of_task(run, &item.task, item.role, item.attempt, EventKind::Answered, &text);
        of.bus.tell(&about).await;
    }
    facts.hear(&of.store, run).await?;
    stands(of, &facts, asked, &item, &input).await
}

fn words(asked: &ControlRequest) -> Result<String, Refused> {
    let text = asked.text.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| Refused::Because(400, "the answer is empty; say <run> and then the words".into()))?;
    let (bytes, bytes_max) = (text.len(), limits::ANSWER_BYTES_MAX);
    if bytes > bytes_max {
        let why = format!("the answer has {bytes} bytes, more than answer_bytes_max {bytes_max}");
        return Err(Refused::Because(413, why));
    }
    Ok(text.to_owned())
}

fn open(of: &Orchestrator, facts: &Facts) -> Vec<Item> {
    Questions { facts, plan: facts.plan.as_ref(), rules: &of.settings.rules }.people()
}

fn others(open: &[Item]) -> String {
    let names: Vec<&str> = open.iter().map(|item| item.id.as_str()).collect();
    if names.is_empty() { "; no question waits now".into() } else { format!("; waiting now: {}", names.join(", ")) }
}

/// The question that is meant: the one that is named, or the only one that waits.
fn chosen(facts: &Facts, open: &[Item], asked: &ControlRequest, says: &Said) -> Result<Item, Refused> {
    let run = &asked.run;
    let is_question = |reply: &&Reply| reply.question().is_some_and(|question| question.to == Asked::User);
    let of_item = |id: &ItemId| facts.results.values().find(|reply| ItemId::of(&reply.task, reply.attempt) == *id);
    let named = asked.item();
    match (named, open) {
        (Some(named), _) => match of_item(&named) {
            Some(reply) if is_question(&reply) => Ok(Item::of(reply, ItemKind::Question)),
            Some(_) => {
                let why =
                    format!("{named} is no question to a person{}; a result is approved or rejected", others(open));
                Err(Refused::Because(400, why))
            }
            None => Err(Refused::Because(404, format!("there is no question {named} in run {run}{}", others(open)))),
        },
        // Whoever names nothing may mean what waited before.
        (None, [only]) if others_said(facts, &only.id) => conflict(not_first(run, &only.id)),
        (None, [only]) => Ok(only.clone()),
        (None, []) => {
            // Said a second time, when the first has had its effect.
            let me = Input::new(ItemId::note(), asked.by(), says.clone()).voter();
            let mine = |heard: &&Heard| heard.input.voter() == me && heard.input.says == *says;
            let before = facts.inputs.iter().rev().find(mine);
            let reply = before.and_then(|before| of_item(&before.input.item)).filter(is_question);
            reply.map_or_else(
                || conflict(format!("no question of run {run} waits for a person")),
                |reply| Ok(Item::of(reply, ItemKind::Question)),
            )
        }
        (None, _) => {
            let why = format!("several questions of run {run} wait{}; name one as {run}/<item>", others(open));
            Err(Refused::Because(400, why))
        }
    }
}

/// What stands after somebody has spoken.
async fn stands(
    of: &Orchestrator,
    facts: &Facts,
    asked: &ControlRequest,
    item: &Item,
    input: &Input,
) -> Result<Value, Refused> {
    let run = &asked.run;
    let mine = gates::said(facts, &item.id).into_iter().find(|heard| heard.input.voter() == input.voter());
    if let Some(mine) = mine {
        // Whoever stored it may have died before anybody was told.
        rouse(&of.bus, &of.store, run, TaskId::input(mine.revision)).await?;
    }
    let open = open(of, facts);
    let rest = others(&open);
    match gates::answered(facts, &item.task, item.attempt) {
        Some(first) if first.input.says == input.says => {
            Ok(json!({ "run": run, "item": item.id, "status": "answered", "by": first.input.by }))
        }
        Some(first) if first.input.says == Said::Lapse => {
            let default = match facts.goal.gates.default {
                Otherwise::Approve => "its task goes on without an answer",
                Otherwise::Reject => "the run ends",
            };
            conflict(format!("{} was not answered in time, and {default}{rest}", item.id))
        }
        Some(first) => {
            let by = &first.input.by;
            conflict(format!("{} was answered by {by} already, in other words, and that stands{rest}", item.id))
        }
        None if open.contains(item) => conflict(unread(&input.by, &item.id)),
        None => conflict(format!("{} does not wait for a person (any more){rest}", item.id)),
    }
}
