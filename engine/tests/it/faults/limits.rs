//! Full disks, failing calls, sizes at and over their limits.

use std::path::Path;
use std::time::Duration;

use caskade::{Batch, Db, Durability, Error, Expiry, WriteOptions};
use caskade_shard::storage::sim::{Call, CrashEffect, FailedSync, Op, Pending, Repeat, Verdict};

use crate::rig::{Rig, tiny};

const EIO: i32 = 5;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EXDEV: i32 = 18;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;

/// Fills the disk, and answers how many keys found a place.
fn fill(rig: &mut Rig) -> u32 {
    for key in 0..1_000_000_u32 {
        match rig.db().put(&key.to_le_bytes(), &[7; 1000]) {
            Ok(_) => rig.note(&key.to_le_bytes(), Some(&[7; 1000])),
            Err(error) => {
                assert!(matches!(error, Error::NoSpace { .. }), "{error}");
                return key;
            }
        }
    }
    panic!("the disk is never full");
}

#[test]
fn a_full_disk_heals_without_reopening() {
    let mut rig = Rig::with(tiny(1).segment_bytes_max(64 << 10));
    rig.disk.faults().set_free_space(Some(1 << 20));
    let count = fill(&mut rig);
    assert!(count > 500, "only {count} keys fit");
    // Nothing of the failed write is there; reads go on; more writes fail the same way.
    assert!(rig.db().get(&count.to_le_bytes()).unwrap().is_none());
    rig.compare();
    assert!(rig.db().poisoned().is_none());
    let error = rig.db().put(b"k", &[0; 5000]).expect_err("still full");
    assert!(error.is_no_space(), "{error}");
    let mut batch = Batch::new();
    for key in 0..200_u32 {
        batch.put(&key.to_le_bytes(), &[1; 1000]);
    }
    let error = rig.db().write(&batch).expect_err("still full");
    assert!(error.is_no_space(), "{error}");
    rig.compare();
    // Space comes from without.
    rig.disk.faults().set_free_space(Some(1 << 20));
    rig.put("k", "there is space again");
    rig.compare();
    rig.restart();
    rig.compare();
    rig.prove();
}

#[test]
fn a_full_disk_is_emptied_from_within() {
    let mut rig = Rig::with(tiny(1).segment_bytes_max(64 << 10));
    rig.disk.faults().set_free_space(Some(1 << 20));
    let count = fill(&mut rig);
    // Every second key goes: deletes are taken, merges have what they need.
    let mut deleted = 0;
    for key in (0..count).filter(|key| key % 4 != 0) {
        if rig.db().delete(&key.to_le_bytes()).is_ok() {
            rig.note(&key.to_le_bytes(), None);
            deleted += 1;
        } else {
            rig.settle_down();
            rig.db().compact().expect("compacts on a full disk");
        }
    }
    assert!(deleted > count / 2, "{deleted} of {count}");
    rig.compare();
    rig.db().compact().expect("compacts on a full disk");
    rig.compare();
    rig.put("k", [1; 5000]);
    rig.restart();
    rig.prove();
}

/// What can't be sealed for want of space keeps no merge waiting, which makes some.
#[test]
fn a_full_disk_is_emptied_by_merges_though_nothing_can_be_sealed() {
    let mut rig = Rig::with(tiny(1).segment_bytes_max(64 << 10));
    let write = |rig: &mut Rig| (0..200_u32).for_each(|key| rig.put(key.to_le_bytes(), [1; 1000]));
    write(&mut rig);
    rig.settle_down();
    (0..2).for_each(|_| write(&mut rig));
    rig.disk.faults().set_free_space(Some(0));
    let freed = rig.db().stats().total.freed_bytes;
    for _ in 0..3 {
        while rig.db().run_background() {}
        rig.disk.advance(1000);
    }
    assert!(rig.db().stats().total.freed_bytes > freed);
    rig.prove();
}

