//! What users do: put, get, get many, batches, durable puts, reopening.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bench::workload::{Uniform, Values, absent_key, key};
use caskade::{Batch, Db, Durability, WriteOptions};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const KEYS: u64 = 500_000;

fn loaded(path: &std::path::Path) -> Db {
    let db = Db::open(path).expect("opens");
    let values = Values::new();
    for i in 0..KEYS {
        db.put(&key(i), values.get(i, 0)).expect("puts");
    }
    db
}

fn puts(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let (db, values) = (loaded(&dir.path().join("data")), Values::new());
    let mut group = c.benchmark_group("put");
    group.throughput(Throughput::Elements(1));
    let (mut order, mut version) = (Uniform::new(1, KEYS), 0);
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
    group.throughput(Throughput::Elements(1));
    let options = WriteOptions::new().durability(Durability::Sync);
    group.bench_function("durable", |b| {
        b.iter(|| {
            version += 1;
            let i = order.draw();
            db.put_with(&key(i), values.get(i, version), options).expect("puts")
        });
    });
    group.finish();
}

fn gets(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let db = loaded(&dir.path().join("data"));
    let mut group = c.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    let (mut order, mut out) = (Uniform::new(2, KEYS), Vec::new());
    group.bench_function("hit, get_into", |b| {
        b.iter(|| db.get_into(&key(order.draw()), &mut out).expect("gets"));
    });
    group.bench_function("hit, get", |b| {
        b.iter(|| black_box(db.get(&key(order.draw())).expect("gets")));
    });
    group.bench_function("miss", |b| {
        b.iter(|| db.get_into(&absent_key(order.draw()), &mut out).expect("gets"));
    });
    group.throughput(Throughput::Elements(64));
    group.bench_function("get_many_with(64)", |b| {
        b.iter(|| {
            let keys: [_; 64] = std::array::from_fn(|_| key(order.draw()));
            let visit = |_, value: Option<&[u8]>| {
                black_box(value);
            };
            db.get_many_with(&keys, visit).expect("gets");
        });
    });
    group.finish();
}

fn reopens(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("data");
    loaded(&path).close().expect("closes");
    let mut group = c.benchmark_group("open");
    group.sample_size(10);
    group.throughput(Throughput::Elements(KEYS));
    group.bench_function("clean", |b| {
        b.iter_custom(|rounds| {
            let mut total = Duration::ZERO;
            for _ in 0..rounds {
                let begun = Instant::now();
                let db = Db::open(&path).expect("opens");
                total += begun.elapsed();
                db.close().expect("closes");
            }
            total
        });
    });
    group.finish();
}

criterion_group!(benches, puts, gets, reopens);
criterion_main!(benches);
