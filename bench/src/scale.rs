//! How costs grow: with keys, with threads, with shards, and with data that does not fit in memory.
//! Tables in Markdown on stdout.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use bench::measure::{
    Clock, anonymous_bytes, disk_bytes, in_threads, load_average, median, nanos_each,
};
use bench::workload::{LOGICAL_LEN, Uniform, Values, absent_key, key};
use caskade::Db;

use crate::Outcome;
use crate::args::Args;

const GETS: u64 = 1_000_000;
/// Keys of the second and third table, at most.
const KEYS: u64 = 2_000_000;
/// Threads of the second table: far more than there are processors.
const THREADS: [usize; 6] = [1, 2, 4, 8, 16, 64];
const SHARDS: [u16; 5] = [1, 4, 16, 64, 256];
/// Rounds of the second and third table: one by itself moves by a third.
const ROUNDS: usize = 3;
/// Gets of the cold test.
const COLD: u64 = 20_000;

/// Which tables: `keys`, `threads` or `shards` alone, or all.
pub(crate) fn run(args: &Args) -> Outcome<()> {
    let dir = tempfile::Builder::new().prefix("caskade-scale").tempdir_in(&args.dir)?;
    println!("16 B keys, 100 B values, load {}\n", load_average());
    if args.wants("keys") {
        by_keys(args, &dir.path().join("keys"))?;
    }
    if args.wants("threads") {
        by_threads(args, &dir.path().join("threads"))?;
    }
    if args.wants("shards") {
        by_shards(args, &dir.path().join("shards"))?;
    }
    Ok(())
}

fn put_all(db: &Db, values: &Values, range: std::ops::Range<u64>) {
    for i in range {
        db.put(&key(i), values.get(i, 0)).expect("puts");
    }
}

fn get_some(db: &Db, seed: u64, keys: u64, count: u64) {
    let (mut order, mut out) = (Uniform::new(seed, keys), Vec::new());
    for _ in 0..count {
        assert!(db.get_into(&key(order.draw()), &mut out).expect("gets"));
        black_box(&out);
    }
}

/// Stores of 1, 3, 10, 30 ... million keys, up to `--keys`. Each is filled in one process and opened again
/// in another, so that memory which an allocator keeps of an earlier one does not count.
fn by_keys(args: &Args, path: &Path) -> Outcome<()> {
    println!(
        "Memory of the process: what is anonymous, less what was before the store was opened;"
    );
    println!("after an open, once {GETS} keys were read.\n");
    println!(
        "| keys | put | get | absent | keydir, a key | process, a key | open after a close | process after it, a key |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    let sizes = [1, 3, 10, 30, 100].map(|millions| millions * 1_000_000);
    for keys in sizes.into_iter().filter(|keys| *keys <= args.keys) {
        let filled = crate::child::hear("fill", path, keys)?;
        let opened = crate::child::hear("reopen", path, keys)?;
        println!("| {} M | {filled} | {opened} |", keys / 1_000_000);
        std::fs::remove_dir_all(path)?;
    }
    println!();
    Ok(())
}

/// The figures of a store that is made. `args.dir` is the store itself, as in [`reopen`].
pub(crate) fn fill(args: &Args) -> Outcome<()> {
    let (values, keys) = (Values::new(), args.keys);
    let memory_before = anonymous_bytes();
    let db = Db::open(&args.dir)?;
    let begun = Instant::now();
    put_all(&db, &values, 0..keys);
    let put = nanos_each(begun.elapsed(), keys);
    crate::child::wait_for_rest(&db);
    let memory = memory_each(memory_before, keys);
    let keydir = db.stats().total.keydir_bytes as f64 / keys as f64;
    let begun = Instant::now();
    get_some(&db, 1, keys, GETS);
    let get = nanos_each(begun.elapsed(), GETS);
    let mut out = Vec::new();
    let begun = Instant::now();
    for i in 0..GETS {
        assert!(!db.get_into(&absent_key(i), &mut out)?);
    }
    let absent = nanos_each(begun.elapsed(), GETS);
    db.close()?;
    println!("{put:.0} ns | {get:.0} ns | {absent:.0} ns | {keydir:.1} B | {memory:.1} B");
    Ok(())
}

/// The figures of a store that was closed.
pub(crate) fn reopen(args: &Args) -> Outcome<()> {
    let (keys, mut out) = (args.keys, Vec::new());
    let memory_before = anonymous_bytes();
    let begun = Instant::now();
    let db = Db::open(&args.dir)?;
    assert!(db.get_into(&key(keys / 2), &mut out)?);
    let open = begun.elapsed();
    get_some(&db, 1, keys, GETS);
    crate::child::wait_for_rest(&db);
    println!("{open:.0?} | {:.1} B", memory_each(memory_before, keys));
    Ok(())
}

fn memory_each(before: u64, keys: u64) -> f64 {
    anonymous_bytes().saturating_sub(before) as f64 / keys as f64
}

/// Measures each case in turn, [`ROUNDS`] times, and answers the medians of its figures.
fn in_rounds<T: Copy, const N: usize>(
    cases: &[T],
    mut measure: impl FnMut(T) -> Outcome<[f64; N]>,
) -> Outcome<Vec<(T, [f64; N])>> {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(cases.iter().map(|case| measure(*case)).collect::<Outcome<Vec<_>>>()?);
    }
    let middle = |case: usize, figure: usize| {
        median(&rounds.iter().map(|round| round[case][figure]).collect::<Vec<_>>())
    };
    let medians = |case| std::array::from_fn(|figure| middle(case, figure));
    Ok(cases.iter().enumerate().map(|(index, case)| (*case, medians(index))).collect())
}

