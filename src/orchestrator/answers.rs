//! What people say to a run, and how it reaches it: the input is stored, then the record is read; a parked run is put on the
//! queue, a held one is nudged, and only then the caller is answered. Said twice it is the same; who comes too late hears what
//! stands. Nobody is asked to prove who he is here: that is the server's part (accounts and permissions).

use serde_json::{Value, json};

use super::Orchestrator;
use super::claim::rouse;
use super::facts::Facts;
use super::gates::{self, Decision, Item};
use super::next::{Attempts, attempts};
use super::planning::completed;
use super::request::{ControlRequest, Refused};
use super::room::has_room;
use crate::store::{Heard, Recorded};
use crate::wire::subject::TaskSubject;
use crate::wire::{
    Budget, Event, EventKind, Input, ItemId, ItemKind, NOBODY, Plan, RunId, RunStatus, Said, TaskId, json_bytes, limits,
};

/// Tries of a pause against others who do the same.
const HOLD_TRIES_MAX: u32 = 8;
/// Said when nobody gave a reason.
const REASON: &str = "no reason was given";

pub(super) fn conflict<T>(why: String) -> Result<T, Refused> {
    Err(Refused::Because(409, why))
}

/// A run with its facts, and whether it is over.
pub(super) async fn known(of: &Orchestrator, run: &RunId) -> Result<(Facts, bool), Refused> {
    let Some(Recorded { record, .. }) = of.store.runs.record(run).await? else { return Err(Refused::unknown(run)) };
    if record.status == RunStatus::Expired {
        return Err(Refused::unknown(run));
    }
    let over = of.store.results.get(&TaskSubject::of_run(run, record.generation)).await?;
    let facts = Facts::load(&of.store, run, &record).await?.ok_or_else(|| Refused::unknown(run))?;
    Ok((facts, record.status.terminal() || over.is_some()))
}

/// The facts of a run that is not over.
pub(super) async fn alive(of: &Orchestrator, run: &RunId) -> Result<Facts, Refused> {
    match known(of, run).await? {
        (facts, false) => Ok(facts),
        (_, true) => is_over(run),
    }
}

pub(super) fn is_over<T>(run: &RunId) -> Result<T, Refused> {
    conflict(format!("run {run} is over; `oarlock show {run}` tells how it ended"))
}

fn in_force(of: &Orchestrator, facts: &Facts) -> Attempts {
    let plan = facts.plan.as_ref();
    plan.and_then(|plan| attempts(facts, plan, &of.settings.rules).ok()).unwrap_or_default()
}

/// The results that can be approved now.
fn open(of: &Orchestrator, facts: &Facts) -> Vec<Item> {
    let items = gates::items(facts, &in_force(of, facts), &of.settings.rules);
    items.into_iter().filter(|item| item.kind == ItemKind::Approval).collect()
}

/// Approves, rejects or edits one item.
pub(super) async fn decide(of: &Orchestrator, asked: &ControlRequest, verb: &str) -> Result<Value, Refused> {
    let run = &asked.run;
    let (mut facts, over) = known(of, run).await?;
    let says = match verb {
        "approve" => Said::Approve,
        "reject" => {
            let reason = asked.reason.clone().or_else(|| asked.text.clone()).unwrap_or_else(|| REASON.into());
            let (bytes, max) = (reason.len(), limits::REASON_BYTES_MAX);
            if bytes > max {
                let why = format!("the reason has {bytes} bytes, more than reason_bytes_max {max}; say it in less");
                return Err(Refused::Because(413, why));
            }
            Said::Reject { reason }
        }
        _ => Said::Edit { plan: edited(asked, &of.settings.budgets.of(&facts.goal.budget))? },
    };
    let item = match chosen(of, &facts, asked, &says) {
        Err(Refused::Because(..)) if over => return is_over(run),
        item => item?,
    };
    if item.task != TaskId::plan() && matches!(says, Said::Edit { .. }) {
        return Err(Refused::Because(400, format!("{} is no plan; only a plan can be edited", item.id)));
    }
    let input = Input::new(item.id.clone(), asked.by(), says);
    let quorum = facts.goal.gates.quorum;
    if quorum > 1 && input.by == NOBODY {
        let why = format!("{quorum} different people must say the same (quorum), so say who you are: {{\"by\": name}}");
        return Err(Refused::Because(400, why));
    }
    let mine = |heard: &&Heard| heard.input.voter() == input.voter();
    let known = gates::said(&facts, &item.id).into_iter().find(mine);
    // Who says the same again, because nobody answered, hears what came of it, also when the run has ended by that.
    if over && known.is_none_or(|known| !known.input.says.agrees(&input.says)) {
        return is_over(run);
    }
    let new = match known.is_none() && open(of, &facts).contains(&item) {
        true => {
            has_room(run, &facts, &input)?;
            of.store.inputs.keep(run, &input).await?
        }
        false => None,
    };
    if new.is_some() {
        let text = format!("{} says {} about {}", input.by, input.says.name(), item.id);
        let about = Event::of_task(run, &item.task, item.role, item.attempt, EventKind::Answered, &text);
        of.bus.tell(&about).await;
    }
    facts.hear(&of.store, run).await?;
    stands(of, run, &facts, &item, &input).await
}

