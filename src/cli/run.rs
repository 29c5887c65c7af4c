//! `oarlock run`: a goal in, the answer out.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use async_nats::Subscriber;
use bytes::Bytes;

use super::answer::{self, Replace, Shape};
use super::args::{ModelArgs, OnInterrupt, RunArgs};
use super::asking::{Asking, Person};
use super::attach;
use super::config::Config;
use super::exit::{Exit, ended};
use super::files::attached;
use super::fleet::{LocalFleet, ModelSource, Place, one_of_each};
use super::interrupt::interrupted;
use super::progress::Progress;
use super::talk::say;
use crate::bus::{Bus, BusError, Use};
use crate::model;
use crate::store::{FileSet, Store};
use crate::wire::subject::{HEADER_KEY, TaskSubject};
use crate::wire::{
    Attachment, AttachmentBody, Budget, FilePath, Gates, GoalRequest, Reply, Role, RunId, Tenant, limits,
};
use crate::worker::{DoorWait, wait_for_reply};

/// How long a client waits for a run; the run itself is bounded by its own limits.
const RUN_WAIT_S_MAX: u64 = 24 * 3600;
/// How long the submit door may take.
const SUBMIT_WAIT_S_MAX: u64 = 30;

/// What to do when there is no model: five lines, and the way to see something without one.
const NO_MODEL: &str = "no model is configured. One of these gives you one:
  a key:               export ANTHROPIC_API_KEY=…   (or OPENAI_API_KEY, GEMINI_API_KEY)
  Ollama:              ollama serve; ollama pull qwen2.5-coder   (found by itself on port 11434)
  your own server:     oarlock run --base-url http://127.0.0.1:8080/v1 \"…\"   (any OpenAI-compatible one)
  a model by name:     oarlock run --model anthropic/claude-haiku-5-5 \"…\"
  none, just to see:   oarlock demo";

/// A goal, ready to be sent.
pub(super) struct Submission {
    text: String,
    files: FileSet,
    budget: Budget,
    /// What waits for people.
    gates: Gates,
    /// On whose account it is.
    tenant: Tenant,
}

impl Submission {
    /// A goal without files.
    pub(super) fn of(text: &str) -> Self {
        let (budget, gates, tenant) = (Budget::default(), Gates::default(), Tenant::default());
        Self { text: text.to_owned(), files: FileSet::new(), budget, gates, tenant }
    }

    /// The run that it is under this key.
    fn run(&self, key: &str) -> RunId {
        RunId::from_key(self.tenant.of_keys(), key)
    }
}

/// What to do with the result.
pub(super) struct Delivery {
    pub(super) out: Option<PathBuf>,
    pub(super) json: bool,
    pub(super) timeout: Option<Duration>,
    /// Whether the run can be looked at afterwards.
    pub(super) kept: bool,
    /// What Ctrl-C does.
    pub(super) on_interrupt: Option<OnInterrupt>,
    /// Who is asked what waits for people.
    pub(super) person: Option<Person>,
}

pub(super) async fn run(config: &Config, args: RunArgs) -> anyhow::Result<()> {
    args.budget.within(&config.runs.budgets.run).map_err(|why| ended(Exit::Usage, why))?;
    let submission = Submission {
        text: goal_text(&args)?,
        files: attached(&args.attach)?,
        budget: args.budget.clone(),
        gates: args.gates.gates().map_err(|why| ended(Exit::Usage, why))?,
        tenant: args.tenant.clone().unwrap_or_else(|| config.tenant.clone()),
    };
    let delivery = Delivery {
        out: args.out.clone(),
        json: args.json,
        timeout: args.timeout,
        kept: args.model.script.is_none(),
        on_interrupt: on_interrupt(config, args.on_interrupt)?,
        person: Person::at_terminal(config),
    };
    let existing = match args.model.script {
        Some(_) => None,
        None => attach::find(config).await?,
    };
    if existing.is_some() && (args.model.model.is_some() || args.model.base_url.is_some()) {
        let how = "start it with another one, or name a server without a fleet";
        return Err(ended(Exit::Usage, format!("a fleet is running, and its workers have their own model; {how}")));
    }
    match existing {
        Some(bus) if args.detach => detach(&bus, &submission).await,
        Some(bus) => follow(&bus, &submission, &delivery).await,
        None if args.detach => Err(ended(
            Exit::Usage,
            "--detach needs a fleet that goes on without this command; start one with `oarlock up`",
        )),
        None => {
            let place = match args.model.script {
                Some(_) => Place::Private,
                None => Place::Project(attach::project_folder()),
            };
            let source = model_source(config, &args.model).await?;
            say("no fleet is running; starting one for this run");
            with_local_fleet(config, place, source, &submission, &delivery).await
        }
    }
}

