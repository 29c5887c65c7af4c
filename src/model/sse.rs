//! Server-sent events, as far as the model APIs use them: the data of one event after the other.
//!
//! Bounded: a line or an event that does not end is refused and not collected. Names, ids and comments are skipped; the
//! data says what it is in all three formats.

use std::ops::ControlFlow;

/// Largest event. A vendor's is a few words; a server that does not stream by the word sends all at once.
pub(super) const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// Takes a stream apart into events.
#[derive(Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    after_cr: bool,
}

/// What is wrong with a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Events {
    /// Takes the next bytes and hands each event's data to `take`, until that breaks.
    pub(super) fn feed<B>(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(&str) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, TooLong> {
        for byte in bytes {
            // A line ends with LF, CR, or CR LF.
            let is_second_half = *byte == b'\n' && self.after_cr;
            self.after_cr = *byte == b'\r';
            match byte {
                b'\n' if is_second_half => {}
                b'\n' | b'\r' => {
                    if let ControlFlow::Break(end) = self.end_line(&mut take)? {
                        return Ok(ControlFlow::Break(end));
                    }
                }
                byte if self.line.len() < EVENT_BYTES_MAX => self.line.push(*byte),
                _ => return Err(TooLong),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The last event of a stream that ends without an empty line.
    pub(super) fn end<B>(&mut self, mut take: impl FnMut(&str) -> ControlFlow<B>) -> Result<ControlFlow<B>, TooLong> {
        if !self.line.is_empty()
            && let ControlFlow::Break(end) = self.end_line(&mut take)?
        {
            return Ok(ControlFlow::Break(end));
        }
        self.end_line(&mut take)
    }

    fn end_line<B>(&mut self, take: &mut impl FnMut(&str) -> ControlFlow<B>) -> Result<ControlFlow<B>, TooLong> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return Ok(match data.is_empty() {
                true => ControlFlow::Continue(()),
                false => take(&String::from_utf8_lossy(&data)),
            });
        }
        let Some(value) = line.strip_prefix(b"data:") else { return Ok(ControlFlow::Continue(())) };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if self.data.len() + value.len() + 1 > EVENT_BYTES_MAX {
            return Err(TooLong);
        }
        if !self.data.is_empty() {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
        Ok(ControlFlow::Continue(()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The events of a stream that comes in pieces of `size` bytes.
    fn events(text: &[u8], size: usize) -> Result<Vec<String>, TooLong> {
        let (mut parser, mut found) = (Events::default(), Vec::new());
        let mut keep = |data: &str| -> ControlFlow<()> {
            found.push(data.to_owned());
            ControlFlow::Continue(())
        };
        for piece in text.chunks(size) {
            let _ = parser.feed(piece, &mut keep)?;
        }
        let _ = parser.end(&mut keep)?;
        Ok(found)
    }

    #[test]
    fn events_are_found_however_they_are_cut_and_ended() {
        let text =
            "event: a\ndata: {\"x\":1}\n\n: a comment\r\n\r\ndata:two\r\ndata: lines\r\rid: 7\n\ndata: é\n\ndata: last";
        for size in 1..text.len() {
            assert_eq!(events(text.as_bytes(), size).unwrap(), ["{\"x\":1}", "two\nlines", "é", "last"], "{size}");
        }
    }

    #[test]
    fn what_does_not_end_is_refused() {
        let line = [b"data: ".as_slice(), &vec![b'x'; EVENT_BYTES_MAX + 1]].concat();
        assert_eq!(events(&line, 4096), Err(TooLong));
        let lines = b"data: 0123456789\n".repeat(EVENT_BYTES_MAX / 8);
        assert_eq!(events(&lines, 4096), Err(TooLong));
    }

    #[test]
    fn nothing_is_taken_after_a_break() {
        let mut seen = 0;
        let end = Events::default().feed(b"data: 1\n\ndata: 2\n\n", |_| {
            seen += 1;
            ControlFlow::Break("done")
        });
        assert_eq!((end, seen), (Ok(ControlFlow::Break("done")), 1));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_no_cut_matters(text in "(?s)[data: \r\n{}é]{0,80}", size in 1usize..9) {
            prop_assert_eq!(events(text.as_bytes(), size), events(text.as_bytes(), 1000));
        }
    }
}
