//! Damaged stores: looked at, saved elsewhere, repaired in place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Home, caskade, flip};

/// Every file of a folder, by its path, with what is in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            all.insert(path, bytes);
        }
    }
    all
}

fn damaged() -> Home {
    let home = Home::new();
    home.fill(100);
    let (segment, at) = home.find(b"key:007 value");
    flip(&segment, at + 8);
    home
}

#[test]
fn looking_writes_nothing() {
    let home = damaged();
    let before = files(&home.store());
    let looked = home.run("repair", &[""; 0]);
    assert_eq!(looked.code, 3);
    assert!(looked.text().contains("99 keys can be read"), "{}", looked.text());
    assert!(looked.stderr.contains("1 place is damaged"), "{}", looked.stderr);
    let report: Value = serde_json::from_str(home.run("repair", &["--json"]).text()).unwrap();
    assert_eq!((&report["keys"], &report["damage"][0]["shard"].is_u64()), (&99.into(), &true));
    assert!(files(&home.store()) == before, "the store is as it was");
}

#[test]
fn a_whole_store_needs_nothing() {
    let home = Home::new();
    home.fill(100);
    assert_eq!(home.run("repair", &[""; 0]).ok(), "100 keys can be read\n");
    assert_eq!(home.run("repair", &["--in-place"]).ok(), "100 keys are there\n");
    assert!(!home.path("store.damaged").exists());
}

#[test]
fn what_can_be_read_is_saved_elsewhere() {
    let home = damaged();
    let before = files(&home.store());
    let saved = home.path("saved");
    let saved = saved.to_str().unwrap();
    let ran = home.run("repair", &["--into", saved]);
    assert_eq!(ran.code, 3, "something is lost: {}", ran.stderr);
    assert!(ran.text().contains(&format!("99 keys saved in {saved}")), "{}", ran.text());
    assert!(files(&home.store()) == before, "the original is as it was");
    assert!(caskade(&["verify", saved], b"").ok().contains("all are as they were written"));
    caskade(&["get", saved, "key:007"], b"").fails(1, "there is no key");
    assert_eq!(caskade(&["get", saved, "key:008"], b"").ok(), "key:008 value");
    home.run("repair", &["--into", saved]).fails(2, "nothing is written over it");
    home.run("repair", &["--into", saved, "--in-place"]).fails(2, "cannot be used with");
}

#[test]
fn a_repair_in_place_keeps_the_original() {
    let home = damaged();
    let original: Vec<Vec<u8>> = files(&home.store())
        .into_iter()
        .filter_map(|(path, bytes)| (path.extension()? == "seg").then_some(bytes))
        .collect();
    let ran = home.run("repair", &["--in-place"]);
    assert_eq!(ran.code, 3, "something is lost: {}", ran.stderr);
    assert!(ran.text().contains("store.damaged"), "{}", ran.text());
    assert!(home.run("verify", &[""; 0]).ok().contains("99 records"));
    let kept = files(&home.path("store.damaged"));
    assert!(original.iter().all(|bytes| kept.values().any(|kept| kept == bytes)));
    assert!(!home.path("store.repairing").exists());
    assert_eq!(home.run("repair", &["--in-place"]).ok(), "99 keys are there\n");
}

