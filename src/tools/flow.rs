//! How much a server may say between two things that it is asked for. Requests of its own are answered one by one, each by a
//! task of its own, so a server that sends them without end, and reads no answer, would take all memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

/// Messages of a server since it was last asked for something; more are taken for its end.
const MESSAGES_MAX: u64 = 2_000;
/// Bytes of them.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Counts what a server says.
#[derive(Clone, Default)]
pub(super) struct Flow(Arc<Counts>);

#[derive(Default)]
struct Counts {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Flow {
    /// It is asked for something: from here on it is counted anew.
    pub(super) fn begin(&self) {
        self.0.messages.store(0, Ordering::Relaxed);
        self.0.bytes.store(0, Ordering::Relaxed);
    }

    /// What `source` gives, until it is too much; then its end.
    pub(super) fn bound<R>(&self, source: R) -> Bounded<R> {
        Bounded { source, flow: self.clone() }
    }

    fn is_over(&self) -> bool {
        self.0.messages.load(Ordering::Relaxed) > MESSAGES_MAX || self.0.bytes.load(Ordering::Relaxed) > BYTES_MAX
    }

    fn count(&self, read: &[u8]) {
        let messages = read.iter().filter(|byte| **byte == b'\n').count();
        self.0.messages.fetch_add(messages as u64, Ordering::Relaxed);
        self.0.bytes.fetch_add(read.len() as u64, Ordering::Relaxed);
    }
}

/// A reader that ends when too much came.
pub(super) struct Bounded<R> {
    source: R,
    flow: Flow,
}

impl<R: AsyncRead + Unpin> AsyncRead for Bounded<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.flow.is_over() {
            tracing::warn!(
                "a tool server said more than {MESSAGES_MAX} messages or {BYTES_MAX} bytes unasked, and is ended"
            );
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.source).poll_read(cx, buffer);
        self.flow.count(&buffer.filled()[before..]);
        polled
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_server_that_never_stops_talking_is_taken_for_ended() {
        let flow = Flow::default();
        let mut heard = Vec::new();
        flow.bound(tokio::io::repeat(b'\n')).read_to_end(&mut heard).await.unwrap();
        assert!(
            heard.len() as u64 > MESSAGES_MAX && (heard.len() as u64) < 2 * MESSAGES_MAX + 64 * 1024,
            "{}",
            heard.len()
        );
        flow.begin();
        let mut more = [0; 100];
        assert_eq!(flow.bound(tokio::io::repeat(b'\n')).read(&mut more).await.unwrap(), 100);
    }
}
