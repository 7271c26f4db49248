//! What a recovery makes of a directory.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use caskade_codec::hash::keydir_bits;
use caskade_codec::ids::ShardId;
use caskade_codec::names;
use caskade_codec::record::{self, Flags};
use caskade_codec::segment::HEADER_LEN;
use caskade_codec::snapshot::{Snapshot, encode_leaf};

use crate::journal::{Journal, Stretch};
use crate::life::{Life, SHARD};
use crate::storage;
use crate::storage::sim::{Pending, Repeat, Verdict};
use crate::write_path::{BatchName, Change, Op};

/// Two keys of which the keydir keeps the same bits.
fn colliding_keys(life: &Life) -> [String; 2] {
    let mut seen = HashMap::new();
    for number in 0_u32.. {
        let key = format!("{number}");
        let bits = keydir_bits(life.ctx.hasher.hash(key.as_bytes()));
        if let Some(other) = seen.insert(bits, key.clone()) {
            return [other, key];
        }
    }
    unreachable!("there are more numbers than bits")
}

/// One key stands in the snapshot or a hint, the other behind it.
#[test]
fn recovery_tells_keys_of_equal_hash_bits_apart() {
    for with_snapshot in [false, true] {
        for delete in [false, true] {
            let mut life = Life::new();
            let [first, second] = colliding_keys(&life);
            life.put(&first, "one");
            life.seal();
            if with_snapshot {
                life.snapshot();
            }
            life.put(&second, "two");
            if delete {
                life.delete(&second);
            }
            for _ in 0..2 {
                let expected = |key: &str| life.model.get(key.as_bytes()).cloned();
                assert_eq!(life.get(first.as_bytes()), expected(&first));
                assert_eq!(life.get(second.as_bytes()), expected(&second));
                life = life.reopen();
            }
            life.prove();
        }
    }
}

/// What cannot be read may be a record of the key that is changed, or of another with the same hash
/// bits. If the key has a record of its own, that is what a change replaces.
#[test]
fn a_change_replaces_its_own_record_and_no_damaged_one() {
    for with_restart in [false, true] {
        for delete in [false, true] {
            let mut life = Life::new();
            let [first, second] = colliding_keys(&life);
            life.put(&first, "one");
            life.put(&second, "two");
            let id = life.seal();
            life.snapshot();
            let value = HEADER_LEN + record::HEADER_LEN + first.len();
            let path = Path::new(SHARD).join(names::segment(id));
            life.disk.flip_bit(&path, value as u64, 0).unwrap();
            if delete {
                life.delete(&second);
            } else {
                life.put(&second, "three");
            }
            if with_restart {
                life = life.reopen();
            }
            assert_eq!(life.shard().len(), if delete { 1 } else { 2 });
            let guard = life.ctx.reclaim.enter();
            let hash = life.ctx.hasher.hash(first.as_bytes());
            let find = |key: &str| life.shard().find(&guard, hash, key.as_bytes());
            find(&first).expect_err("its record is damaged");
            if delete {
                find(&second).expect_err("the damaged record may be one of it");
            } else {
                assert_eq!(find(&second).unwrap().unwrap().frame.value(), b"three");
            }
        }
    }
}

/// What a snapshot says of lengths decides nothing.
#[test]
fn lengths_in_a_snapshot_are_hints() {
    for class in [0, 3, 255] {
        let mut life = Life::new();
        for (key, len) in [("k", 3), ("l", 100), ("m", 2000), ("l", 300), ("n", 1)] {
            life.put(key, &"v".repeat(len));
        }
        life.delete("n");
        life.seal();
        life.snapshot();
        let path = Path::new(SHARD).join(names::KEYDIR);
        let bytes = life.disk.read_file(&path).unwrap();
        let snapshot = Snapshot::open(&bytes).unwrap();
        let mut changed = snapshot.header().encode();
        for (index, leaf) in (0..).zip(snapshot.leaves()) {
            let leaf = leaf.unwrap();
            let of_class = |&(hash, at): &(u32, u64)| (hash, at & !(0xFF << 32) | class << 32);
            let entries: Vec<_> = leaf.entries(&bytes).iter().map(of_class).collect();
            encode_leaf(index, leaf.first_hash, &entries, &mut changed);
        }
        life.disk.write_file(&path, &changed).unwrap();
        let mut life = life.reopen();
        life.compare();
        life.put("k", "new");
        life.seal();
        let before = life.sealed();
        life.merge(&before);
        assert_ne!(life.sealed(), before);
        life.prove();
    }
}

/// They come in the order of their hashes, which is not how a table grows well.
#[test]
fn many_records_behind_a_small_snapshot_make_no_giant_leaf() {
    let mut life = Life::with_segments_of(1 << 22);
    life.put("k", "v");
    life.seal();
    life.snapshot();
    for number in 0..20_000 {
        life.put(&format!("{number}"), "v");
    }
    let life = life.reopen();
    assert_eq!(life.shard().len(), 20_001);
    let guard = life.ctx.reclaim.enter();
    let (mut sizes, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let mut size = 0;
        next = life.shard().keydir.visit_leaf(&guard, from, &mut |_, _| size += 1);
        sizes.push(size);
    }
    assert_eq!(sizes.iter().sum::<usize>(), 20_001);
    assert!(sizes.iter().all(|size| *size <= 1024), "{sizes:?}");
}

