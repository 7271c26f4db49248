//! What to merge: a pure function from counts to a plan.
//!
//! Rules it keeps:
//! - Nothing is merged that does not get smaller, so no file is merged again and again for nothing.
//! - A tombstone, or an expired record, may go only when no segment outside the plan can hold an
//!   older record; the least sequence number of each segment tells.

use caskade_codec::ids::{SegmentId, Seqno, ShardId};

/// What the policy knows of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentStats {
    /// Which.
    pub id: SegmentId,
    /// File length.
    pub len: u64,
    /// Bytes of records that the keydir points to. Where lengths are damaged, they are wrong.
    pub live_bytes: u64,
    /// How many these are.
    pub live_records: u64,
    /// Bytes of tombstones.
    pub tombstone_bytes: u64,
    /// Least sequence number in it.
    pub min_seqno: Seqno,
    /// Greatest sequence number in it.
    pub max_seqno: Seqno,
    /// When its last record expires; `u64::MAX` if some record never does.
    pub expiry_max: u64,
    /// No merge can read it. It may hold older records all the same.
    pub is_damaged: bool,
}

/// What the policy knows of the rest of the shard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShardStats {
    /// Bytes of segments that are not sealed.
    pub open_bytes: u64,
    /// Live bytes in them.
    pub open_live_bytes: u64,
    /// The wall clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// Bound on total over live bytes.
    pub max_space_amp: f64,
    /// The shard's [`trigger`].
    pub trigger: f64,
    /// Nobody writes: more is merged than the bound asks for.
    pub is_resting: bool,
    /// The size that merged segments get.
    pub segment_bytes: u64,
    /// Live bytes that one merge copies at most.
    pub job_bytes_max: u64,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing pays.
    Nothing,
    /// Remove these without reading them.
    Drop(Vec<SegmentId>),
    /// Copy what lives in these and remove them.
    Merge(Vec<SegmentId>),
    /// Seal the active segment: the dead bytes are in it.
    EndActive,
}

/// Dead bytes that are never worth a merge: a file system block for each of a few files.
const SLACK: u64 = 64 << 10;
/// Of the dead bytes that the bound allows, the share at which merging begins at the latest.
const TRIGGER: f64 = 0.7;
/// How much earlier it begins in some shards: keys are spread evenly, and without a difference all
/// shards would be due at the same moment.
const STAGGER: f64 = 0.1;
/// In a shard at rest, the share at which it begins …
const REST_FROM: f64 = 0.4;
/// … and the share that it leaves. Nobody waits for the disk then, and space is given back. The gap
/// between the two keeps short rests from copying much for little.
const REST_TO: f64 = 0.2;
/// The pressure at which writers begin to feel the brake.
const BRAKE_FROM: f64 = 0.85;
/// What a stretch costs a writer at the bound, in microseconds.
const BRAKE_MICROS_MAX: f64 = 20_000.0;
/// A segment is worth copying from this share of dead bytes on.
const DEAD_SHARE_MIN: f64 = 0.08;
/// As many small files are left alone. A shard that only grows has a handful of each size that it
/// went through, which is no reason to copy what lives in them.
const SMALL_FILES_MAX: usize = 32;

/// Decides what a shard should do next.
pub fn plan(segments: &[SegmentStats], shard: &ShardStats) -> Plan {
    let droppable = droppable(segments, shard.now_ms);
    if !droppable.is_empty() {
        return Plan::Drop(droppable);
    }
    let sound: Vec<SegmentStats> = segments.iter().filter(|s| !s.is_damaged).copied().collect();
    let excess = excess_bytes(&sound, shard);
    if excess > 0 {
        if let Some(victims) = victims(&sound, shard, excess) {
            return Plan::Merge(victims);
        }
        let open_dead = shard.open_bytes.saturating_sub(shard.open_live_bytes);
        if open_dead > SLACK && open_dead > excess / 4 {
            return Plan::EndActive;
        }
        if let Some(all) = everything(segments) {
            return Plan::Merge(all);
        }
    }
    small_files(&sound, shard).map_or(Plan::Nothing, Plan::Merge)
}

