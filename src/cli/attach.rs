//! Finding a fleet that runs already.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::config::{Config, DEFAULT_SERVER};
use super::exit::{Exit, ended};
use crate::bus::{Bus, BusError, Server};
use crate::wire::Role;

/// Folder of a project's own embedded server.
const PROJECT_FOLDER: &str = ".oarlock";
/// File in it that tells where the server is.
const URL_FILE: &str = "url";
/// How long an orchestrator may take to say that it is there.
const PING_MS_MAX: u64 = 500;

/// The server that is named, or the one at the default address.
pub(super) fn server_or_default(config: &Config) -> Server {
    config.server.clone().unwrap_or_else(|| Server {
        urls: DEFAULT_SERVER.into(),
        credentials: config.credentials.clone(),
        inbox_prefix: None,
    })
}

/// The folder of the project's own server.
pub(super) fn project_folder() -> PathBuf {
    PathBuf::from(PROJECT_FOLDER)
}

/// Where a project's server tells its address.
pub(super) fn url_file(folder: &Path) -> PathBuf {
    folder.join(URL_FILE)
}

/// A connection to a server with a fleet of this root: the named one, this project's own, or the one at the default
/// address. `None` when there is none, and none was named.
///
/// # Errors
/// When a server was named and cannot be used, or has no orchestrator.
pub(super) async fn find(config: &Config) -> anyhow::Result<Option<Bus>> {
    if let Some(server) = &config.server {
        let bus = Bus::connect(server, &config.root, "oarlock").await?;
        return match has_orchestrator(&bus).await {
            true => Ok(Some(bus)),
            false => Err(ended(
                Exit::Unreachable,
                format!(
                    "the server is there, but no orchestrator of root {} answers on it; start one with `oarlock worker \
                     orchestrator`, or a whole fleet with `oarlock up`",
                    config.root
                ),
            )),
        };
    }
    if let Some(bus) = find_project(config).await {
        return Ok(Some(bus));
    }
    match Bus::connect(&server_or_default(config), &config.root, "oarlock").await {
        Ok(bus) if has_orchestrator(&bus).await => Ok(Some(bus)),
        Ok(_) => Ok(None),
        Err(error) => {
            tracing::debug!("{DEFAULT_SERVER}: {error}");
            Ok(None)
        }
    }
}

/// The fleet that `oarlock up` or another command started in this folder, if it is up.
pub(super) async fn find_project(config: &Config) -> Option<Bus> {
    let bus = project_server(config).await?;
    has_orchestrator(&bus).await.then_some(bus)
}

async fn project_server(config: &Config) -> Option<Bus> {
    let url = std::fs::read_to_string(url_file(&project_folder())).ok()?;
    let server = Server { urls: url.trim().to_owned(), ..Server::default() };
    Bus::connect(&server, &config.root, "oarlock").await.ok()
}

/// Like [`find`], for commands that make no sense without a fleet. The server is enough: what is stored can be read
/// while no orchestrator runs.
pub(super) async fn server(config: &Config) -> anyhow::Result<Bus> {
    if let Some(server) = &config.server {
        return Ok(Bus::connect(server, &config.root, "oarlock").await?);
    }
    if let Some(bus) = project_server(config).await {
        return Ok(bus);
    }
    match Bus::connect(&server_or_default(config), &config.root, "oarlock").await {
        Ok(bus) => Ok(bus),
        Err(error @ BusError::Connect { .. }) => {
            Err(ended(Exit::Unreachable, format!("no fleet runs here: {:#}", anyhow::Error::from(error))))
        }
        Err(error) => Err(error.into()),
    }
}

/// True when an orchestrator of this root answers.
pub(super) async fn has_orchestrator(bus: &Bus) -> bool {
    let subject = format!("$SRV.PING.{}", bus.root.service(Role::Orchestrator));
    let ping = bus.client.request(subject, Bytes::new());
    matches!(tokio::time::timeout(Duration::from_millis(PING_MS_MAX), ping).await, Ok(Ok(_)))
}