/// A part of a batch that reaches the device and is taken back, as another shard refuses its own.
/// Answers where it began.
fn refuse_batch(life: &Life, values: &[(&str, &[u8])]) -> u64 {
    let ops: Vec<Op<'_>> = values
        .iter()
        .map(|(key, value)| life.op(key, Change::Put { value, flags: Flags::NONE, expiry: None }))
        .collect();
    let mut locked = life.shard().lock().unwrap();
    let name = BatchName { coordinator: ShardId(0), seqno: locked.next_seqno(), parts: 2 };
    let file = locked.cut().files.last().expect("something was written").0.clone();
    let position = locked.cut().position().expect("something was written").1;
    let staged = locked.stage(&ops, name).unwrap();
    file.file.sync_data().unwrap();
    // Without the sync that would make what follows needless.
    locked.take_back(&staged).unwrap();
    position
}

/// Of a frame of this length, with a key of one byte.
fn value_of(frame_len: u64) -> String {
    "v".repeat(frame_len as usize - 21)
}

/// The device still has the refused part; what is written in its place is durable.
#[test]
fn a_refused_batch_takes_nothing_durable_along() {
    for rotates in [false, true] {
        let mut life = Life::new();
        life.put("k", "one");
        life.sync();
        refuse_batch(&life, &[("l", b"refused"), ("m", b"refused")]);
        if rotates {
            life.shard().lock().unwrap().end_active();
        }
        // As long as the head of a batch: behind it would be the first of the refused records.
        life.put("n", &value_of(48));
        life.sync();
        let life = life.power_cut(|_| false);
        life.compare();
    }
}

/// Of what was written in the place of the refused part only the first sector reaches the device.
#[test]
fn a_refused_batch_does_not_come_back_record_by_record() {
    let mut life = Life::new();
    life.put("k", "one");
    life.sync();
    let position = life.shard().cut().position().expect("it was written").1;
    let rest_of_sector = 512 - position % 512 - 48;
    let filling = value_of(rest_of_sector);
    let refused = [("l", filling.as_bytes()), ("m", b"refused".as_slice())];
    assert_eq!(refuse_batch(&life, &refused), position);
    life.put("n", &value_of(48));
    life.put("k", &filling);
    let sector = position / 512;
    let life = life
        .power_cut(|pending| matches!(pending, Pending::Sector { index, .. } if *index == sector));
    life.compare();
}

/// The first recovery removes a segment without records, and the next one does without.
#[test]
fn a_segment_of_which_the_journal_has_only_the_header_may_be_missing() {
    let mut life = Life::new();
    life.put("k", "one");
    life.shard().lock().unwrap().end_active();
    // A batch begins a segment and is taken back from it.
    let mut locked = life.shard().lock().unwrap();
    let name = BatchName { coordinator: ShardId(0), seqno: locked.next_seqno(), parts: 2 };
    let staged = locked.stage(&[], name).unwrap();
    locked.unstage(&staged).unwrap();
    let (file, end) = locked.cut().files.last().expect("the segment that was begun").clone();
    drop(locked);
    let mut journal = Journal::new(life.ctx.config.journal_bytes, 7, Vec::new());
    assert!(journal.append(&life.ctx, &[Stretch { file, start: 0, end }]).unwrap());
    drop(journal);
    let life = life.reopen().reopen();
    life.compare();
}

/// Where the file is written by calls, a write that fails may have arrived, all of it.
#[test]
fn a_failed_write_owes_a_sync_of_its_file() {
    let mut life = Life::new();
    life.disk.faults().set_allocate_unsupported(true);
    life.put("k", "one");
    life.sync();
    assert!(!life.shard().cut().is_stained());
    let op = life.op("l", Change::Put { value: b"two", flags: Flags::NONE, expiry: None });
    life.disk.faults().fail_call(life.disk.faults().calls() + 1, Repeat::Once, 5);
    life.shard().lock().unwrap().apply(&op).expect_err("the call failed");
    life.disk.faults().set_rule(|_| Verdict::Proceed);
    assert!(life.shard().cut().is_stained());
    life.sync();
    assert!(!life.shard().cut().is_stained());
    life.power_cut(|_| false).compare();
}

/// Another thread's sync of a directory fails: the kernel tells one of two who ask.
#[test]
fn a_commit_relies_on_no_sync_that_may_have_hidden_a_failure() {
    let mut life = Life::new();
    life.put("k", "one");
    let ctx = Arc::clone(&life.ctx);
    life.disk.faults().set_rule(move |call| {
        if call.op == storage::sim::Op::SyncDir {
            let _ = ctx.poison.latch("another thread heard of it");
        }
        Verdict::Proceed
    });
    let before = life.shard().durable();
    life.try_sync().expect_err("it may not be durable");
    assert_eq!(life.shard().durable(), before);
}
