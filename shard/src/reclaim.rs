//! Grace periods: what readers may still see is freed only when none of them can.
//!
//! Readers announce themselves in one of a fixed number of counters; a writer that has unlinked
//! something hands it to [`Reclaim::retire`], and it is freed after two steps of the epoch.
//!
//! # Invariants
//! 1. A counter is the number of live guards that entered through it. It is changed by
//!    read-modify-writes only.
//! 2. The epoch changes under the garbage lock only, by one at a time, and from `e` to `e + 1` only
//!    after each counter of parity `e + 1` was found zero by a read-modify-write under that lock.
//! 3. Garbage carries the epoch at which it was retired and is freed at that epoch plus two.
//!
//! # Why that is enough
//! Let X be unlinked, then retired at epoch `e`. Before X is freed the epoch makes two steps, both
//! after the retirement in the order of the lock: so every counter, of either parity, is found zero
//! at least once after X was unlinked. Take a reader R and the check of *its* counter, wherever R's
//! view of the epoch led it. Both are read-modify-writes on one atomic, so one of them is first:
//! - R's increment is first. The check reads a value that includes R, so it is zero only if R's
//!   decrement came before it as well. The decrement is a release and the check an acquire, and
//!   read-modify-writes in between continue the release sequence: R's reads happen before the free.
//! - The check is first. It is a release and R's increment an acquire, so the unlinking happens
//!   before everything that R reads: R can no longer find X.
//!
//! The epoch therefore decides only how soon the counters drain (new readers use the other parity),
//! never whether a free is safe; that is why readers may load it relaxed.

use std::{
    collections::VecDeque,
    fmt,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// Counters that different threads use. More threads than slots share them.
#[cfg(not(loom))]
const SLOTS: usize = 64;
#[cfg(loom)]
const SLOTS: usize = 1;

/// How much may wait before a retirement tries to free some of it.
#[cfg(not(loom))]
const PENDING_MAX: usize = 8;
#[cfg(loom)]
const PENDING_MAX: usize = 1;

/// One thread's counters, by parity of the epoch. Two lines, because processors fetch lines in pairs.
#[repr(align(128))]
struct Slot {
    guards: [AtomicU64; 2],
}

struct Retired {
    epoch: u64,
    /// Held for its drop alone.
    _garbage: Box<dyn Send>,
}

/// Frees what was unlinked when no reader can hold it any more.
///
/// One for all the shards of a store.
pub struct Reclaim {
    slots: Box<[Slot]>,
    /// Written under the lock of `garbage`.
    epoch: AtomicU64,
    /// Oldest first.
    garbage: Mutex<VecDeque<Retired>>,
    /// The length of `garbage`, to be read without its lock.
    pending: AtomicUsize,
}

/// While it lives, nothing that its holder may have found is freed. Guards may nest.
pub struct Guard<'a> {
    owner: &'a Reclaim,
    counter: &'a AtomicU64,
}

impl Reclaim {
    /// No readers, no garbage.
    #[must_use]
    pub fn new() -> Self {
        let slot = |_| Slot { guards: [AtomicU64::new(0), AtomicU64::new(0)] };
        Self {
            slots: (0..SLOTS).map(slot).collect(),
            epoch: AtomicU64::new(0),
            garbage: Mutex::new(VecDeque::new()),
            pending: AtomicUsize::new(0),
        }
    }

    /// Announces a reader.
    #[must_use]
    #[inline]
    pub fn enter(&self) -> Guard<'_> {
        let parity = (self.epoch.load(Ordering::Relaxed) & 1) as usize;
        let counter = &self.slots[thread_index() % SLOTS].guards[parity];
        // Acquire: if the check of this counter came first, this reader sees what was unlinked.
        counter.fetch_add(1, Ordering::Acquire);
        Guard { owner: self, counter }
    }

    /// Takes over what was just unlinked, and drops it when no guard that could see it lives.
    pub fn retire(&self, garbage: Box<dyn Send>) {
        let pending = {
            let mut queue = lock(&self.garbage);
            // Under the lock the epoch stands still.
            let epoch = self.epoch.load(Ordering::Relaxed);
            queue.push_back(Retired { epoch, _garbage: garbage });
            self.pending.store(queue.len(), Relaxed);
            queue.len()
        };
        if pending >= PENDING_MAX {
            self.collect();
        }
    }

    /// Moves the epoch if readers allow, and frees what has waited long enough. Answers how much is
    /// still waiting.
    pub fn collect(&self) -> usize {
        if self.pending() == 0 {
            return 0;
        }
        let mut queue = lock(&self.garbage);
        // Two steps are what the newest garbage needs.
        for _ in 0..2 {
            let epoch = self.epoch.load(Ordering::Relaxed);
            if !self.is_drained(epoch + 1) {
                break;
            }
            self.epoch.store(epoch + 1, Ordering::Relaxed);
        }
        let epoch = self.epoch.load(Ordering::Relaxed);
        let ripe = queue.partition_point(|retired| retired.epoch + 2 <= epoch);
        let freed: Vec<_> = queue.drain(..ripe).collect();
        let waiting = queue.len();
        self.pending.store(waiting, Relaxed);
        drop(queue);
        // Drops may be long, or retire something themselves: not under the lock.
        drop(freed);
        waiting
    }

    /// How much waits to be freed.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.load(Relaxed)
    }

    /// Whether each counter of `epoch`'s parity was found zero.
    fn is_drained(&self, epoch: u64) -> bool {
        let parity = (epoch & 1) as usize;
        // The read-modify-write is what the proof needs; the load before it spares the readers'
        // cache lines when the answer is no anyway.
        self.slots.iter().all(|slot| {
            let counter = &slot.guards[parity];
            counter.load(Ordering::Relaxed) == 0 && counter.fetch_add(0, Ordering::AcqRel) == 0
        })
    }
}

