//! YCSB's mixes of gets and writes.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use bench::workload::{Values, key, mix};
use bench::zipf::Zipf;

use super::get::{DRAWN, warm};
use super::open;
use crate::Outcome;
use crate::compare::drive::{Phase, SAMPLE, by_one_and_two, drive};
use crate::compare::plan::Job;
use crate::compare::results::Found;
use crate::compare::store::{Mode, Store};

/// Of a hundred operations so many are gets, the others overwrites; the keys by Zipf's law.
pub(super) fn overwrites(job: &Job, id: &str, gets: u64) -> Outcome<Found> {
    let mut found = Found::default();
    let (store, values) = (open(job, Mode::Buffered)?, Values::new());
    warm(job, &*store)?;
    let zipf = Zipf::new(job.keys);
    let drawn = [zipf.draw_many(3, DRAWN), zipf.draw_many(4, DRAWN)];
    let phases = by_one_and_two(2 * job.stretch, |threads, stretch| {
        drive(threads, stretch, SAMPLE, |thread| {
            let mut client = Client::new(&*store, &values, thread, &drawn[thread]);
            move || match client.next() {
                (i, chance) if chance < gets => client.get(i),
                (i, _) => client.put(i),
            }
        })
    })?;
    found.one_and_two(id, &phases);
    store.flush()?;
    store.close()?;
    Ok(found)
}

/// YCSB C, gets alone; F, gets and every other time an overwrite with what was got; and D, in which one
/// of twenty operations inserts a key, and the newest ones are asked for most.
pub(super) fn others(job: &Job) -> Outcome<Found> {
    let mut found = Found::default();
    let (store, values) = (open(job, Mode::Buffered)?, Values::new());
    warm(job, &*store)?;
    let zipf = Zipf::new(job.keys);
    let drawn = [zipf.draw_many(5, DRAWN), zipf.draw_many(6, DRAWN)];
    for (id, writes) in [("ycsb_c", 0), ("ycsb_f", 50)] {
        let phases = by_one_and_two(job.stretch, |threads, stretch| {
            drive(threads, stretch, SAMPLE, |thread| {
                let mut client = Client::new(&*store, &values, thread, &drawn[thread]);
                move || {
                    let (i, chance) = client.next();
                    client.get(i)?;
                    if chance < writes { client.put(i) } else { Ok(()) }
                }
            })
        })?;
        found.one_and_two(id, &phases);
    }
    found.one_and_two("ycsb_d", &newest(job, &*store, &values, zipf)?);
    store.flush()?;
    store.close()?;
    Ok(found)
}

/// Each thread inserts keys of its own, and gets those, and beyond them the ones loaded last.
fn newest(job: &Job, store: &dyn Store, values: &Values, zipf: Zipf) -> Outcome<[Phase; 2]> {
    let ages = [zipf.draw_ranks(7, DRAWN), zipf.draw_ranks(8, DRAWN)];
    let inserted = [AtomicU64::new(0), AtomicU64::new(0)];
    by_one_and_two(job.stretch, |threads, stretch| {
        drive(threads, stretch, SAMPLE, |thread| {
            let mut client = Client::new(store, values, thread, &ages[thread]);
            let inserted = &inserted[thread];
            let own = move |number: u64| job.keys + 2 * number + thread as u64;
            move || {
                let (age, chance) = client.next();
                let count = inserted.load(Ordering::Relaxed);
                if chance < 5 {
                    client.put(own(count))?;
                    inserted.store(count + 1, Ordering::Relaxed);
                    Ok(())
                } else if age < count {
                    client.get(own(count - 1 - age))
                } else {
                    client.get(job.keys - 1 - (age - count))
                }
            }
        })
    })
}

/// A thread that does one operation after the other.
struct Client<'a> {
    store: &'a dyn Store,
    values: &'a Values,
    thread: u64,
    drawn: &'a [u32],
    at: usize,
    out: Vec<u8>,
}

impl<'a> Client<'a> {
    fn new(store: &'a dyn Store, values: &'a Values, thread: usize, drawn: &'a [u32]) -> Self {
        Self { store, values, thread: thread as u64, drawn, at: 0, out: Vec::new() }
    }

    /// What was drawn, and a number below a hundred.
    fn next(&mut self) -> (u64, u64) {
        let drawn = u64::from(self.drawn[self.at % DRAWN]);
        self.at += 1;
        (drawn, mix(self.at as u64 ^ self.thread << 40) % 100)
    }

    fn get(&mut self, i: u64) -> Outcome<()> {
        let is_there = self.store.get_into(&key(i), &mut self.out)?;
        if !is_there || self.out.len() != self.values.get(i, 0).len() {
            return Err("a key is gone, or its value is short".into());
        }
        black_box(&self.out);
        Ok(())
    }

    fn put(&self, i: u64) -> Outcome<()> {
        self.store.put(&key(i), self.values.get(i, self.at as u64))
    }
}
