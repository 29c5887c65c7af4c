//! Each kind of login that the `nats` tool has, at a real server that takes no other: by the tool's own variables, and by a
//! context that it saved. The keys are made by `nats auth` and `openssl`.

use std::path::Path;
use std::process::Command;

use oarlock::wire::Role;

use crate::contexts::{Closed, nats, with};
use crate::harness::{TestServer, Worker, clean, ended, have};
use crate::nats_cli::{GET_IT, cli};

/// A server, who gets in, by variables and by a context, and who does not.
struct Door<'a> {
    closed: &'a Closed,
    right: &'a [(&'a str, &'a str)],
    context: &'a [&'a str],
    wrong: &'a [(&'a str, &'a str)],
    /// Exit code of who is not let in.
    refused: i32,
}

impl Door<'_> {
    /// An orchestrator gets in by the variables, the tool by either; without a login, and with a wrong one, nobody does.
    async fn opens(&self, open: &TestServer) {
        let url = self.closed.url.as_str();
        let mut orchestrator = Worker::spawn_at(open, Role::Orchestrator, &["--server", url], |command| {
            command.envs(self.right.iter().copied());
        });
        orchestrator.ready(open).await;
        nats(open, &[&["context", "save", "door", "--server", url], self.context].concat()).await;
        for (variables, arguments, code) in [
            (self.right, &["ps", "--server", url][..], 0),
            (&[], &["ps", "--context", "door"], 0),
            (&[], &["ps", "--server", url], self.refused),
            (self.wrong, &["ps", "--server", url], self.refused),
        ] {
            let ended = with(open, variables, arguments).await;
            assert_eq!(ended.code, Some(code), "{variables:?} {arguments:?}: {ended:?}");
        }
    }
}

async fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(arguments.split_whitespace());
    let ended = ended(command, b"").await;
    assert_eq!(ended.code, Some(0), "openssl {arguments}: {ended:?}");
}

/// `ca.pem`, and signed by it `server.pem` and `client.pem`, each with its key beside it; `stranger.pem` is signed by itself.
async fn certificates(folder: &Path) {
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    openssl(folder, &format!("{new} -subj /CN=ca -keyout ca.key -out ca.pem")).await;
    let leaf = "-addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1";
    for name in ["server", "client"] {
        let files = format!("-subj /CN={name} -keyout {name}.key -out {name}.pem");
        openssl(folder, &format!("{new} {files} {leaf} -CA ca.pem -CAkey ca.key")).await;
    }
    openssl(folder, &format!("{new} -subj /CN=stranger -keyout stranger.key -out stranger.pem {leaf}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_door() {
    if !have("nats-cli", cli().is_some(), GET_IT) {
        return;
    }
    let open = TestServer::bare().await;
    let closed = Closed::start(&open, "authorization { token: \"s3cr3t t\" }").await;
    let right = [("NATS_TOKEN", "s3cr3t t")];
    // `nats context save` keeps no --token; its --user is "username or token".
    let context = ["--user", "s3cr3t t"];
    Door { closed: &closed, right: &right, context: &context, wrong: &[("NATS_TOKEN", "other")], refused: 4 }
        .opens(&open)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_opens_the_door() {
    let has_openssl = Command::new("openssl").arg("version").output().is_ok();
    if !have("nats-cli", cli().is_some(), GET_IT) || !have("openssl", has_openssl, "apt-get install openssl") {
        return;
    }
    let open = TestServer::bare().await;
    let folder = open.folder.path();
    certificates(folder).await;
    let file = |name: &str| folder.join(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let (server_cert, server_key) = (file("server.pem"), file("server.key"));
    let tls = format!("tls {{ cert_file: {server_cert:?}, key_file: {server_key:?}, ca_file: {ca:?}, verify: true }}");
    let closed = Closed::start(&open, &tls).await;
    let right = [("NATS_CA", ca.as_str()), ("NATS_CERT", &cert), ("NATS_KEY", &key)];
    let (other_cert, other_key) = (file("stranger.pem"), file("stranger.key"));
    let wrong = [("NATS_CA", ca.as_str()), ("NATS_CERT", &other_cert), ("NATS_KEY", &other_key)];
    let context = ["--tlsca", &ca, "--tlscert", &cert, "--tlskey", &key];
    // The connection itself does not come about.
    Door { closed: &closed, right: &right, context: &context, wrong: &wrong, refused: 8 }.opens(&open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_open_the_door_as_a_file_and_as_a_text() {
    if !have("nats-cli", cli().is_some(), GET_IT) {
        return;
    }
    let open = TestServer::bare().await;
    let folder = open.folder.path();
    let [creds, other] = ["bob.creds", "eve.creds"].map(|name| folder.join(name).display().to_string());
    auth(&open, &["operator", "add", "OP", "--signing-key"]).await;
    let limits = ["--js-disk", "1GB", "--js-memory", "100MB", "--js-streams", "100", "--js-consumers", "1000"];
    let account = ["account", "add", "ACC", "--operator", "OP", "--defaults", "--jetstream"];
    auth(&open, &[&account[..], &limits].concat()).await;
    for (name, file) in [("bob", &creds), ("eve", &other)] {
        auth(&open, &["user", "add", name, "ACC", "--operator", "OP", "--defaults", "--credential", file]).await;
    }
    let store = folder.join("data/nats/nsc/stores/OP");
    let jwt = |path: &str| std::fs::read_to_string(store.join(path)).unwrap().trim().to_owned();
    let (account, system) = (jwt("accounts/ACC/ACC.jwt"), jwt("accounts/SYSTEM/SYSTEM.jwt"));
    let logins = format!(
        "operator: {:?}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{ {}: {account}, {}: {system} }}",
        jwt("OP.jwt"),
        subject_of(&system),
        subject_of(&account),
        subject_of(&system),
    );
    let closed = Closed::start(&open, &logins).await;
    let line = |file: &str, start: &str| {
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().find(|line| line.starts_with(start)).unwrap().to_owned()
    };
    let (user, seed, other_seed) = (line(&creds, "ey"), line(&creds, "SU"), line(&other, "SU"));
    let file = [("NATS_CREDS", creds.as_str())];
    // A good seed that is not this user's.
    let wrong = [("NATS_JWT", user.as_str()), ("NATS_SEED", &other_seed)];
    let context = ["--creds", creds.as_str()];
    let door = Door { closed: &closed, right: &file, context: &context, wrong: &wrong, refused: 4 };
    door.opens(&open).await;
    let both = [("NATS_JWT", user.as_str()), ("NATS_SEED", &seed)];
    let ended = with(&open, &both, &["ps", "--server", &closed.url]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// `nats auth`, whose store is in the test's folder.
async fn auth(server: &TestServer, arguments: &[&str]) {
    let mut command = Command::new(cli().unwrap());
    clean(&mut command);
    let folder = server.folder.path();
    command.current_dir(folder).env("HOME", folder).env("XDG_DATA_HOME", folder.join("data"));
    command.env("XDG_CONFIG_HOME", folder.join("config")).arg("auth").args(arguments);
    let ended = ended(command, b"").await;
    assert_eq!(ended.code, Some(0), "nats auth {arguments:?}: {ended:?}");
}

/// Whom a token of `nats auth` is about: the `sub` of its middle part.
fn subject_of(jwt: &str) -> String {
    let middle = jwt.split('.').nth(1).unwrap();
    let json = data_encoding::BASE64URL_NOPAD.decode(middle.as_bytes()).unwrap();
    serde_json::from_slice::<serde_json::Value>(&json).unwrap()["sub"].as_str().unwrap().to_owned()
}