/// What Ctrl-C does where nobody may be asked.
pub(super) fn on_interrupt(config: &Config, choice: Option<OnInterrupt>) -> anyhow::Result<Option<OnInterrupt>> {
    match (config.no_input, choice) {
        (true, Some(OnInterrupt::Ask)) => {
            Err(ended(Exit::Usage, "--no-input asks nobody; say --on-interrupt detach or --on-interrupt cancel"))
        }
        (true, None) => Ok(Some(OnInterrupt::Detach)),
        (_, choice) => Ok(choice),
    }
}

/// Runs a goal on a fleet that is started for it and stopped after it, also on Ctrl-C.
pub(super) async fn with_local_fleet(
    config: &Config,
    place: Place,
    source: ModelSource,
    submission: &Submission,
    delivery: &Delivery,
) -> anyhow::Result<()> {
    let local = LocalFleet::start(config, place, one_of_each(), &source).await?;
    let outcome = follow(&local.bus, submission, delivery).await;
    for rule in local.stop().await {
        say(&format!("warning: script rule was never used: {rule}"));
    }
    outcome
}

/// What the workers of a fleet of our own answer from.
pub(super) async fn model_source(config: &Config, args: &ModelArgs) -> anyhow::Result<ModelSource> {
    if let Some(script) = &args.script {
        let script = std::path::absolute(script).context("find the script")?;
        return Ok(ModelSource::Script(script));
    }
    let chosen = model::choose(&config.models(args)).await;
    let chosen = chosen.map_err(|error| ended(Exit::Usage, format!("failed to {:#}", anyhow::Error::from(error))))?;
    match chosen {
        Some(choice) => {
            model::open(&choice.spec, &config.model_options)
                .map_err(|error| ended(Exit::Usage, format!("failed to {:#}", anyhow::Error::from(error))))?;
            say(&format!("model {}/{}: {}", choice.spec.provider.id(), choice.spec.model, choice.why));
            Ok(ModelSource::Model(Box::new(choice)))
        }
        None => Err(ended(Exit::Usage, NO_MODEL)),
    }
}

fn goal_text(args: &RunArgs) -> anyhow::Result<String> {
    let bytes = match (&args.goal, &args.file) {
        (_, Some(file)) => std::fs::read(file).map_err(|error| {
            ended(Exit::Usage, format!("goal file {}: {error}; name a file that can be read", file.display()))
        })?,
        (Some(goal), None) if goal == "-" => {
            let mut bytes = Vec::new();
            let bound = limits::GOAL_BYTES_MAX as u64 + 1;
            std::io::stdin().take(bound).read_to_end(&mut bytes).context("read the goal from standard input")?;
            bytes
        }
        (goal, None) => goal.clone().unwrap_or_default().into_bytes(),
    };
    let refused = |error: String| ended(Exit::Usage, error);
    let text = String::from_utf8(bytes).map_err(|error| {
        refused(format!(
            "the goal is not UTF-8 text (first bad byte at {}); save it as UTF-8",
            error.utf8_error().valid_up_to()
        ))
    })?;
    let request = GoalRequest { goal: text, ..GoalRequest::default() };
    Ok(request.checked().map_err(|error| refused(error.to_string()))?.goal)
}

/// Sends the goal. The key makes a repeated send harmless, and tells the run's id before it is sent, so that files can be
/// stored and events be heard from the first.
async fn submit(bus: &Bus, submission: &Submission, key: &str) -> anyhow::Result<()> {
    let store = Store::new(&bus.hasty());
    let artifacts = store.artifacts.put(&submission.run(key), Role::Orchestrator, &submission.files).await?;
    let attachments = artifacts
        .into_iter()
        .map(|artifact| Attachment { path: artifact.path.clone(), body: AttachmentBody::Stored { artifact } });
    let request = GoalRequest {
        goal: submission.text.clone(),
        attachments: attachments.collect(),
        budget: submission.budget.clone(),
        gates: submission.gates,
        tenant: submission.tenant.clone(),
    };
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(HEADER_KEY, key);
    let wait = Duration::from_secs(SUBMIT_WAIT_S_MAX);
    let payload = Bytes::from(serde_json::to_vec(&request)?);
    let asked = async_nats::Request::new().payload(payload).headers(headers).timeout(Some(wait));
    let door = bus.root.submit_door();
    let answer = tokio::select! {
        answer = bus.client.send_request(door.clone(), asked) => answer,
        () = bus.denied(Use::Publish, &door) => return Err(BusError::Forbidden { subject: door }.into()),
    };
    let answer = answer.map_err(|error| {
        ended(Exit::Unreachable, format!("no orchestrator took the goal ({error}); `oarlock ps` shows who is there"))
    })?;
    let failed = answer.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error-Code"));
    match failed.map(|code| code.as_str().to_owned()) {
        None => Ok(()),
        Some(code) => {
            let exit = match code.as_str() {
                "400" | "413" => Exit::Usage,
                "429" => Exit::OverBudget,
                _ => Exit::Failed,
            };
            Err(ended(exit, format!("the goal was refused ({code}): {}", String::from_utf8_lossy(&answer.payload))))
        }
    }
}

