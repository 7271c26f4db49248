//! What was deleted, overwritten or expired stays so.

use std::time::Duration;

use caskade::{Error, WriteOptions};

use crate::rig::{Rig, strip_indexes, tiny};

/// Put in a segment that stays as it is, deleted in one that the policy merges on its own.
#[test]
fn a_deleted_key_stays_deleted_through_merges() {
    let mut rig = Rig::with(tiny(1).segment_bytes_max(1 << 20).segment_bytes_min(1 << 20));
    rig.put("k", [1; 200]);
    for anchor in 0..100_u8 {
        rig.put([anchor], [anchor; 4000]);
    }
    rig.seal();
    let first = rig.files(0, ".seg").remove(0);
    rig.delete("k");
    for round in 0..100_u8 {
        // Garbage beside the tombstone, and something that lives.
        rig.put("filler", [round; 4000]);
    }
    rig.seal();
    rig.settle_down();
    assert!(rig.db().stats().total.merges > 0, "the policy merges");
    assert!(rig.files(0, ".seg").contains(&first), "but not the first segment");
    rig.compare();
    rig.prove();
    rig.db().compact().expect("compacts");
    rig.prove();
}

/// Put, delete, put, delete, each in a segment of its own, compacted in between.
#[test]
fn deletes_between_puts_hold_whatever_is_compacted_when() {
    for compact_after in 0..16_u32 {
        let mut rig = Rig::new();
        for step in 0..4 {
            if step % 2 == 0 {
                rig.put("k", [step; 250]);
            } else {
                rig.delete("k");
            }
            rig.seal();
            if compact_after >> step & 1 == 1 {
                rig.db().compact().expect("compacts");
            }
            rig.compare();
        }
        rig.prove();
    }
}

/// A version with a TTL covers one without; once expired, it still does.
#[test]
fn an_expired_version_goes_on_hiding_an_older_one() {
    for strip in [false, true] {
        let mut rig = Rig::new();
        rig.put("k", "for ever");
        rig.put("anchor", [2; 200]);
        rig.seal();
        let options = WriteOptions::new().ttl(Duration::from_secs(10));
        rig.db().put_with(b"k", b"for a while", options).expect("puts");
        rig.note(b"k", Some(b"for a while"));
        rig.compare();
        rig.seal();
        rig.disk.advance(11_000);
        rig.note(b"k", None);
        rig.compare();
        if strip {
            rig.close();
            strip_indexes(&rig.disk, crate::rig::HOME);
            rig.open();
        }
        rig.settle_down();
        rig.prove();
        rig.db().compact().expect("compacts");
        rig.prove();
    }
}

/// v1 in one segment, v2 in the next; v2 rots, and the hint goes. Nobody may answer v1.
#[test]
fn a_rotten_version_is_reported_and_never_replaced_by_an_older_one() {
    let mut rig = Rig::new();
    rig.put("k", "version one");
    rig.seal();
    let before = rig.files(0, ".seg");
    rig.put("k", "version two");
    rig.put("l", "intact");
    rig.seal();
    let newest = rig.files(0, ".seg").into_iter().find(|path| !before.contains(path));
    let newest = newest.expect("a second segment");
    rig.close();
    let bytes = rig.disk.read_file(&newest).unwrap();
    let at = bytes.windows(11).position(|window| window == b"version two").expect("it is there");
    rig.disk.flip_bit(&newest, at as u64, 3).unwrap();
    // Through the index the damage shows when the key is read.
    rig.open();
    let error = rig.db().get(b"k").expect_err("it is damaged");
    assert!(matches!(error, Error::Corrupt { offset: 64, .. }), "{error}");
    assert_eq!(rig.db().get(b"l").unwrap().unwrap(), b"intact");
    // Compacting must not lose the trace.
    rig.db().compact().expect_err("a damaged segment is kept");
    assert!(matches!(rig.db().get(b"k"), Err(Error::Corrupt { .. })));
    rig.kill();
    // Without it, opening finds the damage, and says where it is.
    strip_indexes(&rig.disk, crate::rig::HOME);
    let error = rig.try_open(|options| options).expect_err("it is damaged");
    assert!(matches!(error, Error::Corrupt { offset: 64, .. }), "{error}");
}

/// The same, whichever bit rots, with the hints in place: also where the record's own header no
/// longer tells whose it is.
#[test]
fn no_rotten_bit_uncovers_an_older_version() {
    let mut rig = Rig::new();
    rig.put("k", "version one");
    rig.seal();
    rig.put("k", "version two");
    rig.seal();
    let newest = rig.files(0, ".seg").pop().expect("a second segment");
    rig.close();
    let mut told = 0;
    for bit in 0..32 * 8 {
        let disk = rig.disk.fork();
        disk.flip_bit(&newest, 64 + bit / 8, (bit % 8) as u32).unwrap();
        let db = rig.builder.clone().storage(disk.storage()).open().expect("the hints serve");
        match db.get(b"k") {
            Err(Error::Corrupt { offset: 64, .. }) => told += 1,
            answer => panic!("bit {bit}: {answer:?}"),
        }
    }
    assert_eq!(told, 32 * 8);
}

/// Compact, delete everything, compact, reopen: nothing is left, not even empty files.
#[test]
fn an_emptied_store_is_empty() {
    let mut rig = Rig::new();
    for round in 0..20_u8 {
        for key in 0..10_u8 {
            rig.put([key], [round; 100]);
        }
        rig.db().compact().expect("compacts");
        for key in 0..10_u8 {
            rig.delete([key]);
        }
        rig.db().compact().expect("compacts");
        rig.compare();
        if round % 5 == 0 {
            rig.prove();
        }
        assert_eq!(rig.files(0, ".seg"), Vec::<std::path::PathBuf>::new(), "round {round}");
        assert_eq!(rig.files(0, ".hint"), Vec::<std::path::PathBuf>::new());
        assert_eq!(rig.db().len(), 0);
    }
}
