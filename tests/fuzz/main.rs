//! Feeds the readers of everything that comes from outside: kept inputs, mutations of them, and shapes that grow.
//!
//! The coverage-guided fuzzer in `fuzz/` found the kept inputs; this needs nothing but the stable toolchain and runs with
//! every other test. `OARLOCK_FUZZ_SECONDS` is the time for mutations of each target, `OARLOCK_FUZZ_SEED` chooses others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected should stop there"
)]

mod growth;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use targets::meter::computed;
use targets::mutate::{Random, mutate};
use targets::{TARGETS, Target, target};

/// Time for the mutations of each target, unless `OARLOCK_FUZZ_SECONDS` says otherwise.
const SECONDS: u64 = 3;
/// Longest mutation.
const BYTES_MAX: usize = 8 * 1024;
/// Bounds of what is kept, so that the corpus stays one that a repository can hold.
const KEPT_FILES_MAX: usize = 400;
const KEPT_BYTES_MAX: u64 = 300 * 1024;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let mut found: Vec<_> = paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    found.sort();
    found
}

/// The kept inputs of a target, and the files of the project that are of its kind.
fn inputs(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = files(&root().join("tests/fuzz/corpus").join(target.name));
    assert!(!found.is_empty(), "nothing is kept for {}", target.name);
    let folders: &[&str] = match target.name {
        "wire" | "plan" => &["tests/golden"],
        "role" => &["roles"],
        _ => &["tests/golden", "src/cli/demo"],
    };
    for folder in folders {
        found.extend(files(&root().join(folder)).into_iter().filter(|(path, _)| !path.ends_with("main.rs")));
    }
    found
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn kept_inputs_keep_every_promise() {
    let mut broken = Vec::new();
    for target in TARGETS {
        for (path, data) in inputs(&target) {
            if catch_unwind(AssertUnwindSafe(|| target.check(&data))).is_err() {
                broken.push(format!("{} breaks a promise of {}", path.display(), target.name));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn what_is_kept_is_small() {
    let kept: Vec<_> =
        TARGETS.iter().flat_map(|target| files(&root().join("tests/fuzz/corpus").join(target.name))).collect();
    let bytes: u64 = kept.iter().map(|(_, data)| data.len() as u64).sum();
    assert!(kept.len() <= KEPT_FILES_MAX && bytes <= KEPT_BYTES_MAX, "{} files of {bytes} bytes", kept.len());
}

/// Mutates for the time that is given, and keeps the first input that breaks a promise in a file.
fn mutations(name: &str) {
    let (target, inputs) = (target(name), inputs(&target(name)));
    let seed = from_environment("OARLOCK_FUZZ_SEED", 1);
    let end = Instant::now() + Duration::from_secs(from_environment("OARLOCK_FUZZ_SECONDS", SECONDS));
    let mut random = Random::new(seed);
    let mut runs = 0u64;
    let mut data = Vec::new();
    while Instant::now() < end {
        // Now and then a mutation of the mutation before.
        if random.below(4) > 0 || data.len() == BYTES_MAX {
            data = inputs[random.below(inputs.len())].1.clone();
        }
        let other = &inputs[random.below(inputs.len())].1;
        data = mutate(&data, other, random.number(), BYTES_MAX);
        if catch_unwind(AssertUnwindSafe(|| target.check(&data))).is_err() {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
            std::fs::write(&file, &data).unwrap();
            panic!("{name}: mutation {runs} of seed {seed} breaks a promise; it is in {}", file.display());
        }
        runs += 1;
    }
    println!("{name}: {runs} mutations of {} inputs, seed {seed}", inputs.len());
    assert!(runs > 0, "no mutation was tried");
}

#[test]
fn mutations_of_wire_keep_every_promise() {
    mutations("wire");
}

#[test]
fn mutations_of_plan_keep_every_promise() {
    mutations("plan");
}

#[test]
fn mutations_of_role_keep_every_promise() {
    mutations("role");
}

#[test]
fn mutations_of_model_keep_every_promise() {
    mutations("model");
}

#[test]
fn a_broken_promise_is_seen() {
    let bad = |run: fn(&[u8])| {
        let target = Target { name: "bad", run, heap_per_byte: 10, heap_base: 0 };
        catch_unwind(AssertUnwindSafe(|| target.check(&[0; 1000]))).is_err()
    };
    assert!(bad(|data| drop(std::hint::black_box(vec![1u8; data.len() * 20]))), "too much heap");
    assert!(bad(|data| (0..20).map(|_| vec![1u8; data.len()]).collect::<Vec<_>>().clear()), "too much heap in parts");
    let spin = |_: &[u8]| {
        let end = computed() + Duration::from_millis(300);
        while computed() < end {}
    };
    assert!(bad(spin), "too slow");
    assert!(bad(|data| assert!(data.is_empty())), "a panic");
    assert!(!bad(|data| drop(std::hint::black_box(data.to_vec()))), "nothing");
}
