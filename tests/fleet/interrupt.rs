//! Ctrl-C while a run is waited for: what becomes of the run is the person's choice, asked for on a terminal.

use std::process::{Command, Stdio};

use oarlock::wire::{EventKind, Role, RunId, RunStatus};

use crate::harness::{Ended, TestServer, Worker, ended, have, oarlock, until};
use crate::story::{Ear, SLOW_CAST, cast, record, slow_story};

/// Runs a command on a terminal of its own: for each pair, waits for the words and then types. Prints what was shown, and
/// ends as the command did.
const TYPIST: &str = r#"
import os, pty, select, sys, time
split = sys.argv.index("--")
steps, command = sys.argv[1:split], sys.argv[split + 1:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(command[0], command)
shown, looked, deadline = b"", 0, time.time() + 50
while time.time() < deadline:
    if steps and steps[0].encode() in shown[looked:]:
        looked = len(shown)
        os.write(terminal, steps[1].encode().decode("unicode_escape").encode())
        steps = steps[2:]
    if select.select([terminal], [], [], 0.05)[0]:
        try:
            got = os.read(terminal, 65536)
        except OSError:
            break
        if not got:
            break
        shown += got
sys.stdout.write(shown.decode(errors="replace"))
if steps:
    sys.stdout.write("\nnever seen: " + steps[0])
    os.kill(pid, 9)
ended = os.waitpid(pid, 0)[1]
sys.exit(os.waitstatus_to_exitcode(ended) % 256)
"#;

/// A fleet whose documenter takes so long, and what is heard of it.
async fn fleet(latency_ms: u64) -> (TestServer, Vec<Worker>, Ear) {
    let server = TestServer::start().await;
    let workers = cast(&server, &slow_story(latency_ms), &[&SLOW_CAST[..], &[Role::Orchestrator]].concat()).await;
    let events = Ear::on(&server, "oarlock.event.>").await;
    (server, workers, events)
}

/// `oarlock run`, interrupted when the documenter is at work; and its run.
async fn interrupted(server: &TestServer, events: &Ear, number: usize, arguments: &[&str]) -> (Ended, RunId) {
    let mut command = oarlock(server);
    command.args(["run", "make it", "--server", server.url()]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    let (_, started) = events.event(EventKind::Started, Some(Role::Documenter), number).await;
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = tokio::time::timeout(crate::harness::WAIT, child.wait_with_output()).await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }, started.run)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_a_flag_decides_and_nobody_is_asked() {
    let (server, _fleet, events) = fleet(3_000).await;
    let (said, canceled) = interrupted(&server, &events, 1, &["--on-interrupt", "cancel"]).await;
    assert!(said.code == Some(130) && said.err.contains("is canceled"), "{said:?}");
    assert_eq!(record(&server, &canceled).await.status, RunStatus::Canceled);
    let mut left = Vec::new();
    for (number, arguments) in [(2, &["--on-interrupt", "detach"][..]), (3, &[])] {
        let (said, run) = interrupted(&server, &events, number, arguments).await;
        assert!(said.code == Some(130) && said.err.contains(&format!("oarlock show {run}")), "{said:?}");
        assert!(!said.err.contains("[d]etach"), "{said:?}");
        left.push(run);
    }
    for run in left {
        assert_eq!(crate::story::ended(&server, &run).await.status, RunStatus::Completed);
    }
    server.assert_nothing_left().await;
}

/// A fleet that was started for this run alone ends with it, whole.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_of_its_own_is_gone_after_ctrl_c() {
    use crate::cancel::{alive, below};
    let server = TestServer::bare().await;
    let script = server.file("script.json", &slow_story(60_000));
    for choice in ["cancel", "detach"] {
        let mut command = oarlock(&server);
        command.args(["run", "make it", "--on-interrupt", choice, "--script"]).arg(&script);
        let errors = server.folder.path().join(format!("{choice}.log"));
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&errors).unwrap());
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
        let pid = child.id().unwrap();
        let said = || std::fs::read_to_string(&errors).unwrap();
        until("the researcher to be done", async || said().contains("t1")).await;
        let processes = below(pid);
        assert!(processes.len() > 8, "eight roles and a server: {processes:?}");
        assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap().success());
        let status = tokio::time::timeout(crate::harness::WAIT, child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(130), "{choice}: {}", said());
        assert_eq!(said().contains("is canceled"), choice == "cancel", "{choice}: {}", said());
        until("all its processes to be gone", async || !processes.iter().any(alive)).await;
    }
}

/// True when there is what types; the test that asks is left out otherwise.
pub fn can_type() -> bool {
    let python = Command::new("python3").args(["-c", "import pty"]).status().is_ok_and(|status| status.success());
    have("python-pty", python, "a python3 with the module pty")
}

/// `oarlock run` on a terminal, with what is typed when.
pub async fn typed(server: &TestServer, steps: &[&str], arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let run = oarlock(server);
    let mut command = Command::new("python3");
    command.current_dir(server.folder.path()).env("TERM", "xterm");
    crate::harness::clean(&mut command);
    command.env("TMPDIR", server.folder.path()).envs(variables.iter().copied());
    command.args(["-c", TYPIST]).args(steps).arg("--").arg(run.get_program());
    command.args(["run", "make it", "--server", server.url()]).args(arguments);
    ended(command, b"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_the_person_is_asked() {
    if !can_type() {
        return;
    }
    let (server, _fleet, events) = fleet(3_000).await;
    let question = "[c]ancel it?";
    let mut left = Vec::new();
    for (number, answer, status) in [
        (1, "c\\r", RunStatus::Canceled),
        (2, "d\\r", RunStatus::Completed),
        (3, "\\x03", RunStatus::Completed),
        (4, "\\r", RunStatus::Completed),
    ] {
        // The words of the documenter's task are shown when it is under way.
        let seen = typed(&server, &["part 2", "\\x03", question, answer], &[], &[]).await;
        assert!(seen.code == Some(130) && !seen.out.contains("never seen"), "{answer}: {seen:?}");
        let (_, started) = events.event(EventKind::Started, Some(Role::Documenter), number).await;
        assert_eq!(seen.out.contains("is canceled"), status == RunStatus::Canceled, "{answer}: {seen:?}");
        if status == RunStatus::Canceled {
            assert_eq!(record(&server, &started.run).await.status, status, "{answer}: {seen:?}");
        }
        left.push((started.run, status));
    }
    for (run, status) in left {
        until(&format!("run {run} to be {}", status.name()), async || record(&server, &run).await.status == status)
            .await;
    }
    server.assert_nothing_left().await;
}
