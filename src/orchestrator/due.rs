//! What the schedule gives back goes to its queue: a retry whose pause is over, an alarm.

use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, BusError, Outgoing, Point};
use crate::worker::{Delivery, Done, Handler};

/// Pause before a queue that took nothing is tried again.
const AGAIN_S: u64 = 1;

/// Moves due messages to their queues. A copy that is there already is as good.
pub struct DueHandler(pub Bus);

#[async_trait]
impl Handler for DueHandler {
    async fn handle(&self, delivery: &Delivery, _stop: &CancellationToken) -> Done {
        let root = &self.0.root;
        let (stream, subject) = (root.tasks_stream(), root.task(&delivery.to));
        match self.0.store(Outgoing::new(Point::Due, stream, subject, delivery.payload.clone())).await {
            Ok(_) | Err(BusError::Taken { .. }) => Done::Ack,
            Err(error) => {
                tracing::warn!("what is due waits for its queue: {:#}", anyhow::Error::from(error));
                Done::HandBack(Duration::from_secs(AGAIN_S))
            }
        }
    }
}
