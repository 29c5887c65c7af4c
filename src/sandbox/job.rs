//! What the worker asks of the helper process, as command-line arguments: nothing in it is secret, and an argument list
//! needs no parser that untrusted code could reach.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::{Limits, Tier};

/// Ends the settings; what follows are Python's own arguments.
const END_OF_SETTINGS: &str = "--";

/// One run, as the helper needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub tier: Tier,
    /// The throw-away directory of this run, on the host.
    pub directory: PathBuf,
    pub python: PathBuf,
    pub prefix: PathBuf,
    pub packages: Option<PathBuf>,
    pub limits: Limits,
    pub python_arguments: Vec<OsString>,
}

/// Paths as the tested code sees them: the same everywhere in tier bwrap, inside the run directory in the others.
pub(super) struct Layout {
    /// The files as they were given; never written.
    pub source: PathBuf,
    /// The copy that is tested.
    pub workspace: PathBuf,
    /// Home and temporary files.
    pub temporary: PathBuf,
    /// Where pytest writes its report.
    pub report: PathBuf,
    /// Directory with pytest.
    pub packages: Option<PathBuf>,
}

/// Name of the report in the run directory.
pub(super) const REPORT: &str = "report.xml";

impl Layout {
    /// The paths of a run in this directory.
    pub fn new(tier: Tier, directory: &Path, packages: Option<&Path>) -> Layout {
        let root = if tier == Tier::Bwrap { Path::new("/") } else { directory };
        Layout {
            source: root.join("source"),
            workspace: root.join("workspace"),
            temporary: if tier == Tier::Bwrap { "/tmp".into() } else { directory.join("temporary") },
            report: root.join(REPORT),
            packages: packages.map(|path| if tier == Tier::Bwrap { "/packages".into() } else { path.to_owned() }),
        }
    }
}

impl Job {
    /// Its paths, as the tested code sees them.
    pub fn layout(&self) -> Layout {
        Layout::new(self.tier, &self.directory, self.packages.as_deref())
    }

    /// The arguments from which [`Job::from_arguments`] makes the same job.
    pub fn to_arguments(&self) -> Vec<OsString> {
        let limits = &self.limits;
        let mut arguments = vec![
            setting("tier", self.tier.to_string()),
            setting("directory", &self.directory),
            setting("python", &self.python),
            setting("prefix", &self.prefix),
            setting("wall_ms", limits.wall.as_millis().to_string()),
            setting("cpu_s", limits.cpu_s.to_string()),
            setting("address_space_bytes", limits.address_space_bytes.to_string()),
            setting("memory_bytes", limits.memory_bytes.to_string()),
            setting("file_bytes", limits.file_bytes.to_string()),
            setting("disk_bytes", limits.disk_bytes.to_string()),
            setting("processes", limits.processes.to_string()),
            setting("open_files", limits.open_files.to_string()),
            setting("output_bytes_max", limits.output_bytes_max.to_string()),
            setting("output_bytes_kept", limits.output_bytes_kept.to_string()),
        ];
        arguments.extend(self.packages.as_ref().map(|path| setting("packages", path)));
        arguments.push(END_OF_SETTINGS.into());
        arguments.extend(self.python_arguments.iter().cloned());
        arguments
    }

    /// Reads what [`Job::to_arguments`] wrote; the error names the setting.
    pub fn from_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Job, String> {
        let mut arguments = arguments.into_iter();
        let mut settings = HashMap::new();
        for argument in arguments.by_ref().take_while(|argument| argument != END_OF_SETTINGS) {
            let bytes = argument.as_bytes();
            let equals = bytes.iter().position(|&byte| byte == b'=').ok_or(format!("{argument:?} is no setting"))?;
            let key = String::from_utf8_lossy(&bytes[..equals]).into_owned();
            settings.insert(key, OsString::from_vec(bytes[equals + 1..].to_vec()));
        }
        let word: String = parsed(&settings, "tier")?;
        Ok(Job {
            tier: Tier::named(&word).ok_or(format!("no tier is called {word:?}"))?,
            directory: path(&settings, "directory")?,
            python: path(&settings, "python")?,
            prefix: path(&settings, "prefix")?,
            packages: settings.get("packages").map(PathBuf::from),
            limits: Limits {
                wall: Duration::from_millis(parsed(&settings, "wall_ms")?),
                cpu_s: parsed(&settings, "cpu_s")?,
                address_space_bytes: parsed(&settings, "address_space_bytes")?,
                memory_bytes: parsed(&settings, "memory_bytes")?,
                file_bytes: parsed(&settings, "file_bytes")?,
                disk_bytes: parsed(&settings, "disk_bytes")?,
                processes: parsed(&settings, "processes")?,
                open_files: parsed(&settings, "open_files")?,
                output_bytes_max: parsed(&settings, "output_bytes_max")?,
                output_bytes_kept: parsed(&settings, "output_bytes_kept")?,
            },
            python_arguments: arguments.collect(),
        })
    }
}

fn setting(key: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut argument = OsString::from(key);
    argument.push("=");
    argument.push(value);
    argument
}

fn path(settings: &HashMap<String, OsString>, key: &str) -> Result<PathBuf, String> {
    settings.get(key).map(PathBuf::from).ok_or(format!("the setting {key} is missing"))
}

fn parsed<T: FromStr>(settings: &HashMap<String, OsString>, key: &str) -> Result<T, String> {
    let value = settings.get(key).and_then(|value| value.to_str()).ok_or(format!("the setting {key} is missing"))?;
    value.parse().map_err(|_| format!("the setting {key} is unreadable: {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_round_trip() {
        let job = Job {
            tier: Tier::Landlock,
            directory: "/tmp/a=b".into(),
            python: OsString::from_vec(b"/usr/bin/p\xff".to_vec()).into(),
            prefix: "/usr".into(),
            packages: Some("/var/cache/oarlock/x".into()),
            limits: Limits { wall: Duration::from_millis(1234), ..Limits::default() },
            python_arguments: vec!["-m".into(), "pytest".into(), "--".into()],
        };
        assert_eq!(Job::from_arguments(job.to_arguments()), Ok(job.clone()));
        let job = Job { packages: None, ..job };
        assert_eq!(Job::from_arguments(job.to_arguments()), Ok(job));
    }

    #[test]
    fn a_missing_setting_is_named() {
        let error = Job::from_arguments(["tier=off".into(), "--".into()]).unwrap_err();
        assert!(error.contains("directory"), "{error}");
    }
}
