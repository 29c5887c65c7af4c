//! Configuration files: which are read, what they may say, and what is not taken from one that merely lies here.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use super::super::budgets::{RoleTable, TenantTable};
use super::super::mcp::McpTable;
use super::{config_home, usage, variable_of};
use crate::wire::Budget;

/// Configuration file of a project.
const PROJECT_FILE: &str = "oarlock.toml";
/// Bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// What a configuration file may say. Paths are from the file's own folder.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::cli) struct File {
    /// The file that names the server.
    #[serde(skip)]
    pub(in crate::cli) server_from: Option<PathBuf>,
    /// The file that names the folder of roles, when it merely lies here.
    #[serde(skip)]
    pub(in crate::cli) strange_roles: Option<PathBuf>,
    pub(in crate::cli) server: Option<String>,
    pub(in crate::cli) root: Option<String>,
    pub(in crate::cli) model: Option<String>,
    pub(in crate::cli) base_url: Option<String>,
    pub(in crate::cli) prices: Option<PathBuf>,
    pub(in crate::cli) first_byte_s: Option<u64>,
    pub(in crate::cli) read_s: Option<u64>,
    pub(in crate::cli) provider_calls_max: HashMap<String, usize>,
    pub(in crate::cli) model_calls_max: HashMap<String, usize>,
    pub(in crate::cli) roles: Option<PathBuf>,
    pub(in crate::cli) sandbox: Option<String>,
    pub(in crate::cli) python: Option<PathBuf>,
    pub(in crate::cli) web: Option<String>,
    pub(in crate::cli) web_allow: Vec<String>,
    pub(in crate::cli) rework_max: Option<u32>,
    pub(in crate::cli) exchanges_max: Option<usize>,
    pub(in crate::cli) no_progress_max: Option<u32>,
    pub(in crate::cli) hops_max: Option<u32>,
    pub(in crate::cli) canary_share: Option<f64>,
    pub(in crate::cli) canary: Option<String>,
    pub(in crate::cli) window_max: Option<usize>,
    pub(in crate::cli) budget: Option<Budget>,
    pub(in crate::cli) role_budget: HashMap<String, RoleTable>,
    pub(in crate::cli) tenant: Option<String>,
    pub(in crate::cli) tenant_budget: HashMap<String, TenantTable>,
    pub(in crate::cli) replicas: Option<usize>,
    pub(in crate::cli) ack_wait_s: Option<u64>,
    pub(in crate::cli) retention_s: Option<u64>,
    pub(in crate::cli) slots: HashMap<String, usize>,
    pub(in crate::cli) timeout_s: HashMap<String, u64>,
    pub(in crate::cli) mcp: BTreeMap<String, McpTable>,
}

/// A configuration file, and how it came to be one.
pub(in crate::cli) struct Found {
    pub(in crate::cli) path: PathBuf,
    pub(in crate::cli) place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Place {
    /// A person named it for this command.
    Named,
    /// It merely lies here, and may be a stranger's.
    Here,
    /// It is the user's own, for all folders.
    User,
}

/// The files to read: the named one or the one that lies here, before the user's own.
pub(super) fn find_files(named: Option<&Path>) -> anyhow::Result<Vec<Found>> {
    let named = named.map(Path::to_owned).or_else(|| variable_of("OARLOCK_CONFIG").map(PathBuf::from));
    let here = || (PathBuf::from(PROJECT_FILE), Place::Here);
    let user = config_home().map(|folder| (folder.join("oarlock/config.toml"), Place::User));
    let first = named.map_or_else(here, |path| (path, Place::Named));
    let there = |(path, place): &(PathBuf, Place)| *place == Place::Named || path.is_file();
    let absolute = |(path, place): (PathBuf, Place)| {
        let path = std::path::absolute(&path).context("find the configuration file")?;
        Ok(Found { path, place })
    };
    [Some(first), user].into_iter().flatten().filter(there).map(absolute).collect()
}

pub(super) fn read_file(found: &Found) -> anyhow::Result<File> {
    let shown = found.path.display();
    let refused = |why: String| usage(format!("configuration file {shown}: {why}"));
    let bytes =
        std::fs::metadata(&found.path).map_err(|error| refused(format!("{error}; `oarlock init` writes one")))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(refused(format!("it has {} bytes, more than file_bytes_max {FILE_BYTES_MAX}", bytes.len())));
    }
    let text = std::fs::read_to_string(&found.path).map_err(|error| refused(error.to_string()))?;
    let mut file: File = toml::from_str(&text).map_err(|error| {
        refused(format!("{}\n  every setting: oarlock init DIR writes a file with all", error.to_string().trim_end()))
    })?;
    if let Some(key) = untrusted(&file).filter(|_| found.place == Place::Here) {
        let why = "a file that merely lies here may not say who runs code, or who gets your goals, login or key";
        return Err(refused(format!("{key} is not taken from it: {why}; name it if you trust it: --config {shown}")));
    }
    let folder = found.path.parent().unwrap_or(Path::new("."));
    for path in [&mut file.roles, &mut file.prices].into_iter().flatten() {
        *path = folder.join(&*path);
    }
    // A bare name is looked for on the PATH, whoever's folder this is.
    let programs = file.python.iter_mut().chain(file.mcp.values_mut().map(McpTable::command_mut));
    programs.filter(|program| program.components().count() > 1).for_each(|program| *program = folder.join(&*program));
    file.strange_roles = file.roles.as_ref().filter(|_| found.place == Place::Here).map(|_| found.path.clone());
    file.server_from = file.server.is_some().then(|| found.path.clone());
    Ok(file)
}

