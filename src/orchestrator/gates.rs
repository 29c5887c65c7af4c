//! What waits for people, and what they decided: pure functions of the stored facts, like every other decision.
//!
//! An item is the result of one attempt (of the planner, of a planned task, of the synthesizer), a question to a person, or a
//! pause of the run. It is never stored: it is there because the attempt has its reply and nobody has decided about it. Votes count in the order
//! of their revisions, and the first that completes a quorum decides; what is said later changes nothing.

use super::facts::Facts;
use super::next::{Attempts, Rules, rejects};
use super::planning::{completed, proposed};
use super::questions::Questions;
use crate::store::{Heard, Store, StoreError};
use crate::wire::{
    Approve, Asked, Failure, FailureKind, ItemId, ItemKind, Note, Otherwise, Outcome, Plan, Reply, Role, RunId, Said,
    TaskId, json_bytes, limits,
};

/// Bytes of people's reasons that the failure of a run shows.
const SHOWN_BYTES: usize = 2_000;
/// Bytes of what was rejected that go back to its author.
const REJECTED_BYTES_MAX: usize = 8 * 1024;

/// One thing that waits for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Its name.
    pub(super) id: ItemId,
    /// The task whose result it is; the run itself for a pause.
    pub(super) task: TaskId,
    /// The task's role.
    pub(super) role: Role,
    /// The attempt; the generation for a pause.
    pub(super) attempt: u32,
    /// What is wanted.
    pub(super) kind: ItemKind,
}

impl Item {
    /// The item that a reply leads to.
    pub(super) fn of(reply: &Reply, kind: ItemKind) -> Self {
        let (task, role, attempt) = (reply.task.clone(), reply.role, reply.attempt);
        Self { id: ItemId::of(&task, attempt), task, role, attempt, kind }
    }
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision<'a> {
    /// It is good.
    Approved,
    /// This plan instead.
    Edited(&'a Plan),
    /// It is not good, because of this.
    Rejected(String),
    /// Nobody decided in time, and the default is not to approve.
    Unanswered,
}

/// Where a result stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Gate<'a> {
    /// It waits for people.
    Open,
    /// It need not, or no longer.
    Passed(Option<Decision<'a>>),
}

/// Everything that was said about an item, in its order.
pub(super) fn said<'a>(facts: &'a Facts, item: &ItemId) -> Vec<&'a Heard> {
    facts.inputs.iter().filter(|heard| heard.input.item == *item).collect()
}

/// What people decided about an attempt's result, and the input that decided it; `None` while they have not.
pub(super) fn decided<'a>(facts: &'a Facts, task: &TaskId, attempt: u32) -> Option<(Decision<'a>, &'a Heard)> {
    if facts.inputs.is_empty() {
        return None;
    }
    let (gates, role) = (&facts.goal.gates, facts.result(task, attempt).map(|reply| reply.role));
    let mut votes: Vec<&Heard> = Vec::new();
    for heard in said(facts, &ItemId::of(task, attempt)) {
        match &heard.input.says {
            Said::Lapse if otherwise(facts, role) == Otherwise::Approve => return Some((Decision::Approved, heard)),
            Said::Lapse => return Some((Decision::Unanswered, heard)),
            // A plan that cannot be one counts for nothing, whoever stored it.
            Said::Edit { plan } if *task != TaskId::plan() || plan.recheck().is_err() => continue,
            Said::Approve | Said::Reject { .. } | Said::Edit { .. } => votes.push(heard),
            _ => continue,
        }
        let equal: Vec<&&Heard> = votes.iter().filter(|vote| vote.input.says.agrees(&heard.input.says)).collect();
        if equal.len() >= usize::try_from(gates.quorum).unwrap_or(usize::MAX) {
            let decision = match &heard.input.says {
                Said::Edit { plan } => Decision::Edited(plan),
                Said::Reject { .. } => Decision::Rejected(reasons(&equal)),
                _ => Decision::Approved,
            };
            return Some((decision, heard));
        }
    }
    None
}

