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

/// A store with 50 keys, and one more that is durable in the journal only: a power cut left it so.
fn with_a_journal() -> (Home, String) {
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
    let crashed = crashed.to_str().unwrap().to_owned();
    (home, crashed)
}

/// After a power cut the journal holds writes that the segments lack. Reading commands say what to
/// do, and saving elsewhere brings them in without touching the original.
#[test]
fn writes_in_the_journal_are_brought_in() {
    let (home, crashed) = with_a_journal();
    let crashed = &*crashed;
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

/// Overwrites both copies of a shard's manifest.
fn lose_manifest(store: &Path, shard: u16) {
    std::fs::write(store.join(format!("shard-{shard:03}/MANIFEST")), [7; 9000]).unwrap();
}

/// Several lives, overwritten and deleted keys, merged segments: all that lives is in the segments.
#[test]
fn without_a_manifest_the_segments_serve() {
    let home = Home::new();
    home.fill(100);
    let delete = |key: u32| home.run("del", &[format!("key:{key:03}")]).ok().to_owned();
    let put = |key: u32| home.run("put", &[&format!("key:{key:03}"), "new"]).ok().to_owned();
    (0..10).for_each(|key| drop(delete(key)));
    (10..20).for_each(|key| drop(put(key)));
    let merged = files(&home.store());
    home.run("compact", &[""; 0]).ok();
    (20..30).for_each(|key| drop(delete(key)));
    (30..40).for_each(|key| drop(put(key)));
    let sorted = |store: &Path| {
        let dump = caskade(&["export".as_ref(), store.as_os_str()], b"").ok().to_owned();
        let mut lines: Vec<_> = dump.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let whole = sorted(&home.store());
    assert_eq!(whole.len(), 80);
    lose_manifest(&home.store(), 0);
    std::fs::remove_file(home.store().join("shard-001/MANIFEST")).unwrap();
    let before = files(&home.store());
    home.run("get", &["key:050"]).fails(3, "see what `caskade repair` can save");
    home.run("repair", &[""; 0]).fails(3, "--into saves what those that are there hold");
    let saved = home.path("saved");
    let ran = home.run("repair", &["--into", saved.to_str().unwrap()]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    for shard in 0..2 {
        assert!(ran.text().contains(&format!("shard {shard}: the MANIFEST is lost")));
    }
    assert!(ran.text().contains("deleted keys, older values"), "{}", ran.text());
    assert!(ran.stderr.contains("2 places are damaged"), "{}", ran.stderr);
    assert!(files(&home.store()) == before, "the original is as it was");
    assert_eq!(sorted(&saved), whole);
    let ran = home.run("repair", &["--in-place", "--json"]);
    let report: Value = serde_json::from_str(ran.text()).unwrap();
    assert_eq!((ran.code, &report["manifests_lost"]), (3, &serde_json::json!([0, 1])));
    assert_eq!(sorted(&home.store()), whole);
    let left = std::fs::read_dir(home.path("")).unwrap().count();
    assert_eq!(left, 3, "the store, the damaged one, and what was saved");

    // Files that a merge had removed come to light again: no key comes twice, or with an older value.
    let damaged = home.path("store.damaged");
    let in_damaged = |path: &Path| damaged.join(path.strip_prefix(home.store()).unwrap());
    let is_gone =
        |path: &Path| path.extension().is_some_and(|is| is == "seg") && !in_damaged(path).exists();
    let gone: Vec<_> = merged.into_iter().filter(|(path, _)| is_gone(path)).collect();
    assert!(!gone.is_empty(), "there was a merge");
    for (path, bytes) in gone {
        std::fs::write(in_damaged(&path), bytes).unwrap();
    }
    let again = home.path("again");
    let args = ["repair".as_ref(), damaged.as_os_str(), "--into".as_ref(), again.as_os_str()];
    assert_eq!(caskade(&args, b"").code, 3);
    let saved = sorted(&again);
    assert!(whole.iter().all(|line| saved.contains(line)));
    let key = |line: &String| line.split_once(',').unwrap().0.to_owned();
    assert!(saved.windows(2).all(|lines| key(&lines[0]) != key(&lines[1])));
}

/// Batches over both shards, in a store that was killed, with either manifest lost.
#[test]
fn without_a_manifest_batches_are_kept() {
    let home = Home::new();
    let builder = caskade::Db::builder(home.store()).shards(2).segment_bytes_min(4096);
    let db = builder.background(caskade::Background::Manual).open().unwrap();
    for round in 0..100 {
        let mut batch = caskade::Batch::new();
        for key in 0..5 {
            batch.put(format!("{round}-{key}").as_bytes(), &[round; 100]);
        }
        db.write(&batch).unwrap();
    }
    for shard in 0..2 {
        let killed = home.path(&format!("killed-{shard}"));
        copy(&home.store(), &killed);
        lose_manifest(&killed, shard);
        let saved = home.path(&format!("saved-{shard}"));
        let args = ["repair".as_ref(), killed.as_os_str(), "--into".as_ref(), saved.as_os_str()];
        let ran = caskade(&args, b"");
        assert!(ran.text().contains("500 keys saved"), "{}\n{}", ran.text(), ran.stderr);
        assert!(ran.stderr.contains("1 place is damaged"), "{}", ran.stderr);
    }
}

/// A merge forgets what was a batch: the rest of it counts all the same.
#[test]
fn without_a_manifest_a_batch_that_was_merged_away_is_whole() {
    let home = Home::new();
    let key = |i: u32| format!("key:{i:03}");
    let value = |i: u32| format!("{} in a batch", key(i));
    let db = caskade::Db::builder(home.store()).shards(2).open().unwrap();
    let mut batch = caskade::Batch::new();
    for i in 0..40 {
        batch.put(key(i).as_bytes(), value(i).as_bytes());
    }
    db.write(&batch).unwrap();
    db.close().unwrap();
    let is_second =
        |i: &u32| home.find(value(*i).as_bytes()).0.parent().unwrap().ends_with("shard-001");
    let second: Vec<u32> = (0..40).filter(is_second).collect();
    for i in &second[1..] {
        home.run("del", &[key(*i)]).ok();
    }
    let first = home.store().join("shard-000");
    copy(&first, &home.path("first"));
    home.run("compact", &[""; 0]).ok();
    assert!(!home.store().join("shard-001/0000000001.seg").exists(), "it was merged");
    // Only there.
    std::fs::remove_dir_all(&first).unwrap();
    std::fs::rename(home.path("first"), &first).unwrap();
    lose_manifest(&home.store(), 0);
    let ran = home.run("repair", &["--into", home.path("saved").to_str().unwrap()]);
    assert!(ran.text().contains(&format!("{} keys saved", 41 - second.len())), "{}", ran.text());
}

/// What is damaged in those segments costs as much as with a manifest.
#[test]
fn without_a_manifest_damage_is_passed_over() {
    let home = damaged();
    lose_manifest(&home.store(), 0);
    lose_manifest(&home.store(), 1);
    let saved = home.path("saved");
    let ran = home.run("repair", &["--into", saved.to_str().unwrap()]);
    assert!(ran.text().contains("99 keys saved"), "{}", ran.text());
    assert!(ran.stderr.contains("3 places are damaged"), "{}", ran.stderr);
    caskade(&["get", saved.to_str().unwrap(), "key:007"], b"").fails(1, "there is no key");

    // The end of a segment, and one that cannot be told from another store's.
    let (segment, at) = home.find(b"key:008 value");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[at - 20..].fill(1);
    std::fs::write(&segment, bytes).unwrap();
    let other = segment.with_file_name("0000000090.seg");
    std::fs::copy(&segment, &other).unwrap();
    std::fs::write(segment.with_file_name("0000000091.seg"), [0; 4096]).unwrap();
    std::fs::write(segment.with_file_name("0000000092.seg"), [1; 4096]).unwrap();
    std::fs::remove_dir_all(&saved).unwrap();
    let ran = home.run("repair", &["--into", saved.to_str().unwrap()]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    for told in [
        "no record follows",
        "segment 90 offset 0: ",
        "the file is another segment",
        "segment 92 offset 0: 4.00 KiB damaged",
    ] {
        assert!(ran.text().contains(told), "{told}: {}", ran.text());
    }
    assert!(!ran.text().contains("segment 91"), "nothing was ever written there");
}

/// The journal brings in what a power cut took, also without manifests.
#[test]
fn without_a_manifest_the_journal_serves_too() {
    let (home, crashed) = with_a_journal();
    for lost in 0..2 {
        lose_manifest(crashed.as_ref(), lost);
        let saved = home.path(&format!("saved-{lost}"));
        let saved = saved.to_str().unwrap();
        let ran = caskade(&["repair", &crashed, "--into", saved], b"");
        assert_eq!(ran.code, 3, "{}", ran.stderr);
        assert!(ran.text().contains("51 keys saved"), "{}\n{}", ran.text(), ran.stderr);
        assert_eq!(caskade(&["get", saved, "durable"], b"").ok(), "in the journal");
    }
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