impl Default for Reclaim {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Reclaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reclaim").field("pending", &self.pending()).finish_non_exhaustive()
    }
}

impl Guard<'_> {
    /// Whether this guard was entered at `reclaim`.
    #[must_use]
    #[inline]
    pub fn belongs_to(&self, reclaim: &Reclaim) -> bool {
        std::ptr::eq(self.owner, reclaim)
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: what this reader read happens before the free that finds the counter zero.
        self.counter.fetch_sub(1, Ordering::Release);
    }
}

impl fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

/// A small number of this thread's own, the same for its life.
#[inline]
fn thread_index() -> usize {
    use std::cell::Cell;
    const UNSET: usize = usize::MAX;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static INDEX: Cell<usize> = const { Cell::new(UNSET) };
    }
    #[cold]
    fn assign(cell: &Cell<usize>) -> usize {
        let index = NEXT.fetch_add(1, Relaxed) % UNSET;
        cell.set(index);
        index
    }
    INDEX.with(|cell| match cell.get() {
        UNSET => assign(cell),
        index => index,
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::{Arc, atomic::AtomicBool};

    use super::*;

    struct Flag(Arc<AtomicBool>);

    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }

    fn flagged(reclaim: &Reclaim) -> Arc<AtomicBool> {
        let freed = Arc::new(AtomicBool::new(false));
        reclaim.retire(Box::new(Flag(Arc::clone(&freed))));
        freed
    }

    #[test]
    fn garbage_without_readers_is_freed_at_once() {
        let reclaim = Reclaim::new();
        let freed = flagged(&reclaim);
        assert!(!freed.load(Relaxed));
        assert_eq!(reclaim.collect(), 0);
        assert!(freed.load(Relaxed));
    }

    #[test]
    fn a_guard_keeps_what_was_retired_after_it_entered() {
        let reclaim = Reclaim::new();
        let guard = reclaim.enter();
        let freed = flagged(&reclaim);
        for _ in 0..5 {
            reclaim.collect();
        }
        assert!(!freed.load(Relaxed));
        drop(guard);
        reclaim.collect();
        assert!(freed.load(Relaxed));
    }

    #[test]
    fn guards_that_follow_one_another_do_not_starve_the_collection() {
        let reclaim = Reclaim::new();
        let mut guard = reclaim.enter();
        let freed = flagged(&reclaim);
        for _ in 0..4 {
            let next = reclaim.enter();
            drop(std::mem::replace(&mut guard, next));
            reclaim.collect();
        }
        assert!(freed.load(Relaxed));
    }

    #[test]
    fn an_outer_guard_outlives_an_inner_one() {
        let reclaim = Reclaim::new();
        let outer = reclaim.enter();
        drop(reclaim.enter());
        let freed = flagged(&reclaim);
        for _ in 0..5 {
            drop(reclaim.enter());
            reclaim.collect();
        }
        assert!(!freed.load(Relaxed));
        drop(outer);
        reclaim.collect();
        assert!(freed.load(Relaxed));
    }

    #[test]
    fn a_guard_may_be_dropped_by_another_thread() {
        let reclaim = Reclaim::new();
        std::thread::scope(|scope| {
            let guard = reclaim.enter();
            scope.spawn(move || drop(guard));
        });
        let freed = flagged(&reclaim);
        reclaim.collect();
        assert!(freed.load(Relaxed));
    }

    #[test]
    fn much_garbage_is_collected_without_being_asked() {
        let reclaim = Reclaim::new();
        let first = flagged(&reclaim);
        for _ in 0..2 * PENDING_MAX {
            flagged(&reclaim);
        }
        assert!(first.load(Relaxed));
        assert!(reclaim.pending() < PENDING_MAX);
    }

    #[test]
    fn what_waits_is_freed_with_the_reclaim() {
        let reclaim = Reclaim::new();
        let freed = flagged(&reclaim);
        drop(reclaim);
        assert!(freed.load(Relaxed));
    }
}
