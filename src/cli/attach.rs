//! Finding a fleet that runs already.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;

use super::config::Config;
use super::connection::{DEFAULT_SERVER, Named};
use super::exit::{Exit, ended};
use crate::bus::{Bus, BusError, Embedded, EmbeddedConfig, Server, Storage, StreamSettings};
use crate::wire::Role;

/// Folder of a project's own embedded server.
const PROJECT_FOLDER: &str = ".oarlock";
/// File in it that tells where the server is.
const URL_FILE: &str = "url";
/// Folder in it where the server keeps its data.
pub(super) const STORE_FOLDER: &str = "nats";
/// Name of the lock that keeps two servers off one store.
const LOCK_FILE: &str = "lock";
/// How long an orchestrator may take to say that it is there.
const PING_MS_MAX: u64 = 500;

/// The folder of the project's own server.
pub(super) fn project_folder() -> PathBuf {
    PathBuf::from(PROJECT_FOLDER)
}

/// Where a project's server tells its address.
pub(super) fn url_file(folder: &Path) -> PathBuf {
    folder.join(URL_FILE)
}

/// A connection to a server with a fleet of this root: the named one, this project's own, the selected context's, or the one
/// at the default address. `None` when there is none, and none was named.
///
/// # Errors
/// When a server was named or selected and cannot be used, or has no orchestrator.
pub(super) async fn find(config: &Config) -> anyhow::Result<Option<Bus>> {
    if let Some(named) = config.connections.named()? {
        return with_fleet(config, &named).await.map(Some);
    }
    if let Some(bus) = find_project(config).await {
        return Ok(Some(bus));
    }
    // A selected context is the user's own server: a goal does not go elsewhere because it is down.
    if let Some(selected) = config.connections.selected()? {
        return with_fleet(config, &selected).await.map(Some);
    }
    match config.connections.default()?.connect(&config.root, "oarlock").await {
        Ok(bus) if has_orchestrator(&bus).await => Ok(Some(bus)),
        Ok(_) => Ok(None),
        Err(error) => {
            tracing::debug!("the default address: {error:#}");
            Ok(None)
        }
    }
}

async fn with_fleet(config: &Config, named: &Named) -> anyhow::Result<Bus> {
    let bus = named.connect(&config.root, "oarlock").await?;
    match has_orchestrator(&bus).await {
        true => Ok(bus),
        false if let Some(subject) = bus.denied_below("") => Err(BusError::Forbidden { subject }.into()),
        false => {
            let told = named.told().map(|told| format!(" ({told})")).unwrap_or_default();
            Err(ended(
                Exit::Unreachable,
                format!(
                    "the server is there, but no orchestrator of root {} answers on it{told}; start one with `oarlock worker \
                     orchestrator`, or a whole fleet with `oarlock up`",
                    config.root
                ),
            ))
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
    // The file lies in a folder that may be a stranger's: it may name this machine and nothing else.
    let url = url.trim().to_owned();
    if !url.starts_with("nats://127.0.0.1:") {
        tracing::warn!("{} names another machine and is not used", url_file(&project_folder()).display());
        return None;
    }
    let server = Server { urls: url, ..Server::default() };
    Bus::connect(&server, &config.root, "oarlock").await.ok()
}

/// A server that a command reads from.
pub(super) struct Reached {
    /// The connection.
    pub(super) bus: Bus,
    /// The project's own server, when this command had to start it.
    own: Option<(Embedded, File)>,
}

impl Reached {
    /// True when the server is the project's own, started for this command.
    pub(super) fn is_own(&self) -> bool {
        self.own.is_some()
    }
}

/// A server to read from: the named one, the project's own, the selected context's, all of them with or without a fleet; the
/// one at the default address when it has something of this root; or else the project's own store, on a server that is
/// started for this command alone.
pub(super) async fn server(config: &Config) -> anyhow::Result<Reached> {
    let reached = |bus| Reached { bus, own: None };
    if let Some(named) = config.connections.named()? {
        return Ok(reached(named.connect(&config.root, "oarlock").await?));
    }
    if let Some(bus) = project_server(config).await {
        return Ok(reached(bus));
    }
    if let Some(selected) = config.connections.selected()? {
        return Ok(reached(selected.connect(&config.root, "oarlock").await?));
    }
    let at_default = match config.connections.default()?.connect(&config.root, "oarlock").await {
        Ok(bus) if has_anything(&bus).await => return Ok(reached(bus)),
        Ok(_) => format!("the server at {DEFAULT_SERVER} has nothing of root {}", config.root),
        Err(error) => format!("{error:#}"),
    };
    match project_folder().join(STORE_FOLDER).is_dir() {
        true => own_store(config).await,
        false => Err(ended(Exit::Unreachable, format!("no fleet runs here: {at_default}; name another with --server"))),
    }
}

/// True when the server has a fleet of this root, or the streams of one.
async fn has_anything(bus: &Bus) -> bool {
    let stream = bus.js.get_stream(bus.root.tasks_stream());
    let asked = tokio::time::timeout(Duration::from_millis(PING_MS_MAX), stream);
    has_orchestrator(bus).await || matches!(asked.await, Ok(Ok(_)))
}

async fn own_store(config: &Config) -> anyhow::Result<Reached> {
    let folder = std::path::absolute(project_folder())?;
    let lock = lock(&folder)?;
    let storage = Storage::Folder(folder.join(STORE_FOLDER));
    let server =
        Embedded::start(&EmbeddedConfig { sources: config.server_sources.clone(), storage, sync_always: false })
            .await?;
    let address = Server { urls: server.url().to_owned(), ..Server::default() };
    let bus = Bus::connect(&address, &config.root, "oarlock").await?;
    bus.declare(&local_streams(config)).await?;
    Ok(Reached { bus, own: Some((server, lock)) })
}

/// The streams' settings on a server of our own: it is one server, whatever is configured for a cluster.
pub(super) fn local_streams(config: &Config) -> StreamSettings {
    StreamSettings { replicas: 1, ..config.streams.clone() }
}

/// Keeps two servers off one store.
pub(super) fn lock(folder: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let path = folder.join(LOCK_FILE);
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    file.try_lock().map_err(|_| {
        let shown = folder.display();
        ended(Exit::Conflict, format!("another oarlock uses {shown} right now and has no fleet ready yet; try again"))
    })?;
    Ok(file)
}

/// True when an orchestrator of this root answers.
pub(super) async fn has_orchestrator(bus: &Bus) -> bool {
    let subject = format!("$SRV.PING.{}", bus.root.service(Role::Orchestrator));
    let ping = bus.client.request(subject, Bytes::new());
    matches!(tokio::time::timeout(Duration::from_millis(PING_MS_MAX), ping).await, Ok(Ok(_)))
}
