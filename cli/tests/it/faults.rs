//! What goes wrong, and what the user is told.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Home, Ran, caskade, command, flip};

#[test]
fn a_missing_store_is_not_made_by_accident() {
    let home = Home::new();
    for (command, args) in
        [("get", &["k"][..]), ("put", &["k", "v"]), ("del", &["k"]), ("stats", &[])]
    {
        home.run(command, args).fails(2, "there is no such directory");
    }
    assert!(!home.store().exists());
    std::fs::write(home.store(), "a file").unwrap();
    home.run("get", &["k"]).fails(2, "no store at");
}

#[test]
fn wrong_usage_is_explained() {
    assert_eq!(caskade(&["no-such-command"], b"").code, 2);
    assert_eq!(caskade(&["get"], b"").code, 2);
    let home = Home::new();
    home.fill(1);
    home.run("scan", &["--json", "--out", "raw"]).fails(2, "JSON holds text only");
    home.run("put", &["--create", "--shards", "3", "k", "v"]).fails(2, "the store has 2 shards");
    let key = "k".repeat(65_537);
    home.run("put", &[key.as_str(), "v"]).fails(2, "over the limit of 65536");
}

#[test]
fn a_store_in_use_can_be_read() {
    let home = Home::new();
    home.fill(10);
    let db = caskade::Db::open(home.store()).unwrap();
    db.put(b"fresh", b"1").unwrap();
    let refused = home.run("put", &["k", "v"]);
    refused.fails(4, &format!("by process {}", std::process::id()));
    assert!(refused.stderr.contains("or only read: get"), "{}", refused.stderr);
    assert_eq!(home.run("get", &["fresh"]).ok(), "1");
    assert_eq!(home.run("count", &[""; 0]).ok(), "11\n");
    db.close().unwrap();
}

#[test]
fn a_flipped_bit_is_found() {
    let home = Home::new();
    home.fill(50);
    let (segment, at) = home.find(b"key:007 value");
    flip(&segment, at + 8);

    home.run("get", &["key:007"]).fails(3, "corrupt data in shard");
    assert_eq!(home.run("get", &["key:008"]).ok(), "key:008 value");

    let verified = home.run("verify", &[""; 0]);
    assert_eq!(verified.code, 3);
    let name = segment.file_stem().unwrap().to_str().unwrap().trim_start_matches('0').to_owned();
    assert!(verified.text().contains(&format!("segment {name} offset ")), "{}", verified.text());
    assert!(verified.stderr.contains("1 place is damaged"), "{}", verified.stderr);
    let report: Value = serde_json::from_str(home.run("verify", &["--json"]).text()).unwrap();
    assert_eq!(report["damage"].as_array().unwrap().len(), 1);

    let inspected = caskade(&["inspect", segment.to_str().unwrap(), "--limit", "1000"], b"");
    assert_eq!(inspected.code, 3);
    assert!(inspected.text().contains("damaged: checksum mismatch; the next record begins at"));
}

