//! Who changes shared state is struck: its change is there wholly or not at all, and nobody else's is lost.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};

use oarlock::bus::failpoint::{Fault, Side};
use oarlock::wire::RunId;

use crate::case::{Case, Wake};
use crate::harness::{TestServer, oarlock, until};
use crate::stage::{asleep, server, signal};

const NAMES: [&str; 2] = ["left", "right"];

pub async fn play(case: &Case) {
    for names in [&NAMES[..1], &NAMES[..]] {
        one(case, names).await;
    }
}

async fn one(case: &Case, names: &[&str]) {
    let server = server().await;
    let run = RunId::random();
    let mut first = Update::start(&server, &run, names, Some(case));
    first.struck(case).await;
    let theirs = usize::from(case.side == Side::After);
    assert_eq!(counts(&server, &run, names).await, vec![theirs; names.len()], "all of it or nothing");
    let mut other = Update::start(&server, &run, names, None);
    other.succeeded().await;
    let mut expected = theirs + 1;
    if case.fault == Fault::Stop {
        if case.wake == Wake::Late {
            assert_eq!(counts(&server, &run, names).await, vec![expected; names.len()]);
        }
        signal(first.child.id(), "CONT");
        first.succeeded().await;
        expected = 2;
    }
    assert_eq!(counts(&server, &run, names).await, vec![expected; names.len()], "each change counts once");
}

/// The values of these names, 0 for one that is not there.
async fn counts(server: &TestServer, run: &RunId, names: &[&str]) -> Vec<usize> {
    let all = server.store.state.all(run).await.unwrap();
    let count = |name: &&str| all.get(*name).map_or(0, |entry| usize::try_from(entry.value.as_u64().unwrap()).unwrap());
    names.iter().map(count).collect()
}

/// The user's tool, adding one to some names.
struct Update {
    child: Child,
    log: PathBuf,
}

impl Update {
    fn start(server: &TestServer, run: &RunId, names: &[&str], armed: Option<&Case>) -> Self {
        let log = server.folder.path().join(format!("update-{}.log", rand::random::<u32>()));
        let mut command = oarlock(server);
        command.args(["--server", server.url(), "state", "update", run.as_str()]);
        command.args(names.iter().map(|name| format!("{name}+=1"))).envs(armed.map(Case::variable));
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        Self { child: command.spawn().unwrap(), log }
    }

    fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    async fn ended(&mut self) -> ExitStatus {
        let mut ended = None;
        until("the tool to end", async || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        })
        .await;
        ended.unwrap()
    }

    async fn struck(&mut self, case: &Case) {
        match case.fault {
            Fault::Crash => assert_eq!(self.ended().await.code(), None, "{}", self.log_text()),
            Fault::Stop => asleep(self.child.id(), case).await,
        }
        assert!(self.log_text().contains(&case.last_words()), "{}", self.log_text());
    }

    async fn succeeded(&mut self) {
        assert!(self.ended().await.success(), "{}", self.log_text());
    }
}

impl Drop for Update {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
