//! What users do, each measured by itself: `cargo bench -p bench --bench engine`, with the beginning of
//! a name behind `--` to choose.

mod mixed;
mod reads;
mod recovery;
mod writes;

use std::path::Path;

use bench::workload::{Values, key};
use caskade::Db;
use criterion::{criterion_group, criterion_main};

const KEYS: u64 = 500_000;

/// A store of so many keys.
fn loaded_with(path: &Path, keys: u64, values: &Values) -> Db {
    let db = Db::open(path).expect("opens");
    for i in 0..keys {
        db.put(&key(i), values.get(i, 0)).expect("puts");
    }
    db
}

fn loaded(path: &Path) -> Db {
    loaded_with(path, KEYS, &Values::new())
}

/// Lengths of longer values, with their names and as many as fill some hundred megabytes.
const LONG: [(usize, &str, u64); 3] =
    [(1 << 10, "1 KiB", 200_000), (16 << 10, "16 KiB", 16_000), (1 << 20, "1 MiB", 250)];

criterion_group!(
    benches,
    writes::puts,
    writes::load,
    writes::durable,
    writes::churn,
    writes::long,
    reads::gets,
    reads::many,
    reads::long,
    reads::iteration,
    mixed::ycsb,
    mixed::two_threads,
    recovery::opens,
);
criterion_main!(benches);
