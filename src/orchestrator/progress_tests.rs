//! When rework counts as progress, and when the run ends for want of it.

use super::*;

/// A coder and a qa, and for each attempt the version of the file and the tests that failed; then what comes next.
fn after_rework(attempts: &[(u32, &[&str])]) -> Step {
    let pair = plan(&[(Role::Coder, &[]), (Role::Qa, &[1])]);
    let mut facts = after(&pair, &[]);
    for (attempt, (version, failed)) in (1..).zip(attempts) {
        facts.absorb(reply(Role::Coder, &id(1), attempt, files(*version)));
        let tested = tests(&facts, (2, attempt), 3, failed);
        facts.absorb(reply(Role::Qa, &id(2), attempt, tested));
    }
    next(&facts, &Rules { rework_max: 9, ..rules() })
}

fn goes_on(attempts: &[(u32, &[&str])]) -> bool {
    match after_rework(attempts) {
        Step::Want(_) => true,
        Step::Fail(failure) => {
            assert_eq!(failure.kind, FailureKind::NoProgress, "{failure}");
            false
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_attempts_that_bring_nothing_new_end_the_run_and_are_shown() {
    assert!(goes_on(&[(1, &["a"]), (1, &["a"])]));
    let Step::Fail(failure) = after_rework(&[(1, &["a"]), (1, &["a"]), (1, &["a"])]) else { panic!("it goes on") };
    assert_eq!(failure.kind, FailureKind::NoProgress);
    for part in ["task t1", "no_progress_max is 2", "OARLOCK_NO_PROGRESS_MAX", "t1 #2: qa", "t1 #3: qa"] {
        assert!(failure.message.contains(part), "{failure}");
    }
}

#[test]
fn a_new_file_or_another_outcome_is_progress() {
    assert!(goes_on(&[(1, &["a"]), (2, &["a"]), (3, &["a"]), (4, &["a"]), (5, &["a"])]), "new files");
    assert!(goes_on(&[(1, &["a", "b"]), (1, &["a"]), (1, &["b"]), (1, &["c"])]), "other tests fail");
    assert!(goes_on(&[(1, &["a"]), (1, &["a"]), (2, &["a"]), (2, &["a"])]), "new after all");
    assert!(!goes_on(&[(1, &["a"]), (2, &["a"]), (2, &["a"]), (2, &["a"])]), "no more");
}

#[test]
fn to_and_fro_between_two_versions_is_no_progress() {
    assert!(goes_on(&[(1, &["a"]), (2, &["b"]), (1, &["a"])]));
    assert!(!goes_on(&[(1, &["a"]), (2, &["b"]), (1, &["a"]), (2, &["b"])]));
}

/// One qa for two coders: what it says is about both.
#[test]
fn a_coder_with_nothing_to_mend_is_not_idle_while_another_one_advances() {
    let team = plan(&[(Role::Coder, &[]), (Role::Coder, &[]), (Role::Qa, &[1, 2])]);
    let mut facts = after(&team, &[]);
    for attempt in 1..=REWORK_MAX {
        facts.absorb(reply(Role::Coder, &id(1), attempt, files(attempt)));
        facts.absorb(reply(Role::Coder, &id(2), attempt, files(100)));
        let tested = tests(&facts, (3, attempt), 3, &["a"]);
        facts.absorb(reply(Role::Qa, &id(3), attempt, tested));
    }
    assert_eq!(wants(&facts), named(&[("t1", 4), ("t2", 4)]));
}

/// Words count where there are no files, but not their numbers, times and space.
#[test]
fn a_text_is_new_when_its_words_are() {
    let pair = plan(&[(Role::Researcher, &[]), (Role::Reviewer, &[1])]);
    let step = |texts: [&str; 3]| {
        let mut facts = after(&pair, &[]);
        for (attempt, content) in (1..).zip(texts) {
            let said = Outcome::Completed { content: content.into(), artifacts: Vec::new(), report: None };
            facts.absorb(reply(Role::Researcher, &id(1), attempt, said));
            facts.absorb(reply(Role::Reviewer, &id(2), attempt, verdict(Verdict::Changes)));
        }
        next(&facts, &rules())
    };
    assert!(matches!(step(["it is red", "it is blue", "it is green"]), Step::Want(_)));
    let Step::Fail(failure) = step(["seen at 12:01", "seen at 12:02", "Seen  at 12:03"]) else { panic!("it goes on") };
    assert_eq!(failure.kind, FailureKind::NoProgress);
}

/// A new generation has its own count.
#[test]
fn what_was_tried_before_a_retry_does_not_count() {
    let pair = plan(&[(Role::Coder, &[]), (Role::Qa, &[1])]);
    let mut facts = after(&pair, &[]);
    for attempt in 1..=4 {
        facts.absorb(reply(Role::Coder, &id(1), attempt, files(1)));
        let tested = tests(&facts, (2, attempt), 3, &["a"]);
        facts.absorb(reply(Role::Qa, &id(2), attempt, tested));
    }
    facts.restart.first = [(id(1), 3), (id(2), 3)].into();
    assert_eq!(wants(&facts), named(&[("t1", 5)]));
    facts.absorb(reply(Role::Coder, &id(1), 5, files(1)));
    let tested = tests(&facts, (2, 5), 3, &["a"]);
    facts.absorb(reply(Role::Qa, &id(2), 5, tested));
    assert_eq!(failure(&facts).kind, FailureKind::NoProgress);
}

/// A test run that failed on the files of this outcome.
fn failed_on(outcome: &Outcome) -> Outcome {
    let Outcome::Completed { artifacts, .. } = outcome else { panic!("{outcome:?}") };
    done(Some(Report::Tests(test_run(false, code_hash(artifacts)))))
}

/// Attempts that failed by themselves, and checks that gave no evidence, raise the number of an attempt and are no rework.
#[test]
fn rework_is_what_was_sent_back_and_no_other_attempt() {
    let pair = plan(&[(Role::Coder, &[]), (Role::Qa, &[1])]);
    let stale = || done(Some(Report::Tests(test_run(true, Some(ContentHash::of(b"other files"))))));
    let mut facts = after(&pair, &[]);
    let mut attempt = 1;
    let answer = |facts: &mut Facts, number: usize, attempt: u32, outcome: Outcome| {
        assert_eq!(wants(facts), named(&[(&format!("t{number}"), attempt)]));
        let role = if number == 1 { Role::Coder } else { Role::Qa };
        facts.absorb(reply(role, &id(number), attempt, outcome));
    };
    for version in 1..=1 + REWORK_MAX {
        if version <= 3 {
            answer(&mut facts, 1, attempt, broken(true));
            attempt += 1;
        }
        answer(&mut facts, 1, attempt, files(version));
        if version <= 3 {
            answer(&mut facts, 2, attempt, broken(true));
            answer(&mut facts, 2, attempt + 1, stale());
            attempt += 2;
        }
        answer(&mut facts, 2, attempt, failed_on(&files(version)));
        attempt += 1;
    }
    let failure = failure(&facts);
    assert_eq!(failure.kind, FailureKind::ReworkExhausted, "{failure}");
    assert!(failure.message.contains("after 4 attempts (rework_max 3)"), "{failure}");
}

#[test]
fn a_check_that_failed_before_is_asked_for_evidence_as_often_as_any_other() {
    let pair = plan(&[(Role::Coder, &[]), (Role::Qa, &[1])]);
    let stale = || done(Some(Report::Tests(test_run(true, Some(ContentHash::of(b"other files"))))));
    let mut facts = after(&pair, &[(1, 1, files(1))]);
    for (attempt, outcome) in (1..).zip([broken(true), stale(), broken(true), stale(), broken(true), stale(), stale()])
    {
        assert_eq!(wants(&facts), named(&[("t2", attempt)]));
        facts.absorb(reply(Role::Qa, &id(2), attempt, outcome));
    }
    let failure = failure(&facts);
    assert_eq!(failure.kind, FailureKind::NoEvidence, "{failure}");
    assert!(failure.message.contains("4 times (retry attempts 3)"), "{failure}");
}
