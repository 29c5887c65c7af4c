//! Whether this process slept: it was stopped by a signal, or starved of the processor.
//!
//! A message that lay in the socket meanwhile looks new to whoever wakes up, and is with another holder by then. A pulse that
//! was late tells; it cannot tell how old a message is, so for a moment after a long sleep none is trusted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

/// Pause between two pulses.
const PULSE_MS: u64 = 100;
/// How long after a sleep a message may be one that came during it.
const DROWSY_MS: u64 = 500;

/// Knows of this process's sleep, as long as it lives.
pub(super) struct Awake {
    pulse: Arc<Mutex<Pulse>>,
    beating: JoinHandle<()>,
}

/// The last pulse, and the last sleep.
struct Pulse {
    last: Instant,
    slept: Option<(Duration, Instant)>,
}

impl Pulse {
    /// Takes note of the time since the last pulse, and returns how long a sleep lasted that ended a moment ago.
    fn beat(&mut self, now: Instant) -> Duration {
        let pause = now.saturating_duration_since(self.last);
        self.last = now;
        let drowsy =
            |slept: &(Duration, Instant)| now.saturating_duration_since(slept.1) < Duration::from_millis(DROWSY_MS);
        self.slept = self.slept.filter(drowsy);
        if self.slept.is_none_or(|(longest, _)| pause > longest) && pause > 2 * Duration::from_millis(PULSE_MS) {
            self.slept = Some((pause, now));
        }
        self.slept.map(|(longest, _)| longest).unwrap_or_default()
    }
}

impl Awake {
    /// Starts to watch.
    pub(super) fn start() -> Self {
        let pulse = Arc::new(Mutex::new(Pulse { last: Instant::now(), slept: None }));
        let beating = tokio::spawn(watch(pulse.clone()));
        Self { pulse, beating }
    }

    /// How long this process slept when it woke up a moment ago; nothing otherwise.
    pub(super) fn slept(&self) -> Duration {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner).beat(Instant::now())
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

async fn watch(pulse: Arc<Mutex<Pulse>>) {
    loop {
        tokio::time::sleep(Duration::from_millis(PULSE_MS)).await;
        pulse.lock().unwrap_or_else(PoisonError::into_inner).beat(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_known_for_a_moment_and_then_forgotten() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut pulse = Pulse { last: start, slept: None };
        assert_eq!(pulse.beat(at(100)), Duration::ZERO);
        assert_eq!(pulse.beat(at(5_100)), Duration::from_secs(5));
        assert_eq!(pulse.beat(at(5_400)), Duration::from_secs(5), "a shorter pause right after it hides nothing");
        assert_eq!(pulse.beat(at(5_500)), Duration::from_secs(5));
        assert_eq!(pulse.beat(at(5_700)), Duration::ZERO);
    }
}
