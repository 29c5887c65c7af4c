//! What the runs are about: a small goal without code, and now and then one with code, a fault in it, and tests that really
//! run.

use serde_json::{Value, json};

/// One in so many runs is about code: tests take a second of a processor each.
const CODE_EVERY: u32 = 10;
/// Milliseconds that a model call takes.
const LATENCY_MS: (u64, u64) = (50, 600);
/// Part of the goals that are about code, by which their plan is chosen.
const CODE_MARK: &str = "Add two numbers";

/// A kind of goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Story {
    /// Two researchers, then a documenter.
    Words,
    /// A coder whose first attempt fails its tests, qa, a reviewer, a documenter.
    Code,
}

impl Story {
    pub(super) const ALL: [Story; 2] = [Story::Words, Story::Code];

    /// The story of the `number`-th run.
    pub(super) fn of(number: u32) -> Self {
        if number.is_multiple_of(CODE_EVERY) { Story::Code } else { Story::Words }
    }

    /// The goal of the `number`-th run.
    pub(super) fn goal(self, number: u32) -> String {
        match self {
            Story::Words => format!("Describe oars, part {number}"),
            Story::Code => format!("{CODE_MARK}, part {number}"),
        }
    }
}

/// The recorded replies for all runs.
pub(super) fn script(seed: u64) -> String {
    let task = |id: &str, role: &str, needs: &[&str]| json!({ "id": id, "role": role, "description": format!("Do part {id}."), "depends_on": needs });
    let words = [task("a", "researcher", &[]), task("b", "researcher", &[]), task("c", "documenter", &["a", "b"])];
    let code = [
        task("a", "coder", &[]),
        task("b", "qa", &["a"]),
        task("c", "reviewer", &["a"]),
        task("d", "documenter", &["a"]),
    ];
    let findings =
        json!({ "findings": [{ "text": "an oar is a lever", "source": "general knowledge" }], "not_found": [] });
    let rules = [
        json!({ "match": { "role": "planner", "user_contains": CODE_MARK }, "response": { "json": { "tasks": code } } }),
        json!({ "match": { "role": "planner" }, "response": { "json": { "tasks": words } } }),
        says("researcher", &json!({ "json": findings })),
        attempt(1, "a - b"),
        attempt(2, "a + b"),
        says("reviewer", &json!({ "json": { "verdict": "approve", "findings": [] } })),
        says("documenter", &json!({ "content": "# It\n\nIt is described." })),
        says("synthesizer", &json!({ "content": "It is done, and this is the answer." })),
    ];
    let (min, max) = LATENCY_MS;
    let defaults = json!({ "latency_ms": { "min": min, "max": max } });
    json!({ "version": 1, "seed": seed, "strict": true, "defaults": defaults, "rules": rules }).to_string()
}

fn says(role: &str, response: &Value) -> Value {
    json!({ "match": { "role": role }, "response": response })
}

/// The coder's answer at an attempt, with tests that tell the right sum from the wrong one.
fn attempt(number: u32, sum: &str) -> Value {
    let file = |path: &str, content: String| json!({ "path": path, "content": content });
    let files = [
        file("add.py", format!("def add(a, b):\n    return {sum}\n")),
        file("test_add.py", "from add import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n".into()),
    ];
    let answer = json!({ "files": files, "deleted": [], "summary": format!("attempt {number}") });
    json!({ "match": { "role": "coder", "attempt": number }, "response": { "json": answer } })
}
