//! From many records to the newest of each key.
//!
//! Sequence numbers alone order versions, so segments can be read in any order. Records are told
//! apart by hash bits first; where those are equal, by the stored keys.

use std::cmp::Reverse;
use std::sync::Arc;

use caskade_codec::ids::Seqno;

use super::candidates::{Candidate, for_each_part};
use crate::keydir::{KeydirWriter, LeafByLeaf, LeafMemory};
use crate::location::Location;
use crate::reclaim::{Guard, Reclaim};
use crate::segment_table::SegmentTable;

/// The records of all of a shard's segments that its snapshot does not cover.
pub(super) struct Fold<'a> {
    /// Of each segment, [arranged](super::candidates::arrange).
    pub(super) candidates: Vec<Vec<Candidate>>,
    pub(super) segments: &'a SegmentTable,
    pub(super) reclaim: &'a Arc<Reclaim>,
    pub(super) memory: &'a Arc<LeafMemory>,
}

impl Fold<'_> {
    /// The keydir of these records alone; counts what lives.
    pub(super) fn fill(&self) -> KeydirWriter {
        let mut keydir = LeafByLeaf::for_entries(Arc::clone(self.memory), self.records());
        self.for_each_newest(|candidate, guard| {
            if candidate.is_put() {
                self.comes_to_life(candidate, guard);
                keydir.push(candidate.hash, candidate.location);
            }
        });
        keydir.finish(self.reclaim)
    }

    /// Brings `keydir`, which stands as of `covered`, forward by these records, and counts what lives.
    pub(super) fn bring_forward(&self, keydir: KeydirWriter, covered: Seqno) -> KeydirWriter {
        let mut keydir = self.made_ready(keydir);
        if self.records() > keydir.leaves() as u64 {
            // Most are about to be looked into, under a guard, which lets nothing go.
            keydir.settle_all();
        }
        self.for_each_newest(|candidate, guard| self.apply(&mut keydir, candidate, covered, guard));
        keydir
    }

    fn records(&self) -> u64 {
        self.candidates.iter().map(Vec::len).sum::<usize>() as u64
    }

    /// The table with leaves for all that may be added. Entries come in the order of their hashes, and
    /// a leaf that is filled from its begin on can't be split in halves.
    fn made_ready(&self, keydir: KeydirWriter) -> KeydirWriter {
        let records = self.records();
        if records <= keydir.shared().len() {
            return keydir;
        }
        let entries = keydir.shared().len() + records;
        let mut wider = LeafByLeaf::for_entries(Arc::clone(self.memory), entries);
        let (mut entries, mut next) = (Vec::new(), Some(0));
        while let Some(from) = next {
            let guard = self.reclaim.enter();
            let mut take = |hash, location| entries.push((hash, location));
            next = keydir.shared().visit_leaf(&guard, from, &mut take);
            entries.sort_unstable_by_key(|&(hash, _)| hash);
            for (hash, location) in entries.drain(..) {
                wider.push(hash, location);
            }
        }
        wider.finish(self.reclaim)
    }

    /// Calls `f` for the newest record of each key, in the order of their hashes. A guard is held for
    /// a part of them only: what is replaced meanwhile can be freed.
    fn for_each_newest(&self, mut f: impl FnMut(&Candidate, &Guard<'_>)) {
        let (mut order, mut versions, mut newest) = (Vec::new(), Vec::new(), Vec::new());
        for_each_part(&self.candidates, |part| {
            let guard = self.reclaim.enter();
            // Words are sorted quicker than candidates.
            let word = |(at, found): (usize, &Candidate)| u64::from(found.hash) << 32 | at as u64;
            order.clear();
            order.extend(part.iter().enumerate().map(word));
            order.sort_unstable();
            for group in order.chunk_by(|a, b| a >> 32 == b >> 32) {
                let at = |word: &u64| part[*word as u32 as usize];
                if let [only] = group {
                    f(&at(only), &guard);
                    continue;
                }
                versions.clear();
                versions.extend(group.iter().map(at));
                versions.sort_unstable_by_key(|candidate| Reverse(candidate.seqno()));
                if planted!("newest-by-file") {
                    let id = |c: &Candidate| {
                        self.segments.get(c.location.slot(), &guard).map(|segment| segment.id)
                    };
                    versions.sort_by_key(|candidate| Reverse(id(candidate)));
                }
                newest.clear();
                for candidate in &versions {
                    // From new to old: a key that was seen has its newest record already. One that
                    // cannot be read counts as seen: better an error for its key than an older value.
                    let is_seen = |newer: &Candidate| {
                        let is_same = self.is_same_key(newer.location, candidate.location, &guard);
                        is_same.unwrap_or(!planted!("damage-uncovers"))
                    };
                    if !newest.iter().any(is_seen) {
                        newest.push(*candidate);
                    }
                }
                for candidate in &newest {
                    f(candidate, &guard);
                }
            }
        });
    }

    fn apply(
        &self,
        keydir: &mut KeydirWriter,
        candidate: &Candidate,
        covered: Seqno,
        guard: &Guard<'_>,
    ) {
        if candidate.seqno() <= covered {
            // The snapshot knows this record, or a newer one of the key. If the record was moved by a
            // merge, the snapshot's own entry was left out with the segment it came from.
            if candidate.is_put() {
                self.comes_to_life(candidate, guard);
                keydir.insert_unique(candidate.hash, candidate.location);
            }
            return;
        }
        let compare = |location| self.is_same_key(candidate.location, location, guard);
        let entry = keydir.entry(candidate.hash, |location| compare(location) == Some(true));
        // One that cannot be read, with the key's hash bits, may be the key's: the change takes its place.
        let entry =
            entry.or(|location| compare(location).is_none() && !planted!("damage-uncovers"));
        if let Some(location) = entry.current()
            && let Some(segment) = self.segments.get(location.slot(), guard)
        {
            let about = location.len_about() as u64;
            let dead = segment.frame(location.offset()).map_or(about, |f| f.bytes.len() as u64);
            segment.usage.remove(dead);
        }
        if candidate.is_put() {
            self.comes_to_life(candidate, guard);
            entry.set(candidate.location);
        } else {
            entry.remove();
        }
    }

    #[inline]
    fn comes_to_life(&self, candidate: &Candidate, guard: &Guard<'_>) {
        if let Some(segment) = self.segments.get(candidate.location.slot(), guard) {
            segment.usage.add(u64::from(candidate.len));
        }
    }

    /// Whether two records with the same hash bits have the same key, unless one cannot be read.
    fn is_same_key(&self, a: Location, b: Location, guard: &Guard<'_>) -> Option<bool> {
        let frame = |at: Location| self.segments.get(at.slot(), guard)?.frame(at.offset()).ok();
        let (a, b) = (frame(a)?, frame(b)?);
        if a.key() == b.key() {
            return Some(true);
        }
        (a.is_intact() && b.is_intact()).then_some(false)
    }
}
