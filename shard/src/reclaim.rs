//! Grace periods: what readers may still see is freed only when none of them can.
//!
//! Readers announce themselves in one of a fixed number of counters; a writer that has unlinked
//! something hands it to [`Reclaim::retire`], and it is freed after two steps of the epoch.
//!
//! # Invariants
//! 1. A counter is the number of live guards that entered through it.
//! 2. If barriers for all threads can be had, a counter in a thread's own slot is changed by that
//!    thread alone, with plain loads and stores (a guard stays on its thread). All other counters
//!    are changed by read-modify-writes.
//! 3. The epoch changes under the lock of `waiting` only, by one at a time, and from `e` to `e + 1`
//!    only after each counter of parity `e + 1` was found zero under that lock: one with plain
//!    changes after a barrier for all threads, the others by read-modify-writes.
//! 4. Garbage carries the epoch at which a collector took it over, before its barrier, and is freed
//!    at that epoch plus two.
//!
//! Locks: `waiting`, then `retired`.
//!
//! # Why that is enough
//! Let X be unlinked, then retired, then taken over at epoch `e`. Before X is freed the epoch makes
//! two steps, both after that in the order of the locks: so every counter, of either parity, is found zero
//! at least once after X was unlinked. Take a reader R and the check of *its* counter, wherever R's
//! view of the epoch led it; let R hold X. Then the check does not find zero before R has left:
//! - Plain changes. Before the check every thread passed a full barrier, after X was unlinked. If
//!   R's came after R had entered, the check sees a count that includes R. If it came before, R's
//!   later loads see that X is unlinked: R does not hold X. (`barrier` has the argument in full.)
//! - Read-modify-writes. R's entering and the check are both ones on the same atomic, so one of them
//!   is first. If R's was, the check reads a value that includes R. If the check was, it is a
//!   release and R's an acquire: the unlinking happens before R's loads, and R does not hold X.
//!
//! If R has left, the zero that was found is the value of R's own release store, or of a later one
//! by the same thread or in the same chain of read-modify-writes; the check is an acquire, so what R
//! read happens before the free.
//!
//! The epoch decides only how soon the counters drain (new readers use the other parity), never
//! whether a free is safe; that is why readers may load it relaxed.

mod barrier;
mod threads;

use std::{
    collections::VecDeque,
    fmt,
    marker::PhantomData,
    sync::atomic::{AtomicU64 as Plain, AtomicUsize, Ordering::Relaxed},
};

use self::threads::{OWNED, SLOTS};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, lock};

/// How much may wait before a retirement tries to free some of it.
#[cfg(not(loom))]
const PENDING_MAX: usize = 8;
#[cfg(loom)]
const PENDING_MAX: usize = 1;

/// How often a collection begins anew for what the one before retired: a removed segment leaves its slot
/// first, then memory.
const PASSES: usize = 3;

/// Counters by parity of the epoch. Two lines, because processors fetch lines in pairs.
#[repr(align(128))]
struct Slot {
    guards: [AtomicU64; 2],
    /// What [`Guard::count_reads`] was told. Here, where the reader's line is at hand.
    reads: Plain,
    /// Whether the counters are changed with plain loads and stores. Constant.
    plain: bool,
}

type Garbage = Box<dyn Send>;

/// Frees what was unlinked when no reader can hold it any more.
///
/// One for all the shards of a store.
pub struct Reclaim {
    slots: Box<[Slot; SLOTS]>,
    /// Whether barriers for all threads can be had. Constant.
    plain: bool,
    /// Written under the lock of `waiting`.
    epoch: AtomicU64,
    /// What no collector has seen yet. The lock is never held for long.
    retired: Mutex<Vec<Garbage>>,
    /// Garbage with its epoch, oldest first. The lock is the collector's role.
    waiting: Mutex<VecDeque<(u64, Garbage)>>,
    /// The length of both queues.
    pending: AtomicUsize,
}

/// While it lives, nothing that its holder may have found is freed. Guards may nest.
///
/// A guard stays on its thread:
/// ```compile_fail
/// let reclaim = caskade_shard::reclaim::Reclaim::new();
/// let guard = reclaim.enter();
/// std::thread::scope(|scope| scope.spawn(move || drop(guard)));
/// ```
pub struct Guard<'a> {
    owner: &'a Reclaim,
    slot: &'a Slot,
    /// The counter in it that this guard raised.
    counter: &'a AtomicU64,
    on_its_thread: PhantomData<*const ()>,
}

impl Reclaim {
    /// No readers, no garbage.
    #[must_use]
    pub fn new() -> Self {
        let plain = barrier::is_available();
        let slot = |index| Slot {
            guards: [AtomicU64::new(0), AtomicU64::new(0)],
            reads: Plain::new(0),
            plain: plain && index < OWNED,
        };
        Self {
            slots: Box::new(std::array::from_fn(slot)),
            plain,
            epoch: AtomicU64::new(0),
            retired: Mutex::new(Vec::new()),
            waiting: Mutex::new(VecDeque::new()),
            pending: AtomicUsize::new(0),
        }
    }

