//! Sizes and places: pure arithmetic on hashes.
//!
//! # Invariants
//! 1. [`place`] never falls as the hash rises, so leaves by place are leaves by hash range.
//! 2. A leaf holds at most [`used_max`] lanes that were ever used.

use std::ops::Range;

/// Slots of a bucket. Sixteen 32-bit hashes are one cache line.
#[cfg(not(loom))]
pub(super) const SLOTS: usize = 16;
#[cfg(loom)]
pub(super) const SLOTS: usize = 2;

/// A leaf that needs more buckets than this is split, if that separates its entries.
#[cfg(not(loom))]
const SPLIT_BUCKETS: usize = 64;
#[cfg(loom)]
const SPLIT_BUCKETS: usize = 1;

/// A directory of this depth is always allowed; a deeper one only for very many entries.
const DEPTH_FREE: u32 = 6;
/// The least number of entries a directory entry must stand for beyond that.
const ENTRIES_PER_PLACE: u64 = 64;

/// As many sizes of leaves as six bits can name.
pub(super) const CLASSES: usize = 64;

/// The class of leaves that are still to be made, whatever their size. They have one bucket meanwhile.
pub(super) const DEFERRED: usize = CLASSES - 1;

/// Buckets of a leaf, by class: an eighth more each up to the size that is split, then a half more.
pub(super) const BUCKETS: [u32; CLASSES] = {
    let mut buckets = [1_u32; CLASSES];
    let mut class = 1;
    while class < DEFERRED {
        let last = buckets[class - 1];
        let step = if last < 64 { last / 8 } else { last / 2 };
        buckets[class] = last + if step == 0 { 1 } else { step };
        class += 1;
    }
    buckets
};

/// Slots of a leaf of this class.
pub(super) fn slots(class: usize) -> usize {
    BUCKETS[class] as usize * SLOTS
}

/// How many lanes of a leaf of `slots` slots may be in use before it is rebuilt.
pub(super) fn used_max(slots: usize) -> usize {
    slots - slots / 10
}

/// The class to build a leaf of `entries` in, so that it can take a good number more.
pub(super) fn class_for(entries: usize) -> usize {
    // Filled to 3/4 at most.
    (0..DEFERRED).find(|&class| slots(class) * 3 / 4 >= entries).expect("a leaf of 100M buckets")
}

/// The class to build a leaf in that will hold about `entries`, more or less as chance has it.
pub(super) fn class_for_expected(entries: u64) -> usize {
    let entries = entries as usize;
    // Three standard deviations more, in a leaf that takes them all.
    let most = entries + 3 * entries.isqrt();
    (0..DEFERRED).find(|&class| used_max(slots(class)) >= most).expect("a leaf of 100M buckets")
}

/// Whether a leaf of this class is better split.
pub(super) fn is_oversize(class: usize) -> bool {
    BUCKETS[class] as usize > SPLIT_BUCKETS
}

/// Whether a leaf of this class that shrank to `entries` is worth a rebuild.
pub(super) fn is_sparse(class: usize, entries: usize) -> bool {
    class > 0 && entries * 3 < slots(class)
}

/// Whether a directory may be this deep for a table of `entries`.
pub(super) fn depth_allowed(depth: u32, entries: u64) -> bool {
    depth <= DEPTH_FREE || (depth <= 32 && (1 << depth) <= entries / ENTRIES_PER_PLACE)
}

/// The depth of a directory for `entries`.
pub(super) fn depth_for(entries: u64) -> u32 {
    // The fullest leaves hold one and a half times the mean; see `place`.
    let leaf = (used_max(SPLIT_BUCKETS * SLOTS) as u64 / 2).max(1);
    let leaves = entries.div_ceil(leaf).next_power_of_two();
    let depth = leaves.trailing_zeros();
    if depth_allowed(depth, entries) { depth } else { 0 }
}

/// A hash as it is stored. Zero marks a lane that was never used, so hash 0 is kept as 1: identity
/// is the key's, and the hash only says where to look.
#[inline]
pub(super) fn stored(hash: u32) -> u32 {
    hash.max(1)
}

/// The position of a hash in the directory's space, which is stretched so that the number of
/// hashes per place falls by half from one end to the other.
///
/// If leaves covered equal ranges they would all have about the same number of entries, and all
/// grow, and split, at the same time: the table would swing between full and airy leaves. With
/// `place(u) = (2u + u²) / 3` over the unit interval, leaves of all sizes between a half and the
/// whole are present at any time, so that the average fill hardly depends on the number of keys,
/// and a block that one leaf leaves is soon taken by another.
#[inline]
pub(super) fn place(hash: u32) -> u32 {
    const THIRD: u64 = (1 << 32) / 3;
    let hash = u64::from(hash);
    let sum = 2 * hash + ((hash * hash) >> 32);
    ((sum * THIRD) >> 32) as u32
}

