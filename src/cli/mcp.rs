//! Tool servers: their tables in the configuration file, and their lines in `oarlock doctor`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use super::config::Config;
use super::exit::{Exit, ended};
use crate::roles::RoleDefinition;
use crate::tools::{BadServer, CALL_TIME_S, Grant, ServerSpec, ToolError, Tools};

/// A variable that every server gets: without it no interpreter finds its parts.
const PATH: &str = "PATH";
/// How long `doctor` waits for a server.
const TRIAL_S_MAX: u64 = 20;

/// `[mcp.<name>]`: a program that speaks MCP on its standard input and output.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct McpTable {
    command: PathBuf,
    #[serde(default)]
    args: Vec<String>,
    /// Names of variables that it may see.
    #[serde(default)]
    env: Vec<String>,
    #[serde(default = "call_time_s")]
    time_s: u64,
}

fn call_time_s() -> u64 {
    CALL_TIME_S
}

impl McpTable {
    /// The program, to be found from the file's folder.
    pub(super) fn command_mut(&mut self) -> &mut PathBuf {
        &mut self.command
    }

    /// The server with its variables, as `variable` gives them.
    pub(super) fn spec(
        &self,
        name: &str,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<ServerSpec, BadServer> {
        let mut variables: Vec<(String, OsString)> = Vec::new();
        variables.extend(variable(PATH).map(|value| (PATH.to_owned(), value)));
        for wanted in self.env.iter().filter(|wanted| *wanted != PATH) {
            let value = variable(wanted).ok_or_else(|| {
                BadServer::new(name, format!("env names {wanted}, which is not set here; set it, or take it out"))
            })?;
            variables.push((wanted.clone(), value));
        }
        ServerSpec::new(name, &self.command, self.args.clone(), variables, self.time_s)
    }
}

/// The tools of a role, when its file names any.
pub(super) fn tools_of(config: &Config, definition: &RoleDefinition) -> anyhow::Result<Option<Arc<Tools>>> {
    if definition.tools.is_empty() {
        return Ok(None);
    }
    let refused = |error: BadServer| ended(Exit::Usage, format!("role {}: {error}", definition.role));
    // A table that this role does not need may be wrong.
    let needed = |name: &str| definition.tools.iter().any(|grant| grant.server() == name);
    let servers =
        config.tool_servers().filter(|(name, server)| server.is_ok() || needed(name)).map(|(_, server)| server);
    let servers = servers.collect::<Result<Vec<_>, _>>().map_err(refused)?;
    Ok(Some(Arc::new(Tools::new(&servers, &definition.tools, &keeper()?).map_err(refused)?)))
}

fn keeper() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("find our own executable")
}

/// One server as `doctor` finds it: what it is and has, or what is wrong with it and the fix.
pub(super) type Found = Result<String, (String, &'static str)>;

/// Starts each configured server and says what it has.
pub(super) async fn trials(config: &Config) -> Vec<Found> {
    let trials = config.tool_servers().map(|(_, server)| async move {
        let tried = match server {
            Ok(server) => trial(&server).await,
            Err(error) => Err(error.into()),
        };
        tried.unwrap_or_else(|error| Err((format!("{error:#}"), "mend that table of the configuration file")))
    });
    futures::future::join_all(trials).await
}

async fn trial(server: &ServerSpec) -> anyhow::Result<Found> {
    let all: Grant = format!("{}/*", server.name()).parse()?;
    let tools = Tools::new(std::slice::from_ref(server), &[all], &keeper()?)?;
    let offer = tools.offer(Duration::from_secs(TRIAL_S_MAX)).await;
    tools.close().await;
    let missing = |error: &&ToolError| matches!(error, ToolError::Start { .. });
    if let Some(error) = offer.missing.iter().find(missing) {
        let fix = "run its command by hand; it must speak MCP on its standard input and output";
        return Ok(Err((format!("failed to {error}"), fix)));
    }
    let names: Vec<String> = offer.tools.iter().map(|tool| tool.name()).collect();
    let left_out = match offer.missing.len() {
        0 => String::new(),
        count => format!("; {count} left out"),
    };
    Ok(Ok(format!("tool server {}: {}{left_out}", server.name(), names.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_sees_the_path_and_what_was_named_and_nothing_else() {
        let table: McpTable = toml::from_str("command = \"x\"\nargs = [\"-y\"]\nenv = [\"TOKEN\"]").unwrap();
        let variable = |name: &str| (name != "GONE").then(|| OsString::from(format!("value of {name}")));
        let spec = table.spec("s", &variable).unwrap();
        let shown = format!("{spec:?}");
        assert!(shown.contains("value of TOKEN") && shown.contains("value of PATH"), "{shown}");
        let table: McpTable = toml::from_str("command = \"x\"\nenv = [\"GONE\"]").unwrap();
        let error = table.spec("s", &variable).unwrap_err().to_string();
        assert!(error.contains("[mcp.s]") && error.contains("GONE"), "{error}");
        for text in ["args = []", "command = \"x\"\nurl = \"http://127.0.0.1\"", "command = \"x\"\nenv = {A = \"1\"}"] {
            assert!(toml::from_str::<McpTable>(text).is_err(), "{text}");
        }
    }
}
