//! The table against a map, with hashes that tell keys apart and hashes that do not.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use proptest::prelude::*;

use super::*;

/// A hash of the kind the store uses: every bit depends on every bit of the key.
fn spread(key: u64) -> u32 {
    let mut x = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x >> 32) as u32
}

fn at(place: u64) -> Location {
    Location::new(1 + (place >> 32) as u32, (place & 0xFFFF_FFFF) * 8, 100)
}

#[test]
fn what_threads_share_may_be_shared() {
    fn shared<T: Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Keydir>();
    shared::<Snapshot>();
    shared::<Reclaim>();
    shared::<LeafMemory>();
    sent::<KeydirWriter>();
}

#[test]
fn many_entries_are_found_and_absent_ones_are_not() {
    let (mut writer, keydir) = keydir(Arc::default(), Arc::default());
    let count = if cfg!(miri) { 400 } else { 200_000 };
    for key in 0..count {
        let location = at(key);
        writer.entry(spread(key), |found| found == location).set(location);
    }
    assert_eq!(keydir.len(), count);
    let reclaim = Arc::clone(&keydir.reclaim);
    let guard = reclaim.enter();
    for key in 0..count {
        assert_eq!(keydir.find(&guard, spread(key), |l| l == at(key)), Some(at(key)));
    }
    let mut asked = 0;
    for key in count..2 * count {
        assert_eq!(
            keydir.find(&guard, spread(key), |_| {
                asked += 1;
                false
            }),
            None
        );
    }
    assert!(asked <= 40, "{asked} false matches");
}

#[test]
fn equal_hashes_do_not_split_for_ever() {
    for (hash, count) in [(0, 600), (1, 600), (0x8000_0000, 10_000), (u32::MAX, 600)] {
        let (mut writer, keydir) = keydir(Arc::default(), Arc::default());
        let count = if cfg!(miri) { 100 } else { count };
        for key in 0..count {
            writer.insert_unique(hash, at(key));
        }
        let reclaim = Arc::clone(&keydir.reclaim);
        let guard = reclaim.enter();
        for key in (0..count).step_by(97) {
            assert_eq!(keydir.find(&guard, hash, |l| l == at(key)), Some(at(key)));
        }
        assert_eq!(keydir.find(&guard, hash, |_| false), None);
        for key in 0..count {
            let entry = writer.entry(hash, |l| l == at(key));
            assert!(entry.current().is_some());
            entry.remove();
        }
        assert!(keydir.is_empty());
    }
}

#[test]
fn relocation_needs_the_exact_location() {
    let (mut writer, _) = keydir(Arc::default(), Arc::default());
    writer.insert_unique(5, at(1));
    assert!(!writer.relocate(5, at(2), at(3)));
    assert!(!writer.relocate(6, at(1), at(3)));
    assert!(writer.relocate(5, at(1), at(3)));
    assert_eq!(writer.find(5, |_| true), Some(at(3)));
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let (mut writer, keydir) = keydir(Arc::default(), Arc::default());
    let mut model = HashMap::new();
    let count = if cfg!(miri) { 200 } else { 3000 };
    for key in 0..count {
        writer.insert_unique(spread(key), at(key));
        model.insert(at(key), spread(key));
    }
    let snapshot = writer.snapshot();
    for key in 0..count {
        writer.entry(spread(key), |l| l == at(key)).remove();
        writer.insert_unique(spread(key + 5000), at(key + 5000));
    }
    assert!(keydir.snapshots.held() > 0);
    let mut entries = Vec::new();
    let mut seen = HashMap::new();
    for index in 0..snapshot.leaves() {
        snapshot.leaf(index, &mut entries);
        seen.extend(entries.iter().map(|&(hash, location)| (location, hash)));
    }
    assert_eq!(seen, model);
    assert_eq!(snapshot.len(), count);
    drop(snapshot);
    assert_eq!(keydir.snapshots.held(), 0);
    assert_eq!(keydir.reclaim.collect(), 0);
}

