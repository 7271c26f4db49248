//! See `caskade_fuzz::store_meta`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caskade_fuzz::store_meta(data));
