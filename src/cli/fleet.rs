//! A whole fleet on this machine: an embedded server and a process for every role.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::attach::{STORE_FOLDER, local_streams, lock, url_file};
use super::config::Config;
use super::connection::NATS_VARIABLES;
use crate::bus::{Bus, Embedded, EmbeddedConfig, Server, Storage};
use crate::model::Choice;
use crate::supervisor::{Fleet, FleetConfig, RESTARTS_MAX};
use crate::wire::Role;

/// What the workers answer from.
pub(super) enum ModelSource {
    /// A script.
    Script(PathBuf),
    /// A model.
    Model(Box<Choice>),
}

/// Where the fleet keeps its data.
pub(super) enum Place {
    /// Nowhere: it is gone afterwards.
    Private,
    /// The project's folder, which stays.
    Project(PathBuf),
}

/// A fleet that ends with this value.
pub(super) struct LocalFleet {
    /// A connection to its server.
    pub(super) bus: Bus,
    /// Where its workers log.
    pub(super) logs: PathBuf,
    fleet: Fleet,
    server: Embedded,
    url_file: Option<PathBuf>,
    _lock: Option<File>,
    _temporary: Option<tempfile::TempDir>,
}

impl LocalFleet {
    /// Starts a server and the roles, and returns when all doors are open.
    pub(super) async fn start(
        config: &Config,
        place: Place,
        roles: Vec<(Role, usize)>,
        model: &ModelSource,
    ) -> anyhow::Result<Self> {
        let (temporary, folder, lock) = match place {
            Place::Private => {
                let temporary = tempfile::Builder::new().prefix("oarlock-").tempdir().context("make a directory")?;
                let folder = temporary.path().to_owned();
                (Some(temporary), folder, None)
            }
            Place::Project(folder) => {
                let folder = std::path::absolute(folder).context("find the current directory")?;
                let lock = lock(&folder)?;
                (None, folder, Some(lock))
            }
        };
        let storage = Storage::Folder(folder.join(STORE_FOLDER));
        let server =
            Embedded::start(&EmbeddedConfig { sources: config.server_sources.clone(), storage, sync_always: false })
                .await?;
        let address = Server { urls: server.url().to_owned(), ..Server::default() };
        let bus = Bus::connect(&address, &config.root, "oarlock").await?;
        bus.declare(&local_streams(config)).await?;
        let logs = folder.join("logs");
        let mut fleet = Fleet::start(FleetConfig {
            executable: std::env::current_exe().context("find our own executable")?,
            arguments: arguments(config, server.url(), model),
            // The server is our own and has no login; the user's are for another one.
            without: NATS_VARIABLES.to_vec(),
            roles,
            logs: logs.clone(),
            restarts_max: RESTARTS_MAX,
        })?;
        fleet.ready(&bus).await?;
        let url_file = lock.is_some().then(|| url_file(&folder));
        if let Some(file) = &url_file {
            std::fs::write(file, server.url()).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(Self { bus, logs, fleet, server, url_file, _lock: lock, _temporary: temporary })
    }

    /// The server's address.
    pub(super) fn url(&self) -> &str {
        self.server.url()
    }

    /// Role and process id of each worker.
    pub(super) async fn processes(&self) -> Vec<(Role, u32)> {
        self.fleet.processes().await
    }

    /// Lets the workers finish, then stops the server. Returns what the workers said of unused script rules.
    pub(super) async fn stop(self) -> Vec<String> {
        if let Some(file) = &self.url_file {
            let _ = std::fs::remove_file(file);
        }
        self.fleet.stop().await;
        // Our own connection goes first, or its loss would be reported as a fault.
        if let Err(error) = self.bus.client.drain().await {
            tracing::debug!("drain: {error}");
        }
        self.server.stop().await;
        unused_rules(&self.logs)
    }
}

/// What every worker of this fleet is told; keys stay in the environment, which children inherit.
fn arguments(config: &Config, url: &str, model: &ModelSource) -> Vec<String> {
    let mut arguments = vec!["--server".to_owned(), url.to_owned(), "--root".to_owned(), config.root.to_string()];
    if let Some(file) = config.named_file() {
        arguments.extend(["--config".to_owned(), file.display().to_string()]);
    }
    match model {
        ModelSource::Script(path) => arguments.extend(["--script".to_owned(), path.display().to_string()]),
        ModelSource::Model(choice) => {
            let name = format!("{}/{}", choice.spec.provider.id(), choice.spec.model);
            arguments.extend(["--model".to_owned(), name]);
            if let Some(url) = &choice.spec.base_url {
                arguments.extend(["--base-url".to_owned(), url.clone()]);
            }
        }
    }
    arguments
}

/// Rules of the script that no worker used.
fn unused_rules(logs: &Path) -> Vec<String> {
    const MARK: &str = "script rule was never used: ";
    let files = std::fs::read_dir(logs).into_iter().flatten().filter_map(Result::ok);
    let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    let mut rules: Vec<String> = texts
        .flat_map(|text| text.lines().filter_map(|line| Some(line.split_once(MARK)?.1.to_owned())).collect::<Vec<_>>())
        .collect();
    rules.sort();
    rules.dedup();
    rules
}

/// The usual fleet: one process of each role.
pub(super) fn one_of_each() -> Vec<(Role, usize)> {
    Role::ALL.map(|role| (role, 1)).to_vec()
}
