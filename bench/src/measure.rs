//! Time, memory and disk space.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// The middle of some figures; the lower one of two.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) / 2]
}

/// Nanoseconds for each of `ops` operations.
#[must_use]
pub fn nanos_each(elapsed: Duration, ops: u64) -> f64 {
    elapsed.as_nanos() as f64 / ops as f64
}

/// Runs `work` once, and answers its nanoseconds for each of `ops` operations.
pub fn time(ops: u64, work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    nanos_each(begun.elapsed(), ops)
}

/// Runs `work` in as many threads at once, and answers the time from the common start to the last
/// end.
pub fn in_threads(threads: usize, work: impl Fn(usize) + Sync) -> Duration {
    let barrier = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|index| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    work(index);
                })
            })
            .collect();
        barrier.wait();
        let begun = Instant::now();
        for handle in handles {
            handle.join().expect("a benchmark thread does not panic");
        }
        begun.elapsed()
    })
}

/// How much more two threads do than one, of pure arithmetic: what the machine has to give just now.
#[must_use]
pub fn machine_scaling() -> f64 {
    let spin = |_| {
        let mut x = 1_u64;
        for _ in 0..100_000_000_u64 {
            x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 1;
        }
        std::hint::black_box(x);
    };
    let one = in_threads(1, spin);
    let two = in_threads(2, spin);
    2.0 * one.as_secs_f64() / two.as_secs_f64()
}

/// Anonymous memory of this process, in bytes.
///
/// # Panics
/// Where there is no `/proc`.
#[must_use]
pub fn anonymous_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("Linux 4.5");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number of KiB") * 1024
}

/// Bytes that the file system spends on all files below `dir`.
pub fn disk_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // A file may go while the directory is read.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes +=
            if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

/// The machine's load averages, as the kernel words them.
#[must_use]
pub fn load_average() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
