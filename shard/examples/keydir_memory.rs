//! What a keydir costs: bytes of anonymous memory a key, the worst insert, and lookups.
//!
//! Without arguments it measures the sizes and shapes that the project promises, each in a process
//! of its own. With `KEYS KEYDIRS THREADS` it measures one. Linux only: it reads `/proc`.
//!
//! Lookups have their guard each, and may overlap as far as the processor can. "idle" counts the pauses above 60 us
//! that a thread sees that only reads the clock, for as long as the inserts took: what the machine
//! adds to the inserts' own.
#![expect(clippy::cast_precision_loss, reason = "measurements are not that precise")]

use std::{
    fs,
    hint::black_box,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use caskade_shard::{
    keydir::{Keydir, KeydirWriter, LeafMemory, keydir},
    location::Location,
    reclaim::Reclaim,
};

/// Lookups are timed in batches of this many.
const LOOKUPS: u64 = 2_000_000;

fn main() {
    let arguments: Vec<u64> =
        std::env::args().skip(1).map(|argument| argument.parse().expect("a number")).collect();
    match arguments[..] {
        [keys, keydirs, threads] => measure(keys, keydirs, threads),
        _ => measure_all(),
    }
}

fn measure_all() {
    println!(
        "{:>9} {:>7} {:>7} | {:>6} {:>6} {:>6} | {:>9} {:>9} {:>6} {:>6} | {:>6} {:>7}",
        "keys",
        "keydirs",
        "threads",
        "B/key",
        "most",
        "own",
        "insert ns",
        "worst us",
        ">60us",
        ">1ms",
        "hit ns",
        "miss ns"
    );
    let program = std::env::current_exe().expect("this program");
    for (keydirs, threads) in [(1, 1), (16, 1), (16, 2)] {
        for keys in [1_000_000, 1_500_000, 2_000_000, 3_000_000, 10_000_000, 30_000_000] {
            let arguments = [keys, keydirs, threads].map(|number: u64| number.to_string());
            let status = Command::new(&program).args(arguments).status();
            assert!(status.is_ok_and(|status| status.success()), "a measurement failed");
        }
    }
}

/// The times of inserts.
#[derive(Default)]
struct Times {
    worst: Duration,
    above_60us: u64,
    above_1ms: u64,
    /// Bytes a key at the worst moment beyond a tenth of the keys.
    most: f64,
}

fn measure(keys: u64, keydirs: u64, threads: u64) {
    touch(keys * 24);
    let (reclaim, memory) = (Arc::new(Reclaim::new()), Arc::new(LeafMemory::default()));
    let before = anonymous_bytes();
    let mut tables: Vec<_> =
        (0..keydirs).map(|_| keydir(Arc::clone(&reclaim), Arc::clone(&memory))).collect();

    let start = Instant::now();
    let share = tables.len().div_ceil(threads as usize);
    let times = std::thread::scope(|scope| {
        let workers: Vec<_> = tables
            .chunks_mut(share)
            .enumerate()
            .map(|(index, tables)| {
                let first = (index * share) as u64;
                let sample_total = (threads == 1).then_some(before);
                scope.spawn(move || fill(tables, first, keydirs, keys, sample_total))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).collect::<Vec<_>>()
    });
    let insert_time = start.elapsed();
    let idle = pauses(insert_time);
    let insert_ns = nanos(insert_time, keys);
    reclaim.collect();
    let per_key = |bytes: u64| bytes as f64 / keys as f64;
    let anonymous = per_key(anonymous_bytes() - before);
    let own = per_key(tables.iter().map(|(_, table)| table.memory_bytes()).sum());
    let worst = times.iter().map(|times| times.worst).max().expect("a worker");

    println!(
        "{keys:>9} {keydirs:>7} {threads:>7} | {anonymous:>6.2} {:>6.2} {own:>6.2} | {insert_ns:>9.1} {:>9.1} {:>6} {:>6} {idle:>6} | {:>6.1} {:>7.1}",
        times.iter().map(|times| times.most).fold(0.0, f64::max),
        worst.as_secs_f64() * 1e6,
        times.iter().map(|times| times.above_60us).sum::<u64>(),
        times.iter().map(|times| times.above_1ms).sum::<u64>(),
        lookups(&tables, &reclaim, keys, 0),
        lookups(&tables, &reclaim, keys, keys),
    );
}

/// Inserts the keys that belong to these tables.
fn fill(
    tables: &mut [(KeydirWriter, Arc<Keydir>)],
    first: u64,
    keydirs: u64,
    keys: u64,
    sample_total: Option<u64>,
) -> Times {
    let mut times = Times::default();
    for key in 0..keys {
        let hash = spread(key);
        let Some(table) = (hash % keydirs).checked_sub(first) else { continue };
        let Some((writer, _)) = tables.get_mut(table as usize) else { continue };
        let location = location(key);
        let start = Instant::now();
        writer.entry((hash >> 32) as u32, |found| found == location).set(location);
        let took = start.elapsed();
        times.worst = times.worst.max(took);
        times.above_60us += u64::from(took > Duration::from_micros(60));
        times.above_1ms += u64::from(took > Duration::from_millis(1));
        if let Some(before) = sample_total
            && key >= keys / 2
            && key % (keys / 200) == 0
        {
            let now = anonymous_bytes().saturating_sub(before);
            times.most = times.most.max(now as f64 / key as f64);
        }
    }
    times
}

/// Nanoseconds a lookup of random keys from `from` on.
fn lookups(tables: &[(KeydirWriter, Arc<Keydir>)], reclaim: &Reclaim, keys: u64, from: u64) -> f64 {
    let start = Instant::now();
    let mut state = 1;
    for _ in 0..LOOKUPS {
        state = spread(state);
        let key = from + state % keys;
        let hash = spread(key);
        let (_, table) = &tables[(hash % tables.len() as u64) as usize];
        let guard = reclaim.enter();
        let location = location(key);
        let found = table.find(&guard, (hash >> 32) as u32, |found| found == location);
        assert_eq!(black_box(found).is_some(), from == 0);
    }
    nanos(start.elapsed(), LOOKUPS)
}

/// Uses as much memory once: a virtual machine may have to ask its host for pages that were never
/// used, which is no part of what is measured.
fn touch(bytes: u64) {
    black_box(vec![1_u8; bytes as usize]);
}

/// Pauses above 60 us that this thread sees during `time`.
fn pauses(time: Duration) -> u64 {
    let start = Instant::now();
    let mut last = start;
    let mut pauses = 0;
    while last - start < time {
        let now = Instant::now();
        pauses += u64::from(now - last > Duration::from_micros(60));
        last = now;
    }
    pauses
}

fn nanos(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e9 / count as f64
}

fn location(key: u64) -> Location {
    Location::new(1 + (key >> 24) as u32, (key & 0xFF_FFFF) * 8, 120)
}

/// A good hash of a number.
fn spread(key: u64) -> u64 {
    let mut x = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn anonymous_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("an RssAnon line");
    kib.trim().parse::<u64>().expect("a number") * 1024
}
