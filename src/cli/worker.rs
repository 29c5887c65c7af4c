//! One process of one role: what `oarlock worker` and the role binaries are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::args::{ModelArgs, WorkerArgs};
use super::config::Config;
use super::exit::{Exit, ended};
use super::mcp;
use crate::bus::{Bus, BusError, Queue, open_doors};
use crate::model::{self, ChatModel, ModelError, Script, ScriptedModel};
use crate::orchestrator::{self, DueHandler, Orchestrator};
use crate::roles::{Desk, Prepare, Tester, no_model, of_model};
use crate::sandbox::{Limits, Python, Sandbox};
use crate::store::Store;
use crate::wire::{Failure, Role};
use crate::worker::{self, Handler, TaskHandler, WorkerConfig, ask_door};

/// How long a worker waits for a server that is not there yet.
const SERVER_WAIT_S_MAX: u64 = 60;
/// Pause between two tries to connect or declare.
const SERVER_DELAY_MS: u64 = 250;
/// Processor time of one test run, over all its processes: as much as its wall time, for a suite that is busy throughout.
const TEST_CPU_S: u64 = 60;
/// Messages of the schedule that one orchestrator moves at the same time.
const DUE_SLOTS: usize = 4;
/// How long callers at the doors may be waited for at the end.
const DOOR_GRACE_S: u64 = 1;

/// Serves `role` until SIGTERM, SIGINT, or the end of standard input with `--with-parent`.
pub(super) async fn serve(config: &Config, role: Role, args: &WorkerArgs) -> anyhow::Result<()> {
    let tools = mcp::tools_of(config, config.roles.get(role))?;
    let stop = stop_signal(args.with_parent)?;
    let name = worker_name(role);
    let bus = connect(config, &name, &stop).await?;
    let store = Store::new(&bus);
    let (watched, ending) = (bus.clone(), stop.clone());
    tokio::spawn(async move {
        watched.unfit().await;
        ending.cancel();
    });
    let definition = config.roles.get(role);
    let slots = args.slots.unwrap_or(config.slots(role)).max(1);
    let scripted = args.model.script.as_ref().map(|path| read_script(path)).transpose()?;
    let (handler, doors): (Arc<dyn Handler>, _) = match role {
        Role::Orchestrator => {
            declare(&bus, config, &stop).await?;
            let orchestrator = Orchestrator::new(&bus, &store, config.runs.clone(), name.clone());
            let doors = orchestrator::doors(&orchestrator, definition.limits.time());
            (orchestrator, doors)
        }
        _ => {
            let tester = (role == Role::Qa).then(|| tester(config));
            let model = model_of(config, role, &args.model, scripted.clone()).await?;
            let sources = (role == Role::Researcher).then(|| config.sources.clone());
            let limit = config.runs.limits.get(&role).copied().unwrap_or(definition.limits.time());
            let (definition, to, kept) = (definition.clone(), bus.clone(), store.clone());
            let desk = Desk { definition, bus: to, store: kept, model, tester, sources, tools: tools.clone() };
            let handler = TaskHandler::new(&bus, &store, Arc::new(desk), name.clone());
            (Arc::new(handler), vec![ask_door(&bus, &store, role, limit)])
        }
    };
    let metadata = HashMap::from([
        ("role".to_owned(), role.to_string()),
        ("worker".to_owned(), name.clone()),
        ("slots".to_owned(), slots.to_string()),
        ("stream".to_owned(), bus.root.tasks_stream()),
        ("consumer".to_owned(), role.to_string()),
    ]);
    let service = bus.root.service(role);
    let open = open_doors(&bus, &service, &definition.description, role.name(), metadata, doors).await?;
    tracing::info!(%role, slots, worker = name, "serving");
    let settings = WorkerConfig { queue: Queue::Role(role), slots, grace: args.grace };
    match role {
        Role::Orchestrator => {
            let due = WorkerConfig { queue: Queue::Due, slots: DUE_SLOTS, grace: args.grace };
            tokio::join!(
                worker::serve(&bus, &settings, handler, &stop),
                worker::serve(&bus, &due, Arc::new(DueHandler(bus.clone())), &stop),
                orchestrator::sweep(&store, config.retention, &stop),
            );
        }
        _ => worker::serve(&bus, &settings, handler, &stop).await,
    }
    open.close(Duration::from_secs(DOOR_GRACE_S)).await;
    if let Some(tools) = tools {
        tools.close().await;
    }
    if let Some(scripted) = scripted {
        scripted.unused(role.name()).iter().for_each(|rule| tracing::warn!("script rule was never used: {rule}"));
    }
    tracing::info!(%role, "stopped");
    Ok(bus.fit()?)
}

/// Role, host and process, so that a person finds the process behind a reply.
fn worker_name(role: Role) -> String {
    #[cfg(unix)]
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok()).unwrap_or_default();
    #[cfg(not(unix))]
    let host = String::new();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    format!("{role}@{host}:{}", std::process::id())
}

