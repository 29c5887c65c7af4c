//! Hosts on one wire: a bridge, and for each host a network namespace behind a veth pair, whose link can be set down.
//!
//! Names and addresses come from the process id, so that several suites can run side by side. Everything is removed when
//! it is dropped; what a suite left that was killed is removed by the next one.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::one_server::have;

/// How the names of all namespaces begin.
const PREFIX: &str = "oarlock-test-";

/// True when namespaces and bridges can be made here; says once what is missing.
pub fn allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    let try_it = || {
        let name = format!("{PREFIX}{}-try", std::process::id());
        let made = ip_says(&format!("netns add {name}")).is_some()
            && ip_says(&format!("-n {name} link add wire type bridge")).is_some()
            && ip_says(&format!("-n {name} link add one type veth peer name other")).is_some();
        ip_says(&format!("netns del {name}"));
        made
    };
    *ALLOWED.get_or_init(|| have("netns", try_it(), "run as root on Linux, with `ip` of iproute2"))
}

/// What `ip` printed, or `None` when it failed.
fn ip_says(arguments: &str) -> Option<String> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A host of its own: a namespace with one address.
#[derive(Clone, Debug)]
pub struct Host {
    pub namespace: String,
    pub address: String,
    /// Our end of its wire.
    link: String,
}

impl Host {
    /// A command that runs there; the process that it starts is the program itself.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program.as_ref());
        command
    }

    /// Nothing comes in or goes out any more, and nobody is told.
    pub fn cut(&self) {
        ip(&format!("link set {} down", self.link));
    }

    pub fn heal(&self) {
        ip(&format!("link set {} up", self.link));
    }
}

impl Host {
    /// Sends nothing more to another host.
    pub fn shut_out(&self, other: &Host) {
        ip(&format!("-n {} route add blackhole {}/32", self.namespace, other.address));
    }

    pub fn let_in(&self, other: &Host) {
        ip(&format!("-n {} route del blackhole {}/32", self.namespace, other.address));
    }
}

/// The wire that joins the hosts, and this process.
pub struct Net {
    number: u32,
    bridge: String,
    prefix: String,
    hosts: Mutex<Vec<Host>>,
}

impl Net {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        sweep();
        let (pid, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let taken = ip_says("-o -4 addr show").unwrap_or_default() + &ip_says("-o -4 route show").unwrap_or_default();
        let mut candidates = (0..50).map(|step| {
            let place = pid + number + step * 251;
            format!("10.{}.{}", 200 + place / 250 % 50, place % 250)
        });
        let free =
            |prefix: &String| !taken.contains(&format!(" {prefix}.")) && !taken.contains(&format!("\n{prefix}."));
        let prefix = candidates.find(free).expect("a free range of addresses");
        let net = Self { number, bridge: format!("oa{pid}.{number}"), prefix, hosts: Mutex::default() };
        ip(&format!("link add {} type bridge", net.bridge));
        ip(&format!("addr add {}.1/24 dev {}", net.prefix, net.bridge));
        ip(&format!("link set {} up", net.bridge));
        net
    }

    /// Makes a host.
    pub fn host(&self) -> Host {
        let mut hosts = self.hosts.lock().unwrap();
        let number = hosts.len() + 10;
        let host = Host {
            namespace: format!("{PREFIX}{}-{}-{number}", std::process::id(), self.number),
            address: format!("{}.{number}", self.prefix),
            link: format!("{}h{number}", self.bridge),
        };
        // Kept first, so that a half-made one is removed too.
        hosts.push(host.clone());
        let Host { namespace, address, link } = &host;
        ip(&format!("netns add {namespace}"));
        ip(&format!("link add {link} type veth peer name eth0 netns {namespace}"));
        ip(&format!("link set {link} master {} up", self.bridge));
        ip(&format!("-n {namespace} addr add {address}/24 dev eth0"));
        ip(&format!("-n {namespace} link set lo up"));
        ip(&format!("-n {namespace} link set eth0 up"));
        host
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for host in self.hosts.lock().unwrap_or_else(|broken| broken.into_inner()).drain(..) {
            remove(&host.namespace);
            ip_says(&format!("link del {}", host.link));
        }
        ip_says(&format!("link del {}", self.bridge));
    }
}

/// Panics when something that this process made is still there.
pub fn assert_nothing_left() {
    let namespaces = ip_says("netns list").unwrap_or_default();
    let ours = format!("{PREFIX}{}-", std::process::id());
    assert!(!namespaces.contains(&ours), "namespaces are left: {namespaces}");
    let links = ip_says("-o link show").unwrap_or_default();
    assert!(!links.contains(&format!(" oa{}.", std::process::id())), "links are left: {links}");
}

/// Ends what still runs in a namespace of ours, and removes it.
fn remove(namespace: &str) {
    for pid in ip_says(&format!("netns pids {namespace}")).unwrap_or_default().split_whitespace() {
        let _ = Command::new("kill").args(["-9", pid]).status();
    }
    ip_says(&format!("netns del {namespace}"));
}

/// Removes what suites left that are no longer there.
fn sweep() {
    let gone = |pid: &str| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists();
    for line in ip_says("netns list").unwrap_or_default().lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        if name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).is_some_and(gone) {
            remove(name);
        }
    }
    for line in ip_says("-o link show").unwrap_or_default().lines() {
        let name = line.split(' ').nth(1).unwrap_or_default().trim_end_matches(':');
        let name = name.split('@').next().unwrap_or_default();
        if name.strip_prefix("oa").and_then(|rest| rest.split('.').next()).is_some_and(gone) {
            ip_says(&format!("link del {name}"));
        }
    }
}
