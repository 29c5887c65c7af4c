//! Tests that are themselves put to the test: a known fault in a copy of the code, with real pytest in the real sandbox; tests
//! of qa's own that cannot even be collected; and claims that what is stored contradicts.

use oarlock::wire::{Canary, EventKind, FailureKind, Role, RunId, RunStatus};
use serde_json::{Value, json};

use crate::evidence::{files, reply, tests_of};
use crate::harness::{Ended, TestServer, ended as ran, oarlock};
use crate::story::{Ear, cast_with, ended, json_rule, plan_rule, result, script, submit, text_rule};

const CODE: &str = "def double(x):\n    return 2 * x\n";
const TESTS: &str = "from made import double\n\n\ndef test_double():\n    assert double(2) == 4\n";
/// It speaks of the function, and never calls it.
const WEAK: &str = "import made\n\n\ndef test_double():\n    assert callable(made.double)\n";
const TEAM: [Role; 5] = [Role::Orchestrator, Role::Planner, Role::Coder, Role::Qa, Role::Synthesizer];

fn at(mut rule: Value, attempt: u32, nth: u32) -> Value {
    rule["match"]["attempt"] = attempt.into();
    rule["match"]["nth"] = nth.into();
    rule
}

/// A run of a coder and a qa to its end, with these rules for both and these settings.
async fn tested(rules: &[Value], settings: &[(&str, &str)], answer: &str) -> (TestServer, RunId, Ear) {
    let server = TestServer::start().await;
    let plan = plan_rule(&[(Role::Coder, &[]), (Role::Qa, &[1])]);
    let story = script(&[vec![plan, text_rule(Role::Synthesizer, 0, answer)], rules.to_vec()].concat());
    let events = Ear::on(&server, "oarlock.event.>").await;
    let _fleet = cast_with(&server, &story, &TEAM, settings).await;
    let run = submit(&server, "make it").await;
    assert_eq!(ended(&server, &run).await.status, RunStatus::Completed, "{:?}", result(&server, &run).await);
    (server, run, events)
}

const ALWAYS: (&str, &str) = ("OARLOCK_CANARY_SHARE", "1");

fn doubts(events: &Ear) -> Vec<String> {
    events.events(EventKind::Doubted).into_iter().map(|(_, event)| event.text).collect()
}

