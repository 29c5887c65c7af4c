//! What agents propose to change in the shared state: decided on by whoever holds the run, once, in the order of the stored
//! replies.
//!
//! All changes of one reply and the verdict on them are written together, so a holder that dies leaves both or neither, and
//! the next one finds the verdict instead of changing anything twice. A reply counts only when its verdict is there: until then
//! its task is under way, and after a refusal it has failed, so that its next attempt is told why.

use std::collections::VecDeque;

use super::claim::Lost;
use super::drive::Drive;
use super::evidence::no_evidence;
use super::facts::Facts;
use super::next::{Rules, about, attempts};
use crate::store::StoreError;
use crate::wire::{Failure, PlanTask, Reply, TaskId, limits};

impl Drive<'_> {
    /// Decides on the changes that replies propose and that nobody has decided on; the inner error ends our part.
    pub(super) async fn decide_proposals(&mut self) -> Result<Result<(), Lost>, StoreError> {
        if self.facts.undecided.is_empty() {
            return Ok(Ok(()));
        }
        // A live copy can be missed: one that was stored before what we heard comes first.
        let run = self.lease.run.clone();
        let new = self.of.store.results.since(&run, self.results_read).await?;
        let last = new.last().map_or(self.results_read, |(sequence, _)| *sequence);
        let mut replies: VecDeque<Reply> = new.into_iter().map(|(_, reply)| reply).collect();
        for known in std::mem::take(&mut self.facts.undecided).into_iter().rev() {
            if !replies.iter().any(|reply| (&reply.task, reply.attempt) == (&known.task, known.attempt)) {
                replies.push_front(known);
            }
        }
        while let Some(reply) = replies.pop_front() {
            self.take_in(reply).await;
            let Some(open) = self.facts.undecided.pop() else { continue };
            let Ok(void) = void(&self.facts, &self.of.settings.rules, &open) else {
                // The run ends here; should it be tried again, this is decided on then.
                self.facts.undecided.push(open);
                for reply in replies {
                    self.take_in(reply).await;
                }
                return Ok(Ok(()));
            };
            if let Err(lost) = self.lease.hold(&self.of.store).await? {
                return Ok(Err(lost));
            }
            let decided =
                self.of.store.state.decide(&run, &open.task, open.attempt, &open.state, void.as_deref()).await;
            self.facts.verdicts.insert((open.task.clone(), open.attempt), decided?);
            self.take_in(open).await;
        }
        self.results_read = last;
        Ok(Ok(()))
    }
}

/// Why a reply counts for nothing, so that its changes are not made either: a newer attempt is in force, or it is the reply of a
/// check and no evidence. `None` for one that counts.
///
/// # Errors
/// The end of the run, in which nothing counts any more.
fn void(facts: &Facts, rules: &Rules, reply: &Reply) -> Result<Option<String>, Failure> {
    let Some(plan) = &facts.plan else { return Ok(None) };
    let attempts = attempts(facts, plan, rules)?;
    let planned = plan.task(&reply.task);
    let newest = match planned {
        Some(task) => attempts[&task.id],
        None if reply.task == TaskId::answer() => attempts.values().max().copied().unwrap_or(1),
        None => return Ok(Some("its task is not in the plan".into())),
    };
    if reply.attempt < newest {
        return Ok(Some(format!("attempt {newest} of its task is in force")));
    }
    Ok(planned.and_then(|task| no_evidence(facts, plan, &attempts, task, reply)))
}

