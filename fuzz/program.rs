//! What the fuzz targets' programs share: one target's check, and mutations that keep to a shape.

/// The program of a target: its check under libFuzzer, every second mutation made by the targets' own mutator.
macro_rules! program {
    ($target:literal) => {
        #[path = "../tests/fuzz/targets/mod.rs"]
        mod targets;

        libfuzzer_sys::fuzz_target!(init: targets::prepare(), |data: &[u8]| {
            targets::target($target).check(data);
        });

        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            if seed % 2 == 0 {
                return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
            }
            let new = targets::mutate::mutate(&data[..size], &[], seed.into(), max_size);
            data[..new.len()].copy_from_slice(&new);
            new.len()
        });
    };
}
