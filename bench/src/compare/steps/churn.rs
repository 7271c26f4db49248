//! Overwrites, and what they do to the space on disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bench::measure::disk_bytes;
use bench::workload::{LOGICAL_LEN, Uniform, Values, key};

use super::open;
use crate::Outcome;
use crate::compare::drive::fill;
use crate::compare::peers;
use crate::compare::plan::Job;
use crate::compare::results::Found;
use crate::compare::store::{Mode, Store, wait_for_still_files};

/// How often all keys are overwritten, on average.
const ROUNDS: u64 = 3;
const LIMIT: Duration = Duration::from_secs(40);
/// Overwrites of a batch, for stores that are written in batches.
const BATCH: u64 = 1000;

/// Loads, overwrites keys by chance three times as often as there are keys, and settles.
pub(super) fn run(job: &Job) -> Outcome<Found> {
    let mut found = Found::default();
    let (store, values) = (open(job, Mode::Buffered)?, Values::new());
    fill(&*store, &values, 0, job.keys)?;
    store.settle()?;
    let logical = (job.keys * LOGICAL_LEN) as f64;
    let is_over = AtomicBool::new(false);
    let begun = Instant::now();
    let seconds = || begun.elapsed().as_secs_f64();
    let watch = || -> Outcome<Vec<(f64, f64)>> {
        let mut seen = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            seen.push((seconds(), disk_bytes(&job.dir)? as f64 / logical));
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(seen)
    };
    let (seen, (ops, rate)) = std::thread::scope(|scope| -> Outcome<_> {
        let watcher = scope.spawn(watch);
        let rate = overwrite(job, &*store, &values);
        let rested = store.flush().and_then(|()| store.settle());
        // Whoever tidies up after a while without writes gets the while.
        let rested = rested.and_then(|()| wait_for_still_files(&job.dir, 5));
        is_over.store(true, Ordering::Relaxed);
        let seen = watcher.join().expect("the watch does not panic")?;
        rested?;
        Ok((seen, rate?))
    })?;
    let ended = seconds();
    let settled = disk_bytes(&job.dir)? as f64 / logical;
    store.close()?;
    let peak = seen.iter().map(|(_, space)| *space).fold(settled, f64::max);
    found.figure("disk_peak", peak);
    found.figure("disk_settled", settled);
    found.figure("overwrites", rate);
    found.figure("overwritten", ops as f64 / job.keys as f64);
    found.series.insert("space".to_owned(), thinned(seen, (ended, settled)));
    Ok(found)
}

/// Overwrites until it is enough, or the time is over. Answers how often, and how often a second.
fn overwrite(job: &Job, store: &dyn Store, values: &Values) -> Outcome<(u64, f64)> {
    let batch = if peers::find(&job.store)?.loads_batched { BATCH } else { 1 };
    let mut order = Uniform::new(7, job.keys);
    let begun = Instant::now();
    let mut ops = 0;
    while ops < ROUNDS * job.keys && begun.elapsed() < LIMIT {
        if batch == 1 {
            let i = order.draw();
            store.put(&key(i), values.get(i, ops + 1))?;
        } else {
            let mut pair = || {
                let i = order.draw();
                (key(i), values.get(i, ops + 1))
            };
            let pairs: Vec<_> = (0..batch).map(|_| pair()).collect();
            store.put_batch(&pairs)?;
        }
        ops += batch;
    }
    Ok((ops, ops as f64 / begun.elapsed().as_secs_f64()))
}

/// About a hundred of the points, and the last one.
fn thinned(seen: Vec<(f64, f64)>, settled: (f64, f64)) -> Vec<(f64, f64)> {
    let every = seen.len().div_ceil(100).max(1);
    seen.into_iter().step_by(every).chain([settled]).collect()
}
