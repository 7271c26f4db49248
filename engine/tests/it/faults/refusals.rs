//! Opens that must be refused, with a typed error and nothing touched.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use caskade::{Builder, Db, Durability, Error};
use caskade_shard::storage::sim::SimDisk;

use crate::rig::{HOME, Rig, tiny};

/// All files of a disk with their contents.
fn image(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut dirs = vec![PathBuf::from("/")];
    while let Some(dir) = dirs.pop() {
        for entry in disk.list(&dir).unwrap() {
            let path = dir.join(entry.name);
            match disk.read_file(&path) {
                Ok(bytes) if !path.ends_with("LOCK") => all.push((path, bytes)),
                Ok(_) => {}
                Err(_) => dirs.push(path),
            }
        }
    }
    all.sort();
    all
}

#[test]
fn another_number_of_shards() {
    let mut rig = Rig::with(tiny(2));
    rig.put("k", "v");
    rig.close();
    let before = image(&rig.disk);
    for shards in [1, 3, 256] {
        let error = rig.try_open(|options| options.shards(shards)).expect_err("it has two");
        assert!(matches!(error, Error::ShardCount { stored: 2, asked } if asked == shards));
        assert_eq!(image(&rig.disk), before);
    }
    let unsaid = Db::builder(HOME).storage(rig.disk.storage()).open().expect("says nothing");
    assert_eq!(unsaid.get(b"k").unwrap().unwrap(), b"v");
}

/// The version stands behind the eight bytes of magic, in each copy of each file.
#[test]
fn a_newer_format() {
    let mut rig = Rig::new();
    rig.put("k", "v");
    rig.close();
    for path in [Path::new(HOME).join("STORE"), Rig::shard_dir(0).join("MANIFEST")] {
        let disk = rig.disk.fork();
        let mut bytes = disk.read_file(&path).unwrap();
        let second = bytes.len() / 4096 * 4096;
        // The second copy ends the file, with its checksum.
        let block = bytes.len() - second;
        bytes[second + 8] = 99;
        let sum = caskade_codec::checksum::of(&bytes[second..second + block - 4]);
        bytes[second + block - 4..].copy_from_slice(&sum.to_le_bytes());
        bytes.copy_within(second.., 0);
        disk.write_file(&path, &bytes).unwrap();
        let before = image(&disk);
        let error = rig.builder.clone().storage(disk.storage()).open().expect_err("newer");
        assert!(matches!(error, Error::UnknownFormat { found: 99, .. }), "{error}");
        assert_eq!(image(&disk), before, "nothing is touched");
    }
}

#[test]
fn options_that_make_no_sense() {
    let disk = SimDisk::new(1);
    let refused = |options: Builder| {
        let error = options.storage(disk.storage()).open().expect_err("no sense");
        assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
        assert!(!disk.exists(HOME), "nothing was made");
    };
    let options = || Db::builder(HOME);
    refused(options().shards(0));
    refused(options().shards(257));
    refused(options().shards(u16::MAX));
    refused(options().segment_bytes_max(0));
    refused(options().segment_bytes_max(u64::MAX));
    refused(options().segment_bytes_max((8 << 30) + 1));
    refused(options().max_space_amp(1.0));
    refused(options().max_space_amp(f64::NAN));
    refused(options().max_space_amp(f64::INFINITY));
    refused(options().max_space_amp(-3.0));
    refused(options().journal_bytes(0));
    refused(options().journal_bytes(u64::MAX));
    refused(options().merge_bytes_per_sec(Some(0)));
    refused(options().merge_window(0, 1440));
    refused(options().merge_window(60, 60));
    refused(options().durability(Durability::Interval(std::time::Duration::ZERO)));
}

#[test]
fn places_where_no_store_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a store").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = Db::open(&path).expect_err("a file is in the way");
        assert!(matches!(error, Error::NotAStore { .. } | Error::Io { .. }), "{error}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"not a store");
    let error = Db::open(dir.path().join("missing/db")).expect_err("no parent");
    assert!(error.is_not_found(), "{error}");
    assert!(!dir.path().join("missing").exists());
    // A directory with other things in it.
    let error = Db::open(dir.path()).expect_err("it is not empty");
    assert!(matches!(error, Error::NotAStore { .. }), "{error}");
    let names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["file"], "nothing is left there");
    // Not to be created.
    let absent = dir.path().join("absent");
    for options in [Db::builder(&absent).create(false), Db::builder(&absent).read_only(true)] {
        assert!(matches!(options.open(), Err(Error::NotAStore { .. })));
        assert!(!absent.exists());
    }
}

#[test]
fn a_parent_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let parent = dir.path().join("parent");
    std::fs::create_dir(&parent).unwrap();
    std::fs::set_permissions(&parent, PermissionsExt::from_mode(0o500)).unwrap();
    let is_root = std::fs::write(parent.join("probe"), "").is_ok();
    let outcome = Db::open(parent.join("db"));
    std::fs::set_permissions(&parent, PermissionsExt::from_mode(0o700)).unwrap();
    // Permissions do not hold for the superuser.
    if !is_root {
        let error = outcome.expect_err("the parent is read-only");
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
    // The simulated disk knows no exception.
    let disk = SimDisk::new(1);
    disk.faults().set_read_only(true);
    let error = tiny(1).storage(disk.storage()).open().expect_err("read-only");
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

const WAYS_TO_OPEN: [fn(Builder) -> Builder; 3] =
    [|options| options, |options| options.create(false), |options| options.read_only(true)];

/// Segments of a store whose `STORE` is gone are no place for a new one.
#[test]
fn a_store_without_its_file_is_not_made_anew() {
    let mut rig = Rig::with(tiny(2));
    rig.put("k", "v");
    rig.close();
    rig.disk.remove_file(Path::new(HOME).join("STORE")).unwrap();
    let before = image(&rig.disk);
    for ask in WAYS_TO_OPEN {
        let error = rig.try_open(ask).expect_err("damaged");
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert_eq!(image(&rig.disk), before);
    }
}

/// A lost manifest is damage, not a refusal of the system.
#[test]
fn a_shard_without_its_manifest_is_damaged() {
    let mut rig = Rig::with(tiny(2));
    rig.put("k", "v");
    rig.close();
    let manifest = Path::new(HOME).join("shard-001").join("MANIFEST");
    rig.disk.remove_file(&manifest).unwrap();
    let before = image(&rig.disk);
    for ask in WAYS_TO_OPEN {
        let error = rig.try_open(ask).expect_err("damaged");
        assert!(matches!(&error, Error::Damaged { path, .. } if *path == manifest), "{error}");
        assert_eq!(image(&rig.disk), before);
    }
}
