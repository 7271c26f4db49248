//! Overwrites without end: space, throughput over time, stalls.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bench::measure::{disk_bytes, load_average, median};
use bench::workload::{LOGICAL_LEN, Uniform, Values, key};
use caskade::Db;

use crate::Outcome;
use crate::args::Args;
use crate::report::{Report, Target};

/// Looks at the store for each of this many parts of the run.
const PARTS: u64 = 100;
/// A put that takes longer is counted.
const SLOW: Duration = Duration::from_millis(5);

pub(crate) fn run(args: &Args) -> Outcome<Report> {
    let dir = tempfile::Builder::new().prefix("caskade-churn").tempdir_in(&args.dir)?;
    let settings =
        format!("{} overwrites of {} keys, load {}", args.ops(), args.keys, load_average());
    let mut report = Report::new("churn", settings);
    let path = dir.path().join("store");
    let values = Values::new();
    let db = Db::open(&path)?;
    for i in 0..args.keys {
        db.put(&key(i), values.get(i, 0))?;
    }
    let watch = Watch::default();
    let seen = std::thread::scope(|scope| {
        let disk = scope.spawn(|| watch.probe_disk(dir.path()));
        let seen = overwrite(args, &db, &path, &values, &watch);
        watch.is_over.store(true, Ordering::Relaxed);
        disk.join().expect("the probe does not panic")?;
        seen
    })?;
    seen.tell(&db, &watch, &mut report);
    db.close()?;
    fs::remove_dir_all(&path)?;
    Ok(report)
}

/// What the run showed.
#[derive(Default)]
struct Seen {
    amplification: Vec<f64>,
    on_disk: Vec<f64>,
    rates: Vec<f64>,
    brakes: Vec<f64>,
    worst: Duration,
    slow: u64,
    /// The worst put while the disk itself answered quickly.
    worst_own: Duration,
}

fn overwrite(args: &Args, db: &Db, path: &Path, values: &Values, watch: &Watch) -> Outcome<Seen> {
    let mut seen = Seen::default();
    let mut order = Uniform::new(7, args.keys);
    let part = args.ops() / PARTS;
    for round in 0..PARTS {
        let begun = Instant::now();
        let mut before = begun;
        for step in 0..part {
            let i = order.draw();
            db.put(&key(i), values.get(i, round * part + step + 1))?;
            let now = Instant::now();
            let taken = now - before;
            before = now;
            if taken > SLOW {
                seen.slow += 1;
                // The disk is asked every few milliseconds; its answer to this stall comes with it.
                let disk = watch.slowest_since(now.checked_sub(taken).unwrap_or(now));
                if disk < taken / 2 {
                    seen.worst_own = seen.worst_own.max(taken);
                }
                before = Instant::now();
            }
            seen.worst = seen.worst.max(taken);
        }
        seen.rates.push(part as f64 / begun.elapsed().as_secs_f64() / 1e3);
        let stats = db.stats();
        seen.amplification.push(stats.total.total_bytes as f64 / stats.total.live_bytes as f64);
        seen.on_disk.push(disk_bytes(path)? as f64 / (args.keys * LOGICAL_LEN) as f64);
        seen.brakes.push(stats.brake_micros as f64);
        if round % 10 == 9 {
            eprintln!(
                "  {:>3}%: {:.0} k/s, amplification {:.3}, disk over logical {:.3}, brake {} us",
                round + 1,
                seen.rates[round as usize],
                seen.amplification[round as usize],
                seen.on_disk[round as usize],
                stats.brake_micros
            );
        }
    }
    Ok(seen)
}

impl Seen {
    fn tell(self, db: &Db, watch: &Watch, report: &mut Report) {
        let tenth = |index: usize| {
            let from = index * self.rates.len() / 10;
            let part = &self.rates[from..from + self.rates.len() / 10];
            // Equal numbers of operations: the mean rate is the harmonic one.
            part.len() as f64 / part.iter().map(|rate| 1.0 / rate).sum::<f64>()
        };
        let most =
            |figures: &[f64]| figures[figures.len() / 50..].iter().fold(0.0, |a: f64, b| a.max(*b));
        let max = most(&self.amplification);
        report.add("space amplification, most", max, "x", Target::AtMost(1.5));
        report.add("  median", median(&self.amplification), "x", Target::None);
        report.add("disk over logical bytes, most", most(&self.on_disk), "x", Target::None);
        report.add("throughput, second tenth", tenth(1), "k/s", Target::None);
        report.add("throughput, last tenth", tenth(9), "k/s", Target::None);
        report.add("last tenth over second", tenth(9) / tenth(1), "x", Target::AtLeast(0.8));
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        report.add("worst put", milliseconds(self.worst), "ms", Target::None);
        report.add("puts over 5 ms", self.slow as f64, "", Target::None);
        let own = milliseconds(self.worst_own);
        report.add("worst put while the disk answered", own, "ms", Target::AtMost(50.0));
        let disk = Duration::from_nanos(watch.worst_ns.load(Ordering::Relaxed));
        report.add(
            "worst small write to the disk beside it",
            milliseconds(disk),
            "ms",
            Target::None,
        );
        let braked = self.brakes.iter().filter(|micros| **micros > 0.0).count();
        report.add("looks that found the brake on, of 100", braked as f64, "", Target::None);
        let stats = db.stats().total;
        let written = stats.merged_bytes as f64 / f64::from(1 << 20);
        report.add("written by merges", written, "MiB", Target::None);
        report.add_series("amplification", self.amplification);
        report.add_series("disk_over_logical", self.on_disk);
        report.add_series("kops", self.rates);
        report.add_series("brake_micros", self.brakes);
    }
}

/// A second witness: small buffered writes and fsyncs to a file of its own on the same disk, so that
/// a stall of the disk or of the machine is not taken for one of the store.
#[derive(Default)]
struct Watch {
    is_over: AtomicBool,
    worst_ns: AtomicU64,
    recent: std::sync::Mutex<Vec<(Instant, Duration)>>,
}

impl Watch {
    fn probe_disk(&self, dir: &Path) -> std::io::Result<()> {
        use std::os::unix::fs::FileExt;
        let file = fs::File::create(dir.join("probe"))?;
        while !self.is_over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
            let begun = Instant::now();
            file.write_all_at(&[0xA5; 4096], 0)?;
            file.sync_data()?;
            let taken = begun.elapsed();
            self.worst_ns.fetch_max(taken.as_nanos() as u64, Ordering::Relaxed);
            let mut recent = self.recent.lock().expect("no panic holds it");
            recent.push((Instant::now(), taken));
            if recent.len() > 1000 {
                recent.drain(..500);
            }
        }
        Ok(())
    }

    /// The longest write that ended after `since`; waits for one that may be under way.
    fn slowest_since(&self, since: Instant) -> Duration {
        std::thread::sleep(Duration::from_millis(20));
        let recent = self.recent.lock().expect("no panic holds it");
        recent
            .iter()
            .filter(|(end, _)| *end >= since)
            .map(|(_, taken)| *taken)
            .max()
            .unwrap_or_default()
    }
}
