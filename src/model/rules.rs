//! When a rule of a script applies.
//!
//! A fleet asks from many workers at once, so "the third call gets the third answer" would be different every time.
//! A rule therefore matches on what a call is about, and counts only the calls of one task that fit the same
//! conditions: the same script gives the same run, however the workers are scheduled.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

use super::{Author, ChatRequest};

/// Tasks whose calls are counted; beyond it the counts of the task that came first are forgotten.
const TASKS_COUNTED_MAX: usize = 10_000;

/// A pattern for a whole string, `*` and `?` included; upper and lower case are the same.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: String,
    matcher: GlobMatcher,
}

impl Pattern {
    /// Compiles a pattern; the error says what is wrong with it.
    pub(super) fn new(text: String) -> Result<Self, String> {
        let glob = GlobBuilder::new(&text).case_insensitive(true).literal_separator(false).build();
        let matcher = glob.map_err(|error| error.to_string())?.compile_matcher();
        Ok(Self { text, matcher })
    }

    fn fits(&self, text: &str) -> bool {
        self.matcher.is_match(text)
    }
}

/// What a rule looks at. An absent condition fits every call.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    pub(super) role: Option<Pattern>,
    pub(super) task: Option<Pattern>,
    pub(super) task_id: Option<String>,
    pub(super) attempt: Option<u32>,
    pub(super) model: Option<Pattern>,
    pub(super) system_contains: Option<String>,
    pub(super) user_contains: Option<String>,
    pub(super) schema: Option<String>,
}

impl Conditions {
    /// True when the call may be meant for a rule of this role.
    pub(super) fn concerns_role(&self, role: &str) -> bool {
        self.role.as_ref().is_none_or(|pattern| pattern.fits(role))
    }

    fn compare(&self, request: &ChatRequest, model: &str) -> Fit {
        let context = &request.context;
        let user_says = |part: &String| {
            let mut users = request.messages.iter().filter(|message| message.author == Author::User);
            users.any(|message| message.text.contains(part))
        };
        let outcomes = [
            ("role", self.role.as_ref().map(|pattern| pattern.fits(&context.role))),
            ("task", self.task.as_ref().map(|pattern| pattern.fits(&context.task))),
            ("task_id", self.task_id.as_ref().map(|id| *id == context.task_id)),
            ("attempt", self.attempt.map(|attempt| attempt == context.attempt)),
            ("model", self.model.as_ref().map(|pattern| pattern.fits(model))),
            ("system_contains", self.system_contains.as_ref().map(|part| request.system.contains(part))),
            ("user_contains", self.user_contains.as_ref().map(user_says)),
            ("schema", self.schema.as_ref().map(|name| request.schema.as_ref().is_some_and(|s| s.name == *name))),
        ];
        let named =
            |wanted| outcomes.iter().filter(move |(_, outcome)| *outcome == Some(wanted)).map(|(name, _)| *name);
        Fit { misfits: named(false).collect(), matches: named(true).count() }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = |pattern: &Option<Pattern>| pattern.as_ref().map(|pattern| format!("{:?}", pattern.text));
        let text = |text: &Option<String>| text.as_ref().map(|text| format!("{text:?}"));
        let parts = [
            ("role", pattern(&self.role)),
            ("task", pattern(&self.task)),
            ("task_id", text(&self.task_id)),
            ("attempt", self.attempt.map(|attempt| attempt.to_string())),
            ("model", pattern(&self.model)),
            ("system_contains", text(&self.system_contains)),
            ("user_contains", text(&self.user_contains)),
            ("schema", text(&self.schema)),
        ];
        let shown: Vec<String> =
            parts.into_iter().filter_map(|(name, value)| Some(format!("{name}: {}", value?))).collect();
        write!(f, "{{{}}}", shown.join(", "))
    }
}

/// Conditions, and which of the calls that fit them are meant.
#[derive(Clone, Debug)]
pub(super) struct When {
    pub(super) conditions: Conditions,
    /// Only the n-th call of a task that fits the conditions, from 0.
    pub(super) nth: Option<u32>,
    /// At most so many calls of a task.
    pub(super) times: Option<u32>,
}