impl File {
    /// This file's settings, and for what it does not set those of `other`; of a table, each entry for itself.
    pub(super) fn or(self, other: File) -> File {
        fn entries<M, K, V>(ours: M, theirs: M) -> M
        where
            M: IntoIterator<Item = (K, V)> + FromIterator<(K, V)>,
        {
            theirs.into_iter().chain(ours).collect()
        }
        File {
            server_from: self.server_from.or(other.server_from),
            strange_roles: if self.roles.is_some() { self.strange_roles } else { other.strange_roles },
            server: self.server.or(other.server),
            root: self.root.or(other.root),
            model: self.model.or(other.model),
            base_url: self.base_url.or(other.base_url),
            prices: self.prices.or(other.prices),
            first_byte_s: self.first_byte_s.or(other.first_byte_s),
            read_s: self.read_s.or(other.read_s),
            provider_calls_max: entries(self.provider_calls_max, other.provider_calls_max),
            model_calls_max: entries(self.model_calls_max, other.model_calls_max),
            roles: self.roles.or(other.roles),
            sandbox: self.sandbox.or(other.sandbox),
            python: self.python.or(other.python),
            web: self.web.or(other.web),
            web_allow: if self.web_allow.is_empty() { other.web_allow } else { self.web_allow },
            rework_max: self.rework_max.or(other.rework_max),
            exchanges_max: self.exchanges_max.or(other.exchanges_max),
            no_progress_max: self.no_progress_max.or(other.no_progress_max),
            hops_max: self.hops_max.or(other.hops_max),
            canary_share: self.canary_share.or(other.canary_share),
            canary: self.canary.or(other.canary),
            window_max: self.window_max.or(other.window_max),
            budget: match (self.budget, other.budget) {
                (Some(ours), Some(theirs)) => Some(ours.or(theirs)),
                (ours, theirs) => ours.or(theirs),
            },
            role_budget: entries(self.role_budget, other.role_budget),
            tenant: self.tenant.or(other.tenant),
            tenant_budget: entries(self.tenant_budget, other.tenant_budget),
            replicas: self.replicas.or(other.replicas),
            ack_wait_s: self.ack_wait_s.or(other.ack_wait_s),
            retention_s: self.retention_s.or(other.retention_s),
            slots: entries(self.slots, other.slots),
            timeout_s: entries(self.timeout_s, other.timeout_s),
            mcp: entries(self.mcp, other.mcp),
        }
    }
}

/// The setting of the user's own that prompts may not use which a stranger may have written.
pub(super) fn not_for_strangers(file: &File, grants_tools: bool) -> Option<&'static str> {
    match () {
        () if grants_tools => Some("tools"),
        () if file.web.as_ref().is_some_and(|web| web == "open") => Some("web = \"open\""),
        () if !file.web_allow.is_empty() => Some("web_allow"),
        () if file.sandbox.as_ref().is_some_and(|choice| choice == "off") => Some("sandbox = \"off\""),
        () => None,
    }
}

