//! Rights that are missing and logins that are refused: the process ends soon, with exit code 4, and says which right or
//! which login it was. What it had in hand is done by another.

use std::path::Path;
use std::time::{Duration, Instant};

use oarlock::bus::StreamSettings;
use oarlock::wire::{Role, RunId, RunStatus};
use serde_json::json;

use crate::harness::{TestServer, Worker, ended, oarlock, until};
use crate::host::{Start, serve};
use crate::story::{
    self, ACK_WAIT, cast_with, enqueue, findings, json_rule, one_file, plan_rule, script, subject_of, task, text_rule,
};

/// How long a process may take to find out that it has no business here.
const SOON: Duration = Duration::from_secs(20);
/// What only those need who decide about runs.
const PEOPLES: &str = r#""oarlock.control.approve.>", "oarlock.control.approve", "oarlock.control.reject", "oarlock.control.reject.>", "oarlock.control.edit", "oarlock.control.edit.>", "$KV.oarlock_runs.>""#;
const PASSWORD: &str = "s3cret-of-the-test";
/// A key pair from the server's own documentation, and the seed of another.
const NKEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const OTHER_SEED: &str = "SUANQDPB2RUOE4ETUA26CNX7FUKE5ZZKFCQIIW63OX225F2CO7UEXTM7ZY";

/// Who may not do what: the user's name, `publish` or `subscribe`, the subject, and what the worker must name.
const MISSING: [(Role, &str, &str, &str); 7] = [
    (Role::Coder, "publish", "oarlock.result.>", "oarlock.result.coder."),
    (Role::Planner, "publish", "$JS.API.CONSUMER.MSG.NEXT.>", "$JS.API.CONSUMER.MSG.NEXT.OARLOCK_TASKS.planner"),
    (Role::Researcher, "publish", "$JS.API.CONSUMER.INFO.>", "$JS.API.CONSUMER.INFO.OARLOCK_TASKS.researcher"),
    (Role::Reviewer, "publish", "$JS.ACK.>", "$JS.ACK.OARLOCK_TASKS.reviewer."),
    (Role::Documenter, "subscribe", "oarlock.ask.>", "oarlock.ask.documenter"),
    (Role::Synthesizer, "subscribe", "_INBOX.>", "_INBOX."),
    (Role::Orchestrator, "publish", "$JS.API.STREAM.CREATE.>", "$JS.API.STREAM.CREATE."),
];

/// A server with one user who may do everything, and one for each role, who may not do one thing.
async fn guarded(folder: &Path) -> TestServer {
    let mut users = format!("{{ user: boss, password: {PASSWORD} }}\n{{ nkey: {NKEY} }}\n");
    for (role, verb, denied, _) in MISSING {
        users += &format!(
            "{{ user: {role}, password: {PASSWORD}, permissions: {{ {verb}: {{ allow: \">\", deny: \"{denied}\" }} }} }}\n"
        );
    }
    let guest = format!(
        "{{ user: guest, password: {PASSWORD}, permissions: {{ publish: {{ allow: \">\", deny: [\"oarlock.submit\", \"private.>\", {PEOPLES}] }} }} }}"
    );
    users += &format!(
        "{{ user: tied, password: {PASSWORD}, permissions: {{ publish: {{ allow: \">\", deny: \"$JS.API.CONSUMER.PAUSE.>\" }} }} }}\n"
    );
    users += &format!(
        "{{ user: stateless, password: {PASSWORD}, permissions: {{ publish: {{ allow: \">\", deny: \"$KV.oarlock_state.>\" }} }} }}\n"
    );
    let configuration = folder.join("guarded.conf");
    let text = format!("jetstream {{ store_dir: store }}\nauthorization {{ users: [\n{users}{guest}\n] }}\n");
    std::fs::write(&configuration, text).unwrap();
    let start = Start { configuration: &configuration, stands: folder, login: Some(("boss", PASSWORD)) };
    let server = serve(&start).await;
    server.bus.declare(&StreamSettings { ack_wait: ACK_WAIT, ..StreamSettings::default() }).await.unwrap();
    server
}

pub fn story() -> String {
    let review = json!({ "approved": true, "findings": [], "summary": "good" });
    script(&[
        json_rule(Role::Coder, 0, &one_file("x = 1")),
        json_rule(Role::Reviewer, 0, &review),
        json_rule(Role::Researcher, 0, &findings()),
        text_rule(Role::Documenter, 0, "# It"),
    ])
}

fn logged_in(user: &str) -> [(&str, &str); 2] {
    [("NATS_USER", user), ("NATS_PASSWORD", PASSWORD)]
}

