//! Hints and keydir snapshots: they only make opening faster.

use std::path::Path;
use std::time::Duration;

use caskade::{Db, Error, WriteOptions};
use caskade_codec::snapshot::{self, Snapshot};
use caskade_codec::{checksum, hint};
use caskade_shard::storage::sim::{CrashEffect, Pending, Verdict};

use crate::rig::{HOME, Rig, strip_indexes, tiny};

const EIO: i32 = 5;

/// A store with puts, overwrites, deletes, a batch, and keys that expired, and will; closed.
fn motley(snapshot: bool) -> Rig {
    let mut rig = Rig::with(tiny(1).snapshot_on_close(snapshot));
    for key in 0..8_u8 {
        rig.put([key], [key; 40]);
    }
    rig.put([3], "again");
    rig.delete([4]);
    rig.write(&[("batch 1", "one"), ("batch 2", "two")]);
    let soon = WriteOptions::new().ttl(Duration::from_millis(10));
    rig.db().put_with(b"expired", b"gone", soon).expect("puts");
    rig.note(b"expired", None);
    let late = WriteOptions::new().ttl(Duration::from_secs(1000));
    rig.db().put_with(b"late", b"there", late).expect("puts");
    rig.note(b"late", Some(b"there"));
    rig.disk.advance(20);
    rig.close();
    rig
}

/// Opens the store in the state it is in, on a disk of its own, and compares. Answers how many index
/// files were ignored.
fn opens_the_same(rig: &Rig, damage: impl FnOnce(&caskade_shard::storage::sim::SimDisk)) -> usize {
    let disk = rig.disk.fork();
    damage(&disk);
    let db = rig.builder.clone().storage(disk.storage()).open().expect("opens");
    crate::rig::compare(&db, &rig.model, &rig.keys);
    assert_eq!(db.len(), rig.model.len() as u64 + 1, "the expired key is still counted");
    db.open_report().shards.iter().map(|shard| shard.ignored.len()).sum()
}

fn damage_everywhere(rig: &Rig, path: &Path) {
    let bytes = rig.disk.read_file(path).unwrap();
    assert_eq!(opens_the_same(rig, |_| {}), 0);
    for at in 0..bytes.len() as u64 {
        let ignored = opens_the_same(rig, |disk| disk.flip_bit(path, at, at as u32 % 8).unwrap());
        assert_eq!(ignored, 1, "{}: byte {at} flipped", path.display());
        let ignored =
            opens_the_same(rig, |disk| disk.write_file(path, &bytes[..at as usize]).unwrap());
        assert_eq!(ignored, 1, "{}: cut at {at}", path.display());
    }
    let longer = [&bytes[..], &[0; 8]].concat();
    assert_eq!(opens_the_same(rig, |disk| disk.write_file(path, &longer).unwrap()), 1);
}

#[test]
fn a_hint_damaged_anywhere_is_ignored() {
    let rig = motley(false);
    let hints = rig.files(0, ".hint");
    assert!(hints.len() > 1);
    damage_everywhere(&rig, &hints[0]);
    damage_everywhere(&rig, hints.last().expect("more than one"));
}

#[test]
fn a_snapshot_damaged_anywhere_is_ignored() {
    let rig = motley(true);
    let path = Rig::shard_dir(0).join("KEYDIR");
    assert!(rig.disk.exists(&path));
    damage_everywhere(&rig, &path);
}

/// Leaves say how the keydir was divided when they were written, and any division serves.
#[test]
fn a_snapshot_divided_into_other_leaves_serves() {
    let rig = motley(true);
    let path = Rig::shard_dir(0).join("KEYDIR");
    let bytes = rig.disk.read_file(&path).unwrap();
    let snapshot = Snapshot::open(&bytes).unwrap();
    let mut entries: Vec<_> =
        snapshot.leaves().flat_map(|leaf| leaf.unwrap().entries(&bytes)).collect();
    entries.sort_unstable();
    for size in 1..=entries.len() {
        let mut header = snapshot.header().clone();
        header.leaves = entries.len().div_ceil(size) as u32;
        let mut divided = header.encode();
        for (index, leaf) in (0..).zip(entries.chunks(size)) {
            snapshot::encode_leaf(index, leaf[0].0, leaf, &mut divided);
        }
        assert_eq!(opens_the_same(&rig, |disk| disk.write_file(&path, &divided).unwrap()), 0);
    }
}

