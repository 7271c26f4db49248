//! A table made of the leaves that one had: each is filled at once, which is much quicker than
//! inserting.

use std::sync::Arc;

use crate::{
    apart::Apart,
    keydir::{
        Counts, FIRST_GENERATION, Keydir, KeydirWriter,
        directory::Root,
        geometry::{class_for_expected, depth_of, first_hash, place_before},
        leaf::OwnedLeaf,
        snapshot::Snapshots,
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
    len: u64,
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
        self.len += entries.len() as u64;
        true
    }

    /// The table, if the leaves cover all hashes.
    #[must_use]
    pub fn finish(self, reclaim: &Arc<Reclaim>) -> Option<KeydirWriter> {
        let depth = self.leaves.iter().map(|leaf| leaf.leaf().depth()).max()?;
        let count = self.leaves.len();
        if self.end != 1 << 32 || 1_usize.checked_shl(depth)? > count * PLACES_PER_LEAF {
            return None;
        }
        let bytes: u64 = self.leaves.iter().map(|leaf| leaf.leaf().bytes()).sum();
        let directory_bytes = (size_of::<u64>() << depth) as u64;
        let keydir = Arc::new(Keydir {
            reclaim: Arc::clone(reclaim),
            root: Root::new(depth, self.leaves.into_iter()),
            snapshots: Snapshots::new(),
            counts: Apart(Counts {
                len: self.len.into(),
                memory_bytes: (bytes + directory_bytes).into(),
            }),
        });
        Some(KeydirWriter::new(keydir, FIRST_GENERATION, count))
    }
}
