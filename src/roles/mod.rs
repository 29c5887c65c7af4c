//! Floor 4: what each role does with a task.
//!
//! A role is a definition (a Markdown file), a way to ask the model, and a few lines that make something checked of the
//! answer: a plan, files, a verdict. Whatever goes wrong becomes a typed failure; no role panics, and none acts outside
//! its reply, so a task that runs twice does no harm.

mod asking;
mod briefing;
mod canary;
mod citations;
mod coder;
mod collection;
mod definition;
mod documenter;
mod files;
mod meter;
mod planner;
mod progress;
mod prompt;
mod qa;
mod researcher;
mod reviewer;
mod state;
mod toolbox;
mod toolwords;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use self::briefing::Briefing;
use self::meter::Meter;
use crate::bus::Bus;
use crate::model::{
    CallContext, ChatMessage, ChatModel, ChatRequest, Finish, JsonError, OutputSchema, complete_json_checked,
};
use crate::sources::Sources;
use crate::store::Store;
use crate::tools::Tools;
use crate::wire::{Artifact, Failure, FailureKind, Outcome, Question, Reply, Report, Role, StateChange, Task, Usage};
use crate::worker::Work;

pub use self::asking::Askable;
pub use self::canary::{CanaryRule, Survived};
pub use self::definition::{RetryPolicy, RoleDefinition, RoleError, RoleLimits, RoleSet};
pub use self::prompt::Prompt;
pub use self::qa::{Prepare, Tester};
pub use self::trouble::of_model;

/// Part of a task's limit that one model call may take, so that a second question and the reply fit as well.
const CALL_SHARE: (u32, u32) = (9, 20);

/// One role at work: its definition, and the means that it has.
#[derive(Clone)]
pub struct Desk {
    /// The role's definition.
    pub definition: RoleDefinition,
    /// Where it tells of what it does.
    pub bus: Bus,
    /// The fleet's stores.
    pub store: Store,
    /// The model, or why there is none: the reply to every task that needs one.
    pub model: Result<Arc<dyn ChatModel>, Failure>,
    /// The means to run tests; only qa has them.
    pub tester: Option<Arc<Tester>>,
    /// The means to read pages; only the researcher has them.
    pub sources: Option<Sources>,
    /// The tools that the role may use, when its file names any.
    pub tools: Option<Arc<Tools>>,
}

/// What a role made of a task.
struct Product {
    content: String,
    artifacts: Vec<Artifact>,
    report: Option<Report>,
    /// What it proposes to change in the shared state.
    state: Vec<StateChange>,
}

impl Product {
    fn text(content: String) -> Self {
        Self { content, artifacts: Vec::new(), report: None, state: Vec::new() }
    }

    fn proposing(self, state: Vec<StateChange>) -> Self {
        Self { state, ..self }
    }
}

/// Why a role made nothing of a task.
enum Stopped {
    /// It could not.
    Failed(Failure),
    /// It must know this first.
    Asks(Question),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Stopped::Failed(failure)
    }
}

#[async_trait]
impl Work for Desk {
    async fn work(&self, task: &Task) -> Reply {
        let mut usage = Usage::default();
        let allowance = task.budget.unwrap_or_else(|| self.definition.limits.allowance());
        let meter = self.model.clone().map(|model| Arc::new(Meter::new(model, allowance)));
        let metered = meter.clone().map(|meter| meter as Arc<dyn ChatModel>);
        let desk = Self { model: metered, ..self.clone() };
        let (made, prompt) = match Briefing::fetch(&self.store, task).await {
            Ok(mut briefing) => (desk.produce(&mut briefing, &mut usage).await, briefing.asked.into_inner()),
            Err(failure) => (Err(failure.into()), None),
        };
        let by_budget = || meter.as_ref().ok()?.cut_off(task.role);
        let (outcome, state) = match made {
            Ok(Product { content, artifacts, report, state }) => {
                (Outcome::Completed { content, artifacts, report }, state)
            }
            Err(Stopped::Asks(question)) => (Outcome::Question(question), Vec::new()),
            Err(Stopped::Failed(failure)) if failure.kind == FailureKind::ModelCutOff => {
                (Outcome::Failed { failure: by_budget().unwrap_or(failure) }, Vec::new())
            }
            Err(Stopped::Failed(failure)) => (Outcome::Failed { failure }, Vec::new()),
        };
        Reply { usage, prompt, state, ..task.reply(outcome) }
    }
}

