//! Gets: uniform, by Zipf's law, of absent keys, many at once, of long values; and everything.

use std::hint::black_box;

use bench::workload::{Uniform, Values, absent_key, key};
use bench::zipf::Zipf;
use criterion::{Criterion, Throughput};

use crate::{KEYS, LONG, loaded, loaded_with};

pub(crate) fn gets(c: &mut Criterion) {
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
    let mut drawn = Zipf::new(KEYS).draw_many(3, 1 << 20).into_iter().cycle();
    group.bench_function("hit, zipf", |b| {
        b.iter(|| {
            let i = drawn.next().expect("it has no end");
            db.get_into(&key(i.into()), &mut out).expect("gets")
        });
    });
    group.bench_function("miss", |b| {
        b.iter(|| db.get_into(&absent_key(order.draw()), &mut out).expect("gets"));
    });
    group.finish();
}

pub(crate) fn many(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let db = loaded(&dir.path().join("data"));
    let mut group = c.benchmark_group("64 gets at once");
    group.throughput(Throughput::Elements(64));
    let mut order = Uniform::new(4, KEYS);
    group.bench_function("get_many_with", |b| {
        b.iter(|| {
            let keys: [_; 64] = std::array::from_fn(|_| key(order.draw()));
            let visit = |_, value: Option<&[u8]>| {
                black_box(value);
            };
            db.get_many_with(&keys, visit).expect("gets");
        });
    });
    group.bench_function("get_many", |b| {
        b.iter(|| {
            let keys: [_; 64] = std::array::from_fn(|_| key(order.draw()));
            black_box(db.get_many(&keys).expect("gets"))
        });
    });
    group.finish();
}

pub(crate) fn long(c: &mut Criterion) {
    let mut group = c.benchmark_group("get of long values");
    for (len, name, keys) in LONG {
        let dir = tempfile::tempdir().expect("a directory");
        let db = loaded_with(&dir.path().join("data"), keys, &Values::of_len(len));
        let (mut order, mut out) = (Uniform::new(5, keys), Vec::new());
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{name}, get_into"), |b| {
            b.iter(|| db.get_into(&key(order.draw()), &mut out).expect("gets"));
        });
        group.bench_function(format!("{name}, get"), |b| {
            b.iter(|| black_box(db.get(&key(order.draw())).expect("gets")));
        });
    }
    group.finish();
}

pub(crate) fn iteration(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let db = loaded(&dir.path().join("data"));
    let mut group = c.benchmark_group("iteration");
    group.throughput(Throughput::Elements(KEYS)).sample_size(10);
    group.bench_function("visit", |b| {
        b.iter(|| {
            let mut bytes = 0;
            let visit = |key: &[u8], value: &[u8]| {
                bytes += key.len() + value.len();
                true
            };
            db.iter().expect("iterates").visit(visit).expect("visits");
            bytes
        });
    });
    group.bench_function("entries", |b| {
        b.iter(|| {
            db.iter().expect("iterates").map(|entry| entry.expect("reads").key.len()).sum::<usize>()
        });
    });
    group.finish();
}
