//! Runs an operation many times on several threads, with a progress bar and latencies.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::measure::{Latencies, Tally};
use crate::fault::{Fault, Outcome};
use crate::interrupt;
use crate::term::Progress;

const TICK: Duration = Duration::from_millis(20);

/// What was measured of one kind of operation.
#[derive(Debug)]
pub(crate) struct Measured<T = Latencies> {
    /// What it is, for the tables.
    pub(crate) name: &'static str,
    /// Calls.
    pub(crate) calls: u64,
    /// Keys: more than calls where a call takes many.
    pub(crate) keys: u64,
    pub(crate) threads: u8,
    pub(crate) elapsed: Duration,
    pub(crate) latencies: T,
}

impl<T: Tally> Measured<T> {
    /// Adds a run that came after this one.
    pub(crate) fn add(&mut self, later: &Self) {
        self.calls += later.calls;
        self.keys += later.keys;
        self.elapsed += later.elapsed;
        self.latencies.add(&later.latencies);
    }
}

/// How an operation is repeated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) threads: u8,
    pub(crate) calls: u64,
    pub(crate) keys_per_call: u64,
    /// Stops early when this time is over.
    pub(crate) at_most: Option<Duration>,
    /// Calls between two looks at the clock and at Ctrl-C.
    pub(crate) stride: u64,
}

/// Calls `op` with every number below the plan's calls. `tick` runs now and then on this thread.
pub(crate) fn run<T, F>(plan: Plan, op: F, mut tick: impl FnMut()) -> Outcome<Measured<T>>
where
    T: Tally,
    F: Fn(u64, &mut T) -> caskade::Result<()> + Sync,
{
    let shared = Shared {
        plan,
        begun: Instant::now(),
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let progress = if plan.at_most.is_some() {
        Progress::of_time(plan.name)
    } else {
        Progress::new(plan.name)
    };
    let (shared_ref, op) = (&shared, &op);
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..plan.threads).map(|_| scope.spawn(move || shared_ref.work(op))).collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::park_timeout(TICK);
            if interrupt::is_asked() {
                shared.stop.store(true, Ordering::Relaxed);
            }
            shared.show(&progress);
            tick();
        }
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a worker does not panic"))
            .collect::<Vec<_>>()
    });
    drop(progress);
    interrupt::check()?;
    let mut latencies = T::default();
    let mut ended = shared.begun;
    for result in results {
        let (own, at) = result.map_err(Fault::from)?;
        latencies.add(&own);
        ended = ended.max(at);
    }
    let calls = shared.done.load(Ordering::Relaxed);
    Ok(Measured {
        name: plan.name,
        calls,
        keys: calls * plan.keys_per_call,
        threads: plan.threads,
        elapsed: ended - shared.begun,
        latencies,
    })
}

struct Shared {
    plan: Plan,
    begun: Instant,
    next: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn work<T, F>(&self, op: &F) -> caskade::Result<(T, Instant)>
    where
        T: Tally,
        F: Fn(u64, &mut T) -> caskade::Result<()>,
    {
        let mut latencies = T::default();
        let stride = self.plan.stride;
        while !self.is_over() {
            let from = self.next.fetch_add(stride, Ordering::Relaxed);
            let to = from.saturating_add(stride).min(self.plan.calls);
            if from >= to {
                break;
            }
            for index in from..to {
                if let Err(error) = op(index, &mut latencies) {
                    self.stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
            self.done.fetch_add(to - from, Ordering::Relaxed);
        }
        Ok((latencies, Instant::now()))
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
            || self.plan.at_most.is_some_and(|time| self.begun.elapsed() >= time)
    }

    fn show(&self, progress: &Progress) {
        if let Some(time) = self.plan.at_most {
            progress.set(self.begun.elapsed().as_millis() as u64, time.as_millis() as u64);
        } else {
            let keys = self.plan.keys_per_call;
            progress.set(self.done.load(Ordering::Relaxed) * keys, self.plan.calls * keys);
        }
    }
}
