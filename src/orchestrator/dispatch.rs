//! From a decision to a message: what a task's worker gets to see.
//!
//! A task is made of facts alone, so that two holders make the same one. Text travels inside up to a bound, the rest by
//! reference; files always by their hash.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::evidence::no_evidence;
use super::facts::Facts;
use super::gates;
use super::loops::normal;
use super::next::{Attempts, Job, checks_of, targets};
use super::questions;
use super::told as answers;
use crate::wire::{
    Artifact, Asked, Content, ContentHash, ContextItem, FilePath, Finding, Message, MessageType, Metadata, Note, Party,
    Plan, PlanTask, Question, Reply, Report, Role, Root, RunId, StateView, Task, TaskId, WIRE_VERSION, json_bytes,
    limits,
};

/// Bytes of a goal that travels inside a task.
const GOAL_INLINE_BYTES_MAX: usize = 64 * 1024;
/// Findings that a coder must answer at one attempt.
const FINDINGS_MAX: usize = 100;
/// Bytes of a finding's words beside its id; they stand whole in the evidence.
const FINDING_BYTES_MAX: usize = 300;
/// Room for the mark where a text was cut, in bytes.
const CUT_MARK_BYTES: usize = 64;
/// Description of the planner's task.
const PLAN_TASK: &str = "Make a plan for the goal.";
/// Description of the synthesizer's task.
const ANSWER_TASK: &str = "Make one answer of all results.";

/// Makes the tasks of one run.
pub(super) struct Dispatch<'a> {
    pub(super) root: &'a Root,
    pub(super) run: &'a RunId,
    pub(super) facts: &'a Facts,
    pub(super) attempts: &'a Attempts,
    /// Tasks that the plan may have; told to the planner where it is less than any plan may have.
    pub(super) tasks_max: Option<u64>,
    /// The same for tasks in a row.
    pub(super) depth_max: Option<u64>,
}