/// A snapshot with right checksums that is of another shard, or of segments that are not these.
#[test]
fn a_snapshot_of_something_else_is_ignored() {
    let rig = motley(true);
    let path = Rig::shard_dir(0).join("KEYDIR");
    let bytes = rig.disk.read_file(&path).unwrap();
    let snapshot = Snapshot::open(&bytes).unwrap();
    let ignored = |change: &dyn Fn(&mut snapshot::Header)| {
        let mut header = snapshot.header().clone();
        change(&mut header);
        let mut forged = header.encode();
        forged.extend_from_slice(&bytes[snapshot.header().encode().len()..]);
        opens_the_same(&rig, |disk| disk.write_file(&path, &forged).unwrap())
    };
    assert_eq!(ignored(&|_| {}), 0);
    assert_eq!(ignored(&|header| header.uuid.0[0] ^= 1), 1);
    assert_eq!(ignored(&|header| header.shard.0 += 1), 1);
    assert_eq!(ignored(&|header| header.seqno.0 += 1), 1);
    assert_eq!(ignored(&|header| header.seqno.0 -= 1), 1, "a segment goes on behind it");
    let twice = |header: &mut snapshot::Header| {
        let last = *header.segments.last().unwrap();
        header.segments.push(snapshot::Segment { slot: last.slot + 1, ..last });
    };
    assert_eq!(ignored(&twice), 1);
    for index in 0..snapshot.header().segments.len() {
        assert_eq!(ignored(&|header| header.segments[index].len += 8), 1);
        assert_eq!(ignored(&|header| header.segments[index].len -= 8), 1);
    }
}

/// Every hint in the place of every other.
#[test]
fn a_hint_of_another_segment_is_rejected() {
    let rig = motley(false);
    let hints = rig.files(0, ".hint");
    for (from, to) in hints.iter().flat_map(|a| hints.iter().map(move |b| (a, b))) {
        let bytes = rig.disk.read_file(from).unwrap();
        let ignored = opens_the_same(&rig, |disk| disk.write_file(to, &bytes).unwrap());
        assert_eq!(ignored, usize::from(from != to));
    }
}

/// Two lives wrote the same segment id, with the same salt, after a common past.
#[test]
fn a_hint_of_an_earlier_file_with_the_same_name_is_rejected() {
    let mut rig = motley(false);
    rig.open();
    let before = rig.files(0, ".hint");
    let fork = rig.disk.fork();
    rig.put("k", "one");
    rig.put("l", "two");
    rig.close();
    let new: Vec<_> =
        rig.files(0, ".hint").into_iter().filter(|path| !before.contains(path)).collect();
    assert_eq!(new.len(), 1);
    // The other life wrote other things of the same shape.
    let db = rig.builder.clone().storage(fork.storage()).open().expect("opens");
    db.put(b"x", b"one").unwrap();
    db.put(b"l", b"two").unwrap();
    db.close().unwrap();
    let hint = fork.read_file(&new[0]).expect("the same id was used");
    let ignored = opens_the_same(&rig, |disk| disk.write_file(&new[0], &hint).unwrap());
    assert_eq!(ignored, 1);
}

/// Sets the checksums of a hint right.
fn mend_hint(bytes: &mut [u8]) {
    let body = checksum::of(&bytes[hint::HEADER_LEN..]);
    bytes[120..124].copy_from_slice(&body.to_le_bytes());
    let head = checksum::of(&bytes[..124]);
    bytes[124..128].copy_from_slice(&head.to_le_bytes());
}

