//! Atomics and locks, from `std` or, under `--cfg loom`, from the model checker.
//!
//! Only what takes part in a protocol between threads comes from here. What a single writer owns
//! uses `std` directly, so that the model has fewer states.

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
