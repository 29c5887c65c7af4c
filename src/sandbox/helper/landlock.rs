//! The wall of tier landlock: files by allow-list, no TCP, no signals and no abstract sockets beyond itself.
//!
//! Kernels differ. Each step asks for everything of one version as a hard requirement and falls to the next only when
//! the kernel refuses; below version 3 files could be truncated from outside the list, so that is no wall. What a
//! version lacks above that (TCP before 4, scopes before 6) is denied by seccomp instead.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::path::{Path, PathBuf};

use super::bwrap::PREFIX_PARTS;
use crate::sandbox::job::{Job, Layout};

/// Versions in which our demands differ, best first.
const VERSIONS: [(u32, ABI); 4] = [(6, ABI::V6), (5, ABI::V5), (4, ABI::V4), (3, ABI::V3)];

/// First version that keeps signals inside.
const SIGNAL_SCOPE_VERSION: u32 = 6;

/// Programs, libraries and harmless facts.
const READABLE: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/nix/store", "/etc/ld.so.cache", "/etc/localtime", "/dev/urandom"];

/// Devices that programs write to.
const DEVICES: [&str; 2] = ["/dev/null", "/dev/zero"];

/// What stands now.
pub(super) struct Raised {
    /// Version of Landlock whose every right is enforced.
    pub abi: u32,
    pub signals_scoped: bool,
}

/// Confines this process and all that it will start.
pub(super) fn raise(job: &Job, layout: &Layout) -> Result<Raised, String> {
    let mut refusal = String::new();
    for (number, version) in VERSIONS {
        match ruleset(version) {
            Ok(ruleset) => {
                let text = |error: RulesetError| format!("raise landlock abi {number}: {error}");
                let status = with_rules(ruleset, version, job, layout)?.restrict_self().map_err(text)?;
                if status.ruleset != RulesetStatus::FullyEnforced || !status.no_new_privs {
                    return Err(format!("landlock is not fully enforced: {:?}", status.ruleset));
                }
                return Ok(Raised { abi: number, signals_scoped: number >= SIGNAL_SCOPE_VERSION });
            }
            Err(error) => refusal = error.to_string(),
        }
    }
    Err(format!("the kernel's landlock is missing or older than version 3: {refusal}"))
}

fn ruleset(version: ABI) -> Result<RulesetCreated, RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(version))?;
    if version >= ABI::V4 {
        ruleset = ruleset.handle_access(AccessNet::from_all(version))?;
    }
    if version >= ABI::V6 {
        ruleset = ruleset.scope(Scope::from_all(version))?;
    }
    ruleset.create()
}

fn with_rules(mut ruleset: RulesetCreated, version: ABI, job: &Job, layout: &Layout) -> Result<RulesetCreated, String> {
    let read = AccessFs::from_read(version);
    let all = AccessFs::from_all(version);
    let plain_file = AccessFs::from_file(version) & !BitFlags::from(AccessFs::Execute);
    let mut allow = |path: &Path, access: BitFlags<AccessFs>| -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| format!("allow {}: {error}", path.display());
        let descriptor = PathFd::new(path).map_err(|error| text(&error))?;
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(version) };
        let rule = PathBeneath::new(descriptor, access);
        (&mut ruleset).add_rule(rule).map_err(|error| text(&error)).map(drop)
    };
    let prefix = PREFIX_PARTS.map(|part| job.prefix.join(part));
    let readable = READABLE.iter().map(PathBuf::from).chain(prefix).chain(layout.packages.clone());
    for path in readable.filter(|path| path.exists()) {
        allow(&path, read)?;
    }
    for path in DEVICES.map(Path::new) {
        allow(path, plain_file)?;
    }
    allow(&job.directory.join("pytest.ini"), read)?;
    allow(&layout.report, plain_file)?;
    allow(&layout.workspace, all)?;
    allow(&layout.temporary, all)?;
    Ok(ruleset)
}
