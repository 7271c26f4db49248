//! The steps, each in a process of its own. They say what they found as one line of JSON.

mod churn;
mod durable;
mod get;
mod load;
mod mixed;
mod open;

pub(crate) use get::{DRAWN, keys_of_len};

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use bench::workload::Values;

use super::args::CEILINGS;
use super::plan::{Job, Step};
use super::results::{Found, READ};
use super::store::{Mode, Store};
use super::{ceilings, peers};
use crate::Outcome;

/// Does the step that the first word describes.
pub(crate) fn run(words: &[String]) -> Outcome<()> {
    let job: Job = serde_json::from_str(words.first().ok_or("which step?")?)?;
    if job.store == CEILINGS {
        return say(&ceilings::run(&job)?);
    }
    if job.dir.exists() {
        fill_page_cache(&job.dir)?;
    }
    let read_before = bytes_read()?;
    let mut found = match job.step {
        Step::Load1 | Step::Load2 | Step::LoadBatched1 | Step::LoadBatched2 => load::run(&job)?,
        Step::Get => get::hits(&job)?,
        Step::GetZipf => get::zipf(&job)?,
        Step::GetMiss => get::misses(&job)?,
        Step::GetMany => get::many(&job)?,
        Step::Scan => get::scan(&job)?,
        Step::YcsbA => mixed::overwrites(&job, "ycsb_a", 50)?,
        Step::YcsbB => mixed::overwrites(&job, "ycsb_b", 95)?,
        Step::YcsbCfd => mixed::others(&job)?,
        Step::Values1K => get::values(&job, "1k", 1 << 10)?,
        Step::Values16K => get::values(&job, "16k", 16 << 10)?,
        Step::Values1M => get::values(&job, "1m", 1 << 20)?,
        Step::Durable => durable::run(&job)?,
        Step::Fill => open::load_and_close(&job)?,
        Step::Kill => return open::load_and_wait(&job),
        Step::OpenKilled => open::timed(&job, "open_killed")?,
        Step::OpenClean => open::timed(&job, "open_clean")?,
        Step::Churn => churn::run(&job)?,
    };
    found.figure(&format!("{READ}{:?}", job.step), (bytes_read()? - read_before) as f64);
    say(&found)
}

/// What this process read from the disk so far: nothing that is measured should.
fn bytes_read() -> Outcome<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let bytes = io.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    Ok(bytes.ok_or("no read_bytes in /proc/self/io")?.trim().parse()?)
}

/// Reads all files of a store, so that none waits for the disk: the system may have let go of what lay
/// idle while the other stores had their turns.
fn fill_page_cache(dir: &Path) -> Outcome<()> {
    let mut buffer = vec![0; 256 << 10];
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fill_page_cache(&entry.path())?;
        } else {
            let mut file = File::open(entry.path())?;
            while file.read(&mut buffer)? > 0 {}
        }
    }
    Ok(())
}

fn say(found: &Found) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(found)?)?;
    Ok(out.flush()?)
}

fn open(job: &Job, mode: Mode) -> Outcome<Box<dyn Store>> {
    (peers::find(&job.store)?.open)(&job.dir, mode, job.keys)
}

/// Whether a value is the one that was stored: by its length and by how it begins.
fn check(values: &Values, i: u64, found: &[u8]) -> Outcome<()> {
    let wanted = values.get(i, 0);
    if found.len() == wanted.len() && found[..16] == wanted[..16] {
        return Ok(());
    }
    Err(format!("key {i} has a wrong value of {} bytes", found.len()).into())
}
