//! What every user does first.

use std::time::Duration;

use caskade::{Batch, Db, Durability, Expiry, ScanCursor, WriteOptions};
use caskade_shard::storage::sim::Pending;

use crate::rig::Rig;

#[test]
fn puts_gets_deletes_and_reopens() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("data");
    let db = Db::open(&path).expect("opens");
    for i in 0..20_000_u32 {
        db.put(&i.to_le_bytes(), format!("value {i}").as_bytes()).expect("puts");
    }
    for i in (0..20_000_u32).step_by(3) {
        assert!(db.delete(&i.to_le_bytes()).expect("deletes"));
    }
    let check = |db: &Db| {
        for i in 0..20_000_u32 {
            let value = db.get(&i.to_le_bytes()).expect("gets");
            let expected = (i % 3 != 0).then(|| format!("value {i}").into_bytes());
            assert_eq!(value.map(Vec::from), expected, "{i}");
        }
        assert_eq!(db.len(), 20_000 - 6_667);
        assert_eq!(db.iter().expect("iterates").count(), 20_000 - 6_667);
    };
    check(&db);
    db.close().expect("closes");
    assert!(db.get(b"x").is_err());
    drop(db);
    let db = Db::open(&path).expect("reopens");
    assert_eq!(db.open_report().shards.iter().map(|s| s.segments_scanned).sum::<u64>(), 0);
    check(&db);
    db.compact().expect("compacts");
    check(&db);
    assert!(db.verify(|_| true).expect("verifies").is_clean());
    drop(db);
    let db = Db::builder(&path).durability(Durability::Sync).open().expect("reopens");
    check(&db);
    db.put(b"k", b"v").expect("puts durably");
    let mut batch = Batch::new();
    for i in 0..100_u32 {
        batch.put(format!("batch {i}").as_bytes(), b"b");
    }
    db.write(&batch).expect("writes");
    assert!(db.stats().journal_commits > 0);
    let target = dir.path().join("copy");
    db.checkpoint(&target).expect("checkpoints");
    let copy = Db::open(&target).expect("opens the copy");
    assert_eq!(copy.len(), db.len());
    let mut seen = 0;
    let mut cursor = Some(ScanCursor::start());
    while let Some(at) = cursor {
        let page = copy.scan(at, 100).expect("scans");
        seen += page.entries.len() as u64;
        cursor = page.next;
    }
    assert_eq!(seen, copy.len());
}

/// Values that were copied into the same memory are handles of their own, beside those that were not.
#[test]
fn many_values_are_what_single_gets_answer_and_outlive_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path().join("db")).unwrap();
    let key = |i: u32| i.to_be_bytes();
    for i in 0..100_u32 {
        let len = if i % 7 == 0 { 5000 } else { i as usize * 10 };
        let ttl = Duration::from_secs(1000 + u64::from(i));
        let options = if i % 3 == 0 { WriteOptions::new().ttl(ttl) } else { WriteOptions::new() };
        db.put_with(&key(i), &vec![i as u8; len], options).unwrap();
    }
    // Some are asked for twice, and some are not there.
    let keys: Vec<_> = (0..150).chain(40..60).map(key).collect();
    let mut many = db.get_many(&keys).unwrap();
    for (key, value) in keys.iter().zip(&many) {
        let single = db.get(key).unwrap();
        assert_eq!(value, &single);
        let about = |value: &Option<caskade::Value>| {
            value.as_ref().map(|value| (value.version(), value.expires_at_unix_ms()))
        };
        assert_eq!(about(value), about(&single));
    }
    let kept = many.swap_remove(50).expect("it is there");
    let copy = kept.clone();
    drop((many, kept));
    db.close().unwrap();
    assert_eq!(copy, vec![50; 500]);
}

/// Shards count their writes from 1 each.
#[test]
fn a_version_is_that_of_one_key_alone() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::builder(dir.path().join("data")).shards(16).open().unwrap();
    let versions: Vec<_> =
        (0..40_u32).map(|key| db.put(&key.to_le_bytes(), b"v").unwrap()).collect();
    for (key, version) in (0_u32..).zip(&versions) {
        for (other, _) in (0_u32..).zip(&versions).filter(|(other, _)| *other != key) {
            assert_eq!(db.put_if_version(&other.to_le_bytes(), b"w", *version).unwrap(), None);
        }
    }
    assert!(db.put_if_version(&0_u32.to_le_bytes(), b"w", versions[0]).unwrap().is_some());
}

/// Conditional writes take a TTL as puts do.
#[test]
fn conditional_writes_have_options() {
    let rig = Rig::new();
    let db = rig.db();
    let (key, second) = (b"key", WriteOptions::new().ttl(Duration::from_secs(1)));
    let is_short = || db.ttl(key).unwrap() == Some(Expiry::In(Duration::from_secs(1)));
    assert!(db.compare_and_swap_with(key, None, Some(b"a"), second).unwrap());
    assert!(is_short());
    assert!(db.compare_and_swap(key, Some(b"a"), Some(b"b")).unwrap());
    assert_eq!(db.ttl(key).unwrap(), Some(Expiry::Never));
    let version = db.get(key).unwrap().unwrap().version();
    assert!(db.put_if_version_with(key, b"c", version, second).unwrap().is_some());
    assert!(is_short());
    db.update_with(key, second, |old| Some([old.unwrap(), b"d"].concat())).unwrap();
    assert!(is_short());
    rig.disk.advance(2000);
    assert!(db.get(key).unwrap().is_none());
}

/// A counter's TTL runs from its beginning.
#[test]
fn a_counter_begins_with_its_ttl() {
    let rig = Rig::new();
    let minute = WriteOptions::new().ttl(Duration::from_mins(1));
    let count = || rig.db().fetch_add_with(b"calls", 1, minute).unwrap();
    assert_eq!(count(), 1);
    rig.disk.advance(50_000);
    assert_eq!(count(), 2);
    rig.disk.advance(20_000);
    assert_eq!(count(), 1);
}

/// Whoever is told that nothing was to be written relies on what is there.
#[test]
fn a_durable_answer_is_about_what_is_durable() {
    type Ask = fn(&Db, WriteOptions) -> bool;
    let asks: [Ask; 3] = [
        |db, sync| db.put_if_absent_with(b"k", b"other", sync).unwrap().is_none(),
        |db, sync| !db.compare_and_swap_with(b"k", None, Some(b"other"), sync).unwrap(),
        |db, sync| !db.delete_with(b"gone", sync).unwrap(),
    ];
    for ask in asks {
        let mut rig = Rig::new();
        rig.put("k", "v");
        assert!(ask(rig.db(), WriteOptions::new().durability(Durability::Sync)));
        rig.power_cut(&mut |_: &Pending<'_>| false);
        rig.open();
        rig.compare();
    }
}
