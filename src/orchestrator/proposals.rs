//! What agents propose to change in the shared state: decided on by whoever holds the run, once, in the order of the stored
//! replies.
//!
//! All changes of one reply and the verdict on them are written together, so a holder that dies leaves both or neither, and
//! the next one finds the verdict instead of changing anything twice. A reply counts only when its verdict is there: until then
//! its task is under way, and after a refusal it has failed, so that its next attempt is told why.

use super::claim::Lost;
use super::drive::Drive;
use crate::store::StoreError;

impl Drive<'_> {
    /// Decides on the changes that replies propose and that nobody has decided on; the inner error ends our part.
    pub(super) async fn decide_proposals(&mut self) -> Result<Result<(), Lost>, StoreError> {
        if self.facts.undecided.is_empty() {
            return Ok(Ok(()));
        }
        // A live copy can be missed: one that was stored before what we heard comes first.
        let run = self.lease.run.clone();
        let stored = self.of.store.results.of_run(&run).await?.into_iter().map(|(_, reply)| reply);
        let mut replies: Vec<_> = stored.collect();
        replies.append(&mut self.facts.undecided);
        for reply in replies {
            self.take_in(reply).await;
            let Some(open) = self.facts.undecided.pop() else { continue };
            if let Err(lost) = self.lease.hold(&self.of.store).await? {
                return Ok(Err(lost));
            }
            let verdict = self.of.store.state.decide(&run, &open.task, open.attempt, &open.state).await?;
            self.facts.verdicts.insert((open.task.clone(), open.attempt), verdict);
            self.take_in(open).await;
        }
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::super::dispatch::Dispatch;
    use super::super::facts::Facts;
    use super::super::next::{Job, Rules, Step, next};
    use crate::store::HistoryEntry;
    use crate::wire::{
        FailureKind, Goal, Message, Outcome, Plan, PlanTask, Reply, Role, Root, RunId, StateChange, StateOp,
        StateRefusal, StateSeen, StateVerdict, StateView, Task, TaskId, WIRE_VERSION,
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
        let dispatch = Dispatch { root: &root, run: &run, facts, attempts: &BTreeMap::new(), tasks_max: None };
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
