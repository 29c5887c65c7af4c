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
        self.calls += other.calls;
        self.input += other.input;
        self.output += other.output;
        self.cache_read += other.cache_read;
        self.cache_write += other.cache_write;
        self.estimated |= other.estimated;
    }
}