/// A hint with right checksums, but with the hash of another key: a merge does not find the record
/// by its key, and must not take it away from under the keydir.
#[test]
fn a_forged_hint_does_not_let_a_merge_lose_records() {
    // Both segments begin with a put that lives.
    for index in [0, 1] {
        let mut rig = motley(false);
        let path = &rig.files(0, ".hint")[index];
        let mut bytes = rig.disk.read_file(path).unwrap();
        // The first entry: a length of one byte, then its hash.
        bytes[hint::HEADER_LEN + 1] ^= 1;
        mend_hint(&mut bytes);
        rig.disk.write_file(path, &bytes).unwrap();
        rig.open();
        let is_missing = |key: &&Vec<u8>| rig.db().get(key).expect("gets").is_none();
        let missing = rig.model.keys().filter(is_missing).count();
        assert_eq!(missing, 1, "the keydir has it under another hash");
        let refused = rig.db().compact();
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
        rig.settle_down();
        assert_eq!(crate::rig::contents(rig.db()), rig.model);
        rig.close();
        rig.disk.remove_file(path).unwrap();
        rig.open();
        rig.prove();
    }
}

/// A snapshot with right checksums, of which the numbers of live records are none: no segment may go
/// while the keydir points into it.
#[test]
fn a_snapshot_that_counts_nothing_as_live_leaves_nothing_dangling() {
    const LIVE_BYTES_AT: usize = 92;
    const ROW_LEN: usize = 36;
    let mut rig = motley(true);
    let path = Rig::shard_dir(0).join("KEYDIR");
    let mut bytes = rig.disk.read_file(&path).unwrap();
    let segments = u32::from_le_bytes(*bytes[64..].first_chunk().unwrap()) as usize;
    for row in 0..segments {
        bytes[LIVE_BYTES_AT + row * ROW_LEN..][..16].fill(0);
    }
    let end = 72 + segments * ROW_LEN;
    let crc = checksum::of(&bytes[..end]);
    bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
    rig.disk.write_file(&path, &bytes).unwrap();
    rig.open();
    rig.put([0], "over what counts as dead");
    rig.settle_down();
    let left = crate::rig::contents(rig.db());
    for (key, value) in &rig.model {
        let found = rig.db().get(key).expect("gets").map(Vec::from);
        assert!(found.is_none() || found.as_ref() == Some(value));
        assert_eq!(left.get(key), found.as_ref());
    }
}

/// A power cut in every call of a close keeps all of the indexes and as little as it may of the data.
#[test]
fn an_index_that_outlives_its_data_is_rejected() {
    for snapshot in [false, true] {
        for call in 1.. {
            let mut rig = Rig::with(tiny(1).snapshot_on_close(snapshot));
            rig.put_durably("kept", "durable");
            let durable = rig.model.clone();
            for key in 0..6_u8 {
                rig.put([key], [key; 120]);
            }
            rig.disk.faults().clear();
            rig.disk.faults().crash_at_call(call, CrashEffect::Whole);
            let outcome = rig.db().close();
            if !rig.disk.crashed() {
                outcome.expect("nothing failed");
                assert!(call > 10);
                break;
            }
            let is_index = |path: &Path| {
                let name = path.to_str().unwrap();
                name.contains(".hint") || name.contains("KEYDIR")
            };
            rig.power_cut(&mut |pending: &Pending<'_>| match pending {
                Pending::Entry { path, .. } => is_index(path),
                Pending::Length { file, .. } | Pending::Sector { file, .. } => is_index(file),
            });
            rig.disk.faults().clear();
            rig.open();
            let found = crate::rig::contents(rig.db());
            assert_eq!(found.get(&b"kept"[..]), durable.get(&b"kept"[..]));
            // What is there is a prefix of what was written.
            let count = found.len() as u8 - 1;
            assert!((0..count).all(|key| found[&vec![key]] == [key; 120]), "{found:?}");
            rig.model = found;
            rig.prove();
        }
    }
}

