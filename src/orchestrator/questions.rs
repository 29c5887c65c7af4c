//! Questions of tasks: who still has to be asked, what was answered, and which of them wait for each other in a circle.
//!
//! A question is a task of its own, named after who asked (`t2q1` is the question of attempt 1 of `t2`), or an item of the
//! inbox when a person is asked. Nobody waits for the answer but a fact in the store: when there is one, the asker goes on as a
//! new attempt. All of this is derived from the replies and from what people said, so every holder comes to the same.

use std::collections::BTreeSet;

use super::facts::Facts;
use super::gates::{self, Decision, Gate, Item, gate};
use super::next::{Attempts, Job, Rules, Step, job};
use crate::store::Heard;
use crate::wire::{
    Asked, Failure, FailureKind, ItemId, ItemKind, Otherwise, Outcome, Plan, Question, Reply, Retry, Role, Said,
    TaskId, limits,
};

/// What is to be done about all questions of a run.
#[derive(Default)]
pub(super) struct Todo {
    /// Questions to send.
    jobs: Vec<Job>,
    /// Questions that get no answer, with whom they were for, and why.
    refused: Vec<(Job, Failure)>,
    /// True when a person is to answer one.
    people: bool,
    /// The end of a run that asked a person in vain.
    lapsed: Option<Failure>,
}

/// What questions are looked at with.
#[derive(Clone, Copy)]
pub(super) struct Questions<'a> {
    pub(super) facts: &'a Facts,
    pub(super) plan: Option<&'a Plan>,
    pub(super) rules: &'a Rules,
}

impl Todo {
    /// True when no question waits for anything that is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.refused.is_empty() && !self.people && self.lapsed.is_none()
    }

    /// What open questions lead to, beside other work.
    pub(super) fn step(self, mut jobs: Vec<Job>) -> Step {
        if !self.refused.is_empty() {
            return Step::Refuse(self.refused);
        }
        if let Some(failure) = self.lapsed {
            return Step::Fail(failure);
        }
        jobs.extend(self.jobs);
        if jobs.is_empty() && self.people { Step::Wait } else { Step::Want(jobs) }
    }
}

impl<'a> Questions<'a> {
    /// True when a task that asked goes on: there is an answer, or it is known that there will be none.
    ///
    /// # Errors
    /// The end of a run whose task asks again and again, although it was told to decide by itself.
    pub(super) fn goes_on(&self, asker: &TaskId, attempt: u32) -> Result<bool, Failure> {
        if self.asks_on(asker) {
            let max = limits::QUESTIONS_MAX;
            let message = format!(
                "task {asker} asked {max} times (questions_max), was told to decide by itself, and asks again: change the \
                 goal or the task, or use another model"
            );
            return Err(Failure::never(FailureKind::MaxIterations, message));
        }
        Ok(self.is_answered(asker, attempt))
    }

    /// True when a task asked once more after it was told that it asked too often.
    fn asks_on(&self, asker: &TaskId) -> bool {
        self.facts.questions(asker).count() > limits::QUESTIONS_MAX + 1
    }

    /// False while what an attempt asked waits: for its worker, a task, a person, or a question of its own.
    fn is_answered(&self, asker: &TaskId, attempt: u32) -> bool {
        let Some(id) = TaskId::question(asker, attempt) else { return false };
        self.last_word(&id).is_some()
            || gates::answered(self.facts, asker, attempt).is_some_and(|heard| {
                heard.input.says != Said::Lapse || self.facts.goal.gates.default == Otherwise::Approve
            })
    }