impl Desk {
    async fn produce(&self, briefing: &mut Briefing, usage: &mut Usage) -> Result<Product, Stopped> {
        match briefing.task.role {
            // What one asks the other is answered in prose, whatever the role makes of its own tasks.
            role if briefing.task.asked_by.is_some() && role != Role::Orchestrator => {
                self.ask_text(briefing, usage).await.map(Product::text)
            }
            Role::Planner => planner::work(self, briefing, usage).await,
            Role::Researcher => researcher::work(self, briefing, usage).await,
            Role::Coder => coder::work(self, briefing, usage).await,
            Role::Qa => qa::work(self, briefing, usage).await,
            Role::Reviewer => reviewer::work(self, briefing, usage).await,
            Role::Documenter => documenter::work(self, briefing, usage).await,
            Role::Synthesizer => self.ask_text(briefing, usage).await.map(Product::text),
            Role::Orchestrator => Err(Failure::never(
                FailureKind::InvalidInput,
                "a run is not a task for a model; send the goal to the door",
            )
            .into()),
        }
    }

    /// Asks the model for prose.
    async fn ask_text(&self, briefing: &Briefing, usage: &mut Usage) -> Result<String, Stopped> {
        let asks = asking::askable(&self.definition, &briefing.task);
        if self.tools.is_some() || !asks.is_empty() {
            let shape = json!({"type": "string", "minLength": 1});
            return toolbox::ask(self, &asks, briefing, usage, &shape, text_of).await;
        }
        let request = self.request(briefing, None)?;
        let reply =
            self.model()?.complete(&request).await.map_err(|error| trouble::of_model(briefing.task.role, error))?;
        *usage += reply.usage;
        let role = briefing.task.role;
        match reply.finish {
            Finish::Length => Err(trouble::cut_off(role, request.max_output_tokens).into()),
            Finish::Refusal => Err(trouble::refused(role, &reply.text).into()),
            Finish::Paused => Err(trouble::paused(role).into()),
            _ if reply.text.trim().is_empty() => {
                Err(Failure::again(FailureKind::ModelOutput, format!("the model of {role} answered nothing")).into())
            }
            _ => Ok(reply.text),
        }
    }

    /// Asks the model for JSON of the role's shape; `check` looks at what the shape cannot say, and its complaints go
    /// back to the model, once.
    async fn ask_json<T: Send>(
        &self,
        briefing: &Briefing,
        usage: &mut Usage,
        check: impl Fn(&Value) -> Result<T, Vec<String>> + Send + Sync,
    ) -> Result<T, Stopped> {
        let output = match &self.definition.output {
            Some(shape) if self.definition.role == Role::Coder => coder::shape(shape, &briefing.task.findings),
            shape => shape.clone().unwrap_or(Value::Bool(true)),
        };
        let schema = state::shape(&briefing.task, &output);
        let asks = asking::askable(&self.definition, &briefing.task);
        if self.tools.is_some() || !asks.is_empty() {
            return toolbox::ask(self, &asks, briefing, usage, &schema, check).await;
        }
        let schema = OutputSchema { name: self.definition.role.to_string(), schema };
        Ok(self.complete(self.request(briefing, Some(schema))?, usage, check).await?)
    }

    /// One question for JSON, and its repair.
    async fn complete<T: Send>(
        &self,
        request: ChatRequest,
        usage: &mut Usage,
        check: impl Fn(&Value) -> Result<T, Vec<String>> + Send + Sync,
    ) -> Result<T, Failure> {
        match complete_json_checked(self.model()?.as_ref(), request, check).await {
            Ok(reply) => {
                *usage += reply.usage;
                Ok(reply.value)
            }
            Err(error) => {
                *usage += JsonError::usage(&error);
                Err(trouble::of_json(self.definition.role, error))
            }
        }
    }

    fn request(&self, briefing: &Briefing, schema: Option<OutputSchema>) -> Result<ChatRequest, Failure> {
        let task = &briefing.task;
        let prompt = Prompt::of(&self.definition, briefing)?;
        // A second question of the same task repeats the first one.
        let _ = briefing.asked.set(prompt.hash());
        let (share, whole) = CALL_SHARE;
        Ok(ChatRequest {
            system: prompt.system,
            messages: vec![ChatMessage::user(prompt.text)],
            schema,
            max_output_tokens: self.definition.limits.output_tokens,
            timeout: Duration::from_millis(task.limit_ms) * share / whole,
            context: CallContext {
                run: task.run.to_string(),
                role: task.role.to_string(),
                task: task.description.clone(),
                task_id: task.id.to_string(),
                attempt: task.attempt,
            },
            progress: Some(progress::sink(&self.bus, task)),
        })
    }

    fn model(&self) -> Result<&Arc<dyn ChatModel>, Failure> {
        self.model.as_ref().map_err(Failure::clone)
    }
}

/// Prose that came inside JSON.
fn text_of(value: &Value) -> Result<String, Vec<String>> {
    match value.as_str().filter(|text| !text.trim().is_empty()) {
        Some(text) => Ok(text.to_owned()),
        None => Err(vec!["\"answer\" must be the text that was asked for, as one JSON string".into()]),
    }
}

/// The reply of a worker that was started without a model.
pub fn no_model(role: Role) -> Failure {
    let message = format!(
        "the worker of {role} has no model; give it one with --model or OARLOCK_MODEL (`oarlock doctor` lists the ways)"
    );
    Failure::never(FailureKind::ModelMissing, message)
}