/// From hints, from records, from the snapshot: the same keys, expired ones included, and the same
/// counts of what lives.
#[test]
fn the_keydir_is_the_same_from_every_source() {
    for compact in [false, true] {
        let mut rig = motley(false);
        if compact {
            rig.open();
            // Merged segments have hints too. The merge forgets what is expired.
            rig.db().compact().expect("compacts");
            rig.close();
        }
        rig.open();
        let sources = |rig: &Rig| {
            let report = &rig.db().open_report().shards[0];
            (report.hints_read > 0, report.segments_scanned > 0, report.keys_from_snapshot > 0)
        };
        assert_eq!(sources(&rig), (true, false, false));
        let counts = |rig: &Rig| {
            let total = rig.db().stats().total;
            (total.keys, total.live_bytes, total.total_bytes)
        };
        let from_hints = counts(&rig);
        rig.compare();
        rig.close();
        strip_indexes(&rig.disk, HOME);
        rig.open();
        assert_eq!(sources(&rig), (false, true, false));
        assert_eq!(counts(&rig), from_hints);
        rig.compare();
        rig.builder = rig.builder.clone().snapshot_on_close(true);
        rig.reopen();
        // Something must be written, or the close leaves everything as it is.
        rig.put("last", "write");
        rig.reopen();
        let (keys, ..) = counts(&rig);
        assert_eq!(sources(&rig), (false, false, true));
        assert_eq!(keys, from_hints.0 + 1);
        rig.compare();
    }
}

/// The store opens without, and says so.
#[test]
fn an_index_that_cannot_be_read_is_reported() {
    for (snapshot, suffix) in [(false, ".hint"), (true, "KEYDIR")] {
        let rig = motley(snapshot);
        let count = rig.files(0, suffix).len();
        assert!(count > 0);
        let ignored = opens_the_same(&rig, |disk| {
            disk.faults().set_rule(move |call| {
                let is_index = call.path.to_string_lossy().ends_with(suffix);
                if is_index { Verdict::Fail(EIO) } else { Verdict::Proceed }
            });
        });
        assert_eq!(ignored, count);
    }
}

#[test]
fn an_open_tells_what_it_read() {
    let mut rig = motley(false);
    let segments = rig.files(0, ".seg");
    let bytes: u64 =
        segments.iter().map(|path| rig.disk.read_file(path).unwrap().len() as u64).sum();
    let count = segments.len() as u64;
    let report = |rig: &Rig| {
        let report = rig.db().open_report().shards[0].clone();
        assert_eq!(report.keys, rig.db().len());
        (report.segments, report.hints_read, report.segments_scanned, report.bytes_scanned)
    };
    rig.open();
    assert_eq!(report(&rig), (count, count, 0, 0));
    rig.close();
    strip_indexes(&rig.disk, HOME);
    rig.open();
    assert_eq!(report(&rig), (count, 0, count, bytes));
    // One more that is not sealed: its header, and a frame of 24 bytes for the two.
    rig.put("k", "v");
    rig.restart();
    assert_eq!(report(&rig), (count + 1, 0, count + 1, bytes + 64 + 24));
}

#[test]
fn a_close_writes_a_snapshot_where_it_tells_something_new() {
    let mut rig = motley(true);
    let close_writes = |rig: &mut Rig| {
        rig.disk.faults().start_trace();
        rig.close();
        let calls = rig.disk.faults().take_trace();
        calls.iter().any(|call| call.path.to_string_lossy().contains("KEYDIR"))
    };
    rig.open();
    assert!(!close_writes(&mut rig), "nothing happened");
    rig.open();
    rig.put("k", "v");
    assert!(close_writes(&mut rig));
    // A merge writes nothing new, but the snapshot names segments that are no more.
    rig.open();
    rig.db().compact().unwrap();
    rig.kill();
    rig.open();
    assert!(close_writes(&mut rig), "of the merged segments");
    rig.open();
    assert!(!close_writes(&mut rig), "nothing happened again");
    rig.open();
    rig.prove();
}

/// Its length says nothing about what is in it, and must not be what the process dies of.
#[test]
fn a_snapshot_longer_than_all_memory_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Db::builder(&path).shards(1).open().unwrap();
    db.put(b"k", b"v").unwrap();
    db.close().unwrap();
    let keydir = std::fs::OpenOptions::new().write(true).open(path.join("shard-000/KEYDIR"));
    let overcommit = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap_or_default();
    if overcommit.trim() == "1" {
        eprintln!("skipped: this system grants any memory that it is asked for");
        return;
    }
    // A hole, which takes no space.
    if keydir.unwrap().set_len(8 << 40).is_err() {
        eprintln!("skipped: this file system has no files of that length");
        return;
    }
    let db = Db::open(&path).unwrap();
    assert_eq!(db.open_report().shards[0].ignored.len(), 1);
    assert_eq!(db.get(b"k").unwrap().unwrap(), b"v");
}
