//! Measuring: latencies, memory, disk.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use caskade_codec::names::{FileName, StoreName};

const SUB_BITS: u32 = 4;
const SUBS: usize = 1 << SUB_BITS;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUBS;

/// What one thread measured, to be added up over threads.
pub(crate) trait Tally: Default + Send {
    /// Adds what another thread measured.
    fn add(&mut self, other: &Self);
}

/// Counts of latencies, in buckets a sixteenth of a power of two wide: figures are exact to 6%.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

impl Tally for Latencies {
    fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.total += other.total;
        self.max = self.max.max(other.max);
    }
}

impl Latencies {
    /// How many there are.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Calls `work` and counts how long it took.
    pub(crate) fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let answer = work();
        self.record(begun.elapsed().as_nanos() as u64);
        answer
    }

    fn record(&mut self, ns: u64) {
        self.counts[bucket_of(ns)] += 1;
        self.total += 1;
        self.max = self.max.max(ns);
    }

    /// The latency that `share` of all calls did not exceed.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        #[expect(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "a rank")]
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper_end(bucket).min(self.max));
            }
        }
        self.max()
    }

    /// The longest.
    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// How many calls took how long: one count for each half power of two, from 2^`from` ns on.
    pub(crate) fn spread(&self, from: u32, columns: usize) -> Vec<u64> {
        let mut out = vec![0; columns];
        for (bucket, count) in self.counts.iter().enumerate() {
            let ns = upper_end(bucket);
            let power = ns.max(1).ilog2();
            let is_upper_half = ns >> power.saturating_sub(1) & 1;
            let column =
                (2 * power as usize + is_upper_half as usize).saturating_sub(2 * from as usize);
            out[column.min(columns - 1)] += count;
        }
        out
    }
}

fn bucket_of(ns: u64) -> usize {
    if ns < SUBS as u64 {
        return ns as usize;
    }
    let power = ns.ilog2();
    let sub = (ns >> (power - SUB_BITS)) as usize & (SUBS - 1);
    (power - SUB_BITS + 1) as usize * SUBS + sub
}

fn upper_end(bucket: usize) -> u64 {
    if bucket < SUBS {
        return bucket as u64;
    }
    let (power, sub) = (bucket / SUBS - 1, (bucket % SUBS) as u64);
    ((SUBS as u64 + sub) << power) + ((1 << power) - 1)
}

/// What reading the clock twice costs, which every measured latency includes.
pub(crate) fn clock_cost() -> Duration {
    let mut latencies = Latencies::default();
    for _ in 0..10_000 {
        latencies.time(|| {});
    }
    latencies.percentile(0.5)
}

/// Anonymous memory of this process: what its heap and its threads hold. Mapped files are not in it.
/// None where the system does not tell.
pub(crate) fn anonymous_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Blocks on disk, by what they are for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Disk {
    /// Segments: keys and values, and space allocated ahead.
    pub(crate) segments: u64,
    /// Hints, keydir snapshots, manifests.
    pub(crate) index: u64,
    /// The journal of durable writes, and the space set aside for a full disk.
    pub(crate) fixed: u64,
}

impl Disk {
    /// Measures a store. Files may come and go meanwhile.
    pub(crate) fn of(store: &Path) -> io::Result<Self> {
        let mut disk = Self::default();
        for entry in fs::read_dir(store)? {
            let entry = entry?;
            match StoreName::parse(&entry.file_name()) {
                StoreName::Shard(_) => disk.add_shard(&entry.path())?,
                _ => disk.fixed += blocks(&entry),
            }
        }
        Ok(disk)
    }

    fn add_shard(&mut self, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            match FileName::parse(&entry.file_name()) {
                FileName::Segment(_) => self.segments += blocks(&entry),
                _ => self.index += blocks(&entry),
            }
        }
        Ok(())
    }

    /// All of it.
    pub(crate) fn total(&self) -> u64 {
        self.segments + self.index + self.fixed
    }
}

/// 0 for a file that is gone already.
fn blocks(entry: &fs::DirEntry) -> u64 {
    entry.metadata().map_or(0, |meta| meta.blocks() * 512)
}

/// The type of the file system under `path`, as the system's mount table has it.
pub(crate) fn file_system(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let fits = |line: &str| {
        let mount = line.split(' ').nth(4)?;
        let kind = line.split(" - ").nth(1)?.split(' ').next()?;
        path.starts_with(mount).then(|| (mount.len(), kind.to_owned()))
    };
    mounts.lines().filter_map(fits).max_by_key(|(len, _)| *len).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_to_a_sixteenth() {
        let mut latencies = Latencies::default();
        (1..=10_000).for_each(|ns| latencies.record(ns));
        for (share, exact) in [(0.5, 5_000.0), (0.99, 9_900.0), (0.999, 9_990.0)] {
            let found = latencies.percentile(share).as_secs_f64() * 1e9;
            assert!((found / exact - 1.0).abs() < 1.0 / 16.0, "{share}: {found} for {exact}");
        }
        assert_eq!(latencies.max(), Duration::from_micros(10));
        assert_eq!(latencies.percentile(1.0), latencies.max());
    }

    #[test]
    fn every_latency_has_a_bucket_that_holds_it() {
        for ns in (0..100_000).chain([1 << 40, u64::MAX >> 1, u64::MAX]) {
            let bucket = bucket_of(ns);
            assert!(bucket < BUCKETS && upper_end(bucket) >= ns, "{ns}");
            assert!(bucket == 0 || upper_end(bucket - 1) < ns, "{ns}");
        }
    }

    #[test]
    fn the_spread_has_everything() {
        let mut latencies = Latencies::default();
        for ns in [1, 70, 100, 1_000, 1 << 50] {
            latencies.record(ns);
        }
        let spread = latencies.spread(6, 20);
        assert_eq!(spread.iter().sum::<u64>(), 5);
        assert_eq!((spread[0], spread[1], spread[19]), (2, 1, 1));
    }
}
