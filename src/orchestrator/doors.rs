//! The doors of the orchestrators: a goal in, an answer or a run's id out.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::json;

use super::{Orchestrator, claim, control, tenancy};
use crate::bus::{Answer, BusError, Door, DoorRequest, Point};
use crate::store::{Accepted, FileSet, Recorded, Store, StoreError};
use crate::wire::subject::{HEADER_RUN, HEADER_STATUS, HEADER_TENANT, TaskSubject};
use crate::wire::{Artifact, AttachmentBody, Goal, GoalRequest, Role, RunId, RunStatus, TaskId, Tenant};
use crate::worker::{DoorWait, error_answer, is_json, reply_answer, request_key, wait_for_reply};

/// The doors of one orchestrator process. A caller at the run door waits at most `wait`.
pub fn doors(of: &Arc<Orchestrator>, wait: Duration) -> Vec<Door> {
    let root = of.bus.root.clone();
    let run = door("run", root.run_door(), of, move |of, request| async move { run(&of, &request, wait).await });
    let submit = door("submit", root.submit_door(), of, |of, request| async move { submit(&of, &request).await });
    let control =
        door("control", root.control_door("*"), of, |of, request| async move { control::control(&of, &request).await });
    let by_name =
        door(
            "control-as",
            root.control_door("*.*"),
            of,
            |of, request| async move { control::control(&of, &request).await },
        );
    vec![run, submit, control, by_name]
}

fn door<F>(
    name: &str,
    subject: String,
    of: &Arc<Orchestrator>,
    serve: impl Fn(Arc<Orchestrator>, DoorRequest) -> F + Send + Sync + 'static,
) -> Door
where
    F: Future<Output = Answer> + Send + 'static,
{
    let of = of.clone();
    let handler = move |request: DoorRequest| -> BoxFuture<'static, Answer> { Box::pin(serve(of.clone(), request)) };
    Door { name: name.to_owned(), subject, handler: Arc::new(handler) }
}

async fn run(of: &Orchestrator, request: &DoorRequest, wait: Duration) -> Answer {
    let asked = match read(of, request) {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let known = match of.store.runs.record(&asked.run).await {
        Ok(known) => known,
        Err(error) => return error_answer(error.into()).header(HEADER_RUN, asked.run.as_str()),
    };
    // After a retry the same key waits for the newest generation.
    let generation = known.as_ref().map_or(1, |known| known.record.generation);
    let result = TaskSubject::of_run(&asked.run, generation);
    let enqueue = async { accept(of, &asked, known.is_some()).await.map(drop).map_err(Refused::into_wait) };
    let json = is_json(&request.payload);
    match wait_for_reply(&of.bus, &of.store, &result, enqueue, wait).await {
        Ok(reply) => reply_answer(&reply, json),
        Err(error) => error_answer(error).header(HEADER_RUN, asked.run.as_str()),
    }
}

async fn submit(of: &Orchestrator, request: &DoorRequest) -> Answer {
    let asked = match read(of, request) {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let accepted = async { accept(of, &asked, of.store.runs.record(&asked.run).await?.is_some()).await };
    match accepted.await {
        Ok(status) => {
            let run = asked.run.as_str();
            let json = is_json(&request.payload);
            let body = if json { json!({ "run": run, "status": status.name() }).to_string() } else { run.to_owned() };
            Answer::ok(body).header(HEADER_RUN, run).header(HEADER_STATUS, status.name())
        }
        Err(refused) => error_answer(refused.into_wait()).header(HEADER_RUN, asked.run.as_str()),
    }
}

/// A goal with the run that it is.
struct Asked {
    run: RunId,
    goal: GoalRequest,
}

fn read(of: &Orchestrator, request: &DoorRequest) -> Result<Asked, Answer> {
    let goal = GoalRequest::parse(&request.payload).map_err(|error| Answer::error(400, &error.to_string()))?;
    goal.budget.within(&of.settings.budgets.run).map_err(|why| Answer::error(400, &why))?;
    let goal = with_tenant(goal, request).map_err(|why| Answer::error(400, &why))?;
    let key = request_key(request).map_err(|why| Answer::error(400, &why))?;
    let run = key.map_or_else(RunId::random, |key| RunId::from_key(goal.tenant.of_keys(), &key));
    Ok(Asked { run, goal })
}

/// The goal with the tenant that a header names: a caller of plain text has no other way to say it.
fn with_tenant(goal: GoalRequest, request: &DoorRequest) -> Result<GoalRequest, String> {
    let Some(named) = request.headers.get(HEADER_TENANT) else { return Ok(goal) };
    let tenant: Tenant = named.as_str().parse().map_err(|error| format!("header {HEADER_TENANT}: {error}"))?;
    if !goal.tenant.is_default() && goal.tenant != tenant {
        return Err(format!("header {HEADER_TENANT} says {tenant}, and the goal {}; name one", goal.tenant));
    }
    Ok(GoalRequest { tenant, ..goal })
}

/// Why a goal was not accepted.
enum Refused {
    Conflict(RunId),
    Expired(RunId),
    Spent(String),
    Store(StoreError),
}

impl<E: Into<StoreError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Refused::Store(error.into())
    }
}

