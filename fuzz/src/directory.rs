//! Whole stores of which any file may hold anything.
//!
//! The input picks one of a few small stores, which the engine wrote, and says what happens to its
//! files. Then the store is opened in every mode, and used if it opens.
//!
//! Nothing may panic, hang or take memory that the files do not explain. What may be *answered*
//! depends on what was done to the files:
//!
//! - **Flips** of single bits do not pass a checksum. As long as opening reports no loss, each key
//!   has the value it had, or an error.
//! - **Moves** of bytes that the store wrote (copied, swapped, cut off, deleted, zeroed) cannot make
//!   up a record either, since checksums bind records to their segment and offset. They may bring
//!   an old end of a log back, so a key has a value that was written for it once, or none.
//! - **Forgeries** take bytes from the input: the fuzzer sees what a checksum is compared with, and
//!   can answer it. With a new checksum they are as good as records of the store. Of them only
//!   panics, hangs and memory are told, and that what is written next is kept.

mod base;
mod change;
mod forge;

use crate::alone::alone;
use crate::input::Input;
use base::{Base, Pairs};
use caskade::{Db, RecoveryMode, Result};
use caskade_shard::storage::sim::SimDisk;
use change::{Trust, change};
use std::collections::BTreeMap;

/// Bounds the time that an input takes.
const CHANGES_MAX: usize = 16;
/// What is written to a store that opened, and must be kept.
const PROBE: &[u8] = b"probe";

/// Changes the files as the input says, opens the store in every mode, and uses it.
pub fn directory(data: &[u8]) {
    alone(|| {
        let mut input = Input::new(data);
        let base = Base::pick(input.u8());
        let mut files = base.files.clone();
        let mut trust = Trust::Flips;
        for _ in 0..CHANGES_MAX {
            if input.is_empty() {
                break;
            }
            trust = trust.min(change(&mut input, base, &mut files));
        }
        let disk = base.disk_with(&files);
        for mode in [RecoveryMode::Default, RecoveryMode::Strict, RecoveryMode::Salvage] {
            read_only(base, &disk, mode, trust);
            use_store(base, &disk.fork(), mode, trust);
        }
    });
}

fn open(disk: &SimDisk, mode: RecoveryMode, read_only: bool) -> Result<Db> {
    base::tiny(disk).recovery_mode(mode).read_only(read_only).open()
}

/// Opens the store, reads all of it, merges, writes, and opens it again.
fn use_store(base: &Base, disk: &SimDisk, mode: RecoveryMode, trust: Trust) {
    let Ok(db) = open(disk, mode, false) else { return };
    let trust = trust.beside(&db);
    read(base, &db, trust);
    while db.run_background() {}
    let _ = db.compact();
    read(base, &db, trust);
    let is_kept = db.put(PROBE, PROBE).is_ok();
    let is_closed = db.close().is_ok();
    drop(db);
    if is_kept && is_closed {
        let db = open(disk, mode, false).expect("what opened once opens again");
        let found = db.get(PROBE).expect("what was just written is read");
        assert_eq!(found.as_deref(), Some(PROBE), "what was just written is there");
        read(base, &db, trust.beside(&db));
    }
}

/// Reads the store without changing a byte of it.
fn read_only(base: &Base, disk: &SimDisk, mode: RecoveryMode, trust: Trust) {
    let before = base::files_of(disk);
    if let Ok(db) = open(disk, mode, true) {
        read(base, &db, trust.beside(&db));
    }
    assert_eq!(base::files_of(disk), before, "reading changes nothing");
}

/// Reads in every way, and judges what comes.
fn read(base: &Base, db: &Db, trust: Trust) {
    let mut found = BTreeMap::new();
    let keys: Vec<&Vec<u8>> = base.history.keys().collect();
    for key in &keys {
        let answer = db.get(key).map(|value| value.map(Vec::from));
        if let Ok(value) = &answer {
            base.judge(key, value.as_deref(), trust);
            let len = value.as_ref().map(Vec::len);
            assert_eq!(db.value_len(key).expect("it was read"), len, "get and value_len agree");
        }
        let _ = db.ttl(key);
        found.insert((*key).clone(), answer.ok());
    }
    if let Ok(many) = db.get_many(&keys) {
        for (key, value) in keys.iter().zip(many) {
            let value = value.map(Vec::from);
            assert_eq!(found[*key].as_ref(), Some(&value), "get and get_many agree");
        }
    }
    let mut seen = Pairs::new();
    for entry in db.iter().into_iter().flatten().flatten() {
        let (key, value) = (entry.key.to_vec(), entry.value.to_vec());
        if trust > Trust::Forgeries && key != PROBE {
            base.judge(&key, Some(&value), trust);
            assert!(seen.insert(key, value).is_none(), "a key comes once");
        }
    }
    let _ = db.keys().map(Iterator::count);
    let _ = db.verify(|_| true);
    let _ = (db.stats(), db.segment_stats(), db.len());
}
