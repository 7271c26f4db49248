//! Long work that is watched and stopped, and figures by segment.

use std::time::Duration;

use caskade::{Db, Error, WriteOptions};

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
    assert!(matches!(refused, Err(Error::NotAStore { .. })), "{refused:?}");
    let mut last = None;
    db.checkpoint_with(&target, |now| {
        last = Some(now);
        true
    })
    .expect("checkpoints");
    assert_eq!(last.map(|now| (now.shards_done, now.shards_total)), Some((4, 4)));
    assert_eq!(Db::builder(&target).read_only(true).open().expect("opens").len(), 20_000);
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
