//! What counts as evidence, as a table: a coder, its qa, a reviewer; and reports that say one thing or another.

use super::*;
use crate::wire::{Artifact, FilePath, TestReport, code_hash};

const TRIO: &[(Role, &[usize])] = &[(Role::Coder, &[]), (Role::Qa, &[1]), (Role::Reviewer, &[1])];

fn file(content: &str, role: Role) -> Artifact {
    let path: FilePath = "made.py".parse().unwrap();
    Artifact { path, sha256: ContentHash::of(content.as_bytes()), bytes: content.len() as u64, role }
}

fn code(content: &str) -> Option<ContentHash> {
    code_hash([&file(content, Role::Coder)])
}

fn reported(report: Option<Report>) -> Outcome {
    done(report)
}

fn passed(content: &str) -> Outcome {
    reported(Some(Report::Tests(test_run(true, code(content)))))
}

fn reviewed(content: &str) -> Outcome {
    reported(Some(Report::Review(Review { verdict: Verdict::Approve, findings: Vec::new(), judged: code(content) })))
}

fn wrote(content: &str) -> Outcome {
    Outcome::Completed { content: "done".into(), artifacts: vec![file(content, Role::Coder)], report: None }
}

/// The trio after its coder wrote `new` and the checks said this.
fn judged(qa: Outcome, review: Outcome) -> Facts {
    after(&plan(TRIO), &[(1, 1, wrote("new")), (2, 1, qa), (3, 1, review)])
}

#[test]
fn a_pass_about_the_files_in_force_counts_and_no_other_does() {
    assert_eq!(wants(&judged(passed("new"), reviewed("new"))), named(&[("answer", 1)]));
    assert_eq!(wants(&judged(passed("old"), reviewed("new"))), named(&[("t2", 2)]), "qa judged other bytes");
    assert_eq!(wants(&judged(passed("new"), reviewed("old"))), named(&[("t3", 2)]), "the reviewer did");
    let numbers = |change: fn(&mut TestReport)| {
        let mut report = test_run(true, code("new"));
        change(&mut report);
        reported(Some(Report::Tests(report)))
    };
    let void = [
        reported(None),
        reviewed("new"),
        numbers(|report| report.judged = None),
        numbers(|report| report.failed = 1),
        numbers(|report| report.errors = 1),
        numbers(|report| report.ok = 0),
        numbers(|report| report.exit = Some(1)),
    ];
    for report in void {
        assert_eq!(wants(&judged(report.clone(), reviewed("new"))), named(&[("t2", 2)]), "{report:?}");
    }
}

#[test]
fn nobody_judges_his_own_work() {
    let mut facts = after(&plan(TRIO), &[(3, 1, reviewed("new"))]);
    for (role, number, outcome) in [(Role::Coder, 1, wrote("new")), (Role::Qa, 2, passed("new"))] {
        let worker = "all-in-one@host:7".to_owned();
        facts.absorb(Reply { worker, ..reply(role, &id(number), 1, outcome) });
    }
    assert_eq!(wants(&facts), named(&[("t2", 2)]));
    facts.absorb(Reply { worker: "qa@host:8".into(), ..reply(Role::Qa, &id(2), 2, passed("new")) });
    assert_eq!(wants(&facts), named(&[("answer", 2)]));
}

#[test]
fn a_verdict_without_evidence_sends_nobody_back_either() {
    let no = Report::Tests(test_run(false, code("old")));
    assert_eq!(wants(&judged(reported(Some(no)), reviewed("new"))), named(&[("t2", 2)]), "not the coder");
}

#[test]
fn a_check_that_never_gives_evidence_ends_the_run_with_a_name() {
    let mut facts = judged(passed("old"), reviewed("new"));
    for attempt in 2..=4 {
        assert_eq!(wants(&facts), named(&[("t2", attempt)]));
        facts.absorb(reply(Role::Qa, &id(2), attempt, passed("old")));
    }
    let failure = failure(&facts);
    assert_eq!(failure.kind, FailureKind::NoEvidence);
    for part in ["4 times (retry attempts 3)", "task t2", "about other files"] {
        assert!(failure.message.contains(part), "{failure}");
    }
}

#[test]
fn without_code_there_is_nothing_to_tie_a_verdict_to() {
    let team = plan(&[(Role::Researcher, &[]), (Role::Reviewer, &[1])]);
    let facts = after(&team, &[(1, 1, done(None)), (2, 1, verdict(Verdict::Approve))]);
    assert_eq!(wants(&facts), named(&[("answer", 1)]));
}

/// The hash is the one that `sha256sum` and `sort` give, so that any language can make it.
#[test]
fn the_code_s_identity_is_that_of_its_files_whatever_their_order() {
    let other = Artifact { path: "a/b.py".parse().unwrap(), ..file("y", Role::Coder) };
    let tests = Artifact { path: "test_made.py".parse().unwrap(), ..file("z", Role::Qa) };
    let one = [file("x", Role::Coder), other.clone(), tests.clone()];
    let lines = format!("{}  a/b.py\n{}  made.py\n", ContentHash::of(b"y"), ContentHash::of(b"x"));
    assert_eq!(code_hash(&one), Some(ContentHash::of(lines.as_bytes())));
    assert_eq!(code_hash(&one), code_hash([&other, &one[0]]));
    assert_eq!(code_hash([&tests]), None);
}