/// A location that names its key, so that it can be told which key's record it is, and the version.
fn record(key: u64, version: u64) -> Location {
    Location::new(1 + (version & 0xFF_FFF0) as u32, key * 8, (version & 0xF) as usize * 64)
}

fn key_of(location: Location) -> u64 {
    location.offset() / 8
}

#[derive(Clone, Debug)]
enum Op {
    Set(u64),
    Remove(u64),
    Relocate { key: u64, is_stale: bool },
    InsertUnique(u64),
    Find(u64),
    Visit,
    Snapshot,
    DropSnapshot(usize),
    Restart,
    Settle(u32),
}

fn op(keys: u64) -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..keys).prop_map(Op::Set),
        6 => (0..keys).prop_map(Op::Remove),
        2 => (0..keys, any::<bool>()).prop_map(|(key, is_stale)| Op::Relocate { key, is_stale }),
        4 => (0..keys).prop_map(Op::InsertUnique),
        3 => (0..keys).prop_map(Op::Find),
        1 => Just(Op::Visit),
        1 => Just(Op::Snapshot),
        1 => any::<usize>().prop_map(Op::DropSnapshot),
        1 => prop::bool::weighted(0.1).prop_map(|is_so| if is_so { Op::Restart } else { Op::Visit }),
        1 => any::<u32>().prop_map(Op::Settle),
    ]
}

/// The table, what should be in it, and snapshots with what should be in them.
struct Checked {
    writer: KeydirWriter,
    keydir: Arc<Keydir>,
    hash: fn(u64) -> u32,
    model: BTreeMap<u64, Location>,
    snapshots: Vec<(Snapshot, BTreeMap<u64, Location>)>,
    version: u64,
}

impl Checked {
    fn new(hash: fn(u64) -> u32) -> Self {
        let (writer, keydir) = keydir(Arc::default(), Arc::default());
        Self { writer, keydir, hash, model: BTreeMap::new(), snapshots: Vec::new(), version: 0 }
    }

    fn next(&mut self, key: u64) -> Location {
        self.version += 1;
        record(key, self.version)
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Set(key) => {
                let to = self.next(key);
                let entry = self.writer.entry((self.hash)(key), |found| key_of(found) == key);
                assert_eq!(entry.current(), self.model.insert(key, to));
                entry.set(to);
            }
            Op::Remove(key) => {
                let entry = self.writer.entry((self.hash)(key), |found| key_of(found) == key);
                assert_eq!(entry.current(), self.model.remove(&key));
                entry.remove();
            }
            Op::Relocate { key, is_stale } => {
                let to = self.next(key);
                let now = self.model.get(&key).copied();
                let from = now.filter(|_| !is_stale).unwrap_or(record(key, self.version + 1));
                let moved = self.writer.relocate((self.hash)(key), from, to);
                assert_eq!(moved, now == Some(from));
                if moved {
                    self.model.insert(key, to);
                }
            }
            Op::InsertUnique(key) => {
                if !self.model.contains_key(&key) {
                    let to = self.next(key);
                    self.writer.insert_unique((self.hash)(key), to);
                    self.model.insert(key, to);
                }
            }
            Op::Find(key) => self.find(key),
            Op::Visit => self.visit(),
            Op::Snapshot => self.snapshots.push((self.writer.snapshot(), self.model.clone())),
            Op::DropSnapshot(which) => {
                if !self.snapshots.is_empty() {
                    let (snapshot, model) =
                        self.snapshots.swap_remove(which % self.snapshots.len());
                    check_snapshot(&snapshot, &model, self.hash);
                }
            }
            Op::Restart => {
                let leaves = leaves_of(&mut self.writer);
                if let Some(writer) = deferred(leaves, &Arc::default(), &Arc::default()) {
                    self.keydir = Arc::clone(writer.shared());
                    self.writer = writer;
                }
            }
            Op::Settle(hash) => {
                self.writer.settle(hash);
            }
        }
        assert_eq!(self.keydir.len(), self.model.len() as u64);
    }

    fn find(&self, key: u64) {
        let expected = self.model.get(&key).copied();
        let hash = (self.hash)(key);
        assert_eq!(self.writer.find(hash, |found| key_of(found) == key), expected);
        let guard = self.keydir.reclaim.enter();
        assert_eq!(self.keydir.find(&guard, hash, |found| key_of(found) == key), expected);
    }

    fn visit(&self) {
        let guard = self.keydir.reclaim.enter();
        let mut seen = Vec::new();
        let mut from = Some(0);
        while let Some(first) = from {
            let mut in_leaf = Vec::new();
            from = self.keydir.visit_leaf(&guard, first, &mut |hash, found| {
                assert!(hash >= first);
                in_leaf.push((key_of(found), hash, found));
            });
            assert!(from.is_none_or(|next| in_leaf.iter().all(|&(_, hash, _)| hash < next)));
            seen.append(&mut in_leaf);
        }
        seen.sort_unstable();
        assert_eq!(seen, entries(&self.model, self.hash));
    }

    fn finish(mut self) {
        self.visit();
        for key in self.model.keys() {
            self.find(*key);
        }
        for (snapshot, model) in self.snapshots.drain(..) {
            check_snapshot(&snapshot, &model, self.hash);
        }
        assert_eq!(self.keydir.snapshots.held(), 0);
        assert_eq!(self.keydir.reclaim.collect(), 0);
    }
}

