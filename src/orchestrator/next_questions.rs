//! Questions as a table, and whole runs in which anybody may ask anybody.

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::properties::{World, orders, simulate, worlds};
use super::*;
use crate::orchestrator::dispatch::Dispatch;
use crate::orchestrator::gates::items;
use crate::store::{Heard, HistoryEntry};
use crate::wire::{
    Content, ContextItem, Gates, Input, ItemId, Message, Otherwise, Question, Root, Said, Task, Usage, json_bytes,
};

fn asks(to: &str) -> Outcome {
    Outcome::Question(Question { to: to.to_owned().into(), text: "Which database?".into() })
}

/// Facts of a plan, with these replies: task, attempt, and what came of it.
fn after(plan: Plan, replies: &[(&str, u32, Outcome)]) -> Facts {
    let mut facts = facts(Some(plan));
    for (task, attempt, outcome) in replies {
        let task: TaskId = task.parse().unwrap();
        let role = facts.plan.as_ref().unwrap().task(&task).map_or(Role::Researcher, |task| task.role);
        assert!(facts.absorb(reply(role, &task, *attempt, outcome.clone())));
    }
    facts
}

fn wanted(step: &Step) -> Vec<String> {
    match step {
        Step::Want(jobs) => jobs.iter().map(|job| format!("{} {}.{}", job.role, job.task, job.attempt)).collect(),
        other => panic!("not work: {other:?}"),
    }
}

fn refused(step: Step) -> Vec<(String, Failure)> {
    match step {
        Step::Refuse(refused) => refused.into_iter().map(|(job, why)| (job.task.to_string(), why)).collect(),
        other => panic!("nothing is refused: {other:?}"),
    }
}

/// The message of a job, which is a fact from then on.
fn sent(facts: &mut Facts, step: &Step) -> Message {
    let Step::Want(jobs) = step else { panic!("no work: {step:?}") };
    let attempts = attempts(facts, facts.plan.as_ref().unwrap(), &rules()).unwrap();
    let (root, run) = (Root::default(), RunId::from_key("t", "next"));
    let dispatch = Dispatch { root: &root, run: &run, facts, attempts: &attempts, tasks_max: None, depth_max: None };
    let message = dispatch.message(&dispatch.task(&jobs[0], Duration::ZERO));
    facts.requests.push(HistoryEntry { message: message.clone(), revision: 1, at: 0 });
    message
}

fn documents() -> Plan {
    plan(&[(Role::Documenter, &[]), (Role::Documenter, &[])])
}

#[test]
fn a_question_to_a_role_is_a_task_and_its_answer_a_new_attempt() {
    let mut facts = after(documents(), &[("t1", 1, asks("researcher")), ("t2", 1, done(None))]);
    let step = next(&facts, &rules());
    assert_eq!(wanted(&step), ["researcher t1q1.1"]);
    let message = sent(&mut facts, &step);
    assert_eq!((message.from.to_string(), message.to.to_string()), ("documenter".into(), "researcher".into()));
    assert_eq!((message.kind, message.content.as_str()), (crate::wire::MessageType::Question, "Which database?"));
    facts.absorb(reply(Role::Researcher, &"t1q1".parse().unwrap(), 1, done(None)));
    let step = next(&facts, &rules());
    assert_eq!(wanted(&step), ["documenter t1.2"]);
    let told = crate::orchestrator::questions::told(&facts, &id(1), 2);
    assert!(told.len() == 1 && told[0].text.contains("Which database?\nAnswer: so it is"), "{}", told[0].text);
}

#[test]
fn a_question_to_a_task_waits_for_it_and_one_to_nobody_is_refused() {
    let later = after(documents(), &[("t1", 1, asks("t2"))]);
    assert_eq!(wanted(&next(&later, &rules())), ["documenter t2.1"]);
    let there = after(documents(), &[("t1", 1, asks("t2")), ("t2", 1, done(None))]);
    assert_eq!(wanted(&next(&there, &rules())), ["documenter t1q1.1"]);
    for (to, says) in [("t9", "no task t9"), ("boss", "\"boss\" is nobody"), ("user", "without --ask")] {
        let refused = refused(next(&after(documents(), &[("t1", 1, asks(to))]), &rules()));
        assert!(refused.len() == 1 && refused[0].0 == "t1q1" && refused[0].1.message.contains(says), "{refused:?}");
    }
}