/// A worker with this environment, which should end soon.
async fn refused(server: &TestServer, role: Role, environment: &[(&str, &str)]) -> String {
    let file = server.file(&format!("script-{}.json", rand::random::<u32>()), &story());
    let started = Instant::now();
    let mut worker = Worker::spawn(server, role, |command| {
        command.arg("--script").arg(file).envs(environment.iter().copied());
    });
    let code = worker.exit_code().await;
    println!("measured: the {role} gave up after {} ms", started.elapsed().as_millis());
    assert_eq!(code, Some(4), "{}", worker.log_text());
    assert!(started.elapsed() < SOON, "{role} took {:?}", started.elapsed());
    let log = worker.log_text();
    assert!(!log.contains(PASSWORD) && !log.contains(OTHER_SEED), "{log}");
    // The error, and below it what to do next.
    log.rfind("oarlock: ").map_or_else(String::new, |start| log[start..].to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_right_ends_soon_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = &guarded(folder.path()).await;
    let work = task(Role::Coder, "write it", Duration::from_secs(60));
    let review = task(Role::Reviewer, "look at it", Duration::from_secs(60));
    for task in [&work, &review] {
        enqueue(server, task).await;
    }
    let all = MISSING.map(|(role, _, _, names)| async move {
        let other = [("OARLOCK_ROOT", "another")];
        let root: &[_] = if role == Role::Orchestrator { &other } else { &[] };
        let end = refused(server, role, &[&logged_in(role.name()), root].concat()).await;
        assert!(end.starts_with("oarlock: our NATS login may not use ") && end.contains(names), "{role}: {end}");
    });
    futures::future::join_all(all).await;
    assert!(server.store.results.get(&subject_of(&work)).await.unwrap().is_none(), "it had no right to answer");
    let _able = cast_with(server, &story(), &[Role::Coder, Role::Reviewer], &logged_in("boss")).await;
    for task in [&work, &review] {
        until("another worker's reply", async || server.store.results.get(&subject_of(task)).await.unwrap().is_some())
            .await;
    }
    server.assert_nothing_left().await;
}

/// Without the right to stop its queue a worker goes on alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_may_not_pause_its_queue_says_so_and_works() {
    let folder = tempfile::tempdir().unwrap();
    let server = &guarded(folder.path()).await;
    let story = script(&[
        json!({ "match": { "role": "coder", "nth": 0 }, "fault": { "status": 429, "retry_after_ms": 1500 } }),
        json_rule(Role::Coder, 0, &one_file("x = 1")),
    ]);
    let worker = cast_with(server, &story, &[Role::Coder], &logged_in("tied")).await.remove(0);
    let work = task(Role::Coder, "write it", Duration::from_secs(60));
    enqueue(server, &work).await;
    until("its reply", async || server.store.results.get(&subject_of(&work)).await.unwrap().is_some()).await;
    until("its word", async || worker.log_text().contains("the queue is not paused")).await;
    assert!(worker.log_text().contains("$JS.API.CONSUMER.PAUSE.OARLOCK_TASKS.coder"), "{}", worker.log_text());
    server.assert_nothing_left().await;
}

/// An orchestrator that may not write the shared state must not try for ever to decide on what a reply proposes.
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_may_not_write_shared_state_ends_and_another_decides() {
    let folder = tempfile::tempdir().unwrap();
    let server = &guarded(folder.path()).await;
    let mut found = findings();
    found["state"] =
        json!([{ "op": "append", "name": "notes", "value": "found" }, { "op": "set", "name": "done", "value": 1 }]);
    let story = script(&[
        plan_rule(&[(Role::Researcher, &[])]),
        json_rule(Role::Researcher, 0, &found),
        text_rule(Role::Synthesizer, 0, "It is found."),
    ]);
    let run = RunId::from_key("", "the one");
    server.store.state.set(&run, "notes", json!([])).await.unwrap();
    let _workers =
        cast_with(server, &story, &[Role::Planner, Role::Researcher, Role::Synthesizer], &logged_in("boss")).await;
    let mut unable = cast_with(server, &story, &[Role::Orchestrator], &logged_in("stateless")).await.remove(0);
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Oarlock-Key", "the one");
    assert_eq!(server.request_with("oarlock.submit", headers, "find it").await.text(), run.to_string());
    let started = Instant::now();
    assert_eq!(unable.exit_code().await, Some(4), "{}", unable.log_text());
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert!(unable.log_text().contains(&format!("may not use $KV.oarlock_state.{run}.")), "{}", unable.log_text());
    let _able = cast_with(server, &story, &[Role::Orchestrator], &logged_in("boss")).await;
    assert_eq!(story::ended(server, &run).await.status, RunStatus::Completed);
    assert_eq!(server.store.state.get(&run, "notes").await.unwrap().unwrap().value, json!(["found"]));
}

