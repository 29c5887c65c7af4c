//! The servers of a cluster: real nats-servers with the configuration that the fleet ships, one on each host.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::net::Host;

/// One of the servers.
pub struct Node {
    pub name: String,
    pub host: Host,
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Node {
    /// The `index`-th of the servers on these hosts.
    pub fn start(index: usize, hosts: &[Host], binary: &Path, folder: &Path) -> Self {
        let (name, host) = (format!("node{index}"), hosts[index].clone());
        let routes: Vec<String> = hosts.iter().map(|other| format!("nats://{}:6222", other.address)).collect();
        let home = folder.join(&name);
        std::fs::create_dir_all(&home).unwrap();
        // The fleet's own configuration for production, and after it what is different here; the last word counts.
        let shipped = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("nats.conf")).unwrap();
        let config = format!(
            "{shipped}\nserver_name: {name}\nhost: \"{address}\"\nlog_file: {log:?}\n\
             cluster {{ name: oarlock, listen: \"{address}:6222\", routes: [{routes}] }}\n",
            address = host.address,
            log = home.join("log"),
            routes = routes.join(", "),
        );
        let path = home.join("nats.conf");
        std::fs::write(&path, config).unwrap();
        let node = Self {
            name,
            host,
            binary: binary.to_owned(),
            config: path,
            log: home.join("log"),
            child: Mutex::default(),
        };
        node.revive();
        node
    }

    /// Starts it, or starts it again with what it has stored.
    pub fn revive(&self) {
        let mut command = self.host.command(&self.binary);
        // Its store is named relative to where it stands.
        command
            .arg("-c")
            .arg(&self.config)
            .current_dir(self.config.parent().unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        *self.child.lock().unwrap() = Some(command.spawn().unwrap());
    }

    /// Kills it as nobody wants to be killed.
    pub fn kill_9(&self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Where it is to be reached.
    pub fn url(&self) -> String {
        format!("nats://{}:4222", self.host.address)
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.lock().unwrap().as_ref().map(Child::id)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_9();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let worth = |line: &&str| line.contains("[ERR]") || line.contains("[WRN]") || line.contains("[FTL]");
            let lines: Vec<&str> = log.lines().filter(worth).collect();
            println!("{} said: {:#?}", self.name, &lines[lines.len().saturating_sub(15)..]);
        }
    }
}
