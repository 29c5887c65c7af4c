//! Several keys of one bucket, changed together or not at all.
//!
//! An atomic batch (ADR-50): all messages carry the batch's id and their number; the last commits. Each says which revision
//! its key must still have, so nothing that others wrote meanwhile is lost.

use async_nats::HeaderMap;
use serde_json::Value;

use super::failpoint::{Side, hit};
use super::{Bucket, BusError, Point, Use};

/// The server's codes that another try may get past: "wrong last sequence", alone and inside a batch, and "too many
/// batches in flight".
const CONFLICTS: [u64; 4] = [10071, 10164, 10176, 10210];

/// One write of a change.
pub struct Write {
    /// The key.
    pub key: String,
    /// Its new value.
    pub text: String,
    /// The revision that it must still have, 0 for none.
    pub revision: u64,
}

impl Bucket {
    /// Writes everything or nothing: true when it is written, false on a conflict. `point` is the step that it is. The bucket
    /// must allow atomic batches unless there is one write only.
    ///
    /// # Errors
    /// When the server cannot be asked, or refuses for another reason; then it may have been written.
    pub async fn write_all(&self, point: Point, mut writes: Vec<Write>) -> Result<bool, BusError> {
        match writes.len() {
            0 => Ok(true),
            1 => {
                let Write { key, text, revision } = writes.remove(0);
                match self.update(point, &key, text, revision).await {
                    Ok(_) => Ok(true),
                    Err(BusError::Taken { .. }) => Ok(false),
                    Err(error) => Err(error),
                }
            }
            _ => self.write_batch(point, writes).await,
        }
    }

    async fn write_batch(&self, point: Point, writes: Vec<Write>) -> Result<bool, BusError> {
        hit(point, Side::Before);
        let batch = format!("{:032x}", rand::random::<u128>());
        let last = writes.len();
        for (index, Write { key, text, revision }) in writes.into_iter().enumerate() {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Batch-Id", batch.as_str());
            headers.insert("Nats-Batch-Sequence", (index + 1).to_string());
            headers.insert("Nats-Expected-Last-Subject-Sequence", revision.to_string());
            let subject = self.subject(&key);
            let failed = |source| BusError::Core { what: format!("write {subject} in a batch"), source };
            let number = index + 1;
            if number != 1 && number != last {
                let sent = self.bus.client.publish_with_headers(subject.clone(), headers, text.into()).await;
                sent.map_err(|error| failed(error.into()))?;
                continue;
            }
            if number == last {
                headers.insert("Nats-Batch-Commit", "1");
            }
            let answer = tokio::select! {
                answer = self.bus.client.request_with_headers(subject.clone(), headers, text.into()) => answer,
                () = self.bus.denied(Use::Publish, &subject) => return Err(self.bus.forbidden(&subject)),
            };
            let answer = answer.map_err(|error| failed(error.into()))?;
            if let Some(error) = batch_error(&answer.payload) {
                return if CONFLICTS.contains(&error.0) { Ok(false) } else { Err(failed(error.1.into())) };
            }
        }
        hit(point, Side::After);
        Ok(true)
    }
}

/// Code and text of the error in a publish acknowledgement, if it is one. The first message of a batch is answered with
/// an empty body.
fn batch_error(payload: &[u8]) -> Option<(u64, String)> {
    let answer: Value = serde_json::from_slice(payload).ok()?;
    let error = answer.get("error")?;
    Some((error.get("err_code")?.as_u64()?, error.get("description")?.as_str()?.to_owned()))
}
