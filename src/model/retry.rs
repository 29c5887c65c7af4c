//! Asking again when that may help, and only then.
//!
//! The policy is the one in both vendors' SDKs: rate limits, 408, 409, server errors and broken connections are asked
//! again after 0.5 s, 1 s and 2 s, with jitter, or after the wait that the server names. Neither API knows
//! idempotency keys, so a request whose answer was lost may be paid twice; that is why the retries are few.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::error::{ModelError, RETRY_AFTER_S_MAX};
use super::progress::Progress;
use super::{ChatModel, ChatReply, ChatRequest};

/// Requests after the first one.
pub const RETRIES_MAX: u32 = 3;
/// The wait before the first retry; each further one is twice as long.
const DELAY_MS_MIN: u64 = 500;
/// The pause that a rate limit is worth when its server names none.
pub const LIMITED_S: u64 = 10;
/// Part of a wait that is left to chance, so that workers which failed together do not come back together.
const JITTER: f64 = 0.25;

/// A model that is asked again after a passing trouble, within the request's own timeout.
pub struct Retrying<M> {
    inner: M,
}

impl<M> Retrying<M> {
    /// Wraps a model.
    pub fn new(inner: M) -> Self {
        Self { inner }
    }

    /// The model inside.
    pub fn inner(&self) -> &M {
        &self.inner
    }
}

#[async_trait]
impl<M: ChatModel> ChatModel for Retrying<M> {
    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        let deadline = Instant::now() + request.timeout;
        let mut attempt = request.clone();
        let mut retry = 0;
        loop {
            let error = match self.inner.complete(&attempt).await {
                Ok(reply) => return Ok(reply),
                Err(ModelError::Timeout { peer, .. }) => ModelError::Timeout { peer, limit: request.timeout },
                Err(error) => error,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = wait_before(&error, retry).filter(|wait| *wait < left);
            if let (ModelError::RateLimited { retry_after, retry: true, .. }, Some(sink)) = (&error, &request.progress)
                && (retry_after.is_some() || wait.is_none())
            {
                sink.tell(Progress::Limited(retry_after.unwrap_or(Duration::from_secs(LIMITED_S))));
            }
            let Some(wait) = wait else { return Err(error) };
            tracing::debug!(model = self.name(), %error, wait_ms = wait.as_millis() as u64, "asking again");
            sleep(wait).await;
            attempt.timeout = left - wait;
            retry += 1;
        }
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}

/// How long to wait before asking again; `None` when it would not help or not be allowed.
fn wait_before(error: &ModelError, retry: u32) -> Option<Duration> {
    if retry >= RETRIES_MAX || !error.is_transient() {
        return None;
    }
    match error.retry_after() {
        Some(wait) => (wait <= Duration::from_secs(RETRY_AFTER_S_MAX)).then_some(wait),
        None => {
            let doubled_ms = DELAY_MS_MIN << retry;
            Some(Duration::from_millis(doubled_ms).mul_f64(1.0 - JITTER * rand::random::<f64>()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::model::{CallContext, ChatMessage, Finish, Peer, Way};
    use crate::wire::Usage;

    /// Fails with what it is given, one after the other, then answers; keeps the times at which it was asked.
    struct Failing {
        errors: Mutex<Vec<ModelError>>,
        asked: Mutex<Vec<Instant>>,
    }

    #[async_trait]
    impl ChatModel for Failing {
        async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
            self.asked.lock().unwrap().push(Instant::now());
            match self.errors.lock().unwrap().pop() {
                Some(error) => Err(error),
                None => Ok(ChatReply {
                    text: format!("{}", request.timeout.as_secs()),
                    finish: Finish::Stop,
                    usage: Usage::default(),
                    model: "m".into(),
                    way: Way::default(),
                }),
            }
        }

        fn name(&self) -> &str {
            "m"
        }
    }

    fn peer() -> Arc<Peer> {
        Arc::new(Peer { provider: None, host: "h".into(), model: "m".into() })
    }

    fn limited(wait: Option<Duration>) -> ModelError {
        ModelError::RateLimited { peer: peer(), said: "slow".into(), retry_after: wait, retry: true }
    }

    async fn run(errors: Vec<ModelError>, timeout_s: u64) -> (Result<ChatReply, ModelError>, Vec<Duration>) {
        let model = Retrying::new(Failing { errors: Mutex::new(errors), asked: Mutex::default() });
        let request = ChatRequest {
            system: String::new(),
            messages: vec![ChatMessage::user("hi")],
            schema: None,
            max_output_tokens: 10,
            timeout: Duration::from_secs(timeout_s),
            context: CallContext::default(),
            progress: None,
        };
        let outcome = model.complete(&request).await;
        let asked = model.inner().asked.lock().unwrap().clone();
        (outcome, asked.windows(2).map(|pair| pair[1] - pair[0]).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn waits_double_and_end_after_three_retries() {
        let (outcome, gaps) = run((0..5).map(|_| limited(None)).collect(), 60).await;
        assert!(matches!(outcome, Err(ModelError::RateLimited { .. })));
        assert_eq!(gaps.len(), 3);
        for (gap, full_ms) in gaps.iter().zip([500, 1000, 2000]) {
            let gap_ms = gap.as_millis() as u64;
            assert!((full_ms * 3 / 4..=full_ms + 2).contains(&gap_ms), "{gap_ms} of {full_ms}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_that_the_server_names_is_kept_and_the_timeout_shrinks() {
        let (outcome, gaps) = run(vec![limited(Some(Duration::from_secs(7)))], 60).await;
        assert_eq!(outcome.unwrap().text, "53");
        assert_eq!(gaps[0].as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn no_wait_beyond_two_minutes_or_beyond_the_timeout() {
        let (outcome, gaps) = run(vec![limited(Some(Duration::from_secs(121)))], 600).await;
        assert!(outcome.unwrap_err().to_string().contains("121 s, longer than the 120 s"));
        assert!(gaps.is_empty());
        let (outcome, gaps) = run(vec![limited(Some(Duration::from_secs(60)))], 30).await;
        assert!(outcome.is_err() && gaps.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_pass_is_not_asked_again() {
        let quota = ModelError::Quota { peer: peer(), status: 429, said: "no credit".into() };
        let refused = ModelError::BadRequest { peer: peer(), status: 404, said: "no such model".into() };
        for error in [quota, refused] {
            let (outcome, gaps) = run(vec![error], 60).await;
            assert!(outcome.is_err() && gaps.is_empty());
        }
    }
}