#[test]
fn a_question_is_no_way_past_a_gate() {
    let mut facts = after(documents(), &[("t1", 1, asks("t2")), ("t2", 1, done(None))]);
    facts.goal.gated = vec![Role::Documenter];
    assert_eq!(next(&facts, &rules()), Step::Wait);
    let about = |facts: &Facts| crate::orchestrator::questions::done(facts, &id(2)).is_some();
    assert!(!about(&facts));
    let say = |says: Said, revision: u64| Heard {
        input: Input::new(ItemId::of(&id(2), u32::try_from(revision).unwrap()), "ann", says),
        revision,
        at: 0,
    };
    facts.inputs.push(say(Said::Reject { reason: "no".into() }, 1));
    assert_eq!(wanted(&next(&facts, &rules())), ["documenter t2.2"]);
    facts.absorb(reply(Role::Documenter, &id(2), 2, done(None)));
    assert_eq!(next(&facts, &rules()), Step::Wait);
    facts.inputs.push(say(Said::Approve, 2));
    assert!(about(&facts));
    assert_eq!(wanted(&next(&facts, &rules())), ["documenter t1q1.1"]);
}

#[test]
fn a_person_is_asked_once_and_the_first_answer_counts() {
    let mut facts = after(documents(), &[("t1", 1, asks("user")), ("t2", 1, done(None))]);
    facts.goal.gates = Gates { ask: true, ..Gates::default() };
    let step = next(&facts, &rules());
    assert_eq!(wanted(&step), ["orchestrator t1q1.1"]);
    assert!(items(&facts, &Attempts::new(), &rules()).is_empty(), "it is no item before it is written down");
    assert_eq!(sent(&mut facts, &step).to, crate::wire::Party::User);
    assert_eq!(next(&facts, &rules()), Step::Wait);
    assert_eq!(items(&facts, &Attempts::new(), &rules())[0].id, ItemId::of(&id(1), 1));
    let say = |facts: &Facts, says: &[Said]| {
        let mut facts = facts.clone();
        for (number, says) in says.iter().enumerate() {
            let input = Input::new(ItemId::of(&id(1), 1), &format!("voter{number}"), says.clone());
            facts.inputs.push(Heard { input, revision: number as u64 + 1, at: 0 });
        }
        facts
    };
    let answer = |text: &str| Said::Answer { text: text.into() };
    let answered = say(&facts, &[answer("sqlite"), Said::Lapse, answer("postgres")]);
    assert_eq!(wanted(&next(&answered, &rules())), ["documenter t1.2"]);
    let told = crate::orchestrator::questions::told(&answered, &id(1), 2);
    assert!(told[0].text.ends_with("Answer of voter0: sqlite"), "{}", told[0].text);
    assert!(items(&answered, &Attempts::new(), &rules()).is_empty());
    let late = say(&facts, &[Said::Lapse, answer("sqlite")]);
    let Step::Fail(failure) = next(&late, &rules()) else { panic!("the run goes on") };
    assert!(failure.kind == FailureKind::Unanswered && failure.message.contains("question t1x1"), "{failure}");
    let mut lenient = late;
    lenient.goal.gates.default = Otherwise::Approve;
    assert_eq!(wanted(&next(&lenient, &rules())), ["documenter t1.2"]);
    let told = crate::orchestrator::questions::told(&lenient, &id(1), 2);
    assert!(told[0].text.contains("nobody answered in time"), "{}", told[0].text);
}

#[test]
fn a_circle_is_named_when_it_closes_and_the_cheapest_asker_is_told() {
    let three = || plan(&[(Role::Documenter, &[]), (Role::Documenter, &[]), (Role::Documenter, &[])]);
    let open = after(three(), &[("t1", 1, asks("t2")), ("t2", 1, asks("t3"))]);
    assert_eq!(wanted(&next(&open, &rules())), ["documenter t3.1"], "nobody is told before the circle is closed");
    let mut closed = after(three(), &[("t1", 1, asks("t2")), ("t3", 1, asks("t1"))]);
    let dear = Usage { input: 100, ..Usage::default() };
    closed.absorb(Reply { usage: dear, ..reply(Role::Documenter, &id(2), 1, asks("t3")) });
    closed.results.get_mut(&(id(1), 1)).unwrap().usage = dear;
    let told = refused(next(&closed, &rules()));
    assert_eq!((told.len(), told[0].0.as_str(), told[0].1.kind), (1, "t3q1", FailureKind::Deadlock));
    assert!(told[0].1.message.contains("t1 → t2 → t3 → t1"), "{}", told[0].1);
    // One that asks itself, or what waits for it.
    for (plan, to, named) in [
        (documents(), "t1", "t1 → t1"),
        (plan(&[(Role::Documenter, &[]), (Role::Documenter, &[1])]), "t2", "t1 → t2 → t1"),
    ] {
        let told = refused(next(&after(plan, &[("t1", 1, asks(to))]), &rules()));
        assert!(told[0].1.message.contains(&format!("deadlock: {named};")), "{}", told[0].1);
    }
}

