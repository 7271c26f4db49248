//! Ids, locks, opening and closing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::mpsc::{channel, sync_channel};
use std::time::Duration;

use caskade::{Db, Durability, Error};
use caskade_shard::storage::sim::Repeat;

use crate::rig::{Rig, is_alone, resources};

const EIO: i32 = 5;

/// The highest ids are compacted away, or hold nothing; ids are never used twice.
#[test]
fn segment_ids_are_never_reused() {
    let mut rig = Rig::new();
    let mut gone: BTreeSet<PathBuf> = BTreeSet::new();
    let mut known: BTreeSet<PathBuf> = BTreeSet::new();
    for round in 0..60_u8 {
        rig.put("k", [round; 300]);
        rig.put("l", [round; 300]);
        match round % 6 {
            0 => rig.seal(),
            1 => rig.restart(),
            2 => {
                rig.delete("k");
                rig.delete("l");
                rig.db().compact().expect("compacts");
            }
            3 => {
                rig.db().compact().expect("compacts");
                rig.restart();
            }
            4 => {
                rig.delete("k");
                rig.delete("l");
                rig.db().compact().expect("compacts");
                rig.reopen();
            }
            _ => rig.settle_down(),
        }
        let now: BTreeSet<PathBuf> = rig.files(0, ".seg").into_iter().collect();
        assert!(now.is_disjoint(&gone), "round {round}: an id came back");
        gone.extend(known.difference(&now).cloned());
        known = now;
        rig.compare();
    }
    assert!(gone.len() > 40, "only {} segments went", gone.len());
    rig.prove();
}

/// Ids are listed ahead, and the next life takes what the last one left: no manifest is written.
#[test]
fn a_life_after_a_kill_goes_on_with_the_ids_that_were_listed() {
    let mut rig = Rig::new();
    let path = Rig::shard_dir(0).join("MANIFEST");
    let manifest = rig.disk.read_file(&path).unwrap();
    for id in 1..8_u8 {
        rig.put([id], [id; 100]);
        let holds = |bytes: Vec<u8>| bytes.windows(100).any(|window| window == [id; 100]);
        let used = |path: &PathBuf| rig.disk.read_file(path).is_ok_and(holds);
        let last = rig.files(0, ".seg").into_iter().rfind(used).expect("it was written");
        assert_eq!(last, Rig::shard_dir(0).join(format!("{id:010}.seg")));
        rig.restart();
        assert_eq!(rig.disk.read_file(&path).unwrap(), manifest);
    }
    rig.prove();
}

/// A merge's output has the highest id of all, and is merged away into nothing.
#[test]
fn the_id_of_a_merged_segment_is_not_given_out_again() {
    let mut rig = Rig::new();
    let mut gone: BTreeSet<PathBuf> = BTreeSet::new();
    for round in 0..4_u8 {
        for _ in 0..2 {
            rig.put("a", [round; 50]);
            rig.put("b", [round; 50]);
        }
        rig.put("a", "dead bytes before this");
        rig.db().compact().expect("compacts");
        let outputs = rig.files(0, ".seg");
        assert!(outputs.iter().all(|path| !gone.contains(path)), "{outputs:?} after {gone:?}");
        gone.extend(outputs);
        rig.delete("a");
        rig.delete("b");
        rig.db().compact().expect("compacts");
        assert!(rig.files(0, ".seg").is_empty());
    }
    rig.prove();
}

/// An open that fails, at any call, leaves no lock and nothing that the next open stumbles over.
#[test]
fn a_failed_open_leaves_no_lock() {
    let mut rig = Rig::new();
    for key in 0..10_u8 {
        rig.put([key], [key; 100]);
    }
    rig.kill();
    let mut failures = 0;
    for call in 1.. {
        rig.disk.faults().clear();
        rig.disk.faults().fail_call(call, Repeat::Once, EIO);
        match rig.try_open(|options| options) {
            Ok(db) => {
                let calls = rig.disk.faults().calls();
                rig.disk.faults().clear();
                db.close().expect("closes");
                if calls < call {
                    break;
                }
            }
            Err(error) => {
                assert!(!matches!(error, Error::Locked { .. }), "call {call}: {error}");
                failures += 1;
            }
        }
        rig.disk.faults().clear();
        rig.open();
        rig.compare();
        rig.kill();
    }
    assert!(failures > 5, "only {failures} calls made the open fail");
}

/// A thousand rounds of open, write, compact and close leave no file open, nothing mapped, and no
/// thread behind.
#[test]
fn a_thousand_rounds_of_open_compact_and_close_leak_nothing() {
    const NAME: &str =
        "scenarios::lifecycle::a_thousand_rounds_of_open_compact_and_close_leak_nothing";
    if !is_alone(NAME) {
        return;
    }
    // In memory if there is such a place: this is about handles, not about durability.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let home = dir.path().join("db");
    let mut before = None;
    for round in 0..1000_u32 {
        let db = Db::builder(&home).shards(1).segment_bytes_max(4096).open().unwrap();
        db.put(b"round", &round.to_le_bytes()).unwrap();
        db.put(&[round as u8], &[round as u8; 100]).unwrap();
        if round % 3 == 0 {
            db.compact().unwrap();
        }
        if round % 2 == 0 {
            db.close().unwrap();
        }
        drop(db);
        // The first round started the threads that all rounds share.
        let held = resources(before);
        assert_eq!(held, *before.get_or_insert(held), "round {round}");
    }
    let db = Db::open(&home).unwrap();
    assert_eq!(db.get(b"round").unwrap().unwrap(), &999_u32.to_le_bytes());
    assert_eq!(db.len(), 257);
}