/// The commands that read all stop at damage, unless they are told to go on.
#[test]
fn damaged_records_can_be_passed_over() {
    let home = Home::new();
    home.fill(100);
    let lines = |ran: &Ran| ran.text().lines().filter(|line| line.contains("key:")).count();
    for (command, args) in [
        ("scan", &["--limit", "1000"][..]),
        ("scan", &["--json"]),
        ("export", &[]),
        ("count", &["--exact"]),
    ] {
        let skip = [args, &["--skip-damaged"]].concat();
        let whole = home.run(command, args);
        assert_eq!(home.run(command, &skip).ok().len(), whole.ok().len(), "{command}");
    }
    let dump = home.path("dump");
    let dump = dump.to_str().unwrap();
    for i in 0..30 {
        let (segment, at) = home.find(format!("key:{i:03} value").as_bytes());
        flip(&segment, at + 8);
    }
    for (command, args) in [
        ("scan", &[][..]),
        ("export", &[]),
        ("export", &["--file", dump]),
        ("count", &["--exact"]),
        ("count", &["--prefix", "key:"]),
    ] {
        let stopped = home.run(command, args);
        assert_eq!(stopped.code, 3, "{}", stopped.stderr);
        for advice in ["--skip-damaged goes on behind it", "`caskade repair` lists what is lost"] {
            assert!(stopped.stderr.contains(advice), "{command}: {}", stopped.stderr);
        }
        assert!(!std::path::Path::new(dump).exists(), "half a dump has no name");
        let ran = home.run(command, &[args, &["--skip-damaged"]].concat());
        assert_eq!(ran.code, 3, "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().filter(|line| line.contains(" offset ")).count(), 20);
        assert!(ran.stderr.contains("and 10 more; `caskade verify` lists all"), "{}", ran.stderr);
        assert!(ran.stderr.contains("30 places are damaged"), "{}", ran.stderr);
        match (command, args) {
            ("count", _) => assert_eq!(ran.text(), "70\n"),
            (_, []) => assert_eq!(lines(&ran), 70, "{command}"),
            _ => {
                assert_eq!(std::fs::read_to_string(dump).unwrap().lines().count(), 70);
                std::fs::remove_file(dump).unwrap();
            }
        }
    }
    // A page at a time, no key is missed and none comes twice.
    let (mut cursor, mut keys) = ("0".to_owned(), 0);
    loop {
        let ran = home.run("scan", &["--skip-damaged", "--limit", "7", "--cursor", &cursor]);
        keys += lines(&ran);
        let Some((_, next)) = ran.stderr.split_once("--cursor ") else { break };
        cursor = next.lines().next().unwrap().to_owned();
    }
    assert_eq!(keys, 70);
}

/// Without its index a damaged store opens only to be salvaged.
#[test]
fn a_store_that_does_not_open_can_be_read_past_the_damage() {
    let home = Home::new();
    home.fill(50);
    let (segment, at) = home.find(b"key:007 value");
    flip(&segment, at + 8);
    std::fs::remove_file(segment.with_file_name("KEYDIR")).unwrap();
    let _ = std::fs::remove_file(segment.with_extension("hint"));
    home.run("count", &[""; 0]).fails(3, "--skip-damaged goes on behind it");
    let ran = home.run("count", &["--skip-damaged"]);
    assert_eq!((ran.code, ran.text()), (3, "49\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("1 place is damaged"), "{}", ran.stderr);
}

#[test]
fn a_clean_store_verifies() {
    let home = Home::new();
    home.fill(50);
    assert!(home.run("verify", &[""; 0]).ok().contains("50 records"));
    let report: Value = serde_json::from_str(home.run("verify", &["--json"]).ok()).unwrap();
    assert_eq!(report["damage"].as_array().unwrap().len(), 0);
}

#[test]
fn a_missing_segment_is_named() {
    let home = Home::new();
    home.fill(50);
    let (segment, _) = home.find(b"key:007 value");
    std::fs::remove_file(&segment).unwrap();
    home.run("get", &["key:007"]).fails(3, segment.to_str().unwrap());
    home.run("put", &["k", "v"]).fails(3, "is missing");
}

#[test]
fn every_file_of_a_store_can_be_looked_into() {
    let home = Home::new();
    home.run("put", &["--create", "--shards", "1", "k", "v", "--ttl", "7d"]).ok();
    home.run("del", &["k"]).ok();
    let db = caskade::Db::open(home.store()).unwrap();
    let options = caskade::WriteOptions::new().durability(caskade::Durability::Sync);
    db.put_with(b"durable", b"1", options).unwrap();
    db.close().unwrap();

    let inspect =
        |name: &str| caskade(&["inspect", home.path(name).to_str().unwrap()], b"").ok().to_owned();
    assert!(inspect("store/STORE").contains("1 shards"));
    assert!(inspect("store/shard-000/MANIFEST").contains("sealed, "));
    assert!(inspect("store/shard-000/KEYDIR").contains("1 keys"));
    assert!(inspect("store/JOURNAL-0").contains("shard 0 segment"));
    let (segment, _) = home.find(b"durable");
    assert!(caskade(&["inspect".as_ref(), segment.as_os_str()], b"").ok().contains("durable = 1"));
    caskade(&["inspect".as_ref(), segment.as_os_str(), "--offset".as_ref(), "65".as_ref()], b"");

    let other = home.path("other");
    std::fs::write(&other, "text").unwrap();
    caskade(&["inspect".as_ref(), other.as_os_str()], b"").fails(2, "is no file of a store");
    caskade(&["inspect".as_ref(), home.path("none").as_os_str()], b"").fails(5, "No such file");
}

#[test]
fn records_are_shown_with_what_they_are() {
    let home = Home::new();
    home.run("put", &["--create", "--shards", "1", "k", "v", "--ttl", "7d"]).ok();
    let (segment, _) = home.find(b"kv");
    let segment = segment.to_str().unwrap();
    let lines: Vec<Value> = caskade(&["inspect", segment, "--json"], b"")
        .ok()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["shard"], 0);
    let put = lines.iter().find(|line| line["kind"] == "put").unwrap();
    assert_eq!(
        (&put["key"], &put["value"], &put["offset"]),
        (&"k".into(), &"v".into(), &64.into())
    );
    assert_eq!(put["flags"][0], "expires");
    let wrong = caskade(&["inspect", segment, "--offset", "65"], b"");
    assert_eq!(wrong.code, 2);
}

/// A segment may be larger than the memory.
#[test]
#[cfg(target_os = "linux")]
fn a_large_segment_is_shown_piece_by_piece() {
    let home = Home::new();
    let db = caskade::Db::builder(home.store()).shards(1).segment_bytes_min(16 << 20);
    let db = db.open().unwrap();
    for (key, value) in [("first", "1"), ("second", &"long".repeat(1 << 20)), ("third", "3")] {
        db.put(key.as_bytes(), value.as_bytes()).unwrap();
    }
    db.close().unwrap();
    let (segment, _) = home.find(b"first");
    let len = std::fs::metadata(&segment).unwrap().len();
    std::fs::File::options().write(true).open(&segment).unwrap().set_len(4 << 30).unwrap();
    let line = format!("ulimit -d 262144; exec {} inspect \"$0\"", env!("CARGO_BIN_EXE_caskade"));
    let ran = Ran::new(Command::new("sh").arg("-c").arg(line).arg(&segment).output().unwrap());
    for shown in ["first = 1", "second = longlong", "third = 3", &format!("{len} end: ")] {
        assert!(ran.ok().contains(shown), "{}", ran.text());
    }
}

#[test]
fn a_lost_manifest_is_damage() {
    let home = Home::new();
    home.fill(10);
    let manifest = home.store().join("shard-001/MANIFEST");
    std::fs::write(&manifest, "noise").unwrap();
    let inspect = || caskade(&["inspect".as_ref(), manifest.as_os_str()], b"");
    inspect().fails(3, "does not begin as a file of its name does");
    std::fs::remove_file(&manifest).unwrap();
    inspect().fails(5, "No such file");
    for args in [&["k"][..], &["k", "v"]] {
        let command = if args.len() == 1 { "get" } else { "put" };
        home.run(command, args).fails(3, "MANIFEST is damaged: it is missing");
    }
    std::fs::remove_file(home.store().join("STORE")).unwrap();
    home.run("count", &[""; 0]).fails(3, "there are segments but no STORE file");
}

#[test]
fn damage_without_a_loss_is_told_and_mended() {
    let home = Home::new();
    home.fill(10);
    flip(&home.store().join("STORE"), 100);
    for (command, args) in [("count", &[][..]), ("repair", &[]), ("put", &["k", "v"])] {
        let ran = home.run(command, args);
        ran.ok();
        assert!(ran.stderr.contains("nothing is lost"), "{command}: {}", ran.stderr);
    }
    assert_eq!(home.run("count", &[""; 0]).stderr, "");
}

#[test]
fn only_files_of_a_store_are_inspected() {
    let home = Home::new();
    home.fill(10);
    let inspect =
        |path: &str, args: &[&str]| caskade(&[&["inspect", path][..], args].concat(), b"");
    let lock = home.store().join("LOCK");
    inspect(lock.to_str().unwrap(), &[]).fails(2, "holds no data");
    inspect("/dev/zero", &[]).fails(2, "is no file of a store");
    let (segment, _) = home.find(b"key:007 value");
    let beyond = inspect(segment.to_str().unwrap(), &["--offset", "1000000000"]);
    assert_eq!(beyond.code, 2);
    assert!(beyond.stderr.contains("the segment ends at"), "{}", beyond.stderr);
}

/// A full or closed stdout or stderr ends a command with its exit code, never with a panic.
#[test]
fn streams_that_nobody_takes() {
    let home = Home::new();
    home.fill(10);
    let store = home.store();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for args in [&["completions", "bash"][..], &["count", store.to_str().unwrap()]] {
        let ran = Ran::new(command(args).stdout(full()).output().unwrap());
        ran.fails(5, "write to stdout: No space left");
        let mut child = command(args).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ran = Ran::new(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}");
    }
    let missing = &["get", store.to_str().unwrap(), "nobody"];
    assert_eq!(Ran::new(command(missing).stderr(full()).output().unwrap()).code, 1);
}
