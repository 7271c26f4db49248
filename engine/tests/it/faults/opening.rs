//! Who may open what, and how often.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use caskade::{Background, Db, Error, OpenProgress};

use crate::rig::{Pairs, Rig, contents, tiny};

/// Environment variables for the child processes of these tests.
const CHILD_HOME: &str = "CASKADE_TEST_CHILD_HOME";

fn pairs(count: u32) -> Pairs {
    (0..count).map(|key| (key.to_le_bytes().to_vec(), vec![key as u8; 50])).collect()
}

fn fill(db: &Db, pairs: &Pairs) {
    for (key, value) in pairs {
        db.put(key, value).unwrap();
    }
}

#[test]
fn a_second_opener_is_told_who_holds_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("db");
    let alias = dir.path().join("alias");
    symlink(&home, &alias).unwrap();
    let db = Db::open(&home).unwrap();
    for path in [&home, &alias] {
        let error = Db::open(path).expect_err("it is open");
        let Error::Locked { pid, .. } = error else { panic!("{error}") };
        assert_eq!(pid, Some(std::process::id()));
    }
    db.put(b"k", b"v").unwrap();
    db.close().unwrap();
    // A handle that is still around holds nothing.
    let again = Db::open(&alias).unwrap();
    assert_eq!(again.get(b"k").unwrap().unwrap(), b"v");
    assert!(matches!(db.get(b"k"), Err(Error::Closed)));
}

/// Runs in a process of its own, started by the test below.
#[test]
fn child_that_holds_a_store() {
    let Some(home) = std::env::var_os(CHILD_HOME) else { return };
    let db = Db::open(&home).unwrap();
    db.put(b"k", b"from the child").unwrap();
    std::fs::write(Path::new(&home).with_extension("ready"), "").unwrap();
    std::thread::sleep(std::time::Duration::from_mins(10));
}

#[test]
fn another_process_holds_the_store_until_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["faults::opening::child_that_holds_a_store", "--exact"])
        .env(CHILD_HOME, &home)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ready = home.with_extension("ready");
    for _ in 0..1000 {
        if ready.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let outcome = Db::open(&home);
    child.kill().unwrap();
    child.wait().unwrap();
    let error = outcome.expect_err("the child has it open");
    assert!(matches!(error, Error::Locked { pid: Some(pid), .. } if pid == child.id()), "{error}");
    // A killed holder leaves nothing stale, and what it wrote is there.
    let db = Db::open(&home).unwrap();
    assert_eq!(db.get(b"k").unwrap().unwrap(), b"from the child");
}

/// A read-only directory: works, and writes nothing.
#[test]
fn a_read_only_open_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("db");
    let model = pairs(100);
    let db = Db::builder(&home).shards(2).open().unwrap();
    fill(&db, &model);
    db.close().unwrap();
    // What a writer would clear up.
    for name in ["0000009999.seg", "0000009999.hint", "MANIFEST.tmp"] {
        std::fs::write(home.join("shard-000").join(name), b"leftover").unwrap();
    }
    let listing = || {
        let mut all = Vec::new();
        let mut dirs = vec![home.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let facts = entry.metadata().unwrap();
                if facts.is_dir() {
                    dirs.push(entry.path());
                }
                all.push((entry.path(), facts.len(), facts.modified().unwrap()));
            }
        }
        all.sort();
        all
    };
    let before = listing();
    let permit = |bits: u32| {
        for path in [home.join("shard-000"), home.join("shard-001"), home.clone()] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(bits)).unwrap();
        }
    };
    permit(0o500);
    let db = Db::builder(&home).read_only(true).open();
    let outcome = db.map(|db| {
        assert_eq!(contents(&db), model);
        assert!(matches!(db.put(b"k", b"v"), Err(Error::ReadOnly)));
        assert!(matches!(db.delete(b"k"), Err(Error::ReadOnly)));
        assert!(matches!(db.sync(), Err(Error::ReadOnly)));
        assert!(matches!(db.compact(), Err(Error::ReadOnly)));
        assert!(matches!(db.checkpoint(dir.path().join("copy")), Err(Error::ReadOnly)));
        assert!(!db.run_background());
        // Two at a time, and a fresh one.
        let second = Db::builder(&home).read_only(true).open().unwrap();
        assert_eq!(contents(&second.refresh().unwrap()), model);
        db.close().unwrap();
    });
    permit(0o700);
    outcome.unwrap();
    assert_eq!(listing(), before);
}

