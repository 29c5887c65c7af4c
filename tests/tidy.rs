//! The house rules that a compiler does not check: floors, sizes, docs, words. No server is needed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected should stop there"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, the lowest first; a room uses lower ones only.
const FLOORS: [&[&str]; 8] = [
    &["wire"],
    &["bus", "model", "sandbox", "sources", "tools"],
    &["store"],
    &["worker"],
    &["roles"],
    &["orchestrator"],
    &["supervisor"],
    &["cli"],
];
const FILE_LINES_MAX: usize = 400;
const BIN_LINES_MAX: usize = 12;
const EXAMPLE_LINES_MAX: usize = 50;
const FUNCTION_LINES_MAX: usize = 70;
const MODULE_DOC_LINES_MAX: usize = 15;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no files in {folder}");
    found
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn room_of(path: &Path) -> Option<String> {
    let rest = path.strip_prefix("src").ok()?;
    let first = rest.components().next()?.as_os_str().to_str()?.to_owned();
    (first != "lib.rs").then_some(first)
}

#[test]
fn imports_go_down_only() {
    let mut wrong = Vec::new();
    for (path, text) in rust_files("src") {
        let Some(room) = room_of(&path) else { continue };
        let own = floor_of(&room).unwrap_or_else(|| panic!("{} is on no floor", path.display()));
        for (number, line) in text.lines().enumerate() {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let allowed = used == room || floor_of(&used).is_none_or(|floor| floor < own);
                if !allowed {
                    wrong.push(format!("{}:{}: {room} uses {used}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_wire_derives_serialize() {
    // The model room writes the vendors' own formats, and the tool prints views of its own.
    let may = ["wire", "model", "cli"];
    for (path, text) in rust_files("src") {
        let room = room_of(&path).unwrap_or_default();
        let derives = text.lines().any(|line| line.contains("derive(") && line.contains("Serialize"));
        assert!(!derives || may.contains(&room.as_str()), "{} derives Serialize", path.display());
    }
}

#[test]
fn only_the_configuration_reads_the_environment() {
    for (path, text) in rust_files("src") {
        let reads = text.contains("env::var") && path != Path::new("src/cli/config.rs");
        assert!(!reads, "{} reads the environment", path.display());
    }
}

#[test]
fn files_and_functions_have_a_size_that_a_reader_can_hold() {
    let mut wrong = Vec::new();
    let limits =
        [("src", FILE_LINES_MAX), ("tests", FILE_LINES_MAX), ("bin", BIN_LINES_MAX), ("examples", EXAMPLE_LINES_MAX)];
    for (folder, limit) in limits.into_iter().filter(|(folder, _)| root().join(folder).exists()) {
        for (path, text) in rust_files(folder) {
            let lines = text.lines().count();
            if lines > limit {
                wrong.push(format!("{} has {lines} lines, more than {limit}", path.display()));
            }
            for (name, lines) in functions(&text) {
                if lines > FUNCTION_LINES_MAX {
                    wrong.push(format!(
                        "{}: fn {name} has {lines} lines, more than {FUNCTION_LINES_MAX}",
                        path.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Names and lengths of functions, by the indentation that rustfmt gives: from `fn` to the closing brace under it.
fn functions(text: &str) -> BTreeMap<String, usize> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = BTreeMap::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<&str> = line.trim_start().split(' ').collect();
        let Some(at) = words.iter().position(|word| *word == "fn") else { continue };
        if at > 4 || line.trim_start().starts_with("//") || line.trim_end().ends_with(';') {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let length = lines[start..].iter().position(|line| *line == end).map_or(1, |length| length + 1);
        let name = words.get(at + 1).map_or("", |rest| rest.split(['(', '<']).next().unwrap_or_default());
        found.insert(format!("{name} (line {})", start + 1), length);
    }
    found
}

#[test]
fn every_file_says_why_it_is_there() {
    for (path, text) in rust_files("src").into_iter().chain(rust_files("bin")).chain(rust_files("tests")) {
        let doc = text.lines().take_while(|line| line.starts_with("//!")).count();
        assert!(doc >= 1, "{} has no module doc", path.display());
        let entry = path.ends_with("lib.rs") || path.file_name().is_some_and(|name| name == "mod.rs");
        let limit = if entry { 2 * MODULE_DOC_LINES_MAX } else { MODULE_DOC_LINES_MAX };
        assert!(doc <= limit, "{}: {doc} lines of module doc, more than {limit}", path.display());
    }
}

#[test]
fn nothing_is_left_half_done() {
    let marks = ["todo!(", "unimplemented!(", "dbg!(", "#[ignore", "FIXME", "XXX"];
    for (path, text) in rust_files("src").into_iter().chain(rust_files("bin")).chain(rust_files("tests")) {
        if path == Path::new("tests/tidy.rs") {
            continue;
        }
        for mark in marks {
            assert!(!text.contains(mark), "{} contains {mark}", path.display());
        }
    }
}

#[test]
fn binaries_only_call_the_library() {
    for (path, text) in rust_files("bin") {
        let code = text.lines().filter(|line| line.starts_with("    ")).count();
        assert_eq!(code, 1, "{} does more than one call", path.display());
    }
}

#[test]
fn the_eight_roles_have_a_file_a_binary_and_a_place_in_compose() {
    let compose = fs::read_to_string(root().join("compose.yaml")).unwrap();
    for role in oarlock::wire::Role::ALL {
        assert!(root().join(format!("roles/{role}.md")).exists(), "roles/{role}.md");
        assert!(root().join(format!("bin/{role}.rs")).exists(), "bin/{role}.rs");
        assert!(compose.contains(&format!("\n  {role}:\n")), "compose.yaml has no service {role}");
    }
}

/// A promise that names a test which is not there is none.
#[test]
fn every_test_that_the_documents_name_is_there() {
    let text = fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let mut named = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && line.matches('|').count() == 5).skip(1) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let suites: Vec<&str> = cells[2].split(", ").collect();
        for test in cells[3].split('`').skip(1).step_by(2).filter(|name| name.contains("::")) {
            let (module, function) = test.split_once("::").unwrap();
            let there = suites.iter().any(|suite| {
                let file = root().join(format!("tests/{suite}/{module}.rs"));
                fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("fn {function}(")))
            });
            assert!(there, "docs/reliability.md names {test} in {suites:?}");
            named += 1;
        }
        for suite in suites.iter().filter(|suite| !suite.is_empty()) {
            assert!(root().join("tests").join(suite).is_dir(), "there is no suite {suite}");
        }
    }
    assert!(named > 30, "the table of docs/reliability.md is read as a table of {named} tests");
}

/// The same of the guards: each is named with its file, and a row that is called guarded names at least one.
#[test]
fn every_guard_names_a_test_that_is_there() {
    let text = fs::read_to_string(root().join("docs/guards.md")).unwrap();
    let mut named = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && line.matches('|').count() == 6).skip(1) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let tests: Vec<&str> = cells[4].split('`').skip(1).step_by(2).collect();
        for test in &tests {
            let (file, function) = test.split_once("::").unwrap_or_else(|| panic!("{test} names no file and test"));
            let source = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(source.contains(&format!("fn {function}(")), "docs/guards.md names {test}");
            named += 1;
        }
        assert!(["guarded", "partly", "open", "state"].contains(&cells[2]), "row {}: {}", cells[0], cells[2]);
        assert!(cells[2] != "guarded" || !tests.is_empty(), "row {} is guarded by no test", cells[0]);
    }
    assert!(named > 40, "the tables of docs/guards.md are read as tables of {named} tests");
}
