//! Tokens that a reply cost, counted as the model's vendor counted them.

use serde::{Deserialize, Serialize};

/// Token counts of one or several completions. `input` is everything that was read, the cached part included, so
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
}
