//! Doing one operation over and over, in threads, for a while.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use bench::histogram::Histogram;
use bench::workload::{Values, key};

use super::store::Store;
use crate::Outcome;

/// Puts between two looks at the clock.
const STALL_PUTS: u64 = 64;
/// One of this many short operations is timed. To read the clock, the processor waits for all that it
/// has begun, so that nothing overlaps there.
pub(crate) const SAMPLE: u64 = 64;
/// Pairs in a batch of a batched load.
const LOAD_BATCH: u64 = 10_000;
/// Pairs in a batch where nobody looks at the clock: few enough not to count as a store's memory.
const FILL_BATCH: u64 = 1000;

/// What was done.
pub(crate) struct Phase {
    pub(crate) ops: u64,
    /// From the common start to the last end.
    pub(crate) elapsed: Duration,
    /// Of single operations, those that were timed.
    pub(crate) latency: Histogram,
    /// The longest time that 64 puts in a row took a thread; for loads.
    pub(crate) worst_stall: Duration,
}

impl Phase {
    pub(crate) fn rate(&self) -> f64 {
        self.ops as f64 / self.elapsed.as_secs_f64()
    }

    /// Takes in what was done afterwards.
    fn add(&mut self, later: &Self) {
        self.ops += later.ops;
        self.elapsed += later.elapsed;
        self.latency.merge(&later.latency);
        self.worst_stall = self.worst_stall.max(later.worst_stall);
    }
}

/// Operations by one thread.
struct Share {
    ops: u64,
    latency: Histogram,
    worst_stall: Duration,
}

fn in_threads(threads: usize, work: impl Fn(usize) -> Outcome<Share> + Sync) -> Outcome<Phase> {
    let barrier = Barrier::new(threads);
    let shares: Vec<_> = std::thread::scope(|scope| {
        let spawn = |index| {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                let begun = Instant::now();
                (begun, work(index), Instant::now())
            })
        };
        let handles: Vec<_> = (0..threads).map(spawn).collect();
        handles.into_iter().map(|h| h.join().expect("a benchmark does not panic")).collect()
    });
    let begun = shares.iter().map(|(begun, ..)| *begun).min().expect("there is a thread");
    let ended = shares.iter().map(|(.., ended)| *ended).max().expect("there is a thread");
    let mut phase = Phase {
        ops: 0,
        elapsed: ended - begun,
        latency: Histogram::new(),
        worst_stall: Duration::ZERO,
    };
    for (_, share, _) in shares {
        let share = share?;
        phase.ops += share.ops;
        phase.latency.merge(&share.latency);
        phase.worst_stall = phase.worst_stall.max(share.worst_stall);
    }
    Ok(phase)
}

/// Does the operations that `worker` makes for each thread, for `stretch`. Every `sample`th is timed.
pub(crate) fn drive<W: FnMut() -> Outcome<()>>(
    threads: usize,
    stretch: Duration,
    sample: u64,
    worker: impl Fn(usize) -> W + Sync,
) -> Outcome<Phase> {
    in_threads(threads, |index| {
        let mut work = worker(index);
        let mut latency = Histogram::new();
        let mut ops = 0;
        let begun = Instant::now();
        loop {
            for _ in 1..sample {
                work()?;
            }
            let before = Instant::now();
            work()?;
            let after = Instant::now();
            latency.add(after - before);
            ops += sample;
            if after - begun >= stretch {
                return Ok(Share { ops, latency, worst_stall: Duration::ZERO });
            }
        }
    })
}

/// Each case for `stretch`, half of it in turn and half of it back again: a machine that gets quicker or
/// slower meanwhile does so for all.
pub(crate) fn there_and_back<C: Copy, const N: usize>(
    cases: [C; N],
    stretch: Duration,
    mut run: impl FnMut(C, Duration) -> Outcome<Phase>,
) -> Outcome<[Phase; N]> {
    let mut phases = Vec::new();
    for case in cases {
        phases.push(run(case, stretch / 2)?);
    }
    for (case, phase) in cases.into_iter().zip(&mut phases).rev() {
        phase.add(&run(case, stretch / 2)?);
    }
    Ok(phases.try_into().ok().expect("a phase for each case"))
}

/// Operations by one thread and by two. `run` is called with the number of threads and its stretch.
pub(crate) fn by_one_and_two(
    stretch: Duration,
    run: impl FnMut(usize, Duration) -> Outcome<Phase>,
) -> Outcome<[Phase; 2]> {
    there_and_back([1, 2], stretch, run)
}

/// How a store is filled.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) values: &'a Values,
    pub(crate) threads: usize,
    pub(crate) keys: u64,
    pub(crate) is_batched: bool,
    /// Ends then, whatever is missing.
    pub(crate) limit: Duration,
}

/// Puts the keys into the store, each thread its own range.
pub(crate) fn load(store: &dyn Store, how: Load<'_>) -> Outcome<Phase> {
    let share = how.keys / how.threads as u64;
    in_threads(how.threads, |index| {
        let range = index as u64 * share..(index as u64 + 1) * share;
        if how.is_batched { put_batches(store, how, range) } else { put_singly(store, how, range) }
    })
}

fn put_singly(store: &dyn Store, how: Load<'_>, range: std::ops::Range<u64>) -> Outcome<Share> {
    let mut share = Share { ops: 0, latency: Histogram::new(), worst_stall: Duration::ZERO };
    let begun = Instant::now();
    let mut looked = begun;
    for i in range {
        if share.ops.is_multiple_of(SAMPLE) {
            let before = Instant::now();
            store.put(&key(i), how.values.get(i, 0))?;
            share.latency.add(before.elapsed());
        } else {
            store.put(&key(i), how.values.get(i, 0))?;
        }
        share.ops += 1;
        if share.ops.is_multiple_of(STALL_PUTS) {
            let now = Instant::now();
            share.worst_stall = share.worst_stall.max(now - looked);
            looked = now;
            if now - begun > how.limit {
                break;
            }
        }
    }
    Ok(share)
}

fn put_batches(store: &dyn Store, how: Load<'_>, range: std::ops::Range<u64>) -> Outcome<Share> {
    let mut share = Share { ops: 0, latency: Histogram::new(), worst_stall: Duration::ZERO };
    let begun = Instant::now();
    let mut at = range.start;
    while at < range.end && begun.elapsed() <= how.limit {
        let end = (at + LOAD_BATCH).min(range.end);
        put_range(store, how.values, at, end)?;
        share.ops += end - at;
        at = end;
    }
    Ok(share)
}

fn put_range(store: &dyn Store, values: &Values, from: u64, to: u64) -> Outcome<()> {
    let pairs: Vec<_> = (from..to).map(|i| (key(i), values.get(i, 0))).collect();
    store.put_batch(&pairs)
}

/// Puts keys from `from` on in batches: preparation, not a measurement.
pub(crate) fn fill(store: &dyn Store, values: &Values, from: u64, to: u64) -> Outcome<()> {
    let mut at = from;
    while at < to {
        let end = (at + FILL_BATCH).min(to);
        put_range(store, values, at, end)?;
        at = end;
    }
    store.flush()
}
