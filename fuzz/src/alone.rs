//! One thread in the pool: the store's calls then come in the same order for the same input.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

static POOL: OnceLock<ThreadPool> = OnceLock::new();

pub(crate) fn alone(act: impl FnOnce() + Send) {
    let pool = || ThreadPoolBuilder::new().num_threads(1).build().expect("a thread pool");
    POOL.get_or_init(pool).install(act);
}
