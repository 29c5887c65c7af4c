//! The tool in a shell: help, completions, manual pages, a new project, colours, and what is printed where nobody watches.

use std::path::Path;
use std::process::Command;

use crate::harness::{Ended, Fleet, TestServer, ended, have, scripts};
use crate::snapshot::{alike, assert_snapshot};
use crate::tool::{alone, assert_ended, tool};

async fn with(server: &TestServer, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = tool(server, arguments);
    command.envs(variables.iter().copied());
    ended(command, b"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn help_tells_of_every_verb_and_flag() {
    let server = TestServer::bare().await;
    let mut text = String::new();
    let mut left: Vec<(Vec<String>, clap::Command)> = vec![(Vec::new(), oarlock::cli::command())];
    while let Some((path, command)) = left.pop() {
        let words: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = with(&server, &[("COLUMNS", "110")], &words).await;
        assert!(help.code == Some(0) && !help.out.contains('\u{1b}'), "{help:?}");
        text += &format!("$ oarlock {}\n{}\n", words.join(" "), help.out);
        let verbs: Vec<_> = command.get_subcommands().filter(|verb| verb.get_name() != "help").cloned().collect();
        for verb in verbs.into_iter().rev() {
            left.push((path.iter().cloned().chain([verb.get_name().to_owned()]).collect(), verb));
        }
    }
    assert_snapshot("help", &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_completes_and_a_manual_opens() {
    let server = TestServer::bare().await;
    for (shell, says) in [
        ("bash", "complete -F _oarlock"),
        ("zsh", "#compdef oarlock"),
        ("fish", "complete -c oarlock"),
        ("powershell", "Register-"),
    ] {
        let script = alone(&server, &["completions", shell]).await;
        assert!(script.code == Some(0) && script.out.contains(says) && script.out.contains("artifacts"), "{shell}");
        server.file(&format!("{shell}.completion"), &script.out);
    }
    // What bash makes of it: the words that a person would get after `oarlock com<tab>`.
    let mut command = Command::new("bash");
    command.current_dir(server.folder.path()).arg("-c").arg(
        "source bash.completion; COMP_WORDS=(oarlock com); COMP_CWORD=1; _oarlock oarlock com oarlock; echo ${COMPREPLY[@]}",
    );
    let completed = ended(command, b"").await;
    assert_eq!((completed.code, completed.out.trim()), (Some(0), "completions"), "{completed:?}");

    let page = alone(&server, &["man"]).await;
    assert!(page.code == Some(0) && page.out.contains(".TH oarlock 1"), "{page:?}");
    assert_ended(&alone(&server, &["man", "pages"]).await, 0, "oarlock.1");
    for name in ["oarlock.1", "oarlock-run.1", "oarlock-state-get.1"] {
        assert!(server.folder.path().join("pages").join(name).is_file(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_project_is_read_and_never_overwritten() {
    let server = TestServer::bare().await;
    let written = alone(&server, &["init", "mine"]).await;
    assert_ended(&written, 0, "next: cd mine; oarlock doctor");
    let names: Vec<&str> = written.out.lines().collect();
    assert!(names.len() == 11 && names.contains(&"mine/roles/coder.md"), "{names:?}");
    let mine = server.folder.path().join("mine");
    let within = async |arguments: &[&str]| {
        let mut command = tool(&server, arguments);
        command.current_dir(&mine);
        ended(command, b"").await
    };
    let named = ["ls", "--server", "nats://127.0.0.1:9"];
    assert_ended(&within(&named).await, 8, "failed to reach NATS");
    // The roles of the project are in force, also for who stands elsewhere.
    let coder = mine.join("roles/coder.md");
    let text = std::fs::read_to_string(&coder).unwrap();
    std::fs::write(&coder, text.replace("slots: 4", "slots: many")).unwrap();
    assert_ended(&within(&named).await, 2, "roles/coder.md cannot be used");
    let elsewhere = [&["--config", "mine/oarlock.toml"], &named[..]].concat();
    assert_ended(&alone(&server, &elsewhere).await, 2, "roles/coder.md cannot be used");

    let again = within(&["init"]).await;
    assert_ended(&again, 5, "./roles/coder.md");
    assert!(again.err.contains("nothing was written"), "{again:?}");
    assert!(std::fs::read_to_string(&coder).unwrap().contains("slots: many"), "it was overwritten");
    assert_ended(&within(&["init", "--force"]).await, 0, "next: oarlock doctor");
    assert_eq!(std::fs::read_to_string(&coder).unwrap(), text);
    assert_ended(&within(&named).await, 8, "failed to reach NATS");
    std::fs::remove_dir_all(mine.join("roles")).unwrap();
    // A link may lead anywhere.
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), mine.join("roles")).unwrap();
    assert_ended(&within(&["init", "--force"]).await, 5, "roles: it is a link");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    std::fs::remove_file(mine.join("roles")).unwrap();
    assert_ended(&within(&named).await, 2, "`oarlock init` writes the built-in ones");
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_where_they_are_wanted_and_questions_nowhere() {
    let server = TestServer::start().await;
    let doctor = ["doctor", "--server", server.url()];
    for (variables, flags, coloured) in [
        (&[][..], &[][..], false),
        (&[], &["--color", "always"], true),
        (&[("CLICOLOR_FORCE", "1")], &[], true),
        (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], &[], false),
        (&[("CLICOLOR_FORCE", "1")], &["--color=never"], false),
        (&[("NO_COLOR", "1")], &["--color=always"], true),
    ] {
        let words = [&doctor[..], flags].concat();
        let seen = with(&server, variables, &words).await;
        assert_eq!(seen.out.contains("\u{1b}[3"), coloured, "{variables:?} {flags:?}: {seen:?}");
        let help = with(&server, variables, &[&["ps", "--help"][..], flags].concat()).await;
        assert_eq!(help.out.contains('\u{1b}'), coloured, "{variables:?} {flags:?}: {help:?}");
    }
    for (arguments, says) in [
        (&["run", "x", "--no-input", "--on-interrupt", "ask"][..], "--on-interrupt detach"),
        (&["retry", "abc", "--edit", "--no-input"], "--edit opens an editor"),
    ] {
        assert_ended(&alone(&server, arguments).await, 2, says);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_clean_where_nobody_watches() {
    let fleet = Fleet::start(scripts::FIBONACCI).await;
    let arguments = ["run", "Write a function to calculate fibonacci", "--server", fleet.url(), "--out", "made"];
    let ran = alone(&fleet, &arguments).await;
    assert_ended(&ran, 0, "pytest passed: 12 of 12");
    for text in [&ran.out, &ran.err] {
        assert!(!text.contains(['\u{1b}', '\r']), "commands to a terminal in a pipe: {text:?}");
    }
    let run = ran.err.lines().find_map(|line| line.strip_prefix("run ")).unwrap();
    // What ends in parallel comes in any order.
    let mut lines: Vec<&str> = ran.err.lines().collect();
    let plan = lines.iter().position(|line| line.contains("plan: 5 tasks")).unwrap();
    lines[plan + 6..].sort_unstable();
    let lines: Vec<String> = lines.iter().map(|line| at_home(line)).collect();
    assert_snapshot("run", &alike(&lines.join("\n"), run));
    let quiet = alone(&fleet, &[&arguments[..], &["--quiet"]].concat()).await;
    assert_eq!((quiet.code, quiet.err.as_str()), (Some(0), ""), "{quiet:?}");
}

/// A line without the name of the process that tells it.
fn at_home(line: &str) -> String {
    match line.split_once("orchestrator@") {
        Some((before, _)) => format!("{before}orchestrator@host:1"),
        None => line.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_shells_take_their_completions() {
    let server = TestServer::bare().await;
    for (shell, check) in [("zsh", "zsh -n it"), ("fish", "fish --no-execute it")] {
        let there = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|folder| Path::new(&folder).join(shell).is_file());
        if have(shell, there, &format!("apt-get install {shell}")) {
            server.file("it", &alone(&server, &["completions", shell]).await.out);
            let mut command = Command::new("sh");
            command.current_dir(server.folder.path()).arg("-c").arg(check);
            assert_eq!(ended(command, b"").await.code, Some(0), "{shell}");
        }
    }
}
