//! Every interleaving of small histories, by the model checker:
//! `RUSTFLAGS="--cfg loom" cargo test -p caskade-shard --test loom --release`.
//!
//! Under this flag a bucket has two slots and a leaf of two buckets is split, so that three entries
//! already make the table grow. The leaves carry a cell that their users read and their drop writes,
//! so that the checker finds a leaf that is freed too soon.
#![cfg(loom)]

use std::sync::Arc;

use caskade_shard::{
    keydir::{Keydir, KeydirWriter, keydir},
    location::Location,
    reclaim::Reclaim,
};
use loom::{
    cell::Cell,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

/// Hashes of the two halves of the table.
const LOW: u32 = 7;
const HIGH: u32 = 0xF000_0000;

fn at(slot: u32) -> Location {
    Location::new(slot, 0, 64)
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// A table, and one more thread that uses its readers' side.
fn beside<T: 'static>(
    prepare: impl FnOnce(&mut KeydirWriter),
    read: impl FnOnce(&Keydir, &Reclaim) -> T + 'static,
    write: impl FnOnce(&mut KeydirWriter),
) -> T {
    let reclaim = Arc::new(Reclaim::new());
    let (mut writer, table) = keydir(Arc::clone(&reclaim));
    prepare(&mut writer);
    let reader = {
        let reclaim = Arc::clone(&reclaim);
        thread::spawn(move || read(&table, &reclaim))
    };
    write(&mut writer);
    let answer = reader.join().expect("the reader does not panic");
    assert_eq!(reclaim.collect(), 0, "everything is freed in the end");
    answer
}

fn find(table: &Keydir, reclaim: &Reclaim, hash: u32, wanted: &[Location]) -> Option<Location> {
    let guard = reclaim.enter();
    table.find(&guard, hash, |found| wanted.contains(&found))
}

struct Record(Cell<u32>);

// SAFETY: The model checker reports accesses that are not ordered.
unsafe impl Sync for Record {}
// SAFETY: As above.
unsafe impl Send for Record {}

#[test]
fn an_entry_that_is_found_has_its_record() {
    check(|| {
        let record = Arc::new(Record(Cell::new(0)));
        let read = Arc::clone(&record);
        beside(
            |_| (),
            move |table, reclaim| {
                let guard = reclaim.enter();
                table.find(&guard, LOW, |_| {
                    assert_eq!(read.0.get(), 42);
                    true
                });
            },
            |writer| {
                record.0.set(42);
                writer.entry(LOW, |_| false).set(at(1));
            },
        );
    });
}

#[test]
fn a_replaced_entry_is_never_absent() {
    check(|| {
        let found = beside(
            |writer| writer.insert_unique(LOW, at(1)),
            |table, reclaim| find(table, reclaim, LOW, &[at(1), at(2)]),
            |writer| writer.entry(LOW, |found| found == at(1)).set(at(2)),
        );
        assert!(found.is_some());
    });
}

#[test]
fn a_slot_that_is_used_again_misleads_nobody() {
    check(|| {
        let (stable, gone, new) = beside(
            |writer| {
                writer.insert_unique(LOW, at(1));
                writer.insert_unique(LOW + 1, at(2));
            },
            |table, reclaim| {
                (
                    find(table, reclaim, LOW, &[at(1)]),
                    find(table, reclaim, LOW + 1, &[at(2)]),
                    find(table, reclaim, LOW + 2, &[at(3)]),
                )
            },
            |writer| {
                writer.entry(LOW + 1, |found| found == at(2)).remove();
                writer.insert_unique(LOW + 2, at(3));
            },
        );
        assert_eq!(stable, Some(at(1)));
        assert!(gone.is_none() || gone == Some(at(2)));
        assert!(new.is_none() || gone.is_none() || new == Some(at(3)));
    });
}

#[test]
fn a_visit_sees_no_pair_that_was_no_entry() {
    check(|| {
        let seen = beside(
            |writer| writer.insert_unique(LOW, at(1)),
            |table, reclaim| {
                let guard = reclaim.enter();
                let mut seen = Vec::new();
                table.visit_leaf(&guard, 0, &mut |hash, found| seen.push((hash, found)));
                seen
            },
            |writer| {
                writer.entry(LOW, |_| true).remove();
                writer.insert_unique(HIGH, at(2));
            },
        );
        let entries = [(LOW, at(1)), (HIGH, at(2))];
        assert!(seen.iter().all(|pair| entries.contains(pair)), "{seen:?}");
    });
}

#[test]
fn a_split_hides_no_entry() {
    check(|| {
        let (low, high) = beside(
            |writer| {
                writer.insert_unique(LOW, at(1));
                writer.insert_unique(HIGH, at(2));
            },
            |table, reclaim| {
                (find(table, reclaim, LOW, &[at(1)]), find(table, reclaim, HIGH, &[at(2)]))
            },
            |writer| writer.insert_unique(LOW + 1, at(3)),
        );
        assert_eq!((low, high), (Some(at(1)), Some(at(2))));
    });
}

#[test]
fn a_growing_leaf_hides_no_entry() {
    check(|| {
        let (first, last) = beside(
            |writer| {
                writer.insert_unique(LOW, at(1));
                writer.insert_unique(LOW, at(2));
            },
            |table, reclaim| {
                (find(table, reclaim, LOW, &[at(1)]), find(table, reclaim, LOW, &[at(3)]))
            },
            // Equal hashes cannot be split.
            |writer| writer.insert_unique(LOW, at(3)),
        );
        assert_eq!(first, Some(at(1)));
        assert!(last.is_none() || last == Some(at(3)));
    });
}

#[test]
fn a_snapshot_stays_and_readers_go_on() {
    check(|| {
        let reclaim = Arc::new(Reclaim::new());
        let (mut writer, table) = keydir(Arc::clone(&reclaim));
        writer.insert_unique(LOW, at(1));
        let snapshot = writer.snapshot();
        let reader = {
            let reclaim = Arc::clone(&reclaim);
            thread::spawn(move || {
                let mut entries = Vec::new();
                snapshot.leaf(0, &mut entries);
                assert_eq!(entries, [(LOW, at(1))]);
                drop(snapshot);
                assert!(find(&table, &reclaim, LOW, &[at(1), at(2)]).is_some());
            })
        };
        writer.entry(LOW, |_| true).set(at(2));
        reader.join().expect("the reader does not panic");
        drop(writer);
    });
}

#[test]
fn the_end_of_a_snapshot_frees_nothing_under_a_reader() {
    check(|| {
        let found = beside(
            |writer| writer.insert_unique(LOW, at(1)),
            |table, reclaim| find(table, reclaim, LOW, &[at(1), at(2)]),
            |writer| {
                let snapshot = writer.snapshot();
                writer.entry(LOW, |_| true).set(at(2));
                drop(snapshot);
            },
        );
        assert!(found.is_some());
    });
}

/// What a reader may find while it is linked.
struct Linked {
    is_linked: AtomicBool,
    object: Arc<Record>,
}

/// Its drop is the free.
struct Garbage(Arc<Record>);

impl Drop for Garbage {
    fn drop(&mut self) {
        self.0.0.set(0);
    }
}

impl Linked {
    fn new() -> Arc<Self> {
        let object = Arc::new(Record(Cell::new(1)));
        Arc::new(Self { is_linked: AtomicBool::new(true), object })
    }

    fn read(&self, reclaim: &Reclaim) {
        let guard = reclaim.enter();
        if self.is_linked.load(Ordering::Acquire) {
            assert_eq!(self.object.0.get(), 1, "freed while a guard could see it");
        }
        drop(guard);
    }

    fn unlink(&self, reclaim: &Reclaim) {
        self.is_linked.store(false, Ordering::Release);
        reclaim.retire(Box::new(Garbage(Arc::clone(&self.object))));
    }
}

/// Readers in other threads; the first has a slot of its own, the others share one.
fn grace(readers: usize, reads: usize, preemptions: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let reclaim = Arc::new(Reclaim::new());
        let linked = Linked::new();
        let readers: Vec<_> = (0..readers)
            .map(|_| {
                let (reclaim, linked) = (Arc::clone(&reclaim), Arc::clone(&linked));
                thread::spawn(move || (0..reads).for_each(|_| linked.read(&reclaim)))
            })
            .collect();
        linked.unlink(&reclaim);
        reclaim.collect();
        for reader in readers {
            reader.join().expect("the reader does not panic");
        }
        reclaim.collect();
        assert_eq!(reclaim.pending(), 0, "freed in the end");
        assert_eq!(linked.object.0.get(), 0, "freed in the end");
    });
}

#[test]
fn nothing_is_freed_under_a_reader() {
    grace(1, 1, 4);
}

#[test]
fn nothing_is_freed_under_a_reader_that_comes_again() {
    grace(1, 2, 3);
}

#[test]
fn nothing_is_freed_under_readers_that_share_a_slot() {
    grace(3, 1, 2);
}
