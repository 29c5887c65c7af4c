//! What these tests take from the machine: file systems of their own, and servers with any configuration on them.
//! Everything is given back when it is dropped, also by a test that fails.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oarlock::bus::{Bus, Credentials, Embedded, EmbeddedConfig, Server, ServerSources, Storage};
use oarlock::store::Store;
use oarlock::wire::Root;

use crate::harness::{TestServer, have, sources, until};

/// How long a file system may be busy with a process that was just killed.
const BUSY_S_MAX: u64 = 10;
/// The configuration that the repository recommends.
pub const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/nats.conf");

/// The recommended configuration with one line changed.
pub fn changed(what: &str, to: &str) -> String {
    let text = std::fs::read_to_string(CONFIGURATION).unwrap();
    assert!(text.contains(what), "nats.conf has no {what:?}");
    text.replace(what, to)
}

/// Runs a program to its end; what it printed, or what it complained of.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(format!("{program}: {}", text(&output.stderr))) }
}

/// A file system that is mounted as long as this lives.
pub struct Mounted {
    place: tempfile::TempDir,
}

impl Mounted {
    fn new(options: &[&str]) -> Result<Self, String> {
        let place = tempfile::Builder::new().prefix("oarlock-mount-").tempdir().map_err(|error| error.to_string())?;
        run("mount", &[options, &[place.path().to_str().unwrap()]].concat())?;
        Ok(Self { place })
    }