fn entries(model: &BTreeMap<u64, Location>, hash: fn(u64) -> u32) -> Vec<(u64, u32, Location)> {
    model.iter().map(|(&key, &location)| (key, hash(key).max(1), location)).collect()
}

fn check_snapshot(snapshot: &Snapshot, model: &BTreeMap<u64, Location>, hash: fn(u64) -> u32) {
    assert_eq!(snapshot.len(), model.len() as u64);
    let (mut all, mut leaf, mut last) = (Vec::new(), Vec::new(), None);
    for index in 0..snapshot.leaves() {
        let first = snapshot.leaf(index, &mut leaf);
        assert!(Some(first) > last, "ranges rise");
        last = Some(first);
        assert!(leaf.iter().all(|&(hash, _)| hash >= first));
        all.extend(leaf.iter().map(|&(hash, location)| (key_of(location), hash, location)));
    }
    all.sort_unstable();
    assert_eq!(all, entries(model, hash));
}

fn run(ops: &[Op], hash: fn(u64) -> u32) {
    let mut checked = Checked::new(hash);
    for op in ops {
        checked.apply(op);
    }
    checked.finish();
}

fn cases(count: u32) -> ProptestConfig {
    let cases = if cfg!(miri) { 2 } else { count };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn ops(keys: u64, most: usize) -> impl Strategy<Value = Vec<Op>> {
    let most = if cfg!(miri) { most / 60 } else { most };
    prop::collection::vec(op(keys), 0..most)
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn it_behaves_as_a_map_with_good_hashes(ops in ops(1 << 20, 6000)) {
        run(&ops, spread);
    }

    #[test]
    fn it_behaves_as_a_map_when_keys_come_again(ops in ops(600, 6000)) {
        run(&ops, spread);
    }

    #[test]
    fn it_behaves_as_a_map_when_three_keys_share_a_hash(ops in ops(1500, 4000)) {
        run(&ops, |key| spread(key / 3));
    }

    #[test]
    fn it_behaves_as_a_map_with_sixteen_hashes(ops in ops(1500, 3000)) {
        run(&ops, |key| spread(key) & 0xF000_0000);
    }

    #[test]
    fn it_behaves_as_a_map_when_hashes_differ_in_low_bits(ops in ops(3000, 4000)) {
        run(&ops, |key| spread(key) & 0xFF);
    }

    #[test]
    fn it_behaves_as_a_map_with_one_hash(ops in ops(400, 1000)) {
        run(&ops, |_| 0);
    }
}

#[test]
fn churn_at_a_constant_size_keeps_the_table_small_and_lookups_short() {
    let (mut writer, keydir) = keydir(Arc::default(), Arc::default());
    let (live, rounds) = if cfg!(miri) { (100, 200) } else { (20_000, 300_000) };
    for key in 0..rounds {
        writer.insert_unique(spread(key), at(key));
        if let Some(old) = key.checked_sub(live) {
            writer.entry(spread(old), |l| l == at(old)).remove();
        }
    }
    assert_eq!(keydir.len(), live);
    let per_key = keydir.memory_bytes() / live;
    assert!(per_key <= 20, "{per_key} bytes a key");
}

#[test]
fn deleting_everything_gives_the_memory_back() {
    let (mut writer, keydir) = keydir(Arc::default(), Arc::default());
    let count = if cfg!(miri) { 200 } else { 50_000 };
    for key in 0..count {
        writer.insert_unique(spread(key), at(key));
    }
    let full = keydir.memory_bytes();
    for key in 0..count {
        writer.entry(spread(key), |l| l == at(key)).remove();
    }
    assert!(keydir.is_empty());
    assert!(keydir.memory_bytes() < full / 10);
}

/// Where a leaf ends, and its entries.
type LeafContents = (Option<u32>, Vec<(u32, Location)>);

/// The leaves of a table, as its snapshot gives them.
fn leaves_of(writer: &mut KeydirWriter) -> Vec<LeafContents> {
    let snapshot = writer.snapshot();
    let mut entries = Vec::new();
    let mut leaves: Vec<_> = (0..snapshot.leaves())
        .map(|index| (snapshot.leaf(index, &mut entries), entries.clone()))
        .collect();
    leaves.push((0, Vec::new()));
    let ends = leaves.windows(2).map(|pair| (pair[1].0 > 0).then_some(pair[1].0));
    ends.zip(leaves.iter().map(|leaf| leaf.1.clone())).collect()
}

#[test]
fn a_table_is_made_in_the_order_of_hashes() {
    for count in [0, 1, 100, 5000, 300_000] {
        let count = if cfg!(miri) { count.min(100) } else { count };
        let mut hashes: Vec<_> = (0..count).map(|key| (spread(key), at(key))).collect();
        // Both ends, and two keys of one hash; hash 0 is kept as 1.
        let ends = [0, 0, 1, u32::MAX, u32::MAX];
        hashes.extend(ends.iter().zip(count..).map(|(&hash, key)| (hash, at(key))));
        hashes.sort_unstable();
        // A guess, far too low and far too high.
        for expected in [count, 0, 10 * count] {
            let mut in_order = LeafByLeaf::for_entries(Arc::default(), expected);
            for &(hash, location) in &hashes {
                in_order.push(hash, location);
            }
            let mut made = in_order.finish(&Arc::default());
            assert_eq!(made.shared().len(), hashes.len() as u64);
            for &(hash, location) in &hashes {
                assert_eq!(made.find(hash, |l| l == location), Some(location), "{hash}");
            }
            assert_eq!(made.find(spread(count + 9), |_| true), None);
            if expected == count {
                let most = 17 * count + 512;
                assert!(made.shared().memory_bytes() <= most, "{count}");
            }
            let more = at(count + 9);
            made.insert_unique(7, more);
            assert_eq!(made.find(7, |l| l == more), Some(more));
        }
    }
}

/// Leaves to be made later.
struct Later(Vec<Vec<(u32, Location)>>);

impl Source for Later {
    fn entries(&self, leaf: u32) -> Vec<(u32, Location)> {
        self.0[leaf as usize].clone()
    }
}

/// A table of these leaves, to be made later, unless there can be no such table.
fn deferred(
    leaves: Vec<LeafContents>,
    memory: &Arc<LeafMemory>,
    reclaim: &Arc<Reclaim>,
) -> Option<KeydirWriter> {
    let (ends, leaves): (Vec<_>, Vec<_>) = leaves.into_iter().unzip();
    let counts: Vec<_> = leaves.iter().map(|entries| entries.len() as u32).collect();
    let source: Arc<dyn Source> = Arc::new(Later(leaves));
    let mut restore = Restore::new(Arc::clone(memory));
    let mut parts = (0..).zip(ends).zip(counts);
    parts
        .all(|((index, end), count)| restore.defer(end, &source, index, count))
        .then(|| restore.finish(reclaim))?
}

/// The same, made at once.
fn restored(leaves: Vec<LeafContents>, reclaim: &Arc<Reclaim>) -> KeydirWriter {
    let mut restore = Restore::new(Arc::default());
    for (end, entries) in leaves {
        assert!(restore.push(end, &entries), "{end:?}");
    }
    restore.finish(reclaim).unwrap()
}

/// Settles the leaves up to about this hash.
fn settle(writer: &mut KeydirWriter, end: u32) {
    let mut next = Some(0);
    while let Some(from) = next.filter(|&from| from <= end) {
        next = writer.settle(from);
    }
}

fn unsettled(leaves: Vec<LeafContents>, reclaim: &Arc<Reclaim>) -> KeydirWriter {
    let writer = deferred(leaves, &Arc::default(), reclaim).unwrap();
    assert!(!writer.is_settled());
    writer
}

fn settled(leaves: Vec<LeafContents>, reclaim: &Arc<Reclaim>) -> KeydirWriter {
    let mut writer = unsettled(leaves, reclaim);
    settle(&mut writer, u32::MAX);
    assert!(writer.is_settled());
    writer
}

#[test]
fn a_table_is_restored_from_its_leaves() {
    for count in [0, 1, 100, 5000, 300_000] {
        let count = if cfg!(miri) { count.min(100) } else { count };
        let (mut writer, _) = keydir(Arc::default(), Arc::default());
        for key in 0..count {
            writer.insert_unique(spread(key), at(key));
        }
        // Some leaves are deeper than others now, and some have few entries.
        for key in (0..count).filter(|&key| spread(key) < 1 << 30) {
            writer.entry(spread(key), |l| l == at(key)).remove();
        }
        for restore in [restored, unsettled, settled] {
            let reclaim = Arc::new(Reclaim::new());
            let mut restored = restore(leaves_of(&mut writer), &reclaim);
            let keydir = Arc::clone(restored.shared());
            let (len, bytes) = (keydir.len(), keydir.memory_bytes());
            assert_eq!(len, writer.shared().len());
            assert!(bytes <= (17 * len + 512).max(writer.shared().memory_bytes()), "{count}");
            for key in 0..count {
                let expected = (spread(key) >= 1 << 30).then(|| at(key));
                assert_eq!(restored.find(spread(key), |l| l == at(key)), expected);
            }
            settle(&mut restored, 1 << 31);
            assert_eq!((keydir.len(), keydir.memory_bytes()), (len, bytes));
            // It changes, grows and is taken apart as any other.
            for key in 0..2 * count {
                let there = restored.entry(spread(key), |l| l == at(key));
                assert_eq!(there.current().is_some(), key < count && spread(key) >= 1 << 30);
                there.set(at(key));
            }
            settle(&mut restored, u32::MAX);
            assert!(restored.is_settled());
            assert_eq!(keydir.len(), 2 * count);
            let leaves = leaves_of(&mut restored);
            let seen = leaves.iter().map(|(_, entries)| entries.len()).sum::<usize>();
            assert_eq!(seen as u64, 2 * count);
        }
    }
}

/// The leaves of a table of some keys.
fn leaves_of_keys(count: u64) -> Vec<LeafContents> {
    let (mut writer, _) = keydir(Arc::default(), Arc::default());
    for key in 0..count {
        writer.insert_unique(spread(key), at(key));
    }
    leaves_of(&mut writer)
}

#[test]
fn what_was_deferred_leaves_no_memory_behind() {
    let (memory, reclaim) = (Arc::<LeafMemory>::default(), Arc::new(Reclaim::new()));
    let count = if cfg!(miri) { 100 } else { 5000 };
    let mut writer = deferred(leaves_of_keys(count), &memory, &reclaim).unwrap();
    assert_eq!((memory.deferred.chunks(), memory.made.chunks()), (1, 0));
    settle(&mut writer, u32::MAX);
    reclaim.collect();
    assert_eq!((memory.deferred.chunks(), memory.made.chunks()), (0, 1));
    drop(writer);
    reclaim.collect();
    assert_eq!(memory.made.chunks(), 0);
}

#[test]
fn what_is_deferred_is_changed_in_one_place() {
    let reclaim = Arc::new(Reclaim::new());
    let mut writer = unsettled(leaves_of_keys(100), &reclaim);
    let keydir = Arc::clone(writer.shared());
    let find = |key, wanted| keydir.find(&reclaim.enter(), spread(key), |l| l == at(wanted));
    // A change of a leaf that only a reader has made, one that is not made, and both settled later.
    for key in 0..50 {
        assert_eq!(find(key, key), Some(at(key)));
        writer.entry(spread(key), |l| l == at(key)).set(at(key + 1000));
    }
    for key in 50..60 {
        writer.entry(spread(key), |l| l == at(key)).remove();
    }
    for _ in 0..2 {
        for key in 0..100 {
            assert_eq!(find(key, key).is_some(), key >= 60, "{key}");
            assert_eq!(find(key, key + 1000).is_some(), key < 50, "{key}");
        }
        assert_eq!(keydir.len(), 90);
        settle(&mut writer, u32::MAX);
    }
}

/// The ends of what a hash can be; hash 0 is kept as 1, also where a snapshot has it.
#[test]
fn deferred_entries_of_any_hash_are_found() {
    let hashes = [0, 1, u32::MAX, u32::MAX];
    let entries = hashes.into_iter().zip((0..).map(at)).collect();
    let reclaim = Arc::new(Reclaim::new());
    let mut writer = unsettled(vec![(None, entries)], &reclaim);
    for _ in 0..2 {
        for (hash, location) in hashes.into_iter().zip((0..).map(at)) {
            let guard = reclaim.enter();
            let found = writer.shared().find(&guard, hash, |l| l == location);
            assert_eq!(found, Some(location));
        }
        settle(&mut writer, u32::MAX);
    }
}

#[test]
fn a_snapshot_of_what_is_deferred_stays_as_it_was() {
    let len = if cfg!(miri) { 100 } else { 3000 };
    for is_settled_first in [true, false] {
        let reclaim = Arc::new(Reclaim::new());
        let mut writer = unsettled(leaves_of_keys(len), &reclaim);
        let snapshot = writer.snapshot();
        let source = writer.shared().make_leaf(&reclaim.enter(), 0).unwrap();
        if is_settled_first {
            settle(&mut writer, u32::MAX);
            assert_eq!(Arc::strong_count(&source), 1, "a snapshot needs the leaves alone");
        }
        for key in 0..2 * len {
            let entry = writer.entry(spread(key), |l| l == at(key));
            if key % 3 == 0 { entry.set(at(key + 10_000)) } else { entry.remove() }
        }
        settle(&mut writer, u32::MAX);
        reclaim.collect();
        let (mut seen, mut entries) = (Vec::new(), Vec::new());
        for index in 0..snapshot.leaves() {
            snapshot.leaf(index, &mut entries);
            seen.append(&mut entries);
        }
        seen.sort_unstable_by_key(|(_, location)| location.raw());
        let mut expected: Vec<_> = (0..len).map(|key| (spread(key).max(1), at(key))).collect();
        expected.sort_unstable_by_key(|(_, location)| location.raw());
        assert_eq!(seen, expected);
        drop(snapshot);
        assert_eq!(reclaim.collect(), 0);
    }
}

/// A leaf that is made by two at once is there once, and all goes in the end.
#[test]
fn readers_and_the_writer_meet_in_deferred_leaves() {
    let keys: u64 = if cfg!(miri) { 60 } else { 20_000 };
    for _ in 0..if cfg!(miri) { 1 } else { 20 } {
        let (memory, reclaim) = (Arc::default(), Arc::new(Reclaim::new()));
        let mut writer = deferred(leaves_of_keys(keys), &memory, &reclaim).unwrap();
        let table = Arc::clone(writer.shared());
        let source = table.make_leaf(&reclaim.enter(), 0).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for key in 0..keys {
                        let wanted = [at(key), at(key + keys)];
                        let guard = reclaim.enter();
                        let found = table.find(&guard, spread(key), |l| wanted.contains(&l));
                        assert!(found.is_some(), "{key}");
                    }
                });
            }
            for key in (0..keys).step_by(7) {
                writer.entry(spread(key), |l| l == at(key)).set(at(key + keys));
                writer.settle(spread(key));
            }
            settle(&mut writer, u32::MAX);
        });
        assert_eq!(reclaim.collect(), 0);
        assert_eq!(Arc::strong_count(&source), 1, "nothing is made of it any more");
        assert!(table.make_leaf(&reclaim.enter(), 0).is_none());
        drop((writer, table));
        assert_eq!(Arc::strong_count(&memory), 1, "no leaf is left");
    }
}

