//! Every stream, bucket and consumer of a fleet, declared in one place.
//!
//! All are get-or-create: a second fleet member finds them, and only a migration changes one that exists. Nothing of
//! a live run expires: no stream but the events, and what tenants took of a day that is over, has an age. Discard *new* everywhere, so that a full store refuses
//! loudly; with the server's default a full work queue evicted acknowledged tasks.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType};

use super::read::in_time;
use super::{Bus, BusError, error::Source};
use crate::wire::{Role, Root};

/// Bytes of the work queue; doors refuse above half of it.
pub(super) const TASKS_BYTES_MAX: i64 = 512 * 1024 * 1024;
/// Bytes of the events.
const EVENTS_BYTES_MAX: i64 = 256 * 1024 * 1024;
/// How long events are kept.
const EVENTS_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Unacknowledged messages of one role; the server's default of 1,000 would cap a large fleet.
const ACK_PENDING_MAX: i64 = 10_000;
/// Bytes of one stored message, headers included.
const MESSAGE_BYTES_MAX: i32 = 1024 * 1024;

/// Bytes of the dead letters; the oldest go first.
const DEAD_BYTES_MAX: i64 = 64 * 1024 * 1024;
/// How long what tenants took of a day is kept: the day, and two to look at it.
const SPENT_AGE: Duration = Duration::from_secs(3 * 24 * 3600);
/// Name of the consumer of what the schedule gives back.
const DUE: &str = "due";

/// A queue that workers pull from: a stream's consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// The tasks of a role.
    Role(Role),
    /// What the schedule gave back because its time has come.
    Due,
}

impl Queue {
    /// All queues of a fleet.
    pub fn all() -> impl Iterator<Item = Queue> {
        Role::ALL.into_iter().map(Queue::Role).chain([Queue::Due])
    }

    /// The consumer's name.
    pub fn name(self) -> &'static str {
        match self {
            Queue::Role(role) => role.name(),
            Queue::Due => DUE,
        }
    }

    /// The stream that it stands on.
    pub fn stream(self, root: &Root) -> String {
        match self {
            Queue::Role(_) => root.tasks_stream(),
            Queue::Due => root.later_stream(),
        }
    }

    fn filter(self, root: &Root) -> String {
        match self {
            Queue::Role(role) => root.tasks_of(role),
            Queue::Due => root.all_due(),
        }
    }
}

impl std::fmt::Display for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What an operator may choose about the streams.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    /// Copies of each stream: 1, or 3 on a cluster.
    pub replicas: usize,
    /// How long a worker may be silent before its task goes to another.
    pub ack_wait: Duration,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self { replicas: 1, ack_wait: Duration::from_secs(10) }
    }
}

impl Bus {
    /// Creates what is missing of the fleet's streams, buckets and consumers.
    ///
    /// # Errors
    /// [`BusError::Declare`] that names the first one that could not be had.
    pub async fn declare(&self, settings: &StreamSettings) -> Result<(), BusError> {
        for config in self.configs(settings) {
            let what = format!("stream {}", config.name);
            // A cluster may leave one of two that create a stream at the same time without an answer; the next try finds it.
            let made = in_time(async { Ok(self.js.get_or_create_stream(config).await?) }).await;
            made.map_err(|source| BusError::Declare { what, source })?;
        }
        for queue in Queue::all() {
            let declared = |source: Source| self.undeclared(queue, source);
            let stream = self.js.get_stream_no_info(queue.stream(&self.root)).await.map_err(|e| declared(e.into()))?;
            let config = self.consumer_config(queue, settings);
            // Creating over an existing consumer would overwrite its settings, so look first.
            stream.get_or_create_consumer(queue.name(), config).await.map(drop).map_err(|e| declared(e.into()))?;
        }
        Ok(())
    }

