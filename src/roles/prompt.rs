//! From a role's template and a task's material to the words that a model reads.

use minijinja::{Environment, UndefinedBehavior, context};

use super::briefing::Briefing;
use crate::wire::limits;

/// Bytes of all files that one prompt shows; what is over is named and left out.
const PROMPT_FILES_BYTES_MAX: usize = 192 * 1024;

/// Renders a role's template for a task.
///
/// # Errors
/// The template's error, with its line.
pub(super) fn render(template: &str, briefing: &Briefing) -> Result<String, minijinja::Error> {
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
