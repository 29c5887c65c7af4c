//! Shared state under many writers, each a process of its own: nothing is lost, and what belongs together changes together.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use futures::future::join_all;
use oarlock::store::{Store, StoreError};
use oarlock::wire::RunId;
use serde_json::{Value, json};

use crate::harness::{TestServer, connect, oarlock, until};

/// Tells a child of this test where the server is and which run it writes.
const CHILD: &str = "OARLOCK_TEST_WRITER";
const PROCESSES: usize = 8;
const UPDATES: u64 = 1_000;
/// Updates of two keys together, per process.
const PAIRS: u64 = 40;

/// This test again, as a process of its own that does its part.
fn child(test: &str, server: &TestServer, run: &RunId) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--test-threads=1"]).env(CHILD, format!("{} {run}", server.url()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

/// In a child: the store and the run to work on.
async fn assignment() -> Option<(Store, RunId)> {
    let text = std::env::var(CHILD).ok()?;
    let (url, run) = text.split_once(' ').unwrap();
    Some((Store::new(&connect(url).await), run.parse().unwrap()))
}

struct Children(Vec<Child>);

impl Children {
    async fn all_succeed(&mut self) {
        for child in &mut self.0 {
            let mut status = None;
            until("a writer to end", async || {
                status = child.try_wait().unwrap();
                status.is_some()
            })
            .await;
            assert!(status.unwrap().success(), "a writer failed; its words are above");
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn number(value: Option<&Value>) -> u64 {
    value.map_or(0, |value| value.as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_count_to_eight_thousand() {
    if let Some((store, run)) = assignment().await {
        for _ in 0..UPDATES {
            let add = |values: &mut std::collections::BTreeMap<String, Value>| {
                let next = number(values.get("count")) + 1;
                values.insert("count".into(), next.into());
            };
            store.state.update(&run, &["count"], add).await.unwrap();
        }
        return;
    }
    let server = TestServer::start().await;
    let run = RunId::random();
    let started = Instant::now();
    let writers = (0..PROCESSES).map(|_| child("state::eight_processes_count_to_eight_thousand", &server, &run));
    Children(writers.collect()).all_succeed().await;
    println!("measured: {PROCESSES} × {UPDATES} updates of one key in {:.1} s", started.elapsed().as_secs_f64());
    let count = server.store.state.get(&run, "count").await.unwrap().expect("a count");
    assert_eq!(count.value, json!(PROCESSES as u64 * UPDATES), "no update was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_keys_change_together_for_every_reader() {
    if let Some((store, run)) = assignment().await {
        for _ in 0..PAIRS {
            let both = |values: &mut std::collections::BTreeMap<String, Value>| {
                let next = number(values.get("left")) + 1;
                values.insert("left".into(), next.into());
                values.insert("right".into(), next.into());
            };
            store.state.update(&run, &["left", "right"], both).await.unwrap();
        }
        return;
    }
    let server = TestServer::start().await;
    let run = RunId::random();
    let started = Instant::now();
    let writers = (0..4).map(|_| child("state::two_keys_change_together_for_every_reader", &server, &run));
    let mut writers = Children(writers.collect());
    let (mut reads, mut values) = (0, std::collections::BTreeSet::new());
    until("all pairs to be written", async || {
        let all = server.store.state.all(&run).await.unwrap();
        let [left, right] = ["left", "right"].map(|name| number(all.get(name).map(|entry| &entry.value)));
        assert_eq!(left, right, "a reader saw one without the other, after {reads} reads");
        reads += 1;
        values.insert(left);
        left == 4 * PAIRS
    })
    .await;
    println!("measured: {} pairs in {:.1} s, {reads} reads", 4 * PAIRS, started.elapsed().as_secs_f64());
    assert!(values.len() > 3, "the reader read while they wrote: {values:?}");
    writers.all_succeed().await;
}

/// More writers at the same moment than a server has places for open batches.
#[tokio::test(flavor = "multi_thread")]
async fn many_pairs_at_the_same_moment_all_arrive() {
    let server = TestServer::start().await;
    let run = RunId::random();
    let write = |number: usize| {
        let (state, run) = (server.store.state.clone(), run.clone());
        async move {
            let names = [format!("{number}.left"), format!("{number}.right")];
            let both = |values: &mut std::collections::BTreeMap<String, Value>| {
                names.iter().for_each(|name| drop(values.insert(name.clone(), number.into())));
            };
            state.update(&run, &[&names[0], &names[1]], both).await.map(drop)
        }
    };
    let written = join_all((0..200).map(|number| tokio::spawn(write(number)))).await;
    let failed: Vec<String> = written
        .into_iter()
        .filter_map(|joined| joined.unwrap().err())
        .map(|error| format!("{:#}", anyhow::Error::from(error)))
        .collect();
    assert!(failed.is_empty(), "{} of 200 updates failed, the first one: {}", failed.len(), failed[0]);
    assert_eq!(server.store.state.all(&run).await.unwrap().len(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_starts_the_update_again_with_newer_values() {
    let server = TestServer::start().await;
    let run = RunId::random();
    let state = &server.store.state;
    for names in [&["one"][..], &["one", "two"]] {
        state.set(&run, "one", json!(1)).await.unwrap();
        let mut seen = Vec::new();
        let other = server.store.state.clone();
        let written = state.update(&run, names, |values| {
            seen.push(values["one"].clone());
            if seen.len() == 1 {
                // Somebody else is faster, between this one's read and its write.
                let (other, run) = (other.clone(), run.clone());
                let set = async move { other.set(&run, "one", json!(10)).await };
                tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(set)).unwrap();
            }
            let next = values["one"].as_u64().unwrap() + 1;
            names.iter().for_each(|name| drop(values.insert((*name).to_owned(), next.into())));
        });
        let written = written.await.unwrap();
        assert_eq!(seen, [json!(1), json!(10)]);
        assert!(names.iter().all(|name| written[*name] == 11), "{written:?}");
        assert_eq!(state.get(&run, "one").await.unwrap().unwrap().value, json!(11));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_names_and_sizes_are_refused_and_nothing_is_written() {
    let server = TestServer::start().await;
    let run = RunId::random();
    let state = &server.store.state;
    let long = "n".repeat(129);
    for bad in ["", ".", "a.", ".a", "a..b", "a b", "a*", ">", "a.>", "ü", "a\n", "$KV", &long] {
        for refused in [
            state.get(&run, bad).await.map(drop),
            state.set(&run, bad, json!(1)).await,
            state.update(&run, &["good", bad], |values| drop(values.insert("good".into(), json!(1)))).await.map(drop),
        ] {
            assert!(matches!(refused, Err(StoreError::BadName { .. })), "{bad:?}: {refused:?}");
        }
    }
    let large = json!("x".repeat(64 * 1024));
    let fits = json!("x".repeat(64 * 1024 - 2));
    for names in [&["large"][..], &["good", "large"]] {
        let refused = state
            .update(&run, names, |values| {
                values.insert("large".into(), large.clone());
                values.insert("good".into(), json!(1));
            })
            .await;
        let error = refused.unwrap_err();
        assert!(matches!(error, StoreError::TooLarge { bound: "state_value_bytes_max", .. }), "{error}");
        assert!(error.to_string().contains("large") && error.to_string().contains("65536"), "{error}");
    }
    let names: Vec<String> = (0..101).map(|number| format!("k{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let set = |values: &mut std::collections::BTreeMap<String, Value>| {
        names.iter().for_each(|name| drop(values.insert((*name).to_owned(), json!(1))));
    };
    let error = state.update(&run, &names, set).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { bound: "state_keys_max", .. }), "{error}");
    assert!(state.all(&run).await.unwrap().is_empty(), "nothing was written");

    state.set(&run, "fits", fits.clone()).await.unwrap();
    state.update(&run, &names[..100], set).await.unwrap();
    let all = state.all(&run).await.unwrap();
    assert_eq!((all.len(), &all["fits"].value, &all["k99"].value), (101, &fits, &json!(1)));
    assert!(!all.contains_key("k100"), "a name that was not asked for is not written");
    assert!(state.all(&RunId::random()).await.unwrap().is_empty(), "other runs have their own");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_changes_several_values_at_once() {
    let server = TestServer::start().await;
    let run = RunId::random().to_string();
    let state = |arguments: &[&str]| {
        let output = oarlock(&server).args(["--server", server.url(), "state"]).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for _ in 0..2 {
        let (code, _, said) = state(&["update", &run, "count+=2", "name=\"it\""]);
        assert_eq!(code, Some(0), "{said}");
    }
    let (code, printed, said) = state(&["get", &run]);
    assert_eq!(code, Some(0), "{said}");
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let entry = |name: &str| printed[name].get("value").unwrap_or(&printed[name]).clone();
    assert_eq!((entry("count"), entry("name")), (json!(4), json!("it")), "{printed}");
}
