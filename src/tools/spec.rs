//! A configured tool server, checked.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Seconds of one call unless configured.
pub const CALL_TIME_S: u64 = 30;
/// Most seconds of one call.
const CALL_TIME_S_MAX: u64 = 600;
/// Characters of a server's name.
const NAME_CHARS_MAX: usize = 32;
/// Arguments of a server's command.
const ARGUMENTS_MAX: usize = 64;
/// Bytes of one of them.
const ARGUMENT_BYTES_MAX: usize = 8 * 1024;
/// Variables that a server gets.
const VARIABLES_MAX: usize = 64;

/// How a tool server is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    name: String,
    command: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, OsString)>,
    call_time: Duration,
}

/// Settings of a tool server that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[mcp.{name}]: {why}")]
pub struct BadServer {
    name: String,
    why: String,
}

impl BadServer {
    /// Settings of `name` that cannot be used.
    pub fn new(name: &str, why: impl Into<String>) -> Self {
        Self { name: name.chars().take(NAME_CHARS_MAX).collect(), why: why.into() }
    }

    pub(super) fn unknown(name: &str, specs: &[ServerSpec]) -> Self {
        let known: Vec<&str> = specs.iter().map(ServerSpec::name).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let why =
            format!("a role's tools name this server and it is not configured (configured: {known}); add the table");
        Self::new(name, why)
    }
}

impl ServerSpec {
    /// The server `name`: `command` with `arguments`, which sees `variables` and nothing else of an environment, and whose
    /// calls may take `time_s` seconds each.
    ///
    /// # Errors
    /// [`BadServer`] says which setting is wrong.
    pub fn new(
        name: &str,
        command: &Path,
        arguments: Vec<String>,
        variables: Vec<(String, OsString)>,
        time_s: u64,
    ) -> Result<Self, BadServer> {
        let refused = |why: &str| Err(BadServer::new(name, why));
        if !is_name(name) {
            return refused(&format!("a server's name has 1 to {NAME_CHARS_MAX} of a-z, 0-9, - and _"));
        }
        if command.as_os_str().is_empty() {
            return refused("command is empty; name the program that speaks MCP on its standard input and output");
        }
        if arguments.len() > ARGUMENTS_MAX || arguments.iter().any(|text| text.len() > ARGUMENT_BYTES_MAX) {
            return refused(&format!(
                "args has more than {ARGUMENTS_MAX} items, or one over {ARGUMENT_BYTES_MAX} bytes"
            ));
        }
        if arguments.iter().any(|text| text.contains('\0')) {
            return refused("args holds a zero byte; take it out");
        }
        if variables.len() > VARIABLES_MAX {
            return refused(&format!("env names more than {VARIABLES_MAX} variables"));
        }
        if !(1..=CALL_TIME_S_MAX).contains(&time_s) {
            return refused(&format!("time_s is {time_s}; it must be 1 to {CALL_TIME_S_MAX}"));
        }
        let (name, command, call_time) = (name.to_owned(), command.to_owned(), Duration::from_secs(time_s));
        Ok(Self { name, command, arguments, variables, call_time })
    }

    /// Its name, the first part of its tools' names.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program.
    pub fn command(&self) -> &Path {
        &self.command
    }

    pub(super) fn arguments(&self) -> &[String] {
        &self.arguments
    }

    pub(super) fn variables(&self) -> &[(String, OsString)] {
        &self.variables
    }

    pub(super) fn call_time(&self) -> Duration {
        self.call_time
    }
}

/// True for a name that a server may have.
pub(super) fn is_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    (1..=NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_say_which_one() {
        let spec = |name: &str, command: &str, arguments: Vec<String>, time_s| {
            ServerSpec::new(name, Path::new(command), arguments, Vec::new(), time_s)
        };
        assert!(spec("files", "mcp-files", vec!["--root".into()], 30).is_ok());
        for (outcome, says) in [
            (spec("Files", "x", vec![], 30), "a-z"),
            (spec("", "x", vec![], 30), "a-z"),
            (spec("files", "", vec![], 30), "command is empty"),
            (spec("files", "x", vec!["a\0".into()], 30), "zero byte"),
            (spec("files", "x", vec![String::new(); 65], 30), "64 items"),
            (spec("files", "x", vec![], 0), "time_s is 0"),
            (spec("files", "x", vec![], 601), "1 to 600"),
        ] {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
