//! Screens and listings as files: what a person sees is compared with `tests/golden/cli/<name>.txt`, with times, token counts
//! and ids made alike. `OARLOCK_UPDATE_GOLDEN=1` writes the files anew.

use std::path::PathBuf;

/// Compares a text with its file.
pub fn assert_snapshot(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cli").join(format!("{name}.txt"));
    if std::env::var_os("OARLOCK_UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text, golden, "{name} looks other than {}:\n{text}", path.display());
}

/// A listing with everything made alike that is another one each time: the run's id, times, tokens, the sandbox.
pub fn alike(text: &str, run: &str) -> String {
    let text = text.replace(run, &"R".repeat(run.len()));
    let lines: Vec<String> = text.lines().map(line_alike).collect();
    lines.join("\n") + "\n"
}

fn line_alike(line: &str) -> String {
    let line = line.replace("sandbox landlock", "sandbox bwrap");
    let words: Vec<&str> = line.split(' ').collect();
    let mut alike: Vec<String> = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let next = words.get(index + 1).copied().unwrap_or_default();
        let (body, comma) = word.strip_suffix(',').map_or((*word, ""), |body| (body, ","));
        if is_time(body) {
            // Right-aligned columns keep their width.
            for _ in body.len()..4 {
                if alike.last().is_some_and(String::is_empty) {
                    alike.pop();
                }
            }
            alike.push(format!("0.0s{comma}"));
        } else if next.starts_with("tok") && !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()) {
            alike.push("0".repeat(word.len()));
        } else {
            alike.push((*word).to_owned());
        }
    }
    alike.join(" ")
}

fn is_time(word: &str) -> bool {
    let number = word.strip_suffix('s').filter(|number| !number.is_empty());
    number.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'm'))
}