/// Opening a store without its indexes finds damage that checking it finds again.
#[test]
fn each_place_counts_once() {
    let home = damaged();
    for path in files(&home.store()).into_keys() {
        if path.ends_with("KEYDIR") || path.extension().is_some_and(|is| is == "hint") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let ran = home.run("repair", &[""; 0]);
    assert_eq!(ran.text().lines().filter(|line| line.contains("segment")).count(), 1);
    assert!(ran.stderr.contains("1 place is damaged"), "{}", ran.stderr);
}

#[test]
fn a_missing_segment_costs_its_keys_only() {
    let home = Home::new();
    home.fill(100);
    let (segment, _) = home.find(b"key:007 value");
    std::fs::remove_file(&segment).unwrap();
    home.run("count", &[""; 0]).fails(3, "`caskade repair` can save");
    home.run("repair", &[""; 0]).fails(3, "--into saves the rest");
    let saved = home.path("saved");
    let ran = home.run("repair", &["--into", saved.to_str().unwrap(), "--json"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let report: Value = serde_json::from_str(ran.text()).unwrap();
    let keys = report["keys"].as_u64().unwrap();
    assert!(keys > 0 && keys < 100, "the other shard's keys are there: {report}");
    assert_eq!(report["losses"][0]["kind"], "corruption");
    assert!(ran.stderr.contains("1 place is damaged"), "{}", ran.stderr);
    assert_eq!(caskade(&["count", saved.to_str().unwrap()], b"").ok(), format!("{keys}\n"));
    let ran = home.run("repair", &["--in-place"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("is missing; the records in it are lost"), "{}", ran.stderr);
    assert_eq!(home.run("count", &[""; 0]).ok(), format!("{keys}\n"));
    let left = std::fs::read_dir(home.path("")).unwrap().count();
    assert_eq!(left, 3, "the store, the damaged one, and what was saved");
}

/// What a killed run left is no store under the name that was asked for, and in nobody's way.
#[test]
fn a_killed_repair_can_be_repeated() {
    let home = damaged();
    let saved = home.path("saved");
    for draft in ["saved.saving", "saved.saving.files", "store.repairing"] {
        copy(&home.store(), &home.path(draft));
    }
    let into = home.run("repair", &["--into", saved.to_str().unwrap()]);
    let in_place = home.run("repair", &["--in-place"]);
    for ran in [into, in_place] {
        assert_eq!(ran.code, 3, "{}", ran.stderr);
        assert!(ran.stderr.contains("left by an interrupted run"), "{}", ran.stderr);
    }
    let left = std::fs::read_dir(home.path("")).unwrap().count();
    assert_eq!(left, 3, "the store, the damaged one, and what was saved");
}

/// After a power cut the journal holds writes that the segments lack. Reading commands say what to
/// do, and saving elsewhere brings them in without touching the original.
#[test]
fn writes_in_the_journal_are_brought_in() {
    let home = Home::new();
    home.fill(50);
    let db = caskade::Db::open(home.store()).unwrap();
    let options = caskade::WriteOptions::new().durability(caskade::Durability::Sync);
    db.put_with(b"durable", b"in the journal", options).unwrap();
    // As a power cut leaves it: the journal is there, the segment's end never reached the disk.
    let crashed = home.path("crashed");
    copy(&home.store(), &crashed);
    drop(db);
    let segment = files(&crashed)
        .into_iter()
        .find_map(|(path, bytes)| {
            let at = bytes.windows(7).position(|window| window == b"durable")?;
            (path.extension()? == "seg").then_some((path, bytes, at))
        })
        .expect("some segment has it");
    let (path, mut bytes, at) = segment;
    // The frame's head stands before the key.
    bytes[at - 24..at + 32].fill(0);
    std::fs::write(path, bytes).unwrap();
    let crashed = crashed.to_str().unwrap();
    caskade(&["count", crashed], b"").fails(5, "`caskade repair --in-place` does that");
    let before = files(Path::new(crashed));
    let saved = home.path("saved");
    let saved = saved.to_str().unwrap();
    caskade(&["repair", crashed, "--into", saved], b"").ok();
    assert!(files(Path::new(crashed)) == before, "the original is as it was");
    assert_eq!(caskade(&["get", saved, "durable"], b"").ok(), "in the journal");
    assert!(!home.path("saved.files").exists());
    assert_eq!(caskade(&["repair", crashed, "--in-place"], b"").ok(), "51 keys are there\n");
    assert_eq!(caskade(&["get", crashed, "durable"], b"").ok(), "in the journal");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn without_its_description_nothing_can_be_saved() {
    let home = Home::new();
    home.fill(10);
    std::fs::write(home.store().join("STORE"), [0; 512]).unwrap();
    home.run("count", &[""; 0]).fails(3, "is damaged");
    home.run("repair", &[""; 0]).fails(3, "Go back to a backup");
    home.run("repair", &["--in-place"]).fails(3, "Go back to a backup");
    assert!(!home.path("store.repairing").exists());
}
