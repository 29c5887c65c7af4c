//! Settings: flag, then environment, then `./oarlock.toml`, then the user's file, then the default. The only reader of
//! the environment in this crate.

mod file;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ColorChoice;

pub(super) use self::file::File;
use self::file::{Found, Place, find_files, not_for_strangers, read_file};
use super::args::{Global, ModelArgs};
use super::budgets::budgets;
use super::canary;
use super::connection::Connections;
use super::exit::{Exit, ended};
use super::mcp::McpTable;
use super::models;
use crate::bus::failpoint::{self, Fault};
use crate::bus::{ServerSources, StreamSettings};
use crate::model::{ModelOptions, ModelSettings};
use crate::orchestrator::{Rules, RunSettings};
use crate::roles::{CanaryRule, RoleSet};
use crate::sandbox::{Choice, Python};
use crate::sources::{ALLOWED_MAX, Allowed, Fetcher, Policy, Sources, Web};
use crate::tools::{BadServer, ServerSpec};
use crate::wire::{NOBODY, Role, Root, Tenant, limits};

/// How long a finished run is kept unless configured: 30 days.
const RETENTION_S: u64 = 30 * 24 * 3600;

/// Everything that is configured, resolved.
pub(super) struct Config {
    /// Which server is meant.
    pub(super) connections: Connections,
    pub(super) root: Root,
    pub(super) roles: RoleSet,
    pub(super) runs: RunSettings,
    /// On whose account goals are given.
    pub(super) tenant: Tenant,
    pub(super) streams: StreamSettings,
    /// How long a finished run is kept.
    pub(super) retention: Duration,
    pub(super) slots: HashMap<Role, usize>,
    pub(super) sandbox: Choice,
    /// When tests are tried with a known fault.
    pub(super) canary: CanaryRule,
    /// How the researcher reads pages.
    pub(super) sources: Sources,
    pub(super) cache: PathBuf,
    path: Option<std::ffi::OsString>,
    pub(super) server_sources: ServerSources,
    python: Option<PathBuf>,
    /// Nobody is there to answer a question.
    pub(super) no_input: bool,
    /// Who speaks when no flag says so: the user of this machine.
    pub(super) who: String,
    /// The command that edits a text.
    pub(super) editor: Option<String>,
    models: ModelSettings,
    /// How models are asked.
    pub(super) model_options: ModelOptions,
    mcp: BTreeMap<String, McpTable>,
    files: Vec<Found>,
}

impl Config {
    /// Reads flags, environment and files.
    pub(super) fn load(global: &Global) -> anyhow::Result<Self> {
        arm_failpoint()?;
        let files = find_files(global.config.as_deref())?;
        let mut file = File::default();
        for found in &files {
            file = file.or(read_file(found)?);
        }
        let variable = |name: &str, file: &Option<String>| variable_of(name).or_else(|| file.clone());
        let configured = file.server.clone().zip(file.server_from.clone());
        let root = global.root.clone().or_else(|| variable("OARLOCK_ROOT", &file.root));
        let roles = RoleSet::load(roles_folder(&file)?.as_deref()).map_err(usage)?;
        check_roles(&file, &roles)?;
        let sandbox = variable("OARLOCK_SANDBOX", &file.sandbox).unwrap_or_else(|| "auto".into());
        let tenant = variable("OARLOCK_TENANT", &file.tenant).map(|name| name.parse()).transpose().map_err(usage)?;
        let cache = cache_folder();
        let runs = run_settings(&file, &roles)?;
        Ok(Self {
            connections: Connections::new(
                global,
                variable_of,
                configured,
                config_home().map(|folder| folder.join("nats")),
            ),
            root: root.map_or_else(|| Ok(Root::default()), |root| root.parse()).map_err(usage)?,
            runs,
            tenant: tenant.unwrap_or_default(),
            streams: stream_settings(&file)?,
            retention: retention(&file)?,
            slots: by_role(&file.slots, "slots")?,
            sandbox: sandbox.parse::<Choice>().map_err(usage)?,
            canary: canary::rule(&file)?,
            sources: sources(&file)?,
            path: std::env::var_os("PATH"),
            server_sources: ServerSources {
                named: variable_of("OARLOCK_NATS_SERVER").map(PathBuf::from),
                path: std::env::var_os("PATH"),
                cache: cache.clone(),
            },
            python: variable_of("OARLOCK_PYTHON").map(PathBuf::from).or_else(|| file.python.clone()),
            no_input: global.no_input,
            who: who(),
            editor: variable_of("VISUAL").or_else(|| variable_of("EDITOR")),
            models: models::settings(&file),
            model_options: models::options(&file)?,
            mcp: file.mcp,
            roles,
            cache,
            files,
        })
    }