/// The same where the file system itself says no.
#[test]
fn a_read_only_file_system_can_be_read() {
    let mut rig = Rig::with(tiny(2));
    for key in 0..40_u8 {
        rig.put([key], [key; 70]);
    }
    for killed in [false, true] {
        if killed {
            rig.open();
            rig.put("more", "in the log");
            rig.kill();
        } else {
            rig.close();
        }
        rig.disk.faults().set_read_only(true);
        let db = rig.try_open(|options| options.read_only(true)).expect("opens");
        crate::rig::compare(&db, &rig.model, &rig.keys);
        drop(db);
        rig.try_open(|options| options).expect_err("it cannot be written");
        rig.disk.faults().clear();
    }
    rig.open();
    rig.prove();
}

#[test]
fn closed_handles_answer_errors() {
    let mut rig = Rig::new();
    rig.put("k", [5; 500]);
    let db = rig.db().clone();
    let value = db.get(b"k").unwrap().unwrap();
    let mut iter = db.iter().unwrap();
    rig.close();
    db.close().expect("twice is fine");
    assert!(matches!(db.get(b"k"), Err(Error::Closed)));
    assert!(matches!(db.put(b"k", b"v"), Err(Error::Closed)));
    assert!(matches!(db.delete(b"k"), Err(Error::Closed)));
    assert!(matches!(db.fetch_add(b"n", 1), Err(Error::Closed)));
    assert!(matches!(db.contains_key(b"k"), Err(Error::Closed)));
    assert!(matches!(db.get_many(&[b"k"]), Err(Error::Closed)));
    assert!(matches!(db.iter(), Err(Error::Closed)));
    assert!(matches!(db.keys(), Err(Error::Closed)));
    assert!(matches!(db.scan(caskade::ScanCursor::start(), 1), Err(Error::Closed)));
    assert!(matches!(db.sync(), Err(Error::Closed)));
    assert!(matches!(db.compact(), Err(Error::Closed)));
    assert!(matches!(db.verify(|_| true), Err(Error::Closed)));
    assert!(matches!(db.checkpoint("/copy"), Err(Error::Closed)));
    assert!(!db.run_background());
    let _ = (db.len(), db.stats(), db.poisoned());
    // What was read before stays.
    assert_eq!(value, &[5; 500]);
    match iter.next().expect("an entry or an error") {
        Ok(entry) => assert_eq!(entry.value, &[5; 500]),
        Err(error) => assert!(matches!(error, Error::Closed), "{error}"),
    }
    rig.open();
    rig.prove();
}

/// The directory may be somebody else's by then.
#[test]
fn a_closed_store_makes_no_files() {
    let mut rig = Rig::new();
    let db = rig.db().clone();
    // A segment gets full, for which the background would make another ready.
    for key in 0..100_u8 {
        rig.put([key], [key; 100]);
    }
    rig.close();
    let storage = rig.disk.storage();
    let names = || -> Vec<_> {
        let entries = storage.list_dir("/db/shard-000".as_ref()).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    };
    let before = names();
    while db.run_background() {}
    assert_eq!(names(), before);
    rig.open();
    rig.prove();
}