#[test]
fn questions_are_bounded_in_number_and_depth() {
    let max = u32::try_from(limits::QUESTIONS_MAX).unwrap();
    let mut facts = after(plan(&[(Role::Documenter, &[])]), &[]);
    for attempt in 1..=max {
        facts.absorb(reply(Role::Documenter, &id(1), attempt, asks("researcher")));
        let question = TaskId::question(&id(1), attempt).unwrap();
        assert_eq!(wanted(&next(&facts, &rules())), [format!("researcher {question}.1")]);
        facts.absorb(reply(Role::Researcher, &question, 1, done(None)));
    }
    facts.absorb(reply(Role::Documenter, &id(1), max + 1, asks("researcher")));
    let (task, failure) = refused(next(&facts, &rules())).remove(0);
    assert!(failure.message.contains("questions_max"), "{failure}");
    facts.absorb(reply(Role::Documenter, &task.parse().unwrap(), 1, Outcome::Failed { failure }));
    assert_eq!(wanted(&next(&facts, &rules())), [format!("documenter t1.{}", max + 2)]);
    facts.absorb(reply(Role::Documenter, &id(1), max + 2, asks("researcher")));
    let Step::Fail(failure) = next(&facts, &rules()) else { panic!("it may ask for ever") };
    assert_eq!(failure.kind, FailureKind::MaxIterations);

    let mut facts = after(plan(&[(Role::Documenter, &[])]), &[("t1", 1, asks("researcher"))]);
    let mut asker = id(1);
    for _ in 0..limits::QUESTIONS_DEPTH_MAX {
        asker = TaskId::question(&asker, 1).unwrap();
        assert_eq!(wanted(&next(&facts, &rules())), [format!("researcher {asker}.1")]);
        facts.absorb(reply(Role::Researcher, &asker, 1, asks("researcher")));
    }
    let (task, failure) = refused(next(&facts, &rules())).remove(0);
    assert!(task == format!("{asker}q1") && failure.message.contains("questions_depth_max"), "{failure}");
}

#[test]
fn asking_uses_up_no_rework() {
    let code = || plan(&[(Role::Coder, &[]), (Role::Qa, &[1])]);
    let mut facts = after(code(), &[]);
    for attempt in 1..=4 {
        facts.absorb(reply(Role::Coder, &id(1), attempt, asks("researcher")));
        facts.absorb(reply(Role::Researcher, &TaskId::question(&id(1), attempt).unwrap(), 1, done(None)));
    }
    for attempt in 5..5 + REWORK_MAX {
        facts.absorb(reply(Role::Coder, &id(1), attempt, files(attempt)));
        let verdict = tests(&facts, (2, attempt), attempt, &["test_x"]);
        facts.absorb(reply(Role::Qa, &id(2), attempt, verdict));
        assert_eq!(wanted(&next(&facts, &rules())), [format!("coder t1.{}", attempt + 1)]);
    }
}

/// What an attempt of this task would be shown.
fn shown(facts: &Facts, task: &TaskId, attempt: u32) -> Task {
    let attempts = attempts(facts, facts.plan.as_ref().unwrap(), &rules()).unwrap();
    let (root, run) = (Root::default(), RunId::from_key("t", "next"));
    let dispatch = Dispatch { root: &root, run: &run, facts, attempts: &attempts, tasks_max: None, depth_max: None };
    let role = facts.plan.as_ref().unwrap().task(task).unwrap().role;
    dispatch.task(&Job { task: task.clone(), role, attempt, delay: Duration::ZERO }, Duration::ZERO)
}

#[test]
fn whoever_asks_after_a_failure_still_hears_of_it() {
    let failure = Failure::again(FailureKind::ModelOutput, "the JSON was cut");
    let replies = [("t1", 1, Outcome::Failed { failure }), ("t1", 2, asks("researcher"))];
    let mut facts = after(plan(&[(Role::Documenter, &[])]), &replies);
    facts.absorb(reply(Role::Researcher, &"t1q2".parse().unwrap(), 1, done(None)));
    let task = shown(&facts, &id(1), 3);
    assert_eq!(task.evidence.iter().map(|item| item.attempt).collect::<Vec<_>>(), [1], "{task:?}");
    assert!(task.context.iter().any(|item| item.task.as_str() == "t1q2"), "{task:?}");
}

