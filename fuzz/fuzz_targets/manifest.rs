//! See `caskade_fuzz::manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caskade_fuzz::manifest(data));
