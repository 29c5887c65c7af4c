//! Why a tool could not be used, in words that help a person and a model.

/// A tool that could not be used. What a server said is bounded and on one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The server could not be started, or does not speak MCP.
    #[error("start the tool server {server}: {why}; mend [mcp.{server}] (`oarlock doctor` tries it)")]
    Start {
        /// Its name.
        server: String,
        /// What went wrong, with the end of its standard error.
        why: String,
    },
    /// The server does not list its tools.
    #[error("list the tools of {server}: {why}")]
    List {
        /// Its name.
        server: String,
        /// What went wrong.
        why: String,
    },
    /// One tool cannot be offered.
    #[error("offer the tool {tool}: {why}")]
    Unusable {
        /// `server/tool`.
        tool: String,
        /// What is wrong with it.
        why: String,
    },
    /// There are too many others.
    #[error(
        "offer the tool {tool}: it is one too many (offered_max {}, offered_bytes_max {}); name fewer tools in the role's file",
        super::OFFERED_MAX,
        super::OFFERED_BYTES_MAX
    )]
    TooMany {
        /// `server/tool`.
        tool: String,
    },
    /// It is not among those that may be called.
    #[error("call the tool {tool}: there is none of that name for this role; choose one of those that are listed")]
    NotOffered {
        /// What was asked for.
        tool: String,
    },
    /// The arguments are not what the tool takes; nothing was sent.
    #[error("call the tool {tool}: the arguments do not fit its schema ({}); mend them", complaints.join("; "))]
    Arguments {
        /// `server/tool`.
        tool: String,
        /// What is wrong with them.
        complaints: Vec<String>,
    },
    /// No answer in time.
    #[error("call the tool {tool}: no answer within {limit_ms} ms; ask for less, or do without it")]
    Late {
        /// `server/tool`.
        tool: String,
        /// The time that was allowed.
        limit_ms: u64,
    },
    /// The server ended before it answered.
    #[error("call the tool {tool}: its server ended ({said}); it may have acted already")]
    Ended {
        /// `server/tool`.
        tool: String,
        /// The end of its standard error.
        said: String,
    },
    /// The server answered with an error.
    #[error("call the tool {tool}: {said}")]
    Refused {
        /// `server/tool`.
        tool: String,
        /// What it said.
        said: String,
    },
}
