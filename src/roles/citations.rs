//! Citations: what a finding says it is from must be there. A number, a path with a line, an earlier result are looked up;
//! what names nothing, or a file without a line of it, is told to the model once, and marked in the reply when it stays.

use super::briefing::Called;
use crate::store::FileSet;
use crate::tools::Grant;
use crate::wire::{FilePath, TaskId};

/// Names of files that a complaint lists.
const NAMES_MAX: usize = 5;
/// Characters of a citation that are shown.
const SHOWN_CHARS_MAX: usize = 80;

/// What can be cited in one task.
pub(super) struct Citable<'a> {
    /// Addresses of the sources, in the order of their numbers.
    pub(super) sources: Vec<&'a str>,
    /// Files in sight.
    pub(super) files: &'a FileSet,
    /// Earlier results.
    pub(super) results: Vec<&'a TaskId>,
    /// Tools that the role may call.
    pub(super) tools: &'a [Grant],
    /// Those that were called, and answered.
    pub(super) called: &'a Called,
}

impl Citable<'_> {
    /// The citation in its usual form.
    ///
    /// # Errors
    /// What is wrong with it, and what could be cited, in words that a model can mend it by.
    pub(super) fn check(&self, citation: &str) -> Result<String, String> {
        if let Some(usual) = self.one(citation.trim()) {
            return Ok(usual);
        }
        let parts: Option<Vec<String>> =
            citation.split([',', ';']).flat_map(|part| part.split(" and ")).map(|part| self.one(part.trim())).collect();
        parts.map(|parts| parts.join(", ")).ok_or_else(|| self.complaint(citation))
    }

    fn one(&self, text: &str) -> Option<String> {
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            "" => None,
            "the goal" | "goal" => Some("the goal".into()),
            "the task" | "task" => Some("the task".into()),
            "general knowledge" | "common knowledge" => Some("general knowledge".into()),
            _ => self
                .number(&lower)
                .or_else(|| self.result(&lower))
                .or_else(|| self.place(text))
                .or_else(|| self.tool(text)),
        }
    }

    /// `[2]`, `2`, `source 2`, `[1][2]`, or the address of a source.
    fn number(&self, text: &str) -> Option<String> {
        if let Some(at) = self.sources.iter().position(|address| address.eq_ignore_ascii_case(text)) {
            return Some(format!("{}", at + 1));
        }
        let text = text.trim_start_matches("source").trim();
        if !text.chars().all(|c| c.is_ascii_digit() || "[] ".contains(c)) {
            return None;
        }
        let known = |number: &usize| (1..=self.sources.len()).contains(number);
        let numbers = text.split(['[', ']', ' ']).filter(|part| !part.is_empty());
        let numbers: Option<Vec<usize>> = numbers.map(|part| part.parse().ok().filter(known)).collect();
        let numbers: Vec<String> = numbers?.iter().map(usize::to_string).collect();
        (!numbers.is_empty()).then(|| numbers.join(", "))
    }

    fn result(&self, text: &str) -> Option<String> {
        let id = text.rsplit(' ').next()?.trim_matches(['[', ']']);
        let before = text.strip_suffix(id).unwrap_or_default().trim();
        let named = ["", "task", "result", "the result of", "result of", "result of task"].contains(&before);
        self.results.iter().find(|task| named && task.as_str() == id).map(ToString::to_string)
    }

    /// `path:12` or `path:12-20`; a file that has no lines, by its path alone.
    fn place(&self, text: &str) -> Option<String> {
        let text = text.trim_matches(['[', ']', '`']);
        if self.lines(text) == Some(0) {
            return Some(text.to_owned());
        }
        let (path, lines) = text.rsplit_once(':')?;
        let count = self.lines(path)?;
        let (from, to) = lines.split_once('-').unwrap_or((lines, lines));
        let number = |text: &str| text.trim().trim_start_matches(['L', 'l']).parse::<usize>().ok();
        let (from, to) = (number(from)?, number(to)?);
        (1 <= from && from <= to && to <= count).then(|| text.to_owned())
    }

    /// `server/tool`, with or without the word tool before it, of a tool that was really called.
    fn tool(&self, text: &str) -> Option<String> {
        let name = tool_name(text);
        self.called.holds(name).then(|| name.to_owned())
    }

    /// The tool that a citation names, which the role may call and did not.
    fn uncalled<'t>(&self, citation: &'t str) -> Option<&'t str> {
        let name = tool_name(citation.trim());
        self.tools.iter().any(|grant| grant.covers(name)).then_some(name).filter(|name| !self.called.holds(name))
    }

    /// Lines of a file in sight; a file that is no text has none.
    fn lines(&self, path: &str) -> Option<usize> {
        let path = path.parse::<FilePath>().ok()?;
        self.files.get(&path).map(|content| std::str::from_utf8(content).map_or(0, |text| text.lines().count()))
    }

    /// The lines of the file that a citation names by its path alone.
    fn lineless(&self, citation: &str) -> Option<usize> {
        self.lines(citation.trim().trim_matches(['[', ']', '`'])).filter(|lines| *lines > 0)
    }

    /// How a citation that cannot stand is shown.
    pub(super) fn mark(&self, citation: &str) -> String {
        let shown: String = citation.chars().take(SHOWN_CHARS_MAX).collect();
        if self.uncalled(citation).is_some() {
            return format!("unsupported: it cites {shown:?}, a tool that was not called");
        }
        match self.lineless(citation) {
            Some(_) => format!("unsupported: it cites {shown:?} without a line"),
            None => format!("unsupported: it cites {shown:?}, which is no source of this task"),
        }
    }

    fn complaint(&self, citation: &str) -> String {
        let shown: String = citation.chars().take(SHOWN_CHARS_MAX).collect();
        if let Some(lines) = self.lineless(citation) {
            return format!("the source {shown:?} names no line; cite the line that says it, path:1 to path:{lines}");
        }
        if self.uncalled(citation).is_some() {
            return format!(
                "the source {shown:?} is a tool that was not called for this task; call it, or cite what the finding is really from"
            );
        }
        let mut may = Vec::new();
        match self.sources.len() {
            0 => {}
            1 => may.push("[1]".to_owned()),
            count => may.push(format!("[1] to [{count}]")),
        }
        if !self.files.is_empty() {
            let names: Vec<&str> = self.files.keys().map(FilePath::as_str).take(NAMES_MAX).collect();
            may.push(format!("path:line with a line that is there ({})", names.join(", ")));
        }
        if !self.tools.is_empty() {
            may.push("server/tool for what a tool said that was called".to_owned());
        }
        may.extend(["\"the goal\"".to_owned(), "\"general knowledge\"".to_owned()]);
        format!("the source {shown:?} does not exist; cite {}", may.join(", "))
    }
}

