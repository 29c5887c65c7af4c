//! A server's list of tools, read page by page within limits; what cannot be offered is left out, with the reason.

use std::sync::Arc;

use rmcp::model::{PaginatedRequestParams, Tool};
use rmcp::service::{Peer, RoleClient, ServiceError};
use serde_json::{Map, Value};

use super::ToolError;
use super::grant::is_tool_name;
use crate::wire::{limits, one_line, readable};

/// Tools that are taken from one server.
const TOOLS_MAX: usize = 256;
/// Pages of a server's list.
const PAGES_MAX: usize = 32;
/// Bytes of a tool's description.
const DESCRIPTION_BYTES_MAX: usize = 1024;
/// Bytes of a tool's schema.
const SCHEMA_BYTES_MAX: usize = 8 * 1024;
/// Complaints about one call's arguments.
const COMPLAINTS_MAX: usize = 5;
/// Characters of one complaint.
const COMPLAINT_CHARS_MAX: usize = 200;

/// A tool as its server lists it, checked.
#[derive(Clone, Debug)]
pub(super) struct ListedTool {
    /// Its name at its server.
    pub(super) name: String,
    /// What its server says about it.
    pub(super) description: String,
    /// JSON Schema of its arguments.
    pub(super) schema: Value,
    validator: Arc<jsonschema::Validator>,
}

impl ListedTool {
    /// What it takes in a prompt.
    pub(super) fn bytes(&self) -> usize {
        self.name.len() + self.description.len() + self.schema.to_string().len()
    }

    /// Holds arguments against the schema.
    pub(super) fn check(&self, shown: &str, arguments: &Map<String, Value>) -> Result<(), ToolError> {
        let arguments = Value::Object(arguments.clone());
        let place = |path: String| if path.is_empty() { "arguments".to_owned() } else { path };
        let complaints: Vec<String> = self
            .validator
            .iter_errors(&arguments)
            .take(COMPLAINTS_MAX)
            .map(|error| {
                one_line(
                    &format!("{}: {}", place(error.instance_path().to_string()), error.masked()),
                    COMPLAINT_CHARS_MAX,
                )
            })
            .collect();
        if complaints.is_empty() { Ok(()) } else { Err(ToolError::Arguments { tool: shown.to_owned(), complaints }) }
    }

    fn read(tool: &Tool) -> Result<Self, String> {
        if !is_tool_name(&tool.name) {
            return Err("its name has characters that a tool's name may not have".to_owned());
        }
        let mut schema = Value::Object((*tool.input_schema).clone());
        let bytes = schema.to_string().len();
        if bytes > SCHEMA_BYTES_MAX {
            return Err(format!("its schema has {bytes} bytes, more than schema_bytes_max {SCHEMA_BYTES_MAX}"));
        }
        let validator = jsonschema::validator_for(&schema);
        let validator =
            validator.map_err(|error| format!("its schema is none ({})", one_line(&error.to_string(), 100)))?;
        if let Some(map) = schema.as_object_mut() {
            map.remove("$schema");
        }
        let description = readable(tool.description.as_deref().unwrap_or_default());
        Ok(Self {
            name: tool.name.to_string(),
            description: limits::cut(&description, DESCRIPTION_BYTES_MAX),
            schema,
            validator: Arc::new(validator),
        })
    }
}

/// The tools of a server, and those of them that cannot be offered.
pub(super) async fn list(
    server: &str,
    peer: &Peer<RoleClient>,
) -> Result<(Vec<ListedTool>, Vec<ToolError>), ServiceError> {
    let mut tools: Vec<ListedTool> = Vec::new();
    let mut unusable = Vec::new();
    let mut cursor = None;
    for _ in 0..PAGES_MAX {
        let page = PaginatedRequestParams::default().with_cursor(cursor.take());
        let page = peer.list_tools(Some(page)).await?;
        for tool in &page.tools {
            let refused = |why: String| {
                let tool = format!("{server}/{}", one_line(&tool.name, COMPLAINT_CHARS_MAX));
                ToolError::Unusable { tool, why }
            };
            if tools.len() + unusable.len() == TOOLS_MAX {
                unusable.push(refused(format!("it comes after tools_max {TOOLS_MAX} others of its server")));
                return Ok((tools, unusable));
            }
            match ListedTool::read(tool) {
                Ok(read) if tools.iter().any(|other| other.name == read.name) => {
                    unusable.push(refused("its server lists two of that name".to_owned()));
                }
                Ok(read) => tools.push(read),
                Err(why) => unusable.push(refused(why)),
            }
        }
        cursor = page.next_cursor.clone();
        if cursor.is_none() {
            break;
        }
    }
    Ok((tools, unusable))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(schema: Value) -> Result<ListedTool, String> {
        let tool = json!({"name": "t", "description": "d\u{1b}", "inputSchema": schema});
        ListedTool::read(&serde_json::from_value(tool).unwrap())
    }

    #[test]
    fn arguments_that_do_not_fit_are_named() {
        let tool = read(json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "required": ["a"],
            "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}
        }));
        let tool = tool.unwrap();
        assert_eq!(tool.description, "d");
        let check = |value: Value| tool.check("s/t", value.as_object().unwrap());
        assert_eq!(check(json!({"a": 1})), Ok(()));
        let error = check(json!({"a": "one"})).unwrap_err().to_string();
        assert!(error.contains("s/t") && error.contains("/a") && error.contains("integer"), "{error}");
        assert!(check(json!({})).is_err());
    }

    #[test]
    fn a_schema_that_cannot_be_used_is_left_out_and_one_without_end_does_no_harm() {
        assert!(read(json!({"$ref": "#"})).unwrap().check("s/t", &Map::new()).is_ok());
        for (schema, says) in [
            (json!({"type": "nonsense"}), "none"),
            (json!({"$ref": "https://schemas.example/x"}), "none"),
            (json!({"description": "x".repeat(9000)}), "schema_bytes_max"),
        ] {
            let error = read(schema).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