/// The answer of a person to what an attempt asked, or that the time for it is over: whichever was there first.
pub(super) fn answered<'a>(facts: &'a Facts, task: &TaskId, attempt: u32) -> Option<&'a Heard> {
    if facts.inputs.is_empty() || facts.result(task, attempt)?.question()?.to != Asked::User {
        return None;
    }
    let said = said(facts, &ItemId::of(task, attempt)).into_iter();
    said.into_iter().find(|heard| matches!(heard.input.says, Said::Answer { .. } | Said::Lapse))
}

fn reasons(votes: &[&&Heard]) -> String {
    let reason = |vote: &&&Heard| match &vote.input.says {
        Said::Reject { reason } => format!("{} rejected it: {reason}", vote.input.by),
        _ => String::new(),
    };
    let all: Vec<String> = votes.iter().map(reason).collect();
    limits::cut(&all.join("\n"), limits::REASON_BYTES_MAX)
}

/// What stands when nobody decides in time about a result of `role`: what the goal says, but never an approval where the
/// operator wants one.
pub(super) fn otherwise(facts: &Facts, role: Option<Role>) -> Otherwise {
    let wanted = role.is_some_and(|role| facts.goal.gated.contains(&role));
    if wanted { Otherwise::Reject } else { facts.goal.gates.default }
}

/// True when results of a task wait for people.
fn asks(facts: &Facts, task: &TaskId, role: Role) -> bool {
    facts.goal.gated.contains(&role)
        || match facts.goal.gates.approve {
            Approve::None => false,
            Approve::Plan => *task == TaskId::plan(),
            Approve::All => true,
        }
}

/// False for a run that nobody said anything about and that asks nobody.
pub(super) fn may_wait(facts: &Facts) -> bool {
    !facts.inputs.is_empty() || facts.goal.asks_people()
}

/// Since when items wait, by the server's clock, in nanoseconds since 1970: the time of the reply, or of the pause, and never
/// before the generation. One whose reply a copy of the store does not have yet is left out.
pub(super) async fn dates(
    store: &Store,
    run: &RunId,
    facts: &Facts,
    items: &[Item],
) -> Result<Vec<(ItemId, i64)>, StoreError> {
    let replies = store.results.dated(run).await?;
    let since = |item: &Item| {
        let pause = said(facts, &item.id).into_iter().find(|heard| heard.input.says == Said::Pause);
        let reply = replies.iter().find(|(to, _, _)| (&to.task, to.attempt) == (&item.task, item.attempt));
        let since = if item.task == TaskId::run() { pause.map(|heard| heard.at) } else { reply.map(|(_, _, at)| *at) };
        Some((item.id.clone(), since?.max(facts.restart.at)))
    };
    Ok(items.iter().filter_map(since).collect())
}

/// Where a reply stands. A check that found faults needs nobody: its faults go back to their author.
pub(super) fn gate<'a>(facts: &'a Facts, reply: &Reply) -> Gate<'a> {
    let completed = matches!(reply.outcome, Outcome::Completed { .. });
    if !completed || rejects(reply) || !asks(facts, &reply.task, reply.role) {
        return Gate::Passed(None);
    }
    let decided = decided(facts, &reply.task, reply.attempt);
    decided.map_or(Gate::Open, |(decision, _)| Gate::Passed(Some(decision)))
}

/// All that waits for people now, a pause first. `attempts` are those in force.
pub(super) fn items(facts: &Facts, attempts: &Attempts, rules: &Rules) -> Vec<Item> {
    let mut items: Vec<Item> = paused(facts).into_iter().collect();
    let open = |reply: &&Reply| gate(facts, reply) == Gate::Open;
    let item = |reply: &Reply| Item::of(reply, ItemKind::Approval);
    let newest = |task: TaskId, from: u32| {
        let mut of_task = facts.results.range((task.clone(), from)..=(task, u32::MAX));
        of_task.next_back().map(|(_, reply)| reply)
    };
    match &facts.plan {
        None => {
            let plan = newest(TaskId::plan(), facts.first(&TaskId::plan()));
            items.extend(plan.filter(|reply| proposed(reply).and_then(completed).is_ok()).filter(open).map(item));
        }
        Some(plan) => {
            let in_force = |id: &TaskId| attempts.get(id).and_then(|attempt| facts.result(id, *attempt));
            let replies = plan.tasks.iter().filter_map(|task| in_force(&task.id));
            items.extend(replies.filter(open).map(item));
            let first = attempts.values().max().copied().unwrap_or(1).max(facts.first(&TaskId::answer()));
            items.extend(newest(TaskId::answer(), first).filter(open).map(item));
        }
    }
    items.extend(Questions { facts, plan: facts.plan.as_ref(), rules }.people());
    items
}