    /// The settings that a model is chosen by, with the flags of a command on top.
    pub(super) fn models(&self, args: &ModelArgs) -> ModelSettings {
        ModelSettings {
            model: args.model.clone().or_else(|| self.models.model.clone()),
            base_url: args.base_url.clone().or_else(|| self.models.base_url.clone()),
            ..self.models.clone()
        }
    }

    /// Slots of a role's process.
    pub(super) fn slots(&self, role: Role) -> usize {
        self.slots.get(&role).copied().unwrap_or(self.roles.get(role).limits.slots)
    }

    /// Where to look for a Python for the sandbox.
    pub(super) fn python_candidates(&self) -> Vec<PathBuf> {
        match &self.python {
            Some(python) => vec![python.clone()],
            None => Python::default_candidates(self.path.as_deref()),
        }
    }

    /// The tool servers that are configured, each with the variables that it may see, or what is wrong with its table.
    pub(super) fn tool_servers(&self) -> impl Iterator<Item = (&str, Result<ServerSpec, BadServer>)> {
        self.mcp.iter().map(|(name, table)| (name.as_str(), table.spec(name, &|name| std::env::var_os(name))))
    }

    /// The configuration files in force; what the first says comes before what the others say.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|found| found.path.as_path())
    }

    /// The configuration file that was named, for child processes. One that merely lies here they find, and distrust, by
    /// themselves.
    pub(super) fn named_file(&self) -> Option<&Path> {
        self.files.iter().find(|found| found.place == Place::Named).map(|found| found.path.as_path())
    }
}

/// Whether to print colours, to a stream that is a terminal or not.
pub(super) fn colours(choice: ColorChoice, terminal: bool) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if variable_of("NO_COLOR").is_some() => false,
        ColorChoice::Auto if variable_of("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
        ColorChoice::Auto if variable_of("CLICOLOR").is_some_and(|value| value == "0") => false,
        ColorChoice::Auto => terminal && variable_of("TERM").is_none_or(|term| term != "dumb"),
    }
}

