//! Stores on the move: restored, resharded, exported and imported.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::{Home, Ran, caskade, command};

/// Everything in a store.
fn contents(store: &Path) -> BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)> {
    let db = caskade::Db::builder(store).read_only(true).open().unwrap();
    let entries = db.iter().unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let expiry = entry.value.expires_at_unix_ms();
            (entry.key.into_vec(), (entry.value.to_vec(), expiry))
        })
        .collect()
}

/// Puts keys of all kinds: empty, binary, with an expiry.
fn fill_oddly(store: &Path) {
    let db = caskade::Db::builder(store).shards(3).open().unwrap();
    let all: Vec<u8> = (0..=255).collect();
    db.put(&all, &all).unwrap();
    db.put(b"back\\slash\n", "é 🦀".as_bytes()).unwrap();
    db.put(b"nothing", b"").unwrap();
    for i in 0..1_000_u32 {
        db.put(format!("key:{i}").as_bytes(), &i.to_le_bytes()).unwrap();
    }
    db.close().unwrap();
}

fn fill_with_expiry(store: &Path) {
    fill_oddly(store);
    let db = caskade::Db::open(store).unwrap();
    db.put(b"", b"the empty key").unwrap();
    let options = caskade::WriteOptions::new().expires_at_unix_ms(4_000_000_000_000);
    db.put_with(b"expires", b"later", options).unwrap();
    db.close().unwrap();
}

