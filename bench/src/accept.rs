//! Each figure of the acceptance table, with the reference in the same run.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bench::measure::{
    Clock, disk_bytes, in_threads, load_average, machine_scaling, median, nanos_each,
};
use bench::workload::{LOGICAL_LEN, Uniform, Values, absent_key, key};
use caskade::{Db, Durability, WriteOptions};
use hashbrown::HashMap;

use crate::Outcome;
use crate::args::Args;
use crate::child;
use crate::report::{Report, Target};

type Reference = HashMap<Box<[u8]>, Box<[u8]>>;

/// Gets in one timed stretch.
const GETS: u64 = 500_000;
/// Puts between two looks at the clock.
const STALL_PUTS: u64 = 64;
const GROUP: usize = 64;

pub(crate) fn run(args: &Args) -> Outcome<Report> {
    let dir = tempfile::Builder::new().prefix("caskade-bench").tempdir_in(&args.dir)?;
    let settings = format!(
        "{} keys of 16 B with 100 B values, {} repetitions, {:?} clock, load {}",
        args.keys,
        args.reps,
        args.clock,
        load_average()
    );
    let mut report = Report::new("acceptance", settings);
    report.add("machine: two threads of arithmetic over one", machine_scaling(), "x", Target::None);
    if args.wants("load") {
        load(args, dir.path(), &mut report)?;
    }
    if args.wants("get") {
        get(args, dir.path(), &mut report)?;
    }
    if args.wants("memory") {
        let path = dir.path().join("memory");
        let bytes = child::ask("memory", &path, args.keys)?.0;
        report.add("anonymous memory a key", bytes / args.keys as f64, "B", Target::AtMost(17.0));
        fs::remove_dir_all(&path)?;
    }
    if args.wants("reopen") {
        reopen(args, dir.path(), &mut report)?;
    }
    if args.wants("durable") {
        durable(args, dir.path(), &mut report)?;
    }
    report.add("machine: two threads of arithmetic, again", machine_scaling(), "x", Target::None);
    Ok(report)
}

/// Puts into a new store by one thread and by two, and into the reference map.
fn load(args: &Args, dir: &Path, report: &mut Report) -> Outcome<()> {
    let values = Values::new();
    let (mut one, mut two, mut map, mut stalls) = (vec![], vec![], vec![], vec![]);
    for _ in 0..args.reps {
        let path = dir.join("load");
        let db = Db::open(&path)?;
        let worst = AtomicU64::new(0);
        let elapsed = in_threads(args.clock, 1, |_| {
            let stall = put_range(&db, &values, 0, args.keys);
            worst.fetch_max(stall.as_nanos() as u64, Ordering::Relaxed);
        });
        one.push(nanos_each(elapsed, args.keys));
        stalls.push(worst.into_inner() as f64 / 1e6);
        drop(db);
        fs::remove_dir_all(&path)?;

        let db = Db::open(&path)?;
        let elapsed = in_threads(args.clock, 2, |thread| {
            let half = args.keys / 2;
            put_range(&db, &values, thread as u64 * half, half);
        });
        two.push(nanos_each(elapsed, args.keys));
        drop(db);
        fs::remove_dir_all(&path)?;
    }
    // Not in turns: the allocator sorts the millions of boxes that a dropped map leaves behind in
    // the middle of whatever asks for a large block next.
    for _ in 0..args.reps {
        let elapsed = in_threads(args.clock, 1, |_| {
            black_box(reference(args.keys, &values));
        });
        map.push(nanos_each(elapsed, args.keys));
    }
    report.add("put into a new store", median(&one), "ns", Target::AtMost(400.0));
    report.add("  hashbrown insert", median(&map), "ns", Target::None);
    report.add("put, 2 threads", median(&two), "ns", Target::None);
    report.add("put, 2 threads over 1", median(&one) / median(&two), "x", Target::AtLeast(1.7));
    report.add("worst stall of 64 puts (median of loads)", median(&stalls), "ms", Target::None);
    Ok(())
}

