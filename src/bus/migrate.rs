//! Bringing the streams, buckets and consumers of an older version to this one's settings.
//!
//! Creating never changes what exists, so that two versions can run side by side; only this does, when an operator says so.
//! Nothing is ever recreated: that would redeliver what is in hand and forget how often it was delivered.

use async_nats::jetstream::consumer::{self, IntoConsumerConfig};
use async_nats::jetstream::stream::Config;
use serde_json::{Map, Value};

use super::{Bus, BusError, Queue, StreamSettings, error::Source};

/// Settings of a stream that are ours; the rest is the server's, or the operator's.
const STREAM_SETTINGS: [&str; 16] = [
    "subjects",
    "retention",
    "max_bytes",
    "max_age",
    "max_msg_size",
    "max_msgs_per_subject",
    "discard",
    "discard_new_per_subject",
    "num_replicas",
    "allow_direct",
    "republish",
    "deny_delete",
    "allow_rollup_hdrs",
    "allow_atomic",
    "allow_msg_schedules",
    "storage",
];
/// Settings of a consumer that are ours.
const CONSUMER_SETTINGS: [&str; 6] =
    ["description", "filter_subject", "ack_wait", "max_deliver", "max_ack_pending", "num_replicas"];

/// What a migration does to one stream or consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub what: String,
    /// `created`, or each setting with its old and new value; empty when it is as it should be.
    pub changes: Vec<String>,
}

impl Bus {
    /// Compares everything with what this version wants, and changes it unless `dry_run`.
    ///
    /// # Errors
    /// [`BusError::Declare`] that names the first one that the server refused to change; those before it are changed.
    pub async fn migrate(&self, settings: &StreamSettings, dry_run: bool) -> Result<Vec<Change>, BusError> {
        let mut done = Vec::new();
        for config in self.configs(settings) {
            done.push(self.migrate_stream(config, dry_run).await?);
        }
        for queue in Queue::all() {
            done.push(self.migrate_consumer(queue, settings, dry_run).await?);
        }
        Ok(done)
    }

    async fn migrate_stream(&self, wanted: Config, dry_run: bool) -> Result<Change, BusError> {
        use async_nats::jetstream::context::GetStreamErrorKind::JetStream;
        let what = format!("stream {}", wanted.name);
        let failed = |source: Source| BusError::Declare { what: what.clone(), source };
        let found = match self.js.get_stream(&wanted.name).await {
            Ok(stream) => stream.cached_info().config.clone(),
            Err(error) if matches!(error.kind(), JetStream(ref told) if told.code() == 404) => {
                if !dry_run {
                    self.js.create_stream(wanted).await.map_err(|error| failed(error.into()))?;
                }
                return Ok(Change { what, changes: vec!["created".into()] });
            }
            Err(error) => return Err(failed(error.into())),
        };
        let (merged, changes) = merged(&found, &wanted, &STREAM_SETTINGS).map_err(|error| failed(error.into()))?;
        if !changes.is_empty() && !dry_run {
            let merged: Config = serde_json::from_value(merged).map_err(|error| failed(error.into()))?;
            self.js.update_stream(&merged).await.map_err(|error| failed(error.into()))?;
        }
        Ok(Change { what, changes })
    }

    async fn migrate_consumer(
        &self,
        queue: Queue,
        settings: &StreamSettings,
        dry_run: bool,
    ) -> Result<Change, BusError> {
        let what = format!("consumer {queue} of {}", queue.stream(&self.root));
        let failed = |source: Source| BusError::Declare { what: what.clone(), source };
        let wanted = self.consumer_config(queue, settings);
        let found = self.consumer(queue).await;
        // In a dry run the stream of a new consumer may not be there yet.
        let found = if dry_run { found.ok().flatten() } else { found? };
        let create = async |config: consumer::Config| {
            let stream = self.js.get_stream_no_info(queue.stream(&self.root)).await.map_err(|e| failed(e.into()))?;
            stream.create_consumer(config).await.map(drop).map_err(|error| failed(error.into()))
        };
        let Some(found) = found else {
            if !dry_run {
                create(wanted.into_consumer_config()).await?;
            }
            return Ok(Change { what, changes: vec!["created".into()] });
        };
        let found = &found.cached_info().config;
        let (merged, changes) = merged(found, &wanted, &CONSUMER_SETTINGS).map_err(|error| failed(error.into()))?;
        if !changes.is_empty() && !dry_run {
            create(serde_json::from_value(merged).map_err(|error| failed(error.into()))?).await?;
        }
        Ok(Change { what, changes })
    }
}

/// `found` with our settings of `wanted`, and what that changes.
fn merged(
    found: &impl serde::Serialize,
    wanted: &impl serde::Serialize,
    ours: &[&str],
) -> Result<(Value, Vec<String>), serde_json::Error> {
    let (mut merged, wanted) = (object(found)?, object(wanted)?);
    let mut changes = Vec::new();
    for name in ours {
        let (old, new) = (plain(merged.get(*name)), plain(wanted.get(*name)));
        if old != new {
            changes.push(format!("{name}: {old} → {new}"));
            merged.insert((*name).to_owned(), wanted.get(*name).cloned().unwrap_or(Value::Null));
        }
    }
    merged.retain(|_, value| !value.is_null());
    Ok((Value::Object(merged), changes))
}

fn object(value: &impl serde::Serialize) -> Result<Map<String, Value>, serde_json::Error> {
    serde_json::to_value(value).map(|value| value.as_object().cloned().unwrap_or_default())
}

/// What is not there, off, zero and unlimited (-1) are one for the server, which fills in what was left out.
fn plain(value: Option<&Value>) -> Value {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => Value::Null,
        Some(Value::Number(number)) if number.as_i64().is_some_and(|number| number <= 0) => Value::Null,
        Some(other) => other.clone(),
    }
}
