//! Changing the table. One writer, so everything here is sequential; what readers see in between is
//! argued in `leaf` and `directory`.
#![expect(unsafe_code, reason = "the writer's view rests on there being one writer")]

use std::{fmt, sync::Arc};

use crate::{
    keydir::{
        Keydir, Snapshot,
        directory::View,
        geometry::{
            class_for, depth_allowed, first_hash, is_oversize, is_sparse, place, range_at, stored,
        },
        leaf::{Leaf, OwnedLeaf, Place},
    },
    location::Location,
    sync::Ordering,
};

/// The one writer of a keydir.
pub struct KeydirWriter {
    keydir: Arc<Keydir>,
    /// Greater than the generation of every snapshot.
    generation: u64,
    /// Leaves in the directory.
    leaves: usize,
    /// Deferred ones among them.
    deferred: usize,
    /// Scratch for rebuilding leaves.
    filled: Vec<u8>,
}

impl KeydirWriter {
    /// The writer of a new keydir; the caller makes no second one.
    pub(super) fn new(
        keydir: Arc<Keydir>,
        generation: u64,
        leaves: usize,
        deferred: usize,
    ) -> Self {
        Self { keydir, generation, leaves, deferred, filled: Vec::new() }
    }

    /// The readers' side.
    #[must_use]
    pub fn shared(&self) -> &Arc<Keydir> {
        &self.keydir
    }

    /// Looks for the entry with this hash that `is_match` accepts, to read, set or remove it.
    #[inline]
    pub fn entry(&mut self, hash: u32, is_match: impl FnMut(Location) -> bool) -> Entry<'_> {
        let hash = stored(hash);
        self.make_way(hash);
        let leaf = self.leaf(hash);
        leaf.prefetch_header();
        let found = leaf.find(hash, is_match);
        Entry { writer: self, hash, found }
    }

    /// The location of the entry with this hash that `is_match` accepts.
    pub fn find(&self, hash: u32, is_match: impl FnMut(Location) -> bool) -> Option<Location> {
        let hash = stored(hash);
        self.leaf(hash).find(hash, is_match).map(|(_, location)| location)
    }

    /// Puts `to` in the place of `from` if an entry of this hash still says `from`.
    pub fn relocate(&mut self, hash: u32, from: Location, to: Location) -> bool {
        let entry = self.entry(hash, |location| location == from);
        let is_there = entry.current().is_some();
        if is_there {
            entry.set(to);
        }
        is_there
    }

    /// Adds an entry for a key that is known to have none.
    pub fn insert_unique(&mut self, hash: u32, location: Location) {
        let hash = stored(hash);
        self.make_way(hash);
        self.insert(hash, location);
    }

    /// What is changed stands in a place of its own.
    #[inline]
    fn make_way(&mut self, hash: u32) {
        if self.deferred > 0 {
            self.settle_leaf(hash);
        }
    }

    #[cold]
    fn settle_leaf(&mut self, hash: u32) {
        if let Some(made) = self.view().take_deferred(place(hash)) {
            self.publish(hash, made);
        }
    }

    /// Whether there is no deferred leaf any more.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.deferred == 0
    }

    /// Puts the leaf that stands for `from` in a place of its own, if it was deferred, and answers the
    /// first hash of the next leaf, if there is one.
    pub fn settle(&mut self, from: u32) -> Option<u32> {
        self.settle_leaf(from);
        first_hash(range_at(self.leaf(from).depth(), place(from)).end)
    }

    /// Makes all leaves, for a table that nobody else uses yet.
    pub fn settle_all(&mut self) {
        let mut next = Some(0).filter(|_| self.deferred > 0);
        while let Some(from) = next {
            next = self.settle(from);
        }
    }

    /// How many leaves there are.
    #[must_use]
    pub fn leaves(&self) -> usize {
        self.leaves
    }

    /// The table as it is now. Costs a copy of the directory.
    pub fn snapshot(&mut self) -> Snapshot {
        let mut leaves = Vec::with_capacity(self.leaves);
        leaves.extend(self.view().words());
        debug_assert_eq!(leaves.len(), self.leaves);
        let snapshot =
            Snapshot::new(Arc::clone(&self.keydir), self.generation, leaves.into_boxed_slice());
        self.generation += 1;
        snapshot
    }

    #[inline]
    fn view(&self) -> View<'_> {
        // SAFETY: There is one writer, this one, and replacing anything takes `&mut self`.
        unsafe { self.keydir.root.writer() }
    }

    #[inline]
    fn leaf(&self, hash: u32) -> Leaf<'_> {
        self.view().leaf(place(hash))
    }

    #[inline]
    fn insert(&mut self, hash: u32, location: Location) {
        loop {
            let leaf = self.leaf(hash);
            if !self.keydir.snapshots.may_see(leaf)
                && let Some(at) = leaf.vacancy(hash)
            {
                leaf.insert(at, hash, location);
                break;
            }
            // One entry more has room in what this makes of the leaf.
            self.rebuild(hash);
        }
        self.add_len(1);
    }

    /// The place of a full slot in a leaf that no snapshot sees.
    #[inline]
    fn own(&mut self, hash: u32, at: Place, location: Location) -> Place {
        if !self.keydir.snapshots.may_see(self.leaf(hash)) {
            return at;
        }
        self.rebuild(hash);
        let found = self.leaf(hash).find(hash, |candidate| candidate == location);
        found.expect("a rebuild keeps every entry").0
    }

    #[inline]
    fn add_len(&self, by: i64) {
        let len = &self.keydir.counts.len;
        len.store(len.load(Ordering::Relaxed).wrapping_add_signed(by), Ordering::Relaxed);
    }

    fn add_bytes(&self, by: u64, less: u64) {
        let bytes = &self.keydir.counts.memory_bytes;
        bytes.store(bytes.load(Ordering::Relaxed) + by - less, Ordering::Relaxed);
    }

    /// Replaces the leaf of `hash` by one or two that no snapshot sees and that have room.
    #[cold]
    fn rebuild(&mut self, hash: u32) {
        let leaf = self.leaf(hash);
        let class = class_for(leaf.count() + 1);
        if is_oversize(class) && self.split(hash) {
            return;
        }
        let mut filled = std::mem::take(&mut self.filled);
        let leaf = self.leaf(hash);
        let new = OwnedLeaf::new(&self.keydir.memory, class, leaf.depth(), self.generation);
        new.leaf().fill(leaf.entries(), &mut filled);
        self.filled = filled;
        self.publish(hash, new);
    }

    /// Replaces the leaf of `hash` by two, if that separates its entries and the directory may be
    /// deep enough.
    fn split(&mut self, hash: u32) -> bool {
        let leaf = self.leaf(hash);
        let (depth, count) = (leaf.depth() + 1, leaf.count());
        if !depth_allowed(depth, self.keydir.len()) {
            return false;
        }
        let range = range_at(depth - 1, place(hash));
        let Some(boundary) = first_hash(u64::midpoint(range.start, range.end)) else {
            return false;
        };
        let low = leaf.entries().filter(|&(hash, _)| hash < boundary).count();
        if low.min(count - low) * 16 < count {
            return false;
        }
        if depth > self.view().depth() {
            let before = self.view().bytes();
            // SAFETY: This is the writer, and no view is borrowed.
            unsafe { self.keydir.root.double(&self.keydir.reclaim) };
            self.add_bytes(self.view().bytes(), before);
        }
        let mut filled = std::mem::take(&mut self.filled);
        let leaf = self.leaf(hash);
        let halves = [(low, true), (count - low, false)].map(|(entries, is_low)| {
            let class = class_for(entries + 1);
            let new = OwnedLeaf::new(&self.keydir.memory, class, depth, self.generation);
            let half = leaf.entries().filter(|&(hash, _)| (hash < boundary) == is_low);
            new.leaf().fill(half, &mut filled);
            new
        });
        self.filled = filled;
        self.publish_halves(boundary, halves);
        true
    }

    /// Puts `new` in the place of the leaf of `hash`, and gives that up.
    fn publish(&mut self, hash: u32, new: OwnedLeaf) {
        let bytes = new.bytes();
        let old = self.view().publish(place(hash), new);
        self.add_bytes(bytes, 0);
        self.discard(old);
    }

    /// Puts the two in the place of the one that both were made of, and gives that up.
    fn publish_halves(&mut self, boundary: u32, [low, high]: [OwnedLeaf; 2]) {
        let bytes = low.bytes() + high.bytes();
        let old = self.view().publish(place(boundary - 1), low);
        let same = self.view().publish(place(boundary), high);
        debug_assert_eq!(old, same);
        self.leaves += 1;
        self.add_bytes(bytes, 0);
        self.discard(old);
    }

    fn discard(&mut self, old: super::leaf::Word) {
        // SAFETY: The word was in the directory and is no longer: the writer takes it back once.
        let old = unsafe { OwnedLeaf::from_word(old) };
        self.deferred -= usize::from(old.is_deferred());
        self.add_bytes(0, old.bytes());
        self.keydir.snapshots.discard(old, self.generation, &self.keydir.reclaim);
    }
}

