//! Atomics and locks, from `std` or, under `--cfg loom`, from the model checker.
//!
//! Only what takes part in a protocol between threads comes from here. What a single writer owns
//! uses `std` directly, so that the model has fewer states.
//!
//! The time read here only says how long threads wait for each other; what a store does goes by the
//! clock of its storage.

use std::time::{Duration, Instant};

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence},
};

/// Locks, and goes on if another thread panicked while it held the lock: the data under our locks
/// is consistent between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// How long something took.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Lets other threads run until `is_enough`, for `patience` at most. The model checker knows no time:
/// there, they may run once.
pub(crate) fn yield_until(is_enough: impl Fn() -> bool, patience: Duration) {
    #[cfg(loom)]
    {
        let _ = (is_enough, patience);
        loom::thread::yield_now();
    }
    #[cfg(not(loom))]
    {
        let watch = Stopwatch::start();
        while !is_enough() && watch.elapsed() < patience {
            std::thread::yield_now();
        }
    }
}
