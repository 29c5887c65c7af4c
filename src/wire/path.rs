//! Names of files, which come from models and strangers: one newtype, so that no unchecked name reaches a disk.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{acts, limits};

/// A relative path inside a workspace: `/` between names, nothing that leads out of it or means a device anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilePath(String);

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file name {name:?} is refused: {why}")]
pub struct BadPath {
    name: String,
    why: &'static str,
}

/// Names that mean devices on some system, whatever their extension.
const DEVICES: [&str; 8] = ["con", "prn", "aux", "nul", "clock$", "conin$", "conout$", "config$"];

impl FilePath {
    /// The path, with `/` between names.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last name.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// True for files that pytest collects tests from.
    pub fn is_test(&self) -> bool {
        let name = self.file_name();
        name.ends_with(".py") && (name.starts_with("test_") || name.ends_with("_test.py"))
    }

    /// True for Python source.
    pub fn is_python(&self) -> bool {
        self.0.ends_with(".py")
    }
}

fn fault(text: &str) -> Option<&'static str> {
    if text.is_empty() || text.chars().count() > limits::PATH_CHARS_MAX {
        return Some("it must have 1 to path_chars_max 200 characters");
    }
    if text.starts_with('/') {
        return Some("it must be relative");
    }
    if text.contains(['\\', ':', '<', '>', '"', '|', '?', '*']) || text.chars().any(acts) {
        return Some("it holds a character that means something else on some system, or cannot be seen");
    }
    let names: Vec<&str> = text.split('/').collect();
    if names.len() > limits::PATH_DEPTH_MAX {
        return Some("it has more folders than path_depth_max 16");
    }
    names.into_iter().find_map(name_fault)
}

fn name_fault(name: &str) -> Option<&'static str> {
    let stem = name.split('.').next().unwrap_or_default().trim().to_ascii_lowercase();
    let numbered = |prefix: &str| stem.strip_prefix(prefix).is_some_and(|rest| rest.chars().count() == 1);
    match name {
        "" => Some("it has an empty name between two slashes"),
        "." | ".." => Some("it must not hold . or .."),
        _ if name.eq_ignore_ascii_case(".git") => Some("it must not reach into .git"),
        _ if name.starts_with(['~', '-', ' ']) => Some("no name may begin with ~, - or a space"),
        _ if name.ends_with(['.', ' ']) => Some("no name may end with a dot or a space"),
        _ if DEVICES.contains(&stem.as_str()) || numbered("com") || numbered("lpt") => Some("it names a device"),
        _ => None,
    }
}

/// True when the last names of `path` are those of `end`: `src/made.py` ends with `made.py`, and `remade.py` does not.
pub fn ends_with_path(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|folder| folder.is_empty() || folder.ends_with('/'))
}

/// Names of a set that cannot stand side by side, one sentence each: the same name twice, one that differs from another only
/// in case, a file that is another's folder.
pub fn clashes<'a>(paths: impl Iterator<Item = &'a FilePath>) -> Vec<String> {
    let names: Vec<String> = paths.map(|path| path.as_str().to_lowercase()).collect();
    let sorted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let mut seen = BTreeSet::new();
    let mut faults = Vec::new();
    for name in &names {
        if !seen.insert(name) {
            faults.push(format!("{name} is there twice, perhaps in other letters"));
        }
        let folder = format!("{name}/");
        if sorted.range(folder.as_str()..).next().is_some_and(|other| other.starts_with(&folder)) {
            faults.push(format!("{name} is a file and a folder"));
        }
    }
    faults
}

impl FromStr for FilePath {
    type Err = BadPath;
    fn from_str(text: &str) -> Result<Self, BadPath> {
        match fault(text) {
            None => Ok(Self(text.to_owned())),
            Some(why) => Err(BadPath { name: text.chars().take(limits::PATH_CHARS_MAX).collect(), why }),
        }
    }
}

impl TryFrom<String> for FilePath {
    type Error = BadPath;
    fn try_from(text: String) -> Result<Self, BadPath> {
        text.parse()
    }
}

impl From<FilePath> for String {
    fn from(path: FilePath) -> String {
        path.0
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_pass() {
        for good in ["fib.py", "src/todo/app.py", ".gitignore", "a b/ü.txt", "tests/test_x.py", "communal.py"] {
            assert_eq!(good.parse::<FilePath>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn clashes_are_told_and_many_names_are_looked_at_quickly() {
        let paths = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<FilePath>>();
        assert_eq!(clashes(paths(&["a", "a-b", "ab/c", "b/a"]).iter()), Vec::<String>::new());
        let faults = clashes(paths(&["a", "B.py", "a-b", "a/c", "b.py"]).iter());
        assert_eq!(faults, ["a is a file and a folder", "b.py is there twice, perhaps in other letters"]);
        let many: Vec<FilePath> = (0..100_000).map(|number| format!("f{number}").parse().unwrap()).collect();
        let started = std::time::Instant::now();
        assert!(clashes(many.iter()).is_empty());
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }

    #[test]
    fn whatever_leads_out_is_refused() {
        let deep = "a/".repeat(limits::PATH_DEPTH_MAX) + "b";
        let long = "x".repeat(limits::PATH_CHARS_MAX + 1);
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "./a",
            "a/.",
            "C:\\x",
            "a\\b",
            "c:x",
            "NUL",
            "nul.txt",
            "com1.py",
            "LPT9",
            "a\0b",
            "a\nb",
            "a\u{202e}yp.exe",
            "a\u{200b}.py",
            ".git/hooks/pre-commit",
            "a/.git/x",
            ".GIT/x",
            "~/.ssh/id",
            "-rf",
            "x.",
            "x ",
            &deep,
            &long,
        ] {
            assert!(bad.parse::<FilePath>().is_err(), "{bad:?} was taken");
        }
    }
}
