//! The mixes of YCSB by one thread, and A by two: keys by Zipf's law, of 500,000.

use std::hint::black_box;

use bench::measure::{Clock, in_threads};
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

/// Mix A by two threads, each of which draws keys of its own; the time is that of an operation of both.
pub(crate) fn two_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("YCSB by two threads");
    group.throughput(Throughput::Elements(1));
    let (_, reads, write) = MIXES[0];
    let zipf = Zipf::new(KEYS);
    let drawn = [7, 8].map(|seed| zipf.draw_many(seed, 1 << 20));
    let dir = tempfile::tempdir().expect("a directory");
    let (db, values) = (loaded(&dir.path().join("data")), Values::new());
    let mut done = 0;
    group.bench_function(MIXES[0].0, |b| {
        b.iter_custom(|rounds| {
            let share = rounds.div_ceil(2);
            let time = in_threads(Clock::Wall, 2, |thread| {
                let (drawn, mut out) = (&drawn[thread], Vec::new());
                for turn in done..done + share {
                    let i = u64::from(drawn[turn as usize % drawn.len()]);
                    if mix(turn << 1 | thread as u64) % 100 < reads {
                        black_box(db.get_into(&key(i), &mut out).expect("gets"));
                    } else {
                        change(&db, &values, write, i, turn, &mut 0);
                    }
                }
            });
            done += share;
            time.mul_f64(rounds as f64 / (2 * share) as f64)
        });
    });
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
