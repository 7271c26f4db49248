//! Whole stores on the simulated disk.

use caskade::{Background, Builder, Db};
use caskade_shard::storage::sim::SimDisk;
use rayon::ThreadPool;
use std::sync::OnceLock;

/// Where the store lies on the simulated disk.
pub(crate) const HOME: &str = "/db";

/// An empty disk for small files.
pub(crate) fn disk() -> SimDisk {
    let disk = SimDisk::new(11);
    disk.set_map_reserve(16 << 10);
    disk
}

/// Options for tiny segments; background work is done only on demand.
pub(crate) fn tiny(path: &str, disk: &SimDisk) -> Builder {
    Db::builder(path)
        .storage(disk.storage())
        .segment_bytes_max(4096)
        .segment_bytes_min(512)
        .journal_bytes(8 << 10)
        .background(Background::Manual)
}

/// Runs `act` with one thread in the pool: recovery then makes its calls in the same order every
/// time, and an input always means the same.
pub(crate) fn alone(act: impl FnOnce() + Send) {
    static POOL: OnceLock<ThreadPool> = OnceLock::new();
    let make = || rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread pool");
    POOL.get_or_init(make).install(act);
}
