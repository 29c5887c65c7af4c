//! The door of a role: one task by request-reply, and the wait for a stored reply that all doors share.
//!
//! The order is what makes it safe: subscribe, enqueue, read, wait. A reply that comes between any two of these is seen.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use crate::bus::{Answer, Bus, BusError, Door, DoorRequest, Outgoing, Point};
use crate::store::{Store, StoreError};
use crate::wire::subject::{HEADER_KEY, HEADER_RUN, HEADER_STATUS, TaskSubject};
use crate::wire::{
    Ask, Content, ContentHash, ContextItem, FailureKind, Outcome, Reply, Role, RunId, StateView, Task, TaskId,
    WIRE_VERSION, limits,
};

/// How often a waiting door reads the store, in case the live copy was missed.
const READ_AGAIN_S: u64 = 5;
/// How much longer than a task's limit a door waits, for the queue and the way.
const DOOR_SLACK_S: u64 = 60;

/// How a wait for a reply ended without one.
#[derive(Debug, thiserror::Error)]
pub enum DoorWait {
    /// The store could not be used.
    #[error("failed to use the store")]
    Store(#[from] StoreError),
    /// Nothing came in time.
    #[error("no reply from {role} within {waited_s} s; the task is stored and goes on")]
    Late {
        /// Whose reply.
        role: Role,
        /// Seconds waited.
        waited_s: u64,
    },
    /// The caller's key stands for a run whose time is over.
    #[error("run {run} of this key is over and is being removed; try again in a moment")]
    Expired {
        /// The run.
        run: RunId,
    },
    /// The tenant may spend nothing more.
    #[error("{0}")]
    Spent(String),
    /// The caller's key stands for another goal.
    #[error("the key in Oarlock-Key was used for another goal, run {run}; choose another key")]
    Conflict {
        /// The run that has the key.
        run: RunId,
    },
}

impl From<BusError> for DoorWait {
    fn from(error: BusError) -> Self {
        DoorWait::Store(error.into())
    }
}

/// Enqueues by `enqueue` and waits at most `wait` for the reply on `to`.
///
/// # Errors
/// [`DoorWait::Late`] when there is none in time: the task is not lost by that.
pub async fn wait_for_reply(
    bus: &Bus,
    store: &Store,
    to: &TaskSubject,
    enqueue: impl Future<Output = Result<(), DoorWait>>,
    wait: Duration,
) -> Result<Reply, DoorWait> {
    let subscribed = bus.client.subscribe(bus.root.stored(to)).await;
    let mut live =
        subscribed.map_err(|error| BusError::Core { what: "subscribe to a reply".into(), source: error.into() })?;
    enqueue.await?;
    let waiting = async {
        loop {
            // A server that is away for a while is no reason to leave a caller: the wait has its own end.
            match store.results.get(to).await {
                Ok(Some(reply)) => return reply,
                Ok(None) => {}
                Err(error) => tracing::debug!("a waiting door could not read: {:#}", anyhow::Error::from(error)),
            }
            let next = tokio::time::timeout(Duration::from_secs(READ_AGAIN_S), live.next()).await;
            if let Ok(Some(message)) = next
                && let Some((_, reply)) = store.results.read(&message.subject, &message.payload)
            {
                return reply;
            }
        }
    };
    let late = DoorWait::Late { role: to.role, waited_s: wait.as_secs() };
    tokio::time::timeout(wait, waiting).await.map_err(|_| late)
}

/// The door `<root>.ask.<role>`: plain text or JSON in, the role's reply out in the same form. `limit` is how long the
/// task may take.
pub fn ask_door(bus: &Bus, store: &Store, role: Role, limit: Duration) -> Door {
    let (bus, store) = (bus.clone(), store.clone());
    let subject = bus.root.ask_door(role);
    let handler = move |request: DoorRequest| -> futures::future::BoxFuture<'static, Answer> {
        let (bus, store) = (bus.clone(), store.clone());
        Box::pin(async move { answer(&bus, &store, role, limit, &request).await })
    };
    Door { name: "ask".into(), subject, handler: Arc::new(handler) }
}