fn by_threads(args: &Args, path: &Path) -> Outcome<()> {
    println!("Medians of {ROUNDS} interleaved rounds.\n");
    println!("| threads | puts a second | gets a second | durable puts a second |");
    println!("|---:|---:|---:|---:|");
    let values = Values::new();
    let rates = in_rounds(&THREADS, |threads| {
        let share = args.keys.min(KEYS) / threads as u64;
        let db = Db::open(path)?;
        let puts = in_threads(Clock::Wall, threads, |thread| {
            put_all(&db, &values, thread as u64 * share..(thread as u64 + 1) * share);
        });
        crate::child::wait_for_rest(&db);
        let loaded = share * threads as u64;
        let gets = in_threads(Clock::Wall, threads, |thread| {
            get_some(&db, thread as u64, loaded, GETS / threads as u64);
        });
        let rate = |count: u64, time: Duration| count as f64 / time.as_secs_f64();
        let durable = durable_rate(&db, threads, loaded, &values);
        drop(db);
        std::fs::remove_dir_all(path)?;
        Ok([rate(loaded, puts) / 1e6, rate(GETS, gets) / 1e6, durable / 1e3])
    })?;
    for (threads, [puts, gets, durable]) in rates {
        println!("| {threads} | {puts:.2} M | {gets:.2} M | {durable:.0} k |");
    }
    println!();
    Ok(())
}

