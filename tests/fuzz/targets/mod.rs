//! What is fuzzed, and what must hold for every input. The coverage-guided fuzzer (`fuzz/`) and the plain test
//! (`tests/fuzz/main.rs`) call the same functions.
//!
//! A target panics when a promise is broken. Around each stand two more promises: memory stays under a multiple of the
//! input's length, and time under a limit that noise alone does not reach.

pub mod meter;
mod model;
pub mod mutate;
mod plan;
mod role;
mod wire;

use std::panic::{set_hook, take_hook};
use std::sync::Once;
use std::time::{Duration, Instant};

/// Time that every input may take, and what each of its bytes adds, also in a debug build.
const TIME_BASE: Duration = Duration::from_millis(100);
const TIME_PER_BYTE: Duration = Duration::from_micros(20);

/// One thing to feed bytes to.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: of the fuzzer's binary, and of its folder of kept inputs.
    pub name: &'static str,
    /// What is done with the bytes.
    pub run: fn(&[u8]),
    /// Bytes of heap that it may hold for each byte of input, at its peak.
    pub heap_per_byte: usize,
    /// Bytes of heap that it may hold besides.
    pub heap_base: usize,
}

/// All targets; the bounds of heap are about twice what was measured, of which the README tells.
pub const TARGETS: [Target; 4] = [
    Target { name: "wire", run: wire::run, heap_per_byte: 100, heap_base: 64 * 1024 },
    Target { name: "plan", run: plan::run, heap_per_byte: 100, heap_base: 256 * 1024 },
    Target { name: "role", run: role::run, heap_per_byte: 200, heap_base: 2 * 1024 * 1024 },
    Target { name: "model", run: model::run, heap_per_byte: 1400, heap_base: 4 * 1024 * 1024 },
];

/// The target with this name.
pub fn target(name: &str) -> Target {
    TARGETS.into_iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target {name}"))
}

/// Makes what the targets share, outside of every measurement.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The fuzzer's own hook ends the process at any panic; the panics of the repair library are caught and allowed.
        drop(take_hook());
        let usual = take_hook();
        set_hook(Box::new(move |info| {
            if !info.location().is_some_and(|place| place.file().contains("jsonrepair")) {
                usual(info);
            }
        }));
        role::prepare();
        model::prepare();
    });
}

impl Target {
    /// Runs one input and panics when a promise is broken.
    pub fn check(&self, data: &[u8]) -> usize {
        prepare();
        let limit = TIME_BASE + TIME_PER_BYTE * u32::try_from(data.len()).unwrap_or(u32::MAX);
        let (started, before) = (Instant::now(), meter::start());
        (self.run)(data);
        let (heap, taken) = (meter::peak_since(before), started.elapsed());
        let allowed = self.heap_base + self.heap_per_byte * data.len();
        assert!(heap <= allowed, "{}: {} bytes of input held {heap} of heap", self.name, data.len());
        // On a busy machine everything takes long; what counts is then the time of computing.
        let computed = if taken > limit { self.time(data) } else { taken };
        assert!(computed <= limit, "{}: {} bytes of input took {computed:?}", self.name, data.len());
        heap
    }

    /// The time that one input takes, to a few milliseconds.
    pub fn time(&self, data: &[u8]) -> Duration {
        prepare();
        let before = meter::computed();
        (self.run)(data);
        meter::computed().saturating_sub(before)
    }
}
