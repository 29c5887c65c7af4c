//! Floor 1: the fleet's way of speaking NATS.
//!
//! NATS is not abstracted: callers see subjects, streams, consumers and sequences. What this room adds is policy:
//! one way to connect, one declaration of every stream, one publish that retries until the server has stored the
//! message or says that somebody else was first, one paged read by subject, and doors that always answer.

mod bucket;
pub mod clock;
mod connect;
mod embedded;
mod error;
pub mod failpoint;
mod fetch;
mod later;
mod migrate;
mod pause;
mod presence;
mod publish;
mod read;
mod rights;
mod service;
mod streams;

pub use bucket::{Bucket, Entry};
pub use connect::{Bus, Credentials, Secret, Server};
pub use embedded::{Embedded, EmbeddedConfig, Storage};
pub use error::BusError;
pub use failpoint::Point;
pub use fetch::{FetchError, ServerSources};
pub use migrate::Change;
pub use pause::PAUSE_S_MAX;
pub use presence::{RolePresence, presence};
pub use publish::Outgoing;
pub use read::Kept;
pub use rights::Use;
pub use service::{Answer, Door, DoorRequest, Doors, open_doors};
pub use streams::{Queue, StreamSettings};