fn durable_rate(db: &Db, threads: usize, keys: u64, values: &Values) -> f64 {
    let options = caskade::WriteOptions::new().durability(caskade::Durability::Sync);
    let done = std::sync::atomic::AtomicU64::new(0);
    let time = in_threads(Clock::Wall, threads, |thread| {
        let (mut order, end) =
            (Uniform::new(thread as u64, keys), Instant::now() + Duration::from_secs(1));
        while Instant::now() < end {
            let i = order.draw();
            db.put_with(&key(i), values.get(i, 1), options).expect("puts");
            done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    });
    done.into_inner() as f64 / time.as_secs_f64()
}

fn by_shards(args: &Args, path: &Path) -> Outcome<()> {
    println!("Medians of {ROUNDS} interleaved rounds.\n");
    println!("| shards | put | get | keydir, a key | files | open after a close |");
    println!("|---:|---:|---:|---:|---:|---:|");
    let (values, keys) = (Values::new(), args.keys.min(KEYS));
    let figures = in_rounds(&SHARDS, |shards| {
        let db = Db::builder(path).shards(shards).open()?;
        let begun = Instant::now();
        put_all(&db, &values, 0..keys);
        let put = nanos_each(begun.elapsed(), keys);
        crate::child::wait_for_rest(&db);
        let memory = db.stats().total.keydir_bytes as f64 / keys as f64;
        let begun = Instant::now();
        get_some(&db, 1, keys, GETS);
        let get = nanos_each(begun.elapsed(), GETS);
        db.close()?;
        drop(db);
        let files = count_files(path)? as f64;
        let begun = Instant::now();
        let db = Db::open(path)?;
        let open = begun.elapsed().as_secs_f64() * 1e3;
        drop(db);
        std::fs::remove_dir_all(path)?;
        Ok([put, get, memory, files, open])
    })?;
    for (shards, [put, get, memory, files, open]) in figures {
        println!(
            "| {shards} | {put:.0} ns | {get:.0} ns | {memory:.1} B | {files} | {open:.0} ms |"
        );
    }
    println!();
    Ok(())
}

fn count_files(dir: &Path) -> Outcome<u64> {
    let mut count = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(count)
}

/// Gets and overwrites of a store that is there, or is made: to be run with less memory than it needs.
/// What was read from and written to disks stands beside the times, that of merges with the overwrites.
pub(crate) fn cold(args: &Args) -> Outcome<()> {
    let path = args.dir.join("caskade-cold");
    let values = Values::new();
    let is_new = !path.exists();
    let begun = Instant::now();
    let db = Db::open(&path)?;
    println!("open: {:.0?}", begun.elapsed());
    if is_new {
        put_all(&db, &values, 0..args.keys);
        db.close()?;
        println!("{} keys are in {}; run it again with less memory", args.keys, path.display());
        return Ok(());
    }
    println!("| operation | time | read from disk | written |\n|---|---:|---:|---:|");
    let keys = db.len();
    let seed = u64::from(std::process::id());
    tell("get", COLD, || {
        let begun = Instant::now();
        get_some(&db, seed, keys, COLD);
        Ok(begun.elapsed())
    })?;
    tell("record of an iteration", keys, || {
        let begun = Instant::now();
        for entry in db.iter()? {
            black_box(entry?);
        }
        Ok(begun.elapsed())
    })?;
    let amplification = || Outcome::Ok(disk_bytes(&path)? as f64 / (db.len() * LOGICAL_LEN) as f64);
    let (ops, before, mut worst) = (args.ops.unwrap_or(keys), amplification()?, Duration::ZERO);
    tell("overwrite", ops, || {
        let mut order = Uniform::new(seed, keys);
        let begun = Instant::now();
        let mut last = begun;
        for version in 1..=ops {
            let i = order.draw();
            db.put(&key(i), values.get(i, version))?;
            let now = Instant::now();
            worst = worst.max(now - last);
            last = now;
        }
        // Merges that the puts left to do are read and written for them, but no put waits.
        crate::child::wait_for_rest(&db);
        Ok(last - begun)
    })?;
    let (stats, after) = (db.stats().total, amplification()?);
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "\n{ops} overwrites, the worst {worst:.1?}; disk over logical bytes {before:.2} before, {after:.2} after."
    );
    println!(
        "{} merges wrote {} MiB and freed {}.",
        stats.merges,
        mib(stats.merged_bytes),
        mib(stats.freed_bytes)
    );
    if stats.merges == 0 {
        return Err("nothing was merged: too few overwrites (--ops)".into());
    }
    Ok(db.close()?)
}

/// `work` says how long `count` operations took.
fn tell(what: &str, count: u64, work: impl FnOnce() -> Outcome<Duration>) -> Outcome<()> {
    let before = disk_traffic()?;
    let (micros, after) = (work()?.as_secs_f64() * 1e6 / count as f64, disk_traffic()?);
    let each = |after: u64, before: u64| (after - before) / count;
    let (read, written) = (each(after.0, before.0), each(after.1, before.1));
    println!("| {what} | {micros:.2} µs | {read} B | {written} B |");
    Ok(())
}

/// Bytes that this process had read from disks and written to them.
fn disk_traffic() -> Outcome<(u64, u64)> {
    let counts = std::fs::read_to_string("/proc/self/io")?;
    let count = |name: &str| -> Outcome<u64> {
        let line =
            counts.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such count")?;
        Ok(line.trim().parse()?)
    };
    Ok((count("read_bytes:")?, count("write_bytes:")?))
}

#[cfg(test)]
mod tests {
    use super::in_rounds;

    #[test]
    fn cases_take_turns_and_their_medians_are_their_own() {
        let mut order = Vec::new();
        let figures = in_rounds(&[10.0, 20.0], |case| {
            order.push(case);
            // Neither rises nor falls from round to round, so that only the middle one is right.
            let turn = [5.0, 1.0, 3.0][(order.len() - 1) / 2];
            Ok([case + turn, -case])
        });
        assert_eq!(figures.unwrap(), [(10.0, [13.0, -10.0]), (20.0, [23.0, -20.0])]);
        assert_eq!(order, [10.0, 20.0, 10.0, 20.0, 10.0, 20.0]);
    }
}
