//! Workloads and measurements, shared by the `bench` binary and the criterion benches.

pub mod measure;
pub mod workload;
