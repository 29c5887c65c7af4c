//! Whose fault it is that pytest cannot collect a test file: of the file itself, or of the code that it imports. Read from
//! what pytest printed: each error has a section with a traceback, and the last place in it that is a file of ours is the
//! one that broke.

use crate::wire::ends_with_path;

/// How pytest begins the section of a file that it could not collect.
const HEADER: &str = "ERROR collecting ";

/// The sections of pytest's output about test files in `own` that broke by themselves; `None` when there is none. `all` are the
/// names of all files in the workspace.
pub(super) fn uncollected(output: &str, own: &[&str], all: &[&str]) -> Option<String> {
    let mut sections: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut open = false;
    for line in output.lines() {
        if let Some(path) = line.trim_matches(['_', ' ']).strip_prefix(HEADER).filter(|_| line.starts_with('_')) {
            sections.push((path.trim(), Vec::new()));
            open = true;
        } else if line.starts_with("___") || line.starts_with("===") {
            open = false;
        }
        if let Some((_, lines)) = sections.last_mut().filter(|_| open) {
            lines.push(line);
        }
    }
    let broken = |(path, lines): &&(&str, Vec<&str>)| {
        let mut places = lines.iter().filter_map(|line| place(line)).filter_map(|place| known(place, all));
        let last = places.next_back().or_else(|| known(path, all));
        known(path, own).is_some() && last.is_some_and(|last| own.contains(&last))
    };
    let found: Vec<String> = sections.iter().filter(broken).map(|(_, lines)| lines.join("\n")).collect();
    (!found.is_empty()).then(|| found.join("\n"))
}

/// The file that a line of a traceback names: `path.py:3: in f`, or `File "path.py", line 3`.
fn place(line: &str) -> Option<&str> {
    if let Some((_, rest)) = line.split_once("File \"") {
        return rest.split_once("\", line ").map(|(path, _)| path);
    }
    let (path, rest) = line.split_once(".py:")?;
    let number = rest.split(':').next().unwrap_or_default();
    let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (numbered && !path.contains(char::is_whitespace)).then(|| &line[..path.len() + ".py".len()])
}

/// The file of the workspace that is meant; a traceback may name it with the folder that it was run in.
fn known<'a>(path: &str, names: &[&'a str]) -> Option<&'a str> {
    names.iter().filter(|name| ends_with_path(path, name)).max_by_key(|name| name.len()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 3] = ["made.py", "test_made.py", "pkg/test_other.py"];

    fn section(path: &str, traceback: &str) -> String {
        format!(
            "==== ERRORS ====\n______ ERROR collecting {path} ______\n{traceback}\n==== short test summary info ====\nERROR {path}\n"
        )
    }

    #[test]
    fn the_last_place_of_ours_in_the_traceback_is_the_one_that_broke() {
        let importing = "/usr/lib/python3.11/importlib/__init__.py:126: in import_module\n    return x\ntest_made.py:1: in <module>\n    from made import nope\n";
        for (traceback, own) in [
            (format!("{importing}E   ImportError: cannot import name 'nope' from 'made' (/workspace/made.py)"), true),
            (format!("{importing}made.py:3: in <module>\n    x = y\nE   NameError: name 'y' is not defined"), false),
            (
                "E     File \"/workspace/test_made.py\", line 3\nE       def (\nE   SyntaxError: invalid syntax"
                    .to_owned(),
                true,
            ),
            (format!("{importing}E     File \"/workspace/made.py\", line 3\nE   SyntaxError: invalid syntax"), false),
            ("E   nothing to be seen".to_owned(), true),
        ] {
            let output = section("test_made.py", &traceback);
            let found = uncollected(&output, &["test_made.py"], &ALL);
            assert_eq!(found.is_some(), own, "{output}");
            assert!(
                found.is_none_or(|found| !found.contains("short test summary") && found.contains("ERROR collecting"))
            );
            assert_eq!(uncollected(&output, &["pkg/test_other.py"], &ALL), None, "not its file");
            assert_eq!(uncollected(&output, &[], &ALL), None);
        }
        assert_eq!(uncollected("ERROR collecting test_made.py", &["test_made.py"], &ALL), None, "words of a test");
    }
}
