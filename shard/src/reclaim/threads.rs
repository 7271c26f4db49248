//! Slots that one thread at a time has for itself.
//!
//! # Invariants
//! 1. A slot below [`OWNED`] belongs to at most one thread of the process, from its first guard to
//!    its end. A new owner sees all that the last one did, through the pool's lock.
//! 2. A thread that ends while it has guards keeps its slot for good: whatever still holds such a
//!    guard may yet change the counter.

#[cfg(loom)]
pub(super) use modelled::{OWNED, SLOTS, release, slot};
#[cfg(not(loom))]
pub(super) use real::OWNED;
#[cfg(not(loom))]
pub(super) use real::{SLOTS, release, slot};

#[cfg(not(loom))]
mod real {
    use std::{
        cell::Cell,
        sync::{Mutex, PoisonError},
    };

    /// Slots for one thread each.
    pub(in crate::reclaim) const OWNED: usize = 120;
    /// All slots. Threads without one of their own share those beyond [`OWNED`].
    pub(in crate::reclaim) const SLOTS: usize = OWNED + 8;

    const UNSET: usize = usize::MAX;

    struct Me {
        slot: Cell<usize>,
        guards: Cell<usize>,
    }

    thread_local! {
        static ME: Me = const { Me { slot: Cell::new(UNSET), guards: Cell::new(0) } };
        static END: End = const { End };
    }

    /// Slots that were given back.
    struct Pool {
        unused: Vec<usize>,
        next: usize,
    }

    static POOL: Mutex<Pool> = Mutex::new(Pool { unused: Vec::new(), next: 0 });

    /// This thread's slot, with one guard more.
    #[inline]
    pub(in crate::reclaim) fn slot() -> usize {
        ME.with(|me| {
            me.guards.set(me.guards.get() + 1);
            match me.slot.get() {
                // Asked so, for then the caller needs no test of its own.
                slot @ 0..SLOTS => slot,
                _ => assign(me),
            }
        })
    }

    /// One guard of this thread less.
    #[inline]
    pub(in crate::reclaim) fn release() {
        ME.with(|me| me.guards.set(me.guards.get() - 1));
    }

    #[cold]
    fn assign(me: &Me) -> usize {
        // A thread that is ending already would never give its slot back.
        let slot = if END.try_with(|_| ()).is_ok() { take() } else { None };
        me.slot.set(slot.unwrap_or_else(|| shared(me)));
        me.slot.get()
    }

    fn take() -> Option<usize> {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        pool.unused.pop().or_else(|| {
            let slot = pool.next;
            pool.next = (slot + 1).min(OWNED);
            (slot < OWNED).then_some(slot)
        })
    }

    /// One of the shared slots.
    fn shared(me: &Me) -> usize {
        OWNED + (std::ptr::from_ref(me).addr() >> 12) % (SLOTS - OWNED)
    }

    /// Gives the thread's slot back at its end.
    struct End;

    impl Drop for End {
        fn drop(&mut self) {
            ME.with(|me| {
                let slot = me.slot.replace(shared(me));
                if slot < OWNED && me.guards.get() == 0 {
                    POOL.lock().unwrap_or_else(PoisonError::into_inner).unused.push(slot);
                }
            });
        }
    }
}

#[cfg(loom)]
mod modelled {
    /// Two threads have slots of their own, the others share one.
    pub(in crate::reclaim) const OWNED: usize = 2;
    pub(in crate::reclaim) const SLOTS: usize = 3;

    pub(in crate::reclaim) fn slot() -> usize {
        // The checker's thread numbers are the same in each execution.
        let name = format!("{:?}", loom::thread::current().id());
        let digits: String = name.chars().filter(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(OWNED).min(OWNED)
    }

    pub(in crate::reclaim) fn release() {}
}
