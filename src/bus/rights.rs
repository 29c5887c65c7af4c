//! What the server refuses us. A denied publish or subscription gets no answer: the server says so beside the answers, and
//! who does not look there waits for a timeout, and then tries again, for ever.
//!
//! Only a subject of our own counts. A caller may name a reply subject that we must not use; that is his loss, and no
//! reason to end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_nats::{Event, ServerError};
use tokio::sync::watch;

use super::{Bus, BusError};

/// Denials that are remembered.
const DENIED_MAX: usize = 64;
/// How long one is; after that the right may have been given.
const DENIED_S: u64 = 15;

/// What was refused on one connection.
#[derive(Default)]
pub(super) struct Rights {
    denied: watch::Sender<VecDeque<Denial>>,
    unfit: watch::Sender<Option<String>>,
}

struct Denial {
    at: Instant,
    what: Use,
    subject: String,
}

/// What a subject may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// To send to it.
    Publish,
    /// To listen on it.
    Subscribe,
}

impl Rights {
    /// Takes note of an event when it is a denial.
    pub(super) fn hear(&self, event: &Event) {
        let Event::ServerError(ServerError::Other(text)) = event else { return };
        let Some((what, subject)) = read(text) else { return };
        self.denied.send_modify(|denied| {
            denied.truncate(DENIED_MAX - 1);
            denied.push_front(Denial { at: Instant::now(), what, subject: subject.to_owned() });
        });
    }
}

/// Reads `Permissions Violation for Publish to "a.b"`.
fn read(text: &str) -> Option<(Use, &str)> {
    let (_, rest) = text.split_once("Permissions Violation for ")?;
    let what = if rest.starts_with("Publish") { Use::Publish } else { Use::Subscribe };
    Some((what, rest.split('"').nth(1)?))
}

fn find(denied: &VecDeque<Denial>, is_it: impl Fn(&Denial) -> bool) -> Option<&Denial> {
    denied.iter().find(|denial| denial.at.elapsed() < Duration::from_secs(DENIED_S) && is_it(denial))
}

impl Bus {
    /// Comes back when the server refuses us this use of `subject`, and never when it does not.
    pub async fn denied(&self, what: Use, subject: &str) {
        let is_it = |denial: &Denial| denial.what == what && denial.subject == subject;
        let mut denied = self.rights.denied.subscribe();
        let _ = denied.wait_for(|denied| find(denied, is_it).is_some()).await;
    }

    /// A subject below `prefix` that was refused a moment ago.
    pub fn denied_below(&self, prefix: &str) -> Option<String> {
        find(&self.rights.denied.borrow(), |denial| denial.subject.starts_with(prefix))
            .map(|denial| denial.subject.clone())
    }

    /// Says that this process cannot do its work, because it may not use `subject`.
    pub fn give_up(&self, subject: &str) -> BusError {
        self.rights.unfit.send_replace(Some(subject.to_owned()));
        BusError::Forbidden { subject: subject.to_owned() }
    }

    /// Comes back when this process cannot do its work.
    pub async fn unfit(&self) {
        let _ = self.rights.unfit.subscribe().wait_for(Option::is_some).await;
    }

    /// # Errors
    /// [`BusError::Forbidden`] when this process cannot do its work.
    pub fn fit(&self) -> Result<(), BusError> {
        let unfit = self.rights.unfit.borrow().clone();
        unfit.map_or(Ok(()), |subject| Err(BusError::Forbidden { subject }))
    }
}

#[cfg(test)]
mod tests {
    use super::{Use, read};

    #[test]
    fn a_denial_is_read() {
        for (text, denial) in [
            (
                "nats: Permissions Violation for Publish to \"oarlock.result.coder.r.t1.1\"",
                Some((Use::Publish, "oarlock.result.coder.r.t1.1")),
            ),
            (
                "Permissions Violation for Subscription to \"oarlock.ask.coder\" using queue \"coder\"",
                Some((Use::Subscribe, "oarlock.ask.coder")),
            ),
            ("maximum connections exceeded", None),
        ] {
            assert_eq!(read(text), denial);
        }
    }
}
