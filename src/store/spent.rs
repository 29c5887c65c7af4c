//! What the runs of a tenant took of a day: `<tenant>.<day>` is the sum, `<tenant>.<day>.<run>x<began>` one run's part of it. A
//! run that is forgotten may begin again under its id, with a new goal: what it spent before stays where it is.
//!
//! The sum is changed first, on the condition that it is what was read, and names the part that changed with it; then the part
//! itself. Whoever changes the sum next writes that part first, should its writer have died in between: so the sum is always that
//! of its parts, two runs cannot take the same, and whoever takes a run over finds what it has taken. An atomic batch would do
//! the same in one step, and takes a server twenty times as long. A day's keys are of no use after it, and the bucket forgets
//! them by itself.

use std::time::Duration;

use super::{StoreError, json, read};
use crate::bus::{Bucket, Bus, BusError, Point};
use crate::wire::{DayPart, DaySum, RunId, Spending, TenantDay};

/// Longest random pause between two tries of a change.
const PAUSE_MS_MAX: u64 = 20;

/// What was taken, of all tenants and days.
#[derive(Clone)]
pub struct Spent {
    bucket: Bucket,
}

/// Whose part of a day it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payer {
    /// The run.
    pub run: RunId,
    /// When its goal was stored, in nanoseconds since 1970.
    pub began: i64,
}

/// A run's part of a day and the sum of all, as they were read.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// The run's part.
    pub own: Spending,
    /// The sum of all parts.
    pub all: Spending,
    own_revision: u64,
    all_revision: u64,
}

impl Spent {
    pub(super) fn new(bus: &Bus) -> Self {
        Self { bucket: Bucket::new(bus, bus.root.spent_bucket()) }
    }

    /// What all runs of a day took, from the leader; nothing when none took anything.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn all(&self, day: &TenantDay) -> Result<Spending, StoreError> {
        Ok(self.sum(day).await?.0.all)
    }

    /// A run's part and the sum, from the leader; a change that somebody began and did not end is ended first.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn book(&self, day: &TenantDay, payer: &Payer) -> Result<Book, StoreError> {
        // In this order: a part that is read after the sum is at least as new, and one that is newer makes the change fail.
        let (sum, all_revision) = self.sum(day).await?;
        if let Some(last) = &sum.last {
            let (_, revision) = self.part(day, &last.payer()).await?;
            if revision == last.revision {
                self.write_part(day, last).await?;
            }
        }
        let (own, own_revision) = self.part(day, payer).await?;
        Ok(Book { own, all: sum.all, own_revision, all_revision })
    }

    /// Changes a run's part, and the sum with it; the sum as it is then, or `None` when somebody else changed it since the book was
    /// read, after a moment in which others may go first.
    ///
    /// # Errors
    /// When the store cannot be used; then it may have been changed.
    pub async fn change(
        &self,
        day: &TenantDay,
        payer: &Payer,
        book: &Book,
        own: Spending,
    ) -> Result<Option<Spending>, StoreError> {
        let last = DayPart { run: payer.run.clone(), began: payer.began, revision: book.own_revision, own };
        let sum = DaySum { all: book.all.with(&book.own, &own), last: Some(last.clone()), ..DaySum::default() };
        match self.bucket.update(Point::Spend, &day.to_string(), json(&sum), book.all_revision).await {
            Ok(_) => {}
            Err(BusError::Taken { .. }) => {
                tokio::time::sleep(Duration::from_millis(rand::random_range(0..=PAUSE_MS_MAX))).await;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
        self.write_part(day, &last).await?;
        Ok(Some(sum.all))
    }

    /// Writes the part that a sum was changed with, unless somebody has.
    async fn write_part(&self, day: &TenantDay, part: &DayPart) -> Result<(), StoreError> {
        let key = part_key(day, &part.payer());
        match self.bucket.update(Point::Spend, &key, json(&part.own), part.revision).await {
            Ok(_) | Err(BusError::Taken { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn sum(&self, day: &TenantDay) -> Result<(DaySum, u64), StoreError> {
        let key = day.to_string();
        let Some(entry) = self.bucket.get_from_leader(&key).await? else { return Ok((DaySum::default(), 0)) };
        Ok((read(&entry.value, &key, "day of a tenant")?, entry.revision))
    }

    async fn part(&self, day: &TenantDay, payer: &Payer) -> Result<(Spending, u64), StoreError> {
        let key = part_key(day, payer);
        let Some(entry) = self.bucket.get_from_leader(&key).await? else { return Ok((Spending::default(), 0)) };
        Ok((read(&entry.value, &key, "part of a tenant's day")?, entry.revision))
    }
}

impl DayPart {
    fn payer(&self) -> Payer {
        Payer { run: self.run.clone(), began: self.began }
    }
}

fn part_key(day: &TenantDay, payer: &Payer) -> String {
    format!("{day}.{}x{}", payer.run, payer.began)
}
