//! What a text claims, as far as a few fixed words show it: that tests passed, that a file was written. A claim that is put
//! in other words is not seen, and one that is doubtful (a wish, a condition, an order) is none: what is found is meant to be
//! held against what is stored, and a false alarm costs more trust than a miss.

use crate::wire::one_line;

/// Claims of one text that are looked at.
const CLAIMS_MAX: usize = 20;
/// Bytes of a text that are looked at.
const TEXT_BYTES_MAX: usize = 64 * 1024;

const PASSED: [&str; 8] = ["pass", "passed", "passes", "passing", "succeed", "succeeded", "succeeds", "green"];
const WROTE: [&str; 8] = ["wrote", "written", "created", "added", "saved", "generated", "produced", "implemented"];
/// Words that make a claim something else: a wish, a condition, an order, its opposite.
const OTHERWISE: [&str; 30] = [
    "no", "not", "never", "none", "without", "cannot", "n't", "fail", "failed", "failing", "fails", "error", "errors",
    "should", "must", "would", "will", "may", "might", "could", "can", "if", "when", "until", "unless", "once", "run",
    "ensure", "expected", "to",
];

/// A claim that tests passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TestsPassed {
    /// The words.
    pub(super) quote: String,
    /// How many, when it says so.
    pub(super) count: Option<u32>,
}

/// The claims that tests passed.
pub(super) fn tests_passed(text: &str) -> Vec<TestsPassed> {
    let claim = |clause: &str| {
        let words = words(clause);
        let about_tests = |word: &String| word.starts_with("test") && !word.contains('.') || word == "pytest";
        let claimed = words.iter().any(about_tests) && plainly(&words, &PASSED);
        let counts = |two: &&[String]| about_tests(&two[1]) || PASSED.contains(&two[1].as_str());
        let number = words.windows(2).filter(counts).find_map(|two| two[0].parse().ok());
        claimed.then(|| TestsPassed { quote: quote(clause), count: number })
    };
    clauses(text).into_iter().filter_map(claim).take(CLAIMS_MAX).collect()
}

/// The Python files that a text says were written, each once.
pub(super) fn files_written(text: &str) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for clause in clauses(text) {
        let words = words(clause);
        if plainly(&words, &WROTE) {
            files.extend(words.into_iter().filter(|word| word.len() > ".py".len() && word.ends_with(".py")));
        }
    }
    files.sort();
    files.dedup();
    files.truncate(CLAIMS_MAX);
    files
}

fn plainly(words: &[String], claim: &[&str]) -> bool {
    let is = |list: &[&str], word: &str| list.contains(&word) || list.contains(&"n't") && word.ends_with("n't");
    words.iter().any(|word| is(claim, word)) && !words.iter().any(|word| is(&OTHERWISE, word))
}

/// The parts of the prose: code between fences is left out, a line is at least one part, and a dot inside a name ends none.
fn clauses(text: &str) -> Vec<&str> {
    let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    let mut fenced = false;
    let prose = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    prose.flat_map(|line| line.split(['!', '?', ';'])).flat_map(|part| part.split(". ")).collect()
}

fn words(clause: &str) -> Vec<String> {
    let edge = |c: char| !c.is_alphanumeric() && c != '_';
    let words = clause.split(|c: char| c.is_whitespace() || ",()[]/:".contains(c) && c != '/');
    let words = words.map(|word| word.trim_matches(edge).to_lowercase());
    words.filter(|word| !word.is_empty()).collect()
}

fn quote(clause: &str) -> String {
    const QUOTE_CHARS_MAX: usize = 100;
    one_line(clause, QUOTE_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_claims_are_seen_with_their_numbers() {
        for (text, count) in [
            ("All tests pass.", None),
            ("It is done. All 12 tests passed, and the README is there", Some(12)),
            ("- **Tests**: 3 passed", Some(3)),
            ("after that pytest passed in full", None),
            ("The test suite is green!", None),
        ] {
            let claims = tests_passed(text);
            assert_eq!((claims.len(), claims[0].count), (1, count), "{text}: {claims:?}");
        }
    }

    #[test]
    fn wishes_orders_and_opposites_are_no_claims() {
        for text in [
            "Run pytest; all tests should pass.",
            "1 test failed, 2 passed",
            "The tests do not pass",
            "The tests didn't pass",
            "If the tests pass, you are done",
            "The password is tested",
            "```\nall tests passed\n```",
            "Pass the test file to it",
            "test_made.py is there; the bill passed",
        ] {
            assert_eq!(tests_passed(text), [], "{text}");
        }
    }

    #[test]
    fn written_files_are_named_and_mentioned_ones_are_not() {
        assert_eq!(files_written("I wrote `todo/api.py` and created **test_api.py**."), ["test_api.py", "todo/api.py"]);
        assert_eq!(files_written("Added a.py (and a.py again)"), ["a.py"]);
        for text in ["See api.py", "Do not add api.py: it should be written by you", "created notes.json", "wrote .py"]
        {
            assert_eq!(files_written(text), Vec::<String>::new(), "{text}");
        }
    }
}