async fn shown(server: &TestServer, run: &RunId) -> String {
    let mut command = oarlock(server);
    command.args(["show", run.as_str(), "--server", server.url()]);
    let Ended { out, .. } = ran(command, b"").await;
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn tests_that_miss_a_known_fault_pass_and_are_reported() {
    let coder = json_rule(Role::Coder, 0, &files(&[("made.py", CODE), ("test_made.py", WEAK)]));
    let (server, run, events) = tested(&[coder], &[ALWAYS], "It is made.").await;
    let fault = "made.py: double raises an error";
    let qa = reply(&server, &run, Role::Qa, 2, 1).await;
    let canary = Canary { fault: fault.into(), survived: true };
    assert_eq!((tests_of(&qa).passed, tests_of(&qa).canary.as_ref()), (true, Some(&canary)));
    let [doubt] = &doubts(&events)[..] else { panic!("{:?}", doubts(&events)) };
    assert!(doubt.contains(fault), "{doubt}");
    let whole = result(&server, &run).await;
    let line = format!("canary survived ({fault})");
    assert!(whole.evidence()[0].contains(&line) && whole.doubts[0].contains(fault), "{:?}", whole.evidence());
    let shown = shown(&server, &run).await;
    assert!(shown.contains(&line) && shown.contains("doubt: t2 #1 (qa): "), "{shown}");
    let code = server.store.artifacts.get_all(&run, whole.artifacts()).await.unwrap();
    assert!(
        code.values().all(|content| !String::from_utf8_lossy(content).contains("raise")),
        "only a copy was changed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tests_that_notice_a_known_fault_are_trusted() {
    let coder = json_rule(Role::Coder, 0, &files(&[("made.py", CODE), ("test_made.py", TESTS)]));
    let (server, run, events) = tested(&[coder], &[ALWAYS], "It is made.").await;
    let qa = reply(&server, &run, Role::Qa, 2, 1).await;
    assert_eq!(tests_of(&qa).canary.as_ref().map(|canary| canary.survived), Some(false));
    assert!(doubts(&events).is_empty() && result(&server, &run).await.doubts.is_empty());
    assert!(result(&server, &run).await.evidence()[0].ends_with("canary killed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_strict_a_missed_fault_sends_the_coder_back() {
    let coder = |attempt: u32, tests: &str| {
        at(json_rule(Role::Coder, 0, &files(&[("made.py", CODE), ("test_made.py", tests)])), attempt, 0)
    };
    let (server, run, _) =
        tested(&[coder(1, WEAK), coder(2, TESTS)], &[ALWAYS, ("OARLOCK_CANARY", "strict")], "It is made.").await;
    let first = reply(&server, &run, Role::Qa, 2, 1).await;
    let (passed, outcome) = (tests_of(&first).passed, tests_of(&first).outcome.as_str());
    assert_eq!((passed, outcome, tests_of(&first).failed), (false, "canary", 0));
    assert!(tests_of(&reply(&server, &run, Role::Qa, 2, 2).await).passed);
}

/// Tests of qa's own that miss a fault are its own to mend: within the attempt, then with its next one. The coder is not sent back.
#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_strict_qa_writes_its_own_weak_tests_anew_and_blames_nobody() {
    let of_qa = |tests: &str, attempt: u32, nth: u32| {
        let answer = json!({ "files": [{ "path": "test_made.py", "content": tests }] });
        at(json_rule(Role::Qa, 0, &answer), attempt, nth)
    };
    let coder = at(json_rule(Role::Coder, 0, &files(&[("made.py", CODE)])), 1, 0);
    let rules = [coder, of_qa(WEAK, 1, 0), of_qa(WEAK, 1, 1), of_qa(WEAK, 2, 0), of_qa(TESTS, 2, 1)];
    let (server, run, _) = tested(&rules, &[ALWAYS, ("OARLOCK_CANARY", "strict")], "It is made.").await;
    let first = reply(&server, &run, Role::Qa, 2, 1).await;
    let failure = first.failure().expect("no verdict");
    assert_eq!((failure.kind, first.usage.calls), (FailureKind::NoEvidence, 2), "{failure}");
    assert!(failure.message.contains("made.py: double raises an error"), "{failure}");
    let second = reply(&server, &run, Role::Qa, 2, 2).await;
    assert_eq!(
        (tests_of(&second).passed, tests_of(&second).canary.as_ref().map(|canary| canary.survived)),
        (true, Some(false))
    );
    assert_eq!(asked_coder(&server, &run).await, 1, "the coder was sent back in vain");
}

async fn asked_coder(server: &TestServer, run: &RunId) -> usize {
    let history = server.store.runs.history(run).await.unwrap();
    history.iter().filter(|entry| entry.message.to.to_string() == "coder").count()
}

/// The tests import what is not there. That is no fault of the code: the coder is not sent back.
#[tokio::test(flavor = "multi_thread")]
async fn qa_writes_its_own_broken_tests_anew_and_blames_nobody() {
    let broken =
        ["from made import triple\n\n\ndef test_it():\n    assert triple(1) == 3\n", "def test_it(:\n    pass\n"];
    let of_qa = |tests: &str, attempt: u32, nth: u32| {
        let answer = json!({ "files": [{ "path": "test_made.py", "content": tests }] });
        at(json_rule(Role::Qa, 0, &answer), attempt, nth)
    };
    let coder = at(json_rule(Role::Coder, 0, &files(&[("made.py", CODE)])), 1, 0);
    // Anew once within an attempt; when that is no better, the next attempt of qa.
    let rules = [coder, of_qa(broken[0], 1, 0), of_qa(broken[1], 1, 1), of_qa(broken[1], 2, 0), of_qa(TESTS, 2, 1)];
    let (server, run, _) = tested(&rules, &[], "It is made.").await;
    let first = reply(&server, &run, Role::Qa, 2, 1).await;
    let failure = first.failure().expect("no verdict");
    assert_eq!((failure.kind, first.usage.calls), (FailureKind::NoEvidence, 2), "{failure}");
    assert!(failure.message.contains("SyntaxError") || failure.message.contains("test_made.py"), "{failure}");
    let second = reply(&server, &run, Role::Qa, 2, 2).await;
    assert_eq!((tests_of(&second).ok, second.usage.calls, second.artifacts().len()), (1, 2, 1));
    assert_eq!(asked_coder(&server, &run).await, 1, "the coder was sent back in vain");
}

/// The last lines of the answer are the evidence, whatever the prose before them says.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_claims_more_than_was_shown_is_contradicted_below_it() {
    let server = TestServer::start().await;
    let claim = "I wrote made.py and created extra.py. All 12 tests passed.";
    let mut answer = files(&[("made.py", CODE), ("test_made.py", TESTS)]);
    answer["summary"] = json!("added made.py and test_nothing.py");
    let rules = [
        plan_rule(&[(Role::Coder, &[]), (Role::Qa, &[1])]),
        json_rule(Role::Coder, 0, &answer),
        text_rule(Role::Synthesizer, 0, claim),
    ];
    let _fleet = cast_with(&server, &script(&rules), &TEAM, &[]).await;
    let text = server.request("oarlock.run", "make it").await.text();
    let lines: Vec<&str> = text.lines().collect();
    let sandbox = lines.get(2).and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    let verdict = format!("pytest passed: 1 of 1 tests ok, in sandbox {sandbox}");
    let expected = [
        claim,
        "",
        verdict.as_str(),
        "doubt: t1 #1 (coder): it says that test_nothing.py was written, and no such file is stored",
        "doubt: answer #1 (synthesizer): it says \"All 12 tests passed.\", and 1 tests were run, 1 ok",
        "doubt: answer #1 (synthesizer): it says that extra.py was written, and no such file is stored",
    ];
    assert_eq!(lines, expected, "{text}");
}
