//! Who may decide is the server's to say: the logins of `docs/users.conf`, at a real server. And a server that takes only small
//! messages.

use std::time::Duration;

use oarlock::bus::{Bus, Credentials, Server, StreamSettings, Use};
use oarlock::store::Store;
use oarlock::wire::subject::TaskSubject;
use oarlock::wire::{FailureKind, Role, Root, RunId, RunStatus};
use serde_json::{Value, json};

use crate::contexts::{Closed, with};
use crate::harness::{TestServer, Worker, connect, until};
use crate::story::{ACK_WAIT, SLOW_CAST, slow_story};

const USERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/users.conf");

fn password(user: &str) -> String {
    format!("of{user}1")
}

/// The users file as an operator takes it, with its passwords.
fn users() -> String {
    let mut text = std::fs::read_to_string(USERS).unwrap();
    text = text.replace("#: ", "");
    for user in ["ann", "people", "askers", "orchestrators", "workers"] {
        let variable = format!("$OARLOCK_{}_PASSWORD", user.to_uppercase());
        assert!(text.contains(&variable), "{variable}");
        text = text.replace(&variable, &password(user));
    }
    text
}

async fn login(url: &str, user: &str) -> Bus {
    let credentials =
        Credentials { user: Some(user.to_owned()), password: Some(password(user)), ..Credentials::default() };
    let server = Server { urls: url.to_owned(), credentials, ..Server::default() };
    Bus::connect(&server, &Root::default(), "test").await.unwrap()
}

async fn declare(bus: &Bus) {
    bus.declare(&StreamSettings { ack_wait: ACK_WAIT, ..StreamSettings::default() }).await.unwrap();
}

/// One process of each role at a server, each with the login of its kind when there are logins.
async fn cast_at(of: &TestServer, url: &str, logins: bool) -> Vec<Worker> {
    let script = of.file("script.json", &slow_story(0));
    let mut workers = Vec::new();
    for role in [&[Role::Orchestrator], &SLOW_CAST[..]].concat() {
        let user = if role == Role::Orchestrator { "orchestrators" } else { "workers" };
        let mut worker = Worker::spawn_at(of, role, &["--server", url], |command| {
            command.arg("--script").arg(&script);
            if logins {
                command.env("NATS_USER", user).env("NATS_PASSWORD", password(user));
            }
        });
        worker.ready(of).await;
        workers.push(worker);
    }
    workers
}

/// Asks a door; `None` when nobody answers soon.
async fn ask(bus: &Bus, verb: &str, request: Value) -> Option<String> {
    let payload = request.as_str().map_or_else(|| request.to_string(), str::to_owned);
    let request = async_nats::Request::new().payload(payload.into()).timeout(Some(Duration::from_secs(10)));
    let subject = format!("oarlock.{verb}");
    let answer = tokio::select! {
        answer = bus.client.send_request(subject.clone(), request) => answer.ok(),
        () = bus.denied(Use::Publish, &subject) => None,
    };
    answer.map(|answer| String::from_utf8_lossy(&answer.payload).into_owned())
}

async fn submitted(bus: &Bus, goal: &str) -> RunId {
    let goal = json!({ "goal": goal, "gates": { "approve": "plan" } });
    let answer = ask(bus, "submit", goal).await.expect("an answer");
    serde_json::from_str::<Value>(&answer).unwrap()["run"].as_str().unwrap().parse().unwrap()
}

