//! Time, memory and disk space.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

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

/// What is measured.
///
/// On a machine that has other work to do, elapsed time says more about that than about the store;
/// the threads' own processor time leaves the others out, and all waiting with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Elapsed time.
    Wall,
    /// Processor time of the threads that do the work.
    Processor,
}

/// Processor time of this thread so far.
#[must_use]
pub fn thread_time() -> Duration {
    processor_time(ClockId::ThreadCPUTime)
}

/// Processor time of this process so far.
#[must_use]
pub fn process_time() -> Duration {
    processor_time(ClockId::ProcessCPUTime)
}

fn processor_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Nanoseconds for each of `ops` operations.
#[must_use]
pub fn nanos_each(elapsed: Duration, ops: u64) -> f64 {
    elapsed.as_nanos() as f64 / ops as f64
}

/// Runs `work` in as many threads at once, and answers the time from the common start to the last
/// end, or the mean of the threads' processor time.
pub fn in_threads(clock: Clock, threads: usize, work: impl Fn(usize) + Sync) -> Duration {
    let barrier = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|index| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    let begun = thread_time();
                    work(index);
                    thread_time().saturating_sub(begun)
                })
            })
            .collect();
        barrier.wait();
        let begun = Instant::now();
        let times = handles.into_iter().map(|h| h.join().expect("a benchmark does not panic"));
        let processor = times.sum::<Duration>() / threads as u32;
        match clock {
            Clock::Wall => begun.elapsed(),
            Clock::Processor => processor,
        }
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
    let one = in_threads(Clock::Wall, 1, spin);
    let two = in_threads(Clock::Wall, 2, spin);
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