/// All that makes space has the reserve: deletes in a batch, and those that ask first.
#[test]
fn a_full_disk_takes_deletes_of_every_kind() {
    type Delete = fn(&Db, &[u8]) -> caskade::Result<()>;
    let kinds: [Delete; 3] = [
        |db, key| db.delete(key).map(drop),
        |db, key| db.compare_and_swap(key, Some(b""), None).map(|swapped| assert!(swapped)),
        |db, key| db.write(Batch::new().delete(key)).map(drop),
    ];
    for delete in kinds {
        let mut rig = Rig::with(tiny(1).segment_bytes_max(64 << 10));
        rig.disk.faults().set_free_space(Some(1 << 20));
        // To the last byte.
        let count = (0..1_000_000_u32).find(|key| {
            let key = key.to_le_bytes();
            let is_full = rig.db().put(&key, b"").is_err();
            if !is_full {
                rig.note(&key, Some(b""));
            }
            is_full
        });
        assert!(count.is_some_and(|count| count > 1000), "{count:?}");
        for key in 0..100_u32 {
            delete(rig.db(), &key.to_le_bytes()).expect("deletes");
            rig.note(&key.to_le_bytes(), None);
        }
        rig.compare();
        rig.restart();
        rig.prove();
    }
}

/// A journal for which there is no room takes none.
#[test]
fn what_was_begun_of_a_journal_goes() {
    let mut rig = Rig::new();
    let storage = rig.disk.storage();
    rig.disk.faults().set_rule(|call| {
        let is_journal = call.path.starts_with("/db/JOURNAL-0.tmp");
        if is_journal && call.op == Op::Write { Verdict::Fail(ENOSPC) } else { Verdict::Proceed }
    });
    rig.put_durably("k", "v");
    let names: Vec<_> = storage.list_dir("/db".as_ref()).unwrap();
    assert!(
        names.iter().all(|entry| !entry.name.to_string_lossy().contains("JOURNAL")),
        "{names:?}"
    );
    rig.prove();
}

/// On a full disk, opening, reading and closing go on.
#[test]
fn a_full_disk_opens() {
    let mut rig = Rig::with(tiny(1).segment_bytes_max(64 << 10));
    rig.disk.faults().set_free_space(Some(1 << 20));
    fill(&mut rig);
    rig.kill();
    rig.disk.faults().set_free_space(Some(0));
    rig.open();
    rig.compare();
    // Nothing fits, but nothing is lost either.
    let _ = rig.db().close();
    rig.kill();
    rig.open();
    rig.compare();
    rig.disk.faults().clear();
    rig.prove();
}

