//! Programs of npm that others wrote, installed once, in the version that the tests were written for.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The installed program `binary` of a package, at exactly this version; `None` when Node.js is missing and not required. Packages are put into the
/// test cache, in a folder called `name-version`.
pub fn installed(package: &str, version: &str, binary: &str) -> Option<PathBuf> {
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = LOCK.lock();
    let has =
        |program: &str| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !has("node") || !has("npm") {
        let required = std::env::var("OARLOCK_TEST_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|name| name.trim() == "node"), "node is required: install Node.js 20");
        let _ = writeln!(std::io::stderr(), "not run: node (install Node.js 20)");
        return None;
    }
    let cache =
        std::env::var_os("OARLOCK_TEST_CACHE").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let name = package.rsplit('/').next().unwrap_or(package);
    let directory = cache.join(format!("{name}-{version}"));
    let binary = directory.join("node_modules/.bin").join(binary);
    if !binary.exists() {
        install(&directory, &format!("{package}@{version}"));
    }
    Some(binary)
}

fn install(directory: &Path, package: &str) {
    std::fs::create_dir_all(directory).unwrap();
    let output = Command::new("npm")
        .args(["install", "--no-save", "--no-audit", "--no-fund", "--prefix"])
        .arg(directory)
        .arg(package)
        .output()
        .unwrap();
    assert!(output.status.success(), "npm install failed: {}", String::from_utf8_lossy(&output.stderr));
}
