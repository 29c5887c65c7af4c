//! Fits our JSON Schemas to what the vendors' structured outputs accept.
//!
//! The vendors take subsets: Anthropic and OpenAI want objects closed, OpenAI's strict mode wants every property
//! required, and bounds on numbers, lengths and counts are refused with a 400; so is an object of any shape, which is
//! left out where there is a choice. Local servers make a grammar of the schema and take all but large counts. The reply is checked against the whole schema afterwards (`json.rs`), so another one
//! on the wire costs nothing but a rare second question.

use serde_json::{Map, Value};

/// Longest schema name that OpenAI takes.
const NAME_CHARS_MAX: usize = 64;

/// Checks on values, and defaults: the vendors refuse or ignore them.
const VALUE_BOUNDS: [&str; 14] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "default",
];

/// Counts that a server that makes a grammar of a schema repeats a rule by.
const COUNTS: [&str; 4] = ["minLength", "maxLength", "minItems", "maxItems"];
/// Largest count that such a server is sent: llama.cpp refuses a grammar that repeats anything 2000 times.
const COUNT_MAX: u64 = 1_000;

/// Keywords whose value is a map from names to schemas.
const SCHEMA_MAPS: [&str; 3] = ["properties", "$defs", "definitions"];

/// `schema` with closed objects and without bounds on values.
pub(super) fn for_vendor(schema: &Value) -> Value {
    match schema {
        Value::Object(map) => Value::Object(object_for_vendor(map)),
        Value::Array(items) => Value::Array(items.iter().map(for_vendor).collect()),
        other => other.clone(),
    }
}

/// `schema` without the counts that are too large for a grammar; smaller bounds help a small model.
pub(super) fn for_grammar(schema: &Value) -> Value {
    let too_large = |key: &str, value: &Value| COUNTS.contains(&key) && value.as_u64() > Some(COUNT_MAX);
    match schema {
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, value)| !too_large(key, value));
            let sent = |key: &String, value: &Value| match value {
                Value::Object(named) if SCHEMA_MAPS.contains(&key.as_str()) => {
                    named.iter().map(|(name, schema)| (name.clone(), for_grammar(schema))).collect()
                }
                _ if matches!(key.as_str(), "enum" | "const" | "default" | "examples") => value.clone(),
                _ => for_grammar(value),
            };
            kept.map(|(key, value)| (key.clone(), sent(key, value))).collect()
        }
        Value::Array(items) => items.iter().map(for_grammar).collect(),
        other => other.clone(),
    }
}

fn object_for_vendor(map: &Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in map {
        let value = match value {
            _ if VALUE_BOUNDS.contains(&key.as_str()) || key == "$schema" => continue,
            // Names of properties are not keywords: a property may well be called "pattern".
            Value::Object(named) if SCHEMA_MAPS.contains(&key.as_str()) => {
                Value::Object(named.iter().map(|(name, schema)| (name.clone(), for_vendor(schema))).collect())
            }
            Value::Array(branches) if key == "anyOf" && !branches.iter().all(is_open) => {
                branches.iter().filter(|branch| !is_open(branch)).map(for_vendor).collect()
            }
            _ if matches!(key.as_str(), "enum" | "const" | "required" | "examples") => value.clone(),
            _ => for_vendor(value),
        };
        out.insert(key.clone(), value);
    }
    if out.contains_key("properties") {
        out.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    out
}

/// True for an object of any shape.
fn is_open(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("object") && schema.get("properties").is_none()
}

/// True when OpenAI's strict mode takes the schema: every object closed, and all its properties required.
pub(super) fn is_strict(schema: &Value) -> bool {
    match schema {
        Value::Array(items) => items.iter().all(is_strict),
        Value::Object(map) => {
            let closed = match map.get("properties") {
                Some(Value::Object(properties)) => {
                    let required = map.get("required").and_then(Value::as_array);
                    let is_required = |name: &String| {
                        required.is_some_and(|names| names.iter().any(|other| other.as_str() == Some(name)))
                    };
                    map.get("additionalProperties") == Some(&Value::Bool(false)) && properties.keys().all(is_required)
                }
                _ => map.get("type").and_then(Value::as_str) != Some("object"),
            };
            closed && map.values().all(is_strict)
        }
        _ => true,
    }
}

/// A schema's name in the alphabet that OpenAI allows.
pub(super) fn wire_name(name: &str) -> String {
    let name: String = name
        .chars()
        .take(NAME_CHARS_MAX)
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' })
        .collect();
    if name.is_empty() { "answer".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_closed_and_bounds_dropped_but_property_names_kept() {
        let schema = json!({
            "$schema": "x", "type": "object", "required": ["pattern"],
            "properties": {
                "pattern": {"type": "string", "minLength": 1, "pattern": "^a"},
                "list": {"type": "array", "maxItems": 3, "items": {
                    "type": "object", "properties": {"n": {"type": "integer", "minimum": 0}}
                }},
                "kind": {"enum": ["minimum"]}
            }
        });
        let expected = json!({
            "type": "object", "required": ["pattern"],
            "properties": {
                "pattern": {"type": "string"},
                "list": {"type": "array", "items": {
                    "type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": false
                }},
                "kind": {"enum": ["minimum"]}
            },
            "additionalProperties": false
        });
        assert_eq!(for_vendor(&schema), expected);
    }

    #[test]
    fn an_object_of_any_shape_is_left_out_where_there_is_a_choice() {
        let schema = json!({"anyOf": [{"type": "object"}, {"type": "string", "minLength": 1}]});
        assert_eq!(for_vendor(&schema), json!({"anyOf": [{"type": "string"}]}));
        assert!(is_strict(&for_vendor(&schema)) && !is_strict(&schema));
        let only = json!({"anyOf": [{"type": "object"}]});
        assert_eq!(for_vendor(&only), only);
    }

    #[test]
    fn a_grammar_gets_no_count_that_it_cannot_repeat() {
        let schema = json!({
            "type": "array", "maxItems": 200, "items": {
                "type": "object", "required": ["maxLength"],
                "properties": {
                    "maxLength": {"type": "string", "minLength": 1, "maxLength": 16000},
                    "default": {"enum": [{"maxItems": 5000}], "maxItems": 1001}
                }
            }
        });
        let expected = json!({
            "type": "array", "maxItems": 200, "items": {
                "type": "object", "required": ["maxLength"],
                "properties": {
                    "maxLength": {"type": "string", "minLength": 1},
                    "default": {"enum": [{"maxItems": 5000}]}
                }
            }
        });
        assert_eq!(for_grammar(&schema), expected);
    }

    #[test]
    fn strict_means_closed_and_all_required() {
        let object = |required: Value| {
            json!({
                "type": "object", "properties": {"a": {"type": "string"}},
                "required": required, "additionalProperties": false
            })
        };
        assert!(is_strict(&object(json!(["a"]))));
        assert!(!is_strict(&object(json!([]))));
        assert!(!is_strict(&json!({"type": "array", "items": {"type": "object"}})));
    }

    #[test]
    fn names_fit_the_vendors_alphabet() {
        assert_eq!(wire_name("plan v2/é"), "plan_v2__");
        assert_eq!(wire_name(""), "answer");
        assert_eq!(wire_name(&"x".repeat(100)).len(), 64);
    }
}
