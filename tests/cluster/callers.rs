//! People who go on giving goals while things break. Each goal has a key of its own, so its run is known whether the
//! door answered or not: a goal that was refused or not answered can be given again, and is never two runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use oarlock::wire::{RunId, RunStatus};
use tokio::task::JoinHandle;

use crate::harness::{ANSWER_WAIT, TestServer, until};
use crate::story::{assert_one_of_everything, ended, record, result};

/// Pause between two goals.
const PAUSE: Duration = Duration::from_millis(400);

/// One goal that somebody gave.
#[derive(Clone, Debug)]
pub struct Given {
    pub run: RunId,
    pub key: String,
    pub at: Instant,
    /// When and what the door answered; the text of a refusal, or why there was no answer.
    pub answer: Option<(Instant, Result<(), String>)>,
}

impl Given {
    /// When a door said that the goal was taken.
    pub fn accepted(&self) -> Option<Instant> {
        self.answer.as_ref().filter(|(_, answer)| answer.is_ok()).map(|(at, _)| *at)
    }

    fn refusal(&self) -> Option<&String> {
        self.answer.as_ref()?.1.as_ref().err()
    }
}

/// Callers at work; they are gone when this is dropped.
pub struct Callers {
    given: Arc<Mutex<Vec<Given>>>,
    enough: Arc<AtomicBool>,
    calling: JoinHandle<()>,
}

impl Callers {
    /// Begins to give a goal every [`PAUSE`], whether those before were answered or not.
    pub fn start(server: &Arc<TestServer>) -> Self {
        let (given, enough) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let calling = tokio::spawn(call(server.clone(), given.clone(), enough.clone()));
        Self { given, enough, calling }
    }

    pub fn given(&self) -> Vec<Given> {
        self.given.lock().unwrap().clone()
    }

    /// Waits until this many goals given after `since` were accepted.
    pub async fn accepted_after(&self, since: Instant, number: usize) {
        until(&format!("{number} accepted goals"), async || {
            self.given().iter().filter(|given| given.at > since && given.accepted().is_some()).count() >= number
        })
        .await;
    }

    /// Gives no more goals, and waits until each caller has an answer, or has waited long enough for it.
    pub async fn stop(self) -> Vec<Given> {
        self.enough.store(true, Ordering::Relaxed);
        until("every caller to be answered", async || self.calling.is_finished()).await;
        let given = self.given();
        assert!(given.iter().all(|given| given.answer.is_some()), "{given:?}");
        given
    }
}

async fn call(server: Arc<TestServer>, given: Arc<Mutex<Vec<Given>>>, enough: Arc<AtomicBool>) {
    let mut calls = tokio::task::JoinSet::new();
    while !enough.load(Ordering::Relaxed) {
        let key = format!("{:032x}", rand::random::<u128>());
        let run = RunId::from_key("", &key);
        let index = given.lock().unwrap().len();
        given.lock().unwrap().push(Given { run, key: key.clone(), at: Instant::now(), answer: None });
        let (given, server) = (given.clone(), server.clone());
        calls.spawn(async move {
            let answer = give(&server, &key).await;
            given.lock().unwrap()[index].answer = Some((Instant::now(), answer));
        });
        tokio::time::sleep(PAUSE).await;
    }
    calls.join_all().await;
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.calling.abort();
    }
}

async fn give(server: &TestServer, key: &str) -> Result<(), String> {
    let mut headers = HeaderMap::new();
    headers.insert("Oarlock-Key", key);
    let answer =
        server.ask("oarlock.submit", headers, "make it", ANSWER_WAIT).await.map_err(|error| error.to_string())?;
    match answer.error_code().as_str() {
        "" => Ok(()),
        code => Err(format!("{code} {}", answer.text())),
    }
}

/// What came of all goals: those that were accepted complete, the others complete once they are accepted, and none of
/// them is done twice. Returns the number that was accepted at once.
pub async fn assert_none_lost(server: &TestServer, all: &[Given]) -> usize {
    let accepted = all.iter().filter(|given| given.accepted().is_some()).count();
    for given in all.iter().filter(|given| given.accepted().is_none()) {
        assert!(given.refusal().is_some_and(|why| !why.is_empty()), "{given:?}");
        until(&format!("goal {} to be accepted after all", given.run), async || give(server, &given.key).await.is_ok())
            .await;
    }
    for given in all {
        ended(server, &given.run).await;
        assert_eq!(
            record(server, &given.run).await.status,
            RunStatus::Completed,
            "{:?}",
            result(server, &given.run).await
        );
    }
    server.whole().await;
    server.assert_nothing_left().await;
    for given in all {
        let replies = server.store.results.of_run(&given.run).await.unwrap();
        let failures: Vec<_> = replies.iter().filter_map(|(to, reply)| Some((&to.task, reply.failure()?))).collect();
        assert!(failures.is_empty(), "no task failed for a server's sake: {failures:?}");
        assert_one_of_everything(server, &given.run).await;
        let files = result(server, &given.run).await;
        let read =
            server.store.artifacts.get_all(&given.run, files.artifacts()).await.expect("files that fit their hashes");
        assert_eq!(read.len(), 1, "the one file of the story");
    }
    accepted
}

/// The longest time without an accepted goal, from a moment of trouble on.
pub fn longest_pause(all: &[Given], since: Instant) -> Duration {
    let mut times: Vec<Instant> = all.iter().filter_map(Given::accepted).filter(|at| *at > since).collect();
    times.push(since);
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// What callers were told, and how often, run ids left out.
pub fn refusals(all: &[Given]) -> std::collections::BTreeMap<String, usize> {
    let mut told = std::collections::BTreeMap::new();
    for given in all {
        if let (Some(why), Some((at, _))) = (given.refusal(), &given.answer) {
            let text = format!("{} ({} s)", why.replace(given.run.as_str(), "<run>"), (*at - given.at).as_secs());
            *told.entry(text).or_default() += 1;
        }
    }
    told
}