    /// The consumer of a queue, or `None` while nobody has declared it.
    pub async fn consumer(&self, queue: Queue) -> Result<Option<PullConsumer>, BusError> {
        use async_nats::jetstream::context::ConsumerInfoErrorKind::{NotFound, StreamNotFound};
        let declared = |source: Source| self.undeclared(queue, source);
        let stream = self.js.get_stream_no_info(queue.stream(&self.root)).await.map_err(|e| declared(e.into()))?;
        // Short tries: the caller asks again, and a request to a host that was cut off is lost.
        let look = async {
            match stream.consumer_info(queue.name()).await {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), NotFound | StreamNotFound) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            Ok(Some(stream.get_consumer(queue.name()).await?))
        };
        in_time(look).await.map_err(declared)
    }

    fn undeclared(&self, queue: Queue, source: Source) -> BusError {
        BusError::Declare { what: format!("consumer {queue} of {}", queue.stream(&self.root)), source }
    }

    pub(super) fn consumer_config(&self, queue: Queue, settings: &StreamSettings) -> pull::Config {
        pull::Config {
            durable_name: Some(queue.name().into()),
            description: Some(match queue {
                Queue::Role(role) => format!("tasks of role {role}"),
                Queue::Due => "what goes to its queue now".into(),
            }),
            filter_subject: queue.filter(&self.root),
            ack_policy: AckPolicy::Explicit,
            ack_wait: settings.ack_wait,
            // Never given up by the server: a message over max_deliver would stay in the queue for ever. Workers
            // count deliveries themselves.
            max_deliver: -1,
            max_ack_pending: ACK_PENDING_MAX,
            num_replicas: settings.replicas,
            ..Default::default()
        }
    }

    /// Every stream of the fleet as this version wants it.
    pub(super) fn configs(&self, settings: &StreamSettings) -> [Config; 10] {
        let root = &self.root;
        let base = |name: String, subject: String| Config {
            name,
            subjects: vec![subject],
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            allow_direct: true,
            max_message_size: MESSAGE_BYTES_MAX,
            num_replicas: settings.replicas,
            ..Default::default()
        };
        let once = |config: Config| Config { max_messages_per_subject: 1, discard_new_per_subject: true, ..config };
        let tasks = Config {
            retention: RetentionPolicy::WorkQueue,
            max_bytes: TASKS_BYTES_MAX,
            ..once(base(root.tasks_stream(), root.all_tasks()))
        };
        let republish = Republish { source: root.all_results(), destination: root.all_stored(), headers_only: false };
        let results = Config { republish: Some(republish), ..once(base(root.results_stream(), root.all_results())) };
        let blobs = once(base(root.blobs_stream(), root.all_blobs()));
        // Schedules refuse discard new, and so have no size limit: their bound is one alarm and one window of retries a run.
        let later = Config {
            subjects: vec![root.all_later(), root.all_due()],
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::Old,
            max_messages_per_subject: 1,
            allow_message_schedules: true,
            // The server adds it to schedules; without it here a migration would never come to its end.
            allow_rollup: true,
            ..base(root.later_stream(), root.all_later())
        };
        // Of a task the newest dead letter stays.
        let dead = Config {
            discard: DiscardPolicy::Old,
            max_messages_per_subject: 1,
            max_bytes: DEAD_BYTES_MAX,
            ..base(root.dead_stream(), root.all_dead())
        };
        let events = Config {
            subjects: root.kept_events(),
            discard: DiscardPolicy::Old,
            max_age: EVENTS_AGE,
            max_bytes: EVENTS_BYTES_MAX,
            ..base(root.events_stream(), String::new())
        };
        // Buckets as the key-value layer lays them out, but without rollups: one roll-up header could empty a bucket.
        let bucket = |name: String| Config {
            max_messages_per_subject: 1,
            deny_delete: true,
            ..base(format!("KV_{name}"), format!("$KV.{name}.>"))
        };
        let state = Config { allow_atomic_publish: true, ..bucket(root.state_bucket()) };
        let spent = Config { max_age: SPENT_AGE, ..bucket(root.spent_bucket()) };
        let (runs, history) = (bucket(root.runs_bucket()), bucket(root.history_bucket()));
        [tasks, results, blobs, later, dead, events, runs, state, history, spent]
    }
}
