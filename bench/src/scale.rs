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
use crate::child;

const GETS: u64 = 1_000_000;
/// Keys of the second and third table, at most.
const KEYS: u64 = 2_000_000;
/// Threads of the second table: far more than there are processors.
const THREADS: [usize; 6] = [1, 2, 4, 8, 16, 64];
const SHARDS: [u16; 5] = [1, 4, 16, 64, 256];
/// Rounds of the second and third table, of which the medians count.
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

/// Stores of 1, 3, 10, 30 ... million keys, up to `--keys`, each in a process of its own.
fn by_keys(args: &Args, path: &Path) -> Outcome<()> {
    println!(
        "| keys | put | get | absent | memory, a key | of it keydir | open after a close | memory then |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    let sizes = [1, 3, 10, 30, 100].map(|millions| millions * 1_000_000);
    for keys in sizes.into_iter().filter(|keys| *keys <= args.keys) {
        child::show("size", path, keys)?;
        std::fs::remove_dir_all(path)?;
    }
    println!();
    Ok(())
}

/// A row of the first table. `args.dir` is the store itself.
pub(crate) fn of_size(args: &Args) -> Outcome<()> {
    let (path, keys) = (&args.dir, args.keys);
    let (values, mut out) = (Values::new(), Vec::new());
    let before = anonymous_bytes();
    let memory = || anonymous_bytes().saturating_sub(before) as f64 / keys as f64;
    let db = Db::open(path)?;
    let begun = Instant::now();
    put_all(&db, &values, 0..keys);
    let put = nanos_each(begun.elapsed(), keys);
    child::wait_for_rest(&db);
    let (loaded, keydir) = (memory(), db.stats().total.keydir_bytes as f64 / keys as f64);
    let begun = Instant::now();
    get_some(&db, 1, keys, GETS);
    let get = nanos_each(begun.elapsed(), GETS);
    let begun = Instant::now();
    for i in 0..GETS {
        assert!(!db.get_into(&absent_key(i), &mut out)?);
    }
    let absent = nanos_each(begun.elapsed(), GETS);
    db.close()?;
    drop(db);
    let begun = Instant::now();
    let db = Db::open(path)?;
    assert!(db.get_into(&key(keys / 2), &mut out)?);
    let open = begun.elapsed();
    get_some(&db, 2, keys, GETS);
    child::wait_for_rest(&db);
    let opened = memory();
    println!(
        "| {} M | {put:.0} ns | {get:.0} ns | {absent:.0} ns | {loaded:.1} B | {keydir:.1} B | {open:.0?} \
         | {opened:.1} B |",
        keys / 1_000_000
    );
    Ok(())
}

/// What several rounds found, case by case, each round through all cases.
fn in_rounds<C: Copy, const N: usize>(
    cases: &[C],
    mut measure: impl FnMut(C) -> Outcome<[f64; N]>,
) -> Outcome<Vec<[f64; N]>> {
    let mut found = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for (case, found) in cases.iter().zip(&mut found) {
            found.push(measure(*case)?);
        }
    }
    let of_rounds = |rounds: &Vec<[f64; N]>| {
        std::array::from_fn(|i| median(&rounds.iter().map(|round| round[i]).collect::<Vec<_>>()))
    };
    Ok(found.iter().map(of_rounds).collect())
}

fn by_threads(args: &Args, path: &Path) -> Outcome<()> {
    println!("| threads | puts a second | gets a second | durable puts a second |");
    println!("|---:|---:|---:|---:|");
    let values = Values::new();
    let found = in_rounds(&THREADS, |threads| {
        let share = args.keys.min(KEYS) / threads as u64;
        let db = Db::open(path)?;
        let puts = in_threads(Clock::Wall, threads, |thread| {
            put_all(&db, &values, thread as u64 * share..(thread as u64 + 1) * share);
        });
        child::wait_for_rest(&db);
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
    for (threads, [puts, gets, durable]) in THREADS.iter().zip(found) {
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
    println!("| shards | put | get | keydir, a key | files | open after a close |");
    println!("|---:|---:|---:|---:|---:|---:|");
    let (values, keys) = (Values::new(), args.keys.min(KEYS));
    let found = in_rounds(&SHARDS, |shards| {
        let db = Db::builder(path).shards(shards).open()?;
        let begun = Instant::now();
        put_all(&db, &values, 0..keys);
        let put = nanos_each(begun.elapsed(), keys);
        child::wait_for_rest(&db);
        let memory = db.stats().total.keydir_bytes as f64 / keys as f64;
        let begun = Instant::now();
        get_some(&db, 1, keys, GETS);
        let get = nanos_each(begun.elapsed(), GETS);
        db.close()?;
        drop(db);
        let files = count_files(path)? as f64;
        let begun = Instant::now();
        drop(Db::open(path)?);
        let open = begun.elapsed().as_secs_f64() * 1e3;
        std::fs::remove_dir_all(path)?;
        Ok([put, get, memory, files, open])
    })?;
    for (shards, [put, get, memory, files, open]) in SHARDS.iter().zip(found) {
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
/// What was read from and written to disks stands beside the times.
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
    let keys = db.len();
    let space = || -> Outcome<f64> { Ok(disk_bytes(&path)? as f64 / (keys * LOGICAL_LEN) as f64) };
    println!("disk over logical bytes: {:.2}", space()?);
    println!("| operation | time | read from disk | written |\n|---|---:|---:|---:|");
    let seed = u64::from(std::process::id());
    let mut order = Uniform::new(seed, keys);
    tell("get", COLD, || {
        get_some(&db, seed, keys, COLD);
        Ok(())
    })?;
    let (count, mut worst) = (args.ops.min(keys), Duration::ZERO);
    tell("overwrite", count, || {
        for _ in 0..count {
            let i = order.draw();
            let begun = Instant::now();
            db.put(&key(i), values.get(i, 0))?;
            worst = worst.max(begun.elapsed());
        }
        Ok(())
    })?;
    let (stats, after) = (db.stats().total, space()?);
    tell("record of an iteration", keys, || {
        for entry in db.iter()? {
            black_box(entry?);
        }
        Ok(())
    })?;
    println!(
        "\n{count} overwrites, the longest {worst:.0?}; {} merges of {} MB meanwhile, disk over logical \
         bytes {after:.2} then",
        stats.merges,
        stats.merged_bytes / 1_000_000
    );
    Ok(db.close()?)
}

fn tell(what: &str, count: u64, work: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
    let (before, begun) = (disk_traffic()?, Instant::now());
    work()?;
    let (micros, after) = (begun.elapsed().as_secs_f64() * 1e6 / count as f64, disk_traffic()?);
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
