//! Merges of chosen segments, and writes that land in the middle of one.
//!
//! Each test ends in [`Life::prove`]: the shard is compared with a map, reopened, compared, reopened
//! without hints and snapshot, and compared again.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::*;
use crate::error::Error;
use crate::life::{Life, Meddling, SHARD};
use crate::storage::sim::{Op, Verdict};
use crate::verify::Checked;
use crate::write_path::Change;

const ENOSPC: i32 = 28;

/// Notes the steps of a merge, and stops it when it has seen so many.
struct Watching<'a> {
    life: &'a Life,
    steps: RefCell<Vec<u64>>,
    limit: usize,
}

impl Surroundings for Watching<'_> {
    fn settle(&self) -> Result<()> {
        self.life.settle();
        Ok(())
    }

    fn pace(&self, bytes: u64) -> Result<()> {
        let mut steps = self.steps.borrow_mut();
        steps.push(bytes);
        if steps.len() < self.limit { Ok(()) } else { Err(Error::Stopped) }
    }
}

/// Where a record lies of which all before it have values of five bytes and keys of one.
fn record_at(id: SegmentId, index: usize) -> (std::path::PathBuf, u64) {
    (Path::new(SHARD).join(names::segment(id)), (HEADER_LEN + 32 * index) as u64)
}

/// A put over a damaged record counts its length as dead, which may be any. Its neighbours live.
#[test]
fn a_wrong_length_kills_no_neighbour() {
    let mut life = Life::new();
    life.put("l", "lives");
    life.put("k", &"v".repeat(37));
    let id = life.seal();
    let (path, first) = record_at(id, 0);
    // 5 becomes 69: the frame reaches to the end of the segment.
    life.disk.flip_bit(&path, first + 8, 6).unwrap();
    life.put("l", "again");
    let (stats, _) = life.shard().merge_stats();
    assert_eq!((stats[0].live_bytes, stats[0].live_records), (0, 1));
    let around = Meddling { life: &life, before_settle: || {} };
    assert_eq!(life.shard().merge_by_policy(&around, false, false).unwrap(), None);
    life.compare();
}

#[test]
fn a_tombstone_stays_while_a_damaged_segment_may_hold_its_key() {
    let mut life = Life::new();
    for key in ["k", "l", "m"] {
        life.put(key, "value");
    }
    let older = life.seal();
    life.delete("k");
    let newer = life.seal();
    let (path, last) = record_at(older, 2);
    life.disk.flip_bit(&path, last + 21, 0).unwrap();
    let around = Meddling { life: &life, before_settle: || {} };
    life.shard().merge_chosen(&around, &mut |id| id == older).expect_err("a damaged record");
    assert_eq!(life.shard().merge_by_policy(&around, false, false).unwrap(), None);
    assert_eq!(life.sealed(), [older, newer]);
    assert_eq!(life.reopen().get(b"k"), None);
}

/// What is dead in a damaged segment stays. Writers do not rest for it: nothing would come of that.
#[test]
fn a_damaged_segment_is_no_reason_to_rest() {
    let mut life = Life::with_segments_of(1 << 20);
    let value = "v".repeat(100_000);
    let mut all = |keys: std::ops::Range<u32>| {
        keys.for_each(|key| life.put(&format!("key {key}"), &value));
        life.seal()
    };
    let (damaged, _) = (all(0..9), all(1..9));
    let (path, first) = record_at(damaged, 0);
    life.disk.flip_bit(&path, first + 100, 0).unwrap();
    let rest = || {
        life.shard().weigh(&life.shard().writer().log);
        life.shard().brake_micros()
    };
    assert!(rest() > 0);
    let around = Meddling { life: &life, before_settle: || {} };
    life.shard().merge_chosen(&around, &mut |id| id == damaged).expect_err("a damaged record");
    assert_eq!(rest(), 0);
}

#[test]
fn a_tombstone_stays_while_an_older_segment_may_hold_its_key() {
    let mut life = Life::new();
    life.put("k", "v");
    let first = life.seal();
    life.delete("k");
    life.put("l", "w");
    let second = life.seal();
    life.merge(&[second]);
    assert_eq!(life.sealed()[0], first, "the older segment was not touched");
    life.prove();
}