    /// The reply that ends a question: an answer, or a failure that no new attempt mends.
    fn last_word(&self, id: &TaskId) -> Option<&'a Reply> {
        let reply = self.facts.result(id, self.attempt(id))?;
        match &reply.outcome {
            Outcome::Completed { .. } | Outcome::Canceled { .. } => Some(reply),
            Outcome::Failed { .. } => self.is_settled(id, reply).then_some(reply),
            Outcome::Question(_) => self.asks_on(id).then_some(reply),
        }
    }

    fn is_settled(&self, id: &TaskId, reply: &Reply) -> bool {
        let policy = self.rules.retry(reply.role);
        reply.failure().is_some_and(|failure| {
            failure.retry == Retry::Never || self.facts.failures(id, reply.attempt) > policy.attempts
        })
    }

    /// The attempt in force of a question: a new one after a failure that may pass, and after a question of its own that has
    /// its answer.
    fn attempt(&self, id: &TaskId) -> u32 {
        let mut attempt = self.facts.first(id);
        while let Some(reply) = self.facts.result(id, attempt) {
            let again = match &reply.outcome {
                Outcome::Failed { .. } => !self.is_settled(id, reply),
                Outcome::Question(_) => !self.asks_on(id) && self.is_answered(id, attempt),
                Outcome::Completed { .. } | Outcome::Canceled { .. } => false,
            };
            if !again {
                break;
            }
            attempt += 1;
        }
        attempt
    }

    /// What the open questions of these attempts need; `attempts` are those in force of the planned tasks.
    pub(super) fn todo(&self, askers: &[(TaskId, u32)], attempts: &Attempts) -> Todo {
        let mut todo = Todo::default();
        let mut open: Vec<(TaskId, u32)> = askers.to_vec();
        while let Some((asker, attempt)) = open.pop() {
            let Some(reply) = self.facts.result(&asker, attempt) else { continue };
            let Some(question) = reply.question().filter(|_| !self.is_answered(&asker, attempt)) else { continue };
            // An id that cannot be made is that of a question too deep; its asker was refused long before.
            let Some(id) = TaskId::question(&asker, attempt) else { continue };
            let now = self.attempt(&id);
            if self.facts.result(&id, now).is_some() {
                open.push((id, now));
                continue;
            }
            let asked = |role: Role| job(self.facts, self.rules, &id, role, now);
            match self.refusal(&asker, question) {
                Some(failure) => todo.refused.push((asked(reply.role), failure)),
                None if question.to == Asked::User => {
                    todo.lapsed = todo.lapsed.or(self.in_vain(&asker, attempt));
                    match self.facts.was_asked(&id, now) {
                        true => todo.people = true,
                        false => todo.jobs.push(asked(Role::Orchestrator)),
                    }
                }
                None if self.is_ready(question) => todo.jobs.push(asked(self.role(question))),
                None => {}
            }
        }
        todo.refused.extend(self.circle(askers, attempts));
        todo
    }

    /// The end of the run, when nobody answered this question in time.
    fn in_vain(&self, asker: &TaskId, attempt: u32) -> Option<Failure> {
        gates::answered(self.facts, asker, attempt)?;
        Some(gates::unanswered(self.facts, &format!("the question {} of task {asker}", ItemId::of(asker, attempt))))
    }

    /// The questions that wait for a person now.
    pub(super) fn people(&self) -> Vec<Item> {
        let asks = |reply: &&Reply| reply.question().is_some_and(|question| question.to == Asked::User);
        let open = self.facts.results.values().filter(asks).filter(|reply| {
            let asked = TaskId::question(&reply.task, reply.attempt).is_some_and(|id| self.facts.was_asked(&id, 1));
            let said = gates::answered(self.facts, &reply.task, reply.attempt).is_some();
            let answered = said || self.is_answered(&reply.task, reply.attempt);
            asked && !answered && self.is_asking(&reply.task, reply.attempt)
        });
        let item = |reply: &Reply| Item::of(reply, ItemKind::Question);
        open.map(item).collect()
    }

    /// True when an attempt is in force, and so is whoever asked it, all the way up.
    fn is_asking(&self, asker: &TaskId, attempt: u32) -> bool {
        let newest = self.facts.newest(asker) == attempt && attempt >= self.facts.first(asker);
        newest && asker.asker().is_none_or(|(before, attempt)| self.is_asking(&before, attempt))
    }

    /// Who answers.
    fn role(&self, question: &Question) -> Role {
        match &question.to {
            Asked::Role(role) => *role,
            Asked::Task(id) => self.plan.and_then(|plan| plan.task(id)).map_or(Role::Synthesizer, |task| task.role),
            Asked::User | Asked::Nobody(_) => Role::Orchestrator,
        }
    }

    /// Why a question cannot be asked at all.
    fn refusal(&self, asker: &TaskId, question: &Question) -> Option<Failure> {
        let refused = |kind, why: String| Some(Failure::never(kind, format!("this was not asked: {why}")));
        let (depth_max, questions_max) = (limits::QUESTIONS_DEPTH_MAX, limits::QUESTIONS_MAX);
        let depth = std::iter::successors(asker.asker(), |(before, _)| before.asker()).count();
        let asked = self.facts.questions(asker).count();
        match &question.to {
            _ if depth >= depth_max => refused(
                FailureKind::MaxIterations,
                format!("questions led to questions {depth} times (questions_depth_max {depth_max})"),
            ),
            _ if asked > questions_max => refused(
                FailureKind::MaxIterations,
                format!("task {asker} asked {questions_max} times already (questions_max); decide by yourself"),
            ),
            _ if question.text.trim().is_empty() => refused(FailureKind::InvalidInput, "the question is empty".into()),
            Asked::Task(id) if self.plan.is_none_or(|plan| plan.task(id).is_none()) => {
                refused(FailureKind::InvalidInput, format!("the plan has no task {id}"))
            }
            Asked::Nobody(name) => refused(
                FailureKind::InvalidInput,
                format!("{name:?} is nobody who can be asked; ask \"user\", a role, or a task by its id"),
            ),
            Asked::User if !self.facts.goal.gates.ask => refused(
                FailureKind::InvalidInput,
                "nobody is there to answer (the run was begun without --ask); decide by yourself".into(),
            ),
            _ => None,
        }
    }

    /// True when whoever is asked knows what the question is about.
    fn is_ready(&self, question: &Question) -> bool {
        match &question.to {
            Asked::Task(id) => done(self.facts, id).is_some(),
            Asked::Role(_) | Asked::User | Asked::Nobody(_) => true,
        }
    }

    /// Questions and tasks that wait for each other: the question whose asker has spent the fewest tokens is told, and so goes
    /// on without an answer. Found as soon as the circle is closed, whatever else is under way.
    fn circle(&self, askers: &[(TaskId, u32)], attempts: &Attempts) -> Option<(Job, Failure)> {
        let circle = askers.iter().find_map(|(asker, _)| self.circle_from(asker, attempts))?;
        let questions = circle.iter().filter(|id| id.asker().is_some());
        let spent = |id: &&TaskId| {
            let (asker, _) = id.asker()?;
            let of_asker = self.facts.results.iter().filter(|((task, _), _)| *task == asker);
            Some(of_asker.map(|(_, reply)| reply.usage.input.saturating_add(reply.usage.output)).sum::<u64>())
        };
        let cheapest = questions.filter(|id| self.facts.result(id, self.attempt(id)).is_none()).min_by_key(spent)?;
        let (asker, attempt) = cheapest.asker()?;
        let question = self.facts.result(&asker, attempt)?.question()?;
        // A question to a task is no party of its own, but what one waits for the other with.
        let parties: Vec<&str> = circle.iter().filter(|id| self.about(id).is_none()).map(TaskId::as_str).collect();
        let round: Vec<&str> = parties.iter().chain(parties.first()).copied().collect();
        let message = format!(
            "deadlock: {}; each waits for the next, so there is no answer: decide by yourself",
            round.join(" → ")
        );
        let job = job(self.facts, self.rules, cheapest, self.role(question), self.attempt(cheapest));
        Some((job, Failure::never(FailureKind::Deadlock, message)))
    }

    /// The task that a question is addressed to.
    fn about(&self, id: &TaskId) -> Option<&'a TaskId> {
        let (asker, attempt) = id.asker()?;
        match &self.facts.result(&asker, attempt)?.question()?.to {
            Asked::Task(about) => Some(about),
            _ => None,
        }
    }

    /// The circle that leads back to `start`, if one does.
    fn circle_from(&self, start: &TaskId, attempts: &Attempts) -> Option<Vec<TaskId>> {
        let mut paths = vec![vec![start.clone()]];
        let mut seen = BTreeSet::new();
        while let Some(path) = paths.pop() {
            for next in path.last().map(|last| self.waits_for(last, attempts)).unwrap_or_default() {
                if next == *start {
                    return Some(path);
                }
                if seen.insert(next.clone()) {
                    paths.push([path.as_slice(), &[next]].concat());
                }
            }
        }
        None
    }

    /// What a task or a question waits for. A person is not in it: he is waited for with a deadline, and waits for nobody.
    fn waits_for(&self, id: &TaskId, attempts: &Attempts) -> Vec<TaskId> {
        let planned = attempts.get(id).copied();
        let attempt = match id.asker() {
            Some(_) => self.attempt(id),
            None => planned.unwrap_or_else(|| self.facts.newest(id).max(self.facts.first(id))),
        };
        if let Some(reply) = self.facts.result(id, attempt) {
            let open = reply.question().is_some() && !self.is_answered(id, attempt);
            return TaskId::question(id, attempt).filter(|_| open).into_iter().collect();
        }
        if id.asker().is_some() {
            return self.about(id).filter(|about| done(self.facts, about).is_none()).into_iter().cloned().collect();
        }
        let missing = |need: &&TaskId| {
            let reply = attempts.get(*need).and_then(|attempt| self.facts.result(need, *attempt));
            !reply.is_some_and(|reply| matches!(reply.outcome, Outcome::Completed { .. }))
        };
        let needs = self.plan.and_then(|plan| plan.task(id)).map(|task| &task.depends_on[..]).unwrap_or_default();
        needs.iter().filter(missing).cloned().collect()
    }
}

