//! What a completion costs.
//!
//! A table of prices is compiled in and can be overridden; its head says of when and from where it is. A model that is in
//! neither has an unknown cost and never none: at a gateway or on a machine of one's own the vendors' prices do not hold,
//! so there only the user's count.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;

use super::error::ModelError;
use super::spec::ModelSpec;
use super::{ChatModel, ChatReply, ChatRequest};
use crate::wire::Usage;

/// Largest file of prices.
pub const PRICES_BYTES_MAX: u64 = 1024 * 1024;
/// Highest price that can be meant, in dollars for a million tokens.
const PRICE_USD_MAX: f64 = 100_000.0;
/// A token's price is kept in picodollars: a dollar for a million tokens is a million of them.
const PICO_PER_PRICE: f64 = 1e6;
/// Costs are told in nanodollars.
const PICO_PER_NANO: u128 = 1_000;
const BUILT_IN: &str = include_str!("prices.toml");

/// A file of prices that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the prices: {0}")]
pub struct PriceError(String);

/// Prices of models.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    vendors: HashMap<String, Price>,
    own: HashMap<String, Price>,
}

/// What one model's tokens cost, in picodollars each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Price {
    read: u128,
    written: u128,
    cache_read: u128,
    cache_write: u128,
}

/// The form of a file. `as_of` and `source` are for people.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "as_of")]
    _as_of: Option<String>,
    #[serde(rename = "source")]
    _source: Option<String>,
    models: HashMap<String, Entry>,
}

/// Dollars for a million tokens.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "in")]
    read: f64,
    #[serde(rename = "out")]
    written: f64,
    cache_read: Option<f64>,
    cache_write: Option<f64>,
    #[serde(rename = "as_of")]
    _as_of: Option<String>,
    #[serde(rename = "source")]
    _source: Option<String>,
}

impl Prices {
    /// The prices that are compiled in.
    ///
    /// # Errors
    /// None that a test would have let through.
    pub fn built_in() -> Result<Self, PriceError> {
        Ok(Self { vendors: read(BUILT_IN)?, own: HashMap::new() })
    }

    /// The same with the user's own, the text of a TOML file, before them.
    ///
    /// # Errors
    /// [`PriceError`] says what is wrong with the file.
    pub fn with_own(text: &str) -> Result<Self, PriceError> {
        Ok(Self { own: read(text)?, ..Self::built_in()? })
    }

    /// The price of a model, by the name that was asked for, else by the one that answered; without the date that either may
    /// end in, when no price is for exactly that version.
    fn of(&self, spec: &ModelSpec, answered: &str) -> Option<Price> {
        let asked = spec.model.strip_prefix("models/").unwrap_or(&spec.model);
        let tables = [Some(&self.own), spec.is_at_vendor().then_some(&self.vendors)];
        let names = [Some(asked), without_date(asked), Some(answered), without_date(answered)];
        let of =
            |name: &str, table: &HashMap<String, Price>| table.get(&format!("{}/{name}", spec.provider.id())).copied();
        names.into_iter().flatten().find_map(|name| tables.into_iter().flatten().find_map(|table| of(name, table)))
    }
}

impl Price {
    /// The cost in nanodollars. What was neither read from a cache nor written to one is the rest of what was read.
    fn cost(self, usage: &Usage) -> u64 {
        let cached = usage.cache_read.saturating_add(usage.cache_write);
        let plain = usage.input.saturating_sub(cached);
        let parts = [
            (plain, self.read),
            (usage.cache_read, self.cache_read),
            (usage.cache_write, self.cache_write),
            (usage.output, self.written),
        ];
        let pico = parts
            .into_iter()
            .fold(0_u128, |sum, (tokens, price)| sum.saturating_add(u128::from(tokens).saturating_mul(price)));
        u64::try_from(pico.div_ceil(PICO_PER_NANO)).unwrap_or(u64::MAX)
    }
}