#[test]
fn a_tombstone_goes_with_the_last_segment_that_is_older() {
    let mut life = Life::new();
    life.put("k", "v");
    let first = life.seal();
    life.delete("k");
    let second = life.seal();
    let outcome = life.merge(&[first, second]);
    assert_eq!((outcome.inputs, outcome.outputs), (2, 0));
    assert!(life.sealed().is_empty());
    life.prove();
}

/// Put, delete, put, delete over four segments; every order of merging them one by one.
#[test]
fn merging_superseded_tombstones_in_any_order_uncovers_nothing() {
    for order in permutations(4) {
        let mut life = Life::new();
        let mut ids = Vec::new();
        for round in ["one", "two"] {
            life.put("k", round);
            ids.push(life.seal());
            life.delete("k");
            ids.push(life.seal());
        }
        for (steps, index) in order.iter().enumerate() {
            life.merge(&[ids[*index]]);
            life.compare();
            if steps == 1 {
                life = life.reopen();
                life.compare();
            }
        }
        // What the single merges left behind, all at once.
        life.merge(&life.sealed());
        assert!(life.sealed().is_empty(), "{order:?}");
        life.prove();
    }
}

/// As above, with a value at the end that must stay.
#[test]
fn merging_in_any_order_keeps_the_newest_value() {
    for order in permutations(4) {
        let mut life = Life::new();
        life.put("k", "one");
        let mut ids = vec![life.seal()];
        life.delete("k");
        ids.push(life.seal());
        life.put("k", "two");
        ids.push(life.seal());
        life.put("k", "three");
        life.put("l", "w");
        ids.push(life.seal());
        for index in order {
            life.merge(&[ids[index]]);
            life.compare();
        }
        life.prove();
    }
}

fn permutations(len: usize) -> Vec<Vec<usize>> {
    if len == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(len - 1);
    let insert = |at: usize| {
        shorter.iter().map(move |order| {
            let mut order = order.clone();
            order.insert(at, len - 1);
            order
        })
    };
    (0..len).flat_map(insert).collect()
}

/// A copy of K gets a higher segment id than the delete of K that lands meanwhile.
#[test]
fn a_delete_in_a_lower_segment_beats_the_copy_in_a_higher_one() {
    let mut life = Life::new();
    life.put("k", "v");
    life.put("l", "w");
    let first = life.seal();
    life.merge_while(&[first], || life.apply("k", Change::Delete));
    life.model.remove(&b"k"[..]);
    let deleted = life.seal();
    assert!(life.sealed().iter().any(|id| *id > deleted), "the copy has the higher id");
    life.compare();
    let life = life.reopen();
    life.compare();
    // Now the tombstone alone: the copy is older, in spite of its id.
    life.merge(&[deleted]);
    life.prove();
}

#[test]
fn a_put_during_a_merge_wins_over_the_copy() {
    let mut life = Life::new();
    life.put("k", "v1");
    life.put("l", "w");
    let first = life.seal();
    life.merge_while(&[first], || life.put_raw("k", "v2", None));
    life.model.insert(b"k".into(), b"v2".into());
    life.prove();
}

#[test]
fn a_key_deleted_during_a_merge_is_not_brought_back() {
    let mut life = Life::new();
    life.put("k", "v");
    let first = life.seal();
    life.merge_while(&[first], || life.apply("k", Change::Delete));
    life.model.clear();
    life.prove();
}

#[test]
fn a_key_put_back_and_deleted_again_during_a_merge_stays_deleted() {
    let mut life = Life::new();
    life.put("k", "v");
    let first = life.seal();
    life.merge_while(&[first], || {
        life.put_raw("k", "v", None);
        life.apply("k", Change::Delete);
    });
    life.model.clear();
    life.prove();
}

/// The merge sees K expired; a put lands before the keydir forgets it.
#[test]
fn a_put_survives_the_removal_of_its_expired_predecessor() {
    let mut life = Life::new();
    let now = life.ctx.storage.wall_ms();
    life.put_until("k", "old", now + 10);
    let first = life.seal();
    life.disk.advance(20);
    life.merge_while(&[first], || life.put_raw("k", "new", None));
    life.model.insert(b"k".into(), b"new".into());
    life.prove();
}

