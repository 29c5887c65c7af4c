//! A line that a person types, while somebody wants one: when it is not wanted any more, nothing of ours reads the terminal,
//! so that the next reader, an editor for one, has it alone.

use std::io::BufRead;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{FlushArg, tcflush};
use tokio::sync::oneshot;

/// How often a reader looks whether its line is wanted still.
const LOOK_MS: u8 = 50;
/// Bytes of a line that are read.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// A line to come.
pub(super) struct Line {
    told: oneshot::Receiver<Option<String>>,
    wanted: Arc<AtomicBool>,
}

impl Line {
    /// Begins to read a line. What was typed before is forgotten: it was no answer to what is asked now.
    pub(super) fn read() -> Self {
        let _ = tcflush(std::io::stdin().as_fd(), FlushArg::TCIFLUSH);
        let wanted = Arc::new(AtomicBool::new(true));
        let (tell, told) = oneshot::channel();
        let still = wanted.clone();
        // A thread of its own: a read of the terminal cannot be canceled, and must not hold up the end of the process.
        std::thread::spawn(move || {
            while let Some(read) = look(&still) {
                if let Some(line) = read {
                    let _ = tell.send(line);
                    return;
                }
            }
        });
        Self { told, wanted }
    }

    /// The line, without its end; `None` when there will be none. It can be waited for again when the wait was given up.
    pub(super) async fn typed(&mut self) -> Option<String> {
        (&mut self.told).await.ok().flatten()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::SeqCst);
    }
}

/// Reads a line if one is there. The outer nothing says that none is wanted, the inner one that none is there yet.
fn look(wanted: &AtomicBool) -> Option<Option<Option<String>>> {
    let stdin = std::io::stdin();
    let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let heard = poll(&mut ready, PollTimeout::from(LOOK_MS)).unwrap_or(0) > 0;
    if !wanted.load(Ordering::SeqCst) {
        return None;
    }
    if !heard {
        return Some(None);
    }
    // A terminal gives whole lines, so this takes no time.
    let mut line = Vec::new();
    let read = std::io::Read::take(stdin.lock(), LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
    Some(Some(read.ok().filter(|bytes| *bytes > 0).map(|_| String::from_utf8_lossy(&line).trim().to_owned())))
}
