//! What the machine gives: the same work without a store.

use std::fs::File;
use std::hint::black_box;
use std::path::Path;

use bench::measure::{Clock, in_threads};
use bench::workload::{KEY_LEN, Uniform, Values, absent_key, key};
use bench::zipf::Zipf;
use hashbrown::HashMap;
use memmap2::{Mmap, MmapMut};

use super::drive::{SAMPLE, by_one_and_two, drive};
use super::plan::{Job, Step};
use super::results::Found;
use super::steps::{DRAWN, keys_of_len};
use crate::Outcome;
use crate::accept::sync_rate;

type Map = HashMap<[u8; KEY_LEN], Box<[u8]>>;

/// Length and checksum.
const HEAD: usize = 8;

/// Measures the ceilings that belong to a step.
pub(crate) fn run(job: &Job) -> Outcome<Found> {
    let mut found = Found::default();
    match job.step {
        Step::Load1 => append(job, 1, &mut found)?,
        Step::Load2 => append(job, 2, &mut found)?,
        Step::Get => {
            map_hits(job, &mut found)?;
            uniform_gets(job, 100, "get", &mut found)?;
        }
        Step::GetZipf => {
            let zipf = Zipf::new(job.keys);
            let drawn = [zipf.draw_many(1, DRAWN), zipf.draw_many(2, DRAWN)];
            map_zipf(job, &drawn, &mut found)?;
            mapped_gets(job, 100, "zipf", &mut found, |thread| {
                let (drawn, mut at) = (&drawn[thread], 0);
                move || {
                    at += 1;
                    u64::from(drawn[at % DRAWN])
                }
            })?;
        }
        Step::GetMiss => map_misses(job, &mut found)?,
        Step::Values1K => uniform_gets(&long(job, 1 << 10), 1 << 10, "get1k", &mut found)?,
        Step::Values16K => uniform_gets(&long(job, 16 << 10), 16 << 10, "get16k", &mut found)?,
        Step::Values1M => uniform_gets(&long(job, 1 << 20), 1 << 20, "get1m", &mut found)?,
        Step::Durable => {
            std::fs::create_dir_all(&job.dir)?;
            let rate = sync_rate(&job.dir.join("ceiling"), job.stretch)?;
            found.figure("fdatasync.durable.1", rate * 1e3);
        }
        _ => {}
    }
    Ok(found)
}

/// The job with as many keys as there are of values of this length.
fn long(job: &Job, len: usize) -> Job {
    Job { keys: keys_of_len(job.keys, len), ..job.clone() }
}

/// A new file of this length, its blocks allocated, in memory.
fn new_mapped(path: &Path, len: usize) -> Outcome<MmapMut> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len as u64)?;
    // SAFETY: the file is new, in a directory of this process's own; nobody else writes or truncates it.
    Ok(unsafe { MmapMut::map_mut(&file)? })
}

/// Writes a record where `at` begins, and answers its length.
fn frame(at: &mut [u8], key: &[u8; KEY_LEN], value: &[u8]) -> usize {
    let len = HEAD + KEY_LEN + value.len();
    at[4..8].copy_from_slice(&(value.len() as u32).to_le_bytes());
    at[HEAD..HEAD + KEY_LEN].copy_from_slice(key);
    at[HEAD + KEY_LEN..len].copy_from_slice(value);
    let sum = caskade_codec::checksum::of(&at[4..len]);
    at[..4].copy_from_slice(&sum.to_le_bytes());
    len
}

/// Appends framed records to a mapped file for each thread.
fn append(job: &Job, threads: usize, found: &mut Found) -> Outcome<()> {
    std::fs::create_dir_all(&job.dir)?;
    let values = Values::new();
    let share = job.keys / threads as u64;
    let len = share as usize * (HEAD + KEY_LEN + 100);
    let files = (0..threads).map(|i| new_mapped(&job.dir.join(format!("append{i}")), len));
    let files = files.collect::<Outcome<Vec<_>>>()?;
    let files: Vec<_> = files.into_iter().map(std::sync::Mutex::new).collect();
    let elapsed = in_threads(Clock::Wall, threads, |thread| {
        let mut file = files[thread].lock().expect("one thread each");
        let mut at = 0;
        for i in thread as u64 * share..(thread as u64 + 1) * share {
            at += frame(&mut file[at..], &key(i), values.get(i, 0));
        }
    });
    let rate = (share * threads as u64) as f64 / elapsed.as_secs_f64();
    found.figure(&format!("append.load.{threads}"), rate);
    drop(files);
    // What it left to be written must not be written while the next store is measured.
    Ok(std::fs::remove_dir_all(&job.dir)?)
}