/// Bytes by which the shard is over the point where merging begins.
pub fn excess_bytes(segments: &[SegmentStats], shard: &ShardStats) -> u64 {
    let total: u64 = segments.iter().map(|s| s.len).sum::<u64>() + shard.open_bytes;
    let live: u64 = segments.iter().map(|s| s.live_bytes).sum::<u64>() + shard.open_live_bytes;
    let share = if shard.is_resting { REST_TO } else { shard.trigger };
    let allowed = live as f64 * (shard.max_space_amp - 1.0) * share;
    let allowed = (allowed as u64).max(SLACK);
    (total - live.min(total)).saturating_sub(allowed)
}

/// How much of the dead bytes that the bound allows is used up: merging begins at the
/// [`trigger`], and at 1 the shard is at its bound.
pub fn pressure(total_bytes: u64, live_bytes: u64, max_space_amp: f64) -> f64 {
    let dead = total_bytes.saturating_sub(live_bytes).saturating_sub(SLACK) as f64;
    dead / (live_bytes as f64 * (max_space_amp - 1.0)).max((4 * SLACK) as f64)
}

/// Of the dead bytes that the bound allows, the share at which this shard is merged.
pub fn trigger(shard: ShardId) -> f64 {
    // Neighbours are far apart.
    TRIGGER - STAGGER * f64::from(shard.0 * 5 % 16) / 15.0
}

/// Whether a shard under this pressure should look for something to merge.
pub fn is_worth_a_look(pressure: f64, shard: ShardId) -> bool {
    pressure > trigger(shard)
}

/// Whether a shard under this pressure is merged further once it rests.
pub fn is_worth_tidying(pressure: f64) -> bool {
    pressure > REST_FROM
}

/// How long writers rest for every stretch that they write, in microseconds: not at all as long as
/// merging keeps up, then more and more, so that the bound holds whatever the writers want.
pub fn brake_micros(pressure: f64) -> u64 {
    let over = ((pressure - BRAKE_FROM) / (1.0 - BRAKE_FROM)).min(1.0);
    if over <= 0.0 { 0 } else { (over * over * BRAKE_MICROS_MAX) as u64 + 50 }
}

/// Segments that hold nothing anybody needs, found without reading them.
fn droppable(segments: &[SegmentStats], now_ms: u64) -> Vec<SegmentId> {
    let is_over = |s: &SegmentStats| s.live_records == 0 || s.expiry_max <= now_ms;
    let (mut over, mut kept): (Vec<&SegmentStats>, Vec<&SegmentStats>) =
        segments.iter().partition(|s| !s.is_damaged && is_over(s));
    // They go together. What hides older records has to stay with those, and may keep another.
    loop {
        let oldest = kept.iter().map(|s| s.min_seqno).min();
        let is_needed = |s: &mut &SegmentStats| {
            let hides = s.live_records > 0 || s.tombstone_bytes > 0;
            hides && oldest.is_some_and(|oldest| oldest <= s.max_seqno)
        };
        let needed: Vec<_> = over.extract_if(.., is_needed).collect();
        if needed.is_empty() {
            break;
        }
        kept.extend(needed);
    }
    let mut dropped: Vec<_> = over.iter().map(|s| s.id).collect();
    dropped.sort_unstable();
    dropped
}

/// Bytes that copying this segment alone surely frees.
fn gain(segment: &SegmentStats) -> u64 {
    segment.len.saturating_sub(segment.live_bytes + segment.tombstone_bytes)
}

