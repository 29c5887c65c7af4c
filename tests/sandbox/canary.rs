//! Something worth stealing: private files, a process with a key in its environment, and servers that really listen.
//!
//! Everything belongs to the user that the sandbox runs as, so that only the wall protects it.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener as StdUnixListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::{Gid, Uid, chown};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket, UnixDatagram, UnixListener};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::harness::{Case, Report, python};

const NOBODY: u32 = 65_534;

/// Longest wait for something that has to vanish.
const VANISH_WAIT: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(10);

/// Runs every test of a file without pytest and without a sandbox.
const CONTROL: &str = "import glob, runpy
for file in glob.glob('test_*.py'):
    module = runpy.run_path(file)
    [module[name]() for name in module if name.startswith('test_')]";

pub struct Canary {
    directory: TempDir,
    /// The secret: short enough for the name of a process.
    pub word: String,
    victim: Child,
    /// The secret again, open and inheritable by every process that is started meanwhile.
    _left_open: File,
    tcp: u16,
    udp: u16,
    visits: Arc<AtomicU32>,
    _servers: JoinSet<()>,
}

impl Canary {
    pub async fn hatch() -> Canary {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let word = format!("oc{:x}x{:x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::Builder::new().prefix("oarlock-canary-").tempdir_in("/tmp").unwrap();
        let path = directory.path();
        fs::create_dir(path.join(".ssh")).unwrap();
        for file in ["secret", ".ssh/id_rsa"] {
            fs::write(path.join(file), &word).unwrap();
            fs::set_permissions(path.join(file), Permissions::from_mode(0o600)).unwrap();
        }
        let visits = Arc::new(AtomicU32::new(0));
        let mut servers = JoinSet::new();
        let (tcp, udp) = serve_network(&mut servers, &visits).await;
        serve_unix(&mut servers, &visits, path, &word);
        for entry in ["", "secret", ".ssh", ".ssh/id_rsa", "stream.sock", "datagram.sock"] {
            give_away(&path.join(entry));
        }
        let mut sleep = Command::new("sleep");
        sleep.arg("600").env_clear().env("OARLOCK_KEY", &word).kill_on_drop(true);
        let victim = as_sandbox_user(&mut sleep).spawn().unwrap();
        let left_open = File::open(path.join("secret")).unwrap();
        fcntl(&left_open, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        Canary { directory, word, victim, _left_open: left_open, tcp, udp, visits, _servers: servers }
    }

    /// A Python module that tells the attack where to look.
    pub fn parameters(&self) -> String {
        let path = self.directory.path().display();
        format!(
            "DIRECTORY = '{path}'\nHOME = '{path}'\nCANARY = '{0}'\nABSTRACT = '{0}'\n\
             VICTIM = {1}\nTCP = {2}\nUDP = {3}\n",
            self.word,
            self.victim.id().unwrap_or(0),
            self.tcp,
            self.udp
        )
    }

    /// Runs an attack as plain code of the sandbox user.
    pub async fn attacked_without_sandbox(&self, case: &Case) -> Result<(), String> {
        let directory = tempfile::Builder::new().prefix("oarlock-control-").tempdir_in("/tmp").unwrap();
        for (name, content) in &case.files {
            fs::write(directory.path().join(name), content).unwrap();
            give_away(&directory.path().join(name));
        }
        give_away(directory.path());
        let mut command = Command::new(python().await.executable());
        command.args(["-B", "-c", CONTROL]).current_dir(directory.path()).env_clear().env("OARLOCK_KEY", &self.word);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = as_sandbox_user(&mut command).output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(text.lines().last().unwrap_or_default().to_owned()) }
    }

    /// Nothing was changed, nobody was spoken to, nothing is left.
    pub async fn check(mut self, report: &mut Report) {
        let path = self.directory.path();
        for file in ["secret", ".ssh/id_rsa"] {
            let content = fs::read_to_string(path.join(file)).unwrap_or_default();
            report.expect(content == self.word, || format!("{file} was changed to {content:?}"));
            let mode = fs::metadata(path.join(file)).map_or(0, |status| status.mode() & 0o777);
            report.expect(mode == 0o600, || format!("{file} now has mode {mode:o}"));
        }
        let entries: BTreeSet<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        report.expect(entries.len() == 4, || format!("the private directory holds {entries:?}"));
        let visits = self.visits.load(Ordering::Relaxed);
        report.expect(visits == 0, || format!("{visits} connections or datagrams came out"));
        let victim = self.victim.try_wait().unwrap();
        report.expect(victim.is_none(), || format!("the other process ended: {victim:?}"));
        self.victim.kill().await.unwrap();
        let word = self.word.clone();
        vanished(report, "processes", || processes_named(&word)).await;
        vanished(report, "run directories", || run_directories_of(&word)).await;
    }
}

async fn serve_network(servers: &mut JoinSet<()>, visits: &Arc<AtomicU32>) -> (u16, u16) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let ports = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
    let seen = Arc::clone(visits);
    servers.spawn(async move {
        while let Ok((stream, _)) = tcp.accept().await {
            seen.fetch_add(1, Ordering::Relaxed);
            answer(stream).await;
        }
    });
    let seen = Arc::clone(visits);
    servers.spawn(async move {
        let mut buffer = [0; 100];
        while let Ok((_, sender)) = udp.recv_from(&mut buffer).await {
            seen.fetch_add(1, Ordering::Relaxed);
            udp.send_to(b"hello", sender).await.unwrap();
        }
    });
    ports
}

