//! Long work that is watched and stopped, figures by segment, and hooks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caskade_shard::storage::sim::{Op, Verdict};

use crate::rig::{Rig, is_alone, tiny};
use caskade::{Batch, Db, Error, ScanCursor, SlowOperation, WriteOptions};

fn overwritten(path: &std::path::Path) -> Db {
    let db = Db::builder(path).shards(4).segment_bytes_max(1 << 20).open().expect("opens");
    for round in 0..3_u32 {
        for i in 0..20_000_u32 {
            db.put(&i.to_le_bytes(), &[round as u8; 100]).expect("puts");
        }
    }
    db
}

#[test]
fn a_compaction_tells_how_far_it_is_and_stops() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = overwritten(&dir.path().join("data"));
    let mut calls = 0;
    let stopped = db.compact_with(|_| {
        calls += 1;
        calls < 3
    });
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    assert_eq!(calls, 3, "it asks no more once it is told to stop");
    assert_eq!(db.iter().expect("iterates").flatten().count(), 20_000);

    let mut seen = Vec::new();
    db.compact_with(|now| {
        seen.push(now);
        true
    })
    .expect("compacts");
    assert!(seen.windows(2).all(|pair| pair[0].bytes_done <= pair[1].bytes_done), "{seen:?}");
    assert_eq!(seen.last().map(|last| last.bytes_done), seen.last().map(|last| last.bytes_total));
    assert_eq!(db.iter().expect("iterates").flatten().count(), 20_000);
}

#[test]
fn a_stopped_checkpoint_is_no_store_until_it_is_finished() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = overwritten(&dir.path().join("data"));
    let target = dir.path().join("copy");
    let stopped = db.checkpoint_with(&target, |now| now.shards_done < 2);
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    let refused = Db::builder(&target).read_only(true).open();
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
    let mut last = None;
    db.checkpoint_with(&target, |now| {
        last = Some(now);
        true
    })
    .expect("checkpoints");
    assert_eq!(last.map(|now| (now.shards_done, now.shards_total)), Some((4, 4)));
    assert_eq!(Db::builder(&target).read_only(true).open().expect("opens").len(), 20_000);
}

/// Two checkpoints that go into one place at once would leave neither.
#[test]
fn a_checkpoint_has_its_target_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = overwritten(&dir.path().join("data"));
    let target = dir.path().join("copy");
    db.checkpoint_with(&target, |_| {
        let other = std::thread::scope(|scope| scope.spawn(|| db.checkpoint(&target)).join());
        assert!(matches!(other, Ok(Err(Error::Locked { .. }))), "{other:?}");
        assert!(matches!(Db::open(&target), Err(Error::Damaged { .. } | Error::Locked { .. })));
        true
    })
    .expect("checkpoints");
    db.checkpoint(&target).expect("nobody else is there any more");
    assert_eq!(Db::open(&target).expect("opens").len(), 20_000);
}

/// Each turn of the journal needs what the one before last held in the segments. The background sees to
/// that ahead, not the writer who begins the turn.
#[test]
fn turns_of_the_journal_do_not_wait_for_segments() {
    let mut rig = Rig::with(tiny(4));
    let (is_put, waited) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (now, count) = (Arc::clone(&is_put), Arc::clone(&waited));
    rig.disk.faults().set_rule(move |call| {
        let is_segment = call.path.extension().is_some_and(|extension| extension == "seg");
        if call.op == Op::Sync && is_segment && now.load(Ordering::Relaxed) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Verdict::Proceed
    });
    for round in 0..200_u8 {
        is_put.store(true, Ordering::Relaxed);
        rig.put_durably([round % 8], [round; 20]);
        is_put.store(false, Ordering::Relaxed);
        rig.settle_down();
    }
    assert!(rig.db().stats().journal_commits > 100);
    assert_eq!(waited.load(Ordering::Relaxed), 0);
    rig.prove();
}

#[test]
fn segments_sum_up_to_their_shards() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("data");
    overwritten(&path).close().expect("closes");
    // Nothing changes while it is read.
    let db = Db::builder(&path).read_only(true).open().expect("opens");
    let (segments, stats) = (db.segment_stats(), db.stats());
    for (id, shard) in (0..).zip(&stats.shards) {
        let own = || segments.iter().filter(|one| one.shard == id);
        assert_eq!(own().map(|one| one.bytes).sum::<u64>(), shard.total_bytes);
        assert_eq!(own().map(|one| one.live_bytes).sum::<u64>(), shard.live_bytes);
        assert_eq!(own().filter(|one| one.is_sealed).count() as u64, shard.segments_sealed);
        assert!(own().map(|one| one.segment).is_sorted());
    }
    assert!(segments.iter().any(|one| one.live_bytes < one.bytes));
}

