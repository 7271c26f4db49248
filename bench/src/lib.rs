//! Workloads and measurements, shared by the `bench` binary and the criterion benches.

pub mod histogram;
pub mod measure;
pub mod workload;
pub mod zipf;