async fn answer(bus: &Bus, store: &Store, role: Role, limit: Duration, request: &DoorRequest) -> Answer {
    let ask = match Ask::parse(&request.payload) {
        Ok(ask) => ask,
        Err(why) => return Answer::error(400, &why),
    };
    let run = match request_key(request) {
        // The question is part of the identity: another one under the same key must not get the first one's reply.
        Ok(key) => key.map_or_else(RunId::random, |key| {
            let asked = ContentHash::of(&serde_json::to_vec(&ask).unwrap_or_default());
            RunId::from_key(&format!("ask.{role}.{asked}"), &key)
        }),
        Err(why) => return Answer::error(400, &why),
    };
    let task = task_of(role, run, ask, limit);
    let to = task.subject();
    let enqueue = async {
        if bus.queue_is_half_full().await? {
            let source = "it is over half of its bytes".into();
            return Err(BusError::Full { stream: bus.root.tasks_stream(), subject: bus.root.task(&to), source }.into());
        }
        let payload = serde_json::to_vec(&task).unwrap_or_default();
        let message = Outgoing::new(Point::Dispatch, bus.root.tasks_stream(), bus.root.task(&to), payload);
        match bus.hasty().store(message).await {
            // Taken: the same key was asked before and waits in the queue.
            Ok(_) | Err(BusError::Taken { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    };
    match wait_for_reply(bus, store, &to, enqueue, limit + Duration::from_secs(DOOR_SLACK_S)).await {
        Ok(reply) => reply_answer(&reply, is_json(&request.payload)),
        Err(error) => error_answer(error).header(HEADER_RUN, to.run.as_str()),
    }
}

fn task_of(role: Role, run: RunId, ask: Ask, limit: Duration) -> Task {
    let item = |text| ContextItem {
        task: TaskId::ask(),
        role: Role::Orchestrator,
        attempt: 1,
        content: Content::inline(text),
    };
    Task {
        v: WIRE_VERSION,
        run,
        id: TaskId::ask(),
        attempt: 1,
        role,
        goal: Content::inline(ask.description.clone()),
        description: ask.description,
        context: ask.context.into_iter().map(item).collect(),
        evidence: Vec::new(),
        findings: Vec::new(),
        files: Vec::new(),
        state: StateView::default(),
        notes: Vec::new(),
        limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        budget: None,
        asked_by: None,
        attended: false,
    }
}

/// The caller's idempotency key.
///
/// # Errors
/// When it is longer than `key_bytes_max`.
pub fn request_key(request: &DoorRequest) -> Result<Option<String>, String> {
    let key = request.headers.get(HEADER_KEY).map(ToString::to_string);
    match key {
        Some(key) if key.len() > limits::KEY_BYTES_MAX || key.is_empty() => {
            Err(format!("header {HEADER_KEY} must have 1 to key_bytes_max {} bytes", limits::KEY_BYTES_MAX))
        }
        key => Ok(key),
    }
}

/// True when a caller speaks JSON, and is to be answered in it.
pub fn is_json(payload: &Bytes) -> bool {
    payload.trim_ascii_start().starts_with(b"{")
}

/// A stored reply as a door's answer: its text, or the whole of it as JSON to a caller who spoke JSON.
pub fn reply_answer(reply: &Reply, json: bool) -> Answer {
    let (status, code) = match &reply.outcome {
        Outcome::Completed { .. } => ("completed", None),
        Outcome::Failed { failure } => ("failed", Some(code_of(failure.kind))),
        Outcome::Canceled { .. } => ("canceled", Some(409)),
        // At a door there is no run in which it could be answered.
        Outcome::Question(_) => ("question", Some(409)),
    };
    // The last lines of an answer in words are the evidence for it.
    let body = match json {
        true => serde_json::to_string(reply).unwrap_or_default(),
        false if reply.role == Role::Orchestrator && !reply.evidence().is_empty() => {
            format!("{}\n\n{}", reply.text().trim_end(), reply.evidence().join("\n"))
        }
        false => reply.text().to_owned(),
    };
    let answer = code.map_or_else(|| Answer::ok(""), |code| Answer::error(code, reply.text())).body(body);
    answer.header(HEADER_RUN, reply.run.as_str()).header(HEADER_STATUS, status)
}

fn code_of(kind: FailureKind) -> u16 {
    match kind {
        FailureKind::InvalidInput | FailureKind::NoFiles | FailureKind::PathRefused => 400,
        FailureKind::TooLarge => 413,
        FailureKind::Timeout => 504,
        FailureKind::ModelMissing | FailureKind::ModelUnavailable | FailureKind::SandboxUnavailable => 503,
        _ => 500,
    }
}

/// An error of the plane as a door's answer.
pub fn error_answer(error: DoorWait) -> Answer {
    let code = match &error {
        DoorWait::Late { .. } => 504,
        DoorWait::Conflict { .. } => 409,
        DoorWait::Spent(_) => 429,
        DoorWait::Expired { .. } => 503,
        // Full, or a cluster without a leader: the same goal may be given again.
        DoorWait::Store(StoreError::Bus(
            BusError::Full { .. } | BusError::Read { .. } | BusError::Publish { .. } | BusError::Declare { .. },
        )) => 503,
        DoorWait::Store(StoreError::TooLarge { .. } | StoreError::Bus(BusError::TooLarge { .. })) => 413,
        // A file that the caller named and did not store.
        DoorWait::Store(StoreError::Damaged { .. }) => 400,
        DoorWait::Store(_) => 500,
    };
    Answer::error(code, &format!("{:#}", anyhow::Error::from(error)))
}