    /// Announces a reader.
    #[must_use]
    #[inline]
    pub fn enter(&self) -> Guard<'_> {
        let parity = (self.epoch.load(Ordering::Relaxed) & 1) as usize;
        let slot = &self.slots[threads::slot()];
        let counter = &slot.guards[parity];
        if slot.plain {
            counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            // The reader's loads stay behind its announcement.
            barrier::light();
        } else {
            enter_shared(counter);
        }
        Guard { owner: self, slot, counter, on_its_thread: PhantomData }
    }

    /// Takes over what was just unlinked, and drops it when no guard that could see it lives.
    pub fn retire(&self, garbage: Box<dyn Send>) {
        let pending = self.pending.fetch_add(1, Relaxed) + 1;
        lock(&self.retired).push(garbage);
        if pending >= PENDING_MAX
            && let Ok(waiting) = self.waiting.try_lock()
        {
            self.collect_into(waiting);
        }
    }

    /// Moves the epoch if readers allow, and frees what has waited long enough. Answers how much is
    /// still waiting.
    pub fn collect(&self) -> usize {
        // What is freed may retire something in its turn.
        for _ in 0..PASSES {
            if self.pending() == 0 || self.collect_into(lock(&self.waiting)) == 0 {
                break;
            }
        }
        self.pending()
    }

    /// Answers how much was freed.
    fn collect_into(&self, mut waiting: MutexGuard<'_, VecDeque<(u64, Garbage)>>) -> usize {
        let epoch = self.epoch.load(Ordering::Relaxed);
        waiting.extend(lock(&self.retired).drain(..).map(|garbage| (epoch, garbage)));
        // One barrier serves both steps: it follows the unlinking of all that waits.
        if !self.plain || barrier::heavy() {
            self.advance();
        }
        let epoch = self.epoch.load(Ordering::Relaxed);
        let ripe = waiting.partition_point(|&(taken, _)| taken + 2 <= epoch);
        let freed: Vec<_> = waiting.drain(..ripe).collect();
        drop(waiting);
        self.pending.fetch_sub(freed.len(), Relaxed);
        // Drops may be long, or retire something themselves: not under the lock.
        freed.len()
    }

    /// How many reads were counted. A thread without a slot of its own may lose some.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.slots.iter().map(|slot| slot.reads.load(Relaxed)).sum()
    }

    /// How much waits to be freed.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.load(Relaxed)
    }

    /// Moves the epoch by the two steps that the newest garbage needs, or as far as readers allow.
    /// Under the lock of `waiting`.
    fn advance(&self) {
        for _ in 0..2 {
            let epoch = self.epoch.load(Ordering::Relaxed);
            if !self.is_drained(epoch + 1) {
                break;
            }
            self.epoch.store(epoch + 1, Ordering::Relaxed);
        }
    }

    /// Whether each counter of `epoch`'s parity was found zero.
    fn is_drained(&self, epoch: u64) -> bool {
        let parity = (epoch & 1) as usize;
        self.slots.iter().all(|slot| {
            let counter = &slot.guards[parity];
            // Acquire: the readers that left are done. Where this load is not enough, it spares the
            // readers' cache lines if the answer is no anyway.
            counter.load(Ordering::Acquire) == 0
                && (slot.plain || counter.fetch_add(0, Ordering::AcqRel) == 0)
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
    /// Counts reads, for [`Reclaim::reads`].
    #[inline]
    pub fn count_reads(&self, count: u64) {
        // No locked instruction: a reader must not wait for it.
        self.slot.reads.store(self.slot.reads.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Whether this guard was entered at `reclaim`.
    #[must_use]
    #[inline]
    pub fn belongs_to(&self, reclaim: &Reclaim) -> bool {
        std::ptr::eq(self.owner, reclaim)
    }
}

#[cold]
fn enter_shared(counter: &AtomicU64) {
    // Acquire: if the check of this counter came first, this reader sees what was unlinked.
    counter.fetch_add(1, Ordering::Acquire);
}

#[cold]
fn leave_shared(counter: &AtomicU64) {
    // Release: as in `Guard::drop`.
    counter.fetch_sub(1, Ordering::Release);
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: what this reader read happens before the free that finds the counter zero.
        if self.slot.plain {
            self.counter.store(self.counter.load(Ordering::Relaxed) - 1, Ordering::Release);
        } else {
            leave_shared(self.counter);
        }
        threads::release();
    }
}

impl fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
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
    fn guards_of_many_threads_all_count() {
        let reclaim = Reclaim::new();
        let threads = if cfg!(miri) { 4 } else { SLOTS + 20 };
        let all_in = std::sync::Barrier::new(threads + 1);
        let all_out = std::sync::Barrier::new(threads + 1);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let guard = reclaim.enter();
                    all_in.wait();
                    all_out.wait();
                    drop(guard);
                });
            }
            all_in.wait();
            let freed = flagged(&reclaim);
            reclaim.collect();
            assert!(!freed.load(Relaxed));
            all_out.wait();
        });
        assert_eq!(reclaim.collect(), 0);
    }

    #[test]
    fn threads_that_ended_leave_their_slots_to_others() {
        let reclaim = Reclaim::new();
        for _ in 0..if cfg!(miri) { 5 } else { 3 * SLOTS } {
            // Joined: the end of a scope does not wait for what a thread does last, giving up its slot.
            std::thread::scope(|scope| {
                scope.spawn(|| drop(reclaim.enter())).join().expect("no panic");
            });
        }
        let owned = std::thread::scope(|scope| {
            scope.spawn(|| reclaim.enter().slot.plain == reclaim.plain).join().expect("no panic")
        });
        assert!(owned);
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
