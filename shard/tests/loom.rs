//! Every interleaving of small histories, by the model checker:
//! `RUSTFLAGS="--cfg loom" cargo test -p caskade-shard --test loom --release`.
//!
//! Under this flag a bucket has two slots and a leaf of two buckets is split, so that three entries
//! already make the table grow. The leaves carry a cell that their users read and their drop writes,
//! so that the checker finds a leaf that is freed too soon.
#![cfg(loom)]

use std::sync::Arc;

use caskade_codec::ids::ShardId;
use caskade_shard::{
    keydir::{Keydir, KeydirWriter, Restore, Source, keydir},
    location::Location,
    reclaim::Reclaim,
    shard_set::ShardSet,
    turns::Turns,
};
use loom::{
    cell::Cell,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
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
    let empty = |reclaim: &Arc<Reclaim>| {
        let mut table = keydir(Arc::clone(reclaim), Arc::default());
        prepare(&mut table.0);
        table
    };
    beside_in(empty, read, write)
}

/// The same with another table.
fn beside_in<T: 'static>(
    table: impl FnOnce(&Arc<Reclaim>) -> (KeydirWriter, Arc<Keydir>),
    read: impl FnOnce(&Keydir, &Reclaim) -> T + 'static,
    write: impl FnOnce(&mut KeydirWriter),
) -> T {
    let reclaim = Arc::new(Reclaim::new());
    let (mut writer, table) = table(&reclaim);
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
        let (mut writer, table) = keydir(Arc::clone(&reclaim), Arc::default());
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

struct OneLeaf;

impl Source for OneLeaf {
    fn entries(&self, _: u32) -> Vec<(u32, Location)> {
        vec![(LOW, at(1))]
    }
}

/// A table of one leaf, which is not made.
fn deferred(reclaim: &Arc<Reclaim>) -> (KeydirWriter, Arc<Keydir>) {
    let source: Arc<dyn Source> = Arc::new(OneLeaf);
    let mut restore = Restore::new(Arc::default());
    assert!(restore.defer(None, &source, 0, 1));
    let writer = restore.finish(reclaim).expect("one leaf is a table");
    let table = Arc::clone(writer.shared());
    (writer, table)
}

/// Two threads make the same leaf, one of which then changes it and puts it in its place.
#[test]
fn a_deferred_leaf_is_made_once() {
    check(|| {
        let found = beside_in(
            deferred,
            |table, reclaim| find(table, reclaim, LOW, &[at(1), at(2)]),
            |writer| {
                writer.entry(LOW, |_| true).set(at(2));
                assert_eq!(writer.settle(0), None);
                assert_eq!(writer.find(LOW, |_| true), Some(at(2)));
            },
        );
        assert!(found.is_some());
    });
}

/// What took its place is replaced while a reader is still on the way through it.
#[test]
fn a_deferred_leaf_leads_to_its_leaf_as_long_as_it_is_found() {
    check(|| {
        let found = beside_in(
            deferred,
            |table, reclaim| find(table, reclaim, LOW, &[at(1)]),
            |writer| {
                writer.settle(0);
                for slot in 3..7 {
                    writer.insert_unique(LOW + slot, at(slot));
                }
            },
        );
        assert_eq!(found, Some(at(1)));
    });
}

#[test]
fn a_snapshot_of_a_deferred_leaf_stays() {
    check(|| {
        let reclaim = Arc::new(Reclaim::new());
        let (mut writer, table) = deferred(&reclaim);
        let snapshot = writer.snapshot();
        let reader = thread::spawn(move || {
            let mut entries = Vec::new();
            snapshot.leaf(0, &mut entries);
            assert_eq!(entries, [(LOW, at(1))]);
        });
        writer.settle(0);
        writer.entry(LOW, |_| true).set(at(2));
        assert_eq!(find(&table, &reclaim, LOW, &[at(2)]), Some(at(2)));
        reader.join().expect("the reader does not panic");
        assert_eq!(reclaim.collect(), 0, "everything is freed in the end");
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

/// Two shards' logs, and what is durable of them: what a group commit is about.
#[derive(Default)]
struct Logs {
    written: [AtomicU64; 2],
    durable: [AtomicU64; 2],
    leaders: AtomicU64,
    /// How many turns fail before one succeeds.
    failures: AtomicU64,
}

impl Logs {
    fn set_of(shards: &[usize]) -> ShardSet {
        shards.iter().map(|shard| ShardId(*shard as u16)).collect()
    }

    /// Writes to some shards and waits until that is durable.
    fn write_durably(&self, turns: &Turns, shards: &[usize]) -> Result<(), ()> {
        let ends: Vec<_> = shards
            .iter()
            .map(|shard| (*shard, self.written[*shard].fetch_add(1, Ordering::AcqRel) + 1))
            .collect();
        let is_done =
            || ends.iter().all(|(s, end)| self.durable[*s].load(Ordering::Acquire) >= *end);
        turns.wait(Self::set_of(shards), is_done, || Ok(()), |wanted| self.lead(wanted))?;
        assert!(is_done(), "it did not wait long enough");
        Ok(())
    }

    fn lead(&self, wanted: ShardSet) -> Result<(), ()> {
        assert_eq!(self.leaders.fetch_add(1, Ordering::AcqRel), 0, "two lead at once");
        let fails = self.failures.load(Ordering::Acquire) > 0;
        if fails {
            self.failures.fetch_sub(1, Ordering::AcqRel);
        } else {
            for shard in wanted.iter().map(|shard| usize::from(shard.0)) {
                let end = self.written[shard].load(Ordering::Acquire);
                self.durable[shard].store(end, Ordering::Release);
            }
        }
        self.leaders.fetch_sub(1, Ordering::AcqRel);
        if fails { Err(()) } else { Ok(()) }
    }
}

/// As many writers as there are sets of shards. Answers how many of them failed.
fn writers(failures: u64, sets: &'static [&'static [usize]]) -> usize {
    let (logs, turns) = (Arc::new(Logs::default()), Arc::new(Turns::default()));
    logs.failures.store(failures, Ordering::Release);
    let write =
        move |logs: &Logs, turns: &Turns, shards| logs.write_durably(turns, shards).is_err();
    let others: Vec<_> = sets[1..]
        .iter()
        .map(|shards| {
            let (logs, turns) = (Arc::clone(&logs), Arc::clone(&turns));
            thread::spawn(move || write(&logs, &turns, shards))
        })
        .collect();
    let mut failed = usize::from(write(&logs, &turns, sets[0]));
    for other in others {
        failed += usize::from(other.join().expect("a writer does not panic"));
    }
    failed
}

#[test]
fn group_commit_wakes_everybody_and_forgets_nobody() {
    check(|| assert_eq!(writers(0, &[&[0], &[1], &[0, 1]]), 0));
}

/// Two wait for the next group while one is led, and one of them must lead.
#[test]
fn of_a_group_that_waits_one_leads() {
    check(|| assert_eq!(writers(0, &[&[0], &[0], &[0], &[1]]), 0));
}

#[test]
fn a_leader_that_fails_fails_alone() {
    check(|| assert_eq!(writers(1, &[&[0], &[0]]), 1));
}

/// Those whose leader failed ask again, also while the next leader waits for more; and one of them that is
/// woken in another's place would leave that one asleep.
#[test]
fn a_group_whose_leader_failed_asks_again() {
    check(|| {
        let (logs, turns) = (Arc::new(Logs::default()), Arc::new(Turns::expecting(3)));
        logs.failures.store(1, Ordering::Release);
        let write = move |logs: &Logs, turns: &Turns, times: usize| {
            (0..times).filter(|_| logs.write_durably(turns, &[0]).is_err()).count()
        };
        let others = [1, 1].map(|times| {
            let (logs, turns) = (Arc::clone(&logs), Arc::clone(&turns));
            thread::spawn(move || write(&logs, &turns, times))
        });
        let mut failed = write(&logs, &turns, 2);
        for other in others {
            failed += other.join().expect("a writer does not panic");
        }
        assert_eq!(failed, 1);
    });
}
