//! The sandbox as the worker sees it: chosen once by a trial, then asked to run tests.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::invoke::Helper;
use super::job::{Job, Layout};
use super::record::Record;
use super::{Attempt, Choice, Limits, Python, SandboxError, TestRun, Tier, names, run_directory, verdict};

/// Patience with the trial of one tier.
const TRIAL_WAIT_S_MAX: u64 = 20;

/// The trial: the real wall, the real interpreter, the real pytest.
const TRIAL: &str = "import pytest; print('the trial', 'worked')";

/// What the trial prints.
const TRIAL_ANSWER: &[u8] = b"the trial worked";

/// A wall that was seen to stand on this machine.
#[derive(Debug)]
pub struct Sandbox {
    tier: Tier,
    layers: Vec<String>,
    helper: Helper,
    python: Python,
}

impl Sandbox {
    /// Finds the best tier that `choice` allows, by really running Python behind it.
    ///
    /// `helper` is our own executable, whose `main` hands the arguments after `sandbox-exec` to
    /// [`helper_main`](super::helper_main).
    pub async fn probe(choice: Choice, helper: PathBuf, python: Python) -> Result<Sandbox, SandboxError> {
        if choice == Choice::Off {
            tracing::warn!("the sandbox is off: generated code can read, change and send whatever this user can");
        }
        let helper = Helper::open(helper)?;
        let mut attempts = Vec::new();
        for &tier in choice.tiers() {
            match trial(tier, &helper, &python).await {
                Ok(layers) => {
                    tracing::info!(%tier, layers = layers.join(", "), "sandbox chosen");
                    return Ok(Sandbox { tier, layers, helper, python });
                }
                Err(reason) => {
                    tracing::warn!(%tier, reason, "sandbox refused");
                    attempts.push(Attempt { tier, reason });
                }
            }
        }
        Err(SandboxError::Unavailable { attempts })
    }

    /// The wall in use.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// What the wall is made of.
    pub fn layers(&self) -> &[String] {
        &self.layers
    }

    /// Runs the tests of these files in a throw-away copy. Dropping the future ends every process of the run.
    pub async fn run_pytest(
        &self,
        files: &BTreeMap<String, Vec<u8>>,
        limits: &Limits,
    ) -> Result<TestRun, SandboxError> {
        let promised = names::promised(files);
        let record = execute(self.tier, &self.helper, &self.python, files.clone(), limits, pytest_arguments).await?;
        Ok(verdict::judge(self.tier, record, &promised))
    }
}

async fn trial(tier: Tier, helper: &Helper, python: &Python) -> Result<Vec<String>, String> {
    if !cfg!(target_os = "linux") {
        return Err("the sandbox needs Linux; run the worker that tests code in a Linux container".to_owned());
    }
    let limits = Limits { wall: Duration::from_secs(TRIAL_WAIT_S_MAX), ..Limits::default() };
    let arguments = |_: &Layout| vec!["-c".into(), TRIAL.into()];
    let record = match execute(tier, helper, python, BTreeMap::new(), &limits, arguments).await {
        Ok(record) => record,
        Err(SandboxError::Setup { detail, .. }) => return Err(detail),
        Err(error) => return Err(error.to_string()),
    };
    if record.exit == Some(0) && record.head.starts_with(TRIAL_ANSWER) {
        return Ok(record.layers);
    }
    let run = verdict::judge(tier, record, &[]);
    Err(format!("the trial run ended {} ({}): {}", run.outcome, run.reason.unwrap_or_default(), run.output.trim()))
}

async fn execute(
    tier: Tier,
    helper: &Helper,
    python: &Python,
    files: BTreeMap<String, Vec<u8>>,
    limits: &Limits,
    arguments: impl FnOnce(&Layout) -> Vec<OsString>,
) -> Result<Record, SandboxError> {
    let bounds = limits.clone();
    let directory = tokio::task::spawn_blocking(move || run_directory::create(&files, &bounds))
        .await
        .map_err(|error| SandboxError::HelperRecord { detail: error.to_string() })??;
    let layout = Layout::new(tier, directory.path(), python.packages.as_deref());
    let job = Job {
        tier,
        directory: directory.path().to_owned(),
        python: python.executable.clone(),
        prefix: python.prefix.clone(),
        packages: python.packages.clone(),
        limits: limits.clone(),
        python_arguments: arguments(&layout),
    };
    helper.run(&job).await
}

/// A configuration file in the workspace is honoured where it describes the project (`pythonpath`, markers), not where
/// it changes how we ask (`addopts`) or where the answer goes.
fn pytest_arguments(layout: &Layout) -> Vec<OsString> {
    let with = |option: &str, path: &PathBuf| {
        let mut argument = OsString::from(option);
        argument.push(path);
        argument
    };
    let mut arguments: Vec<OsString> =
        ["-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider"].map(Into::into).into();
    arguments.extend(["-o", "addopts=", "-o", "junit_family=xunit2"].map(Into::into));
    arguments.push(with("--rootdir=", &layout.workspace));
    arguments.push(with("--confcutdir=", &layout.workspace));
    arguments.push(with("--junitxml=", &layout.report));
    arguments.push(".".into());
    arguments
}
