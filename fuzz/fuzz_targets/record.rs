//! See `caskade_fuzz::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caskade_fuzz::record(data));
