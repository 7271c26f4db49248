//! Merges beside readers, writers, iterators and crashes.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use caskade::{Db, Stats};
use caskade_shard::storage::sim::{CrashEffect, Rng};

use crate::rig::{Dice, HOME, Pairs, Rig, compare, contents, files, strip_indexes, tiny};

/// Each write rotates, while another thread checkpoints, verifies and iterates: nobody meets a
/// segment that is not there yet or no longer.
#[test]
fn rotations_beside_those_who_list_the_segments() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::builder(dir.path().join("db"))
        .shards(2)
        .segment_bytes_max(4096)
        .segment_bytes_min(256)
        .open()
        .unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for i in 0..2_000_u32 {
                db.put(&(i % 50).to_le_bytes(), &[i as u8; 200]).unwrap();
            }
        });
        let mut rounds = 0_u32;
        while !writer.is_finished() || rounds == 0 {
            let target = dir.path().join(format!("copy-{rounds}"));
            db.checkpoint(&target).unwrap();
            let copy = Db::open(&target).unwrap();
            assert!(copy.open_report().is_clean(), "{:?}", copy.open_report());
            let copied: BTreeSet<_> = contents(&copy).into_keys().collect();
            assert_eq!(copied.len() as u64, copy.len());
            assert!(db.verify(|_| true).unwrap().is_clean());
            assert!(db.iter().unwrap().all(|entry| entry.is_ok()));
            rounds += 1;
        }
    });
    assert_eq!(db.len(), 50);
}

/// An iterator held across overwrites, deletes and compactions sees exactly its snapshot.
#[test]
fn iterators_see_their_snapshot_across_compactions() {
    let mut rig = Rig::with(tiny(4));
    for key in 0..100_u8 {
        rig.put([key], [key; 50]);
    }
    let snapshot = rig.model.clone();
    let mut iter = rig.db().iter().expect("iterates");
    let mut seen = Pairs::new();
    for round in 0..10_u8 {
        for entry in iter.by_ref().take(10) {
            let entry = entry.expect("reads the entry");
            seen.insert(entry.key.to_vec(), entry.value.to_vec());
        }
        for key in 0..100_u8 {
            if (key + round) % 3 == 0 {
                rig.put([key], [round; 60]);
            }
        }
        for key in (0..100_u8).filter(|key| key % 7 == round % 7) {
            if rig.model.contains_key(&vec![key]) {
                rig.delete([key]);
            }
        }
        rig.db().compact().expect("compacts");
        rig.compare();
    }
    assert!(iter.next().is_none());
    assert_eq!(seen, snapshot);
    rig.prove();
}

/// A leaked iterator keeps what it needs and blocks nobody else.
#[test]
fn a_leaked_iterator_blocks_no_merge() {
    let mut rig = Rig::with(tiny(2));
    for key in 0..20_u8 {
        rig.put([key], [key; 100]);
    }
    std::mem::forget(rig.db().iter().expect("iterates"));
    for round in 0..50_u8 {
        for key in 0..20_u8 {
            rig.put([key], [round; 100]);
        }
        rig.db().compact().expect("compacts");
        let stats = rig.db().stats().total;
        assert!(stats.total_bytes < 20 * 200 + 8 * 64, "{stats:?}");
    }
    rig.prove();
}

/// Maps of files below this directory that were removed.
fn deleted_maps(dir: &Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let dir = dir.to_str().unwrap();
    maps.lines().filter(|line| line.contains(dir) && line.ends_with("(deleted)")).count()
}

/// A store on disk with segments that a compaction replaces.
fn store_to_compact(dir: &Path) -> Db {
    let db = Db::builder(dir).shards(1).open().unwrap();
    for key in 0..1000_u32 {
        db.put(&key.to_le_bytes(), &[7; 1000]).unwrap();
    }
    db
}

/// The space of what an iterator kept comes back when it is dropped.
#[test]
fn the_space_of_an_iterator_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let db = store_to_compact(&dir.path().join("db"));
    let iter = db.iter().unwrap();
    // Something must be dead, or compacting leaves everything where it is.
    db.put(&0_u32.to_le_bytes(), &[7; 1000]).unwrap();
    db.compact().unwrap();
    assert!(deleted_maps(dir.path()) > 0, "the iterator keeps the merged segment");
    assert_eq!(iter.count(), 1000);
    assert_eq!(deleted_maps(dir.path()), 0);
}

/// What a merge replaced is let go at once, and where a reader was in the way soon after, although nobody
/// writes any more.
#[test]
fn the_space_of_merged_segments_comes_back_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let db = store_to_compact(&dir.path().join("db"));
    db.put(&0_u32.to_le_bytes(), &[7; 1000]).unwrap();
    db.compact().unwrap();
    assert_eq!(deleted_maps(dir.path()), 0);
    // Something to compact, and nothing for which the background would wake up.
    db.delete(&0_u32.to_le_bytes()).unwrap();
    drop(db);
    let db = Db::open(dir.path().join("db")).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    db.get_many_with(&[1_u32.to_le_bytes()], |_, _| {
        std::thread::scope(|scope| {
            scope.spawn(|| db.compact().unwrap());
        });
        assert!(deleted_maps(dir.path()) > 0, "this reader may be in the merged segment");
    })
    .unwrap();
    let begun = Instant::now();
    while deleted_maps(dir.path()) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(1), "nobody looks again");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A merge that makes way for closing is no error of the background.
