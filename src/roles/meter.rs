//! A task's allowance, held to before each call of a model.
//!
//! The meter stands between a role and its model: it adds up what the calls of one task took, refuses a call for whose
//! prompt and a few words of answer too little is left, and lets an answer take no more tokens than there are. What a
//! vendor counts beside our estimate of the prompt is the only part that can go over, by one call at most. The price of a
//! call is known when it is over; so money is looked at before a call, and the last one may go over.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::model::{ChatModel, ChatReply, ChatRequest, Finish, ModelError, estimated_tokens};
use crate::wire::{Allowance, Failure, FailureKind, Role, Usage, Usd, limits};

/// A model that one task may ask as long as its allowance lasts.
pub(super) struct Meter {
    inner: Arc<dyn ChatModel>,
    allowance: Allowance,
    spent: Mutex<Spent>,
}

#[derive(Default)]
struct Spent {
    usage: Usage,
    /// The last answer was cut off by what was left, and not by the role's own limit.
    cut: bool,
}

impl Meter {
    pub(super) fn new(inner: Arc<dyn ChatModel>, allowance: Allowance) -> Self {
        Self { inner, allowance, spent: Mutex::default() }
    }

    /// The failure of a task whose last answer was cut off because its allowance ended; `None` when that was not so.
    pub(super) fn cut_off(&self, role: Role) -> Option<Failure> {
        let spent = self.spent();
        let message = format!(
            "the answer of {role} was cut off by the end of its share of the budget: {}",
            self.told(&spent.usage)
        );
        spent.cut.then(|| Failure::again(FailureKind::BudgetExceeded, message))
    }

    fn spent(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request with as many tokens for its answer as there are, or why it must not be sent.
    fn fitted(&self, request: &ChatRequest) -> Result<ChatRequest, ModelError> {
        let usage = self.spent().usage;
        let refused = |why: String| Err(ModelError::OverBudget(format!("{}{why}", self.told(&usage))));
        if let Some(max) = self.allowance.cost_nano_usd
            && usage.cost_nano_usd.unwrap_or(0) >= max
        {
            return refused(String::new());
        }
        let Some(max) = self.allowance.tokens else { return Ok(request.clone()) };
        let prompt = estimated_tokens(request);
        let left = max.saturating_sub(usage.tokens()).saturating_sub(prompt);
        if left < limits::ANSWER_TOKENS_MIN.min(u64::from(request.max_output_tokens)) {
            return refused(format!(", and the next prompt takes about {prompt}"));
        }
        let max_output_tokens = request.max_output_tokens.min(u32::try_from(left).unwrap_or(u32::MAX));
        Ok(ChatRequest { max_output_tokens, ..request.clone() })
    }

    fn told(&self, usage: &Usage) -> String {
        let tokens = self.allowance.tokens.map(|max| format!("{} of {max} tokens", usage.tokens()));
        let usd = self.allowance.cost_nano_usd.map(|max| {
            let spent = Usd::from_nano(usage.cost_nano_usd.unwrap_or(0));
            format!("{spent} of {}", Usd::from_nano(max))
        });
        let both: Vec<String> = tokens.into_iter().chain(usd).collect();
        format!("{} are spent", both.join(", "))
    }
}

#[async_trait]
impl ChatModel for Meter {
    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        let fitted = self.fitted(request)?;
        let reply = self.inner.complete(&fitted).await?;
        let mut spent = self.spent();
        spent.usage += reply.usage;
        spent.cut = reply.finish == Finish::Length && fitted.max_output_tokens < request.max_output_tokens;
        Ok(reply)
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{CallContext, ChatMessage};

    /// Answers with as many tokens as it may, and counts the prompt as it says.
    struct Spender {
        input: u64,
        nano: Option<u64>,
    }

    #[async_trait]
    impl ChatModel for Spender {
        async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
            let output = u64::from(request.max_output_tokens);
            let usage = Usage { calls: 1, input: self.input, output, cost_nano_usd: self.nano, ..Usage::default() };
            Ok(ChatReply {
                text: "x".into(),
                finish: Finish::Length,
                usage,
                model: "m".into(),
                way: crate::model::Way::default(),
            })
        }

        fn name(&self) -> &str {
            "m"
        }
    }

    /// A prompt of so many tokens, and an answer of at most 1,000.
    fn request(prompt: usize) -> ChatRequest {
        ChatRequest {
            system: String::new(),
            messages: vec![ChatMessage::user("word".repeat(prompt))],
            schema: None,
            max_output_tokens: 1_000,
            timeout: Duration::from_secs(1),
            context: CallContext::default(),
            progress: None,
        }
    }

    async fn spend(meter: &Meter) -> (u32, u64) {
        let mut calls = 0;
        while meter.complete(&request(100)).await.is_ok() {
            calls += 1;
            assert!(calls < 1_000, "it never ends");
        }
        (calls, meter.spent().usage.tokens())
    }

    #[tokio::test]
    async fn an_honest_count_is_never_over() {
        for tokens in [0, 1, 355, 356, 1_100, 1_455, 1_456, 2_500, 10_000] {
            let meter = Meter::new(
                Arc::new(Spender { input: 100, nano: None }),
                Allowance { tokens: Some(tokens), cost_nano_usd: None },
            );
            let (calls, spent) = spend(&meter).await;
            assert!(spent <= tokens, "{spent} of {tokens}");
            assert_eq!(calls == 0, tokens < 100 + limits::ANSWER_TOKENS_MIN, "{tokens}");
            let whole = tokens >= 1_100 && (tokens % 1_100 == 0 || tokens % 1_100 < 356);
            assert_eq!(meter.cut_off(Role::Coder).is_some(), calls > 0 && !whole, "{tokens}");
        }
    }

    #[tokio::test]
    async fn a_vendor_who_counts_otherwise_is_over_by_one_call_at_most() {
        for input in [0, 50, 5_000, 50_000] {
            let meter = Meter::new(
                Arc::new(Spender { input, nano: None }),
                Allowance { tokens: Some(10_000), cost_nano_usd: None },
            );
            let (_, spent) = spend(&meter).await;
            assert!(spent < 10_000 + input + 1_000, "{spent}");
        }
    }

    #[tokio::test]
    async fn money_is_over_by_one_call_at_most_and_unknown_money_is_none() {
        let allowance = Allowance { tokens: None, cost_nano_usd: Some(2_500) };
        let meter = Meter::new(Arc::new(Spender { input: 1, nano: Some(1_000) }), allowance);
        assert_eq!(spend(&meter).await.0, 3);
        let refused = meter.complete(&request(1)).await.unwrap_err().to_string();
        assert!(refused.contains("$0.0001 of $0.0001 are spent"), "{refused}");
        let meter = Meter::new(Arc::new(Spender { input: 1, nano: None }), allowance);
        for _ in 0..10 {
            meter.complete(&request(1)).await.unwrap();
        }
    }
}