/// What stands after somebody has spoken.
async fn stands(of: &Orchestrator, run: &RunId, facts: &Facts, item: &Item, input: &Input) -> Result<Value, Refused> {
    let votes = gates::said(facts, &item.id);
    let mine = votes.iter().find(|heard| heard.input.voter() == input.voter());
    if let Some(mine) = mine {
        // Whoever stored it may have died before anybody was told.
        rouse(&of.bus, &of.store, run, TaskId::input(mine.revision)).await?;
        if !mine.input.says.agrees(&input.says) {
            let (by, before) = (&input.by, mine.input.says.name());
            return conflict(format!("{by} said {before} about {} already, and a vote is not changed", item.id));
        }
    }
    let status = match gates::decided(facts, &item.task, item.attempt) {
        Some((decision, _)) if agrees(&decision, &input.says) => past(&input.says),
        Some((decision, by)) => return conflict(too_late(of, facts, item, &decision, by)),
        None if mine.is_some() => "counted",
        None if open(of, facts).contains(item) => {
            return conflict(unread(&input.by, &item.id));
        }
        None => return conflict(format!("{} does not wait for a person (any more){}", item.id, others(of, facts))),
    };
    let count = votes.iter().filter(|heard| heard.input.says.agrees(&input.says)).count();
    let quorum = facts.goal.gates.quorum;
    Ok(json!({ "run": run, "item": item.id, "status": status, "by": input.by, "votes": count, "quorum": quorum }))
}

fn agrees(decision: &Decision<'_>, says: &Said) -> bool {
    match (decision, says) {
        (Decision::Edited(plan), Said::Edit { plan: mine }) => *plan == mine,
        (Decision::Approved, Said::Approve) | (Decision::Rejected(_), Said::Reject { .. }) => true,
        _ => false,
    }
}

fn past(says: &Said) -> &'static str {
    match says {
        Said::Reject { .. } => "rejected",
        Said::Edit { .. } => "edited",
        _ => "approved",
    }
}

fn too_late(of: &Orchestrator, facts: &Facts, item: &Item, decision: &Decision<'_>, by: &Heard) -> String {
    let what = match decision {
        Decision::Approved => "approved",
        Decision::Edited(_) => "edited",
        Decision::Rejected(_) => "rejected",
        Decision::Unanswered => "not answered in time",
    };
    let who = if by.input.says == Said::Lapse { String::new() } else { format!(" by {}", by.input.by) };
    format!("{} was {what}{who} already, and that stands{}", item.id, others(of, facts))
}

fn others(of: &Orchestrator, facts: &Facts) -> String {
    let open: Vec<String> = open(of, facts).iter().map(|item| item.id.to_string()).collect();
    if open.is_empty() { "; nothing waits now".into() } else { format!("; waiting now: {}", open.join(", ")) }
}

/// The plan of an edit, held against the rules of every plan and the run's budget.
fn edited(asked: &ControlRequest, budget: &Budget) -> Result<Plan, Refused> {
    let bad = |why: String| Refused::Because(400, why);
    let plan = asked.plan.as_ref().ok_or_else(|| bad("an edit needs a plan: {\"run\": …, \"plan\": …}".into()))?;
    let sound = plan.recheck().map_err(|faults| bad(format!("the plan is no plan: {}", faults.join("; "))))?;
    let whole = completed(sound.clone()).map_err(|failure| bad(failure.message))?;
    let (bytes, max) = (serde_json::to_vec(&whole).map_or(0, |json| json.len()), limits::EDIT_BYTES_MAX);
    if bytes > max {
        return Err(Refused::Because(
            413,
            format!("the plan has {bytes} bytes, more than edit_bytes_max {max}; cut it"),
        ));
    }
    budget.broken_by(&whole).map_or(Ok(sound), |(_, why)| Err(bad(why)))
}

/// True when something was said about another result or question of the run.
pub(super) fn others_said(facts: &Facts, item: &ItemId) -> bool {
    let all = facts.results.keys().map(|(task, attempt)| ItemId::of(task, *attempt));
    all.into_iter().any(|other| other != *item && !gates::said(facts, &other).is_empty())
}

/// Said to whoever names nothing when that may be something else than what waits now.
pub(super) fn not_first(run: &RunId, item: &ItemId) -> String {
    format!("{item} is not the first that run {run} asks about; name what you have seen: {run}/{item}")
}

/// Said to a voter under whose key there is something that does not count.
pub(super) fn unread(by: &str, id: &ItemId) -> String {
    let why = "but in a form that this version cannot read, so it does not count";
    format!("{by} said something about {id} already, {why}; let somebody else decide")
}

