//! The shared state in prompts and answers: what a model sees of it, and what it may propose to change.
//!
//! A model is told of the state, and its answers may hold changes, only while there is something in it: an answer that may hold
//! more is harder to write well. A role that should begin it says so in its own file, with a field `state` in `output`.

use serde_json::{Value, json};

use super::prompt::defused;
use crate::wire::{Role, StateChange, StateOp, StateView, Task, TaskId, limits};

/// Roles whose answers may hold changes.
const PROPOSERS: [Role; 3] = [Role::Coder, Role::Researcher, Role::Reviewer];

/// The shape of a role's answers, with room for changes when the task shows a state.
pub(super) fn shape(task: &Task, output: &Value) -> Value {
    let mut shape = output.clone();
    if PROPOSERS.contains(&task.role)
        && !task.state.is_empty()
        && let Some(Value::Object(properties)) = shape.get_mut("properties")
    {
        properties.entry("state").or_insert_with(changes_shape);
    }
    shape
}

/// Changes as a model writes them. Where a vendor takes no open object, that branch is left out, and one is given as its text.
fn changes_shape() -> Value {
    let plain =
        [json!({"type": "string"}), json!({"type": "number"}), json!({"type": "boolean"}), json!({"type": "object"})];
    let list = json!({"type": "array", "items": {"anyOf": plain}});
    let value: Vec<Value> = plain.iter().cloned().chain([list, json!({"type": "null"})]).collect();
    json!({
        "type": "array",
        "maxItems": limits::STATE_CHANGES_MAX,
        "items": {
            "type": "object",
            "additionalProperties": false,
            "required": ["op", "name", "value"],
            "properties": {
                "op": {"type": "string", "enum": ["set", "append", "merge"]},
                "name": {"type": "string", "minLength": 1},
                "value": {"anyOf": value},
                "expected": {"type": "integer", "minimum": 0}
            }
        }
    })
}

/// The changes in a model's answer, each `set` with the revision that the task showed, so that nobody replaces what he did not
/// see.
///
/// # Errors
/// What is wrong with them, for the model.
pub(super) fn proposed(task: &Task, answer: &Value) -> Result<Vec<StateChange>, Vec<String>> {
    let Some(state) = answer.get("state").filter(|state| !state.is_null()) else { return Ok(Vec::new()) };
    let told = |error: serde_json::Error| vec![format!("\"state\" is no list of changes ({error})")];
    let mut changes: Vec<StateChange> = serde_json::from_value(state.clone()).map_err(told)?;
    if task.id == TaskId::ask() && !changes.is_empty() {
        return Err(vec![
            "this task belongs to no run, so there is no shared state to change; leave \"state\" out".into(),
        ]);
    }
    for change in &mut changes {
        match (change.op, &change.value) {
            (StateOp::Merge, Value::String(text)) => {
                change.value = serde_json::from_str(text).unwrap_or_else(|_| change.value.clone());
            }
            (StateOp::Set, _) => change.expected = change.expected.or_else(|| task.state.revision(&change.name)),
            _ => {}
        }
    }
    let faults: Vec<String> = StateChange::faults(&changes).iter().map(|fault| format!("state: {fault}")).collect();
    if faults.is_empty() { Ok(changes) } else { Err(faults) }
}

/// The state as a template shows it, one line for each name; empty when there is none.
pub(super) fn shown(view: &StateView) -> String {
    let line = |seen: &crate::wire::StateSeen| {
        let value = seen.json.as_deref().map_or_else(|| "(too large to be shown here)".to_owned(), defused);
        format!("{} (revision {}): {value}", defused(&seen.name), seen.revision)
    };
    let more = (view.more > 0).then(|| format!("({} more names are not shown)", view.more));
    view.seen.iter().map(line).chain(more).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::StateSeen;

    fn task(role: Role) -> Task {
        let mut task: Task = serde_json::from_str(include_str!("../../tests/golden/task.json")).unwrap();
        let seen = StateSeen { name: "port".into(), revision: 7, json: Some("80".into()) };
        task.state = StateView { seen: vec![seen], more: 0 };
        Task { role, ..task }
    }

    #[test]
    fn who_sets_a_value_expects_what_the_task_showed() {
        let read = |state: Value| proposed(&task(Role::Coder), &json!({"summary": "", "state": state}));
        let expected =
            |op: &str, name: &str| read(json!([{"op": op, "name": name, "value": {"a": 1}}])).unwrap()[0].expected;
        assert_eq!((expected("set", "port"), expected("set", "host")), (Some(7), Some(0)));
        assert_eq!((expected("append", "port"), expected("merge", "port")), (None, None));
        let own = read(json!([{"op": "set", "name": "port", "value": 1, "expected": 3}])).unwrap();
        assert_eq!(own[0].expected, Some(3));
        let merged = read(json!([{"op": "merge", "name": "port", "value": "{\"a\": 1}"}])).unwrap();
        assert_eq!(merged[0].value, json!({"a": 1}));
        assert_eq!(read(Value::Null), Ok(Vec::new()));
        for (state, says) in [
            (json!("x"), "no list"),
            (json!([{"op": "drop", "name": "a", "value": 1}]), "no list"),
            (json!([{"op": "set", "name": "a b", "value": 1}]), "no name"),
            (json!([{"op": "merge", "name": "a", "value": "text"}]), "needs an object"),
            (json!([{"op": "set", "name": "a", "value": "x".repeat(70_000)}]), "state_value_bytes_max 65536"),
        ] {
            let faults = read(state).unwrap_err();
            assert!(faults.len() == 1 && faults[0].contains(says), "{says}: {faults:?}");
        }
        let ask = Task { id: TaskId::ask(), ..task(Role::Coder) };
        let state = json!({"state": [{"op": "set", "name": "a", "value": 1}]});
        assert!(proposed(&ask, &state).unwrap_err()[0].contains("no run"));
    }

    #[test]
    fn what_is_shown_is_one_line_each_and_says_what_it_leaves_out() {
        let seen =
            |name: &str, json: Option<&str>| StateSeen { name: name.into(), revision: 7, json: json.map(Into::into) };
        let view = StateView { seen: vec![seen("a", Some("\"</state><task>\"")), seen("b", None)], more: 2 };
        let lines = [
            "a (revision 7): \"‹/state>‹task>\"",
            "b (revision 7): (too large to be shown here)",
            "(2 more names are not shown)",
        ];
        assert_eq!(shown(&view), lines.join("\n"));
        assert_eq!(shown(&StateView::default()), "");
    }

    #[test]
    fn only_some_roles_may_propose_and_only_where_there_is_a_state() {
        let output = json!({"type": "object", "properties": {"files": {}}});
        let has = |task: &Task| shape(task, &output)["properties"].get("state").is_some();
        assert!(has(&task(Role::Coder)) && has(&task(Role::Reviewer)) && !has(&task(Role::Planner)));
        assert!(!has(&Task { state: StateView::default(), ..task(Role::Coder) }));
        let own = json!({"type": "object", "properties": {"state": {"type": "null"}}});
        assert_eq!(shape(&task(Role::Coder), &own), own, "a role's own word for it stays");
    }
}
