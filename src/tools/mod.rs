//! Tools of MCP servers that the user configured: opened, listed, called, bounded.
//!
//! A server is a program that the user named; what it says is a stranger's. Policy of this room:
//!
//! - only the tools that a role's file names can be seen or called, and nothing is started before a task needs it;
//! - a server gets no variable of our environment but `PATH` and those that were named for it;
//! - every message, list, text and wait has a limit; what is over is cut or refused, and said to be;
//! - a server that dies is started again, after pauses that grow; all its processes end with ours, however that ends;
//! - what a tool answers is text for a model, without control characters, and never decides anything by itself.

mod error;
mod flow;
mod grant;
mod keeper;
mod listing;
mod process;
mod server;
mod spec;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

pub use error::ToolError;
pub use grant::{BadGrant, Grant};
pub use keeper::keeper_main;
pub use spec::{BadServer, CALL_TIME_S, ServerSpec};
pub use text::RESULT_BYTES_MAX;

use self::listing::ListedTool;
use self::server::McpServer;
use crate::wire::one_line;

/// Tools that one role is offered at the same time; a model chooses badly among more.
pub const OFFERED_MAX: usize = 64;
/// Bytes of all offered descriptions and schemas.
pub const OFFERED_BYTES_MAX: usize = 64 * 1024;

/// The servers of one process, and what may be used of them.
pub struct Tools {
    servers: Vec<Arc<McpServer>>,
    grants: Vec<Grant>,
}

impl Tools {
    /// The tools that `grants` allow, of the servers among `specs` that they name. Nothing is started yet. `keeper` is our
    /// own executable, which starts the servers and outlives us for a moment to end them.
    ///
    /// # Errors
    /// [`BadServer`] when a grant names a server that is not among `specs`.
    pub fn new(specs: &[ServerSpec], grants: &[Grant], keeper: &Path) -> Result<Self, BadServer> {
        if let Some(lost) = grants.iter().find(|grant| !specs.iter().any(|spec| spec.name() == grant.server())) {
            return Err(BadServer::unknown(lost.server(), specs));
        }
        let used = specs.iter().filter(|spec| grants.iter().any(|grant| grant.server() == spec.name()));
        let keeper: PathBuf = keeper.to_owned();
        let servers = used.map(|spec| Arc::new(McpServer::new(spec.clone(), keeper.clone()))).collect();
        Ok(Self { servers, grants: grants.to_vec() })
    }

    /// Starts the servers that do not run, and says which of their tools may be used. Takes at most `limit`, in which
    /// servers that do not answer are left out and told of.
    pub async fn offer(&self, limit: Duration) -> Offer {
        let listed = self.servers.iter().map(|server| async move { (server, server.tools(limit).await) });
        let mut offer = Offer { tools: Vec::new(), missing: Vec::new() };
        let mut bytes_left = OFFERED_BYTES_MAX;
        for (server, listed) in futures::future::join_all(listed).await {
            let tools = match listed {
                Ok(tools) => tools,
                Err(error) => {
                    offer.missing.push(error);
                    continue;
                }
            };
            let allowed = |tool: &&ListedTool| self.grants.iter().any(|grant| grant.allows(server.name(), &tool.name));
            for tool in tools.iter().filter(allowed) {
                let bytes = tool.bytes();
                if offer.tools.len() == OFFERED_MAX || bytes > bytes_left {
                    offer.missing.push(ToolError::TooMany { tool: format!("{}/{}", server.name(), tool.name) });
                    continue;
                }
                bytes_left -= bytes;
                offer.tools.push(OfferedTool { server: server.clone(), listed: tool.clone() });
            }
        }
        offer
    }

    /// Lets the servers end in order, within two seconds; those that do not are killed.
    pub async fn close(&self) {
        futures::future::join_all(self.servers.iter().map(|server| server.close())).await;
    }
}

/// What a task may use.
pub struct Offer {
    /// The tools.
    pub tools: Vec<OfferedTool>,
    /// What is not to be had, and why.
    pub missing: Vec<ToolError>,
}

impl Offer {
    /// The tool called `server/tool`.
    ///
    /// # Errors
    /// [`ToolError::NotOffered`], also for a tool that exists and is not allowed.
    pub fn tool(&self, name: &str) -> Result<&OfferedTool, ToolError> {
        let found = self.tools.iter().find(|tool| tool.name() == name);
        found.ok_or_else(|| ToolError::NotOffered { tool: one_line(name, NAME_SHOWN_CHARS_MAX) })
    }
}

/// Characters of a wrong tool's name that an error repeats.
const NAME_SHOWN_CHARS_MAX: usize = 100;

/// A tool that may be called.
pub struct OfferedTool {
    server: Arc<McpServer>,
    listed: ListedTool,
}

impl OfferedTool {
    /// `server/tool`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.server.name(), self.listed.name)
    }

    /// What its server says about it, cut.
    pub fn description(&self) -> &str {
        &self.listed.description
    }

    /// JSON Schema of its arguments.
    pub fn schema(&self) -> &Value {
        &self.listed.schema
    }

    /// Calls it. Ends within `limit` and the server's own `time_s`; when it does not answer in time, or this future is
    /// dropped, the server is told that nobody waits any more. `key` names the call for servers that know what it was for.
    ///
    /// # Errors
    /// [`ToolError`]: the arguments do not fit and nothing was sent, or there was no answer.
    pub async fn call(
        &self,
        arguments: Map<String, Value>,
        key: &str,
        limit: Duration,
    ) -> Result<ToolAnswer, ToolError> {
        self.listed.check(&self.name(), &arguments)?;
        self.server.call(&self.listed.name, arguments, key, limit).await
    }
}

/// What a tool said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolAnswer {
    /// Its text, cut to [`RESULT_BYTES_MAX`], without control characters; what is no text is named.
    pub text: String,
    /// Bytes of the text before it was cut.
    pub bytes: usize,
    /// False when the tool says that it failed.
    pub ok: bool,
}
