//! Contexts that the real `nats` CLI saves and selects, and the variables that it reads: the tool goes where they say, and
//! says who sent it there when that fails.

use std::process::{Child, Command, Stdio};

use crate::harness::{Ended, Fleet, TestServer, Worker, clean, ended, have, sources, until};
use crate::nats_cli::{GET_IT, cli};
use crate::tool::{ANSWER, assert_ended, script, tool};
use oarlock::wire::Role;

/// Nobody listens here.
const NOWHERE: &str = "nats://127.0.0.1:9";

/// Runs `nats` with contexts of this test's own.
pub async fn nats(server: &TestServer, arguments: &[&str]) {
    let mut command = Command::new(cli().unwrap());
    clean(&mut command);
    command.current_dir(server.folder.path()).env("HOME", server.folder.path());
    command.env("XDG_CONFIG_HOME", server.folder.path().join("config")).args(arguments);
    let ended = ended(command, b"").await;
    assert_eq!(ended.code, Some(0), "nats {arguments:?}: {ended:?}");
}

/// Runs the tool with the same contexts, and with these variables.
pub async fn with(server: &TestServer, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = tool(server, arguments);
    command.env("XDG_CONFIG_HOME", server.folder.path().join("config")).envs(variables.iter().copied());
    ended(command, b"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_of_the_nats_cli_names_the_server() {
    if !have("nats-cli", cli().is_some(), GET_IT) {
        return;
    }
    let fleet = Fleet::start(&script()).await;
    nats(&fleet, &["context", "save", "team", "--server", fleet.url(), "--description", "ours", "--select"]).await;
    nats(&fleet, &["context", "save", "away", "--server", NOWHERE]).await;
    let ran = with(&fleet, &[], &["run", "a goal in words"]).await;
    assert_ended(&ran, 0, "model calls");
    assert_eq!(ran.out, format!("{ANSWER}\n"));

    let missing = with(&fleet, &[], &["show", "nobody"]).await;
    assert_ended(&missing, 3, "the one of the selected nats context \"team\"");
    let url = fleet.url();
    for (variables, arguments, code, says) in [
        (&[][..], &["ps", "--context", "team"][..], 0, ""),
        (&[("NATS_CONTEXT", "team")], &["ps"], 0, ""),
        (&[("NATS_CONTEXT", "away")], &["ps"], 8, "the nats context \"away\""),
        (&[("NATS_CONTEXT", "away")], &["ps", "--context", "team"], 0, ""),
        (&[("NATS_CONTEXT", "away"), ("NATS_URL", url)], &["ps"], 0, ""),
        (&[("NATS_CONTEXT", "away")], &["ps", "--server", url], 0, ""),
        // A server that is named for Oarlock alone has nothing to do with a context, not even with a broken one.
        (&[("NATS_CONTEXT", "nobody")], &["ps", "--server", url], 0, ""),
        (&[("NATS_CONTEXT", "nobody"), ("OARLOCK_SERVER", url)], &["ps"], 0, ""),
        (&[("NATS_CONTEXT", "nobody"), ("NATS_URL", url)], &["ps"], 2, "`nats context ls` lists"),
        (&[("NATS_URL", url)], &["ps", "--context", "away"], 8, "config/nats/context/away.json"),
        (&[], &["ps", "--server", NOWHERE], 8, "failed to reach NATS at nats://127.0.0.1:9"),
        (&[], &["ps", "--context", "nobody"], 2, "`nats context ls` lists"),
        (&[], &["ps", "--context", "../team"], 2, "is no name of a nats context"),
        (&[], &["ps", "--context", "team", "--no-context"], 2, "cannot be used with"),
        (&[("NATS_SOCKS_PROXY", "socks5://127.0.0.1:1")], &["ps"], 2, "NATS_SOCKS_PROXY is set"),
        (&[("NATS_TIMEOUT", "soon")], &["ps"], 2, "NATS_TIMEOUT is \"soon\""),
        (&[("NATS_TIMEOUT", "3s")], &["ps"], 0, ""),
        (&[("NATS_CERT", "c.pem")], &["ps"], 2, "NATS_CERT is set without NATS_KEY"),
        (&[("NATS_JWT", "x")], &["ps"], 2, "NATS_JWT is set without NATS_SEED"),
    ] {
        let ended = with(&fleet, variables, arguments).await;
        assert_eq!(ended.code, Some(code), "{variables:?} {arguments:?}: {ended:?}");
        assert!(ended.err.contains(says), "{variables:?} {arguments:?}: {ended:?}");
    }
    let proxied = fleet.folder.path().join("config/nats/context/team.json");
    let text = std::fs::read_to_string(&proxied).unwrap().replace("\"socks_proxy\": \"\"", "\"socks_proxy\": \"s\"");
    std::fs::write(&proxied, text).unwrap();
    assert_ended(&with(&fleet, &[], &["ps"]).await, 2, "socks_proxy is set, which Oarlock cannot follow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selected_context_that_is_down_is_in_nobody_s_way() {
    if !have("nats-cli", cli().is_some(), GET_IT) {
        return;
    }
    let server = TestServer::bare().await;
    nats(&server, &["context", "save", "away", "--server", NOWHERE, "--select"]).await;
    server.file("script.json", &script());
    for arguments in [&["run", "x"][..], &["ps"]] {
        let ended = with(&server, &[], arguments).await;
        assert_ended(&ended, 8, "the selected nats context \"away\"");
        let file = "config/nats/context/away.json";
        assert!(ended.err.contains(file) && ended.err.contains("--no-context"), "{ended:?}");
    }
    assert_ended(&with(&server, &[], &["run", "x", "--no-context", "--server", NOWHERE]).await, 8, "failed to reach");
    // A fleet of one's own asks no context, not even a broken one.
    std::fs::write(server.folder.path().join("config/nats/context/away.json"), "{oops").unwrap();
    let own = with(&server, &[], &["run", "a goal in words", "--script", "script.json"]).await;
    assert_ended(&own, 0, "model calls");
    assert_eq!(own.out, format!("{ANSWER}\n"));
    assert_ended(&with(&server, &[], &["ps"]).await, 2, "it is no context in JSON");
}

/// A server that wants a login, killed when this is dropped.
pub struct Closed {
    server: Child,
    pub url: String,
}

impl Closed {
    /// One in the folder of another test's server, with this about its logins in its configuration.
    pub async fn start(of: &TestServer, logins: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let store = of.folder.path().join("closed");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {:?} }}\n{logins}\n",
            store.display().to_string()
        );
        let config = of.file("closed.conf", &text);
        let mut command = Command::new(sources().find().await.unwrap());
        command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let closed = Self { server: command.spawn().unwrap(), url: format!("nats://127.0.0.1:{port}") };
        until("the closed server to listen", async || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
        closed
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_login_of_a_context_is_used_and_goes_nowhere_else() {
    if !have("nats-cli", cli().is_some(), GET_IT) {
        return;
    }
    let open = TestServer::bare().await;
    let closed = Closed::start(&open, "authorization { user: u, password: \"p w\" }").await;
    let url = closed.url.as_str();
    nats(&open, &["context", "save", "closed", "--server", url, "--user", "u", "--password", "p w"]).await;
    nats(&open, &["context", "save", "stranger", "--server", url]).await;
    let config = open.folder.path().join("config");
    let mut orchestrator = Worker::spawn_at(&open, Role::Orchestrator, &["--context", "closed"], |command| {
        command.env("XDG_CONFIG_HOME", &config);
    });
    orchestrator.ready(&open).await;
    nats(&open, &["context", "select", "closed"]).await;
    let login = [("NATS_USER", "u"), ("NATS_PASSWORD", "p w")];
    for (variables, arguments, code) in [
        (&[][..], &["ps"][..], 0),
        (&[], &["ps", "--context", "closed"], 0),
        (&[], &["ps", "--context", "stranger"], 4),
        (&login, &["ps", "--context", "stranger"], 0),
        (&login, &["ps", "--server", url], 0),
        // The login of a selected context belongs to its server; who names another one names the login too.
        (&[], &["ps", "--server", url], 4),
        (&[], &["ps", "--server", url, "--context", "closed"], 0),
    ] {
        let ended = with(&open, variables, arguments).await;
        assert_eq!(ended.code, Some(code), "{variables:?} {arguments:?}: {ended:?}");
    }
}