impl Refused {
    fn into_wait(self) -> DoorWait {
        match self {
            Refused::Conflict(run) => DoorWait::Conflict { run },
            Refused::Expired(run) => DoorWait::Expired { run },
            Refused::Spent(why) => DoorWait::Spent(why),
            Refused::Store(error) => DoorWait::Store(error),
        }
    }
}

/// Stores the goal and puts the run on the queue. The same key again is the same run, wherever it stands.
/// `known` says whether it had a record a moment ago.
async fn accept(of: &Orchestrator, asked: &Asked, known: bool) -> Result<RunStatus, Refused> {
    let bus = of.bus.hasty();
    let store = Store::new(&bus);
    if !known && bus.queue_is_half_full().await? {
        let source = "it is over half of its bytes; the rest is kept for the runs that began".into();
        return Err(BusError::Full { stream: bus.root.tasks_stream(), subject: bus.root.run_door(), source }.into());
    }
    if !known && let Some(why) = tenancy::refused(of, &asked.goal.tenant).await? {
        return Err(Refused::Spent(why));
    }
    let attachments = keep_attachments(&store, asked).await?;
    let (budget, gates, tenant) = (asked.goal.budget.clone(), asked.goal.gates, asked.goal.tenant.clone());
    let gated = of.settings.gated.clone();
    let goal = Goal { budget, gates, gated, tenant, ..Goal::new(asked.goal.goal.clone(), attachments) };
    let (status, generation) = match store.runs.accept(&asked.run, &goal).await? {
        Accepted::New => {
            // The run before was removed a moment ago, and its files, which these were, with it.
            if known {
                keep_attachments(&store, asked).await?;
            }
            (RunStatus::Submitted, 1)
        }
        Accepted::Known(Recorded { record, .. }) if record.status == RunStatus::Expired => {
            return Err(Refused::Expired(asked.run.clone()));
        }
        Accepted::Known(Recorded { record, .. }) => (record.status, record.generation),
        Accepted::Conflict => return Err(Refused::Conflict(asked.run.clone())),
    };
    if status == RunStatus::Submitted {
        claim::wake(&bus, Point::Start, &asked.run, TaskId::start(), generation).await?;
    }
    Ok(status)
}

/// Stores the files that came inside the request; those that are stored already are taken as they are named.
async fn keep_attachments(store: &Store, asked: &Asked) -> Result<Vec<Artifact>, StoreError> {
    let mut inside = FileSet::new();
    let mut artifacts = Vec::new();
    for attachment in &asked.goal.attachments {
        match &attachment.body {
            AttachmentBody::Text { text } => drop(inside.insert(attachment.path.clone(), text.clone().into_bytes())),
            AttachmentBody::Stored { artifact } => {
                artifacts.push(Artifact {
                    path: attachment.path.clone(),
                    role: Role::Orchestrator,
                    ..artifact.clone()
                });
            }
        }
    }
    // A run must not begin with files that nobody can read.
    store.artifacts.get_all(&asked.run, &artifacts).await?;
    artifacts.extend(store.artifacts.put(&asked.run, Role::Orchestrator, &inside).await?);
    Ok(artifacts)
}