/// What a citation of a tool names.
fn tool_name(text: &str) -> &str {
    text.trim_start_matches("tool").trim().trim_matches(['[', ']', '`'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_citation_names_something_that_is_there() {
        let files = FileSet::from([
            ("src/a.py".parse().unwrap(), b"one\ntwo\nthree".to_vec()),
            ("src/b.txt".parse().unwrap(), b"one\r\ntwo\r\n".to_vec()),
            ("empty.txt".parse().unwrap(), Vec::new()),
            ("picture.png".parse().unwrap(), b"\xff\n\n".to_vec()),
            ("odd, name.txt".parse().unwrap(), b"x".to_vec()),
        ]);
        let task: TaskId = "t1".parse().unwrap();
        let citable = Citable {
            sources: vec!["http://a.example/", "http://b.example/x"],
            files: &files,
            results: vec![&task],
            tools: &[],
            called: &Called::default(),
        };
        for (citation, usual) in [
            ("[1]", "1"),
            ("2", "2"),
            ("[1][2]", "1, 2"),
            ("[1], [2]", "1, 2"),
            ("source 2", "2"),
            ("http://b.example/x", "2"),
            ("The goal", "the goal"),
            ("task", "the task"),
            ("General knowledge", "general knowledge"),
            ("src/a.py:3", "src/a.py:3"),
            ("src/b.txt:2", "src/b.txt:2"),
            ("empty.txt", "empty.txt"),
            ("[picture.png]", "picture.png"),
            ("[src/a.py:1-2]", "src/a.py:1-2"),
            ("odd, name.txt:1", "odd, name.txt:1"),
            ("[2]; src/a.py:2 and the goal", "2, src/a.py:2, the goal"),
            ("t1", "t1"),
            ("the result of t1", "t1"),
        ] {
            assert_eq!(citable.check(citation).as_deref(), Ok(usual), "{citation}");
        }
        for citation in [
            "[3]",
            "[0]",
            "99999999999999999999",
            "[]",
            "src/a.py:4",
            "src/a.py:0",
            "src/a.py:2-1",
            "src/b.txt:3",
            "empty.txt:1",
            "picture.png:1",
            "src/b.py",
            "t2",
            "http://c.example/",
            "Wikipedia",
            "",
            "[1], Wikipedia",
            "../etc/passwd:1",
        ] {
            let why = citable.check(citation).unwrap_err();
            assert!(why.contains("[1] to [2]") && why.contains("src/a.py"), "{citation}: {why}");
        }
        for citation in ["src/b.txt", "[src/b.txt]", " `src/b.txt`"] {
            let why = citable.check(citation).unwrap_err();
            assert!(why.contains("names no line; cite the line that says it, path:1 to path:2"), "{citation}: {why}");
            assert!(citable.mark(citation).ends_with("without a line"), "{}", citable.mark(citation));
        }
        assert!(citable.check("[1], src/a.py").is_err());
        assert_eq!(citable.mark("[9]"), "unsupported: it cites \"[9]\", which is no source of this task");
    }

    #[test]
    fn a_tool_is_a_source_only_when_it_was_called() {
        let (none, called, tools) = (FileSet::new(), Called::default(), ["web/*".parse().unwrap()]);
        called.answered("web/search".to_owned());
        let citable =
            Citable { sources: Vec::new(), files: &none, results: Vec::new(), tools: &tools, called: &called };
        for citation in ["web/search", "tool `web/search`", "[web/search]"] {
            assert_eq!(citable.check(citation).as_deref(), Ok("web/search"), "{citation}");
        }
        for citation in ["web/fetch", "tool `web/fetch`"] {
            let why = citable.check(citation).unwrap_err();
            assert!(why.contains("was not called for this task"), "{citation}: {why}");
            assert!(citable.mark(citation).ends_with("a tool that was not called"), "{}", citable.mark(citation));
        }
    }

    #[test]
    fn a_task_without_sources_has_none_to_cite() {
        let none = FileSet::new();
        let nothing =
            Citable { sources: Vec::new(), files: &none, results: Vec::new(), tools: &[], called: &Called::default() };
        assert!(nothing.check("[1]").is_err() && nothing.check("1").is_err() && nothing.check("all/get-sum").is_err());
    }
}
