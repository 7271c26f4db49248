//! The simulator proves itself: what was not synced can be lost, what was synced cannot, and each
//! fault does what it says. A simulator that is too kind would let every crash test pass.

mod durability;
mod entries;
mod faults;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::storage::{Access, File, MapMode};

/// A disk with a synced file `/f` of these contents, open in a fresh life.
fn disk_with(bytes: &[u8]) -> (SimDisk, Arc<dyn File>) {
    let disk = SimDisk::new(1);
    disk.write_file("/f", bytes).unwrap();
    let file = open(&disk);
    (disk, file)
}

fn open(disk: &SimDisk) -> Arc<dyn File> {
    disk.storage().open(Path::new("/f"), Access::ReadWrite).unwrap()
}

/// What `look` sees after every power cut that is possible now, and how many cuts there were.
fn outcomes<T: Ord>(disk: &SimDisk, look: impl Fn(&SimDisk) -> T) -> (BTreeSet<T>, usize) {
    let mut all = Exhaustive::new();
    let mut seen = BTreeSet::new();
    let mut runs = 0;
    while all.next_run() {
        let fork = disk.fork();
        fork.power_cut_with(&mut all);
        assert_eq!(fork.pending_choices(), 0, "a power cut leaves nothing pending");
        seen.insert(look(&fork));
        runs += 1;
    }
    (seen, runs)
}

fn contents(disk: &SimDisk) -> Vec<u8> {
    disk.read_file("/f").unwrap()
}

fn names(disk: &SimDisk, dir: &str) -> Vec<String> {
    let entries = disk.list(dir).unwrap();
    entries.into_iter().map(|entry| entry.name.into_string().unwrap()).collect()
}

fn keep_all(_: &Pending<'_>) -> bool {
    true
}

fn keep_none(_: &Pending<'_>) -> bool {
    false
}