impl Dispatch<'_> {
    /// The task of a job, with `limit` as its worker's time.
    pub(super) fn task(&self, job: &Job, limit: Duration) -> Task {
        let mut room = limits::INLINE_BYTES_MAX;
        let goal = self.goal(&mut room);
        // What people said travels whole.
        let (notes, rejection) = (self.notes(job), self.rejection(job));
        let said = notes.iter().map(|note| json_bytes(&note.text) + json_bytes(&note.by));
        room = room.saturating_sub(said.sum::<usize>() + rejection.as_ref().map_or(0, |(_, why)| json_bytes(why)));
        let told = questions::told(self.facts, &job.task, job.attempt);
        let kept = answers::kept(&told, room);
        room -= kept;
        let evidence = self.evidence(job).into_iter().map(|reply| self.item(reply, &mut room));
        let rejection = rejection.map(|(attempt, why)| self.rejected(job, attempt, why));
        let evidence = rejection.into_iter().chain(self.unmade(job)).chain(evidence).collect();
        let mut context: Vec<_> = self.context(job).into_iter().map(|reply| self.item(reply, &mut room)).collect();
        context.extend(answers::shown(told, room + kept));
        Task {
            v: WIRE_VERSION,
            run: self.run.clone(),
            id: job.task.clone(),
            attempt: job.attempt,
            role: job.role,
            description: self.description(job),
            goal,
            context,
            evidence,
            findings: self.findings(job),
            files: files_in_sight(self.facts, self.attempts, &job.task, job.attempt, job.role),
            state: self.seen(job),
            notes,
            asked_by: questions::question(self.facts, &job.task).map(|(asker, _)| asker.role),
            attended: self.facts.goal.gates.ask,
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            budget: None,
        }
    }

    /// The request as the history keeps it.
    pub(super) fn message(&self, task: &Task) -> Message {
        let bytes = task.description.len() as u64;
        let metadata = Metadata {
            run: task.run.clone(),
            task: task.id.clone(),
            attempt: task.attempt,
            input: Some(input_hash(task)),
            bytes,
            hops: self.hops(task),
            notes: task.notes.len(),
            reference: Some(self.root.task(&task.subject())),
            budget: task.budget,
        };
        let message = match questions::question(self.facts, &task.id) {
            Some((asker, question)) => {
                // The same words to the same party are the same question, whoever's and about whatever files.
                let input = Some(ContentHash::of(question.to.to_string().as_bytes()));
                let to = if question.to == Asked::User { Party::User } else { Party::Role(task.role) };
                let (kind, metadata) = (MessageType::Question, Metadata { input, ..metadata });
                Message::new(Party::Role(asker.role), to, kind, task.description.clone(), metadata)
            }
            None => {
                let (from, to) = (Party::Role(Role::Orchestrator), Party::Role(task.role));
                Message::new(from, to, MessageType::Request, task.description.clone(), metadata)
            }
        };
        Message { state: task.state.clone(), ..message }
    }

    /// The shared state as the task shows it: what the request keeps, or what there is now for one that nobody has asked yet.
    fn seen(&self, job: &Job) -> StateView {
        let asked = self.facts.request_of(&job.task, job.attempt);
        asked.map_or(&self.facts.state, |entry| &entry.message.state).clone()
    }

    /// One more than the most hops among the requests of this generation that led to the task: the planner's, those whose
    /// replies it carries, whoever asks it, and its own before.
    fn hops(&self, task: &Task) -> u32 {
        let carried: BTreeSet<_> =
            task.context.iter().chain(&task.evidence).map(|item| (&item.task, item.attempt)).collect();
        let (plan, asker) = (TaskId::plan(), task.id.asker());
        let led = |about: &&Metadata| {
            let before = about.task == task.id && about.attempt < task.attempt;
            let asker = asker.as_ref().is_some_and(|(id, attempt)| about.task == *id && about.attempt == *attempt);
            before
                || asker
                || (about.task == plan && task.id != plan)
                || carried.contains(&(&about.task, about.attempt))
        };
        let sent = self.facts.messages().map(|message| &message.metadata);
        sent.filter(led).map(|about| about.hops).max().unwrap_or(0).saturating_add(1)
    }

    fn description(&self, job: &Job) -> String {
        if let Some((_, question)) = questions::question(self.facts, &job.task) {
            return limits::cut(question.text.trim(), limits::DESCRIPTION_BYTES_MAX - CUT_MARK_BYTES);
        }
        let planned = self.facts.plan.as_ref().and_then(|plan| plan.task(&job.task));
        match (planned, job.role) {
            (Some(task), _) => task.description.clone(),
            (None, Role::Planner) => self.plan_task(),
            (None, _) => ANSWER_TASK.to_owned(),
        }
    }

    /// The planner's task, with the bounds that are narrower than every plan's.
    fn plan_task(&self) -> String {
        let narrower = |bound: Option<u64>, than: usize| bound.filter(|max| *max < than as u64);
        let tasks = narrower(self.tasks_max, limits::PLAN_TASKS_MAX)
            .map(|max| format!(" It may have at most {max} tasks, a qa task for each coder task included."));
        let depth = narrower(self.depth_max, limits::PLAN_DEPTH_MAX)
            .map(|max| format!(" At most {max} tasks may depend on each other in a row, those qa tasks included."));
        [Some(PLAN_TASK.to_owned()), tasks, depth].into_iter().flatten().collect()
    }

    fn goal(&self, room: &mut usize) -> Content {
        let text = &self.facts.goal.text;
        let bytes = json_bytes(text);
        if bytes > GOAL_INLINE_BYTES_MAX {
            return Content::Goal;
        }
        *room = room.saturating_sub(bytes);
        Content::inline(text.clone())
    }

    fn item(&self, reply: &Reply, room: &mut usize) -> ContextItem {
        let text = reply.text();
        let bytes = json_bytes(text);
        let content = if bytes <= *room {
            *room -= bytes;
            Content::inline(text)
        } else {
            Content::Result { subject: self.root.result(&reply.subject()) }
        };
        ContextItem { task: reply.task.clone(), role: reply.role, attempt: reply.attempt, content }
    }

    /// The replies that the task builds on: those of the tasks it depends on, or of all for the answer.
    fn context(&self, job: &Job) -> Vec<&Reply> {
        let Some(plan) = &self.facts.plan else {
            return Vec::new();
        };
        if let Some((_, question)) = questions::question(self.facts, &job.task) {
            return self.known(plan, question);
        }
        let ids: Vec<&TaskId> = match plan.task(&job.task) {
            Some(task) => task.depends_on.iter().collect(),
            None => plan.tasks.iter().map(|task| &task.id).collect(),
        };
        let in_force = |id: &TaskId| self.facts.result(id, *self.attempts.get(id)?);
        let mut replies: Vec<&Reply> = ids.iter().filter_map(|id| in_force(id)).collect();
        // What a coder says to a reviewer's findings comes to the reviewer, also past the tasks between them.
        if let Some(review) = plan.task(&job.task).filter(|task| task.role == Role::Reviewer) {
            let others = targets(plan, review).into_iter().filter(|id| !ids.contains(&id));
            let answers = others.filter_map(|id| in_force(&id));
            replies.extend(answers.filter(|reply| matches!(reply.report(), Some(Report::Answers(_)))));
        }
        replies
    }

    /// What whoever answers a question has said so far: the task that is asked, or all tasks of the role that is.
    fn known<'b>(&'b self, plan: &'b Plan, question: &Question) -> Vec<&'b Reply> {
        let asked = |task: &&PlanTask| match &question.to {
            Asked::Task(id) => task.id == *id,
            Asked::Role(role) => task.role == *role,
            Asked::User | Asked::Nobody(_) => false,
        };
        plan.tasks.iter().filter(asked).filter_map(|task| questions::done(self.facts, &task.id)).collect()
    }

    /// What reviewers found in the attempt before, for a coder to answer.
    fn findings(&self, job: &Job) -> Vec<Finding> {
        let reviews = self.evidence(job).into_iter().filter(|_| job.role == Role::Coder);
        let found = reviews.filter_map(|reply| match reply.report() {
            Some(Report::Review(review)) => Some(&review.findings),
            _ => None,
        });
        let short = |finding: &Finding| Finding {
            id: limits::cut(&finding.id, FINDING_BYTES_MAX),
            file: finding.file.as_ref().map(|file| limits::cut(file, FINDING_BYTES_MAX)),
            text: limits::cut(&finding.text, FINDING_BYTES_MAX),
        };
        found.flatten().take(FINDINGS_MAX).map(short).collect()
    }

    /// Why the attempt before was not good enough: its own failure, or that it was no evidence, and the checks that found
    /// faults in it.
    fn evidence(&self, job: &Job) -> Vec<&Reply> {
        let own = self.facts.before_work(&job.task, job.attempt);
        let own = own.filter(|reply| reply.failure().is_some() || self.is_void(reply));
        let rejected = |reply: &&Reply| reply.passed() == Some(false);
        let checks = match &self.facts.plan {
            Some(plan) => checks_of(plan, std::slice::from_ref(&job.task)),
            None => Vec::new(),
        };
        own.into_iter()
            .chain(
                checks.into_iter().filter_map(|check| self.facts.before_work(&check.id, job.attempt)).filter(rejected),
            )
            .collect()
    }

    /// True for the reply of a check that is no evidence.
    fn is_void(&self, reply: &Reply) -> bool {
        let check = self.facts.plan.as_ref().and_then(|plan| Some((plan, plan.task(&reply.task)?)));
        check.is_some_and(|(plan, check)| no_evidence(self.facts, plan, self.attempts, check, reply).is_some())
    }

    /// That the changes of shared state were not made which the attempt before proposed, because it was no evidence.
    fn unmade(&self, job: &Job) -> Option<ContextItem> {
        let before = self.facts.before_work(&job.task, job.attempt).filter(|reply| self.is_void(reply))?;
        let verdict = self.facts.verdicts.get(&(job.task.clone(), before.attempt))?;
        let told = format!("nothing that it proposed to change in the shared state was changed: {}", verdict.void);
        let (task, role, attempt) = (job.task.clone(), Role::Orchestrator, before.attempt);
        (!verdict.void.is_empty()).then(|| ContextItem { task, role, attempt, content: Content::inline(told) })
    }

    /// Why people rejected an attempt before.
    fn rejection(&self, job: &Job) -> Option<(u32, String)> {
        gates::rejection(self.facts, &job.task, job.attempt)
    }

    fn rejected(&self, job: &Job, attempt: u32, why: String) -> ContextItem {
        ContextItem { task: job.task.clone(), role: Role::Orchestrator, attempt, content: Content::inline(why) }
    }

    /// The notes that were there when the attempt was asked for; what is said later is for later attempts.
    fn notes(&self, job: &Job) -> Vec<Note> {
        let mut notes = gates::notes(self.facts);
        if let Some(asked) = self.facts.request_of(&job.task, job.attempt) {
            notes.truncate(asked.message.metadata.notes);
        }
        notes
    }
}