/// A caller chooses where the answer goes; nobody must be able to end a worker by that.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_subject_that_a_worker_may_not_use_is_its_caller_s_loss() {
    let folder = tempfile::tempdir().unwrap();
    let server = &guarded(folder.path()).await;
    let mut worker = cast_with(server, &story(), &[Role::Documenter], &logged_in("guest")).await.remove(0);
    server.bus.client.publish_with_reply("oarlock.ask.documenter", "private.x", "tell of it".into()).await.unwrap();
    until("the answer to be refused", async || worker.log_text().contains("Publish to \"private.x\"")).await;
    let answer = server.request("oarlock.ask.documenter", "tell of more").await;
    assert_eq!((answer.error_code(), answer.text()), (String::new(), "# It".into()));
    worker.signal("TERM");
    assert_eq!(worker.exit_code().await, Some(0), "{}", worker.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_ends_at_once_with_exit_code_4() {
    let folder = tempfile::tempdir().unwrap();
    let server = &guarded(folder.path()).await;
    let seed = server.file("seed", SEED);
    let other = server.file("other-seed", OTHER_SEED);
    let garbage = server.file("garbage", "this is no seed");
    let missing = folder.path().join("missing");
    let keys = [&other, &garbage, &missing].map(|path| vec![("NATS_NKEY", path.to_str().unwrap())]);
    let mut logins =
        vec![vec![("NATS_USER", "boss"), ("NATS_PASSWORD", "wrong")], vec![], vec![("NATS_TOKEN", "wrong")]];
    logins.extend(keys);
    for login in &logins {
        let end = refused(server, Role::Coder, login).await;
        assert!(end.contains("credentials"), "{login:?}: {end}");
        let mut command = oarlock(server);
        command.args(["ps", "--server", server.url()]).envs(login.iter().copied());
        let tool = ended(command, b"").await;
        assert!(tool.code == Some(4) && tool.err.contains("credentials"), "{login:?}: {tool:?}");
    }
    let mut command = oarlock(server);
    command.args(["ps", "--server", server.url()]).env("NATS_NKEY", &seed);
    let tool = ended(command, b"").await;
    assert_eq!(tool.code, Some(0), "the right seed: {tool:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_may_not_give_goals_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let server = &guarded(folder.path()).await;
    let _orchestrator = cast_with(server, &story(), &[Role::Orchestrator], &logged_in("boss")).await;
    let started = Instant::now();
    let mut command = oarlock(server);
    command.args(["run", "--detach", "make it", "--server", server.url()]).envs(logged_in("guest"));
    let tool = ended(command, b"").await;
    assert!(tool.code == Some(4) && tool.err.contains("may not use oarlock.submit"), "{tool:?}");
    assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
}

/// Who may approve is the server's to say, for each verb; who may not can still look, and cannot write an approval himself.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_may_not_approve_is_told_so_and_nothing_is_begun() {
    let folder = tempfile::tempdir().unwrap();
    let server = &guarded(folder.path()).await;
    let story = script(&[
        plan_rule(&[(Role::Documenter, &[])]),
        text_rule(Role::Documenter, 0, "# It"),
        text_rule(Role::Synthesizer, 0, "It is made."),
    ]);
    let _orchestrator = cast_with(server, &story, &[Role::Orchestrator], &logged_in("boss")).await;
    // Workers need no such right.
    let workers = [Role::Planner, Role::Documenter, Role::Synthesizer];
    let _workers = cast_with(server, &story, &workers, &logged_in("guest")).await;
    let answer = server
        .request("oarlock.submit", json!({ "goal": "make it", "gates": { "approve": "plan" } }).to_string())
        .await;
    let run: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    let run: RunId = run["run"].as_str().unwrap().parse().unwrap();
    let parked = async || story::record(server, &run).await.status == RunStatus::InputRequired;
    until("the plan to wait", parked).await;
    let tool = async |arguments: &[&str]| {
        let mut command = oarlock(server);
        command.args(arguments).args(["--server", server.url()]).envs(logged_in("guest"));
        ended(command, b"").await
    };
    let started = Instant::now();
    for (verb, rest) in [("approve", &[][..]), ("reject", &["--reason", "no"])] {
        let refused = tool(&[&[verb, run.as_str()], rest].concat()).await;
        let subject = format!("may not use oarlock.control.{verb}");
        assert!(refused.code == Some(4) && refused.err.contains(&subject), "{refused:?}");
    }
    assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
    let inbox = tool(&["inbox"]).await;
    assert!(inbox.code == Some(0) && inbox.out.contains("planx1"), "{inbox:?}");
    assert!(server.store.inputs.of_run(&run, 0).await.unwrap().is_empty() && parked().await);
    let approved = server.request("oarlock.control.approve", run.to_string()).await;
    assert_eq!(approved.error_code(), "", "{}", approved.text());
    assert_eq!(story::ended(server, &run).await.status, RunStatus::Completed);
}
