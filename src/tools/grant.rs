//! What a role's file allows: `server/tool`, or `server/*` for all tools of a server. What is not named is not allowed.

use std::str::FromStr;

use super::spec;

/// Characters of a tool's name, MCP's own bound.
pub(super) const TOOL_NAME_CHARS_MAX: usize = 128;

/// One line of a role's `tools`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    server: String,
    /// `None` for all of them.
    tool: Option<String>,
}

/// A line of `tools` that allows nothing that could exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no tool: write \"server/tool\", or \"server/*\" for all tools of a server")]
pub struct BadGrant {
    text: String,
}

impl FromStr for Grant {
    type Err = BadGrant;

    fn from_str(text: &str) -> Result<Self, BadGrant> {
        let bad = || BadGrant { text: text.chars().take(TOOL_NAME_CHARS_MAX).collect() };
        let (server, tool) = text.split_once('/').ok_or_else(bad)?;
        if !spec::is_name(server) || !(tool == "*" || is_tool_name(tool)) {
            return Err(bad());
        }
        Ok(Self { server: server.to_owned(), tool: (tool != "*").then(|| tool.to_owned()) })
    }
}

impl Grant {
    /// The server that it speaks of.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// True when it covers a tool by its whole name, `server/tool`.
    pub fn covers(&self, name: &str) -> bool {
        name.split_once('/').is_some_and(|(server, tool)| self.allows(server, tool) && is_tool_name(tool))
    }

    pub(super) fn allows(&self, server: &str, tool: &str) -> bool {
        self.server == server && self.tool.as_ref().is_none_or(|allowed| allowed == tool)
    }
}

/// True for a name that a tool may have: a server's other tools are not offered, whatever they are called.
pub(super) fn is_tool_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    (1..=TOOL_NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_allowed() {
        let one: Grant = "files/read_file".parse().unwrap();
        let all: Grant = "web/*".parse().unwrap();
        assert!(one.allows("files", "read_file") && all.allows("web", "anything"));
        assert!(!one.allows("files", "write_file") && !one.allows("web", "read_file") && !all.allows("files", "x"));
        let nested: Grant = "web/admin/list".parse().unwrap();
        assert!(nested.allows("web", "admin/list") && !nested.allows("web", "admin"));
    }

    #[test]
    fn a_line_that_could_mean_anything_is_refused() {
        for text in ["", "read_file", "files/", "/x", "*/*", "files/re*", "files/a b", "Files/x", "files/\u{202e}x"] {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
        assert!(format!("files/{}", "x".repeat(129)).parse::<Grant>().is_err());
    }
}