/// The rules' memory of what was asked.
#[derive(Debug)]
pub(super) struct Counts {
    /// For each rule the first rule with the same conditions: they count together.
    key_of: Vec<usize>,
    used: Vec<bool>,
    tasks: HashMap<String, TaskCounts>,
    order: VecDeque<String>,
}

#[derive(Debug, Default)]
struct TaskCounts {
    /// Calls that fitted the conditions, by key.
    fitted: HashMap<usize, u32>,
    /// Calls that the rule answered.
    answered: HashMap<usize, u32>,
}

impl Counts {
    /// Nothing was asked yet.
    pub(super) fn new(rules: &[When]) -> Self {
        let mut first_with = HashMap::new();
        let key_of = rules
            .iter()
            .enumerate()
            .map(|(index, when)| *first_with.entry(when.conditions.to_string()).or_insert(index))
            .collect();
        Self { key_of, used: vec![false; rules.len()], tasks: HashMap::new(), order: VecDeque::new() }
    }

    /// Which rules have answered a call.
    pub(super) fn used(&self) -> &[bool] {
        &self.used
    }

    /// Counts a call and picks the first rule that applies to it, if one does.
    pub(super) fn pick(&mut self, rules: &[When], fits: &[Fit], task_id: &str) -> Option<usize> {
        let counts = counts_of(&mut self.tasks, &mut self.order, task_id);
        let key_of = &self.key_of;
        let count = |counts: &HashMap<usize, u32>, index: usize| counts.get(&index).copied().unwrap_or(0);
        let fitting = || (0..rules.len()).filter(|index| fits[*index].misfits.is_empty());
        let picked = fitting().find(|index| {
            let when = &rules[*index];
            when.nth.is_none_or(|nth| nth == count(&counts.fitted, key_of[*index]))
                && when.times.is_none_or(|times| count(&counts.answered, *index) < times)
        });
        for index in fitting().filter(|index| key_of[*index] == *index) {
            *counts.fitted.entry(index).or_default() += 1;
        }
        if let Some(index) = picked {
            *counts.answered.entry(index).or_default() += 1;
            self.used[index] = true;
        }
        picked
    }
}

fn counts_of<'a>(
    tasks: &'a mut HashMap<String, TaskCounts>,
    order: &mut VecDeque<String>,
    task_id: &str,
) -> &'a mut TaskCounts {
    if !tasks.contains_key(task_id) {
        if order.len() == TASKS_COUNTED_MAX
            && let Some(oldest) = order.pop_front()
        {
            tasks.remove(&oldest);
        }
        order.push_back(task_id.to_owned());
    }
    tasks.entry(task_id.to_owned()).or_default()
}

/// How a call and the conditions of a rule go together.
#[derive(Debug)]
pub(super) struct Fit {
    /// Names of the conditions that the call does not fit.
    misfits: Vec<&'static str>,
    /// How many it does fit.
    matches: usize,
}

/// Compares a call with every rule.
pub(super) fn compare(rules: &[When], request: &ChatRequest, model: &str) -> Vec<Fit> {
    rules.iter().map(|when| when.conditions.compare(request, model)).collect()
}

/// The rule that came nearest to a call that none answers: the fewest misfits, and among those the most matches.
pub(super) fn nearest(rules: &[When], fits: &[Fit]) -> String {
    let best = (0..rules.len()).min_by_key(|index| (fits[*index].misfits.len(), usize::MAX - fits[*index].matches));
    let Some(index) = best else {
        return "the script has no rules".to_owned();
    };
    let why = match fits[index].misfits.as_slice() {
        [] => "it answers only other calls of a task (nth or times)".to_owned(),
        misfits => format!("{} differs", misfits.join(", ")),
    };
    format!("nearest is rule {} {}: {why}", index + 1, rules[index].conditions)
}
