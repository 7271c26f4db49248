//! Opening: after a close, after the process died, and without hints and snapshots.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use caskade::Db;
use criterion::{Criterion, Throughput};

use crate::{KEYS, loaded};

/// Opens a fresh copy of the store for each round.
fn open_copies(from: &Path, to: &Path, rounds: u64, prepare: impl Fn(&Path)) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..rounds {
        copy(from, to);
        prepare(to);
        let begun = Instant::now();
        let db = Db::open(to).expect("opens");
        total += begun.elapsed();
        assert_eq!(db.len(), KEYS);
        drop(db);
        fs::remove_dir_all(to).expect("removes");
    }
    total
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("makes a directory");
    for entry in fs::read_dir(from).expect("lists").map(|entry| entry.expect("lists")) {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("has a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

fn without_indexes(store: &Path) {
    for shard in fs::read_dir(store).expect("lists").map(|entry| entry.expect("lists").path()) {
        let Ok(files) = fs::read_dir(&shard) else { continue };
        for file in files.map(|entry| entry.expect("lists").path()) {
            if file.extension().is_some_and(|kind| kind == "hint") || file.ends_with("KEYDIR") {
                fs::remove_file(file).expect("removes");
            }
        }
    }
}

pub(crate) fn opens(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let (open, killed, target) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("c"));
    let db = loaded(&open);
    // What stands on the disk while a store is open is what its death leaves.
    copy(&open, &killed);
    db.close().expect("closes");
    drop(db);
    let mut group = c.benchmark_group("open");
    group.throughput(Throughput::Elements(KEYS)).sample_size(10);
    group.bench_function("after a close", |b| {
        b.iter_custom(|rounds| open_copies(&open, &target, rounds, |_| {}));
    });
    group.bench_function("after the process died", |b| {
        b.iter_custom(|rounds| open_copies(&killed, &target, rounds, |_| {}));
    });
    group.bench_function("without hints and snapshots", |b| {
        b.iter_custom(|rounds| open_copies(&open, &target, rounds, without_indexes));
    });
    group.finish();
}