    /// A file system in memory, of so many megabytes; `None`, and said so, where that is not allowed.
    pub fn tmpfs(megabytes: u32) -> Option<Self> {
        let mounted = Self::new(&["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "oarlock-test"]);
        let why = mounted.as_ref().err().cloned().unwrap_or_default();
        have("tmpfs", mounted.is_ok(), &format!("mounting needs root: {why}")).then(|| mounted.unwrap())
    }

    /// Makes a file system in memory larger.
    pub fn grow(&self, megabytes: u32) {
        let place = self.path().to_str().unwrap();
        run("mount", &["-o", &format!("remount,size={megabytes}m"), place]).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.place.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let place = self.path().to_str().unwrap_or_default();
        let started = Instant::now();
        while run("umount", &[place]).is_err() {
            if started.elapsed() > Duration::from_secs(BUSY_S_MAX) {
                let _ = run("umount", &["--lazy", place]);
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A disk in a file, with ext4 on it. What the system calls written is in the file, and nothing else is: the device's own
/// cache is passed by.
pub struct Disk {
    mounted: Mounted,
    _device: Device,
    image: PathBuf,
    _folder: tempfile::TempDir,
}

struct Device(String);

impl Drop for Device {
    fn drop(&mut self) {
        let _ = run("losetup", &["--detach", &self.0]);
    }
}

impl Disk {
    /// An empty disk of so many megabytes; `None`, and said so, where that is not allowed.
    pub fn new(megabytes: u32) -> Option<Self> {
        let disk = Self::make(megabytes);
        let why = disk.as_ref().err().cloned().unwrap_or_default();
        let how = format!("needs root, losetup and mkfs.ext4: {why}");
        have("loop-mount", disk.is_ok(), &how).then(|| disk.unwrap())
    }

    fn make(megabytes: u32) -> Result<Self, String> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|error| error.to_string())?;
        let image = folder.path().join("disk");
        let path = image.to_str().unwrap();
        run("truncate", &["-s", &format!("{megabytes}M"), path])?;
        run("mkfs.ext4", &["-q", path])?;
        Self::mount(folder, image)
    }

    fn mount(folder: tempfile::TempDir, image: PathBuf) -> Result<Self, String> {
        let device = run("losetup", &["--find", "--show", "--direct-io=on", image.to_str().unwrap()])?;
        let device = Device(device);
        let direct = run("losetup", &["--noheadings", "--output", "DIO", &device.0])?;
        if direct != "1" {
            return Err("the loop device goes through a cache".into());
        }
        Ok(Self { mounted: Mounted::new(&[&device.0])?, _device: device, image, _folder: folder })
    }

    pub fn path(&self) -> &Path {
        self.mounted.path()
    }

    /// The power goes: from this moment nothing more reaches the disk. Returns a disk as one finds it afterwards.
    pub fn cut(&self) -> Self {
        // EXT4_IOC_SHUTDOWN without flushing the journal: how file systems are tested for crashes.
        let now = "import fcntl, os, struct, sys\n\
                   fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";
        run("python3", &["-c", now, self.path().to_str().unwrap()]).unwrap();
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let copy = folder.path().join("disk");
        let (from, to) = (format!("if={}", self.image.display()), format!("of={}", copy.display()));
        run("dd", &[&from, &to, "bs=1M", "iflag=direct", "status=none"]).unwrap();
        Self::mount(folder, copy).unwrap()
    }
}

/// How a server is started.
pub struct Start<'a> {
    /// Its configuration file.
    pub configuration: &'a Path,
    /// Its working directory, below which the recommended configuration puts the store.
    pub stands: &'a Path,
    /// User and password of the test's own connection.
    pub login: Option<(&'a str, &'a str)>,
}

/// Starts a server with a configuration of the test's own; nothing is declared on it.
pub async fn serve(start: &Start<'_>) -> TestServer {
    let folder = tempfile::Builder::new().prefix("oarlock-test-").tempdir().unwrap();
    let real = sources().find().await.unwrap();
    // The embedded server's start, with another configuration put in the place of its own.
    let wrapper = folder.path().join("nats-server");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = -c ] || exec '{real}' \"$@\"\nhome=$(dirname \"$2\")\ncd '{stands}' || exit 1\n\
         exec '{real}' -c '{configuration}' -a 127.0.0.1 -p -1 -m -1 --ports_file_dir \"$home\" -P \"$home/nats.pid\" \
         -l \"$home/nats.log\"\n",
        real = real.display(),
        stands = start.stands.display(),
        configuration = start.configuration.display(),
    );
    std::fs::write(&wrapper, script).unwrap();
    run("chmod", &["755", wrapper.to_str().unwrap()]).unwrap();
    let sources = ServerSources { named: Some(wrapper), ..sources() };
    let config = EmbeddedConfig { sources, storage: Storage::Folder(folder.path().join("nats")), sync_always: false };
    let server = Embedded::start(&config).await.unwrap();
    let bus = login(server.url(), start.login).await.unwrap();
    TestServer { store: Store::new(&bus), bus, server, folder }
}

/// A connection as somebody.
pub async fn login(url: &str, login: Option<(&str, &str)>) -> Result<Bus, oarlock::bus::BusError> {
    let (user, password) = login.map(|(user, password)| (user.to_owned(), password.to_owned())).unzip();
    let credentials = Credentials { user, password, ..Credentials::default() };
    let server = Server { urls: url.to_owned(), credentials, ..Server::default() };
    Bus::connect(&server, &Root::default(), "test").await
}

/// What the server wrote into its log.
pub fn log_of(server: &TestServer) -> String {
    std::fs::read_to_string(server.folder.path().join("nats/nats.log")).unwrap_or_default()
}

/// Kills the server and waits until its port is free.
pub async fn stop(server: &TestServer, signal: &str) {
    run("kill", &[signal, &server.server.pid().unwrap().to_string()]).unwrap();
    until("the port to be free", async || TcpListener::bind(("127.0.0.1", port(server))).is_ok()).await;
}

/// Waits until the server is back and an orchestrator that was there before has found it.
pub async fn back(server: &TestServer) {
    until("the doors to be open again", async || {
        server.bus.client.request("$SRV.PING.oarlock-orchestrator", "".into()).await.is_ok()
    })
    .await;
}

fn port(server: &TestServer) -> u16 {
    server.url().rsplit(':').next().unwrap().parse().unwrap()
}

/// A server that was stopped and started again, with its store and on its port.
pub struct Again {
    child: Child,
    log: PathBuf,
}

impl Again {
    pub async fn start(server: &TestServer, start: &Start<'_>) -> Self {
        let log = server.folder.path().join(format!("again-{}.log", rand::random::<u32>()));
        let mut command = Command::new(sources().find().await.unwrap());
        command.arg("-c").arg(start.configuration).args(["-a", "127.0.0.1", "-p", &port(server).to_string()]);
        command.args(["-m", "-1", "-l"]).arg(&log).current_dir(start.stands);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), log }
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