pub(super) fn variable_of(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

pub(super) fn usage(error: impl std::fmt::Display) -> anyhow::Error {
    ended(Exit::Usage, error.to_string())
}

/// `$USER`, without the machine's name: a person has one vote, from however many machines.
fn who() -> String {
    let known = || nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    variable_of("USER").or_else(|| variable_of("LOGNAME")).or_else(known).unwrap_or_else(|| NOBODY.into())
}

/// `$XDG_CONFIG_HOME`, or under the home.
fn config_home() -> Option<PathBuf> {
    let folder = variable_of("XDG_CONFIG_HOME").map(PathBuf::from);
    folder.or_else(|| variable_of("HOME").map(|home| PathBuf::from(home).join(".config")))
}

/// `$XDG_CACHE_HOME/oarlock`, or under the home; for root a place that the sandbox's user can read.
fn cache_folder() -> PathBuf {
    if let Some(folder) = variable_of("OARLOCK_CACHE") {
        return folder.into();
    }
    #[cfg(unix)]
    if nix::unistd::geteuid().is_root() {
        return "/var/cache/oarlock".into();
    }
    let folder = variable_of("XDG_CACHE_HOME").map(PathBuf::from);
    let folder = folder.or_else(|| variable_of("HOME").map(|home| PathBuf::from(home).join(".cache")));
    folder.unwrap_or_else(std::env::temp_dir).join("oarlock")
}

pub(super) fn number<T: std::str::FromStr>(variable: &str, file: Option<T>) -> anyhow::Result<Option<T>> {
    match variable_of(variable) {
        None => Ok(file),
        Some(text) => {
            let parsed = text.trim().parse();
            parsed.map(Some).map_err(|_| {
                usage(format!(
                    "{variable} is {text:?}, which is no number of the right size; set a whole number, or unset it"
                ))
            })
        }
    }
}

/// The folder of role files.
fn roles_folder(file: &File) -> anyhow::Result<Option<PathBuf>> {
    let folder = variable_of("OARLOCK_ROLES").map(PathBuf::from).or_else(|| file.roles.clone());
    match folder {
        Some(folder) if !folder.is_dir() => {
            let why = "name one that exists in OARLOCK_ROLES or roles; `oarlock init` writes the built-in ones";
            Err(usage(format!("the folder of roles {} is not there; {why}", folder.display())))
        }
        folder => Ok(folder),
    }
}

/// A folder of roles that a stranger's file may name gets nothing of what the user allows to roles of their own.
fn check_roles(file: &File, roles: &RoleSet) -> anyhow::Result<()> {
    let Some(named_by) = file.strange_roles.as_ref().filter(|_| variable_of("OARLOCK_ROLES").is_none()) else {
        return Ok(());
    };
    let grants_tools = Role::ALL.into_iter().any(|role| !roles.get(role).tools.is_empty());
    match not_for_strangers(file, grants_tools) {
        None => Ok(()),
        Some(what) => {
            let shown = named_by.display();
            let why = "roles that merely lie here may be a stranger's words";
            Err(usage(format!(
                "{what} is not given to the roles that {shown} names: {why}; name that file if you trust it: --config {shown}"
            )))
        }
    }
}

fn run_settings(file: &File, roles: &RoleSet) -> anyhow::Result<RunSettings> {
    const REWORK_LIMIT: u32 = 100;
    let rework_max = number("OARLOCK_REWORK_MAX", file.rework_max)?.unwrap_or(limits::REWORK_MAX);
    if rework_max > REWORK_LIMIT {
        return Err(usage(format!("rework_max is {rework_max}; at most {REWORK_LIMIT}")));
    }
    let no_progress_max = number("OARLOCK_NO_PROGRESS_MAX", file.no_progress_max)?.unwrap_or(limits::NO_PROGRESS_MAX);
    let hops_max = number("OARLOCK_HOPS_MAX", file.hops_max)?;
    if no_progress_max == 0 || hops_max == Some(0) {
        return Err(usage("no_progress_max and hops_max must be 1 or more"));
    }
    let exchanges_max = number("OARLOCK_EXCHANGES_MAX", file.exchanges_max)?;
    if exchanges_max.is_some_and(|max| max < 2) {
        return Err(usage("exchanges_max must be 2 or more: one request and its reply"));
    }
    let mut times: HashMap<Role, Duration> =
        Role::ALL.into_iter().map(|role| (role, roles.get(role).limits.time())).collect();
    for (role, seconds) in by_role(&file.timeout_s, "timeout_s")? {
        times.insert(role, Duration::from_secs(seconds));
    }
    if let Some(seconds) = number("OARLOCK_TIMEOUT_S", None::<u64>)? {
        Role::ALL.into_iter().filter(|role| *role != Role::Orchestrator).for_each(|role| {
            times.insert(role, Duration::from_secs(seconds));
        });
    }
    if let Some((role, _)) = times.iter().find(|(_, time)| time.is_zero()) {
        return Err(usage(format!("the timeout of {role} is 0; it must be a second or more")));
    }
    let retries = Role::ALL.into_iter().map(|role| (role, roles.get(role).retry)).collect();
    let window_max = number("OARLOCK_WINDOW_MAX", file.window_max)?;
    if window_max == Some(0) {
        return Err(usage("window_max must be 1 or more"));
    }
    let budgets = budgets(file, roles, exchanges_max)?;
    let gated = Role::ALL.into_iter().filter(|role| roles.get(*role).approve).collect();
    let rules = Rules { rework_max, no_progress_max, retries };
    Ok(RunSettings { gated, rules, exchanges_max, hops_max, limits: times, budgets, window_max })
}

fn stream_settings(file: &File) -> anyhow::Result<StreamSettings> {
    let replicas = number("OARLOCK_REPLICAS", file.replicas)?.unwrap_or(1);
    if ![1, 3, 5].contains(&replicas) {
        return Err(usage(format!("replicas is {replicas}; JetStream takes 1, 3 or 5")));
    }
    let ack_wait_s = number("OARLOCK_ACK_WAIT_S", file.ack_wait_s)?;
    if ack_wait_s == Some(0) {
        return Err(usage("ack_wait_s is 0; it must be a second or more"));
    }
    let ack_wait = ack_wait_s.map_or(StreamSettings::default().ack_wait, Duration::from_secs);
    Ok(StreamSettings { replicas, ack_wait })
}

/// How long a finished run is kept: `OARLOCK_RETENTION_S`, `retention_s`, or 30 days.
fn retention(file: &File) -> anyhow::Result<Duration> {
    match number("OARLOCK_RETENTION_S", file.retention_s)?.unwrap_or(RETENTION_S) {
        0 => Err(usage("retention_s is 0; it must be a second or more")),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

/// What the researcher may read: `OARLOCK_WEB` and `OARLOCK_WEB_ALLOW` (comma-separated), `web` and `web_allow`.
fn sources(file: &File) -> anyhow::Result<Sources> {
    let web = variable_of("OARLOCK_WEB").or_else(|| file.web.clone());
    let web = web.map_or_else(|| Ok(Web::default()), |web| web.parse()).map_err(usage)?;
    let listed = variable_of("OARLOCK_WEB_ALLOW").map(|list| list.split(',').map(str::to_owned).collect());
    let listed: Vec<String> = listed.unwrap_or_else(|| file.web_allow.clone());
    if listed.len() > ALLOWED_MAX {
        return Err(usage(format!("web_allow has {} entries, more than allowed_max {ALLOWED_MAX}", listed.len())));
    }
    let allowed: Result<Vec<Allowed>, String> = listed.iter().map(|entry| entry.parse()).collect();
    let allowed = allowed.map_err(|error| usage(format!("web_allow: {error}")))?;
    Ok(Sources { web, fetcher: Fetcher::new(Policy::allowing(allowed)) })
}

/// Arms the failpoint that `OARLOCK_CRASH_AT` or `OARLOCK_STOP_AT` names, for tests of what survives a death there.
fn arm_failpoint() -> anyhow::Result<()> {
    for (variable, fault) in [("OARLOCK_CRASH_AT", Fault::Crash), ("OARLOCK_STOP_AT", Fault::Stop)] {
        if let Some(text) = variable_of(variable) {
            let at = text.parse().map_err(|error| usage(format!("{variable}: {error}")))?;
            tracing::warn!("{variable}={text}: this process will meet its end there");
            failpoint::arm(at, fault);
        }
    }
    Ok(())
}

pub(super) fn by_role<T: Copy>(table: &HashMap<String, T>, name: &str) -> anyhow::Result<HashMap<Role, T>> {
    let entry = |(role, value): (&String, &T)| match role.parse::<Role>() {
        Ok(role) => Ok((role, *value)),
        Err(error) => Err(usage(format!("configuration table [{name}]: {error}"))),
    };
    table.iter().map(entry).collect()
}
