//! How a process asks its models: waits and limits that hold for all of them.
//!
//! Every wait has a name that its error says. The limits on calls under way are of one process; a fleet's is their sum.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::error::{ModelError, Peer};
use super::prices::Prices;
use super::{ChatModel, ChatReply, ChatRequest};

/// Default wait for the first word of a streamed answer, thoughts included. Under the shortest time that a call of a built-in
/// role has, so that it is this wait that ends; a local server that reads long prompts for longer needs both to be longer.
pub const FIRST_BYTE_S: u64 = 120;
/// Default wait for the next byte of an answer: models that think do so in silence.
pub const READ_S: u64 = 120;
/// Name of the limit on one provider's calls.
const PROVIDER_LIMIT: &str = "provider_calls_max";
/// Name of the limit on one model's calls.
const MODEL_LIMIT: &str = "model_calls_max";

/// How long a server may be silent. The whole call has [`ChatRequest::timeout`] besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Until the first word of a streamed answer, thoughts included, whatever signs of life come before it.
    pub first_byte: Duration,
    /// Until the next byte of any answer.
    pub read: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self { first_byte: Duration::from_secs(FIRST_BYTE_S), read: Duration::from_secs(READ_S) }
    }
}

/// What holds for all models of a process.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// How long a server may be silent.
    pub waits: Waits,
    /// How many calls may be under way.
    pub calls: Arc<CallLimits>,
    /// What tokens cost; empty for no price at all.
    pub prices: Arc<Prices>,
}

/// How many calls of a process may be under way at the same time; without a limit as many as it has slots.
#[derive(Debug, Default)]
pub struct CallLimits {
    /// For each provider, whichever the model, by the provider's id; `*` for those that are not named.
    pub provider: HashMap<String, usize>,
    /// For each model, by `provider/model`; `*` for those that are not named.
    pub model: HashMap<String, usize>,
    places: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// One limit that a call counts against.
struct Limit {
    name: &'static str,
    max: usize,
    places: Arc<Semaphore>,
}

impl CallLimits {
    /// Limits by provider and by model.
    pub fn new(provider: HashMap<String, usize>, model: HashMap<String, usize>) -> Self {
        Self { provider, model, places: Mutex::default() }
    }

    /// The limits for a model called `provider/model`, its own first: who waits for one model must not keep a place from the
    /// others of its provider.
    fn of(&self, provider: &str, model: &str) -> Vec<Limit> {
        let kinds = [(MODEL_LIMIT, &self.model, model), (PROVIDER_LIMIT, &self.provider, provider)];
        let limits = kinds.into_iter().filter_map(|(name, table, key)| {
            let max = table.get(key).or_else(|| table.get("*")).copied()?;
            Some(Limit { name, max, places: self.places(&format!("{name} {key}"), max) })
        });
        limits.collect()
    }

    fn places(&self, key: &str, max: usize) -> Arc<Semaphore> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let made = places.entry(key.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(max)));
        made.clone()
    }
}

/// A model whose calls wait for a place, within their own timeout.
pub(super) struct Limited<M> {
    inner: M,
    peer: Arc<Peer>,
    limits: Vec<Limit>,
}

impl<M: ChatModel> Limited<M> {
    pub(super) fn new(inner: M, peer: Arc<Peer>, calls: &CallLimits) -> Self {
        let provider = peer.provider.map(|provider| provider.id()).unwrap_or_default();
        let limits = calls.of(provider, inner.name());
        Self { inner, peer, limits }
    }

    async fn places(&self, wait: Duration) -> Result<Vec<OwnedSemaphorePermit>, ModelError> {
        let deadline = Instant::now() + wait;
        let mut held = Vec::with_capacity(self.limits.len());
        for limit in &self.limits {
            let left = deadline.saturating_duration_since(Instant::now());
            let busy =
                || ModelError::Busy { peer: Arc::clone(&self.peer), limit: limit.name, max: limit.max, waited: wait };
            match timeout(left, Arc::clone(&limit.places).acquire_owned()).await {
                Ok(Ok(place)) => held.push(place),
                _ => return Err(busy()),
            }
        }
        Ok(held)
    }
}

#[async_trait]
impl<M: ChatModel> ChatModel for Limited<M> {
    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        if self.limits.is_empty() {
            return self.inner.complete(request).await;
        }
        let began = Instant::now();
        let _places = self.places(request.timeout).await?;
        let left = request.timeout.saturating_sub(began.elapsed());
        self.inner.complete(&ChatRequest { timeout: left, ..request.clone() }).await
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}