/// The item that is meant: the one that is named, or the only one that waits.
fn chosen(of: &Orchestrator, facts: &Facts, asked: &ControlRequest, says: &Said) -> Result<Item, Refused> {
    let mut open = open(of, facts);
    let named = asked.item();
    let known = facts.results.iter().map(|((task, attempt), reply)| Item {
        id: ItemId::of(task, *attempt),
        task: task.clone(),
        role: reply.role,
        attempt: *attempt,
        kind: ItemKind::Approval,
    });
    match (named, open.len()) {
        (Some(named), _) => match known.into_iter().find(|item| item.id == named) {
            Some(item) if facts.result(&item.task, item.attempt).is_some_and(|reply| reply.question().is_some()) => {
                let why = format!("{named} is a question: answer it with `oarlock answer {}/{named} TEXT`", asked.run);
                Err(Refused::Because(400, why))
            }
            Some(item) => Ok(item),
            None => {
                let why = format!("there is no item {named} in run {}{}", asked.run, others(of, facts));
                Err(Refused::Because(404, why))
            }
        },
        // Whoever names nothing may mean what waited before.
        (None, 1) if others_said(facts, &open[0].id) => conflict(not_first(&asked.run, &open[0].id)),
        (None, 1) => Ok(open.swap_remove(0)),
        (None, 0) => {
            // Said a second time, when the first has had its effect.
            let me = Input::new(ItemId::note(), asked.by(), says.clone()).voter();
            let mine = |heard: &&Heard| heard.input.voter() == me && heard.input.says.agrees(says);
            let before = facts.inputs.iter().rev().find(mine).map(|heard| heard.input.item.clone());
            let item = before.and_then(|before| known.into_iter().find(|item| item.id == before));
            item.map_or_else(|| conflict(format!("nothing of run {} waits for a person", asked.run)), Ok)
        }
        (None, _) => {
            let names: Vec<String> = open.iter().map(|item| item.id.to_string()).collect();
            let why =
                format!("several things of run {0} wait: {1}; name one as {0}/<item>", asked.run, names.join(", "));
            Err(Refused::Because(400, why))
        }
    }
}

/// Adds something to the goal, for every task that is dispatched from now on.
pub(super) async fn note(of: &Orchestrator, asked: &ControlRequest) -> Result<Value, Refused> {
    let run = &asked.run;
    let text = asked.text.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| Refused::Because(400, "the note is empty; say <run> and then the words".into()))?;
    let facts = alive(of, run).await?;
    let before: usize = gates::notes(&facts).iter().map(|note| json_bytes(&note.text)).sum();
    let bytes = json_bytes(text);
    let (note_max, notes_max) = (limits::NOTE_BYTES_MAX, limits::NOTES_BYTES_MAX);
    let input = Input::new(ItemId::note(), asked.by(), Said::Note { text: text.to_owned() });
    let known = facts.inputs.iter().any(|heard| heard.input == input);
    if bytes > note_max || (!known && before + bytes > notes_max) {
        let why = format!(
            "the note has {bytes} bytes after {before} of others; at most note_bytes_max {note_max} and notes_bytes_max \
             {notes_max}; say it in less, or cancel the run and say it in a new goal"
        );
        return Err(Refused::Because(413, why));
    }
    if !known {
        has_room(run, &facts, &input)?;
    }
    if of.store.inputs.keep(run, &input).await?.is_some() {
        let text = format!("{} notes: {}", input.by, limits::cut(text, 200));
        of.bus.tell(&Event::of_run(run, EventKind::Answered, text)).await;
    }
    // A parked run reads it when it goes on.
    of.store.results.nudge(run).await;
    Ok(json!({ "run": run, "status": "noted", "by": input.by }))
}

/// Pauses a run, or lets it go on; it is the same when it is so already.
pub(super) async fn hold(of: &Orchestrator, asked: &ControlRequest, says: &Said) -> Result<Value, Refused> {
    let run = &asked.run;
    let status = if *says == Said::Pause { "paused" } else { "resumed" };
    let mut facts = alive(of, run).await?;
    let mut taken = 0;
    for _ in 0..HOLD_TRIES_MAX {
        let (number, last) = gates::holds(&facts);
        // The next name may be taken by what cannot be read.
        let number = number.max(taken);
        let is_so = last.map_or(*says == Said::Resume, |last| last.input.says == *says);
        if is_so {
            let number = last.map_or(0, |last| last.revision);
            rouse(&of.bus, &of.store, run, TaskId::input(number)).await?;
            return Ok(json!({ "run": run, "status": status }));
        }
        let input = Input::new(ItemId::hold(facts.generation, number + 1), asked.by(), says.clone());
        has_room(run, &facts, &input)?;
        if let Some(revision) = of.store.inputs.keep(run, &input).await? {
            of.bus.tell(&Event::of_run(run, EventKind::Answered, format!("{} {status} it", input.by))).await;
            // Whatever others say from here on stands after it.
            rouse(&of.bus, &of.store, run, TaskId::input(revision)).await?;
            return Ok(json!({ "run": run, "status": status }));
        }
        if facts.hear(&of.store, run).await?.is_none() {
            taken = number + 1;
        }
    }
    conflict(format!("run {run} is being paused and resumed by others; try again"))
}