/// The newest reply of a task that is done, in this generation. What waits for people, or was rejected by them, is not done: a
/// question is no way past a gate.
pub(super) fn done<'a>(facts: &'a Facts, id: &TaskId) -> Option<&'a Reply> {
    let last = facts.last_completed(id, facts.first(id)..=facts.newest(id).max(facts.first(id)))?;
    let passed = |gate: Gate<'_>| matches!(gate, Gate::Passed(None | Some(Decision::Approved | Decision::Edited(_))));
    Some(last).filter(|reply| passed(gate(facts, reply)))
}

/// Who asked, and what, when a task is a question.
pub(super) fn question<'a>(facts: &'a Facts, id: &TaskId) -> Option<(&'a Reply, &'a Question)> {
    let (asker, attempt) = id.asker()?;
    let reply = facts.result(&asker, attempt)?;
    Some((reply, reply.question()?))
}

/// A question of a task, in words, with what came of it and the attempt of the question that this is from.
pub(super) struct Told {
    /// The question's own id.
    pub(super) question: TaskId,
    /// Who answered.
    pub(super) role: Role,
    /// The attempt of the question.
    pub(super) attempt: u32,
    /// Question and answer.
    pub(super) text: String,
}

/// What a task asked before an attempt, and was told, the oldest first: all of this generation, and what was answered before
/// it, unless the task has other words since.
pub(super) fn told(facts: &Facts, task: &TaskId, attempt: u32) -> Vec<Told> {
    let first = facts.first(task);
    let planned = facts.plan.as_ref().and_then(|plan| plan.task(task));
    let is_same = |asked: u32| {
        let words = facts.request_of(task, asked).map(|entry| &entry.message.content);
        planned.is_none_or(|planned| words.is_some_and(|words| *words == planned.description))
    };
    let before = facts.results.range((task.clone(), 0)..(task.clone(), attempt));
    let asked = before.filter_map(|((_, asked), reply)| Some((*asked, reply.question()?)));
    let answered = asked.filter_map(|(asked, question)| {
        let id = TaskId::question(task, asked)?;
        let newest = facts.newest(&id);
        let last = facts.results.range((id.clone(), 0)..=(id.clone(), newest)).next_back().map(|(_, reply)| reply);
        let (role, attempt, answer) = match (last, gates::answered(facts, task, asked)) {
            (Some(reply), _) => (reply.role, reply.attempt, outcome_in_words(reply)),
            (None, heard) => (Role::Orchestrator, 1, in_words(heard?)),
        };
        if asked < first && !(is_same(asked) && is_answer(facts, task, asked, last)) {
            return None;
        }
        let text = format!("You asked {}: {}\n{answer}", question.to, question.text);
        Some(Told { question: id, role, attempt, text })
    });
    answered.collect()
}

/// True when somebody answered, and not only that there will be no answer.
fn is_answer(facts: &Facts, task: &TaskId, asked: u32, last: Option<&Reply>) -> bool {
    let said = || gates::answered(facts, task, asked).is_some_and(|heard| heard.input.says != Said::Lapse);
    last.map_or_else(said, |reply| matches!(reply.outcome, Outcome::Completed { .. }))
}

fn outcome_in_words(reply: &Reply) -> String {
    match &reply.outcome {
        Outcome::Completed { content, .. } => format!("Answer: {content}"),
        Outcome::Question(_) => "There is no answer: it was met with questions alone.".to_owned(),
        Outcome::Failed { .. } | Outcome::Canceled { .. } => format!("There is no answer: {}", reply.text()),
    }
}

fn in_words(heard: &Heard) -> String {
    match &heard.input.says {
        Said::Answer { text } => format!("Answer of {}: {text}", heard.input.by),
        _ => "There is no answer: nobody answered in time, so decide by yourself.".to_owned(),
    }
}