#[test]
fn what_is_put_if_absent_may_expire() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path().join("data")).expect("opens");
    let soon = WriteOptions::new().ttl(Duration::from_millis(20));
    assert!(db.put_if_absent_with(b"lease", b"mine", soon).expect("puts").is_some());
    assert!(db.put_if_absent_with(b"lease", b"theirs", soon).expect("puts").is_none());
    std::thread::sleep(Duration::from_millis(40));
    assert!(db.put_if_absent_with(b"lease", b"theirs", soon).expect("puts").is_some());
}

/// What a hook heard: operations with their keys.
type Heard = Arc<Mutex<Vec<(&'static str, Option<Vec<u8>>)>>>;

fn listening(path: &std::path::Path, threshold: Duration) -> (Db, Heard) {
    let heard = Heard::default();
    let ears = Arc::clone(&heard);
    let hook = move |slow: &SlowOperation<'_>| {
        assert!(slow.elapsed >= threshold);
        ears.lock().unwrap().push((slow.operation.name(), slow.key.map(<[u8]>::to_vec)));
    };
    let db = Db::builder(path).on_slow_operation(threshold, hook).open().expect("opens");
    (db, heard)
}

#[test]
fn slow_operations_are_told_with_their_keys() {
    let dir = tempfile::tempdir().expect("a directory");
    let (db, heard) = listening(&dir.path().join("data"), Duration::ZERO);
    let version = db.put(b"k", b"v").expect("puts");
    db.get(b"k").expect("gets");
    db.fetch_add(b"n", 1).expect("adds");
    db.put_if_absent(b"k", b"w").expect("tries");
    db.compare_and_swap(b"k", Some(b"v"), Some(b"w")).expect("swaps");
    db.delete(b"k").expect("deletes");
    let mut batch = Batch::new();
    batch.put(b"b", b"v");
    db.write(&batch).expect("writes");
    db.scan(ScanCursor::start(), 10).expect("scans");
    db.wait_durable(version).expect("waits");
    db.sync().expect("syncs");
    let key = |key: &[u8]| Some(key.to_vec());
    let expected = [
        ("put", key(b"k")),
        ("update", key(b"n")),
        ("update", key(b"k")),
        ("update", key(b"k")),
        ("delete", key(b"k")),
        ("batch", None),
        ("scan", None),
        ("sync", None),
        ("sync", None),
    ];
    assert_eq!(*heard.lock().unwrap(), expected);
}

#[test]
fn quick_operations_are_not_told_of() {
    let dir = tempfile::tempdir().expect("a directory");
    let (db, heard) = listening(&dir.path().join("data"), Duration::from_mins(10));
    db.put(b"k", b"v").expect("puts");
    db.get(b"k").expect("gets");
    assert!(heard.lock().unwrap().is_empty());
}

/// The hook may use the store: no lock is held while it runs.
#[test]
fn a_hook_may_use_the_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let this: Arc<Mutex<Option<Db>>> = Arc::default();
    let seen = Arc::clone(&this);
    let db = Db::builder(dir.path().join("data"))
        .shards(1)
        .on_slow_operation(Duration::ZERO, move |slow| {
            // Of its own calls it would hear again.
            let db = seen.lock().unwrap().take();
            if let Some(db) = db {
                db.put(b"log", slow.operation.name().as_bytes()).expect("puts");
            }
        })
        .open()
        .expect("opens");
    *this.lock().unwrap() = Some(db.clone());
    db.put(b"k", b"v").expect("puts");
    assert_eq!(db.get(b"log").expect("gets").expect("is there"), b"put");
}

/// Space amplification, ahead of and after a rest.
fn rests(rig: &Rig, ms: u64) -> (f64, f64) {
    rig.settle_down();
    let before = rig.db().stats().total.space_amp();
    for _ in 0..3 {
        rig.disk.advance(ms / 3);
        rig.settle_down();
    }
    (before, rig.db().stats().total.space_amp())
}

/// Puts every `step`th of 2,000 keys.
fn fill(rig: &mut Rig, step: usize) {
    for key in (0..2_000_u32).step_by(step) {
        rig.put(key.to_be_bytes(), [key as u8; 800]);
    }
}

