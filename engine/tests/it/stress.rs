//! Many threads on the real file system, for `CASKADE_STRESS_SECS` seconds (3 if not said).
//!
//! Eight threads share one store: counters by `fetch_add` and by compare-and-swap, transfers by
//! batches that keep a sum, snapshots that must show that sum, and deletes and TTLs that give
//! merges something to do. In the end every count must be exact, before and after reopening, and
//! the process must hold no more than it did.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use caskade::{Batch, Db, Durability, WriteOptions};

use crate::rig::{Dice, is_alone, resources};

const ACCOUNTS: u64 = 64;
const DEPOSIT: u64 = 1000;

fn account(index: u64) -> Vec<u8> {
    format!("account {index}").into_bytes()
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().expect("a number has eight bytes"))
}

fn read(db: &Db, key: &[u8]) -> u64 {
    db.get(key).unwrap().map_or(0, |value| number(&value))
}

/// Memory of this process that is not a mapped file, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("Linux has it");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// What the threads counted on their own.
#[derive(Default)]
struct Tally {
    added: AtomicU64,
    swapped: AtomicU64,
    snapshots: AtomicU64,
    transfers: AtomicU64,
    stop: AtomicBool,
    /// What the keys hold that only one thread writes.
    versions: Mutex<BTreeMap<u64, u64>>,
}

