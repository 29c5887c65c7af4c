//! Finds the tiers of this machine once, reads the corpus, runs cases side by side and gathers what went wrong.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use oarlock::sandbox::{Choice, Python, Sandbox};
use tokio::sync::{OnceCell, Semaphore};

use crate::canary::Canary;

/// Cases at the same time, over all tests; most of them wait for a limit, not for a processor.
const CASES_AT_ONCE: usize = 4;

/// Begins a new file inside a case.
const FILE_MARK: &str = "# file: ";

static PYTHON: OnceCell<Python> = OnceCell::const_new();
static SLOTS: Semaphore = Semaphore::const_new(CASES_AT_ONCE);

/// The executable under test.
pub fn helper() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_oarlock"))
}

/// A cache that every user may read, kept between runs of these tests.
pub fn cache() -> PathBuf {
    PathBuf::from(format!("/var/tmp/oarlock-test-cache-{}", nix::unistd::Uid::effective()))
}

pub async fn python() -> Python {
    let prepare = || async {
        let candidates = Python::default_candidates(std::env::var_os("PATH").as_deref());
        Python::prepare(&candidates, &cache()).await.expect("the tests need Python and pip")
    };
    PYTHON.get_or_init(prepare).await.clone()
}

/// The sandbox of this tier; `None` (and a line of text) when the machine does not have it.
pub async fn sandbox(choice: Choice) -> Option<&'static Sandbox> {
    static BWRAP: OnceCell<Option<Sandbox>> = OnceCell::const_new();
    static LANDLOCK: OnceCell<Option<Sandbox>> = OnceCell::const_new();
    static OFF: OnceCell<Option<Sandbox>> = OnceCell::const_new();
    let cell = match choice {
        Choice::Bwrap => &BWRAP,
        Choice::Landlock => &LANDLOCK,
        _ => &OFF,
    };
    let probe = || async {
        match Sandbox::probe(choice, helper(), python().await).await {
            Ok(sandbox) => Some(sandbox),
            Err(error) => {
                let required = std::env::var("OARLOCK_TEST_REQUIRE").unwrap_or_default();
                assert!(!required.contains(&choice.to_string()), "{choice} is required here: {error}");
                let advice = if choice == Choice::Bwrap { " (apt-get install bubblewrap)" } else { "" };
                let _ = writeln!(std::io::stderr(), "not run: {choice}{advice}: {error}");
                None
            }
        }
    };
    cell.get_or_init(probe).await.as_ref()
}

/// The names of the cases of one kind, sorted.
pub fn corpus(kind: &str) -> Vec<String> {
    let files = fs::read_dir(directory(kind)).unwrap();
    let mut names: Vec<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| Some(name.strip_suffix(".py")?.to_owned()))
        .collect();
    names.sort();
    names
}

/// Beside this file, wherever the compiler was started.
fn directory(kind: &str) -> PathBuf {
    let here = Path::new(file!()).parent().unwrap();
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.join(here).join(kind)
}

/// One file of the corpus, unfolded into the files that it stands for.
pub struct Case {
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Case {
    pub fn honest(name: &str) -> Case {
        Case::read("honest", name)
    }

    /// A hostile case knows where its prey is.
    pub fn hostile(name: &str, canary: &Canary) -> Case {
        let mut case = Case::read("hostile", name);
        case.files.insert("parameters.py".to_owned(), canary.parameters().into_bytes());
        case
    }

    fn read(kind: &str, name: &str) -> Case {
        let text = fs::read_to_string(directory(kind).join(format!("{name}.py"))).unwrap();
        let mut files = BTreeMap::new();
        let mark = format!("\n{FILE_MARK}");
        let marked = text.split(&mark).skip(1).filter_map(|part| part.split_once('\n'));
        for (path, content) in marked {
            files.insert(path.to_owned(), content.as_bytes().to_vec());
        }
        if files.is_empty() {
            files.insert(format!("test_{name}.py"), text.into_bytes());
        }
        Case { files }
    }
}

/// Runs all cases, some at the same time, and gathers their complaints.
pub async fn at_once<'a, T: Sync + 'a, F>(cases: impl Iterator<Item = &'a T>, run: impl Fn(&'a T) -> F) -> Report
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let mut running = tokio::task::JoinSet::new();
    for case in cases {
        let future = run(case);
        running.spawn(async move {
            let _slot = SLOTS.acquire().await.unwrap();
            future.await
        });
    }
    let mut report = Report::new(format!("{} cases", running.len()));
    while let Some(result) = running.join_next().await {
        match result {
            Ok(Ok(())) => {}
            Ok(Err(text)) => report.complaints.push(text),
            Err(error) => report.complaints.push(error.to_string()),
        }
    }
    report
}

/// Complaints about one subject, told all at once.
pub struct Report {
    subject: String,
    complaints: Vec<String>,
}

impl Report {
    pub fn new(subject: String) -> Report {
        Report { subject, complaints: Vec::new() }
    }

    pub fn expect(&mut self, condition: bool, complaint: impl FnOnce() -> String) {
        if !condition {
            self.complaints.push(complaint());
        }
    }

    pub fn result(self) -> Result<(), String> {
        if self.complaints.is_empty() {
            return Ok(());
        }
        Err(format!("{}: {}", self.subject, self.complaints.join("; ")))
    }

    pub fn settle(self) {
        assert!(
            self.complaints.is_empty(),
            "{} of {}:\n{}",
            self.complaints.len(),
            self.subject,
            self.complaints.join("\n\n")
        );
    }
}
