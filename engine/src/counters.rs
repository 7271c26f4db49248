//! Counters that many threads raise without meeting: each thread has a cell of its own, as long as
//! there are not more threads than cells. Then a count may get lost now and then.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const CELLS: usize = 64;

/// Counts of operations.
#[derive(Debug, Default)]
pub(crate) struct Ops {
    pub(crate) gets: Counter,
    pub(crate) puts: Counter,
}

/// A counter that is cheap to raise and slow to read.
#[derive(Debug)]
pub(crate) struct Counter {
    cells: Box<[Padded]>,
}

/// A cell on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

impl Default for Counter {
    fn default() -> Self {
        Self { cells: (0..CELLS).map(|_| Padded::default()).collect() }
    }
}

impl Counter {
    /// Adds to this thread's cell.
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        let cell = &self.cells[thread_number() % CELLS].0;
        // No locked instruction: two threads that share a cell may lose a count.
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// The sum of all cells.
    pub(crate) fn sum(&self) -> u64 {
        self.cells.iter().map(|cell| cell.0.load(Ordering::Relaxed)).sum()
    }
}

#[inline]
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}