fn map(keys: u64) -> Map {
    let values = Values::new();
    (0..keys).map(|i| (key(i), values.get(i, 0).into())).collect()
}

fn copy(map: &Map, key: &[u8; KEY_LEN], out: &mut Vec<u8>) -> bool {
    let Some(value) = map.get(key) else { return false };
    out.clear();
    out.extend_from_slice(value);
    black_box(&out);
    true
}

fn map_hits(job: &Job, found: &mut Found) -> Outcome<()> {
    let map = map(job.keys);
    let phases = by_one_and_two(job.stretch, |threads, stretch| {
        drive(threads, stretch, SAMPLE, |thread| {
            let (mut order, mut out) = (Uniform::new(20 + thread as u64, job.keys), Vec::new());
            let map = &map;
            move || {
                black_box(copy(map, &key(order.draw()), &mut out));
                Ok(())
            }
        })
    })?;
    found.one_and_two("hashbrown.get", &phases);
    // The plots of a store's gets show the map's beside them.
    found.latency("get.1", &phases[0].latency);
    Ok(())
}

fn map_zipf(job: &Job, drawn: &[Vec<u32>; 2], found: &mut Found) -> Outcome<()> {
    let map = map(job.keys);
    let phase = drive(2, job.stretch, SAMPLE, |thread| {
        let (mut at, mut out) = (0, Vec::new());
        let (map, drawn) = (&map, &drawn[thread]);
        move || {
            black_box(copy(map, &key(u64::from(drawn[at % DRAWN])), &mut out));
            at += 1;
            Ok(())
        }
    })?;
    found.figure("hashbrown.zipf.2", phase.rate());
    Ok(())
}

fn map_misses(job: &Job, found: &mut Found) -> Outcome<()> {
    let map = map(job.keys);
    let phases = by_one_and_two(job.stretch, |threads, stretch| {
        drive(threads, stretch, SAMPLE, |thread| {
            let mut order = Uniform::new(60 + thread as u64, 1 << 40);
            let mut out = Vec::new();
            let map = &map;
            move || {
                black_box(copy(map, &absent_key(order.draw()), &mut out));
                Ok(())
            }
        })
    })?;
    found.one_and_two("hashbrown.miss", &phases);
    Ok(())
}

/// Gets of values of this length, drawn uniformly.
fn uniform_gets(job: &Job, len: usize, id: &str, found: &mut Found) -> Outcome<()> {
    mapped_gets(job, len, id, found, |thread| {
        let mut order = Uniform::new(20 + thread as u64, job.keys);
        move || order.draw()
    })
}

/// A map of places, and the records in a mapped file: without and with a look at the checksum.
fn mapped_gets<N: FnMut() -> u64 + Send>(
    job: &Job,
    len: usize,
    id: &str,
    found: &mut Found,
    next: impl Fn(usize) -> N + Sync,
) -> Outcome<()> {
    std::fs::create_dir_all(&job.dir)?;
    let keys = job.keys;
    let values = Values::of_len(len);
    let path = job.dir.join("mapped");
    let mut file = new_mapped(&path, keys as usize * (HEAD + KEY_LEN + len))?;
    let mut places: HashMap<[u8; KEY_LEN], u64> = HashMap::new();
    let mut at = 0;
    for i in 0..keys {
        places.insert(key(i), at as u64);
        at += frame(&mut file[at..], &key(i), values.get(i, 0));
    }
    let file: Mmap = file.make_read_only()?;
    for (name, is_checked) in [("mapped", false), ("mapped_crc", true)] {
        let phases = by_one_and_two(job.stretch, |threads, stretch| {
            drive(threads, stretch, SAMPLE, |thread| {
                let (mut next, mut out) = (next(thread), Vec::new());
                let (places, file) = (&places, &file);
                move || {
                    let wanted = key(next());
                    let at = places[&wanted] as usize;
                    let record = &file[at..at + HEAD + KEY_LEN + len];
                    let is_whole = !is_checked
                        || caskade_codec::checksum::of(&record[4..]).to_le_bytes() == record[..4];
                    if record[HEAD..HEAD + KEY_LEN] != wanted || !is_whole {
                        return Err("a record is damaged".into());
                    }
                    out.clear();
                    out.extend_from_slice(&record[HEAD + KEY_LEN..]);
                    black_box(&out);
                    Ok(())
                }
            })
        })?;
        found.one_and_two(&format!("{name}.{id}"), &phases);
    }
    drop(file);
    Ok(std::fs::remove_file(path)?)
}
