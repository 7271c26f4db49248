//! Opening a store that was closed, or whose process was killed.

use std::io::{Read, Write};
use std::time::Instant;

use bench::measure::anonymous_bytes;
use bench::workload::{Values, key};

use super::{check, open};
use crate::Outcome;
use crate::compare::drive::fill;
use crate::compare::plan::Job;
use crate::compare::results::Found;
use crate::compare::store::Mode;

/// Loads, and closes in an orderly way.
pub(super) fn load_and_close(job: &Job) -> Outcome<Found> {
    let mut found = Found::default();
    let values = Values::new();
    let store = open(job, Mode::Buffered)?;
    // What a store takes without a key is counted where all keys are loaded.
    let empty = anonymous_bytes() + store.mapped_index_bytes();
    fill(&*store, &values, 0, job.keys)?;
    store.settle()?;
    let memory = (anonymous_bytes() + store.mapped_index_bytes()).saturating_sub(empty);
    found.figure(&format!("memory@{}", job.keys), memory as f64 / job.keys as f64);
    store.close()?;
    Ok(found)
}

/// Loads, says so, and waits to be killed.
pub(super) fn load_and_wait(job: &Job) -> Outcome<()> {
    let store = open(job, Mode::Buffered)?;
    fill(&*store, &Values::new(), 0, job.keys)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "loaded")?;
    out.flush()?;
    // Ends, too, when the parent is gone.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// How long it takes from nothing to the first value.
pub(super) fn timed(job: &Job, id: &str) -> Outcome<Found> {
    let mut found = Found::default();
    let (values, mut out) = (Values::new(), Vec::new());
    let begun = Instant::now();
    let store = open(job, Mode::Buffered)?;
    let is_there = store.get_into(&key(job.keys / 2), &mut out)?;
    let millis = begun.elapsed().as_secs_f64() * 1e3;
    if !is_there {
        return Err("a key is gone".into());
    }
    for i in (0..job.keys).step_by(997).chain([job.keys - 1]) {
        if !store.get_into(&key(i), &mut out)? {
            return Err(format!("key {i} is gone").into());
        }
        check(&values, i, &out)?;
    }
    if job.is_full {
        found.figure(id, millis);
    }
    found.figure(&format!("{id}@{}", job.keys), millis);
    store.close()?;
    Ok(found)
}
