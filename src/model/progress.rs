//! What a caller can hear of a completion while it goes on.
//!
//! The text as it comes, for people, and the waits that a server asks for, for whoever can slow a whole fleet down. None
//! of it counts: the completion itself is what [`super::ChatModel::complete`] gives back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One thing that happened on the way to a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The model begins to write, or begins anew after a trouble: what came before counts no more.
    Begun,
    /// It wrote this.
    Text(&'a str),
    /// The server is rate limited and asks for this pause.
    Limited(Duration),
}

/// Where the progress of a call goes. A server is asked to stream when there is one.
#[derive(Clone)]
pub struct ProgressSink(Arc<dyn Fn(Progress<'_>) + Send + Sync>);

impl ProgressSink {
    /// Calls `hear` for each thing that happens; it must come back at once, because the completion waits for it.
    pub fn new(hear: impl Fn(Progress<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// Tells one thing.
    pub(super) fn tell(&self, progress: Progress<'_>) {
        (self.0)(progress);
    }
}

impl fmt::Debug for ProgressSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgressSink(…)")
    }
}