/// Lets sealing fail, and writes until something comes of it.
fn fail_to_seal(rig: &mut Rig, until: impl Fn(&Rig) -> bool) {
    use caskade_shard::storage::sim::{Op, Verdict};
    rig.disk.faults().set_rule(|call| {
        let is_manifest = call.path.to_str().is_some_and(|path| path.contains("MANIFEST"));
        if call.op == Op::Create && is_manifest { Verdict::Fail(5) } else { Verdict::Proceed }
    });
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    for key in (0..200_u8).cycle() {
        if until(rig) || std::time::Instant::now() > deadline {
            break;
        }
        // A rotation needs the manifest too, and may fail before the background does.
        if rig.db().put(&[key], &[key; 300]).is_ok() {
            rig.note(&[key], Some(&[key; 300]));
        }
        // Full segments wait a while for more to be sealed with them.
        rig.disk.advance(500);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Who hears of a background error may close the store there and then.
#[test]
fn the_hook_of_background_errors_may_close_the_store() {
    let store = std::sync::Arc::new(std::sync::OnceLock::<Db>::new());
    let (closed, is_closed) = std::sync::mpsc::channel();
    let hook = {
        let store = std::sync::Arc::clone(&store);
        move |_: &Error| {
            let _ = store.get().expect("is open").close();
            let _ = closed.send(());
        }
    };
    let builder = tiny(1).background(Background::Thread).on_background_error(hook);
    let mut rig = Rig::with(builder);
    store.set(rig.db().clone()).expect("is set once");
    fail_to_seal(&mut rig, |_| is_closed.try_recv().is_ok());
    assert!(matches!(rig.db().put(b"k", b"v"), Err(Error::Closed)));
    assert_eq!(rig.db().poisoned(), None);
}

/// A panic on the maintenance thread: the store is poisoned, and says so.
#[test]
fn a_panic_in_the_background_poisons() {
    let mut rig = Rig::with(
        tiny(1)
            .background(Background::Thread)
            .on_background_error(|_| panic!("planted in the hook of background errors")),
    );
    rig.put("k", "v");
    // That calls the hook.
    fail_to_seal(&mut rig, |rig| rig.db().poisoned().is_some());
    let error = rig.db().put(b"l", b"v").expect_err("poisoned");
    assert!(matches!(&error, Error::Poisoned { cause } if cause.contains("panicked")), "{error}");
    assert_eq!(rig.db().get(b"k").unwrap().unwrap(), b"v");
    let error = rig.db().close().expect_err("close says so");
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    rig.kill();
    rig.disk.faults().clear();
    rig.builder = tiny(1);
    rig.open();
    rig.prove();
}

/// The callback may say stop in any of its calls: before and after a shard is read, and before it is
/// repaired.
#[test]
fn an_open_stops_wherever_it_is_told_to() {
    for shards in [1, 2] {
        let mut rig = Rig::with(tiny(shards).snapshot_on_close(false));
        for key in 0..40_u8 {
            rig.put([key], [key; 70]);
        }
        rig.seal();
        for key in 0..40_u8 {
            rig.put([key], [!key; 70]);
        }
        rig.kill();
        let calls = 3 * usize::from(shards);
        let open = |limit: usize| {
            let told = Arc::new(Mutex::new(Vec::<OpenProgress>::new()));
            let ears = Arc::clone(&told);
            let progress = move |now| {
                let mut told = ears.lock().unwrap();
                told.push(now);
                told.len() < limit
            };
            let outcome = rig.try_open(|options| options.on_open_progress(progress)).map(drop);
            let told = told.lock().unwrap().clone();
            (outcome, told)
        };
        for limit in 1..=calls {
            let (stopped, told) = open(limit);
            assert!(matches!(stopped, Err(Error::Stopped)), "{limit} of {calls}: {stopped:?}");
            assert!(told.len() >= limit);
            // What was told before the last word is done; nothing is begun after it.
            if limit == 1 && shards == 1 {
                assert_eq!((told[1].segments_done, told[0].segments_done), (0, 0));
                assert!(told[1].segments_total > 0);
            }
        }
        let (opened, told) = open(calls + 1);
        opened.expect("nobody stopped it");
        assert_eq!(told.len(), calls);
        let last = told.last().expect("it was asked");
        assert!(last.segments_total > 2 && last.segments_done == last.segments_total, "{last:?}");
        rig.open();
        rig.prove();
    }
}