/// The setting of a project's file that could turn a stranger's folder against whoever runs the tool in it.
fn untrusted(file: &File) -> Option<&'static str> {
    let elsewhere = |text: &str| {
        let host = reqwest::Url::parse(text).ok().and_then(|url| url.host_str().map(str::to_owned));
        !host.is_some_and(|host| ["127.0.0.1", "localhost", "[::1]"].contains(&host.as_str()))
    };
    // A NATS address needs no scheme, and there may be several.
    let server = |text: &str| if text.contains("://") { text.to_owned() } else { format!("nats://{text}") };
    let far = |text: &String| text.split(',').any(|one| elsewhere(&server(one.trim())));
    let off = |choice: &String| choice == "off";
    match () {
        () if file.python.is_some() => Some("python"),
        () if file.web.as_ref().is_some_and(|web| web == "open") => Some("web = \"open\""),
        () if !file.web_allow.is_empty() => Some("web_allow"),
        () if !file.mcp.is_empty() => Some("mcp"),
        () if file.sandbox.as_ref().is_some_and(off) => Some("sandbox = \"off\""),
        () if file.base_url.as_deref().is_some_and(elsewhere) => Some("base_url of another machine"),
        () if file.server.as_ref().is_some_and(far) => Some("server of another machine"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::RETENTION_S;
    use super::*;
    use crate::wire::limits;

    /// The file that `oarlock init` writes, with every setting in it in force.
    #[test]
    fn the_file_of_a_new_project_knows_every_setting() {
        let text = include_str!("../init/oarlock.toml");
        let settings = |line: &str| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest.to_owned(),
            _ => line.to_owned(),
        };
        let all = text.lines().map(settings).collect::<Vec<_>>().join("\n");
        let table: toml::Table = toml::from_str(&all).unwrap();
        let refusal = toml::from_str::<File>("no_setting = 1").unwrap_err().to_string();
        let known: Vec<&str> = refusal.split("expected one of").nth(1).unwrap().split('`').skip(1).step_by(2).collect();
        assert!(known.len() > 20, "{known:?}");
        for name in known {
            assert!(table.contains_key(name), "{name} is missing");
        }
        let file: File = toml::from_str(&all).unwrap();
        assert_eq!((file.rework_max, file.retention_s), (Some(limits::REWORK_MAX), Some(RETENTION_S)));
        let as_written: File = toml::from_str(text).unwrap();
        assert!(as_written.server.is_none() && untrusted(&as_written).is_none());
    }

    #[test]
    fn the_first_file_wins_setting_by_setting() {
        let read = |text: &str| toml::from_str::<File>(text).unwrap();
        let both = read("rework_max = 1\n[slots]\ncoder = 1")
            .or(read("rework_max = 2\nmodel = \"m\"\n[slots]\ncoder = 2\nqa = 2"));
        assert_eq!((both.rework_max, both.model.as_deref()), (Some(1), Some("m")));
        assert_eq!(both.slots, HashMap::from([("coder".to_owned(), 1), ("qa".to_owned(), 2)]));
    }

    #[test]
    fn programs_are_those_of_the_file_s_folder_and_not_of_the_one_we_stand_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let text = "python = \"venv/bin/python\"\n[mcp.a]\ncommand = \"./a\"\n[mcp.b]\ncommand = \"b\"\n";
        std::fs::write(&path, text).unwrap();
        let mut file = read_file(&Found { path, place: Place::User }).unwrap();
        assert_eq!(file.python, Some(folder.path().join("venv/bin/python")));
        let commands: Vec<PathBuf> = file.mcp.values_mut().map(|table| table.command_mut().clone()).collect();
        assert_eq!(commands, [folder.path().join("./a"), PathBuf::from("b")]);
    }

    #[test]
    fn a_file_that_lies_here_names_servers_of_this_machine_alone() {
        for near in
            ["nats://127.0.0.1:4222", "localhost:4222", "nats://[::1]:4222,127.0.0.1:4223", "tls://u:p@localhost"]
        {
            assert_eq!(untrusted(&toml::from_str(&format!("server = {near:?}")).unwrap()), None, "{near}");
        }
        for far in
            ["nats://nats.example:4222", "nats.example", "127.0.0.1:4222, nats.example", "nats://127.0.0.1@x", ""]
        {
            let file: File = toml::from_str(&format!("server = {far:?}")).unwrap();
            assert_eq!(untrusted(&file), Some("server of another machine"), "{far}");
        }
    }
}