/// The pause that is in force.
pub(super) fn paused(facts: &Facts) -> Option<Item> {
    let (number, last) = holds(facts);
    last.filter(|heard| heard.input.says == Said::Pause).map(|_| Item {
        id: ItemId::hold(facts.generation, number),
        task: TaskId::run(),
        role: Role::Orchestrator,
        attempt: facts.generation,
        kind: ItemKind::Pause,
    })
}

/// How many pauses and resumptions this generation has, and the last of them.
pub(super) fn holds(facts: &Facts) -> (u32, Option<&Heard>) {
    let set = |heard: &Heard| matches!(heard.input.says, Said::Pause | Said::Resume);
    let number = |heard: &&Heard| heard.input.item.held(facts.generation);
    let numbered = facts.inputs.iter().filter(|heard| set(heard)).filter_map(|heard| Some((number(&heard)?, heard)));
    // One that cannot be read leaves a gap.
    numbered.max_by_key(|(number, _)| *number).map_or((0, None), |(number, heard)| (number, Some(heard)))
}

/// True when the pause in force was not ended in time.
pub(super) fn forgotten(facts: &Facts) -> bool {
    paused(facts).is_some_and(|item| said(facts, &item.id).iter().any(|heard| heard.input.says == Said::Lapse))
}

/// Why people rejected what a task made last before `attempt`, in words for that one, with the attempt that was rejected. What
/// was made since is judged by itself.
pub(super) fn rejection(facts: &Facts, task: &TaskId, attempt: u32) -> Option<(u32, String)> {
    let last = facts.last_completed(task, 0..=attempt.checked_sub(1)?)?;
    match decided(facts, task, last.attempt)?.0 {
        Decision::Rejected(why) => {
            let rejected = limits::cut(last.text(), REJECTED_BYTES_MAX);
            Some((last.attempt, format!("{why}\n\nWhat was rejected:\n{rejected}")))
        }
        _ => None,
    }
}

/// True when people sent a result back.
pub(super) fn was_rejected(facts: &Facts, task: &TaskId, attempt: u32) -> bool {
    matches!(decided(facts, task, attempt), Some((Decision::Rejected(_), _)))
}

/// True when a result was decided about, and not for good: then a new generation makes it again.
pub(super) fn refused(facts: &Facts, task: &TaskId, attempt: u32) -> bool {
    let decided = decided(facts, task, attempt);
    matches!(decided, Some((Decision::Rejected(_) | Decision::Unanswered, _)))
}

/// The failure of what nobody decided in time.
pub(super) fn unanswered(facts: &Facts, what: &str) -> Failure {
    let within = facts.goal.gates.within_s;
    let message = format!(
        "{what} waited for a person, and nobody decided within {within} s (within_s); `oarlock retry` makes it again"
    );
    Failure::never(FailureKind::Unanswered, message)
}

/// The failure of what people rejected too often.
pub(super) fn rejected_for_good(what: &str, attempts: u32, rules: &Rules, why: &str) -> Failure {
    let (rework_max, why) = (rules.rework_max, limits::cut(why, SHOWN_BYTES));
    let message = format!("people reject {what} after {attempts} attempts (rework_max {rework_max}): {why}");
    Failure::never(FailureKind::ReworkExhausted, message)
}

/// The notes of a run, in their order, as far as they fit into their bound: several that came at the same time may be over it.
pub(super) fn notes(facts: &Facts) -> Vec<Note> {
    let note = |heard: &Heard| match &heard.input.says {
        Said::Note { text } => Some(Note { by: heard.input.by.clone(), text: text.clone() }),
        _ => None,
    };
    let mut room = limits::NOTES_BYTES_MAX;
    let fits = |note: &Note| {
        let left = room.checked_sub(json_bytes(&note.text));
        room = left.unwrap_or(room);
        left.is_some()
    };
    facts.inputs.iter().filter_map(note).filter(fits).collect()
}

#[cfg(test)]
#[path = "gates_tests.rs"]
mod tests;
