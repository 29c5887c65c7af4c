//! Python's HTTP server on loopback, with pages of one test: `http.server` as it is, or with faults (`faults.py`).

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running server.
pub struct Pages {
    child: Child,
    /// Its address, without a slash at the end.
    pub url: String,
    /// Its port.
    pub port: u16,
}

impl Pages {
    /// `python3 -m http.server` on the files of `folder`, at `address` of this machine.
    pub fn of(folder: &Path, address: &str) -> Self {
        let mut command = Command::new("python3");
        command.args(["-u", "-m", "http.server", "0", "--bind", address, "--directory"]).arg(folder);
        Self::start(command, address)
    }

    /// The same library with handlers that misbehave, one per path.
    pub fn with_faults() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/faults.py");
        let mut command = Command::new("python3");
        command.arg("-u").arg(script);
        Self::start(command, "127.0.0.1")
    }

    fn start(mut command: Command, address: &str) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("python3, which the tests of the sandbox need as well");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split("port ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        let port: u16 = port.unwrap_or_else(|| panic!("the server says {line:?}"));
        Self { child, url: format!("http://{address}:{port}"), port }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