#[test]
fn ranges_that_no_leaf_has_make_no_table() {
    let restore = |ends: &[Option<u32>]| {
        let mut restore = Restore::new(Arc::default());
        ends.iter().all(|&end| restore.push(end, &[])) && restore.finish(&Arc::default()).is_some()
    };
    let half = geometry::first_hash(1 << 31).unwrap();
    let quarter = geometry::first_hash(1 << 30).unwrap();
    assert!(restore(&[None]));
    assert!(restore(&[Some(half), None]));
    assert!(restore(&[Some(quarter), Some(half), None]));
    assert!(!restore(&[]));
    assert!(!restore(&[Some(half)]), "half of a table");
    assert!(!restore(&[Some(half + 1), None]), "not at a place");
    assert!(!restore(&[Some(quarter), None]), "three quarters are no leaf");
    assert!(!restore(&[None, None]), "twice the same");
    assert!(!restore(&[Some(0), None]), "an empty range");
    let deep: Vec<_> = (0..32).rev().map(|bit| geometry::first_hash(1 << bit)).collect();
    let deep: Vec<_> = deep.into_iter().rev().chain([None]).collect();
    assert!(!restore(&deep), "a directory of gigabytes");
}

#[test]
fn a_directory_has_as_many_places_as_its_leaves_may_have() {
    // A table of depth 10 needs 1024 places, for which 16 leaves are enough.
    let restore = |more: &[u64]| {
        let begin = 1 << 31;
        let places =
            (22..32).map(|bit| 1 << bit).chain(more.iter().map(|eighth| begin + (eighth << 28)));
        let ends = places.map(geometry::first_hash).chain([None]);
        let mut restore = Restore::new(Arc::default());
        assert!(ends.into_iter().all(|end| restore.push(end, &[])));
        restore.finish(&Arc::default()).is_some()
    };
    assert!(!restore(&[1, 2, 4, 6]), "15 leaves");
    assert!(restore(&[1, 2, 3, 4, 6]), "16 leaves");
    assert!(restore(&[1, 2, 3, 4, 5, 6]), "17 leaves");
}

