//! A table made of the leaves that one had: each is filled at once, which is much quicker than
//! inserting.

use std::sync::Arc;

use crate::{
    keydir::{
        FIRST_GENERATION, KeydirWriter,
        geometry::{class_for_expected, depth_of, first_hash, place_before},
        leaf::OwnedLeaf,
        of_leaves,
    },
    location::Location,
    reclaim::Reclaim,
};

/// Directory entries for each leaf, at most: no forged leaves make a directory that is all there is.
const PLACES_PER_LEAF: usize = 64;

/// The leaves so far, in the order of their ranges.
#[derive(Debug, Default)]
pub struct Restore {
    leaves: Vec<OwnedLeaf>,
    /// Where the next range begins.
    end: u64,
    /// Scratch for filling leaves.
    filled: Vec<u8>,
}

impl Restore {
    /// Adds the leaf of the hashes from where the last one ended up to `end`, or of all that are
    /// left. The entries' hashes lie in this range and are not 0. False if no leaf has it.
    #[must_use]
    pub fn push(&mut self, end: Option<u32>, entries: &[(u32, Location)]) -> bool {
        let start = std::mem::replace(&mut self.end, end.map_or(1 << 32, place_before));
        if end.is_some() && first_hash(self.end) != end {
            return false;
        }
        let Some(depth) = depth_of(start..self.end) else { return false };
        let class = class_for_expected(entries.len() as u64);
        let leaf = OwnedLeaf::new(class, depth, FIRST_GENERATION);
        leaf.leaf().fill(entries.iter().copied(), &mut self.filled);
        self.leaves.push(leaf);
        true
    }

    /// The table, if the leaves cover all hashes.
    #[must_use]
    pub fn finish(self, reclaim: &Arc<Reclaim>) -> Option<KeydirWriter> {
        let depth = self.leaves.iter().map(|leaf| leaf.leaf().depth()).max()?;
        let places_max = self.leaves.len() * PLACES_PER_LEAF;
        if self.end != 1 << 32 || 1_usize.checked_shl(depth)? > places_max {
            return None;
        }
        Some(of_leaves(Arc::clone(reclaim), depth, self.leaves))
    }
}
