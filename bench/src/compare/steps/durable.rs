//! Writes that survive a power cut before they are acknowledged.

use std::sync::atomic::{AtomicU64, Ordering};

use bench::workload::{Uniform, Values, key};

use super::open;
use crate::Outcome;
use crate::compare::drive::drive;
use crate::compare::plan::Job;
use crate::compare::results::Found;
use crate::compare::store::Mode;

/// Records of a batch.
const BATCH: u64 = 100;

/// Single puts by 1, 8 and 32 threads, and batches by 1 and 8.
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
    for threads in [1, 8, 32] {
        let phase = puts(threads, job.stretch)?;
        found.figure(&format!("durable.{threads}"), phase.rate());
        found.latency(&format!("durable.{threads}"), &phase.latency);
    }
    if store.batch_durable(&[(key(0), values.get(0, 0))]).is_some() {
        let next = AtomicU64::new(0);
        for threads in [1, 8] {
            let phase = drive(threads, job.stretch, 1, |_| {
                let (store, values, next) = (&*store, &values, &next);
                move || {
                    let from = next.fetch_add(BATCH, Ordering::Relaxed);
                    let pairs: Vec<_> =
                        (from..from + BATCH).map(|i| (key(i), values.get(i, 0))).collect();
                    store.batch_durable(&pairs).ok_or("there are batches")?
                }
            })?;
            found.figure(&format!("batches.{threads}"), phase.rate() * BATCH as f64);
            found.latency(&format!("batches.{threads}"), &phase.latency);
        }
    }
    store.close()?;
    Ok(found)
}
