//! From many records to the newest of each key.
//!
//! Sequence numbers alone order versions, so segments can be read in any order. Records are told
//! apart by hash bits first; where those are equal, by the stored keys.

use std::cmp::Reverse;

use caskade_codec::ids::Seqno;

use super::Candidate;
use crate::keydir::KeydirWriter;
use crate::reclaim::Guard;
use crate::segment_table::SegmentTable;

/// Brings `keydir`, which stands as of `covered`, forward by `candidates`, and counts what lives.
pub(super) fn fold(
    keydir: &mut KeydirWriter,
    mut candidates: Vec<Candidate>,
    covered: Option<Seqno>,
    segments: &SegmentTable,
    guard: &Guard<'_>,
) {
    candidates.sort_unstable_by_key(|candidate| (candidate.hash, Reverse(candidate.seqno)));
    if planted!("newest-by-file") {
        let id = |c: &Candidate| segments.get(c.location.slot(), guard).map(|segment| segment.id);
        candidates.sort_by_key(|candidate| (candidate.hash, Reverse(id(candidate))));
    }
    let mut newest = Vec::new();
    for group in candidates.chunk_by(|a, b| a.hash == b.hash) {
        newest.clear();
        for candidate in group {
            // From new to old: a key that was seen has its newest record already.
            if !newest.iter().any(|newer| is_same_key(newer, candidate, segments, guard)) {
                newest.push(*candidate);
            }
        }
        for candidate in &newest {
            apply(keydir, candidate, covered, segments, guard);
        }
    }
}

fn apply(
    keydir: &mut KeydirWriter,
    candidate: &Candidate,
    covered: Option<Seqno>,
    segments: &SegmentTable,
    guard: &Guard<'_>,
) {
    let add = || {
        if let Some(segment) = segments.get(candidate.location.slot(), guard) {
            segment.usage.add(u64::from(candidate.len));
        }
    };
    match covered {
        // The snapshot knows this record, or a newer one of the key. If the record was moved by a
        // merge, the snapshot's own entry was left out with the segment it came from.
        Some(covered) if candidate.seqno <= covered => {
            if candidate.is_put {
                add();
                keydir.insert_unique(candidate.hash, candidate.location);
            }
        }
        None => {
            if candidate.is_put {
                add();
                keydir.insert_unique(candidate.hash, candidate.location);
            }
        }
        Some(_) => {
            let mut replaced = None;
            let entry = keydir.entry(candidate.hash, |location| {
                let older = Candidate { location, ..*candidate };
                let is_same = is_same_key(candidate, &older, segments, guard);
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
            if candidate.is_put {
                add();
                entry.set(candidate.location);
            } else {
                entry.remove();
            }
        }
    }
}

/// Whether two records with the same hash bits have the same key.
///
/// A record that cannot be read counts as the same: better an error for its key than an older value.
fn is_same_key(a: &Candidate, b: &Candidate, segments: &SegmentTable, guard: &Guard<'_>) -> bool {
    let frame = |candidate: &Candidate| {
        segments.get(candidate.location.slot(), guard)?.frame(candidate.location.offset()).ok()
    };
    match (frame(a), frame(b)) {
        (Some(a), Some(b)) => a.key() == b.key() || !a.is_intact() || !b.is_intact(),
        _ => !planted!("damage-uncovers"),
    }
}