/// K never expires in the first segment and does in the second, which is then dropped or merged.
#[test]
fn an_expired_version_never_uncovers_an_older_one() {
    let expired = || {
        let mut life = Life::new();
        let now = life.ctx.storage.wall_ms();
        life.put("k", "for ever");
        let first = life.seal();
        life.put_until("k", "for a while", now + 10);
        let second = life.seal();
        life.disk.advance(20);
        life.model.clear();
        life.compare();
        (life, first, second)
    };
    // By the policy, which drops whole expired segments if it may.
    let (life, ..) = expired();
    while life
        .shard()
        .merge_by_policy(&Meddling { life: &life, before_settle: || {} }, false, false)
        .unwrap()
        .is_some()
    {
        life.compare();
    }
    life.prove();
    // The one that hides goes first, and the other is read again.
    let (life, _, second) = expired();
    life.merge(&[second]);
    life.prove();
    // Each alone, in both orders, and both together.
    let (life, first, second) = expired();
    life.merge(&[second]);
    life.compare();
    life.merge(&[first]);
    life.prove();
    let (life, first, second) = expired();
    life.merge(&[first]);
    life.compare();
    life.merge(&[second]);
    life.prove();
    let (life, first, second) = expired();
    life.merge(&[first, second]);
    assert!(life.sealed().is_empty());
    life.prove();
}

/// As the others, with a snapshot between the writes and the merges.
#[test]
fn a_snapshot_from_before_a_merge_brings_nothing_back() {
    let around_nothing = |life: &Life| {
        life.snapshot();
    };
    let mut life = Life::new();
    life.put("k", "v1");
    life.put("l", "w1");
    let first = life.seal();
    life.put("m", "x");
    let second = life.seal();
    around_nothing(&life);
    life.delete("k");
    life.put("l", "w2");
    let third = life.seal();
    life.merge(&[first, third]);
    let life = life.reopen();
    life.compare();
    life.merge(&[second]);
    let mut life = life.reopen();
    life.compare();
    life.put("k", "v3");
    life.prove();
}

#[test]
fn a_merge_of_everything_leaves_a_few_dense_segments_alone() {
    let mut life = Life::new();
    for key in ["k", "l"] {
        life.put(key, "v");
        life.seal();
    }
    let around = |life: &Life| {
        let around = Meddling { life, before_settle: || {} };
        life.shard().merge_all(&around).unwrap()
    };
    let before = life.sealed();
    assert_eq!(around(&life), Outcome::default());
    assert_eq!(life.sealed(), before);
    // Three files where one would do.
    life.put("m", "v");
    life.seal();
    let outcome = around(&life);
    assert_eq!((outcome.inputs, outcome.outputs), (3, 1));
    life.prove();
    // Of what fills two files there may be four.
    let mut life = Life::new();
    let large = "v".repeat(1500);
    for key in ["k", "l", "m", "n"] {
        life.put(key, &large);
        life.seal();
    }
    assert_eq!(around(&life), Outcome::default());
    life.put("o", &large);
    life.seal();
    assert_eq!(around(&life).inputs, 5);
    life.prove();
}

/// Every quarter of a MiB, however small the segments are.
#[test]
fn a_merge_tells_how_far_it_is_and_can_be_stopped() {
    let mut life = Life::new();
    let (large, small) = ("v".repeat(300 << 10), "w".repeat(100 << 10));
    for (key, value) in [("k", &large), ("l", &small), ("m", &small), ("n", &small)] {
        life.put(key, value);
        life.seal();
    }
    let before = life.sealed();
    let files = || life.disk.list(SHARD).unwrap().into_iter().map(|entry| entry.name);
    let files_before: Vec<_> = files().collect();
    let merge = |limit| {
        let _upkeep = life.shard().upkeep().unwrap();
        let around = Watching { life: &life, steps: RefCell::default(), limit };
        let outcome = life.shard().merge_segments(&before, &around);
        (outcome, around.steps.into_inner())
    };
    let (stopped, steps) = merge(2);
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    assert_eq!(steps.len(), 2);
    assert_eq!(life.sealed(), before);
    assert!(files().eq(files_before), "what was begun is removed");
    life.compare();
    let (merged, again) = merge(usize::MAX);
    assert_eq!(merged.unwrap().inputs, 4);
    assert_eq!(again, steps, "the same again, and no more than there is");
    assert!(steps.iter().all(|bytes| (256 << 10..=400 << 10).contains(bytes)), "{steps:?}");
    life.prove();
}

