//! Doors: the micro service (ADR-32) that each role binary is.
//!
//! A door only enqueues, waits and answers; requests are handled side by side, so a slow one holds up nobody. Every
//! request is answered exactly once: by its handler, or with an error when there are too many of them. An error
//! carries the service error headers *and* a body, because a person with `nats req` reads the body.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::service::{Request, Service, ServiceExt, endpoint::Endpoint};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::{Bus, BusError, Use};
use crate::wire::one_line;

/// Callers that one process lets wait at its doors.
const DOOR_WAITERS_MAX: usize = 1_024;
/// Characters of an error that stand in a header.
const ERROR_LINE_CHARS_MAX: usize = 512;
/// How long the check that a new door is reachable may take.
const READY_WAIT_S_MAX: u64 = 10;
/// Pause between two such checks.
const READY_DELAY_MS: u64 = 20;

/// One subject at which requests are answered.
pub struct Door {
    /// Endpoint name, as `nats micro info` shows it.
    pub name: String,
    /// Subject; may hold wildcards.
    pub subject: String,
    /// What answers.
    pub handler: Handler,
}

/// What answers a door's requests.
pub type Handler = Arc<dyn Fn(DoorRequest) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A request at a door.
pub struct DoorRequest {
    /// The subject that it came on.
    pub subject: String,
    /// Its body, unparsed.
    pub payload: Bytes,
    /// Its headers.
    pub headers: HeaderMap,
}

/// The answer to a request: a body, headers, and an error code when it is one.
#[derive(Debug, Default)]
pub struct Answer {
    body: Bytes,
    headers: HeaderMap,
    failed: bool,
}

impl Answer {
    /// A good answer.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// An error: `code` as in HTTP, `text` in the header (its first line) and in the body (whole).
    pub fn error(code: u16, text: &str) -> Self {
        let line = one_line(text, ERROR_LINE_CHARS_MAX);
        let answer = Self { body: text.to_owned().into(), failed: true, ..Self::default() };
        answer.header("Nats-Service-Error", &line).header("Nats-Service-Error-Code", &code.to_string())
    }

    /// With another body.
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// With a header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// Open doors; they close when this is dropped or closed.
pub struct Doors {
    service: Service,
    serving: TaskTracker,
}

/// Opens a process's doors as service `name`, and returns when the server routes requests to them.
///
/// # Errors
/// When the service cannot be started, or does not answer within [`READY_WAIT_S_MAX`] seconds.
pub async fn open_doors(
    bus: &Bus,
    name: &str,
    description: &str,
    queue: &str,
    metadata: HashMap<String, String>,
    doors: Vec<Door>,
) -> Result<Doors, BusError> {
    let failed = |source: async_nats::Error| BusError::Core { what: format!("start service {name}"), source };
    let counts = Arc::new(Counts::default());
    let shown = counts.clone();
    let service = bus
        .client
        .service_builder()
        .description(description)
        .metadata(metadata)
        .queue_group(queue)
        .stats_handler(move |_, _| shown.json())
        .start(name, env!("CARGO_PKG_VERSION"))
        .await
        .map_err(failed)?;
    let serving = TaskTracker::new();
    let places = Arc::new(Semaphore::new(DOOR_WAITERS_MAX));
    for door in doors {
        let endpoint = service.endpoint_builder().name(&door.name).add(&door.subject).await.map_err(failed)?;
        let (places, counts, tracker) = (places.clone(), counts.clone(), serving.clone());
        let serving_bus = bus.clone();
        serving.spawn(async move {
            tokio::select! {
                () = serve(serving_bus.client.clone(), endpoint, door.handler, places, counts, tracker) => {}
                () = serving_bus.denied(Use::Subscribe, &door.subject) => drop(serving_bus.give_up(&door.subject)),
            }
        });
    }
    let id = service.info().await.id;
    let reachable = wait_until_reachable(bus, name, &id).await;
    if let Some(subject) = bus.denied_below("_INBOX.") {
        return Err(BusError::Forbidden { subject });
    }
    reachable?;
    Ok(Doors { service, serving })
}

impl Doors {
    /// Takes no more requests, and waits at most `grace` for those that are being answered.
    pub async fn close(self, grace: Duration) {
        match tokio::time::timeout(grace, self.service.stop()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("service stop: {error}"),
            Err(_) => tracing::debug!("the service could not say that it stops"),
        }
        self.serving.close();
        if tokio::time::timeout(grace, self.serving.wait()).await.is_err() {
            tracing::info!("callers at the doors are left; their tasks are stored and go on");
        }
    }
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    fn add(&self, failed: bool) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    fn json(&self) -> serde_json::Value {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        serde_json::json!({ "answered": read(&self.answered), "failed": read(&self.failed) })
    }
}

async fn serve(
    client: async_nats::Client,
    mut endpoint: Endpoint,
    handler: Handler,
    places: Arc<Semaphore>,
    counts: Arc<Counts>,
    tracker: TaskTracker,
) {
    while let Some(request) = endpoint.next().await {
        let (client, counts) = (client.clone(), counts.clone());
        let Ok(place) = places.clone().try_acquire_owned() else {
            let busy = format!("door_waiters_max {DOOR_WAITERS_MAX} callers wait here already; try again later");
            respond(&client, request, Answer::error(503, &busy), &counts).await;
            continue;
        };
        let asked = DoorRequest {
            subject: request.message.subject.to_string(),
            payload: request.message.payload.clone(),
            headers: request.message.headers.clone().unwrap_or_default(),
        };
        let handling = handler(asked);
        tracker.spawn(async move {
            let answer = tokio::spawn(handling).await;
            let answer =
                answer.unwrap_or_else(|panic| Answer::error(500, &format!("the door's handler broke: {panic}")));
            respond(&client, request, answer, &counts).await;
            drop(place);
        });
    }
}

async fn respond(client: &async_nats::Client, mut request: Request, answer: Answer, counts: &Counts) {
    counts.add(answer.failed);
    // A reply over the server's limit would leave the caller waiting for ever.
    let answer = match answer.body.len() + 1024 > client.max_payload() {
        true => {
            Answer::error(413, "the answer is larger than the server's max_payload; read it from the result stream")
        }
        false => answer,
    };
    let subject = request.message.subject.clone();
    let sent = match request.message.reply.clone() {
        // The library sends an error without a body, and counts none that has one: ours goes to the caller by itself,
        // and the library's, for the count, to nobody.
        Some(caller) if answer.failed => {
            let header = |name| answer.headers.get(name).map(ToString::to_string).unwrap_or_default();
            let error = async_nats::service::error::Error {
                status: header("Nats-Service-Error"),
                code: header("Nats-Service-Error-Code").parse().unwrap_or(500),
            };
            request.message.reply = Some(client.new_inbox().into());
            let sent = client.publish_with_headers(caller, answer.headers, answer.body).await;
            sent.and(request.respond(Err(error)).await)
        }
        _ => request.respond_with_headers(Ok(answer.body), answer.headers).await,
    };
    if let Err(error) = sent {
        tracing::warn!(%subject, "a caller could not be answered: {error}");
    }
}

/// A subscription that was flushed is not yet one that other connections' requests find, so ask for ourselves.
async fn wait_until_reachable(bus: &Bus, name: &str, id: &str) -> Result<(), BusError> {
    let subject = format!("$SRV.PING.{name}.{id}");
    let ping = async {
        while bus.client.request(subject.clone(), Bytes::new()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(READY_DELAY_MS)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(READY_WAIT_S_MAX), ping)
        .await
        .map_err(|late| BusError::Core { what: format!("reach our own service {name}"), source: late.into() })
}
