//! Keeps the start and the end of the output, counts the rest, and reports the end of the stream or a flood.

use std::collections::VecDeque;
use std::io::{PipeReader, Read};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

const CHUNK_BYTES: usize = 64 * 1024;

/// Something that ends the quiet watching.
pub(super) enum Event {
    /// The worker let go.
    Cancelled,
    /// Too much output.
    Flood,
    /// Nobody can print any more.
    OutputEnded,
}

/// What is kept of the output.
#[derive(Clone, Default)]
pub(super) struct Kept {
    pub total: u64,
    pub head: Vec<u8>,
    pub tail: VecDeque<u8>,
}

/// A view on output that a thread is reading.
pub(super) struct Capture {
    kept: Arc<Mutex<Kept>>,
}

impl Capture {
    /// Starts reading. Sends [`Event::Flood`] once when `bytes_max` is passed, and [`Event::OutputEnded`] at the end.
    pub fn start(pipe: PipeReader, bytes_max: u64, bytes_kept: u64, events: Sender<Event>) -> Capture {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let half = usize::try_from(bytes_kept / 2).unwrap_or(usize::MAX);
        let shared = Arc::clone(&kept);
        std::thread::spawn(move || read_all(pipe, bytes_max, half, &shared, &events));
        Capture { kept }
    }

    /// What was kept until now.
    pub fn snapshot(&self) -> Kept {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read_all(mut pipe: PipeReader, bytes_max: u64, half: usize, shared: &Mutex<Kept>, events: &Sender<Event>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut flooded = false;
    while let Ok(length) = pipe.read(&mut chunk)
        && length > 0
    {
        let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
        kept.add(&chunk[..length], half);
        if kept.total > bytes_max && !flooded {
            flooded = true;
            if events.send(Event::Flood).is_err() {
                return;
            }
        }
    }
    // The receiver is gone only when the run is over; then nobody needs to know.
    let _ = events.send(Event::OutputEnded);
}

impl Kept {
    fn add(&mut self, bytes: &[u8], half: usize) {
        self.total += bytes.len() as u64;
        let to_head = bytes.len().min(half.saturating_sub(self.head.len()));
        self.head.extend_from_slice(&bytes[..to_head]);
        let rest = &bytes[to_head..];
        let newest = &rest[rest.len().saturating_sub(half)..];
        let surplus = (self.tail.len() + newest.len()).saturating_sub(half);
        self.tail.drain(..surplus.min(self.tail.len()));
        self.tail.extend(newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_tail_are_kept() {
        let mut kept = Kept::default();
        for chunk in [&b"abc"[..], b"defgh", b"ij", b"klmnopqrstuvw"] {
            kept.add(chunk, 4);
        }
        assert_eq!(kept.total, 23);
        assert_eq!(kept.head, b"abcd");
        assert_eq!(kept.tail, b"tuvw");
        kept.add(b"x", 4);
        assert_eq!(kept.tail, b"uvwx");
    }
}
