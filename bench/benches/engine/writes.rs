//! Puts, batches, durable puts, overwriting with merges, long values.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bench::measure::{Clock, in_threads};
use bench::workload::{Uniform, Values, key};
use caskade::{Batch, Db, Durability, WriteOptions};
use criterion::{BatchSize, Criterion, SamplingMode, Throughput};

use crate::{KEYS, LONG, loaded};

pub(crate) fn puts(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let (db, values) = (loaded(&dir.path().join("data")), Values::new());
    let mut group = c.benchmark_group("put");
    let (mut order, mut version) = (Uniform::new(1, KEYS), 0);
    group.throughput(Throughput::Elements(1));
    group.bench_function("overwrite", |b| {
        b.iter(|| {
            version += 1;
            let i = order.draw();
            db.put(&key(i), values.get(i, version)).expect("puts")
        });
    });
    group.throughput(Throughput::Elements(100));
    let mut batch = Batch::new();
    group.bench_function("batch of 100", |b| {
        b.iter(|| {
            version += 1;
            batch.clear();
            for _ in 0..100 {
                let i = order.draw();
                batch.put(&key(i), values.get(i, version));
            }
            db.write(&batch).expect("writes")
        });
    });
    group.finish();
}

/// Every round fills a new store.
pub(crate) fn load(c: &mut Criterion) {
    let values = Values::new();
    let mut group = c.benchmark_group("load");
    group.throughput(Throughput::Elements(KEYS)).sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("new keys into a new store", |b| {
        b.iter_batched(
            || {
                let dir = tempfile::tempdir().expect("a directory");
                (Db::open(dir.path().join("data")).expect("opens"), dir)
            },
            |(db, dir)| {
                for i in 0..KEYS {
                    db.put(&key(i), values.get(i, 0)).expect("puts");
                }
                // Closed and removed when nobody looks at the clock.
                (db, dir)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

pub(crate) fn durable(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let (db, values) = (loaded(&dir.path().join("data")), Values::new());
    let options = WriteOptions::new().durability(Durability::Sync);
    let mut group = c.benchmark_group("durable put");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    let version = AtomicU64::new(0);
    for threads in [1, 8, 32] {
        group.bench_function(format!("{threads} threads"), |b| {
            b.iter_custom(|rounds| {
                let share = rounds.div_ceil(threads as u64);
                let time = in_threads(Clock::Wall, threads, |thread| {
                    let mut order = Uniform::new(thread as u64, KEYS);
                    for _ in 0..share {
                        let i = order.draw();
                        let value = values.get(i, version.fetch_add(1, Ordering::Relaxed));
                        db.put_with(&key(i), value, options).expect("puts");
                    }
                });
                time.mul_f64(rounds as f64 / (share * threads as u64) as f64)
            });
        });
    }
    group.finish();
}

/// Every round overwrites as many keys as there are, so that merges keep up or hold writers back.
pub(crate) fn churn(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let (db, values) = (loaded(&dir.path().join("data")), Values::new());
    let mut group = c.benchmark_group("churn");
    group.throughput(Throughput::Elements(KEYS)).sample_size(10);
    let mut version = 0;
    group.bench_function("every key once, by chance", |b| {
        b.iter(|| {
            version += 1;
            let mut order = Uniform::new(version, KEYS);
            for _ in 0..KEYS {
                let i = order.draw();
                db.put(&key(i), values.get(i, version)).expect("puts");
            }
        });
    });
    group.finish();
}

pub(crate) fn long(c: &mut Criterion) {
    let mut group = c.benchmark_group("put of long values");
    group.sample_size(20);
    for (len, name, keys) in LONG {
        let dir = tempfile::tempdir().expect("a directory");
        let db = Db::open(dir.path().join("data")).expect("opens");
        let values = Values::of_len(len);
        group.throughput(Throughput::Bytes(len as u64));
        let mut version = 0;
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                let begun = Instant::now();
                for _ in 0..rounds {
                    version += 1;
                    let i = version % keys;
                    db.put(&key(i), values.get(i, version)).expect("puts");
                }
                let time: Duration = begun.elapsed();
                db.sync().expect("syncs");
                time
            });
        });
    }
    group.finish();
}
