//! YCSB's mixes of gets and overwrites.

use std::hint::black_box;

use bench::workload::{Values, key, mix};
use bench::zipf::Zipf;

use super::get::{DRAWN, warm};
use super::open;
use crate::Outcome;
use crate::compare::drive::{SAMPLE, by_one_and_two, drive};
use crate::compare::plan::Job;
use crate::compare::results::Found;
use crate::compare::store::Mode;

/// Of a hundred operations so many are gets, the others overwrites; the keys by Zipf's law.
pub(super) fn run(job: &Job, id: &str, gets: u64) -> Outcome<Found> {
    let mut found = Found::default();
    let (store, values) = (open(job, Mode::Buffered)?, Values::new());
    warm(job, &*store)?;
    let zipf = Zipf::new(job.keys);
    let drawn = [zipf.draw_many(3, DRAWN), zipf.draw_many(4, DRAWN)];
    let phases = by_one_and_two(2 * job.stretch, |threads, stretch| {
        drive(threads, stretch, SAMPLE, |thread| {
            let (mut at, mut out) = (0_usize, Vec::new());
            let (store, values, drawn) = (&*store, &values, &drawn[thread]);
            move || {
                let i = u64::from(drawn[at % DRAWN]);
                at += 1;
                if mix(at as u64 ^ (thread as u64) << 40) % 100 < gets {
                    if !store.get_into(&key(i), &mut out)? || out.len() != values.get(i, 0).len() {
                        return Err("a key is gone, or its value is short".into());
                    }
                    black_box(&out);
                    Ok(())
                } else {
                    store.put(&key(i), values.get(i, at as u64))
                }
            }
        })
    })?;
    found.one_and_two(id, &phases);
    store.flush()?;
    store.close()?;
    Ok(found)
}
