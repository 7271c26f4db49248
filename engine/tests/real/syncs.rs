//! A sync that fails for a true reason: the device under the file system has no room for what it
//! promised.

use std::collections::BTreeMap;
use std::path::Path;

use caskade::{Db, Durability, Error, WriteOptions};

use crate::mounts::Mount;
use crate::say;

/// So often the test begins anew when it cannot judge.
const TRIES: usize = 6;

#[test]
fn a_sync_that_fails_poisons_and_takes_nothing_durable_along() {
    for _ in 0..TRIES {
        // The image claims four times the space that there is for it.
        let Some(device) = Mount::tmpfs("size=24m") else { return };
        let image = device.path().join("image");
        let Some(mount) = Mount::ext4(&image, 96 << 20, "data=ordered") else { return };
        let expected = write_until_a_sync_fails(&mount.home());

        // The same kernel with the same pages could show what the device never got. A machine that
        // was turned off cannot.
        device.resize("size=200m");
        mount.turn_off_and_on();
        // The file system's own blocks may be among those that the device had no room for. It does
        // not always notice, and then files are lost that it had called durable.
        if mount.is_sound() {
            all_is_there(&mount.home(), &expected);
            return;
        }
        say("the file system lost blocks of its own: this proves nothing");
    }
    panic!("the file system lost blocks of its own, {TRIES} times");
}

fn open(home: &Path) -> Db {
    Db::builder(home)
        .shards(2)
        .segment_bytes_min(256 << 10)
        .segment_bytes_max(1 << 20)
        .journal_bytes(256 << 10)
        .open()
        .expect("opens")
}

fn durable() -> WriteOptions {
    WriteOptions::new().durability(Durability::Sync)
}

/// Answers what is durable.
fn write_until_a_sync_fails(home: &Path) -> BTreeMap<[u8; 8], Vec<u8>> {
    let db = open(home);
    let mut expected = BTreeMap::new();
    let (number, error) = (0..40_000_u64)
        .find_map(|number| {
            let (key, value) = (number.to_le_bytes(), vec![number as u8; 2000]);
            let waits = number.is_multiple_of(8);
            let options = if waits { durable() } else { WriteOptions::new() };
            match db.put_with(&key, &value, options) {
                Ok(_) if waits => {
                    expected.insert(key, value);
                    None
                }
                Ok(_) => None,
                Err(error) => Some((number, error)),
            }
        })
        .expect("the device is smaller than what was written");
    assert!(!matches!(error, Error::NoSpace { .. }), "the file system had space: {error}");
    say(&format!("a device without room failed write {number}: {error}"));
    assert!(db.poisoned().is_some(), "after {error}");
    let again = db.put_with(b"more", b"", durable());
    assert!(matches!(again, Err(Error::Poisoned { .. })), "{again:?}");
    expected
}

fn all_is_there(home: &Path, expected: &BTreeMap<[u8; 8], Vec<u8>>) {
    let db = open(home);
    for (key, value) in expected {
        assert_eq!(db.get(key).expect("reads").as_deref(), Some(&**value));
    }
    assert!(db.verify(|_| true).expect("verifies").is_clean());
    db.put_with(b"more", b"", durable()).expect("writes again");
}
