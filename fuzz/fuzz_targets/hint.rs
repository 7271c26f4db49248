//! See `caskade_fuzz::hint`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caskade_fuzz::hint(data));
