//! Work on many threads, and what is measured of it: for the demo and the benchmark.

pub(crate) mod data;
pub(crate) mod measure;
pub(crate) mod parallel;
pub(crate) mod zipf;
