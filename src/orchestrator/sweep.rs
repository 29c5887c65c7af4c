//! Every orchestrator tidies up now and then; that several do it at the same time does no harm.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// Longest time between two sweeps.
const SWEEP_S_MAX: u64 = 3_600;
/// Sweeps in one retention, so that nothing is kept much longer than it should.
const SWEEPS: u32 = 4;

/// Removes runs that ended longer than `retention` ago, again and again until `stop`.
pub async fn sweep(store: &Store, retention: Duration, stop: &CancellationToken) {
    let often = Duration::from_secs(1);
    let seldom = (retention / SWEEPS).clamp(often, Duration::from_secs(SWEEP_S_MAX));
    let mut pause = seldom;
    loop {
        // Orchestrators that were started together do not sweep together.
        let pause_now = pause.mul_f64(rand::random_range(0.5..1.0));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause_now) => {}
        }
        let swept = store.janitor.sweep(retention, false).await;
        // A sweep that was full has left some over.
        pause = if swept.as_ref().is_ok_and(|swept| swept.full) { often } else { seldom };
        match swept {
            Ok(swept) if swept.runs.is_empty() && swept.strays.is_empty() => {}
            Ok(swept) => tracing::info!(runs = swept.runs.len(), strays = swept.strays.len(), "removed what is over"),
            Err(error) => tracing::warn!("nothing was removed: {:#}", anyhow::Error::from(error)),
        }
    }
}