#[test]
fn the_newest_answer_has_room_first() {
    let big = |name: &str, bytes| {
        let content = format!("{name} {}", "x".repeat(bytes));
        Outcome::Completed { content, artifacts: Vec::new(), report: None }
    };
    let plan = plan(&[(Role::Documenter, &[]), (Role::Documenter, &[1])]);
    // The goal, and a result before, leave less than all answers need.
    let mut facts = after(plan, &[("t1", 1, big("result", 120_000))]);
    facts.goal.text = "g".repeat(60_000);
    let last = 5;
    for attempt in 1..=last {
        facts.absorb(reply(Role::Documenter, &id(2), attempt, asks("researcher")));
        let question = TaskId::question(&id(2), attempt).unwrap();
        facts.absorb(reply(Role::Researcher, &question, 1, big(&format!("answer {attempt}"), 40_000)));
    }
    let context = shown(&facts, &id(2), last + 1).context;
    let (result, answers) = context.split_first().unwrap();
    let bytes: Vec<usize> = answers.iter().map(|item| json_bytes(text_of(item))).collect();
    assert!(text_of(result).starts_with("result") && answers.len() == 5);
    assert!(bytes[0] < 1_000 && bytes[4] > 32_000 && bytes.is_sorted(), "{bytes:?}");
    assert!(text_of(&answers[4]).contains("answer 5"));
}

#[test]
fn a_retry_knows_what_was_answered_before_it() {
    let mut facts = after(documents(), &[("t1", 1, asks("user")), ("t2", 1, done(None))]);
    facts.goal.gates = Gates { ask: true, ..Gates::default() };
    let request = |facts: &mut Facts, attempt| {
        let task = shown(facts, &id(1), attempt);
        let attempts = Attempts::new();
        let (root, run) = (Root::default(), RunId::from_key("t", "next"));
        let attempts = &attempts;
        let message =
            Dispatch { root: &root, run: &run, facts, attempts, tasks_max: None, depth_max: None }.message(&task);
        facts.requests.push(HistoryEntry { message, revision: 1, at: 0 });
    };
    request(&mut facts, 1);
    let says = Said::Answer { text: "sqlite".into() };
    facts.inputs.push(Heard { input: Input::new(ItemId::of(&id(1), 1), "ann", says), revision: 1, at: 0 });
    for (attempt, says) in [(2, "no such tool"), (3, "nobody knows")] {
        request(&mut facts, attempt);
        facts.absorb(reply(Role::Documenter, &id(1), attempt, asks("researcher")));
        let failure = Failure::never(FailureKind::ModelOutput, says);
        let question = TaskId::question(&id(1), attempt).unwrap();
        facts.absorb(reply(Role::Researcher, &question, 1, Outcome::Failed { failure }));
    }
    let told = |facts: &Facts| -> Vec<String> {
        let told = crate::orchestrator::questions::told(facts, &id(1), 4);
        told.into_iter().map(|told| told.text).collect()
    };
    assert_eq!(told(&facts).len(), 3);
    facts.restart.first.insert(id(1), 4);
    let kept = told(&facts);
    assert!(kept.len() == 1 && kept[0].ends_with("Answer of ann: sqlite"), "{kept:?}");
    // Another task of the same name.
    facts.plan.as_mut().unwrap().tasks[0].description = "something else".into();
    assert!(told(&facts).is_empty());
}

fn text_of(item: &ContextItem) -> &str {
    match &item.content {
        Content::Inline { text } => text,
        other => panic!("an answer travels inside: {other:?}"),
    }
}

/// Worlds in which attempts ask.
fn asking() -> impl Strategy<Value = World> {
    let odds = (0..30_u64, 0..3_u64, 0..60_u64);
    (worlds(odds), 1..70_u64).prop_map(|(mut world, asks)| {
        world.asks = asks;
        world
    })
}

proptest! {
    #![proptest_config(Config { cases: 60, failure_persistence: None, ..Config::default() })]

    /// Whoever asks whomever, and whoever answers or does not: the run ends, and never because nobody can go on.
    #[test]
    fn no_question_makes_a_run_wait_for_ever(world in asking(), order in orders()) {
        let ran = simulate(&world, &order);
        let deadlock = matches!(&ran.end, Step::Fail(failure) if failure.kind == FailureKind::Deadlock);
        prop_assert!(!deadlock && ran.end != Step::Wait, "{:?}", ran.end);
        let max = limits::QUESTIONS_MAX + 2;
        for task in ran.facts.results.keys().map(|(task, _)| task) {
            prop_assert!(ran.facts.questions(task).count() <= max, "{task}");
            let depth = std::iter::successors(task.asker(), |(before, _)| before.asker()).count();
            prop_assert!(depth <= limits::QUESTIONS_DEPTH_MAX + 1, "{task}");
        }
    }
}
