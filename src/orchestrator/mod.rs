//! Floor 5: what drives runs.
//!
//! A run is a task of role `orchestrator`, so the same worker loop serves it. Its progress is a pure function of stored
//! facts (`next`), so any orchestrator can go on with any run at any moment; the fence (`claim`) sees to it that only one
//! of them acts. No process owns state that dies with it.

mod answering;
mod answers;
mod budget;
mod cancel;
mod claim;
mod claims;
mod control;
mod deadline;
mod dispatch;
mod doors;
mod doubts;
mod drive;
mod due;
mod evidence;
mod facts;
mod finish;
mod gates;
mod inbox;
mod ledger;
mod loops;
mod next;
mod park;
mod planning;
mod proposals;
mod questions;
mod request;
mod restart;
mod retell;
mod retry;
mod room;
mod send;
mod sweep;
mod synthesis;
mod takeover;
mod tenancy;
mod tenants;
mod told;
mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use self::claim::{Claim, claim};
use self::deadline::PAUSED_S_MAX;
use self::drive::Drive;
use crate::bus::{Bus, presence};
use crate::store::{Store, StoreError};
use crate::wire::{Failure, FailureKind, Role};
use crate::worker::{Delivery, Done, Handler};

pub use budget::{Budgets, RoleBudget};
pub use doors::doors;
pub use due::DueHandler;
pub use facts::Facts;
pub use loops::{LoopBounds, LoopDetector, LoopFound};
pub use next::{Job, Rules, Step, next};
pub use retell::{Retold, retell};
pub use sweep::sweep;
pub use tenants::TenantBudgets;
pub use view::view;

/// Pause before a delivery that lost a race is looked at again.
const AGAIN_MS: u64 = 100;
/// Pause before a run is looked at again whose record this version cannot read.
const UNREADABLE_S: u64 = 30;

/// What an operator may choose about runs.
#[derive(Clone, Debug, Default)]
pub struct RunSettings {
    /// Roles whose results wait for people, whatever the goal says; a run keeps those of the door that accepted it.
    pub gated: Vec<Role>,
    /// Rework and retries.
    pub rules: Rules,
    /// Messages of one run; scaled with the plan when `None`.
    pub exchanges_max: Option<usize>,
    /// Hops of one message from the goal; scaled with the plan's depth when `None`.
    pub hops_max: Option<u32>,
    /// How long one task of each role may take.
    pub limits: HashMap<Role, Duration>,
    /// What a run may spend.
    pub budgets: Budgets,
    /// Attempts of one run that are under way at the same time, per role; [`crate::wire::limits::WINDOW_MAX`] when `None`.
    pub window_max: Option<usize>,
}

/// Limit of a role that the settings do not name.
const TASK_LIMIT: Duration = Duration::from_secs(300);

/// Drives the runs that the queue gives it.
pub struct Orchestrator {
    bus: Bus,
    store: Store,
    settings: RunSettings,
    name: String,
}

impl Orchestrator {
    /// `name` tells this process from others in events.
    pub fn new(bus: &Bus, store: &Store, settings: RunSettings, name: String) -> Arc<Self> {
        Arc::new(Self { bus: bus.clone(), store: store.clone(), settings, name })
    }

    fn limit(&self, role: Role) -> Duration {
        self.settings.limits.get(&role).copied().unwrap_or(TASK_LIMIT)
    }

    /// The failure of a task that nobody answered in time, of which its queue was `paused` for so long; says so when nobody
    /// is there to answer.
    async fn late(&self, job: &Job, paused: Duration) -> Failure {
        let (role, limit) = (job.role, self.limit(job.role).as_secs());
        let hint = match presence(&self.bus, role).await {
            Ok(Some(seen)) if seen.idle == 0 && seen.running == 0 => {
                format!("; no worker of role {role} is there: start one with `oarlock worker {role}`")
            }
            _ => String::new(),
        };
        let pause = match paused.is_zero() {
            true => String::new(),
            false => {
                let paused_s = paused.as_secs_f32();
                format!(", and {paused_s:.1} s more because its queue was paused (paused_s_max {PAUSED_S_MAX})")
            }
        };
        let message = format!("timeout: {role} did not answer task {} within {limit} s{pause}{hint}", job.task);
        Failure::never(FailureKind::Timeout, message)
    }
}

#[async_trait]
impl Handler for Orchestrator {
    async fn handle(&self, delivery: &Delivery, stop: &CancellationToken) -> Done {
        let again = Done::HandBack(Duration::from_millis(AGAIN_MS));
        let outcome = match claim(&self.bus, &self.store, delivery).await {
            Ok(Claim::Ack) => Ok(Done::Ack),
            Ok(Claim::Forget) => Ok(Done::Forget),
            Ok(Claim::Again) => Ok(again),
            Ok(Claim::Held(lease)) => Ok(Drive::run(self, *lease, stop).await),
            Ok(Claim::Finished(record)) => {
                finish::epilogue(&self.bus, &self.store, &delivery.to.run, &record).await.map(|()| Done::Ack)
            }
            Err(error) => Err(error),
        };
        outcome.unwrap_or_else(|error| {
            // What this version cannot read is left to a newer one.
            let unreadable = matches!(error, StoreError::Unreadable { .. });
            tracing::warn!(run = %delivery.to.run, "a run is looked at again: {:#}", anyhow::Error::from(error));
            if unreadable { Done::HandBack(Duration::from_secs(UNREADABLE_S)) } else { again }
        })
    }
}
