//! Role files: YAML front matter and a template, written by whoever runs the fleet.

use std::sync::OnceLock;

use oarlock::roles::{RoleDefinition, RoleSet};
use oarlock::wire::Role;
use serde_json::json;

/// Roles that one text is read for; a text that names more of them is no role file that anybody wrote.
const ROLES_TRIED: usize = 2;

static BUILT_IN: OnceLock<RoleSet> = OnceLock::new();

/// The built-in roles.
pub fn built_in() -> &'static RoleSet {
    BUILT_IN.get_or_init(|| RoleSet::load(None).expect("the built-in roles are usable"))
}

pub fn prepare() {
    built_in();
}

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let named = Role::ALL.into_iter().filter(|role| text.contains(role.name()));
    for role in named.take(ROLES_TRIED) {
        match RoleDefinition::parse(role, text) {
            Ok(definition) => accepted(role, &definition),
            Err(error) => assert!(error.to_string().starts_with(&format!("role file {role}.md cannot be used: "))),
        }
    }
}

fn accepted(role: Role, definition: &RoleDefinition) {
    assert_eq!(definition.role, role);
    let limits = &definition.limits;
    assert!(limits.slots >= 1 && limits.time_s >= 1 && limits.output_tokens >= 1, "{limits:?}");
    // What the fleet does with these: it starts so many slots and waits so long.
    assert!(limits.slots <= 10_000, "{} slots", limits.slots);
    assert!(std::time::Instant::now().checked_add(limits.time()).is_some(), "{:?}", limits.time());
    let retry = &definition.retry;
    for (failures, share) in [(1, 0.0), (u32::MAX, 1.0)] {
        let pause = retry.delay(failures, std::time::Duration::ZERO, share);
        assert!(pause.as_secs() <= 2 * 600, "{retry:?} leads to a pause of {pause:?}");
    }
    // JSON is YAML, so the definition can be written as a file of another form, and is the same then.
    let matter = json!({
        "name": role.name(),
        "description": definition.description,
        "limits": { "time_s": limits.time_s, "slots": limits.slots, "output_tokens": limits.output_tokens },
        "retry": {
            "attempts": retry.attempts, "delay_s": retry.delay_s, "factor": retry.factor, "jitter": retry.jitter
        },
        "output": definition.output,
    });
    let written = format!("---\n{matter}\n---\n{}", definition.prompt);
    let again = RoleDefinition::parse(role, &written).unwrap_or_else(|error| panic!("{written:?}: {error}"));
    assert_eq!((&again.description, &again.output), (&definition.description, &definition.output));
    assert_eq!(again.retry, definition.retry);
    // Line ends are made one character when a file is read, so what was read of "\r\r\n" is read once more.
    assert_eq!(again.prompt, definition.prompt.replace("\r\n", "\n").trim());
    assert_eq!(
        (again.limits.time_s, again.limits.slots, again.limits.output_tokens),
        (limits.time_s, limits.slots, limits.output_tokens)
    );
}