/// The segments with the most to gain for the least to copy.
fn victims(segments: &[SegmentStats], shard: &ShardStats, excess: u64) -> Option<Vec<SegmentId>> {
    let mut candidates: Vec<&SegmentStats> = segments
        .iter()
        .filter(|s| gain(s) as f64 > s.len as f64 * DEAD_SHARE_MIN && gain(s) > 512)
        .collect();
    // gain(a) / cost(a) > gain(b) / cost(b), without dividing.
    let cost = |s: &SegmentStats| u128::from(s.len - gain(s) + 4096);
    candidates.sort_by(|a, b| {
        (u128::from(gain(b)) * cost(a)).cmp(&(u128::from(gain(a)) * cost(b))).then(a.id.cmp(&b.id))
    });
    let (mut gained, mut copied, mut chosen) = (0, 0, Vec::new());
    for candidate in candidates {
        let copy = candidate.len - gain(candidate);
        if gained >= excess || (!chosen.is_empty() && copied + copy > shard.job_bytes_max) {
            break;
        }
        gained += gain(candidate);
        copied += copy;
        chosen.push(candidate.id);
    }
    // Copying for a sliver of the excess is work for nothing; the rest is in the active segment.
    (gained >= excess.min(SLACK)).then_some(chosen).filter(|chosen| !chosen.is_empty())
}

/// All segments, when tombstones are what fills the shard: only together can they go.
fn everything(segments: &[SegmentStats]) -> Option<Vec<SegmentId>> {
    let tombstones: u64 = segments.iter().map(|s| s.tombstone_bytes).sum();
    let total: u64 = segments.iter().map(|s| s.len).sum();
    let is_sound = segments.iter().all(|s| !s.is_damaged);
    (is_sound && tombstones > SLACK.min(total / 4) && tombstones > total / 10)
        .then(|| segments.iter().map(|s| s.id).collect())
}

