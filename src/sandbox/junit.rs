//! Reads pytest's JUnit report. The report was written by a process that ran untrusted code: it is bounded, and its
//! totals are counted from the test cases, not believed from the attributes.

use std::collections::BTreeSet;

use super::result::FailedTest;
use super::text;

/// Largest report that is looked at; enough for some 10 000 tests.
pub(super) const REPORT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// XML nodes in a report.
const NODES_MAX: u32 = 500_000;

/// Failures that are named in a result.
const FAILED_NAMES_MAX: usize = 50;

/// Characters of one failure's message.
const MESSAGE_CHARS_MAX: usize = 600;

/// Characters of one test's name.
const NAME_CHARS_MAX: usize = 200;

/// What a report says.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub tests: u32,
    pub failures: u32,
    pub errors: u32,
    pub skipped: u32,
    pub failed: Vec<FailedTest>,
    /// Every test as `class` and `function`, parameters removed.
    pub names: BTreeSet<(String, String)>,
}

impl Report {
    /// Reads a report; the error says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Report, String> {
        let xml = std::str::from_utf8(bytes).map_err(|_| "the report is not UTF-8".to_owned())?;
        let options = roxmltree::ParsingOptions { nodes_limit: NODES_MAX, ..Default::default() };
        let document = roxmltree::Document::parse_with_options(xml, options)
            .map_err(|error| format!("the report is not well-formed: {error}"))?;
        let mut report = Report::default();
        for case in document.descendants().filter(|node| node.has_tag_name("testcase")) {
            report.add(case);
        }
        Ok(report)
    }

    /// Tests that neither failed nor were skipped.
    pub fn passed(&self) -> u32 {
        self.tests.saturating_sub(self.failures).saturating_sub(self.errors).saturating_sub(self.skipped)
    }

    fn add(&mut self, case: roxmltree::Node<'_, '_>) {
        let class = case.attribute("classname").unwrap_or_default();
        let name = case.attribute("name").unwrap_or_default();
        let function = name.split('[').next().unwrap_or_default();
        self.tests = self.tests.saturating_add(1);
        self.names.insert((class.to_owned(), function.to_owned()));
        let child = |tag: &str| case.children().find(|child| child.has_tag_name(tag));
        let complaint = if let Some(failure) = child("failure") {
            self.failures = self.failures.saturating_add(1);
            failure
        } else if let Some(error) = child("error") {
            self.errors = self.errors.saturating_add(1);
            error
        } else {
            self.skipped = self.skipped.saturating_add(u32::from(child("skipped").is_some()));
            return;
        };
        if self.failed.len() < FAILED_NAMES_MAX {
            let full = if class.is_empty() { name.to_owned() } else { format!("{class}::{name}") };
            let message = [complaint.attribute("message").unwrap_or_default(), complaint.text().unwrap_or_default()];
            self.failed.push(FailedTest {
                name: text::shortened(&text::neutralised(full.as_bytes()), NAME_CHARS_MAX),
                message: text::shortened(&text::neutralised(message.join("\n").trim().as_bytes()), MESSAGE_CHARS_MAX),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"<?xml version="1.0"?><testsuites><testsuite tests="99" failures="0">
        <testcase classname="tests.test_a" name="test_one[1-2]"/>
        <testcase classname="tests.test_a.TestB" name="test_two">
        <failure message="assert 1 == 2">trace</failure></testcase>
        <testcase classname="test_c" name="test_three"><skipped/></testcase>
        <testcase classname="" name="test_d"><error message="collection failure">SyntaxError</error></testcase>
        </testsuite></testsuites>"#;

    #[test]
    fn counts_come_from_the_cases() {
        let report = Report::parse(SAMPLE.as_bytes()).unwrap();
        assert_eq!((report.tests, report.passed(), report.failures, report.errors, report.skipped), (4, 1, 1, 1, 1));
        assert!(report.names.contains(&("tests.test_a".to_owned(), "test_one".to_owned())));
        assert_eq!(report.failed[0].name, "tests.test_a.TestB::test_two");
        assert!(report.failed[0].message.starts_with("assert 1 == 2"));
    }

    #[test]
    fn entity_bombs_and_nonsense_are_refused() {
        assert!(Report::parse(b"<!DOCTYPE a [<!ENTITY b \"bb\">]><a>&b;</a>").is_err());
        assert!(Report::parse(b"").is_err());
        assert!(Report::parse(&[0xff]).is_err());
    }
}