#[test]
fn closing_during_a_merge_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let (fault, faults) = std::sync::mpsc::channel();
    let db = Db::builder(dir.path().join("db"))
        .shards(1)
        .segment_bytes_max(1 << 20)
        .merge_bytes_per_sec(Some(50_000))
        .on_background_error(move |error| fault.send(error.to_string()).unwrap())
        .open()
        .unwrap();
    let mut keys = (0..1000_u32).cycle();
    // Until merging is far behind.
    while db.stats().brake_micros < 1000 {
        db.put(&keys.next().unwrap().to_le_bytes(), &[7; 1000]).unwrap();
    }
    db.close().unwrap();
    assert_eq!(faults.try_iter().collect::<Vec<_>>(), [""; 0]);
}

/// What waits for the merge window is merged when it opens, although nobody writes any more.
#[test]
fn the_merge_window_opens_by_itself() {
    const MINUTE: u64 = 60_000;
    let mut rig = Rig::with(tiny(1).merge_window(60, 120));
    rig.disk.set_wall_ms(130 * MINUTE);
    for round in 0..200_u8 {
        // One that lives on in each segment.
        rig.put([round, 1], [round; 10]);
        for key in 0..20_u8 {
            rig.put([key], [round; 100]);
        }
    }
    let total = |rig: &mut Rig| {
        rig.settle_down();
        rig.db().stats().total.total_bytes
    };
    let before = total(&mut rig);
    rig.disk.set_wall_ms((1440 + 59) * MINUTE);
    assert_eq!(total(&mut rig), before);
    assert_eq!(rig.db().stats().brake_micros, 0, "writers wait for no merge that waits itself");
    rig.disk.set_wall_ms((1440 + 60) * MINUTE);
    assert!(rig.db().stats().brake_micros > 0);
    let after = total(&mut rig);
    assert!(after < before * 2 / 3, "{before} to {after}");
    rig.prove();
}

/// Killed, and powered off, in every storage call from the first of a compaction to the last.
#[test]
fn a_crash_in_any_call_of_a_compaction_changes_nothing() {
    let prepared = || {
        let mut rig = Rig::with(tiny(2));
        for key in 0..12_u8 {
            rig.put([key], [key; 70]);
        }
        for key in (0..12_u8).step_by(3) {
            rig.delete([key]);
        }
        for key in (1..12_u8).step_by(3) {
            rig.put([key], [0xee; 50]);
        }
        rig.db().sync().expect("syncs");
        rig
    };
    let calls = {
        let rig = prepared();
        rig.disk.faults().clear();
        rig.db().compact().expect("compacts");
        rig.disk.faults().calls()
    };
    assert!(calls > 20, "only {calls} calls");
    for call in 1..=calls {
        for (cut, effect) in
            [(false, CrashEffect::Whole), (true, CrashEffect::Nothing), (true, CrashEffect::Random)]
        {
            let mut rig = prepared();
            rig.disk.faults().clear();
            rig.disk.faults().crash_at_call(call, effect);
            let _ = rig.db().compact();
            assert!(rig.disk.crashed(), "call {call}");
            if cut {
                rig.power_cut(&mut caskade_shard::storage::sim::RandomChooser::new(&mut Rng::new(
                    call,
                )));
            } else {
                rig.kill();
            }
            rig.disk.faults().clear();
            rig.open();
            rig.prove();
        }
    }
}

fn counts(stats: &Stats) -> Vec<(u64, u64)> {
    stats.shards.iter().map(|shard| (shard.keys, shard.live_bytes)).collect()
}

/// After many random operations the counters equal a recount, and no work is left that would be
/// done again and again.
#[test]
fn counters_equal_a_recount_after_ten_thousand_operations() {
    let mut rig = Rig::with(tiny(2));
    let mut dice = Dice::new(13);
    for step in 0..10_000_u32 {
        let key = [dice.below(60) as u8];
        match dice.below(10) {
            0..6 => rig.put(key, vec![step as u8; dice.below(150) as usize]),
            6..8 => rig.delete(key),
            8 => {
                let other = [dice.below(60) as u8 + 100];
                let mut batch = caskade::Batch::new();
                batch.put(&key, b"batched").put(&other, &step.to_le_bytes()).delete(&other);
                rig.db().write(&batch).expect("writes");
                rig.note(&key, Some(b"batched"));
                rig.note(&other, None);
            }
            _ => {
                rig.db().run_background();
            }
        }
    }
    rig.settle_down();
    rig.compare();
    let stats = rig.db().stats();
    // Idle background work does nothing, however often it is asked.
    for _ in 0..10 {
        rig.settle_down();
    }
    let idle = rig.db().stats();
    assert_eq!(idle.total.merged_bytes, stats.total.merged_bytes);
    assert_eq!(idle.total.merges, stats.total.merges);
    // Files, recounted: what the counters call total is what lies on the disk.
    let on_disk: u64 = (0..2)
        .flat_map(|shard| rig.files(shard, ".seg"))
        .map(|path| rig.disk.read_file(path).unwrap().len() as u64)
        .sum();
    assert!(on_disk >= stats.total.total_bytes, "{on_disk} {:?}", stats.total);
    let counted = counts(&stats);
    rig.restart();
    assert_eq!(counts(&rig.db().stats()), counted, "recounted from hints and records");
    rig.close();
    strip_indexes(&rig.disk, HOME);
    rig.open();
    assert_eq!(counts(&rig.db().stats()), counted, "recounted from records");
    rig.close();
    rig.open();
    assert_eq!(counts(&rig.db().stats()), counted, "from the snapshot");
    let sealed: u64 = (0..2)
        .flat_map(|shard| files(&rig.disk, &Rig::shard_dir(shard), ".seg"))
        .map(|path| rig.disk.read_file(path).unwrap().len() as u64)
        .sum();
    assert_eq!(rig.db().stats().total.total_bytes, sealed);
    compare(rig.db(), &rig.model, &rig.keys);
}