/// The files that an attempt of a task gets: attached ones, then those of the tasks before, then those of the attempts before; a
/// later one of the same name hides an earlier one.
pub(super) fn files_in_sight(
    facts: &Facts,
    attempts: &Attempts,
    id: &TaskId,
    attempt: u32,
    role: Role,
) -> Vec<Artifact> {
    let latest = |id: &TaskId| {
        let reply = attempts.get(id).and_then(|attempt| facts.result(id, *attempt));
        reply.map(Reply::artifacts).unwrap_or_default()
    };
    let mut files = FileView::default();
    files.add(&facts.goal.attachments);
    if let Some(plan) = &facts.plan {
        let before = match plan.task(id) {
            Some(_) => plan.ancestors(id).into_iter().map(|task| &task.id).collect::<Vec<_>>(),
            None => plan.tasks.iter().map(|task| &task.id).filter(|id| questions::done(facts, id).is_some()).collect(),
        };
        for id in before {
            files.add(latest(id));
        }
        files.add(facts.files_before(id, attempt));
        if role == Role::Coder {
            for check in checks_of(plan, std::slice::from_ref(id)) {
                files.add(facts.files_before(&check.id, attempt));
            }
        }
    }
    files.into_list()
}

/// The files of a finished run: what its tasks wrote, attached files only where they were changed.
pub(super) fn result_files(facts: &Facts, plan: &Plan, attempts: &Attempts) -> Vec<Artifact> {
    let mut files = FileView::default();
    for task in &plan.tasks {
        let reply = attempts.get(&task.id).and_then(|attempt| facts.result(&task.id, *attempt));
        files.add(reply.map(Reply::artifacts).unwrap_or_default());
    }
    files.into_list()
}

