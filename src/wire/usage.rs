//! What a reply took: tokens, counted as the model's vendor counted them, and money, as far as prices are known.

use serde::{Deserialize, Serialize};

use super::Usd;

/// Tokens and cost of one or several completions. `input` is everything that was read, the cached part included, so
/// uncached input = `input - cache_read - cache_write`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Completions asked for; a retried request that was answered in the end counts once.
    pub calls: u32,
    /// Tokens read, the cached ones included.
    pub input: u64,
    /// Tokens written, reasoning included.
    pub output: u64,
    /// Part of `input` that came from the vendor's cache.
    pub cache_read: u64,
    /// Part of `input` that was written to the vendor's cache.
    pub cache_write: u64,
    /// True when any of it is an estimate (bytes / 4) because the server sent no usage.
    pub estimated: bool,
    /// Completions whose cost is in `cost_nano_usd`; when it is less than `calls`, the cost is more than that.
    pub priced_calls: u32,
    /// Cost in billionths of a US dollar of the completions whose model has a known price; absent when none has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_nano_usd: Option<u64>,
    /// Answers in JSON that had to be mended, and second questions because one did not fit.
    pub repairs: u32,
}

impl Usage {
    /// Tokens read and written.
    pub fn tokens(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// The cost in words: `$0.0123`, `cost unknown`, or what is known of it.
    pub fn cost_in_words(&self) -> String {
        let Some(nano) = self.cost_nano_usd else {
            return "cost unknown".to_owned();
        };
        let amount = Usd::from_nano(nano).to_string();
        let unknown = self.calls.saturating_sub(self.priced_calls);
        match (unknown, self.estimated) {
            (0, false) => amount,
            (0, true) => format!("about {amount}"),
            (unknown, _) => format!("at least {amount} (the cost of {unknown} of {} calls is unknown)", self.calls),
        }
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        // The counts are what servers and workers say; a sum of lies must not end a process.
        self.calls = self.calls.saturating_add(other.calls);
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.cache_read = self.cache_read.saturating_add(other.cache_read);
        self.cache_write = self.cache_write.saturating_add(other.cache_write);
        self.estimated = self.estimated || other.estimated;
        self.priced_calls = self.priced_calls.saturating_add(other.priced_calls);
        self.cost_nano_usd = match (self.cost_nano_usd, other.cost_nano_usd) {
            (Some(one), Some(two)) => Some(one.saturating_add(two)),
            (one, two) => one.or(two),
        };
        self.repairs = self.repairs.saturating_add(other.repairs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_of_absurd_counts_is_the_largest_count() {
        let absurd = Usage { calls: u32::MAX, input: u64::MAX, output: u64::MAX, ..Usage::default() };
        let mut sum = Usage { calls: 1, input: 1, cache_read: 1, ..Usage::default() };
        sum += absurd;
        assert_eq!(sum, Usage { cache_read: 1, ..absurd });
    }

    #[test]
    fn a_sum_says_what_of_it_is_not_known() {
        let priced = |nano| Usage { calls: 1, priced_calls: 1, cost_nano_usd: Some(nano), ..Usage::default() };
        let unpriced = Usage { calls: 1, ..Usage::default() };
        let sum = |all: &[Usage]| {
            let mut sum = Usage::default();
            all.iter().for_each(|usage| sum += *usage);
            sum
        };
        for (all, words) in [
            (vec![unpriced, unpriced], "cost unknown"),
            (vec![priced(1_234_567_890), priced(1)], "$1.2346"),
            (vec![priced(1)], "$0.0001"),
            (vec![priced(0)], "$0.0000"),
            (vec![priced(20_000_000), unpriced], "at least $0.0200 (the cost of 1 of 2 calls is unknown)"),
            (vec![Usage { estimated: true, ..priced(20_000_000) }], "about $0.0200"),
            (vec![priced(u64::MAX), priced(u64::MAX)], "$18446744073.7096"),
        ] {
            assert_eq!(sum(&all).cost_in_words(), words);
        }
        // A reply of an older version has calls without a price.
        let old: Usage = serde_json::from_str(r#"{"calls":1,"input":5,"output":1}"#).unwrap();
        assert_eq!(
            sum(&[old, priced(20_000_000)]).cost_in_words(),
            sum(&[unpriced, priced(20_000_000)]).cost_in_words()
        );
    }
}
