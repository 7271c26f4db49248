//! The mixes of YCSB, by one thread: keys by Zipf's law, of 500,000.

use std::hint::black_box;

use bench::workload::{Values, key, mix};
use bench::zipf::Zipf;
use caskade::Db;
use criterion::{Criterion, Throughput};

use crate::{KEYS, loaded};

/// What a mix does to the keys that it does not read.
#[derive(Clone, Copy)]
enum Write {
    Nothing,
    Overwrite,
    /// A new key; and the newest are the ones that are read.
    Insert,
    Change,
}

const MIXES: [(&str, u64, Write); 5] = [
    ("A: half overwrites", 50, Write::Overwrite),
    ("B: 5% overwrites", 95, Write::Overwrite),
    ("C: reads alone", 100, Write::Nothing),
    ("D: 5% new keys, the newest read", 95, Write::Insert),
    ("F: half read, changed and written", 50, Write::Change),
];

pub(crate) fn ycsb(c: &mut Criterion) {
    let mut group = c.benchmark_group("YCSB");
    group.throughput(Throughput::Elements(1));
    let drawn = Zipf::new(KEYS).draw_many(6, 1 << 20);
    for (name, reads, write) in MIXES {
        let dir = tempfile::tempdir().expect("a directory");
        let (db, values) = (loaded(&dir.path().join("data")), Values::new());
        let (mut turn, mut keys, mut out) = (0_u64, KEYS, Vec::new());
        group.bench_function(name, |b| {
            b.iter(|| {
                turn += 1;
                let i = u64::from(drawn[turn as usize % drawn.len()]);
                let i = if matches!(write, Write::Insert) { keys - 1 - i } else { i };
                if mix(turn) % 100 < reads {
                    black_box(db.get_into(&key(i), &mut out).expect("gets"));
                } else {
                    change(&db, &values, write, i, turn, &mut keys);
                }
            });
        });
    }
    group.finish();
}

fn change(db: &Db, values: &Values, write: Write, i: u64, turn: u64, keys: &mut u64) {
    match write {
        Write::Nothing => {}
        Write::Overwrite => {
            db.put(&key(i), values.get(i, turn)).expect("puts");
        }
        Write::Insert => {
            db.put(&key(*keys), values.get(*keys, turn)).expect("puts");
            *keys += 1;
        }
        Write::Change => {
            let turned = |old: Option<&[u8]>| {
                let mut value = old.expect("it is there").to_vec();
                value[0] ^= turn as u8;
                Some(value)
            };
            db.update(&key(i), turned).expect("updates");
        }
    }
}
