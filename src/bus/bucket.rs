//! A key-value bucket, through the same publish and the same reads as everything else, so that its creates and
//! updates survive reconnects with a clear verdict and its prefix scans cost one request.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Bus, BusError, Kept, Outgoing, Point};

/// One bucket. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    bus: Bus,
    name: String,
    stream: String,
}

/// A key's value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// Its revision.
    pub revision: u64,
    /// When the server stored it, in nanoseconds since 1970.
    pub at: i64,
}

impl Bucket {
    /// The bucket of this name.
    pub fn new(bus: &Bus, name: String) -> Self {
        Self { bus: bus.clone(), stream: format!("KV_{name}"), name }
    }

    /// The bucket's stream.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The subject that keeps `key`.
    pub fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.name)
    }

    /// The value of a key that is written once and should be there.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, BusError> {
        let kept = self.bus.last_known(&self.stream, &self.subject(key)).await?;
        Ok(kept.and_then(|kept| self.entry(kept)))
    }

    /// The value as the leader has it.
    pub async fn get_from_leader(&self, key: &str) -> Result<Option<Entry>, BusError> {
        let kept = self.bus.last_from_leader(&self.stream, &self.subject(key)).await?;
        Ok(kept.and_then(|kept| self.entry(kept)))
    }

    /// A message that puts `value` on `key` when its revision is `revision`; 0 means that it was never there.
    pub fn update_message(&self, point: Point, key: &str, value: impl Into<Bytes>, revision: u64) -> Outgoing {
        Outgoing::new(point, self.stream.clone(), self.subject(key), value).expecting(revision)
    }

    /// Puts `value` on `key` when its revision is `revision`, and returns the new one.
    ///
    /// # Errors
    /// [`BusError::Taken`] when the key has another revision.
    pub async fn update(
        &self,
        point: Point,
        key: &str,
        value: impl Into<Bytes>,
        revision: u64,
    ) -> Result<u64, BusError> {
        self.bus.store(self.update_message(point, key, value, revision)).await
    }

    /// All keys that begin with `prefix` and a dot, in the order of their revisions.
    pub async fn scan(&self, prefix: &str) -> Result<Vec<Entry>, BusError> {
        let kept = self.bus.scan(&self.stream, &self.subject(&format!("{prefix}.>"))).await?;
        Ok(kept.into_iter().filter_map(|kept| self.entry(kept)).collect())
    }

    /// The same, of those that were stored after a revision.
    pub async fn scan_after(&self, prefix: &str, revision: u64) -> Result<Vec<Entry>, BusError> {
        let filter = self.subject(&format!("{prefix}.>"));
        let kept = self.bus.scan_from(&self.stream, &filter, revision + 1).await?;
        Ok(kept.into_iter().filter_map(|kept| self.entry(kept)).collect())
    }

    /// Shows them to `see` in the order of their revisions, a page at a time, until it breaks off.
    pub async fn scan_pages(
        &self,
        prefix: &str,
        mut see: impl FnMut(Vec<Entry>) -> ControlFlow<()>,
    ) -> Result<(), BusError> {
        let filter = self.subject(&format!("{prefix}.>"));
        let page = |kept: Vec<Kept>| see(kept.into_iter().filter_map(|kept| self.entry(kept)).collect());
        self.bus.scan_pages(&self.stream, &filter, 1, page).await.map(drop)
    }

    /// Shows every key without a dot to `see`, in the order of their revisions, however many there are.
    pub async fn scan_heads(&self, mut see: impl FnMut(Entry)) -> Result<(), BusError> {
        let page = |kept: Vec<Kept>| {
            kept.into_iter().filter_map(|kept| self.entry(kept)).for_each(&mut see);
            ControlFlow::Continue(())
        };
        self.bus.scan_pages(&self.stream, &self.subject("*"), 1, page).await.map(drop)
    }

    fn entry(&self, kept: Kept) -> Option<Entry> {
        let key = kept.subject.strip_prefix(&self.subject(""))?.to_owned();
        (!kept.deleted).then_some(Entry { key, value: kept.payload, revision: kept.sequence, at: kept.at })
    }
}