/// Puts `count` keys from `first` on. Answers the longest time that 64 of them took.
fn put_range(db: &Db, values: &Values, first: u64, count: u64) -> Duration {
    let mut worst = Duration::ZERO;
    let mut looked = Instant::now();
    for i in first..first + count {
        db.put(&key(i), values.get(i, 0)).expect("puts");
        if i % STALL_PUTS == 0 {
            let now = Instant::now();
            worst = worst.max(now - looked);
            looked = now;
        }
    }
    worst
}

fn reference(keys: u64, values: &Values) -> Reference {
    (0..keys).map(|i| (Box::from(key(i)), Box::from(values.get(i, 0)))).collect()
}

/// Gets from a loaded store and from the reference, in turns.
fn get(args: &Args, dir: &Path, report: &mut Report) -> Outcome<()> {
    let path = dir.join("get");
    let values = Values::new();
    let db = Db::open(&path)?;
    put_range(&db, &values, 0, args.keys);
    child::wait_for_rest(&db);
    let logical = (args.keys * LOGICAL_LEN) as f64;
    let space = disk_bytes(&path)? as f64 / logical;
    report.add("disk over logical bytes, open", space, "x", Target::AtMost(1.3));
    let map = reference(args.keys, &values);
    check(&db, &map, args.keys)?;

    let runs: &[(&str, &(dyn Fn(u64) + Sync))] = &[
        ("map", &|seed| map_get(&map, seed, args.keys)),
        ("get_into", &|seed| get_into(&db, seed, args.keys)),
        ("get", &|seed| get_value(&db, seed, args.keys)),
        ("get_many", &|seed| get_many(&db, seed, args.keys)),
        ("get_many_with", &|seed| get_many_with(&db, seed, args.keys)),
        ("absent", &|seed| get_absent(&db, seed)),
        ("map absent", &|seed| map_absent(&map, seed)),
    ];
    let mut one = vec![Vec::new(); runs.len()];
    let mut two = vec![Vec::new(); runs.len()];
    // The first round warms up.
    for round in 0..=args.reps as u64 {
        for (index, (_, work)) in runs.iter().enumerate() {
            let single = in_threads(args.clock, 1, |_| work(round));
            let both = in_threads(args.clock, 2, |thread| work(round * 2 + thread as u64));
            if round > 0 {
                one[index].push(nanos_each(single, GETS));
                two[index].push(nanos_each(both, 2 * GETS));
            }
        }
    }
    let [hit, into, value, many, many_with, absent, map_absent] =
        std::array::from_fn(|index| (median(&one[index]), median(&two[index])));
    report.add("hashbrown get with copy", hit.0, "ns", Target::None);
    report.add("get_into", into.0, "ns", Target::None);
    report.add("get_into over hashbrown", into.0 / hit.0, "x", Target::AtMost(2.0));
    report.add("get", value.0, "ns", Target::None);
    report.add("get over hashbrown", value.0 / hit.0, "x", Target::AtMost(2.0));
    report.add("hashbrown, 2 threads over 1", hit.0 / hit.1, "x", Target::None);
    report.add("get_into, 2 threads over 1", into.0 / into.1, "x", Target::AtLeast(1.7));
    report.add("get, 2 threads over 1", value.0 / value.1, "x", Target::AtLeast(1.7));
    report.add("get of an absent key", absent.0, "ns", Target::AtMost(130.0));
    report.add("  hashbrown", map_absent.0, "ns", Target::None);
    report.add("absent, 2 threads over 1", absent.0 / absent.1, "x", Target::None);
    report.add("get_many(64)", many.0, "ns", Target::None);
    report.add("get_many(64), throughput", hit.0 / many.0, "x map", Target::AtLeast(1.3));
    let name = "get_many_with(64) and copy, throughput";
    report.add(name, hit.0 / many_with.0, "x map", Target::AtLeast(1.3));
    report.add("get_many_with(64), 2 threads over 1", many_with.0 / many_with.1, "x", Target::None);

    iterate(args, &db, report)?;
    db.close()?;
    drop(db);
    let space = disk_bytes(&path)? as f64 / logical;
    report.add("disk over logical bytes, closed", space, "x", Target::AtMost(1.3));
    fs::remove_dir_all(&path)?;
    Ok(())
}