/// What was acknowledged is durable when a store was closed on a full disk. Only the files that make
/// the next open fast are missing, and that is no error.
#[test]
fn a_full_disk_closes() {
    for free in [0, 2048, 8192] {
        let mut rig = Rig::with(tiny(2).segment_bytes_max(64 << 10));
        rig.disk.faults().set_free_space(Some(1 << 20));
        fill(&mut rig);
        rig.disk.faults().set_free_space(Some(free));
        rig.db().close().expect("closes");
        rig.disk.faults().clear();
        rig.power_cut(&mut |_: &Pending<'_>| false);
        rig.open();
        rig.compare();
        rig.prove();
    }
}

/// The fsync that fails is told to its writer as indeterminate; later writes are refused; reads go
/// on; and no file is ever synced again.
#[test]
fn a_failed_fsync_poisons() {
    for op in [Op::Sync, Op::SyncDir] {
        for manner in [FailedSync::DropAll, FailedSync::DropSome, FailedSync::KeepDirty] {
            let mut rig = Rig::with(tiny(2));
            rig.put_durably("before", "durable");
            rig.put("buffered", "in the log");
            rig.disk.faults().set_failed_sync(manner);
            let mut has_failed = false;
            rig.disk.faults().set_rule(move |call| {
                let is_it = call.op == op && !has_failed;
                has_failed |= is_it;
                if is_it { Verdict::Fail(EIO) } else { Verdict::Proceed }
            });
            let durably = WriteOptions::new().durability(Durability::Sync);
            // Large, so that it goes past the journal and makes a file.
            let error = rig.db().put_with(b"k", &[1; 9000], durably).expect_err("fails");
            assert!(matches!(error, Error::Indeterminate { .. }), "{op:?}: {error}");
            assert!(rig.db().poisoned().is_some());
            rig.disk.faults().start_trace();
            let error = rig.db().put(b"l", b"v").expect_err("poisoned");
            assert!(matches!(error, Error::Poisoned { .. }), "{error}");
            assert!(matches!(rig.db().delete(b"before"), Err(Error::Poisoned { .. })));
            assert!(rig.db().sync().is_err());
            assert!(rig.db().compact().is_err());
            rig.db().run_background();
            assert_eq!(rig.db().get(b"before").unwrap().unwrap(), b"durable");
            assert_eq!(rig.db().get(b"buffered").unwrap().unwrap(), b"in the log");
            assert!(rig.db().iter().unwrap().all(|entry| entry.is_ok()));
            assert!(matches!(rig.db().close(), Err(Error::Poisoned { .. })), "close says so");
            let trace = rig.disk.faults().take_trace();
            assert!(
                trace.iter().all(|call| !matches!(call.op, Op::Sync | Op::SyncDir)),
                "{trace:?}"
            );
            rig.power_cut(&mut |_: &Pending<'_>| false);
            rig.disk.faults().clear();
            rig.open();
            assert_eq!(rig.db().get(b"before").unwrap().unwrap(), b"durable");
            rig.put_durably("after", "works");
        }
    }
}

/// An error of the device in any other call is a typed error of that write, and no more.
#[test]
fn an_error_of_the_device_is_rolled_back() {
    for allocate in [true, false] {
        let mut rig = Rig::with(tiny(2));
        rig.disk.faults().set_allocate_unsupported(!allocate);
        rig.put("before", "there");
        let op = if allocate { Op::Allocate } else { Op::Write };
        rig.disk.faults().set_rule(move |call| {
            let is_segment = call.path.extension().is_some_and(|extension| extension == "seg");
            if call.op == op && is_segment { Verdict::Fail(EIO) } else { Verdict::Proceed }
        });
        let mut failures = 0;
        for key in 0..10_u8 {
            match rig.db().put(&[key], &[key; 3000]) {
                Ok(_) => rig.note(&[key], Some(&[key; 3000])),
                Err(Error::Io { .. }) => failures += 1,
                Err(error) => panic!("{error}"),
            }
            let mut batch = Batch::new();
            for key in 0..20_u8 {
                batch.put(&[key], &[0xbb; 3000]);
            }
            failures += u32::from(rig.db().write(&batch).is_err());
        }
        assert!(failures > 10);
        rig.compare();
        rig.disk.faults().clear();
        rig.disk.faults().set_allocate_unsupported(!allocate);
        rig.put("after", "works");
        rig.restart();
        rig.compare();
        rig.prove();
    }
}

/// A batch that one shard could not take leaves no trace in the other, which had taken its part.
#[test]
fn a_batch_without_space_in_one_shard_leaves_nothing_in_the_other() {
    let mut rig = Rig::with(tiny(2));
    for key in 0..8_u8 {
        rig.put([key], [key; 50]);
    }
    for round in 0..4_u8 {
        rig.disk.faults().set_rule(|call| {
            let is_new = matches!(call.op, Op::Create | Op::Allocate);
            let is_there = call.path.starts_with("/db/shard-001");
            if is_new && is_there { Verdict::Fail(ENOSPC) } else { Verdict::Proceed }
        });
        let mut batch = Batch::new();
        for key in 0..20_u8 {
            batch.put(&[key], &[0xbb; 300]);
        }
        let error = rig.db().write(&batch).expect_err("no space in the second shard");
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        rig.compare();
        rig.disk.faults().clear();
        for key in 0..8_u8 {
            rig.put([key], [key + round; 50]);
        }
        rig.restart();
        rig.compare();
    }
    rig.prove();
}

/// The device may have got what was taken back, whose name the next batch uses again. So it is gone
/// there, too, before the batch is refused.
#[test]
fn what_is_taken_back_of_a_batch_is_synced_away() {
    let mut rig = Rig::with(tiny(3));
    for key in 0..12_u8 {
        rig.put([key], [key; 50]);
    }
    rig.db().sync().unwrap();
    let synced = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&synced);
    rig.disk.faults().set_rule(move |call| {
        let is_new = matches!(call.op, Op::Create | Op::Allocate);
        if call.op == Op::Sync && call.path.extension().is_some_and(|name| name == "seg") {
            seen.lock().unwrap().push(call.path.clone());
        }
        if is_new && call.path.starts_with("/db/shard-002") {
            Verdict::Fail(ENOSPC)
        } else {
            Verdict::Proceed
        }
    });
    let mut batch = Batch::new();
    for key in 0..60_u8 {
        batch.put(&[key], &[0xbb; 100]);
    }
    let error = rig.db().write(&batch).expect_err("no space in the third shard");
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    rig.disk.faults().clear();
    let synced = synced.lock().unwrap();
    for shard in ["/db/shard-000", "/db/shard-001"] {
        assert!(synced.iter().any(|path| path.starts_with(shard)), "{shard}: {synced:?}");
    }
    rig.compare();
    rig.prove();
}

#[test]
fn too_many_open_files_are_an_error_and_no_loss() {
    let mut rig = Rig::new();
    rig.put("k", "v");
    rig.disk.faults().fail_call(rig.disk.faults().calls() + 1, Repeat::ForGood, EMFILE);
    let error = rig.db().put(b"large", &vec![1; 50_000]).expect_err("needs a file");
    assert!(matches!(&error, Error::Io { .. }), "{error}");
    assert_eq!(rig.db().get(b"k").unwrap().unwrap(), b"v");
    rig.compare();
    rig.disk.faults().clear();
    rig.put("large", vec![1; 50_000]);
    rig.prove();
}

/// Without a handle a directory cannot be synced. That is no failed sync: nothing is lost, and with
/// handles again the same write becomes durable, without reopening.
#[test]
fn a_sync_that_finds_no_handle_is_made_up_for_by_the_next() {
    let mut rig = Rig::new();
    rig.disk.faults().set_rule(move |call| {
        if call.op == Op::OpenDir { Verdict::Fail(EMFILE) } else { Verdict::Proceed }
    });
    let durably = WriteOptions::new().durability(Durability::Sync);
    // Too large for the journal, in a segment whose name is not durable yet.
    rig.db().put_with(b"large", &[1; 9000], durably).expect_err("no handles");
    rig.disk.faults().clear();
    rig.db().sync().unwrap();
    rig.note(b"large", Some(&[1; 9000]));
    rig.power_cut(&mut |_: &Pending<'_>| false);
    rig.open();
    rig.prove();
}

/// A directory is open before a manifest gets its name in it: between the two, want of a handle would
/// leave unknown which one is there.
#[test]
fn no_handle_is_wanted_between_a_name_and_its_sync() {
    let mut rig = Rig::new();
    let names_a_manifest = |call: &Call| {
        call.op == Op::Rename && call.path.to_string_lossy().ends_with("MANIFEST.tmp")
    };
    let mut was_renamed = false;
    rig.disk.faults().set_rule(move |call| {
        let is_between = std::mem::replace(&mut was_renamed, names_a_manifest(call));
        let wants_one = matches!(call.op, Op::Open | Op::OpenDir | Op::Create);
        if is_between && wants_one { Verdict::Fail(EMFILE) } else { Verdict::Proceed }
    });
    (0..20_u32).for_each(|key| rig.put(key.to_le_bytes(), [1; 1000]));
    rig.settle_down();
    assert_eq!(rig.db().poisoned(), None);
    assert!(rig.db().stats().total.sealed > 0, "no manifest was written");
    rig.prove();
}

#[test]
fn a_sync_that_finds_no_handle_may_be_tried_again() {
    for op in [Op::OpenDir, Op::Create] {
        let mut rig = Rig::new();
        rig.put("before", "there");
        rig.disk.faults().set_rule(move |call| {
            if call.op == op { Verdict::Fail(EMFILE) } else { Verdict::Proceed }
        });
        let durably = WriteOptions::new().durability(Durability::Sync);
        // In a segment of its own, whose name must be synced.
        let error = rig.db().put_with(b"large", &[1; 9000], durably).expect_err("no handles");
        assert!(matches!(error, Error::Indeterminate { .. } | Error::Io { .. }), "{op:?}: {error}");
        assert_eq!(rig.db().poisoned(), None);
        rig.disk.faults().clear();
        rig.put_durably("large", vec![2; 9000]);
        rig.power_cut(&mut |_: &Pending<'_>| false);
        rig.open();
        rig.prove();
    }
}

/// Order never depends on the clock; only TTLs read it.
#[test]
fn a_jumping_clock_changes_no_order() {
    let mut rig = Rig::new();
    rig.disk.set_wall_ms(1_000_000_000);
    rig.put("k", "first");
    rig.disk.set_wall_ms(5);
    rig.put("k", "second");
    rig.seal();
    rig.disk.set_wall_ms(2_000_000_000);
    rig.put("k", "third");
    rig.disk.set_wall_ms(0);
    rig.compare();
    rig.restart();
    rig.compare();
    rig.db().compact().unwrap();
    rig.prove();
    // An expiry is a time: going back uncovers the version itself, never an older one.
    rig.disk.set_wall_ms(1000);
    let ttl = WriteOptions::new().ttl(Duration::from_secs(1));
    rig.db().put_with(b"k", b"short", ttl).unwrap();
    assert_eq!(rig.db().ttl(b"k").unwrap(), Some(Expiry::In(Duration::from_secs(1))));
    rig.note(b"k", None);
    rig.disk.set_wall_ms(u64::MAX);
    rig.compare();
    rig.disk.set_wall_ms(2500);
    rig.compare();
    rig.disk.set_wall_ms(1500);
    assert_eq!(rig.db().get(b"k").unwrap().unwrap(), b"short");
    rig.disk.set_wall_ms(2500);
    rig.db().compact().unwrap();
    rig.disk.set_wall_ms(0);
    rig.prove();
}

#[test]
fn keys_and_values_of_every_size() {
    let mut rig = Rig::with(tiny(2));
    rig.put("", "the empty key");
    rig.put("empty value", "");
    rig.put(vec![1; 65_536], "the longest key");
    rig.put("longer than a segment", vec![2; 300_000]);
    rig.compare();
    let error = rig.db().put(&vec![0; 65_537], b"v").expect_err("too long");
    assert!(matches!(error, Error::KeyTooLarge { len: 65_537, limit: 65_536 }), "{error}");
    assert!(matches!(rig.db().delete(&vec![0; 65_537]), Err(Error::KeyTooLarge { .. })));
    assert!(rig.db().get(&vec![0; 65_537]).unwrap().is_none());
    let mut batch = Batch::new();
    batch.put(b"small", b"v").put(&vec![0; 65_537], b"v");
    assert!(matches!(rig.db().write(&batch), Err(Error::KeyTooLarge { .. })));
    assert!(rig.db().get(b"small").unwrap().is_none(), "nothing of the batch is there");
    // A batch that no ordinary segment holds.
    let mut batch = Batch::new();
    for key in 0..100_u8 {
        batch.put(&[key], &[key; 3000]);
        rig.note(&[key], Some(&[key; 3000]));
    }
    rig.db().write(&batch).unwrap();
    assert!(rig.db().write(&Batch::new()).unwrap().is_none());
    rig.compare();
    rig.restart();
    rig.compare();
    rig.db().compact().unwrap();
    rig.prove();
    rig.delete("");
    rig.delete(vec![1; 65_536]);
    rig.prove();
}

/// A checkpoint that can't be made leaves the one that is there.
#[test]
fn a_checkpoint_that_cannot_be_made_leaves_the_one_before() {
    let faults = [
        (Op::HardLink, "/db/STORE", EXDEV),
        (Op::Create, "/db/shard-000/MANIFEST.tmp", ENOSPC),
        (Op::OpenDir, "/db/shard-000", EMFILE),
        (Op::OpenDir, "/copy", EMFILE),
        (Op::SyncDir, "/db/shard-000", EIO),
    ];
    for (op, place, fault) in faults {
        let mut rig = Rig::with(tiny(1));
        rig.put("k", "v");
        rig.db().checkpoint("/copy").unwrap();
        rig.put("k", "w");
        let open = || Db::builder("/copy").storage(rig.disk.storage()).read_only(true).open();
        let copied = || open().expect("opens").get(b"k").unwrap().unwrap();
        rig.disk.faults().set_rule(move |call| {
            let is_it = call.op == op && call.path == Path::new(place);
            if is_it { Verdict::Fail(fault) } else { Verdict::Proceed }
        });
        rig.db().checkpoint("/copy").expect_err("something fails");
        rig.disk.faults().clear();
        assert_eq!(copied(), b"v", "{op:?}");
        if rig.db().poisoned().is_none() {
            rig.db().checkpoint("/copy").unwrap();
            assert_eq!(copied(), b"w", "{op:?}");
        } else {
            // Nor does one that is not begun.
            rig.db().checkpoint("/copy").expect_err("poisoned");
            assert_eq!(copied(), b"v", "{op:?}");
        }
    }
}

/// The name that made the earlier checkpoint one is gone for good before anything of it is replaced, also
/// when another try removed it and did not come to the sync.
#[test]
fn a_checkpoint_that_is_half_replaced_is_none_after_a_power_cut() {
    let mut rig = Rig::with(tiny(2));
    let pairs = |value| ["a", "b", "c", "d", "e", "f", "g", "h"].map(|key| (key, value));
    rig.write(&pairs("v"));
    rig.db().checkpoint("/copy").unwrap();
    rig.write(&pairs("w"));
    rig.disk.faults().set_rule(|call| {
        let is_it = call.op == Op::SyncDir && call.path == Path::new("/copy");
        if is_it { Verdict::Crash(CrashEffect::Nothing) } else { Verdict::Proceed }
    });
    rig.db().checkpoint("/copy").expect_err("the process dies");
    rig.disk.faults().clear();
    rig.restart();
    rig.disk.faults().set_rule(|call| {
        let is_it = call.op == Op::Create && call.path == Path::new("/copy/shard-001/MANIFEST.tmp");
        if is_it { Verdict::Crash(CrashEffect::Nothing) } else { Verdict::Proceed }
    });
    rig.db().checkpoint("/copy").expect_err("the process dies again");
    rig.disk.faults().clear();
    rig.power_cut(&mut |_: &Pending<'_>| false);
    let copy = Db::builder("/copy").storage(rig.disk.storage()).read_only(true).open();
    assert!(matches!(copy, Err(Error::Damaged { .. })), "{copy:?}");
}

/// Files of another store are not taken for an unfinished checkpoint of this one.
#[test]
fn a_checkpoint_leaves_another_store_without_its_name_alone() {
    let mut rig = Rig::with(tiny(1));
    rig.put("k", "v");
    let other = Db::builder("/other").shards(1).storage(rig.disk.storage()).open().unwrap();
    other.put(b"k", b"another").unwrap();
    other.close().unwrap();
    let name = rig.disk.read_file("/other/STORE").unwrap();
    rig.disk.remove_file("/other/STORE").unwrap();
    let refused = rig.db().checkpoint("/other");
    assert!(matches!(refused, Err(Error::NotAStore { .. })), "{refused:?}");
    rig.disk.write_file("/other/STORE", &name).unwrap();
    let other = Db::builder("/other").storage(rig.disk.storage()).open().unwrap();
    assert_eq!(other.get(b"k").unwrap().unwrap(), b"another");
}

/// What the index of an earlier checkpoint says is not true of this one.
#[test]
fn a_checkpoint_does_not_keep_an_index_that_it_cannot_remove() {
    let mut rig = Rig::with(tiny(1));
    rig.put("k", "v");
    rig.reopen();
    rig.db().checkpoint("/copy").unwrap();
    rig.put("k", "w");
    rig.disk.faults().set_rule(|call| {
        let is_it = call.op == Op::Remove && call.path == Path::new("/copy/shard-000/KEYDIR");
        if is_it { Verdict::Fail(EIO) } else { Verdict::Proceed }
    });
    rig.db().checkpoint("/copy").expect_err("an index stays");
    rig.disk.faults().clear();
    rig.db().checkpoint("/copy").unwrap();
}

/// A sync in the target would be none of the store's directory.
#[test]
fn a_checkpoint_does_not_lie_in_its_store() {
    let rig = Rig::with(tiny(1));
    for target in ["/db", "/db/copy", "/db/shard-000/copy"] {
        let refused = rig.db().checkpoint(target);
        assert!(matches!(refused, Err(Error::NotAStore { .. })), "{target}: {refused:?}");
    }
}

/// Another disk's failure is none of the store's. But no checkpoint is believed in any more: what a
/// sync lost, the next one does not tell.
#[test]
fn a_failed_sync_in_a_target_ends_checkpoints_alone() {
    // The first of the directory itself is of the name that made it a checkpoint, the third of the one
    // that makes it one.
    let syncs = [
        (Op::SyncDir, "/", 1),
        (Op::SyncDir, "/copy/shard-000", 1),
        (Op::SyncDir, "/copy", 1),
        (Op::SyncDir, "/copy", 2),
        (Op::SyncDir, "/copy", 3),
        (Op::Sync, "/copy/STORE.tmp", 1),
    ];
    for (op, place, nth) in syncs {
        let mut rig = Rig::with(tiny(1));
        rig.put("k", "v");
        let mut seen = 0;
        rig.disk.faults().set_rule(move |call| {
            seen += u32::from(call.op == op && call.path == Path::new(place));
            if seen == nth { Verdict::Fail(EIO) } else { Verdict::Proceed }
        });
        rig.db().checkpoint("/copy").expect_err("a sync fails");
        rig.disk.faults().clear();
        assert_eq!(rig.db().poisoned(), None, "{op:?} {place}");
        rig.put("k", "w");
        let again = rig.db().checkpoint("/copy");
        assert!(matches!(again, Err(Error::Poisoned { .. })), "{op:?} {place}: {again:?}");
        rig.prove();
    }
}

/// A folder that a checkpoint can't open is no failure of the store.
#[test]
fn a_checkpoint_that_may_not_look_leaves_the_store_as_it_was() {
    for (place, fault) in [("/", ENOENT), ("/copy", ENOENT), ("/copy/shard-000", EACCES)] {
        let mut rig = Rig::with(tiny(1));
        rig.put("k", "v");
        rig.disk.faults().set_rule(move |call| {
            let is_there = call.op == Op::OpenDir && call.path == Path::new(place);
            if is_there { Verdict::Fail(fault) } else { Verdict::Proceed }
        });
        let error = rig.db().checkpoint("/copy").expect_err("a folder can't be opened");
        assert!(matches!(error, Error::Io { .. }), "{place}: {error}");
        rig.disk.faults().clear();
        assert_eq!(rig.db().poisoned(), None, "{place}");
        rig.put("k", "w");
        rig.db().checkpoint("/copy").unwrap();
        rig.prove();
    }
    // The folder above need not be one that may be read.
    let rig = Rig::with(tiny(1));
    rig.disk.faults().set_rule(move |call| {
        let is_above = call.op == Op::OpenDir && call.path == Path::new("/");
        if is_above { Verdict::Fail(EACCES) } else { Verdict::Proceed }
    });
    rig.db().checkpoint("/copy").unwrap();
}