#[test]
fn a_rest_gives_back_space_and_copies_nothing_for_little() {
    let mut rig = Rig::with(tiny(1).segment_bytes_max(64 << 10));
    fill(&mut rig, 1);
    // Above where tidying begins, below where merging does.
    fill(&mut rig, 4);
    let (before, after) = rests(&rig, 1_000);
    assert!(before > 1.2 && after > 1.2, "too early for a rest: {before} {after}");
    let (_, after) = rests(&rig, 6_000);
    assert!(after < 1.15, "{after}");

    let merges = rig.db().stats().total.merges;
    fill(&mut rig, 13);
    let (before, after) = rests(&rig, 6_000);
    assert!(before > 1.15 && after > 1.15, "{before} {after}");
    assert_eq!(rig.db().stats().total.merges, merges);
    rig.prove();
}

/// Bytes that this process had read from disks.
fn bytes_read() -> u64 {
    let counts = std::fs::read_to_string("/proc/self/io").expect("there is a /proc");
    let line = counts.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    line.and_then(|count| count.parse().ok()).expect("a count")
}

/// Drops a file from the page cache.
fn forget(path: &std::path::Path) {
    let file = std::fs::File::open(path).expect("opens");
    file.sync_all().expect("syncs");
    let advice = rustix::fs::Advice::DontNeed;
    rustix::fs::fadvise(&file, 0, None, advice).expect("takes advice");
}

#[test]
fn a_get_of_a_cold_key_reads_a_page_or_two() {
    const KEYS: u32 = 300_000;
    if !is_alone("upkeep::a_get_of_a_cold_key_reads_a_page_or_two") {
        return;
    }
    // Not the directory for temporary files, which may be memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let path = dir.path().join("data");
    let db = Db::builder(&path).shards(2).open().expect("opens");
    for key in 0..KEYS {
        db.put(&key.to_le_bytes(), &[key as u8; 100]).expect("puts");
    }
    db.close().expect("closes");
    drop(db);

    let db = Db::open(&path).expect("opens");
    for shard in std::fs::read_dir(&path).expect("lists").flatten() {
        let Ok(files) = std::fs::read_dir(shard.path()) else { continue };
        files.flatten().for_each(|file| forget(&file.path()));
    }
    let before = bytes_read();
    for i in 0..200_u32 {
        let key = i.wrapping_mul(2_654_435_761) % KEYS;
        assert_eq!(db.get(&key.to_le_bytes()).expect("gets").expect("is there"), [key as u8; 100]);
    }
    let each = (bytes_read() - before) / 200;
    if each == 0 {
        eprintln!("SKIPPED: this file system's reads are not counted");
    }
    assert!(each <= 8 << 10, "a get read {each} bytes");

    // Read in one go, everything is there after no more than a few times its size.
    let before = bytes_read();
    assert_eq!(db.iter().expect("iterates").flatten().count(), KEYS as usize);
    assert!(bytes_read() - before < 100 << 20);
}

#[test]
fn merges_that_fail_are_tried_less_and_less_often() {
    use caskade_shard::storage::sim::{Op, Verdict};
    use std::sync::atomic::{AtomicU32, Ordering};

    let failures = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&failures);
    let builder = tiny(1).segment_bytes_max(64 << 10).on_background_error(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let mut rig = Rig::with(builder);
    fill(&mut rig, 1);
    rig.settle_down();
    rig.disk.faults().set_rule(|call| {
        let is_segment = call.path.extension().is_some_and(|kind| kind == "seg");
        if call.op == Op::Create && is_segment { Verdict::Fail(5) } else { Verdict::Proceed }
    });
    // Enough that a rest is worth a merge, in the room that there is.
    for key in (0..2_000_u32).step_by(4) {
        rig.delete(key.to_be_bytes());
    }
    let mut tries = Vec::new();
    for _ in 0..600 {
        rig.disk.advance(100);
        rig.settle_down();
        tries.push(failures.load(Ordering::Relaxed));
    }
    let total = *tries.last().expect("some");
    assert!((5..15).contains(&total), "{total} tries in a minute");
    assert_eq!(rig.db().stats().background_errors, u64::from(total));
    rig.disk.faults().clear();
    for _ in 0..4 {
        rig.disk.advance(30_000);
        rig.settle_down();
    }
    assert!(rig.db().stats().total.space_amp() < 1.15, "it was merged at last");
    rig.prove();
}