#[test]
fn a_backup_is_restored() {
    let home = Home::new();
    fill_with_expiry(&home.store());
    let before = contents(&home.store());
    let (backup, restored) = (home.path("backup"), home.path("restored"));
    let (backup, restored) = (backup.to_str().unwrap(), restored.to_str().unwrap());
    home.run("backup", &[backup]).ok();
    let report = caskade(&["restore", backup, restored, "--json"], b"");
    let report: Value = serde_json::from_str(report.ok()).unwrap();
    assert_eq!(report["keys"], 1_005);
    assert_eq!(contents(Path::new(restored)), before);
    for path in ["restored", "restored/shard-000", "restored/STORE"] {
        let mode = std::fs::metadata(home.path(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{path} is its owner's alone");
    }
    // It shares nothing with the backup: writing to one does not touch the other.
    caskade(&["put", restored, "k", "v"], b"").ok();
    assert_eq!(contents(Path::new(backup)), before);

    caskade(&["restore", backup, restored], b"").fails(2, "nothing is written over it");
    caskade(&["restore", "/no/such/backup", restored], b"").fails(2, "no store at");
    assert!(!home.path("restored.restoring").exists());
}

#[test]
fn a_damaged_backup_is_not_restored() {
    let home = Home::new();
    home.fill(100);
    let (segment, at) = home.find(b"key:007 value");
    crate::flip(&segment, at + 8);
    let target = home.path("restored");
    let ran = home.run("restore", &[target.to_str().unwrap()]);
    ran.fails(3, "1 place is damaged in the backup");
    assert!(ran.stderr.contains("nothing was restored"), "{}", ran.stderr);
    assert!(!target.exists() && !home.path("restored.restoring").exists());
}

#[test]
fn a_store_in_use_is_neither_restored_nor_resharded() {
    let home = Home::new();
    home.fill(10);
    let db = caskade::Db::open(home.store()).unwrap();
    let target = home.path("restored");
    home.run("restore", &[target.to_str().unwrap()]).fails(4, "is in use");
    home.run("reshard", &["7"]).fails(4, "is in use by process");
    home.run("repair", &["--in-place"]).fails(4, "is in use by process");
    home.run("compact", &[""; 0]).fails(4, "is in use by process");
    home.run("import", &["/dev/null"]).fails(4, "is in use by process");
    db.close().unwrap();
}

#[test]
fn resharding_keeps_everything() {
    let home = Home::new();
    fill_with_expiry(&home.store());
    let before = contents(&home.store());
    assert_eq!(home.run("reshard", &["5"]).ok(), "1,005 keys, 3 shards became 5\n");
    assert_eq!(contents(&home.store()), before);
    let stats: Value = serde_json::from_str(home.run("stats", &["--json"]).ok()).unwrap();
    assert_eq!(stats["shards"].as_array().unwrap().len(), 5);
    let same = home.run("reshard", &["5"]);
    assert!(same.ok().is_empty() && same.stderr.contains("has 5 shards already"));

    let old = home.path("old");
    home.run("reshard", &["2", "--keep-old", old.to_str().unwrap()]).ok();
    assert_eq!(contents(&home.store()), before);
    assert_eq!(contents(&old), before);
    let left: Vec<_> = std::fs::read_dir(home.path("")).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");

    home.run("reshard", &["0"]).fails(2, "0 is not in 1..=256");
    home.run("reshard", &["257"]).fails(2, "257 is not in 1..=256");
}

/// What can't be renamed is found out before anything was exchanged, and a second run removes no store.
#[test]
fn an_old_store_that_cannot_be_kept_stays_where_it_is() {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|meta| meta.dev());
    let home = Home::new();
    let elsewhere = Path::new("/dev/shm");
    if device(elsewhere).is_ok_and(|there| there == device(&home.path("")).unwrap())
        || !elsewhere.exists()
    {
        eprintln!("skipped: there is no other file system");
        return;
    }
    fill_with_expiry(&home.store());
    let before = contents(&home.store());
    let old = elsewhere.join(format!("caskade-test-{}", std::process::id()));
    for _ in 0..2 {
        home.run("reshard", &["2", "--keep-old", old.to_str().unwrap()]).fails(5, "rename");
        assert_eq!(contents(&home.store()), before);
        let stats: Value = serde_json::from_str(home.run("stats", &["--json"]).ok()).unwrap();
        assert_eq!(stats["shards"].as_array().unwrap().len(), 3);
    }
    assert_eq!(std::fs::read_dir(home.path("")).unwrap().count(), 1);
}

#[test]
fn a_store_behind_a_link_is_resharded_where_it_lies() {
    let home = Home::new();
    std::fs::create_dir(home.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(home.path("elsewhere/real"), home.store()).unwrap();
    fill_oddly(&home.path("elsewhere/real"));
    home.run("reshard", &["4"]).ok();
    assert!(home.store().is_symlink());
    assert_eq!(home.run("count", &[""; 0]).ok(), "1003\n");
}

#[test]
fn damage_stops_a_reshard_and_leaves_the_store() {
    let home = Home::new();
    home.fill(100);
    let (segment, at) = home.find(b"key:007 value");
    crate::flip(&segment, at + 8);
    home.run("reshard", &["4"]).fails(3, "corrupt data in shard");
    assert!(!home.path("store.reshard").exists());
    assert_eq!(home.run("get", &["key:008"]).ok(), "key:008 value");
}

/// Killed at any moment there is a whole store, the old one or the new one, and the next run ends it.
#[test]
fn a_killed_reshard_leaves_a_whole_store() {
    let home = Home::new();
    let db = caskade::Db::builder(home.store()).shards(2).open().unwrap();
    for i in 0..60_000_u32 {
        db.put(&i.to_le_bytes(), &[7; 60]).unwrap();
    }
    db.close().unwrap();
    let mut killed = 0;
    for round in 0..24_u64 {
        let shards = (3 + round % 5).to_string();
        let store = home.store();
        let args = ["reshard", store.to_str().unwrap(), &shards];
        let mut child = command(&args).stdin(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(5 + round * 17));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        killed += u32::from(!status.success());
        let db = caskade::Db::builder(&store).create(false).open().unwrap();
        assert_eq!(db.len(), 60_000, "round {round}");
        for i in (0..60_000_u32).step_by(97) {
            assert_eq!(db.get(&i.to_le_bytes()).unwrap().unwrap(), [7; 60], "round {round}");
        }
        db.close().unwrap();
    }
    assert!(killed > 2, "the kills hit");
    home.run("reshard", &["9"]).ok();
    assert!(!home.path("store.reshard").exists(), "what killed runs left is gone");
    assert_eq!(home.run("count", &["--exact"]).ok(), "60000\n");
}

#[test]
fn what_is_in_the_way_of_a_reshard_is_not_removed() {
    let home = Home::new();
    home.fill(10);
    std::fs::create_dir(home.path("store.reshard")).unwrap();
    std::fs::write(home.path("store.reshard/thesis.txt"), "years of work").unwrap();
    home.run("reshard", &["4"]).fails(2, "is in the way and holds other files");
    assert!(home.path("store.reshard/thesis.txt").exists());
}

#[test]
fn json_goes_out_and_comes_back() {
    for form in ["escaped", "hex"] {
        let home = Home::new();
        fill_with_expiry(&home.store());
        let dump = home.run("export", &["--out", form]);
        assert_eq!(dump.ok().lines().count(), 1_005);
        let other = home.path("other");
        let other = other.to_str().unwrap();
        let ran = caskade(&["import", "--create", "--shards", "7", other], dump.text().as_bytes());
        assert_eq!(ran.ok(), "1,005 keys stored\n");
        assert_eq!(contents(Path::new(other)), contents(&home.store()), "{form}");
    }
}

#[test]
fn what_scan_prints_can_be_imported() {
    let home = Home::new();
    fill_oddly(&home.store());
    let all = contents(&home.store());
    for form in ["escaped", "hex"] {
        let page = home.run("scan", &["--json", "--limit", "100", "--out", form]);
        let other = home.path(form);
        let ran = caskade(&["import", "--create", other.to_str().unwrap()], page.ok().as_bytes());
        assert!(ran.ok().ends_with(" keys stored\n"), "{}", ran.text());
        let found = contents(&other);
        assert!(found.len() >= 100);
        assert!(found.iter().all(|(key, value)| all.get(key) == Some(value)), "{form}");
    }
}

#[test]
fn importing_can_leave_what_is_there() {
    let home = Home::new();
    home.fill(2);
    let dump = "{\"key\":\"key:000\",\"value\":\"other\"}\n{\"key\":\"new\",\"value\":\"1\"}\n";
    let file = home.path("dump");
    std::fs::write(&file, dump).unwrap();
    let ran = home.run("import", &[file.to_str().unwrap(), "--no-overwrite", "--json"]);
    let report: Value = serde_json::from_str(ran.ok()).unwrap();
    assert_eq!((&report["stored"], &report["left_as_they_were"]), (&1.into(), &1.into()));
    assert_eq!(home.run("get", &["key:000"]).ok(), "key:000 value");
    home.run("import", &[file.to_str().unwrap()]).ok();
    assert_eq!(home.run("get", &["key:000"]).ok(), "other");
}

#[test]
fn a_bad_line_is_named_and_what_came_before_stays() {
    let home = Home::new();
    home.fill(1);
    let store = home.store();
    let dump = b"{\"key\":\"a\",\"value\":\"1\"}\nnonsense\n";
    let ran = caskade(&["import", store.to_str().unwrap()], dump);
    ran.fails(2, "line 2 of stdin: not a JSON object");
    assert!(ran.stderr.contains("1 key stored, then:"), "{}", ran.stderr);
    assert_eq!(home.run("get", &["a"]).ok(), "1");
    let none = home.path("none");
    caskade(&["import", "--create", none.to_str().unwrap()], b"hello").fails(2, "neither");
    assert!(!none.exists(), "what is no dump makes no store");
    caskade(&["import", none.to_str().unwrap()], dump).fails(2, "there is no such directory");
    home.run("import", &["/no/such/dump"]).fails(5, "open /no/such/dump");
    home.run("import", &["/"]).fails(5, "read /: Is a directory");
    let dump = home.path("yesterday");
    std::fs::write(&dump, "a dump").unwrap();
    let dump = dump.to_str().unwrap();
    caskade(&["export", "/no/such/store", "--file", dump], b"").fails(2, "no store at");
    let (segment, at) = home.find(b"key:000 value");
    crate::flip(&segment, at);
    home.run("export", &["--file", dump]).fails(3, "corrupt data");
    crate::flip(&segment, at);
    assert_eq!(std::fs::read(dump).unwrap(), b"a dump", "what fails leaves it");
    assert!(!home.path("yesterday.partial").exists());
    home.run("export", &["--file", "/dev/full"]).fails(5, "write /dev/full: No space left");
    home.run("backup", &[home.store().to_str().unwrap()]).fails(2, "is the store itself");
    home.run("inspect", &[""; 0]).fails(2, "is a folder; name one of its files");
    home.run("export", &["--out", "raw"]).fails(2, "a dump holds text only");
}

/// Runs a tool of LMDB. None where it is not installed.
fn lmdb(args: &[&str]) -> Option<Ran> {
    let ran = Command::new(args[0]).args(&args[1..]).stdin(Stdio::null()).output();
    match ran {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("{} is not installed; this half of the test did not run", args[0]);
            None
        }
        ran => Some(Ran::new(ran.unwrap())),
    }
}

#[test]
fn lmdb_loads_what_is_exported_and_back() {
    let home = Home::new();
    fill_oddly(&home.store());
    let before = contents(&home.store());
    let path = |name: &str| home.path(name).to_str().unwrap().to_owned();
    home.run("export", &["--format", "lmdb", "--file", &path("dump")]).ok();
    // Without LMDB's tools, Caskade still reads its own dump.
    caskade(&["import", "--create", &path("own"), &path("dump")], b"").ok();
    assert_eq!(contents(&home.path("own")), before);

    std::fs::create_dir(home.path("lmdb")).unwrap();
    let Some(loaded) = lmdb(&["mdb_load", "-f", &path("dump"), &path("lmdb")]) else { return };
    loaded.ok();
    for form in [&["mdb_dump"][..], &["mdb_dump", "-p"]] {
        let (file, environment) = (path("dumped"), path("lmdb"));
        let args = [form, &["-f", &file, &environment]].concat();
        lmdb(&args).expect("the other tool is there").ok();
        let back = path(&format!("back{}", form.len()));
        let ran = caskade(&["import", "--create", &back, &file], b"");
        if form.len() == 2 && ran.code != 0 {
            // This version does not escape backslashes: its own mdb_load reads something else.
            ran.fails(2, "dump without -p");
            continue;
        }
        assert_eq!(ran.ok(), "1,003 keys stored\n");
        assert_eq!(contents(Path::new(&back)), before, "{form:?}");
    }
}

#[test]
fn text_dumps_of_lmdb_are_read() {
    let home = Home::new();
    home.fill(300);
    let path = |name: &str| home.path(name).to_str().unwrap().to_owned();
    home.run("put", &["binary", "ff00", "--in", "hex"]).fails(2, "hexadecimal");
    home.run("put", &["--in", "hex", "00ff", "ff00"]).ok();
    home.run("export", &["--format", "lmdb", "--file", &path("dump")]).ok();
    std::fs::create_dir(home.path("lmdb")).unwrap();
    let Some(loaded) = lmdb(&["mdb_load", "-f", &path("dump"), &path("lmdb")]) else { return };
    loaded.ok();
    assert_eq!(loaded.stderr, "", "it knows every line of the head");
    lmdb(&["mdb_dump", "-p", "-f", &path("dumped"), &path("lmdb")]).expect("the other tool").ok();
    caskade(&["import", "--create", &path("back"), &path("dumped")], b"").ok();
    assert_eq!(contents(&home.path("back")), contents(&home.store()));
}

#[test]
fn what_lmdb_cannot_hold_is_noted() {
    let home = Home::new();
    fill_with_expiry(&home.store());
    let ran = home.run("export", &["--format", "lmdb"]);
    ran.ok();
    assert!(ran.stderr.contains("no expiry; 1 keys lose theirs"), "{}", ran.stderr);
    assert!(ran.stderr.contains("1 keys are empty or longer than 511"), "{}", ran.stderr);
}

#[test]
fn nothing_is_put_inside_a_store() {
    let home = Home::new();
    home.fill(10);
    let inside = home.store().join("inside");
    let inside = inside.to_str().unwrap();
    for (command, args) in [
        ("backup", &[inside][..]),
        ("restore", &[inside]),
        ("repair", &["--into", inside]),
        ("reshard", &["5", "--keep-old", inside]),
    ] {
        home.run(command, args).fails(2, "name a folder beside it");
    }
    assert!(!Path::new(inside).exists());
    let file = home.path("file");
    std::fs::write(&file, "").unwrap();
    home.run("backup", &[file.to_str().unwrap()]).fails(2, "a backup is a folder");
}

/// The old store is removed with all that is in its folder: not with what others put there.
#[test]
fn a_reshard_removes_no_files_of_others() {
    let home = Home::new();
    home.fill(10);
    for foreign in ["notes.txt", "shard-000/7.seg.bak"] {
        let foreign = home.store().join(foreign);
        std::fs::write(&foreign, "mine").unwrap();
        home.run("reshard", &["5"]).fails(2, foreign.file_name().unwrap().to_str().unwrap());
        assert!(foreign.exists());
        let old = home.path("old");
        home.run("reshard", &["5", "--keep-old", old.to_str().unwrap()]).ok();
        std::fs::remove_dir_all(home.store()).unwrap();
        std::fs::rename(&old, home.store()).unwrap();
        assert_eq!(std::fs::read(&foreign).unwrap(), b"mine");
        std::fs::remove_file(&foreign).unwrap();
    }
    let same: Value = serde_json::from_str(home.run("reshard", &["2", "--json"]).ok()).unwrap();
    assert_eq!((&same["keys"], &same["shards_before"]), (&10.into(), &2.into()));
}
