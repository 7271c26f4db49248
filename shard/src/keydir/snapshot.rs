//! Snapshots: the directory of a moment, whose leaves stay as they were.
//!
//! # Invariants
//! 1. Each snapshot has a generation, and the writer's generation is greater than those of all
//!    snapshots. A leaf's `born` is the writer's generation when it was made, or deferred.
//! 2. A leaf in the directory is seen by a live snapshot if and only if `born` is at most the
//!    snapshot's generation. The writer replaces such a leaf instead of changing it.
//! 3. A leaf that was unlinked is seen by the live snapshots from `born` on and before `died`, the
//!    writer's generation then. It is held until there is none of them, then retired.
#![expect(unsafe_code, reason = "a snapshot keeps leaves alive that it does not own")]

use std::{fmt, sync::Arc};

use crate::{
    keydir::{
        Keydir,
        geometry::first_hash,
        leaf::{Leaf, OwnedLeaf, Word},
    },
    location::Location,
    reclaim::Reclaim,
    sync::{AtomicU64, Mutex, Ordering, lock},
};

/// The live snapshots of a keydir, and what is held for them.
pub(super) struct Snapshots {
    state: Mutex<State>,
    /// The greatest generation of a live snapshot, or 0. Raised by the writer alone, so that the
    /// writer never misses a snapshot; others lower it.
    newest: AtomicU64,
}

struct State {
    live: Vec<u64>,
    held: Vec<Held>,
}

/// A leaf that was unlinked while a snapshot saw it.
struct Held {
    leaf: OwnedLeaf,
    died: u64,
}

impl State {
    fn is_seen(&self, born: u64, died: u64) -> bool {
        self.live.iter().any(|snapshot| (born..died).contains(snapshot))
    }

    fn newest(&self) -> u64 {
        self.live.iter().copied().max().unwrap_or(0)
    }
}

impl Snapshots {
    pub(super) fn new() -> Self {
        let state = State { live: Vec::new(), held: Vec::new() };
        Self { state: Mutex::new(state), newest: AtomicU64::new(0) }
    }

    /// Whether a snapshot may see a leaf of the directory. For the writer alone.
    #[inline]
    pub(super) fn may_see(&self, leaf: Leaf<'_>) -> bool {
        // Acquire: if the last snapshot was just dropped, its reads are over before a change.
        self.newest.load(Ordering::Acquire) >= leaf.born()
    }

    /// Gives up a leaf that was unlinked in generation `died`. For the writer alone.
    pub(super) fn discard(&self, leaf: OwnedLeaf, died: u64, reclaim: &Reclaim) {
        if self.may_see(leaf.leaf()) {
            let mut state = lock(&self.state);
            if state.is_seen(leaf.leaf().born(), died) {
                state.held.push(Held { leaf, died });
                return;
            }
        }
        reclaim.retire(Box::new(leaf));
    }

    fn add(&self, generation: u64) {
        let mut state = lock(&self.state);
        state.live.push(generation);
        self.newest.store(state.newest(), Ordering::Release);
    }

    fn remove(&self, generation: u64, reclaim: &Reclaim) {
        let freed: Vec<Held> = {
            let mut state = lock(&self.state);
            state.live.retain(|&live| live != generation);
            // Release: this snapshot's reads come before any change of the leaves that it saw.
            self.newest.store(state.newest(), Ordering::Release);
            let held = std::mem::take(&mut state.held);
            let (seen, unseen) = held
                .into_iter()
                .partition(|held| state.is_seen(held.leaf.leaf().born(), held.died));
            state.held = seen;
            unseen
        };
        if !freed.is_empty() {
            // A reader of the table may still be in one of them.
            reclaim.retire(Box::new(freed));
            reclaim.collect();
        }
    }

    /// How many leaves are held.
    #[cfg(all(test, not(loom)))]
    pub(super) fn held(&self) -> usize {
        lock(&self.state).held.len()
    }
}

/// A keydir as it was at one moment.
///
/// Taking one copies the directory, no leaf. A leaf that changes afterwards is copied first and its
/// old form held, until no snapshot that sees it is left. The table outlives its snapshots.
pub struct Snapshot {
    keydir: Arc<Keydir>,
    generation: u64,
    len: u64,
    /// Each leaf's first place and word.
    leaves: Box<[(u32, Word)]>,
}

// SAFETY: The words are pointers to leaves that live as long as the snapshot (invariant 3, and the
// snapshot shares in the table) and that nobody changes meanwhile; all else is `Send`.
unsafe impl Send for Snapshot {}
// SAFETY: As for `Send`: a shared snapshot gives reads of unchanging leaves alone.
unsafe impl Sync for Snapshot {}

impl Snapshot {
    /// Registers a snapshot of these leaves. The writer then raises its generation.
    pub(super) fn new(keydir: Arc<Keydir>, generation: u64, leaves: Box<[(u32, Word)]>) -> Self {
        keydir.snapshots.add(generation);
        let len = keydir.len();
        Self { keydir, generation, len, leaves }
    }

    /// How many leaves there are; at least one.
    #[must_use]
    pub fn leaves(&self) -> usize {
        self.leaves.len()
    }

    /// How many entries there are in all leaves.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts the entries of a leaf, in no order, in place of what `entries` held, and answers the
    /// first hash of the leaf's range. Ranges rise with the index. Hash 0 appears as 1.
    ///
    /// # Panics
    /// If there is no leaf of this index.
    pub fn leaf(&self, index: usize, entries: &mut Vec<(u32, Location)>) -> u32 {
        let (place, word) = self.leaves[index];
        // SAFETY: The leaf was in the directory when the snapshot was taken. It is there still, or
        // held while a snapshot that sees it lives, as this one does; and the table, which drops
        // what is in the directory and what is held, lives.
        let leaf = unsafe { Leaf::new(word) }.made();
        entries.clear();
        entries.reserve(leaf.count());
        leaf.for_each(|hash, location| entries.push((hash, location)));
        first_hash(u64::from(place)).unwrap_or(u32::MAX)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.keydir.snapshots.remove(self.generation, &self.keydir.reclaim);
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("len", &self.len)
            .field("leaves", &self.leaves.len())
            .finish_non_exhaustive()
    }
}
