//! File systems without space, without inodes, and both again.

use std::collections::BTreeMap;
use std::path::Path;

use caskade::{Db, Durability, Error, WriteOptions};
use caskade_shard::storage::sim::Rng;

use crate::mounts::Mount;

const KEYS: u64 = 4000;

fn open(home: &Path) -> Db {
    Db::builder(home)
        .shards(2)
        .segment_bytes_min(16 << 10)
        .segment_bytes_max(256 << 10)
        .journal_bytes(64 << 10)
        .open()
        .expect("opens")
}

#[test]
fn a_tmpfs_without_space() {
    let Some(mount) = Mount::tmpfs("size=4m") else { return };
    fill_and_heal(&mount, || mount.resize("size=8m"));
}

#[test]
fn a_tmpfs_without_inodes() {
    let Some(mount) = Mount::tmpfs("size=64m,nr_inodes=24") else { return };
    fill_and_heal(&mount, || mount.resize("size=64m,nr_inodes=4000"));
}

#[test]
fn an_ext4_without_space() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(mount) = Mount::ext4(&dir.path().join("image"), 16 << 20, "data=ordered") else {
        return;
    };
    // What somebody else put there goes away again.
    let ballast = mount.path().join("ballast");
    std::fs::write(&ballast, vec![1; 6 << 20]).expect("writes");
    fill_and_heal(&mount, || std::fs::remove_file(&ballast).expect("removes"));
}

/// What was allocated is not kept there for what is written twice: a store through a map would end the
/// process.
#[test]
fn a_btrfs_without_space() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(mount) = Mount::btrfs(&dir.path().join("image"), 128 << 20) else { return };
    let ballast = |name: &str, bytes: usize| {
        let path = mount.path().join(name);
        // Until it is full, if it comes to that.
        let _ = std::fs::write(&path, vec![1; bytes]);
        path
    };
    let (first, rest) = (ballast("first", 8 << 20), ballast("rest", 128 << 20));
    std::fs::File::options()
        .write(true)
        .open(rest)
        .and_then(|file| file.set_len(file.metadata()?.len() - (8 << 20)))
        .expect("makes a little room");
    mount.sync();
    fill_and_heal(&mount, || {
        std::fs::remove_file(&first).expect("removes");
        mount.sync();
    });
}

/// Writes until nothing goes any more, checks that nothing else changed, makes room and goes on
/// with the same handle.
fn fill_and_heal(mount: &Mount, make_room: impl FnOnce()) {
    let home = mount.home();
    let db = open(&home);
    let mut expected = BTreeMap::new();
    let mut rng = Rng::new(7);
    fill(&db, &mut rng, &mut expected);
    same(&db, &expected);

    // A full store can be read, closed and opened, and stays full.
    db.close().expect("closes although the disk is full");
    let db = open(&home);
    same(&db, &expected);
    assert!(db.verify(|_| true).expect("verifies").is_clean());
    fill(&db, &mut rng, &mut expected);
    same(&db, &expected);

    make_room();
    for _ in 0..200 {
        let (key, value) = pair(&mut rng);
        db.put_with(&key, &value, WriteOptions::new().durability(Durability::Sync))
            .expect("writes again, without reopening");
        expected.insert(key, value);
    }
    assert_eq!(db.poisoned(), None);
    same(&db, &expected);
    drop(db);
    let db = open(&home);
    same(&db, &expected);
    assert!(db.verify(|_| true).expect("verifies").is_clean());
}

/// Until a hundred writes in a row found no space.
fn fill(db: &Db, rng: &mut Rng, expected: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut refused = 0;
    while refused < 100 {
        let (key, value) = pair(rng);
        let durability = *rng.pick(&[Durability::Buffered, Durability::Buffered, Durability::Sync]);
        match db.put_with(&key, &value, WriteOptions::new().durability(durability)) {
            Ok(_) => {
                expected.insert(key, value);
                refused = 0;
            }
            Err(Error::NoSpace { .. }) => refused += 1,
            Err(error) => panic!("{error:?} where there is no space"),
        }
        assert!(expected.len() < KEYS as usize, "the disk does not get full");
    }
}

fn pair(rng: &mut Rng) -> (Vec<u8>, Vec<u8>) {
    let key = rng.below(KEYS * 100).to_le_bytes().to_vec();
    let mut value = rng.next_u64().to_le_bytes().to_vec();
    value.resize(8 + rng.below(8000) as usize, value[0]);
    (key, value)
}

fn same(db: &Db, expected: &BTreeMap<Vec<u8>, Vec<u8>>) {
    assert_eq!(db.len(), expected.len() as u64);
    for (key, value) in expected {
        assert_eq!(db.get(key).expect("reads").as_deref(), Some(&**value));
    }
}