/// The first hash whose place is `place` or beyond, if there is one.
pub(super) fn first_hash(place_from: u64) -> Option<u32> {
    let (mut low, mut high) = (0_u64, 1_u64 << 32);
    while low < high {
        let middle = u64::midpoint(low, high);
        if u64::from(place(middle as u32)) < place_from {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    u32::try_from(low).ok()
}

/// The range of places that a leaf of `depth` covers if it covers `place`.
pub(super) fn range_at(depth: u32, place: u32) -> Range<u64> {
    let width = 1_u64 << (32 - depth);
    let start = u64::from(place) & !(width - 1);
    start..start + width
}

/// The place to begin a range with whose first hash is `hash`, if there is one: then
/// [`first_hash`] answers `hash` for it.
pub(super) fn place_before(hash: u32) -> u64 {
    // Not every place has a hash, so that the range's first hash may lie a place behind its begin.
    // Ranges begin at even places, unless they are of the greatest depth.
    u64::from(place(hash) & !1)
}

/// The depth of the leaf that covers these places, if there can be one.
pub(super) fn depth_of(places: Range<u64>) -> Option<u32> {
    let width = places.end.checked_sub(places.start).filter(|width| width.is_power_of_two())?;
    places.start.is_multiple_of(width).then(|| 32 - width.trailing_zeros())
}

/// The bucket where a hash is looked for first.
#[inline]
pub(super) fn home(hash: u32, buckets: usize) -> usize {
    // The leaf was chosen by high bits: the multiplication brings the low ones to the top.
    let mixed = u64::from(hash.wrapping_mul(0x9E37_79B1));
    ((mixed * buckets as u64) >> 32) as usize
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The interpreter is slow.
    const COUNTS: usize = if cfg!(miri) { 100 } else { 5000 };
    const PACE: usize = if cfg!(miri) { 1000 } else { 1 };

    #[test]
    fn classes_rise_and_reach_far() {
        assert!(BUCKETS[..DEFERRED].is_sorted_by(|a, b| a < b));
        assert_eq!(BUCKETS[0], 1);
        assert!(BUCKETS.contains(&64));
        assert!(BUCKETS[DEFERRED - 1] > 10_000_000);
    }

    #[test]
    fn a_class_leaves_room_to_grow() {
        for entries in 0..COUNTS {
            let slots = slots(class_for(entries + 1));
            assert!(entries < used_max(slots), "{entries} in {slots}");
        }
    }

    #[test]
    fn a_rebuilt_leaf_is_not_sparse() {
        for entries in 0..COUNTS {
            assert!(!is_sparse(class_for(entries + 1), entries), "{entries}");
        }
    }

    #[test]
    fn places_rise_with_hashes_and_fill_the_space() {
        assert_eq!(place(0), 0);
        assert!(place(u32::MAX) > u32::MAX - 4);
        let mut last = 0;
        for hash in (0..=u32::MAX).step_by(65_521 * PACE) {
            assert!(place(hash) >= last);
            last = place(hash);
        }
    }

    #[test]
    fn the_first_hash_of_a_place_is_the_first() {
        assert_eq!(first_hash(0), Some(0));
        assert_eq!(first_hash(1 << 32), None);
        for place_from in (1..1_u64 << 32).step_by(982_451_653 * PACE.min(2)) {
            let hash = first_hash(place_from).unwrap();
            assert!(u64::from(place(hash)) >= place_from);
            assert!(u64::from(place(hash - 1)) < place_from);
        }
    }

    #[test]
    fn ranges_of_a_depth_meet() {
        assert_eq!(range_at(0, 77), 0..1 << 32);
        assert_eq!(range_at(1, u32::MAX), 1 << 31..1 << 32);
        assert_eq!(range_at(32, 5), 5..6);
    }

    #[test]
    fn homes_are_in_range() {
        for buckets in [1, 2, 63, 64, 1_000_000] {
            assert_eq!(home(0, buckets), 0);
            for hash in (0..=u32::MAX).step_by(16_777_213 * PACE.min(10)) {
                assert!(home(hash, buckets) < buckets);
            }
        }
    }
}