impl Tally {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

fn add(db: &Db, tally: &Tally, seed: u64) {
    let mut dice = Dice::new(seed);
    while tally.goes_on() {
        let delta = dice.below(5) + 1;
        db.fetch_add(b"added", delta.cast_signed()).unwrap();
        tally.added.fetch_add(delta, Ordering::Relaxed);
    }
}

fn swap(db: &Db, tally: &Tally) {
    while tally.goes_on() {
        let old = db.get(b"swapped").unwrap();
        let new = old.as_deref().map_or(0, number) + 1;
        if db.compare_and_swap(b"swapped", old.as_deref(), Some(&new.to_le_bytes())).unwrap() {
            tally.swapped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Moves money between accounts of its own half, so that nobody else changes them in between.
fn transfer(db: &Db, tally: &Tally, half: u64) {
    let mut dice = Dice::new(half + 77);
    while tally.goes_on() {
        let mut pick = || dice.below(ACCOUNTS / 2) * 2 + half;
        let (from, to) = (account(pick()), account(pick()));
        let has = read(db, &from);
        if from == to || has == 0 {
            continue;
        }
        let amount = dice.below(has) + 1;
        let mut batch = Batch::new();
        batch.put(&from, &(has - amount).to_le_bytes());
        batch.put(&to, &(read(db, &to) + amount).to_le_bytes());
        let is_durable = dice.below(50) == 0;
        let durability = if is_durable { Durability::Sync } else { Durability::Buffered };
        db.write_with(&batch, WriteOptions::new().durability(durability)).unwrap();
        tally.transfers.fetch_add(1, Ordering::Relaxed);
    }
}

fn sum(db: &Db) -> u64 {
    let mut sum = 0;
    let mut accounts = 0;
    for entry in db.iter().unwrap() {
        let entry = entry.unwrap();
        if entry.key.starts_with(b"account") {
            sum += number(&entry.value);
            accounts += 1;
        }
    }
    assert_eq!(accounts, ACCOUNTS);
    sum
}

fn watch(db: &Db, tally: &Tally) {
    while tally.goes_on() {
        assert_eq!(sum(db), ACCOUNTS * DEPOSIT, "a snapshot shows half a batch");
        tally.snapshots.fetch_add(1, Ordering::Relaxed);
    }
}

/// Makes garbage: overwrites, deletes, expiries, with values that tell their key and version.
fn churn(db: &Db, tally: &Tally) {
    let mut dice = Dice::new(5);
    let mut versions = tally.versions.lock().unwrap();
    while tally.goes_on() {
        let index = dice.below(200);
        let key = format!("churn {index}");
        match dice.below(8) {
            0 => {
                db.delete(key.as_bytes()).unwrap();
                versions.remove(&index);
                assert!(db.get(key.as_bytes()).unwrap().is_none());
            }
            1 => {
                let options = WriteOptions::new().ttl(Duration::from_millis(1));
                db.put_with(format!("short {index}").as_bytes(), &[1; 100], options).unwrap();
            }
            2..5 => {
                let version = dice.below(u64::MAX >> 11) + 1;
                let value = version.to_le_bytes().repeat(dice.below(100) as usize + 1);
                db.put(key.as_bytes(), &value).unwrap();
                versions.insert(index, version);
            }
            _ => {
                let found = db.get(key.as_bytes()).unwrap();
                let version = found.map(|value| number(&value[..8]));
                assert_eq!(version.as_ref(), versions.get(&index), "{key}");
            }
        }
    }
}

fn check(db: &Db, tally: &Tally) {
    assert_eq!(read(db, b"added"), tally.added.load(Ordering::Relaxed), "a lost update");
    assert_eq!(read(db, b"swapped"), tally.swapped.load(Ordering::Relaxed), "a lost swap");
    assert_eq!(sum(db), ACCOUNTS * DEPOSIT, "half a batch");
    for (index, version) in &*tally.versions.lock().unwrap() {
        let value = db.get(format!("churn {index}").as_bytes()).unwrap().expect("it was put");
        assert_eq!(number(&value[..8]), *version, "churn {index}");
    }
    assert!(db.verify(|_| true).unwrap().is_clean());
}

#[test]
fn eight_threads_lose_nothing_and_leak_nothing() {
    if !is_alone("stress::eight_threads_lose_nothing_and_leak_nothing") {
        return;
    }
    let seconds = std::env::var("CASKADE_STRESS_SECS").ok().and_then(|s| s.parse().ok());
    let seconds = Duration::from_secs(seconds.unwrap_or(3));
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("db");
    let options =
        || Db::builder(&home).shards(4).segment_bytes_max(256 << 10).segment_bytes_min(16 << 10);
    let tally = Tally::default();
    // Each round is a life of the store; the first one starts what all lives share.
    let rounds = 3;
    let mut first = None;
    let mut merges = 0;
    for round in 0..rounds {
        let db = options().open().unwrap();
        if round == 0 {
            for index in 0..ACCOUNTS {
                db.put(&account(index), &DEPOSIT.to_le_bytes()).unwrap();
            }
        }
        check(&db, &tally);
        tally.stop.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let (db, tally) = (&db, &tally);
            scope.spawn(|| add(db, tally, 1));
            scope.spawn(|| add(db, tally, 2));
            scope.spawn(|| swap(db, tally));
            scope.spawn(|| swap(db, tally));
            scope.spawn(|| transfer(db, tally, 0));
            scope.spawn(|| transfer(db, tally, 1));
            scope.spawn(|| watch(db, tally));
            scope.spawn(|| churn(db, tally));
            let end = Instant::now() + seconds / rounds;
            while Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
                db.compact().unwrap();
            }
            tally.stop.store(true, Ordering::Relaxed);
        });
        check(&db, &tally);
        let stats = db.stats();
        merges += stats.total.merges;
        if round != 1 {
            db.close().unwrap();
        }
        drop(db);
        let held = resources(first.map(|(before, _)| before));
        let memory = memory();
        let (before, memory_before) = *first.get_or_insert((held, memory));
        assert_eq!(held, before, "files, maps and threads");
        if round + 1 == rounds {
            // Each life's keydirs, hints and views come to far more than this in all; what the
            // allocator keeps of its peak varies by some twenty MiB from run to run.
            assert!(memory < memory_before + (48 << 10), "{memory} KiB after {memory_before} KiB");
        }
    }
    let db = options().open().unwrap();
    check(&db, &tally);
    assert!(merges > 0 && tally.snapshots.load(Ordering::Relaxed) > 0);
    assert!(tally.transfers.load(Ordering::Relaxed) > 0);
}
