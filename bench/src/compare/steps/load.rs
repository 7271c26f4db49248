//! Loading a new store.

use bench::measure::{anonymous_bytes, disk_bytes};
use bench::workload::{LOGICAL_LEN, Values};

use super::open;
use crate::Outcome;
use crate::compare::drive::{Load, fill, load};
use crate::compare::plan::{Job, Step};
use crate::compare::results::Found;
use crate::compare::store::Mode;

/// Loads; of the load by one thread the store stays for the steps to come.
pub(super) fn run(job: &Job) -> Outcome<Found> {
    let mut found = Found::default();
    let values = Values::new();
    let before = anonymous_bytes();
    let store = open(job, Mode::Buffered)?;
    let threads = if matches!(job.step, Step::Load2 | Step::LoadBatched2) { 2 } else { 1 };
    let is_batched = matches!(job.step, Step::LoadBatched1 | Step::LoadBatched2);
    let how = Load { values: &values, threads, keys: job.keys, is_batched, limit: job.load_limit };
    let phase = load(&*store, how)?;
    if is_batched {
        found.figure(&format!("load_batched.{threads}"), phase.rate());
        return Ok(found);
    }
    found.figure(&format!("load.{threads}"), phase.rate());
    found.figure(&format!("stall.{threads}"), phase.worst_stall.as_secs_f64() * 1e3);
    found.latency(&format!("put.{threads}"), &phase.latency);
    if job.step == Step::Load2 {
        return Ok(found);
    }
    fill(&*store, &values, phase.ops, job.keys)?;
    store.settle()?;
    let anonymous = anonymous_bytes().saturating_sub(before) as f64 / job.keys as f64;
    let mapped = store.mapped_index_bytes() as f64 / job.keys as f64;
    found.figure("memory_anonymous", anonymous);
    found.figure("memory", anonymous + mapped);
    store.close()?;
    let logical = (job.keys * LOGICAL_LEN) as f64;
    found.figure("disk_loaded", disk_bytes(&job.dir)? as f64 / logical);
    Ok(found)
}