/// Both sides hold the same.
fn check(db: &Db, map: &Reference, keys: u64) -> Outcome<()> {
    let mut out = Vec::new();
    for i in (0..keys).step_by(1009) {
        if !db.get_into(&key(i), &mut out)? || *out != *map[&key(i)[..]] {
            return Err(format!("key {i} has a wrong value").into());
        }
        if db.get(&absent_key(i))?.is_some() {
            return Err(format!("absent key {i} has a value").into());
        }
    }
    Ok(())
}

fn map_get(map: &Reference, seed: u64, keys: u64) {
    let (mut order, mut out) = (Uniform::new(seed, keys), Vec::new());
    for _ in 0..GETS {
        let value = map.get(&key(order.draw())[..]).expect("it is there");
        out.clear();
        out.extend_from_slice(value);
        black_box(&out);
    }
}

fn get_into(db: &Db, seed: u64, keys: u64) {
    let (mut order, mut out) = (Uniform::new(seed, keys), Vec::new());
    for _ in 0..GETS {
        assert!(db.get_into(&key(order.draw()), &mut out).expect("gets"));
        black_box(&out);
    }
}

fn get_value(db: &Db, seed: u64, keys: u64) {
    let mut order = Uniform::new(seed, keys);
    for _ in 0..GETS {
        let value = db.get(&key(order.draw())).expect("gets").expect("it is there");
        black_box(&*value);
    }
}

fn get_many(db: &Db, seed: u64, keys: u64) {
    let mut order = Uniform::new(seed, keys);
    for _ in 0..GETS / GROUP as u64 {
        let group: [_; GROUP] = std::array::from_fn(|_| key(order.draw()));
        black_box(db.get_many(&group).expect("gets"));
    }
}

fn get_many_with(db: &Db, seed: u64, keys: u64) {
    let (mut order, mut out) = (Uniform::new(seed, keys), Vec::new());
    for _ in 0..GETS / GROUP as u64 {
        let group: [_; GROUP] = std::array::from_fn(|_| key(order.draw()));
        let copy = |_, value: Option<&[u8]>| {
            out.clear();
            out.extend_from_slice(value.expect("it is there"));
            black_box(&out);
        };
        db.get_many_with(&group, copy).expect("gets");
    }
}

fn get_absent(db: &Db, seed: u64) {
    let (mut order, mut out) = (Uniform::new(seed, 1 << 40), Vec::new());
    for _ in 0..GETS {
        assert!(!db.get_into(&absent_key(order.draw()), &mut out).expect("gets"));
    }
}

fn map_absent(map: &Reference, seed: u64) {
    let mut order = Uniform::new(seed, 1 << 40);
    for _ in 0..GETS {
        assert!(map.get(&absent_key(order.draw())[..]).is_none());
    }
}

fn iterate(args: &Args, db: &Db, report: &mut Report) -> Outcome<()> {
    let mut nanos = Vec::new();
    for _ in 0..args.reps {
        let begun = Instant::now();
        let mut seen = 0;
        for entry in db.iter()? {
            black_box(&*entry?.value);
            seen += 1;
        }
        nanos.push(nanos_each(begun.elapsed(), seen));
        if seen != args.keys {
            return Err(format!("the iterator saw {seen} keys").into());
        }
    }
    report.add("full iteration, records a second", 1e3 / median(&nanos), "M/s", Target::None);
    Ok(())
}

