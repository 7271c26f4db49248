//! See `caskade_fuzz::snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caskade_fuzz::snapshot(data));
