//! From many records to the newest of each key.
//!
//! Sequence numbers alone order versions, so segments can be read in any order. Records are told
//! apart by hash bits first; where those are equal, by the stored keys.

use std::cmp::Reverse;
use std::sync::Arc;

use caskade_codec::ids::Seqno;

use super::candidates::{Candidate, for_each_part};
use crate::keydir::{InOrder, KeydirWriter};
use crate::location::Location;
use crate::reclaim::{Guard, Reclaim};
use crate::segment_table::SegmentTable;

/// The keydir of all these records, and counts what lives.
pub(super) fn fill(
    candidates: &[Vec<Candidate>],
    segments: &SegmentTable,
    reclaim: &Arc<Reclaim>,
    guard: &Guard<'_>,
) -> KeydirWriter {
    let records = candidates.iter().map(Vec::len).sum::<usize>();
    let mut keydir = InOrder::for_entries(records as u64);
    for_each_newest(candidates, segments, guard, |candidate| {
        if candidate.is_put() {
            candidate.comes_to_life(segments, guard);
            keydir.push(candidate.hash, candidate.location);
        }
    });
    keydir.finish(reclaim)
}

/// Brings `keydir`, which stands as of `covered`, forward by these records, and counts what lives.
pub(super) fn bring_forward(
    keydir: &mut KeydirWriter,
    candidates: &[Vec<Candidate>],
    covered: Seqno,
    segments: &SegmentTable,
    guard: &Guard<'_>,
) {
    for_each_newest(candidates, segments, guard, |candidate| {
        apply(keydir, candidate, covered, segments, guard);
    });
}

/// Calls `f` for the newest record of each key, in the order of their hashes.
fn for_each_newest(
    candidates: &[Vec<Candidate>],
    segments: &SegmentTable,
    guard: &Guard<'_>,
    mut f: impl FnMut(&Candidate),
) {
    let (mut order, mut versions, mut newest) = (Vec::new(), Vec::new(), Vec::new());
    for_each_part(candidates, |part| {
        // Words are sorted quicker than candidates.
        let word = |(at, found): (usize, &Candidate)| u64::from(found.hash) << 32 | at as u64;
        order.clear();
        order.extend(part.iter().enumerate().map(word));
        order.sort_unstable();
        for group in order.chunk_by(|a, b| a >> 32 == b >> 32) {
            let at = |word: &u64| part[*word as u32 as usize];
            if let [only] = group {
                f(&at(only));
                continue;
            }
            versions.clear();
            versions.extend(group.iter().map(at));
            versions.sort_unstable_by_key(|candidate| Reverse(candidate.seqno()));
            if planted!("newest-by-file") {
                let id = |c: &Candidate| segments.get(c.location.slot(), guard).map(|it| it.id);
                versions.sort_by_key(|candidate| Reverse(id(candidate)));
            }
            newest.clear();
            for candidate in &versions {
                // From new to old: a key that was seen has its newest record already.
                let is_same = |newer: &Candidate| {
                    is_same_key(newer.location, candidate.location, segments, guard)
                };
                if !newest.iter().any(is_same) {
                    newest.push(*candidate);
                }
            }
            newest.iter().for_each(&mut f);
        }
    });
}

impl Candidate {
    fn comes_to_life(&self, segments: &SegmentTable, guard: &Guard<'_>) {
        if let Some(segment) = segments.get(self.location.slot(), guard) {
            segment.usage.add(u64::from(self.len));
        }
    }
}

fn apply(
    keydir: &mut KeydirWriter,
    candidate: &Candidate,
    covered: Seqno,
    segments: &SegmentTable,
    guard: &Guard<'_>,
) {
    if candidate.seqno() <= covered {
        // The snapshot knows this record, or a newer one of the key. If the record was moved by a
        // merge, the snapshot's own entry was left out with the segment it came from.
        if candidate.is_put() {
            candidate.comes_to_life(segments, guard);
            keydir.insert_unique(candidate.hash, candidate.location);
        }
        return;
    }
    let mut replaced = None;
    let entry = keydir.entry(candidate.hash, |location| {
        let is_same = is_same_key(candidate.location, location, segments, guard);
        if is_same {
            replaced = Some(location);
        }
        is_same
    });
    if let Some(location) = replaced
        && let Some(segment) = segments.get(location.slot(), guard)
    {
        let about = location.len_about() as u64;
        let dead = segment.frame(location.offset()).map_or(about, |f| f.bytes.len() as u64);
        segment.usage.remove(dead);
    }
    if candidate.is_put() {
        candidate.comes_to_life(segments, guard);
        entry.set(candidate.location);
    } else {
        entry.remove();
    }
}

/// Whether two records with the same hash bits have the same key.
///
/// A record that cannot be read counts as the same: better an error for its key than an older value.
fn is_same_key(a: Location, b: Location, segments: &SegmentTable, guard: &Guard<'_>) -> bool {
    let frame = |at: Location| segments.get(at.slot(), guard)?.frame(at.offset()).ok();
    match (frame(a), frame(b)) {
        (Some(a), Some(b)) => a.key() == b.key() || !a.is_intact() || !b.is_intact(),
        _ => !planted!("damage-uncovers"),
    }
}