/// The end of a run whose task came too late with its changes too often.
pub(super) fn outrun(facts: &Facts, task: &PlanTask, attempt: u32, failure: &Failure) -> Option<Failure> {
    let (races, max) = (facts.races(&task.id, attempt), limits::STATE_RACES_MAX);
    let what =
        || format!("others were quicker than {} in task {} {races} times (state_races_max {max})", task.role, task.id);
    (races > max).then(|| about(&what(), failure))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::super::dispatch::Dispatch;
    use super::super::doubts::doubts;
    use super::super::finish::failed;
    use super::super::next::{Job, Step, next};
    use super::*;
    use crate::store::HistoryEntry;
    use crate::wire::{
        Artifact, Content, ContentHash, ContextItem, FailureKind, Goal, Message, Outcome, Plan, Report, Review, Role,
        Root, RunId, StateChange, StateOp, StateRefusal, StateSeen, StateVerdict, StateView, Task, Usage, Verdict,
        WIRE_VERSION, code_hash,
    };

    fn facts() -> Facts {
        let task = PlanTask {
            id: TaskId::planned(1),
            description: "find it".into(),
            role: Role::Researcher,
            depends_on: vec![],
        };
        let plan = Some(Plan { v: WIRE_VERSION, tasks: vec![task] });
        Facts { plan, ..Facts::fresh(Goal::new("make it".into(), Vec::new())) }
    }

    fn proposing() -> Reply {
        let outcome = Outcome::Completed { content: "found".into(), artifacts: Vec::new(), report: None };
        let reply = Reply::new(Role::Researcher, RunId::from_key("t", "proposals"), TaskId::planned(1), 1, outcome);
        let change = StateChange { op: StateOp::Set, name: "port".into(), value: 1.into(), expected: Some(7) };
        Reply { state: vec![change], ..reply }
    }

    fn wanted(facts: &Facts) -> (TaskId, u32) {
        match next(facts, &Rules::default()) {
            Step::Want(jobs) if jobs.len() == 1 => (jobs[0].task.clone(), jobs[0].attempt),
            other => panic!("{other:?}"),
        }
    }

    /// Others were quicker again and again: that is no failure of its own, and has a bound of its own.
    #[test]
    fn races_have_a_bound_of_their_own() {
        let mut facts = facts();
        let raced = StateRefusal { raced: true, ..StateRefusal::of("port", "is at revision 9 now") };
        for attempt in 1..=1 + limits::STATE_RACES_MAX {
            assert_eq!(wanted(&facts), (TaskId::planned(1), attempt));
            facts.verdicts.insert((TaskId::planned(1), attempt), StateVerdict::refused(vec![raced.clone()]));
            assert!(facts.absorb(Reply { attempt, ..proposing() }));
        }
        let Step::Fail(failure) = next(&facts, &Rules::default()) else { panic!("it goes on") };
        assert_eq!(failure.kind, FailureKind::StateConflict);
        assert!(failure.message.contains("state_races_max 16"), "{failure}");
    }

    #[test]
    fn what_counts_for_nothing_changes_nothing_and_is_told() {
        let task = |number: usize, role, needs: &[usize]| PlanTask {
            id: TaskId::planned(number),
            description: "do it".into(),
            role,
            depends_on: needs.iter().map(|need| TaskId::planned(*need)).collect(),
        };
        let tasks = vec![task(1, Role::Coder, &[]), task(2, Role::Reviewer, &[1])];
        let mut facts = Facts { plan: Some(Plan { v: WIRE_VERSION, tasks }), ..facts() };
        let file =
            Artifact { path: "made.py".parse().unwrap(), sha256: ContentHash::of(b"new"), bytes: 3, role: Role::Coder };
        let code = code_hash([&file]);
        let wrote = Outcome::Completed { content: "done".into(), artifacts: vec![file], report: None };
        let coder = Reply { role: Role::Coder, state: Vec::new(), outcome: wrote, ..proposing() };
        assert!(facts.absorb(coder));
        let review = |attempt, judged| {
            let report = Report::Review(Review { verdict: Verdict::Approve, findings: Vec::new(), judged });
            let outcome = Outcome::Completed { content: "good".into(), artifacts: Vec::new(), report: Some(report) };
            Reply { role: Role::Reviewer, task: TaskId::planned(2), attempt, outcome, ..proposing() }
        };
        let why = |facts: &Facts, reply: &Reply| void(facts, &Rules::default(), reply).unwrap().unwrap_or_default();
        assert_eq!(why(&facts, &review(1, code.clone())), "");
        let stale = review(1, Some(ContentHash::of(b"other files")));
        assert!(why(&facts, &stale).contains("about other files"), "{}", why(&facts, &stale));
        let elsewhere = Reply { task: TaskId::planned(7), ..review(1, code.clone()) };
        assert!(why(&facts, &elsewhere).contains("not in the plan"));

        let key = (TaskId::planned(2), 1);
        facts.verdicts.insert(key.clone(), StateVerdict::void(&why(&facts, &stale)));
        assert!(facts.absorb(stale));
        assert!(matches!(facts.results[&key].outcome, Outcome::Completed { .. }), "it is no failure, and no evidence");
        assert_eq!(wanted(&facts), (TaskId::planned(2), 2));
        let told = doubts(&facts, &BTreeMap::new(), &facts.results[&key]);
        assert!(told.iter().any(|doubt| doubt.contains("nothing was changed of the shared state")), "{told:?}");
        let (root, run) = (Root::default(), RunId::from_key("t", "proposals"));
        let attempts = [(TaskId::planned(1), 1), (TaskId::planned(2), 2)].into();
        let dispatch =
            Dispatch { root: &root, run: &run, facts: &facts, attempts: &attempts, tasks_max: None, depth_max: None };
        let again = Job { task: TaskId::planned(2), role: Role::Reviewer, attempt: 2, delay: Duration::ZERO };
        let evidence = dispatch.task(&again, Duration::ZERO).evidence;
        let says =
            |item: &ContextItem| matches!(&item.content, Content::Inline { text } if text.contains("shared state"));
        assert!(evidence.iter().any(says), "the agent is told: {evidence:?}");
        assert!(facts.absorb(Reply { state: Vec::new(), ..review(2, code.clone()) }));
        assert!(why(&facts, &review(1, code)).contains("attempt 2"), "a newer attempt is in force");
    }

    #[test]
    fn what_nobody_decided_on_before_the_end_is_done_and_counted() {
        let mut facts = facts();
        let usage = Usage { calls: 1, ..Usage::default() };
        assert!(!facts.absorb(Reply { usage, ..proposing() }));
        let failure = Failure::never(FailureKind::Internal, "it ends");
        let run = RunId::from_key("t", "proposals");
        assert_eq!(failed(&run, 1, &facts, failure).usage.calls, 1);
        facts.settle();
        assert!(facts.undecided.is_empty());
        let reply = facts.result(&TaskId::planned(1), 1).expect("a reply that counts");
        let told = doubts(&facts, &BTreeMap::new(), reply);
        assert!(told.iter().any(|doubt| doubt.contains("run was over")), "{told:?}");
    }

    #[test]
    fn a_reply_counts_when_its_changes_are_decided_on() {
        let mut facts = facts();
        for _ in 0..2 {
            assert!(!facts.absorb(proposing()), "it does not count yet");
            assert_eq!((facts.undecided.len(), wanted(&facts)), (1, (TaskId::planned(1), 1)));
        }
        let key = (TaskId::planned(1), 1);
        let mut refused = facts.clone();
        facts.verdicts.insert(key.clone(), StateVerdict::changed(vec!["port".into()]));
        assert!(facts.absorb(proposing()));
        assert_eq!(wanted(&facts).0, TaskId::answer());

        refused.verdicts.insert(key, StateVerdict::refused(vec![StateRefusal::of("port", "is at revision 9 now")]));
        assert!(refused.absorb(proposing()));
        assert_eq!(wanted(&refused), (TaskId::planned(1), 2));
        let failure = refused.results[&(TaskId::planned(1), 1)].failure().unwrap();
        assert_eq!(failure.kind, FailureKind::StateConflict);
        assert!(failure.message.contains("\"port\" is at revision 9 now"), "{failure}");
    }

    fn made(facts: &Facts) -> (Task, Message) {
        let (root, run) = (Root::default(), RunId::from_key("t", "proposals"));
        let dispatch =
            Dispatch { root: &root, run: &run, facts, attempts: &BTreeMap::new(), tasks_max: None, depth_max: None };
        let job = Job { task: TaskId::planned(1), role: Role::Researcher, attempt: 1, delay: Duration::ZERO };
        let task = dispatch.task(&job, Duration::ZERO);
        let message = dispatch.message(&task);
        (task, message)
    }

    #[test]
    fn whoever_makes_a_task_again_shows_the_state_that_was_shown_first() {
        let mut facts = facts();
        let view = |revision| {
            let seen = StateSeen { name: "port".into(), revision, json: Some("1".into()) };
            StateView { seen: vec![seen], more: 0 }
        };
        facts.state = view(7);
        let (first, message) = made(&facts);
        assert_eq!((&first.state, &message.state), (&view(7), &view(7)));
        facts.state = view(8);
        let (newer, other) = made(&facts);
        assert_eq!((newer.state, &other.metadata), (view(8), &message.metadata), "a newer state is no other work");
        facts.requests.push(HistoryEntry { message, revision: 1, at: 1 });
        assert_eq!(made(&facts).0, first);
    }
}