/// Connects, and waits for a server that comes later; what will not pass by waiting is an error at once.
async fn connect(config: &Config, name: &str, stop: &CancellationToken) -> anyhow::Result<Bus> {
    let named = config.connections.any()?;
    let started = Instant::now();
    loop {
        match Bus::connect(&named.server, &config.root, name).await {
            Ok(bus) => return Ok(bus),
            Err(error @ BusError::Connect { .. }) => {
                if stop.is_cancelled() || started.elapsed() > Duration::from_secs(SERVER_WAIT_S_MAX) {
                    return Err(named.blame(error));
                }
                tracing::info!("waiting for NATS: {:#}", named.blame(error));
            }
            Err(error) => return Err(named.blame(error)),
        }
        tokio::time::sleep(Duration::from_millis(SERVER_DELAY_MS)).await;
    }
}

/// Declares streams and consumers; a cluster may need a moment before it has a leader for them.
async fn declare(bus: &Bus, config: &Config, stop: &CancellationToken) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        match bus.declare(&config.streams).await {
            Ok(()) => return Ok(()),
            Err(error) if stop.is_cancelled() || started.elapsed() > Duration::from_secs(SERVER_WAIT_S_MAX) => {
                return Err(error.into());
            }
            Err(error) => {
                if let Some(subject) = bus.denied_below("$JS.API.") {
                    return Err(bus.give_up(&subject).into());
                }
                tracing::warn!("streams are not declared yet: {:#}", anyhow::Error::from(error));
            }
        }
        tokio::time::sleep(Duration::from_millis(SERVER_DELAY_MS)).await;
    }
}

fn stop_signal(with_parent: bool) -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = CancellationToken::new();
    let (mut terminate, stopping) = (signal(SignalKind::terminate())?, stop.clone());
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        stopping.cancel();
    });
    if with_parent {
        let orphaned = stop.clone();
        // A thread of its own: a read of standard input cannot be cancelled.
        std::thread::Builder::new().name("parent".into()).spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            orphaned.cancel();
        })?;
    }
    Ok(stop)
}

fn read_script(path: &std::path::Path) -> anyhow::Result<Arc<ScriptedModel>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| ended(Exit::Usage, format!("script {shown}: {error}; name one that can be read")))?;
    let script =
        Script::parse(&text).map_err(|error| ended(Exit::Usage, format!("script {shown}: {error}; mend it")))?;
    Ok(Arc::new(ScriptedModel::new(Arc::new(script), "scripted")))
}

/// The model of this process. Without one, or without its key, the worker serves all the same and says so in every reply
/// that needs it; settings that cannot be meant end it at once.
async fn model_of(
    config: &Config,
    role: Role,
    args: &ModelArgs,
    scripted: Option<Arc<ScriptedModel>>,
) -> anyhow::Result<Result<Arc<dyn ChatModel>, Failure>> {
    if let Some(scripted) = scripted {
        return Ok(Ok(Arc::new(model::Retrying::new(scripted))));
    }
    let unusable = |error: ModelError| ended(Exit::Usage, format!("failed to {:#}", anyhow::Error::from(error)));
    let Some(choice) = model::choose(&config.models(args)).await.map_err(unusable)? else {
        tracing::warn!("no model is configured; tasks that need one will fail (`oarlock doctor` lists the ways)");
        return Ok(Err(no_model(role)));
    };
    tracing::info!("model {}/{}: {}", choice.spec.provider.id(), choice.spec.model, choice.why);
    match model::open(&choice.spec, &config.model_options) {
        Ok(model) => Ok(Ok(model)),
        Err(error @ ModelError::Auth { .. }) => {
            let failure = of_model(role, error);
            tracing::warn!("{failure}");
            Ok(Err(failure))
        }
        Err(error) => Err(unusable(error)),
    }
}

/// The means of qa, made ready in the background, so that the door opens at once.
fn tester(config: &Config) -> Arc<Tester> {
    let candidates = config.python_candidates();
    let (cache, choice) = (config.cache.clone(), config.sandbox);
    let prepare: Prepare = Box::new(move || prepare(candidates.clone(), cache.clone(), choice).boxed());
    let tester = Arc::new(Tester::new(prepare, Limits { cpu_s: TEST_CPU_S, ..Limits::default() }, config.canary));
    let warming = tester.clone();
    tokio::spawn(async move {
        match warming.sandbox().await {
            Ok(sandbox) => tracing::info!("sandbox: {}", sandbox.tier()),
            Err(why) => tracing::error!("no sandbox: {why}"),
        }
    });
    tester
}

/// Python and the sandbox that is made of it; the error is for people.
async fn prepare(
    candidates: Vec<std::path::PathBuf>,
    cache: std::path::PathBuf,
    choice: crate::sandbox::Choice,
) -> Result<Sandbox, String> {
    let told = |error: crate::sandbox::SandboxError| format!("{:#}", anyhow::Error::from(error));
    let python = Python::prepare(&candidates, &cache).await.map_err(told)?;
    let helper = std::env::current_exe().map_err(|error| format!("our own executable is not to be found: {error}"))?;
    Sandbox::probe(choice, helper, python).await.map_err(told)
}