#[test]
#[cfg_attr(miri, ignore = "leaks on purpose")]
fn a_leaked_snapshot_does_not_stop_reclamation_elsewhere() {
    let reclaim = Arc::new(Reclaim::new());
    let (mut writer, _) = keydir(Arc::clone(&reclaim), Arc::default());
    writer.insert_unique(1, at(1));
    std::mem::forget(writer.snapshot());
    let (mut other, _) = keydir(Arc::clone(&reclaim), Arc::default());
    for key in 0..5000 {
        writer.insert_unique(spread(key), at(key));
        other.insert_unique(spread(key), at(key));
    }
    assert_eq!(reclaim.collect(), 0);
}

/// Readers check, while the writer inserts, replaces, removes, splits and takes snapshots, that a
/// key which is always there is always found, with a version that never goes back, and that a key
/// which never is there is not.
#[test]
fn readers_see_every_stable_key_while_the_writer_works() {
    let reclaim = Arc::new(Reclaim::new());
    let (mut writer, keydir) = keydir(Arc::clone(&reclaim), Arc::default());
    let (stable, rounds): (u64, u64) = if cfg!(miri) { (20, 60) } else { (2_000, 200_000) };
    for key in 0..stable {
        writer.insert_unique(spread(key), record(key, 0));
    }
    let (stop, looked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (keydir, reclaim, stop, looked) = (&keydir, &reclaim, &stop, &looked);
            scope.spawn(move || {
                let mut last = vec![0; stable as usize];
                let mut round = reader;
                while !stop.load(Relaxed) {
                    round += 7;
                    let key = round % stable;
                    let guard = reclaim.enter();
                    let is_key = |found| key_of(found) == key;
                    let found = keydir.find(&guard, spread(key), is_key).expect("never removed");
                    assert!(found.slot() >= last[key as usize], "a version went back");
                    last[key as usize] = found.slot();
                    let absent = key + (1 << 30);
                    let is_absent = |found| key_of(found) == absent;
                    assert_eq!(keydir.find(&guard, spread(absent), is_absent), None);
                    looked.fetch_add(1, Relaxed);
                    drop(guard);
                    if round % 1024 < 7 {
                        count_stable(keydir, reclaim, stable);
                    }
                }
            });
        }
        let mut snapshots = Vec::new();
        for round in 1..rounds {
            let key = round % stable;
            let version = round / stable * 16;
            let entry = writer.entry(spread(key), |found| key_of(found) == key);
            entry.set(record(key, version));
            // Others come and go, so that leaves grow, split and shrink.
            writer.insert_unique(spread(round + stable), record(round + stable, 0));
            if round % 3 != 0 {
                let gone = round + stable - round / 2 % 1000;
                writer.entry(spread(gone), |found| key_of(found) == gone).remove();
            }
            if round % 5000 == 0 {
                snapshots.push(writer.snapshot());
                if snapshots.len() == 3 {
                    drop(snapshots.remove(0));
                }
            }
        }
        while looked.load(Relaxed) < 100 {
            std::thread::yield_now();
        }
        stop.store(true, Relaxed);
    });
    assert_eq!(reclaim.collect(), 0);
}

/// A full visit beside the writer sees each stable key exactly once.
fn count_stable(keydir: &Keydir, reclaim: &Reclaim, stable: u64) {
    let mut seen = vec![0_u32; stable as usize];
    let mut from = Some(0);
    while let Some(first) = from {
        let guard = reclaim.enter();
        from = keydir.visit_leaf(&guard, first, &mut |hash, found| {
            assert_eq!(hash, spread(key_of(found)).max(1), "a hash of another entry");
            if let Some(count) = seen.get_mut(key_of(found) as usize) {
                *count += 1;
            }
        });
    }
    assert!(seen.iter().all(|&count| count == 1), "a stable key was missed or seen twice");
}
