//! Files in a model's answer: named by strangers, so every name is parsed and every size is bounded before use.

use serde::Deserialize;

use crate::store::FileSet;
use crate::wire::{FilePath, clashes, limits};

/// A file as a model writes it.
#[derive(Deserialize)]
pub(super) struct WrittenFile {
    path: String,
    content: String,
}

/// The files of an answer, or everything that is wrong with them, in words that a model can mend them by.
pub(super) fn checked(written: &[WrittenFile]) -> Result<FileSet, Vec<String>> {
    let mut files = FileSet::new();
    let mut faults = Vec::new();
    for file in written {
        match file.path.parse::<FilePath>() {
            Err(bad) => faults.push(bad.to_string()),
            Ok(path) if file.content.len() > limits::FILE_BYTES_MAX => {
                faults.push(format!("{path} has more than file_bytes_max {} bytes", limits::FILE_BYTES_MAX));
            }
            Ok(path) => {
                if files.insert(path.clone(), file.content.clone().into_bytes()).is_some() {
                    faults.push(format!("{path} is given twice"));
                }
            }
        }
    }
    faults.extend(clashes(files.keys()));
    if faults.is_empty() { Ok(files) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(names: &[&str]) -> Vec<WrittenFile> {
        names.iter().map(|path| WrittenFile { path: (*path).into(), content: "x".into() }).collect()
    }

    #[test]
    fn good_names_are_taken_and_bad_ones_told() {
        assert_eq!(checked(&written(&["a.py", "pkg/b.py"])).unwrap().len(), 2);
        for (names, says) in [
            (&["../a.py"][..], "must not hold"),
            (&["/etc/passwd"], "must be relative"),
            (&["a.py", "a.py"], "twice"),
            (&["a.py", "A.py"], "other letters"),
            (&["a", "a/b.py"], "a file and a folder"),
        ] {
            let faults = checked(&written(names)).unwrap_err().join("; ");
            assert!(faults.contains(says), "{says}: {faults}");
        }
    }
}