/// However large they are, and however many lookups go together.
#[test]
fn a_merge_keeps_its_pace_with_large_records() {
    let mut life = Life::with_segments_of(1 << 20);
    for _ in 0..15 {
        life.put("k", &"v".repeat(60 << 10));
    }
    let id = life.seal();
    let around = Watching { life: &life, steps: RefCell::default(), limit: usize::MAX };
    life.shard().merge_chosen(&around, &mut |other| other == id).unwrap();
    let steps = around.steps.into_inner();
    assert!(steps.len() >= 2 && steps.iter().all(|bytes| *bytes < 400 << 10), "{steps:?}");
    life.prove();
}

/// A newer put hides what the tombstone hides.
#[test]
fn a_tombstone_goes_when_its_key_was_put_again() {
    let mut life = Life::new();
    life.put("k", "v1");
    life.seal();
    life.delete("k");
    let second = life.seal();
    life.put("k", "v2");
    life.seal();
    assert_eq!(life.merge(&[second]).outputs, 0);
    life.prove();
}

/// A tombstone has no value that could be compressed.
#[test]
fn an_expired_compressed_record_becomes_a_plain_tombstone() {
    let mut life = Life::new();
    let now = life.ctx.storage.wall_ms();
    life.put("k", "for ever");
    life.seal();
    let change = Change::Put { value: b"packed", flags: Flags::LZ4, expiry: Some(now + 10) };
    life.apply("k", change);
    let second = life.seal();
    life.disk.advance(20);
    life.model.clear();
    assert_eq!(life.merge(&[second]).outputs, 1);
    life.prove();
}

/// At its very end a record is gone, and a merge of everything removes it.
#[test]
fn a_merge_of_everything_removes_what_expires_now() {
    let life = Life::new();
    let now = life.ctx.storage.wall_ms();
    life.put_raw("k", "v", Some(now + 10));
    life.seal();
    let merge = |life: &Life| {
        let around = Meddling { life, before_settle: || {} };
        life.shard().merge_all(&around).unwrap()
    };
    life.disk.advance(9);
    assert_eq!(merge(&life), Outcome::default());
    life.disk.advance(1);
    assert_eq!(merge(&life).inputs, 1);
    assert!(life.sealed().is_empty());
    life.prove();
}

#[test]
fn a_merge_for_which_there_is_no_room_only_drops() {
    let mut life = Life::new();
    let value = "v".repeat(1500);
    // Half of each of the first segments dies.
    for dies in 0..100 {
        life.put(&dies.to_string(), &value);
        life.put(&format!("{dies} lives"), &value);
        life.seal();
    }
    for dies in 0..100 {
        life.put(&dies.to_string(), &value);
    }
    life.seal();
    let merge = |life: &Life, only_drops| {
        let around = Meddling { life, before_settle: || {} };
        life.shard().merge_by_policy(&around, only_drops, false).unwrap()
    };
    let before = life.sealed();
    assert_eq!(merge(&life, true), None);
    assert_eq!(life.sealed(), before);
    assert!(merge(&life, false).is_some());
    life.prove();
}

/// Nobody needs the record, but a merge would remove the only trace of the damage.
#[test]
fn a_segment_with_a_damaged_dead_record_is_kept() {
    let mut life = Life::new();
    life.put("l", "lives");
    life.put("k", "dies");
    let first = life.seal();
    life.put("k", "v");
    life.seal();
    let path = Path::new(SHARD).join(names::segment(first));
    let len = life.disk.read_file(&path).unwrap().len() as u64;
    life.disk.flip_bit(&path, len - 1, 0).unwrap();
    let before = life.sealed();
    let around = Meddling { life: &life, before_settle: || {} };
    let refused = {
        let _upkeep = life.shard().upkeep().unwrap();
        life.shard().merge_segments(&[first], &around)
    };
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    assert_eq!(life.sealed(), before);
    life.compare();
}

/// One merge may copy four segments, and in a store of small segments 16 MiB.
#[test]
fn small_segments_are_merged_many_at_a_time() {
    let life = Life::new();
    assert_eq!(life.shard().merge_stats().1.job_bytes_max, 16 << 20);
}