fn read(text: &str) -> Result<HashMap<String, Price>, PriceError> {
    let file: File = toml::from_str(text).map_err(|error| PriceError(error.to_string()))?;
    let priced = |(name, entry): (String, Entry)| price(&name, &entry).map(|price| (name, price));
    file.models.into_iter().map(priced).collect()
}

fn price(name: &str, entry: &Entry) -> Result<Price, PriceError> {
    if !name.contains('/') {
        return Err(PriceError(format!("{name:?} names no provider; write \"provider/model\"")));
    }
    let pico = |usd: f64| match usd.is_finite() && (0.0..=PRICE_USD_MAX).contains(&usd) {
        true => Ok((usd * PICO_PER_PRICE).round() as u128),
        false => Err(PriceError(format!("a price of {name} is {usd}; it must be 0 to {PRICE_USD_MAX} dollars"))),
    };
    Ok(Price {
        read: pico(entry.read)?,
        written: pico(entry.written)?,
        cache_read: pico(entry.cache_read.unwrap_or(entry.read))?,
        cache_write: pico(entry.cache_write.unwrap_or(entry.read))?,
    })
}

/// A name without the date at its end, `-20261001` or `-2026-10-01`; `None` when it has none.
fn without_date(name: &str) -> Option<&str> {
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_date = |text: &str| match text.as_bytes() {
        [b'2', b'0', ..] if text.len() == 8 => digits(text, 8),
        [b'2', b'0', ..] if text.len() == 10 => {
            let parts: Vec<&str> = text.split('-').collect();
            matches!(parts[..], [year, month, day] if digits(year, 4) && digits(month, 2) && digits(day, 2))
        }
        _ => false,
    };
    [9, 11].into_iter().find_map(|length| {
        let (stem, end) = name.split_at_checked(name.len().checked_sub(length)?)?;
        end.strip_prefix('-').filter(|date| is_date(date) && !stem.is_empty()).map(|_| stem)
    })
}

/// A model whose replies tell what they cost, when that is known.
pub(super) struct Priced<M> {
    inner: M,
    spec: ModelSpec,
    prices: Arc<Prices>,
}

impl<M> Priced<M> {
    pub(super) fn new(inner: M, spec: &ModelSpec, prices: &Arc<Prices>) -> Self {
        Self { inner, spec: spec.clone(), prices: prices.clone() }
    }
}

