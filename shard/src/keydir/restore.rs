//! A table made of whole leaves: each is filled at once, which is much quicker than inserting, or later,
//! when somebody looks into it.

use std::sync::Arc;

use crate::{
    keydir::{
        FIRST_GENERATION, KeydirWriter, Source,
        deferred::Deferred,
        geometry::{
            class_for_expected, depth_for, depth_of, first_hash, place, place_before, range_at,
            stored,
        },
        leaf::OwnedLeaf,
        memory::LeafMemory,
        of_leaves,
    },
    location::Location,
    reclaim::Reclaim,
};

/// Directory entries for each leaf, at most: no forged leaves make a directory that is all there is.
const PLACES_PER_LEAF: usize = 64;

/// The leaves so far, in the order of their ranges.
#[derive(Debug)]
pub struct Restore {
    memory: Arc<LeafMemory>,
    leaves: Vec<OwnedLeaf>,
    /// Where the next range begins.
    end: u64,
    /// Scratch for filling leaves.
    filled: Vec<u8>,
}

impl Restore {
    /// No leaves yet.
    #[must_use]
    pub fn new(memory: Arc<LeafMemory>) -> Self {
        Self { memory, leaves: Vec::new(), end: 0, filled: Vec::new() }
    }

    /// Adds the leaf of the hashes from where the last one ended up to `end`, or of all that are
    /// left. The entries' hashes lie in this range. False if no leaf has it.
    #[must_use]
    pub fn push(&mut self, end: Option<u32>, entries: &[(u32, Location)]) -> bool {
        let Some(depth) = self.advance(end) else { return false };
        let class = class_for_expected(entries.len() as u64);
        let leaf = OwnedLeaf::new(&self.memory, class, depth, FIRST_GENERATION);
        let entries = entries.iter().map(|&(hash, location)| (stored(hash), location));
        leaf.leaf().fill(entries, &mut self.filled);
        self.leaves.push(leaf);
        true
    }

    /// Adds leaf `index` of `source`, which has `count` entries, without making it yet. Else as
    /// [`Restore::push`].
    #[must_use]
    pub fn defer(
        &mut self,
        end: Option<u32>,
        source: &Arc<dyn Source>,
        index: u32,
        count: u32,
    ) -> bool {
        let Some(depth) = self.advance(end) else { return false };
        let (source, memory) = (Arc::clone(source), Arc::clone(&self.memory));
        let deferred = Deferred::new(source, index, count, memory, depth, FIRST_GENERATION);
        self.leaves.push(OwnedLeaf::deferred(deferred));
        true
    }

    /// Goes on to `end`, and answers the depth of the leaf up to there, if there is one.
    fn advance(&mut self, end: Option<u32>) -> Option<u32> {
        let start = std::mem::replace(&mut self.end, end.map_or(1 << 32, place_before));
        let is_boundary = end.is_none() || first_hash(self.end) == end;
        is_boundary.then(|| depth_of(start..self.end))?
    }

    /// The table, if the leaves cover all hashes.
    #[must_use]
    pub fn finish(self, reclaim: &Arc<Reclaim>) -> Option<KeydirWriter> {
        let depth = self.leaves.iter().map(|leaf| leaf.leaf().depth()).max()?;
        let places_max = self.leaves.len() * PLACES_PER_LEAF;
        if self.end != 1 << 32 || 1_usize.checked_shl(depth)? > places_max {
            return None;
        }
        Some(of_leaves(Arc::clone(reclaim), self.memory, depth, self.leaves))
    }
}

/// A table of entries that come in the order of their hashes.
#[derive(Debug)]
pub struct LeafByLeaf {
    leaves: Restore,
    /// Of all leaves.
    depth: u32,
    /// Where the range of the leaf under way ends, if not at the end.
    end: Option<u32>,
    /// The entries of this leaf so far.
    entries: Vec<(u32, Location)>,
}

impl LeafByLeaf {
    /// For a table of about so many entries.
    #[must_use]
    pub fn for_entries(memory: Arc<LeafMemory>, entries: u64) -> Self {
        let (leaves, depth) = (Restore::new(memory), depth_for(entries));
        let end = first_hash(range_at(depth, 0).end);
        Self { leaves, depth, end, entries: Vec::new() }
    }

    /// Adds an entry for a key that has none. No later one has a lower hash.
    #[inline]
    pub fn push(&mut self, hash: u32, location: Location) {
        debug_assert!(self.entries.last().is_none_or(|last| last.0 <= hash), "in no order");
        while self.end.is_some_and(|end| hash >= end) {
            self.next_leaf();
        }
        self.entries.push((hash, location));
    }

    /// The table.
    #[must_use]
    pub fn finish(mut self, reclaim: &Arc<Reclaim>) -> KeydirWriter {
        while self.end.is_some() {
            self.next_leaf();
        }
        self.next_leaf();
        self.leaves.finish(reclaim).expect("leaves of one depth that cover all hashes are a table")
    }

    fn next_leaf(&mut self) {
        let is_leaf = self.leaves.push(self.end, &self.entries);
        assert!(is_leaf, "every range of this depth has a leaf");
        self.entries.clear();
        self.end = match self.end {
            Some(end) => first_hash(range_at(self.depth, place(end)).end),
            None => None,
        };
    }
}