async fn stands(store: &Store, run: &RunId, status: RunStatus) {
    let is_so = async || store.runs.record(run).await.unwrap().unwrap().record.status == status;
    until(&format!("run {run} to be {status:?}"), is_so).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_people_decide_and_nobody_writes_what_people_say() {
    let open = TestServer::bare().await;
    let closed = Closed::start(&open, &users()).await;
    let orchestrators = login(&closed.url, "orchestrators").await;
    declare(&orchestrators).await;
    let store = Store::new(&orchestrators);
    let _fleet = cast_at(&open, &closed.url, true).await;
    let (people, askers) = (login(&closed.url, "people").await, login(&closed.url, "askers").await);
    let workers = login(&closed.url, "workers").await;
    let run = submitted(&askers, "make it").await;
    stands(&store, &run, RunStatus::InputRequired).await;
    assert!(ask(&askers, "control.inbox", json!(run.as_str())).await.unwrap().contains("planx1"));
    let approve = json!({ "run": run, "item": "planx1", "by": "ann" });
    for (bus, who) in [(&askers, "askers"), (&workers, "workers"), (&orchestrators, "orchestrators")] {
        assert_eq!(ask(bus, "control.approve", approve.clone()).await, None, "{who} may approve");
    }
    for (bus, who) in [(&people, "people"), (&askers, "askers"), (&workers, "workers")] {
        for subject in [format!("$KV.oarlock_runs.{run}.in.planx1.lapse"), format!("$KV.oarlock_runs.{run}")] {
            bus.client.publish(subject.clone(), "{}".into()).await.unwrap();
            let refused = tokio::time::timeout(Duration::from_secs(10), bus.denied(Use::Publish, &subject)).await;
            assert!(refused.is_ok(), "{who} may write {subject}");
        }
    }
    let forged = format!("oarlock.result.orchestrator.{run}.run.1");
    workers.client.publish(forged.clone(), "{}".into()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(10), workers.denied(Use::Publish, &forged)).await.is_ok());
    assert!(store.inputs.of_run(&run, 0).await.unwrap().is_empty());
    // Ann's login speaks for ann alone.
    let ann = login(&closed.url, "ann").await;
    for verb in ["control.approve", "control.approve.bob"] {
        assert_eq!(ask(&ann, verb, approve.clone()).await, None, "ann may use {verb}");
    }
    let as_bob = json!({ "run": run, "item": "planx1", "by": "bob" });
    assert!(ask(&ann, "control.approve.ann", as_bob).await.unwrap().contains("speaks for"));
    assert!(store.inputs.of_run(&run, 0).await.unwrap().is_empty());
    let hers = [("NATS_USER", "ann"), ("NATS_PASSWORD", "ofann1")];
    let noted = with(&open, &hers, &["note", run.as_str(), "be kind", "--as", "ann", "--server", &closed.url]).await;
    assert_eq!(noted.code, Some(0), "{noted:?}");
    assert_eq!(store.inputs.of_run(&run, 0).await.unwrap()[0].input.by, "ann");
    let (word, url) = (password("people"), ["--server", closed.url.as_str()]);
    let tool = async |arguments: &[&str]| {
        let variables = [("NATS_USER", "people"), ("NATS_PASSWORD", word.as_str())];
        let ended = with(&open, &variables, &[arguments, &url].concat()).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended
    };
    assert!(tool(&["inbox"]).await.out.contains("planx1"));
    tool(&["note", run.as_str(), "be brief"]).await;
    tool(&["show", run.as_str()]).await;
    assert!(tool(&["approve", run.as_str(), "--as", "ann"]).await.err.contains("is approved"));
    stands(&store, &run, RunStatus::Completed).await;
    assert!(tool(&["history", run.as_str()]).await.out.contains("ann"));
    tool(&["ls"]).await;
    tool(&["ps"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_no_server_takes_ends_its_run() {
    let open = TestServer::bare().await;
    let closed = Closed::start(&open, "max_payload: 65536").await;
    let bus = connect(&closed.url).await;
    declare(&bus).await;
    let store = Store::new(&bus);
    let _fleet = cast_at(&open, &closed.url, false).await;
    let run = submitted(&bus, &"make it large ".repeat(3_000)).await;
    stands(&store, &run, RunStatus::InputRequired).await;
    for word in ["a", "b"] {
        let note = json!({ "run": run, "by": "ann", "text": word.repeat(14_000) });
        assert!(ask(&bus, "control.note", note).await.unwrap().contains("noted"));
    }
    let approved = ask(&bus, "control.approve", json!({ "run": run, "item": "planx1", "by": "ann" })).await;
    assert!(approved.unwrap().contains("approved"));
    stands(&store, &run, RunStatus::Failed).await;
    let reply = store.results.get(&TaskSubject::of_run(&run, 1)).await.unwrap().unwrap();
    let failure = reply.failure().unwrap();
    assert!(failure.kind == FailureKind::TooLarge && failure.message.contains("max_payload"), "{failure}");
}