fn reopen(args: &Args, dir: &Path, report: &mut Report) -> Outcome<()> {
    let path = dir.join("reopen");
    let (mut clean, mut killed, mut bare) = (vec![], vec![], vec![]);
    for _ in 0..args.reps.min(3) {
        child::load_and_kill(&path, args.keys)?;
        killed.push(child::ask("open", &path, args.keys)?);
        for _ in 0..3 {
            clean.push(child::ask("open", &path, args.keys)?);
        }
        for _ in 0..2 {
            remove_indexes(&path)?;
            bare.push(child::ask("open", &path, args.keys)?);
        }
        fs::remove_dir_all(&path)?;
    }
    let mut tell = |name: &str, figures: &[(f64, f64)], most: f64| {
        let wall: Vec<_> = figures.iter().map(|(wall, _)| wall / 1e6).collect();
        let processor: Vec<_> = figures.iter().map(|(_, processor)| processor / 1e6).collect();
        report.add(name, median(&wall), "ms", Target::AtMost(most));
        let best = wall.iter().copied().fold(f64::INFINITY, f64::min);
        report.add("  best", best, "ms", Target::None);
        report.add("  processor time of all threads", median(&processor), "ms", Target::None);
    };
    tell("reopen after a clean close", &clean, 40.0);
    tell("reopen after SIGKILL", &killed, 300.0);
    tell("reopen without hints and snapshots", &bare, 700.0);
    Ok(())
}

/// Removes every hint and keydir snapshot of a closed store.
fn remove_indexes(dir: &Path) -> Outcome<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_indexes(&path)?;
        } else if path.extension().is_some_and(|e| e == "hint") || path.ends_with("KEYDIR") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn durable(args: &Args, dir: &Path, report: &mut Report) -> Outcome<()> {
    let path = dir.join("durable");
    let db = Db::open(&path)?;
    let values = Values::new();
    let stretch = Duration::from_millis(1500);
    let mut ceilings = Vec::new();
    let threads = [1, 8, 32];
    let mut rates = [vec![], vec![], vec![]];
    for round in 0..=args.reps.min(3) as u64 {
        ceilings.push(sync_rate(&dir.join("ceiling"), stretch)?);
        for (rates, threads) in rates.iter_mut().zip(threads) {
            let done = AtomicU64::new(0);
            let options = WriteOptions::new().durability(Durability::Sync);
            let elapsed = in_threads(Clock::Wall, threads, |thread| {
                let begun = Instant::now();
                let mut order = Uniform::new(round << 8 | thread as u64, args.keys);
                let mut count = 0;
                while begun.elapsed() < stretch {
                    let i = order.draw();
                    db.put_with(&key(i), values.get(i, round), options).expect("puts");
                    count += 1;
                }
                done.fetch_add(count, Ordering::Relaxed);
            });
            // The first round makes the journal's files.
            if round > 0 {
                rates.push(done.into_inner() as f64 / elapsed.as_secs_f64() / 1e3);
            }
        }
    }
    report.add("fdatasync into written blocks", median(&ceilings), "k/s", Target::None);
    for (rates, threads) in rates.iter().zip(threads) {
        let name = format!("durable puts, {threads} threads");
        report.add(name, median(rates), "k/s", Target::None);
    }
    drop(db);
    fs::remove_dir_all(&path)?;
    Ok(())
}

/// How many thousand times a second a block of a written file can be written and made durable, around
/// the page cache where the file system allows that.
pub(crate) fn sync_rate(path: &Path, stretch: Duration) -> Outcome<f64> {
    use std::os::unix::fs::FileExt;
    const LEN: u64 = 8 << 20;
    const BLOCK: usize = 4096;
    let file = fs::File::create(path)?;
    file.write_all_at(&vec![0xA5; LEN as usize], 0)?;
    file.sync_all()?;
    let flags = rustix::fs::fcntl_getfl(&file)?;
    let _ = rustix::fs::fcntl_setfl(&file, flags | rustix::fs::OFlags::DIRECT);
    let buffer = [0x5A; 2 * BLOCK];
    let block = &buffer[buffer.as_ptr().align_offset(BLOCK)..][..BLOCK];
    let begun = Instant::now();
    let (mut count, mut at) = (0_u64, 0);
    while begun.elapsed() < stretch {
        file.write_all_at(block, at)?;
        file.sync_data()?;
        at = (at + BLOCK as u64) % LEN;
        count += 1;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64() / 1e3)
}