fn new_key() -> String {
    format!("{:032x}", rand::random::<u128>())
}

async fn detach(bus: &Bus, submission: &Submission) -> anyhow::Result<()> {
    let key = new_key();
    submit(bus, submission, &key).await?;
    let run = submission.run(&key);
    say(&format!("the fleet has it; look with: oarlock show {run}"));
    answer::out(run.as_str())
}

/// Sends the goal, shows what happens, and delivers the result.
pub(super) async fn follow(bus: &Bus, submission: &Submission, delivery: &Delivery) -> anyhow::Result<()> {
    let key = new_key();
    let run = submission.run(&key);
    let events = bus.client.subscribe(bus.root.events_of(&run)).await.context("subscribe to the run's events")?;
    submit(bus, submission, &key).await?;
    wait_for_run(bus, &run, 1, events, delivery).await
}

/// Shows what happens in a run, and delivers the result of its generation.
pub(super) async fn wait_for_run(
    bus: &Bus,
    run: &RunId,
    generation: u32,
    events: Subscriber,
    delivery: &Delivery,
) -> anyhow::Result<()> {
    let store = Store::new(bus);
    let editing = Arc::new(AtomicBool::new(false));
    let asking = delivery.person.clone().map(|person| Asking::new(person, bus, run, editing.clone()));
    let progress = Progress::start(events, &store, run, asking);
    let wait = delivery.timeout.unwrap_or(Duration::from_secs(RUN_WAIT_S_MAX));
    let result = TaskSubject::of_run(run, generation);
    let mut reply = std::pin::pin!(wait_for_reply(bus, &store, &result, async { Ok(()) }, wait));
    let reply = loop {
        tokio::select! {
            reply = &mut reply => break reply,
            // In an editor Ctrl-C is the editor's.
            _ = tokio::signal::ctrl_c() => if !editing.load(Ordering::SeqCst) {
                let open = progress.stop().await;
                return Err(interrupted(bus, run, delivery.on_interrupt, delivery.kept, open).await);
            },
        }
    };
    progress.stop().await;
    let reply = reply.map_err(|error| match error {
        DoorWait::Late { waited_s, .. } => {
            ended(Exit::Timeout, format!("run {run} is not done after {waited_s} s; it goes on: oarlock show {run}"))
        }
        error => error.into(),
    })?;
    deliver(&store, &reply, delivery).await
}

async fn deliver(store: &Store, reply: &Reply, delivery: &Delivery) -> anyhow::Result<()> {
    let shape = if delivery.json { Shape::Json } else { Shape::Text };
    let written = match reply.failure().is_none() && !reply.artifacts().is_empty() {
        true => write_files(store, reply, delivery.out.as_deref()).await,
        false => Ok(()),
    };
    answer::print(reply, shape, delivery.kept)?;
    written
}

/// Writes the files where they were wanted, or, when something of the user's is in the way there, into a folder of the
/// run's own, and says so in the error.
async fn write_files(store: &Store, reply: &Reply, wanted: Option<&Path>) -> anyhow::Result<()> {
    let files = store.artifacts.get_all(&reply.run, reply.artifacts()).await?;
    let own = Path::new("oarlock-out").join(reply.run.as_str());
    let put = |folder: &Path, replace: &Replace<'_>| {
        let written = answer::write_files(folder, &files, replace);
        written.inspect(|()| say(&format!("files in {}: {}", folder.display(), names(&files))))
    };
    let Some(wanted) = wanted else { return put(&own, &Replace::All) };
    let attached = store.runs.goal(&reply.run).await?.map(|goal| goal.attachments).unwrap_or_default();
    match put(wanted, &Replace::Attached(&attached)) {
        Err(error) if Exit::of(&error) == Exit::Conflict => {
            put(&own, &Replace::All)?;
            Err(error.context(format!("the files are in {} instead of {}", own.display(), wanted.display())))
        }
        other => other,
    }
}

fn names(files: &FileSet) -> String {
    files.keys().map(FilePath::as_str).collect::<Vec<_>>().join(", ")
}
