//! Counts what the current thread holds on the heap, and the time that it computes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, with a count.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn took(bytes: usize) {
    // A thread that ends has no counters any more, and nobody who would ask for them.
    let _ = HELD.try_with(|held| {
        held.set(held.get().wrapping_add(bytes));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

fn gave(bytes: usize) {
    // What another thread allocated may be given back here: the count must not run under zero then.
    let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(bytes)));
}

#[allow(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call goes to the system's allocator unchanged; the counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // Growing may hold the old and the new at the same time.
        took(bytes);
        gave(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(place, layout, bytes) }
    }
}

/// Begins a measurement; the answer is what [`peak_since`] wants.
pub fn start() -> usize {
    let held = HELD.get();
    PEAK.set(held);
    held
}

/// The most that was held since [`start`], without what was held then.
pub fn peak_since(before: usize) -> usize {
    PEAK.get().saturating_sub(before)
}

/// The time that this thread had a processor, where the system tells it; a busy machine makes nothing slow then.
pub fn computed() -> Duration {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.and_then(|text| text.split(' ').next()?.parse().ok());
    nanoseconds.map_or_else(|| STARTED.elapsed(), Duration::from_nanos)
}
