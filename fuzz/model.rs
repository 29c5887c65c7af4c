//! Coverage-guided fuzzing of the target `model`; tests/fuzz/README.md tells how to run it.

#![no_main]

#[path = "../tests/fuzz/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(init: targets::prepare(), |data: &[u8]| {
    targets::target("model").check(data);
});

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 2 == 0 {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    let new = targets::mutate::mutate(&data[..size], &[], seed.into(), max_size);
    data[..new.len()].copy_from_slice(&new);
    new.len()
});
