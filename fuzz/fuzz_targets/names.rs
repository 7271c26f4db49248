//! See `caskade_fuzz::names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caskade_fuzz::names(data));