/// What is verified beside merges is all there is: before each, after it, and in between.
#[test]
fn every_segment_is_found_beside_merges() {
    let mut life = Life::new();
    for key in 0..400 {
        life.put(&format!("key {key}"), &"v".repeat(80));
    }
    life.seal();
    let live: u64 = life.shard().merge_stats().0.iter().map(|segment| segment.live_bytes).sum();
    let merging = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100 {
                life.merge(&life.sealed());
            }
            merging.store(false, Ordering::Relaxed);
        });
        while merging.load(Ordering::Relaxed) {
            let checked: u64 = life.shard().segments_to_check().iter().map(Checked::bytes).sum();
            assert!(checked >= live, "{checked} of {live} bytes");
        }
    });
    life.prove();
}

/// A merge of a large shard has more outputs than a process may have files open.
#[test]
fn an_output_that_is_full_is_closed() {
    let mut life = Life::new();
    for key in 0..400 {
        life.put(&format!("key {key}"), &"v".repeat(80));
    }
    life.seal();
    let before = life.disk.open_handles();
    let outcome = life.merge_while(&life.sealed(), || {
        assert!(life.disk.open_handles() <= before, "{before} before");
    });
    assert!(outcome.outputs > 5);
    life.prove();
}

/// Readers of the whole store would wait for the disk with it.
#[test]
fn nothing_is_synced_while_garbage_is_kept() {
    let mut life = Life::new();
    for key in 0..400 {
        life.put(&format!("key {key}"), &"v".repeat(80));
    }
    life.seal();
    life.ctx.reclaim.collect();
    let (ctx, syncs) = (Arc::clone(&life.ctx), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&syncs);
    life.disk.faults().set_rule(move |call| {
        if call.op == Op::Sync && call.path.extension().is_some_and(|kind| kind == "seg") {
            ctx.reclaim.retire(Box::new(()));
            assert_eq!(ctx.reclaim.collect(), 0, "a guard is held");
            seen.fetch_add(1, Ordering::Relaxed);
        }
        Verdict::Proceed
    });
    let outcome = life.merge(&life.sealed());
    life.disk.faults().clear();
    assert!(outcome.outputs > 5);
    assert!(syncs.load(Ordering::Relaxed) >= outcome.outputs);
    life.prove();
}

/// Who tries again on a full disk needs the space of the copies.
#[test]
fn a_merge_that_is_not_published_leaves_nothing() {
    let mut life = Life::new();
    for key in 0..400 {
        life.put(&format!("key {key}"), &"v".repeat(80));
    }
    life.seal();
    life.settle();
    let files = || life.disk.list(SHARD).unwrap().into_iter().map(|entry| entry.name);
    let (before, inputs): (Vec<_>, _) = (files().collect(), life.sealed());
    life.disk.faults().set_rule(|call| {
        let is_it = call.op == Op::Create && call.path.ends_with("MANIFEST.tmp");
        if is_it { Verdict::Fail(ENOSPC) } else { Verdict::Proceed }
    });
    {
        let _upkeep = life.shard().upkeep().unwrap();
        let around = Meddling { life: &life, before_settle: || {} };
        let refused = life.shard().merge_segments(&inputs, &around);
        assert!(refused.is_err_and(|error| error.is_no_space()));
    }
    life.disk.faults().clear();
    assert!(files().eq(before), "the copies are there");
    assert_eq!(life.ctx.reclaim.pending(), 0, "their files are mapped");
    life.merge(&inputs);
    life.prove();
}

/// Another thread's sync of the directory fails while the manifest gets its name: the kernel tells one
/// of two who ask.
#[test]
fn a_merge_relies_on_no_sync_that_may_have_hidden_a_failure() {
    let mut life = Life::new();
    life.put("k", "one");
    let input = life.seal();
    life.settle();
    let (ctx, mut is_renamed) = (Arc::clone(&life.ctx), false);
    life.disk.faults().set_rule(move |call| {
        is_renamed |= call.op == Op::Rename && call.path.ends_with("MANIFEST.tmp");
        if is_renamed && call.op == Op::SyncDir {
            let _ = ctx.poison.latch("another thread heard of it");
        }
        Verdict::Proceed
    });
    {
        let _upkeep = life.shard().upkeep().unwrap();
        let around = Meddling { life: &life, before_settle: || {} };
        life.shard().merge_segments(&[input], &around).expect_err("it may not be durable");
    }
    let path = Path::new(SHARD).join(names::segment(input));
    assert!(life.disk.read_file(&path).is_ok(), "the old manifest may come back");
}