#[derive(Default)]
struct FileView(BTreeMap<FilePath, Artifact>);

impl FileView {
    fn add(&mut self, files: &[Artifact]) {
        self.0.extend(files.iter().map(|file| (file.path.clone(), file.clone())));
    }

    fn into_list(self) -> Vec<Artifact> {
        self.0.into_values().collect()
    }
}

/// Hash of what a task gives its worker. Limits, attempt numbers and times are left out, of evidence the numbers too: equal
/// hashes are equal work. The shared state is left out too: who goes in circles may well count his rounds in it.
fn input_hash(task: &Task) -> ContentHash {
    let again = |content: &Content| match content {
        Content::Inline { text } => Content::inline(without_attempts(text)),
        other => other.clone(),
    };
    let context: Vec<Content> = task.context.iter().map(|item| again(&item.content)).collect();
    // The same tests of the same files fail after another time, at another address: that is no other evidence.
    let words = |item: &ContextItem| match &item.content {
        Content::Inline { text } => format!("{:x}", normal(text)),
        by_reference => serde_json::to_string(by_reference).unwrap_or_default(),
    };
    let evidence: Vec<String> = task.evidence.iter().map(words).collect();
    let files: Vec<_> = task.files.iter().map(|file| (file.path.as_str(), file.sha256.as_str())).collect();
    // A retry after a failure of its own is counted by rework_max, which names the failure; it is no pattern.
    let retries = task.evidence.iter().filter(|item| item.task == task.id).map(|item| item.attempt).max();
    let input = (task.id.as_str(), &task.description, context, evidence, files, retries);
    match task.notes.as_slice() {
        [] => ContentHash::of(&serde_json::to_vec(&input).unwrap_or_default()),
        notes => ContentHash::of(&serde_json::to_vec(&(input, notes)).unwrap_or_default()),
    }
}

/// A text with its findings' ids as they would be at any attempt: the same fault found again is the same words.
fn without_attempts(text: &str) -> String {
    let id = |word: &str| {
        let (task, rest) = word.split_once('.')?;
        let (attempt, number) = rest.split_once(".f")?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let plain = task.chars().all(|c| c.is_ascii_alphanumeric());
        (plain && digits(attempt) && digits(number.trim_end_matches(|c: char| !c.is_alphanumeric())))
            .then(|| format!("{task}.f{number}"))
    };
    text.split_inclusive(char::is_whitespace)
        .map(|word| id(word.trim_end()).map_or_else(|| word.to_owned(), |id| id + &word[word.trim_end().len()..]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::without_attempts;

    #[test]
    fn a_finding_that_comes_again_has_the_same_words() {
        let found = |attempt: u32| format!("Review:\n- t3.{attempt}.f1 a.py: 1.5.f is odd\n- t3.{attempt}.f12: x.y.f3");
        assert_eq!(without_attempts(&found(1)), without_attempts(&found(23)));
        assert_eq!(without_attempts(&found(1)), "Review:\n- t3.f1 a.py: 1.5.f is odd\n- t3.f12: x.y.f3");
    }
}
