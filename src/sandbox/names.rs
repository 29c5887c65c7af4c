//! Finds the tests that the sources promise, by reading and not by running them. A run that shows fewer was tampered
//! with, or did not get to its end.
//!
//! The scan is simple on purpose: top-level functions and methods of top-level test classes, as pytest collects them by
//! default. What it does not see it does not demand.

use std::collections::BTreeMap;

/// Directories that pytest does not enter by default (besides hidden ones).
const SKIPPED_DIRECTORIES: [&str; 6] = ["_darcs", "build", "CVS", "dist", "node_modules", "venv"];

/// A test as JUnit names it: class (module path and class) and function.
pub(super) type TestName = (String, String);

/// Every test promised by these files, in order.
pub(super) fn promised(files: &BTreeMap<String, Vec<u8>>) -> Vec<TestName> {
    let mut names = Vec::new();
    for (path, bytes) in files.iter().filter(|(path, _)| is_test_file(path)) {
        let module = path.trim_start_matches("./").trim_end_matches(".py").replace('/', ".");
        scan(&without_strings(&String::from_utf8_lossy(bytes)), &module, &mut names);
    }
    names
}

pub(super) fn is_test_file(path: &str) -> bool {
    let mut parts = path.split('/').rev();
    let name = parts.next().unwrap_or_default();
    let skipped = |part: &str| {
        part.len() > 1 && part.starts_with('.') || part.ends_with(".egg") || SKIPPED_DIRECTORIES.contains(&part)
    };
    name.ends_with(".py") && (name.starts_with("test_") || name.ends_with("_test.py")) && !parts.any(skipped)
}

/// A test class that is being read.
struct Class {
    name: String,
    /// Indentation of its body, known after its first line.
    indent: Option<usize>,
    tests: Vec<String>,
    collected: bool,
}

fn scan(source: &str, module: &str, names: &mut Vec<TestName>) {
    let mut class: Option<Class> = None;
    let mut decorators = String::new();
    for line in source.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        if indent == 0 && !trimmed.starts_with(')') {
            close(class.take(), module, names);
        }
        let function = function_name(trimmed).filter(|name| name.starts_with("test"));
        let plain = !decorators.contains("fixture");
        if let Some(name) = function {
            match &mut class {
                Some(open) => {
                    let first = *open.indent.get_or_insert(indent) == indent;
                    open.tests.extend((first && plain).then(|| name.to_owned()));
                }
                None => names.extend((indent == 0 && plain).then(|| (module.to_owned(), name.to_owned()))),
            }
        } else if let Some(open) = &mut class {
            let first = *open.indent.get_or_insert(indent) == indent;
            open.collected &= !(first && (trimmed.starts_with("__test__") || trimmed.starts_with("def __init__")));
        } else if indent == 0 {
            class = test_class(trimmed);
        }
        keep_decorators(&mut decorators, trimmed);
    }
    close(class, module, names);
}

/// Decorators may span lines: all text from an `@` to the next definition belongs to them.
fn keep_decorators(decorators: &mut String, line: &str) {
    if function_name(line).is_some() || line.starts_with("class ") {
        decorators.clear();
    } else if line.starts_with('@') || !decorators.is_empty() {
        decorators.push_str(line);
    }
}

fn close(class: Option<Class>, module: &str, names: &mut Vec<TestName>) {
    if let Some(class) = class.filter(|class| class.collected) {
        let full = format!("{module}.{}", class.name);
        names.extend(class.tests.into_iter().map(|test| (full.clone(), test)));
    }
}

pub(super) fn function_name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("async ").map_or(line, str::trim_start).strip_prefix("def ")?.trim_start();
    Some(&rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_')?])
}

fn test_class(line: &str) -> Option<Class> {
    let rest = line.strip_prefix("class ")?.trim_start();
    let name = &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_')?];
    let is_test = name.starts_with("Test") || rest.contains("TestCase");
    is_test.then(|| Class { name: name.to_owned(), indent: None, tests: Vec::new(), collected: true })
}

/// The source with the inside of strings and comments blanked, lines kept.
pub(super) fn without_strings(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    let mut quote: Option<&str> = None;
    while let Some(c) = rest.chars().next() {
        let mut width = c.len_utf8();
        match quote {
            Some(_) if c == '\\' => {
                width += rest[width..].chars().next().map_or(0, char::len_utf8);
                result.extend(rest[..width].chars().filter(|&c| c == '\n'));
            }
            Some(open) if rest.starts_with(open) || (open.len() == 1 && c == '\n') => {
                width = if c == '\n' { 1 } else { open.len() };
                result.push(if c == '\n' { '\n' } else { '_' });
                quote = None;
            }
            Some(_) => result.extend((c == '\n').then_some('\n')),
            None if c == '#' => width = rest.find('\n').unwrap_or(rest.len()),
            None => match ["\"\"\"", "'''", "\"", "'"].into_iter().find(|open| rest.starts_with(open)) {
                Some(open) => {
                    width = open.len();
                    quote = Some(open);
                    result.push('_');
                }
                None => result.push(c),
            },
        }
        rest = &rest[width..];
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, source: &str) -> Vec<String> {
        let files = BTreeMap::from([(path.to_owned(), source.as_bytes().to_vec())]);
        promised(&files).into_iter().map(|(class, name)| format!("{class}::{name}")).collect()
    }

    #[test]
    fn functions_and_methods_are_found() {
        let source = r#"
import pytest

@pytest.mark.parametrize('a', [
    1,
])
def test_a(a):
    def test_inner():
        pass

async def test_b():
    pass

class TestC:
    """doc"""
    x = 1

    def test_d(self):
        pass

    def helper(self): pass

class Other:
    def test_e(self): pass

class Suite(unittest.TestCase):
    def test_f(self): pass
"#;
        assert_eq!(
            found("tests/test_x.py", source),
            [
                "tests.test_x::test_a",
                "tests.test_x::test_b",
                "tests.test_x.TestC::test_d",
                "tests.test_x.Suite::test_f"
            ]
        );
    }

    #[test]
    fn what_pytest_does_not_collect_is_not_demanded() {
        let source = r#"
@pytest.fixture(
  scope='module')
def test_client():
    pass
# def test_no():
S = '''
def test_text():
    pass
'''
if x:
    def test_conditional(): pass
class TestInit:
    def __init__(self): pass
    def test_never(self): pass
class TestBase:
    __test__ = False
    def test_base(self): pass
"#;
        assert_eq!(found("test_x.py", source), Vec::<String>::new());
        assert_eq!(found("helper.py", "def test_a(): pass\n"), Vec::<String>::new());
        assert_eq!(found("build/test_x.py", "def test_a(): pass\n"), Vec::<String>::new());
    }

    #[test]
    fn quotes_in_comments_and_escapes_do_not_confuse() {
        let source = "# it's\nA = 'it\\'s \"\"\"'\nB = \"#\"\ndef test_a(): pass\n";
        assert_eq!(found("test_q.py", source), ["test_q::test_a"]);
    }
}
