//! A memory barrier for all threads of the process, so that readers need none of their own.
//!
//! Two sides: the readers' [`light`] keeps the compiler from moving memory accesses across it, and
//! [`heavy`] makes every thread pass a full barrier between its call and its return. So of a reader
//! that stores A, passes `light` and loads B, and a collector that stores B, calls `heavy` and loads
//! A, at least one sees what the other stored: the reader's full barrier comes either after its
//! store of A, which the collector then sees, or before its load of B, which then sees the store.
//! Rust has no such pair of fences in its memory model; the argument is that of membarrier(2).
//! Under the model checker both sides are sequentially consistent fences, which is what they stand
//! for.

#[cfg(loom)]
pub(super) use modelled::{heavy, is_available, light};
#[cfg(not(any(loom, miri, caskade_portable)))]
pub(super) use system::{heavy, is_available, light};
#[cfg(all(not(loom), any(miri, caskade_portable)))]
pub(super) use without::{heavy, is_available, light};

#[cfg(not(any(loom, miri, caskade_portable)))]
mod system {
    use std::sync::atomic::{Ordering, compiler_fence, fence};

    use rustix::thread::{MembarrierCommand, membarrier};

    /// Whether the kernel can do it. Must be asked once before `heavy` is called.
    pub(in crate::reclaim) fn is_available() -> bool {
        membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok() && heavy()
    }

    #[inline]
    pub(in crate::reclaim) fn light() {
        compiler_fence(Ordering::SeqCst);
    }

    /// Answers whether the barrier was made.
    pub(in crate::reclaim) fn heavy() -> bool {
        fence(Ordering::SeqCst);
        let made = membarrier(MembarrierCommand::PrivateExpedited).is_ok();
        fence(Ordering::SeqCst);
        made
    }
}

#[cfg(loom)]
mod modelled {
    use crate::sync::{Ordering, fence};

    pub(in crate::reclaim) fn is_available() -> bool {
        true
    }

    pub(in crate::reclaim) fn light() {
        fence(Ordering::SeqCst);
    }

    pub(in crate::reclaim) fn heavy() -> bool {
        fence(Ordering::SeqCst);
        true
    }
}

#[cfg(all(not(loom), any(miri, caskade_portable)))]
mod without {
    pub(in crate::reclaim) fn is_available() -> bool {
        false
    }

    pub(in crate::reclaim) fn light() {}

    pub(in crate::reclaim) fn heavy() -> bool {
        false
    }
}