fn serve_unix(servers: &mut JoinSet<()>, visits: &Arc<AtomicU32>, path: &Path, word: &str) {
    let address = SocketAddr::from_abstract_name(word).unwrap();
    let abstract_listener = StdUnixListener::bind_addr(&address).unwrap();
    abstract_listener.set_nonblocking(true).unwrap();
    let listeners =
        [UnixListener::bind(path.join("stream.sock")).unwrap(), UnixListener::from_std(abstract_listener).unwrap()];
    for listener in listeners {
        let seen = Arc::clone(visits);
        servers.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                seen.fetch_add(1, Ordering::Relaxed);
                answer(stream).await;
            }
        });
    }
    let datagrams = UnixDatagram::bind(path.join("datagram.sock")).unwrap();
    let seen = Arc::clone(visits);
    servers.spawn(async move {
        while datagrams.recv(&mut [0; 100]).await.is_ok() {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    });
}

async fn answer(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    if stream.read(&mut [0; 100]).await.is_ok() {
        // A visitor who left early is a visitor all the same.
        let _ = stream.write_all(b"hello").await;
    }
}

/// Waits until nothing is left, and complains about the rest.
pub async fn vanished(report: &mut Report, what: &str, left: impl Fn() -> Vec<String>) {
    let deadline = Instant::now() + VANISH_WAIT;
    let mut rest = left();
    while !rest.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
        rest = left();
    }
    report.expect(rest.is_empty(), || format!("{what} are left: {rest:?}"));
}

/// Processes whose name or arguments hold this word.
pub fn processes_named(word: &str) -> Vec<String> {
    named(word).into_iter().map(|(_, line)| line).collect()
}

/// The users that these processes belong to.
pub fn users_of(word: &str) -> BTreeSet<u32> {
    named(word).iter().filter_map(|(path, _)| Some(fs::metadata(path).ok()?.uid())).collect()
}

fn named(word: &str) -> Vec<(PathBuf, String)> {
    let text = |path: PathBuf| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
    let line = |path: &PathBuf| [text(path.join("comm")), text(path.join("cmdline"))].into_iter().flatten().collect();
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    entries
        .map(|path| (path.clone(), line(&path)))
        .filter(|(_, line): &(PathBuf, String)| line.contains(word))
        .collect()
}

/// Run directories that hold this word, and ruins of any.
pub fn run_directories_of(word: &str) -> Vec<String> {
    let entries = fs::read_dir("/tmp").unwrap().flatten().map(|entry| entry.path());
    let runs = entries.filter(|path| path.to_string_lossy().contains("oarlock-pytest-"));
    let ours = |path: &PathBuf| match fs::read_to_string(path.join("source/parameters.py")) {
        Ok(text) => text.contains(word),
        Err(_) => {
            fs::metadata(path).is_ok_and(|status| status.uid() == sandbox_user()) && !path.join("source").exists()
        }
    };
    runs.filter(ours).map(|path| path.display().to_string()).collect()
}

/// The user that sandboxed code runs as.
pub fn sandbox_user() -> u32 {
    if Uid::effective().is_root() { NOBODY } else { Uid::effective().as_raw() }
}

fn as_sandbox_user(command: &mut Command) -> &mut Command {
    if Uid::effective().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn give_away(path: &Path) {
    if Uid::effective().is_root() {
        chown(path, Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY))).unwrap();
    }
}
