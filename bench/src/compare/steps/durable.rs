//! Writes that survive a power cut before they are acknowledged.

use std::sync::atomic::{AtomicU64, Ordering};

use bench::workload::{Uniform, Values, key};

use super::open;
use crate::Outcome;
use crate::compare::drive::{Phase, drive, there_and_back};
use crate::compare::plan::Job;
use crate::compare::results::Found;
use crate::compare::store::Mode;

/// Records of a batch.
const BATCH: u64 = 100;

/// Threads of single puts, and of batches.
const PUTS: [usize; 4] = [1, 2, 8, 32];
const BATCHES: [usize; 3] = [1, 2, 8];

/// Single puts, and batches.
pub(super) fn run(job: &Job) -> Outcome<Found> {
    let mut found = Found::default();
    let (store, values) = (open(job, Mode::Durable)?, Values::new());
    let puts = |threads: usize, stretch| {
        drive(threads, stretch, 1, |thread| {
            let mut order = Uniform::new(100 + thread as u64, job.keys);
            let (store, values) = (&*store, &values);
            move || {
                let i = order.draw();
                store.put_durable(&key(i), values.get(i, 0))
            }
        })
    };
    // Files that are made by the first write are there before the clock starts.
    puts(1, job.stretch / 8)?;
    let mut note = |id: &str, threads: usize, phase: &Phase, records: u64| {
        found.figure(&format!("{id}.{threads}"), phase.rate() * records as f64);
        found.latency(&format!("{id}.{threads}"), &phase.latency);
    };
    for (threads, phase) in PUTS.into_iter().zip(&there_and_back(PUTS, job.stretch, puts)?) {
        note("durable", threads, phase, 1);
    }
    if store.batch_durable(&[(key(0), values.get(0, 0))]).is_some() {
        let next = AtomicU64::new(0);
        let batches = |threads: usize, stretch| {
            drive(threads, stretch, 1, |_| {
                let (store, values, next) = (&*store, &values, &next);
                move || {
                    let from = next.fetch_add(BATCH, Ordering::Relaxed);
                    let pairs: Vec<_> =
                        (from..from + BATCH).map(|i| (key(i), values.get(i, 0))).collect();
                    store.batch_durable(&pairs).ok_or("there are batches")?
                }
            })
        };
        let phases = there_and_back(BATCHES, job.stretch, batches)?;
        for (threads, phase) in BATCHES.into_iter().zip(&phases) {
            note("batches", threads, phase, BATCH);
        }
    }
    store.close()?;
    Ok(found)
}
