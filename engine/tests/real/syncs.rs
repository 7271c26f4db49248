//! A sync that fails for a true reason: the device under the file system has no room for what it
//! promised.

use std::collections::BTreeMap;

use caskade::{Db, Durability, Error, WriteOptions};

use crate::mounts::Mount;
use crate::say;

#[test]
fn a_sync_that_fails_poisons_and_takes_nothing_durable_along() {
    // The image claims four times the space that there is for it.
    let Some(device) = Mount::tmpfs("size=24m") else { return };
    let image = device.path().join("image");
    let Some(mount) = Mount::ext4(&image, 96 << 20, "data=ordered") else { return };
    let open = || {
        Db::builder(mount.home())
            .shards(2)
            .segment_bytes_min(256 << 10)
            .segment_bytes_max(1 << 20)
            .journal_bytes(256 << 10)
            .open()
    };
    let db = open().expect("opens");
    let durable = WriteOptions::new().durability(Durability::Sync);
    let mut expected = BTreeMap::new();
    let mut failure = None;
    for number in 0..40_000_u64 {
        let key = number.to_le_bytes();
        let value = vec![number as u8; 2000];
        match db.put_with(&key, &value, durability_of(number, durable)) {
            Ok(_) if number.is_multiple_of(8) => {
                expected.insert(key, value);
            }
            Ok(_) => {}
            Err(error) => {
                failure = Some((number, error));
                break;
            }
        }
    }
    let (number, error) = failure.expect("the device is smaller than what was written");
    assert!(!matches!(error, Error::NoSpace { .. }), "the file system had space: {error}");
    say(&format!("a device without room failed write {number}: {error}"));
    assert!(db.poisoned().is_some(), "after {error}");
    let again = db.put_with(b"more", b"", durable);
    assert!(matches!(again, Err(Error::Poisoned { .. })), "{again:?}");
    drop(db);

    // The same kernel with the same pages could show what the device never got. A machine that was
    // turned off cannot.
    device.resize("size=200m");
    mount.turn_off_and_on();
    let db = open().expect("opens");
    for (key, value) in &expected {
        assert_eq!(db.get(key).expect("reads").as_deref(), Some(&**value));
    }
    assert!(db.verify(|_| true).expect("verifies").is_clean());
    db.put_with(b"more", b"", durable).expect("writes again");
}

/// Each eighth write waits for the device.
fn durability_of(number: u64, durable: WriteOptions) -> WriteOptions {
    if number.is_multiple_of(8) { durable } else { WriteOptions::new() }
}
