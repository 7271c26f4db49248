//! The keydir: from the hash of a key to where its newest record lies.
//!
//! Keys are not kept: whoever looks for one passes `is_match`, which compares the stored key of a
//! candidate. Entries with the same hash are told apart by nothing else.
//!
//! A directory (`directory`) of leaves (`leaf`) by hash range; a leaf is a block of buckets of
//! sixteen slots, 12 bytes each. Readers take no lock, but a [`Guard`]; one [`KeydirWriter`] changes
//! the table. A leaf that is full is rebuilt somewhat larger, or split in two: `geometry` says when.
//! What an open finds is made into leaves when somebody first looks for it (`deferred`).
//!
//! # Invariants
//! 1. There is one `KeydirWriter` for a keydir, and only it stores to the directory and to leaves that are there.
//! 2. What was unlinked is given to the [`Reclaim`] at once, or first held for the snapshots that
//!    can see it.
//! 3. An entry that is in the table during the whole of a lookup is found by it.

mod deferred;
mod directory;
mod geometry;
mod leaf;
mod memory;
pub mod prefetch;
mod restore;
mod scan;
mod snapshot;
mod writer;

#[cfg(all(test, not(loom)))]
mod tests;

use std::{fmt, sync::Arc};

pub use self::{
    deferred::Source,
    memory::LeafMemory,
    restore::{LeafByLeaf, Restore},
    snapshot::Snapshot,
    writer::{Entry, KeydirWriter},
};
use self::{
    directory::Root,
    geometry::{first_hash, place, range_at, stored},
    leaf::OwnedLeaf,
    snapshot::Snapshots,
};
use crate::{
    apart::Apart,
    location::Location,
    reclaim::{Guard, Reclaim},
    sync::{AtomicU64, Ordering},
};

/// The readers' side of a keydir.
pub struct Keydir {
    reclaim: Arc<Reclaim>,
    memory: Arc<LeafMemory>,
    root: Root,
    snapshots: Snapshots,
    counts: Apart<Counts>,
}

/// Stored by the writer.
#[derive(Debug, Default)]
struct Counts {
    /// Entries.
    len: AtomicU64,
    /// Bytes of the current directory and leaves.
    memory_bytes: AtomicU64,
}

/// An empty keydir.
#[must_use]
pub fn keydir(reclaim: Arc<Reclaim>, memory: Arc<LeafMemory>) -> (KeydirWriter, Arc<Keydir>) {
    let leaf = OwnedLeaf::new(&memory, 0, 0, FIRST_GENERATION);
    let writer = of_leaves(reclaim, memory, 0, vec![leaf]);
    let keydir = Arc::clone(writer.shared());
    (writer, keydir)
}

/// A table of these leaves, which cover all places in order, none of them deeper than `depth`.
fn of_leaves(
    reclaim: Arc<Reclaim>,
    memory: Arc<LeafMemory>,
    depth: u32,
    leaves: Vec<OwnedLeaf>,
) -> KeydirWriter {
    let (count, mut deferred, mut len) = (leaves.len(), 0, 0);
    let mut bytes = (size_of::<u64>() << depth) as u64;
    for leaf in &leaves {
        deferred += usize::from(leaf.is_deferred());
        len += leaf.leaf().count() as u64;
        bytes += leaf.bytes();
    }
    let keydir = Keydir {
        reclaim,
        memory,
        root: Root::new(depth, leaves.into_iter()),
        snapshots: Snapshots::new(),
        counts: Apart(Counts { len: AtomicU64::new(len), memory_bytes: AtomicU64::new(bytes) }),
    };
    KeydirWriter::new(Arc::new(keydir), FIRST_GENERATION, count, deferred)
}

/// Generation 0 means "no snapshot".
const FIRST_GENERATION: u64 = 1;

impl Keydir {
    /// The locations of the entries with this hash.
    ///
    /// They may be records of other keys, and, in a race with the writer, one that was replaced a
    /// moment ago.
    ///
    /// # Panics
    /// If the guard is of another [`Reclaim`].
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
    pub fn candidates<'a>(
        &'a self,
        guard: &'a Guard<'_>,
        hash: u32,
    ) -> impl Iterator<Item = Location> + use<'a> {
        let hash = stored(hash);
        let leaf = self.root.leaf(&self.reclaim, guard, place(hash));
        leaf.candidates(hash).map(|(_, location)| location)
    }

    /// The location of the entry with this hash that `is_match` accepts: it compares the key of the
    /// record at the location.
    ///
    /// # Panics
    /// If the guard is of another [`Reclaim`].
    #[inline]
    pub fn find(
        &self,
        guard: &Guard<'_>,
        hash: u32,
        mut is_match: impl FnMut(Location) -> bool,
    ) -> Option<Location> {
        self.candidates(guard, hash).find(|&location| is_match(location))
    }

    /// Asks for the memory that a lookup of `hash` will read. Waits only for the directory.
    ///
    /// # Panics
    /// If the guard is of another [`Reclaim`].
    #[inline]
    pub fn prefetch(&self, guard: &Guard<'_>, hash: u32) {
        let hash = stored(hash);
        self.root.leaf(&self.reclaim, guard, place(hash)).prefetch(hash);
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.counts.len.load(Ordering::Relaxed)
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the table as it is now, without what snapshots hold of older states. Leaves that
    /// are still to be made count as if they were.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.counts.memory_bytes.load(Ordering::Relaxed)
    }

    /// Makes the leaf that stands for `from`, if it is a deferred one, so that the writer, which is to
    /// settle it, has less to do. Answers what it is made of: if that goes with the last leaf that is
    /// settled, it takes a while.
    ///
    /// # Panics
    /// If the guard is of another [`Reclaim`].
    pub fn make_leaf(&self, guard: &Guard<'_>, from: u32) -> Option<Arc<dyn Source>> {
        let leaf = self.root.leaf(&self.reclaim, guard, place(from));
        let source = leaf.as_deferred()?.source()?;
        leaf.made();
        Some(source)
    }

    /// Visits the entries with a hash of at least `from` in the leaf that stands for `from`, in no
    /// order, and answers the first hash of the next leaf, if there is one. Hash 0 is visited as 1.
    ///
    /// Going on from the answer until there is none visits every entry that is there all the while
    /// once; one that is set or removed meanwhile may be visited or not, and one that is replaced is
    /// visited with its old or its new location.
    ///
    /// # Panics
    /// If the guard is of another [`Reclaim`].
    pub fn visit_leaf(
        &self,
        guard: &Guard<'_>,
        from: u32,
        f: &mut dyn FnMut(u32, Location),
    ) -> Option<u32> {
        let leaf = self.root.leaf(&self.reclaim, guard, place(from)).made();
        leaf.for_each(|hash, location| {
            if hash >= from {
                f(hash, location);
            }
        });
        first_hash(range_at(leaf.depth(), place(from)).end)
    }
}

impl fmt::Debug for Keydir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keydir")
            .field("len", &self.len())
            .field("memory_bytes", &self.memory_bytes())
            .finish_non_exhaustive()
    }
}
