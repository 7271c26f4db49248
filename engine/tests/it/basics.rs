//! What every user does first.

use caskade::{Batch, Db, Durability, ScanCursor};

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