#[async_trait]
impl<M: ChatModel> ChatModel for Priced<M> {
    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        let mut reply = self.inner.complete(request).await?;
        if let Some(price) = self.prices.of(&self.spec, &reply.model) {
            reply.usage.cost_nano_usd = Some(price.cost(&reply.usage));
            reply.usage.priced_calls = reply.usage.calls;
        }
        Ok(reply)
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DEFAULT_MODELS, Provider};

    fn spec(name: &str, base_url: Option<&str>) -> ModelSpec {
        let (provider, model) = name.split_once('/').unwrap();
        ModelSpec {
            provider: Provider::from_id(provider).unwrap(),
            model: model.into(),
            base_url: base_url.map(str::to_owned),
            api_key: None,
        }
    }

    fn usage(input: u64, cache_read: u64, cache_write: u64, output: u64) -> Usage {
        Usage { calls: 1, input, output, cache_read, cache_write, ..Usage::default() }
    }

    #[test]
    fn the_models_that_are_taken_unasked_have_a_price() {
        let prices = Prices::built_in().unwrap();
        for (provider, model) in DEFAULT_MODELS {
            assert!(prices.of(&spec(&format!("{}/{model}", provider.id()), None), "").is_some(), "{model}");
        }
    }

    #[test]
    fn each_kind_of_token_has_its_price() {
        let prices = Prices::built_in().unwrap();
        let price = prices.of(&spec("anthropic/claude-sonnet-5-5", None), "").unwrap();
        // A million of each: 2 + 0.10 + 2.50 + 10 dollars.
        assert_eq!(price.cost(&usage(3_000_000, 1_000_000, 1_000_000, 1_000_000)), 14_600_000_000);
        assert_eq!(price.cost(&usage(1, 0, 0, 0)), 2_000);
        let price = prices.of(&spec("openai/gpt-5-mini", None), "").unwrap();
        assert_eq!(price.cost(&usage(1_000_000, 0, 1_000_000, 0)), 250_000_000, "without a price of its own, as read");
        // A fraction of a nanodollar counts as one; what cannot be counted is the most there is.
        let cheap = Prices::with_own("[models]\n\"openai/x\" = { in = 0.0000015, out = 0 }").unwrap();
        let price = cheap.of(&spec("openai/x", None), "").unwrap();
        assert_eq!((price.cost(&usage(1, 0, 0, 9)), price.cost(&usage(0, 0, 0, 9))), (1, 0));
        let most = Price { read: u128::MAX, written: 1, cache_read: 1, cache_write: 1 };
        assert_eq!(most.cost(&usage(u64::MAX, 0, 0, u64::MAX)), u64::MAX);
    }

    #[test]
    fn a_price_is_found_by_name_and_by_dated_name_and_never_guessed() {
        let prices = Prices::built_in().unwrap();
        let found = |asked: &str, answered: &str| prices.of(&spec(asked, None), answered).is_some();
        for (asked, answered) in [
            ("anthropic/claude-haiku-5-5", "anything"),
            ("anthropic/claude-haiku-5-5-20261001", ""),
            ("openai/gpt-6-luna-2026-08-01", ""),
            ("openai/gpt-newest", "gpt-6-luna-2026-08-01"),
            ("gemini/models/gemini-3.8-flash", ""),
        ] {
            assert!(found(asked, answered), "{asked} {answered}");
        }
        for (asked, answered) in [
            ("anthropic/claude-haiku-5", ""),
            ("anthropic/claude-haiku-5-5-high", ""),
            ("anthropic/claude-haiku-5-5-12345678", ""),
            ("anthropic/gpt-6-luna", ""),
            ("openai/gpt-6-lunatic", "gpt-6-luna-pro"),
            ("openai/gpt-6-luna-20é61001", ""),
            ("ollama/gpt-6-luna", ""),
        ] {
            assert!(!found(asked, answered), "{asked} {answered}");
        }
    }

    #[test]
    fn elsewhere_than_at_the_vendor_only_the_user_s_prices_hold() {
        let vendors = Prices::built_in().unwrap();
        let own = "as_of = \"2026-11-22\"\n[models]\n\"openai/gpt-6-luna\" = { in = 7, out = 0 }\n\"ollama/q\" = { in = 0, out = 0 }";
        let own = Prices::with_own(own).unwrap();
        for url in ["http://127.0.0.1:8080", "https://gateway.example/v1"] {
            assert_eq!(vendors.of(&spec("openai/gpt-6-luna", Some(url)), ""), None);
            assert_eq!(own.of(&spec("openai/gpt-6-luna", Some(url)), "").unwrap().read, 7_000_000);
        }
        assert!(vendors.of(&spec("openai/gpt-6-luna", Some("https://api.openai.com")), "").is_some());
        assert_eq!(own.of(&spec("openai/gpt-6-luna", None), "").unwrap().read, 7_000_000, "the user's come first");
        assert!(own.of(&spec("openai/gpt-6-astra", None), "").is_some(), "the others are as they were");
        assert_eq!(own.of(&spec("ollama/q", None), "").unwrap().cost(&usage(5, 0, 0, 5)), 0, "free, and known to be");
    }

    #[test]
    fn a_wrong_file_says_what_is_wrong() {
        for (text, says) in [
            ("[models]\nx = { in = 1, out = 1 }", "names no provider"),
            ("[models]\n\"a/x\" = { in = 1 }", "out"),
            ("[models]\n\"a/x\" = { in = -1, out = 1 }", "-1"),
            ("[models]\n\"a/x\" = { in = nan, out = 1 }", "NaN"),
            ("[models]\n\"a/x\" = { in = 1, out = 1, cached = 2 }", "cached"),
            ("models = 1", "map"),
        ] {
            let told = Prices::with_own(text).unwrap_err().to_string();
            assert!(told.contains(says), "{told}");
        }
    }
}