impl fmt::Debug for KeydirWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeydirWriter")
            .field("keydir", &self.keydir)
            .field("leaves", &self.leaves)
            .finish_non_exhaustive()
    }
}

/// One key's entry, or the lack of it, and the right to change it.
pub struct Entry<'a> {
    writer: &'a mut KeydirWriter,
    hash: u32,
    found: Option<(Place, Location)>,
}

impl Entry<'_> {
    /// If there is none yet: the one with the same hash that `is_match` accepts.
    #[must_use]
    pub fn or(self, is_match: impl FnMut(Location) -> bool) -> Self {
        let Self { writer, hash, found } = self;
        let found = found.or_else(|| writer.leaf(hash).find(hash, is_match));
        Self { writer, hash, found }
    }

    /// The key's location, if it has one.
    #[must_use]
    #[inline]
    pub fn current(&self) -> Option<Location> {
        self.found.map(|(_, location)| location)
    }

    /// Gives the key this location.
    #[inline]
    pub fn set(self, to: Location) {
        let Self { writer, hash, found } = self;
        match found {
            Some((at, from)) => {
                let at = writer.own(hash, at, from);
                writer.leaf(hash).replace(at, to);
            }
            None => writer.insert(hash, to),
        }
    }

    /// Takes the key out of the table, if it is there.
    pub fn remove(self) {
        let Self { writer, hash, found } = self;
        let Some((at, from)) = found else { return };
        let at = writer.own(hash, at, from);
        let leaf = writer.leaf(hash);
        leaf.remove(at);
        let is_sparse = is_sparse(leaf.class(), leaf.count());
        writer.add_len(-1);
        if is_sparse {
            writer.rebuild(hash);
        }
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("hash", &self.hash)
            .field("current", &self.current())
            .finish_non_exhaustive()
    }
}