/// Many small segments, as short lives leave behind, into one.
fn small_files(segments: &[SegmentStats], shard: &ShardStats) -> Option<Vec<SegmentId>> {
    let mut small: Vec<&SegmentStats> =
        segments.iter().filter(|s| s.len < shard.segment_bytes / 8).collect();
    if small.len() <= SMALL_FILES_MAX {
        return None;
    }
    small.sort_by_key(|s| (s.len, s.id));
    let mut bytes = 0;
    let chosen: Vec<_> = small
        .into_iter()
        .take_while(|s| {
            bytes += s.len;
            bytes <= shard.segment_bytes.max(shard.job_bytes_max)
        })
        .map(|s| s.id)
        .collect();
    (chosen.len() > SMALL_FILES_MAX / 2).then_some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn segment(id: u64, len: u64, live: u64) -> SegmentStats {
        SegmentStats {
            id: SegmentId(id),
            len,
            live_bytes: live,
            live_records: u64::from(live > 0),
            tombstone_bytes: 0,
            min_seqno: Seqno(id * 1000),
            max_seqno: Seqno(id * 1000 + 999),
            expiry_max: u64::MAX,
            is_damaged: false,
        }
    }

    #[test]
    fn a_damaged_segment_stays_and_keeps_what_hides_its_records() {
        let damaged = |segment| SegmentStats { is_damaged: true, ..segment };
        let tombstones = SegmentStats { tombstone_bytes: 900, ..segment(2, 1000, 0) };
        let expired = SegmentStats { expiry_max: 1, ..segment(3, 1000, 500) };
        for newer in [tombstones, expired] {
            assert_eq!(plan(&[newer], &shard()), Plan::Drop(vec![newer.id]));
            assert_eq!(plan(&[damaged(segment(1, 1000, 500)), newer], &shard()), Plan::Nothing);
        }
        assert_eq!(plan(&[damaged(segment(1, 1000, 0))], &shard()), Plan::Nothing);
        let many = SegmentStats { tombstone_bytes: 900 << 10, ..segment(2, 1 << 20, 100 << 10) };
        assert_eq!(plan(&[segment(1, 100, 50), many], &shard()), Plan::Merge(ids(&[1, 2])));
        assert_eq!(plan(&[damaged(segment(1, 100, 50)), many], &shard()), Plan::Nothing);
    }

    /// Those whose records were written at the same time each have something older beside them.
    #[test]
    fn what_is_over_goes_together() {
        let of = |id, min: u64, max: u64| SegmentStats {
            min_seqno: Seqno(min),
            max_seqno: Seqno(max),
            expiry_max: 1,
            ..segment(id, 1000, 500)
        };
        let expired = [of(1, 1, 100), of(2, 50, 150), of(3, 151, 200)];
        assert_eq!(plan(&expired, &shard()), Plan::Drop(ids(&[1, 2, 3])));
        // What lives on may have older versions of their keys in it.
        let living = SegmentStats { expiry_max: u64::MAX, ..of(4, 60, 61) };
        assert_eq!(plan(&[&expired[..], &[living]].concat(), &shard()), Plan::Nothing);
        let living = SegmentStats { min_seqno: Seqno(180), max_seqno: Seqno(190), ..living };
        assert_eq!(plan(&[&expired[..], &[living]].concat(), &shard()), Plan::Drop(ids(&[1, 2])));
    }

    #[test]
    fn a_segment_is_dead_once_it_has_no_record() {
        let one = SegmentStats { live_records: 1, ..segment(1, 1000, 0) };
        assert_eq!(plan(&[one], &shard()), Plan::Nothing);
        let none = SegmentStats { live_records: 0, ..segment(1, 1000, 8) };
        assert_eq!(plan(&[none], &shard()), Plan::Drop(vec![none.id]));
    }

    fn shard() -> ShardStats {
        ShardStats {
            open_bytes: 0,
            open_live_bytes: 0,
            now_ms: 1_000,
            max_space_amp: 1.5,
            trigger: TRIGGER,
            is_resting: false,
            segment_bytes: 4 * MIB,
            job_bytes_max: 64 * MIB,
        }
    }

    fn ids(ids: &[u64]) -> Vec<SegmentId> {
        ids.iter().copied().map(SegmentId).collect()
    }

    #[test]
    fn a_full_shard_is_left_alone() {
        let segments = [segment(1, 4 * MIB, 4 * MIB), segment(2, 4 * MIB, 4 * MIB)];
        assert_eq!(plan(&segments, &shard()), Plan::Nothing);
    }

    #[test]
    fn a_shard_at_rest_is_merged_further() {
        let segments = [segment(1, 4 * MIB, 3 * MIB), segment(2, 4 * MIB, 4 * MIB)];
        assert_eq!(
            plan(&segments, &shard()),
            Plan::Nothing,
            "17% of what lives is below the bound"
        );
        let resting = ShardStats { is_resting: true, ..shard() };
        assert_eq!(plan(&segments, &resting), Plan::Merge(ids(&[1])));
        let tidied = [segment(2, 4 * MIB, 4 * MIB), segment(3, 3 * MIB, 3 * MIB)];
        assert_eq!(plan(&tidied, &resting), Plan::Nothing);
    }

    #[test]
    fn tidying_begins_above_where_it_ends() {
        let pressure_of = |dead: u64| pressure(64 * MIB + dead, 64 * MIB, 1.5);
        assert!(!is_worth_tidying(pressure_of(12 * MIB)));
        assert!(is_worth_tidying(pressure_of(14 * MIB)));
        assert!(!is_worth_tidying(REST_FROM));
        // What is left after tidying is not tidied again.
        assert!(!is_worth_tidying(pressure_of(7 * MIB)));
    }

    #[test]
    fn dead_segments_go_unread() {
        let segments = [segment(1, 4 * MIB, 4 * MIB), segment(2, 4 * MIB, 0)];
        assert_eq!(plan(&segments, &shard()), Plan::Drop(ids(&[2])));
    }

    #[test]
    fn a_dead_segment_with_tombstones_waits_for_what_is_older() {
        let mut tombs = segment(2, 4 * MIB, 0);
        tombs.tombstone_bytes = MIB;
        let segments = [segment(1, 16 * MIB, 16 * MIB), tombs];
        assert_eq!(plan(&segments, &shard()), Plan::Nothing);
        assert_eq!(plan(&segments[1..], &shard()), Plan::Drop(ids(&[2])));
    }

    #[test]
    fn an_expired_segment_goes_unread_only_as_the_oldest() {
        let mut expired = segment(2, 4 * MIB, 4 * MIB);
        expired.expiry_max = 999;
        assert_eq!(plan(&[segment(1, 4 * MIB, 4 * MIB), expired], &shard()), Plan::Nothing);
        assert_eq!(plan(&[expired, segment(3, 4 * MIB, 4 * MIB)], &shard()), Plan::Drop(ids(&[2])));
    }

    #[test]
    fn expired_segments_go_one_after_the_other() {
        let mut segments: Vec<_> = (1..4).map(|id| segment(id, 4 * MIB, 4 * MIB)).collect();
        for segment in &mut segments {
            segment.expiry_max = 500;
        }
        assert_eq!(plan(&segments, &shard()), Plan::Drop(ids(&[1, 2, 3])));
    }

    #[test]
    fn the_emptiest_segment_is_merged_first() {
        let segments =
            [segment(1, 4 * MIB, 3 * MIB), segment(2, 4 * MIB, MIB), segment(3, 4 * MIB, 3 * MIB)];
        let Plan::Merge(chosen) = plan(&segments, &shard()) else { panic!("over the bound") };
        assert_eq!(chosen[0], SegmentId(2));
    }

    #[test]
    fn writers_are_slowed_before_the_bound_and_never_below_the_trigger() {
        let brake = |dead: u64| brake_micros(pressure(100 * MIB + dead, 100 * MIB, 1.5));
        assert_eq!(brake(0), 0);
        assert_eq!(brake(40 * MIB), 0);
        assert!(brake(45 * MIB) > 0);
        assert!(brake(45 * MIB) < brake(49 * MIB));
        assert!(brake(51 * MIB) >= 20_000);
        assert_eq!(brake(51 * MIB), brake(500 * MIB));
    }

    #[test]
    fn an_empty_shard_is_under_no_pressure() {
        assert_eq!(brake_micros(pressure(SLACK, 0, 1.5)), 0);
        // Where nothing lives, there is room for little more.
        assert!((pressure(2 * SLACK, 0, 1.5) - 0.25).abs() < 1e-9);
    }

    #[test]
    fn dead_bytes_in_the_active_segment_end_it() {
        let segments = [segment(1, 4 * MIB, 4 * MIB)];
        let stats = ShardStats { open_bytes: 8 * MIB, open_live_bytes: MIB, ..shard() };
        assert_eq!(plan(&segments, &stats), Plan::EndActive);
    }

    #[test]
    fn the_active_segment_is_not_ended_for_a_sliver_of_the_excess() {
        // Tombstones that only a merge of everything takes away.
        let segments: Vec<_> = (1..5)
            .map(|id| SegmentStats {
                tombstone_bytes: 4 * MIB - (16 << 10) - 64,
                ..segment(id, 4 * MIB, 16 << 10)
            })
            .collect();
        let with_open_dead = |dead: u64| {
            let stats = ShardStats { open_bytes: MIB + dead, open_live_bytes: MIB, ..shard() };
            plan(&segments, &stats)
        };
        let all = Plan::Merge(ids(&[1, 2, 3, 4]));
        assert_eq!(with_open_dead(SLACK), all);
        assert_eq!(with_open_dead(4 * MIB), all);
        assert_eq!(with_open_dead(6 * MIB), Plan::EndActive);
    }

    #[test]
    fn the_active_segment_ends_for_more_than_a_quarter_of_the_excess_and_more_than_the_slack() {
        let with_open_dead = |tombstone_bytes: u64, dead: u64| {
            let tombs = SegmentStats { tombstone_bytes, ..segment(1, tombstone_bytes + 1, 1) };
            let stats = ShardStats { open_bytes: dead, ..shard() };
            plan(&[tombs], &stats)
        };
        let all = Plan::Merge(ids(&[1]));
        // Of these dead bytes the excess is all but the slack.
        assert_eq!(with_open_dead(3 * SLACK, SLACK), all);
        assert_eq!(with_open_dead(3 * SLACK, SLACK + 1), Plan::EndActive);
        assert_eq!(with_open_dead(7 * SLACK, 2 * SLACK), all);
        assert_eq!(with_open_dead(7 * SLACK, 2 * SLACK + 4), Plan::EndActive);
    }

    #[test]
    fn a_segment_is_worth_copying_from_a_share_of_dead_bytes_on() {
        let is_victim =
            |len: u64, dead: u64| victims(&[segment(1, len, len - dead)], &shard(), 1).is_some();
        assert_eq!([is_victim(1_000_000, 80_000), is_victim(1_000_000, 80_001)], [false, true]);
        assert_eq!([is_victim(1000, 512), is_victim(1000, 513)], [false, true]);
    }

    #[test]
    fn a_file_costs_something_by_itself() {
        // The first is nearly all dead, but there is little to gain for the trouble.
        let segments = [segment(1, 1000, 100), segment(2, 100_000, 40_000)];
        assert_eq!(victims(&segments, &shard(), 1 << 20), None);
        assert_eq!(victims(&segments, &shard(), 1), Some(ids(&[2])));
    }

    #[test]
    fn tombstones_that_fill_a_shard_are_merged_with_everything() {
        let mut segments: Vec<_> = (1..5).map(|id| segment(id, 4 * MIB, 16 << 10)).collect();
        for segment in &mut segments {
            segment.tombstone_bytes = 4 * MIB - (16 << 10) - 64;
        }
        assert_eq!(plan(&segments, &shard()), Plan::Merge(ids(&[1, 2, 3, 4])));
    }

    #[test]
    fn a_segment_that_would_not_shrink_is_never_chosen() {
        let mut stuck = segment(2, 4 * MIB, 0);
        stuck.tombstone_bytes = 4 * MIB - 64;
        let segments = [segment(1, 64 * MIB, 64 * MIB), stuck];
        assert_eq!(plan(&segments, &shard()), Plan::Nothing);
    }

    #[test]
    fn many_small_segments_become_one() {
        let segments: Vec<_> = (1..40).map(|id| segment(id, 4096, 4000)).collect();
        let Plan::Merge(chosen) = plan(&segments, &shard()) else { panic!("too many files") };
        assert_eq!(chosen.len(), 39);
    }

    #[test]
    fn small_files_are_merged_if_one_merge_takes_enough_of_them() {
        let merged = |len: u64| {
            let segments: Vec<_> = (1..34).map(|id| segment(id, len, len)).collect();
            let stats = ShardStats { job_bytes_max: MIB, ..shard() };
            small_files(&segments, &stats).map(|chosen| chosen.len())
        };
        assert_eq!([merged(MIB / 8), merged(MIB / 16)], [Some(32), Some(33)]);
        // A merge takes a segment's worth: here 16, which are too few, and 17.
        assert_eq!([merged(MIB / 4), merged(MIB / 4 - (16 << 10))], [None, Some(17)]);
        assert_eq!(merged(400 << 10), None);
    }

    #[test]
    fn an_eighth_of_a_segment_is_not_small() {
        let merged = |len: u64| {
            let segments: Vec<_> = (1..34).map(|id| segment(id, len, len)).collect();
            small_files(&segments, &shard()).is_some()
        };
        assert_eq!([merged(MIB / 2), merged(MIB / 2 - 1)], [false, true]);
    }

    #[test]
    fn within_the_bound_nothing_is_done() {
        let full = segment(1, 100 * MIB, 100 * MIB);
        // Dead bytes in the active segment, tombstones, a segment half empty: all of it allowed.
        let stats = ShardStats { open_bytes: 2 * MIB, open_live_bytes: MIB, ..shard() };
        let mut tombs = segment(2, 20 * MIB, MIB);
        tombs.tombstone_bytes = 19 * MIB;
        assert_eq!(excess_bytes(&[full, tombs], &stats), 0);
        assert_eq!(plan(&[full, tombs], &stats), Plan::Nothing);
        assert_eq!(plan(&[full, segment(2, 4 * MIB, 2 * MIB)], &stats), Plan::Nothing);
    }

    #[test]
    fn no_more_is_merged_than_the_excess_needs() {
        // 24 MiB dead of 16 MiB live, of which 5.6 are allowed: seven of eight gains of 3 MiB.
        let segments: Vec<_> = (1..9).map(|id| segment(id, 5 * MIB, 2 * MIB)).collect();
        assert_eq!(excess_bytes(&segments, &shard()), 24 * MIB - (5.6 * MIB as f64) as u64);
        assert_eq!(plan(&segments, &shard()), Plan::Merge(ids(&[1, 2, 3, 4, 5, 6, 7])));
    }

    #[test]
    fn one_merge_copies_no_more_than_a_job_may() {
        let segments: Vec<_> = (1..9).map(|id| segment(id, 5 * MIB, 2 * MIB)).collect();
        for (job_bytes_max, chosen) in [(4 * MIB, 2), (6 * MIB - 1, 2), (6 * MIB, 3), (1, 1)] {
            let stats = ShardStats { job_bytes_max, ..shard() };
            let Plan::Merge(victims) = plan(&segments, &stats) else { panic!("over the bound") };
            assert_eq!(victims.len(), chosen, "{job_bytes_max}");
        }
    }

    #[test]
    fn cheap_gains_come_before_large_ones() {
        // The first frees more, and costs more for each byte that it frees.
        let segments = [segment(1, 64 * MIB, 32 * MIB), segment(2, 4 * MIB, MIB)];
        let Plan::Merge(chosen) = plan(&segments, &shard()) else { panic!("over the bound") };
        assert_eq!(chosen[0], SegmentId(2));
    }

    #[test]
    fn tombstones_count_from_a_tenth_of_the_shard_on() {
        let with_tombstones = |bytes: u64| {
            let mut tombs = segment(2, 10 * MIB, 0);
            tombs.tombstone_bytes = bytes;
            everything(&[segment(1, 30 * MIB, MIB), tombs])
        };
        assert_eq!(with_tombstones(4 * MIB), None);
        assert_eq!(with_tombstones(4 * MIB + 1), Some(ids(&[1, 2])));
        // In a tiny shard a quarter must be tombstones, in all others 64 KiB.
        let tiny = |tombstone_bytes| {
            everything(&[SegmentStats { tombstone_bytes, ..segment(1, 4000, 0) }])
        };
        assert_eq!((tiny(1000), tiny(1001)), (None, Some(ids(&[1]))));
        let small = |tombstone_bytes| {
            everything(&[SegmentStats { tombstone_bytes, ..segment(1, 300 << 10, 0) }])
        };
        assert_eq!((small(SLACK), small(SLACK + 1)), (None, Some(ids(&[1]))));
    }

    #[test]
    fn the_brake_grows_with_the_square_of_the_pressure() {
        let at = |share: f64| brake_micros(BRAKE_FROM + (1.0 - BRAKE_FROM) * share);
        assert_eq!(at(0.0), 0);
        assert!((5_049..=5_050).contains(&at(0.5)), "{}", at(0.5));
        assert_eq!((at(1.0), at(9.0)), (20_050, 20_050));
        let looks =
            [TRIGGER - 0.01, TRIGGER, TRIGGER + 0.01].map(|at| is_worth_a_look(at, ShardId(0)));
        assert_eq!(looks, [false, false, true]);
    }

    #[test]
    fn shards_are_due_one_after_another() {
        let mut triggers: Vec<_> = (0..16).map(|shard| trigger(ShardId(shard))).collect();
        assert!(triggers.windows(2).all(|pair| (pair[0] - pair[1]).abs() > 0.02), "{triggers:?}");
        triggers.sort_by(f64::total_cmp);
        assert!((triggers[0] - 0.6).abs() < 1e-9 && (triggers[15] - 0.7).abs() < 1e-9);
        assert!(triggers.windows(2).all(|pair| pair[1] - pair[0] > 0.006), "{triggers:?}");
        assert!((0..256).all(|shard| (0.6 - 1e-9..=0.7).contains(&trigger(ShardId(shard)))));
    }
}
