//! What fuzzing asserts of the codec and of a whole store, as plain functions of any bytes.
//!
//! A harness panics where it finds something. The first byte of its input picks what the rest means:
//! the file itself; a file whose checksums are set right first, so that the fuzzer gets past them;
//! or instructions from which the harness builds a valid file, which must then read back as built.
//!
//! `fuzz_targets/` hands these functions to libFuzzer, and `tests/corpus.rs` replays the committed
//! corpus on a stable toolchain. `CONTRIBUTING.md` says how to run both.
#![forbid(unsafe_code)]
#![expect(clippy::missing_panics_doc, reason = "a panic is how a harness reports a finding")]

mod alone;
mod directory;
mod hint;
mod input;
mod journal;
mod manifest;
mod names;
mod operations;
mod record;
pub mod seeds;
mod segment_scan;
mod snapshot;
mod store_meta;
mod twin;

pub use directory::directory;
pub use hint::hint;
pub use journal::journal;
pub use manifest::manifest;
pub use names::names;
pub use operations::operations;
pub use record::record;
pub use segment_scan::segment_scan;
pub use snapshot::snapshot;
pub use store_meta::store_meta;

/// A harness: it takes any bytes, and panics where a property does not hold.
pub type Harness = fn(&[u8]);

/// Every harness under the name of its target and of its corpus.
pub const HARNESSES: [(&str, Harness); 10] = [
    ("record", record),
    ("segment_scan", segment_scan),
    ("hint", hint),
    ("manifest", manifest),
    ("snapshot", snapshot),
    ("store_meta", store_meta),
    ("journal", journal),
    ("names", names),
    ("directory", directory),
    ("operations", operations),
];
