//! From a role's template and a task's material to the words that a model reads.

use minijinja::{Environment, UndefinedBehavior, context};

use super::briefing::Briefing;
use super::definition::RoleDefinition;
use crate::store::Store;
use crate::wire::{ContentHash, Failure, FailureKind, Task, limits};

/// Bytes of all files that one prompt shows; what is over is named and left out.
const PROMPT_FILES_BYTES_MAX: usize = 192 * 1024;

/// The words that a role asks its model with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Who the model is to be.
    pub system: String,
    /// What it is to do, and everything that it needs for it.
    pub text: String,
}

impl Prompt {
    /// The prompt of a task, made again from what is stored; the worker that did the task made the same if its role file was
    /// this one ([`Prompt::hash`]).
    ///
    /// # Errors
    /// A failure that says what is missing, or what is wrong with the template.
    pub async fn again(store: &Store, definition: &RoleDefinition, task: &Task) -> Result<Self, Failure> {
        Self::of(definition, &Briefing::fetch(store, task).await?)
    }

    /// What a reply keeps of it.
    pub fn hash(&self) -> ContentHash {
        ContentHash::of(format!("{}\n{}", self.system, self.text).as_bytes())
    }

    pub(super) fn of(definition: &RoleDefinition, briefing: &Briefing) -> Result<Self, Failure> {
        let role = briefing.task.role;
        let text = render(&definition.prompt, briefing).map_err(|error| {
            Failure::never(FailureKind::Internal, format!("the prompt of {role} cannot be made: {error:#}"))
        })?;
        Ok(Self { system: format!("You are the {role} of a team: you {}.", definition.description), text })
    }
}

/// Renders a role's template for a task.
///
/// # Errors
/// The template's error, with its line.
fn render(template: &str, briefing: &Briefing) -> Result<String, minijinja::Error> {
    let item = |text: &super::briefing::Text| {
        context! { task => text.task.as_str(), role => text.role.name(), content => text.content.as_str() }
    };
    let environment = environment();
    environment.render_str(
        template,
        context! {
            goal => briefing.goal.as_str(),
            task => context! {
                id => briefing.task.id.as_str(),
                description => briefing.task.description.as_str(),
                attempt => briefing.task.attempt,
            },
            context => briefing.context.iter().map(item).collect::<Vec<_>>(),
            evidence => briefing.evidence.iter().map(item).collect::<Vec<_>>(),
            files => shown_files(briefing),
        },
    )
}

/// Checks a template's syntax.
pub(super) fn check(template: &str) -> Result<(), minijinja::Error> {
    environment().template_from_str(template).map(drop)
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Prompts are text, not HTML.
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment
}

fn shown_files(briefing: &Briefing) -> Vec<minijinja::Value> {
    let mut left = PROMPT_FILES_BYTES_MAX;
    let shown = briefing.files.iter().map(|(path, content)| {
        let text = match std::str::from_utf8(content) {
            Err(_) => format!("(a binary file of {} bytes)", content.len()),
            Ok(text) if text.len() > left => limits::cut(text, left),
            Ok(text) => text.to_owned(),
        };
        left = left.saturating_sub(text.len());
        context! { path => path.as_str(), content => text }
    });
    shown.collect()
}