/// Closed in one thread and opened in another at once, ten thousand times: a close that returned
/// has let go of the lock.
#[test]
fn closing_in_one_thread_and_opening_in_another() {
    let mut rig = Rig::new();
    rig.put("k", "v");
    rig.close();
    let options = rig.builder.clone().storage(rig.disk.storage());
    let meeting = Barrier::new(2);
    let (give, take) = sync_channel::<Db>(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let give = give;
            for _ in 0..10_000 {
                give.send(options.clone().open().expect("the lock is free")).unwrap();
                meeting.wait();
            }
        });
        for round in 0..10_000 {
            let db = take.recv().unwrap();
            assert_eq!(db.get(b"k").unwrap().unwrap(), b"v");
            if round % 2 == 0 {
                db.close().unwrap();
            }
            drop(db);
            meeting.wait();
        }
    });
    rig.open();
    rig.prove();
}

/// A child has the lock file open for a moment, between its birth and its own program. That must not
/// keep a store locked which was closed meanwhile.
#[test]
fn a_closed_store_opens_again_while_children_are_born() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("data");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let child = std::process::Command::new("true").status();
                    assert!(child.expect("a child").success());
                }
            });
        }
        for round in 0..400 {
            let opened = Db::builder(&path).shards(1).open().and_then(|db| db.close());
            stop.store(opened.is_err() || round == 399, std::sync::atomic::Ordering::Relaxed);
            assert!(opened.is_ok(), "round {round}: {opened:?}");
        }
    });
}

/// Who opens the store next has its files alone, whatever was under way.
#[test]
fn closing_waits_for_a_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Db::builder(&path).shards(1).open().unwrap();
    for key in 0..2000_u32 {
        db.put(&key.to_le_bytes(), &[7; 500]).unwrap();
    }
    for key in 0..600_u32 {
        db.delete(&key.to_le_bytes()).unwrap();
    }
    db.close().unwrap();
    // At rest: closing has nothing to do that would make it wait.
    let db = Db::open(&path).unwrap();
    let (began, has_begun) = channel();
    let (go, may_go) = channel::<()>();
    std::thread::scope(|scope| {
        let compacting = scope.spawn(|| {
            db.compact_with(move |_| {
                let _ = began.send(());
                // An error once it may go.
                let _ = may_go.recv();
                true
            })
        });
        has_begun.recv().unwrap();
        let closing = scope.spawn(|| db.close());
        std::thread::sleep(Duration::from_millis(300));
        assert!(matches!(Db::open(&path), Err(Error::Locked { .. })), "the merge goes on");
        drop(go);
        closing.join().unwrap().unwrap();
        assert!(matches!(compacting.join().unwrap(), Ok(_) | Err(Error::Closed)));
    });
    let db = Db::open(&path).unwrap();
    assert_eq!(db.iter().unwrap().map(Result::unwrap).count(), 1400);
}

/// The background's work is done by rayon's threads, all of which may be waiting for its end.
#[test]
fn stores_are_dropped_by_all_of_rayons_threads() {
    let (done, is_done) = channel();
    std::thread::spawn(move || {
        rayon::broadcast(|_| {
            let dir = tempfile::tempdir().unwrap();
            let db = Db::open(dir.path().join("db")).unwrap();
            db.put(b"key", b"value").unwrap();
            // The background has begun to look around.
            std::thread::sleep(Duration::from_millis(100));
        });
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(30)).expect("nobody waits for somebody who waits");
}

#[test]
fn a_sync_that_is_due_in_ages_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let never = Durability::Interval(Duration::MAX);
    let db = Db::builder(dir.path().join("db")).durability(never).open().unwrap();
    db.put(b"key", b"value").unwrap();
    db.close().unwrap();
}

/// The process may go elsewhere while a store is open.
#[test]
fn a_store_knows_where_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let here = std::env::current_dir().unwrap();
    let mut path: PathBuf = here.components().skip(1).map(|_| "..").collect();
    path.push(dir.path().strip_prefix("/").unwrap());
    let db = Db::open(path.join("db")).unwrap();
    assert!(db.path().is_absolute());
    assert_eq!(db.path().canonicalize().unwrap(), dir.path().join("db").canonicalize().unwrap());
}

/// Space set aside that is not there helps nobody: a crash came before it, or a copy left it out.
#[test]
fn a_hollow_reserve_is_filled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    Db::open(&path).unwrap().close().unwrap();
    let reserve = path.join("RESERVE");
    let before = std::fs::metadata(&reserve).unwrap().len();
    std::fs::File::create(&reserve).unwrap();
    let db = Db::open(&path).unwrap();
    assert_eq!(std::fs::metadata(&reserve).unwrap().len(), before);
    assert!(before > 0);
    drop(db);
}
