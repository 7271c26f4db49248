//! Which segment a location's slot means.
//!
//! Readers look up without a lock, under a [`Guard`]. Changes take the lock inside.
//!
//! Invariants:
//! - A block of slots, once allocated, stays until the table is dropped.
//! - A filled slot holds one reference count of an `Arc<Segment>`. A removed segment stays in its
//!   slot for a grace period, so that a reader with an old location still finds it; only then may the
//!   slot be used again.
//! - What left its slot keeps its count for a second grace period: for a reader that looked into the
//!   slot without such a location, just before.
//! - Who looks at all slots does so without a guard, under the lock, and a segment leaves its slot under
//!   the lock.

use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use caskade_codec::ids::SegmentId;

use crate::reclaim::{Guard, Reclaim};
use crate::segment::Segment;

/// Slots in the first block; each further block is twice as long as the one before.
const FIRST: u32 = 16;
const BLOCKS: usize = 21;

/// The segments of a shard, by slot.
#[derive(Debug)]
pub struct SegmentTable {
    cells: Arc<Cells>,
    reclaim: Arc<Reclaim>,
}

#[derive(Debug)]
struct Cells {
    blocks: [AtomicPtr<AtomicPtr<Segment>>; BLOCKS],
    free: Mutex<FreeSlots>,
}

#[derive(Debug)]
struct FreeSlots {
    returned: Vec<u32>,
    next: u32,
}

/// Empties the slot when no reader can hold a location with it any more.
struct Removed {
    slot: u32,
    cells: Arc<Cells>,
    /// Weak, for the reclaim holds this. Once that is dropped no reader is left, and the segment goes at once.
    reclaim: Weak<Reclaim>,
}

impl Drop for Removed {
    fn drop(&mut self) {
        let segment = self.cells.clear(self.slot);
        if let (Some(segment), Some(reclaim)) = (segment, self.reclaim.upgrade()) {
            reclaim.retire(Box::new(segment));
        }
    }
}

const fn place(slot: u32) -> (usize, usize) {
    let biased = slot + FIRST;
    let block = biased.ilog2() - FIRST.ilog2();
    (block as usize, (biased - (FIRST << block)) as usize)
}

const fn block_len(block: usize) -> usize {
    (FIRST as usize) << block
}

impl Cells {
    fn free(&self) -> MutexGuard<'_, FreeSlots> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn cell(&self, slot: u32) -> Option<&AtomicPtr<Segment>> {
        let (block, index) = place(slot);
        let start = self.blocks.get(block)?.load(Ordering::Acquire);
        // SAFETY: a non-null block has `block_len(block)` cells, `place` answers an index below
        // that, and blocks are never freed before self.
        if start.is_null() { None } else { Some(unsafe { &*start.add(index) }) }
    }

    /// Takes a segment out of its slot, which may be used again. Readers may still be in it.
    fn clear(&self, slot: u32) -> Option<Arc<Segment>> {
        let mut free = self.free();
        let old = self.cell(slot)?.swap(ptr::null_mut(), Ordering::AcqRel);
        if old.is_null() {
            return None;
        }
        free.returned.push(slot);
        // SAFETY: the pointer came from `Arc::into_raw` in `insert`, and the swap made us the only owner
        // of that count. Whoever goes through all slots uses it under the lock only, which is held here.
        Some(unsafe { Arc::from_raw(old.cast_const()) })
    }
}

impl SegmentTable {
    /// An empty table.
    pub fn new(reclaim: Arc<Reclaim>) -> Self {
        // Slot 0 is never used: a location is never all zeros.
        let free = Mutex::new(FreeSlots { returned: Vec::new(), next: 1 });
        let blocks = [const { AtomicPtr::new(ptr::null_mut()) }; BLOCKS];
        Self { cells: Arc::new(Cells { blocks, free }), reclaim }
    }

    /// Takes a slot that no location names.
    pub fn reserve(&self) -> u32 {
        let mut free = self.cells.free();
        free.returned.pop().unwrap_or_else(|| {
            free.next += 1;
            free.next - 1
        })
    }

    /// Takes these slots, while the table is still empty.
    pub fn reserve_exactly(&self, slots: &[u32]) {
        let mut free = self.cells.free();
        let taken: std::collections::HashSet<u32> = slots.iter().copied().collect();
        free.next = slots.iter().copied().max().unwrap_or(0) + 1;
        free.returned = (1..free.next).rev().filter(|slot| !taken.contains(slot)).collect();
    }

    /// Gives back a reserved slot that was never filled.
    pub fn release(&self, slot: u32) {
        self.cells.free().returned.push(slot);
    }

    /// Puts a segment into its (reserved) slot.
    pub fn insert(&self, segment: Arc<Segment>) {
        let (block, _) = place(segment.slot);
        let slot = segment.slot;
        let _owner = self.cells.free();
        if self.cells.blocks[block].load(Ordering::Acquire).is_null() {
            let slots: Box<[AtomicPtr<Segment>]> =
                (0..block_len(block)).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
            self.cells.blocks[block].store(Box::into_raw(slots).cast(), Ordering::Release);
        }
        let cell = self.cells.cell(slot).expect("the block was just made");
        let old = cell.swap(Arc::into_raw(segment).cast_mut(), Ordering::AcqRel);
        assert!(old.is_null(), "a slot is reserved before it is filled");
    }

    /// Lets a segment go: out of its slot after a grace period, out of memory after another one. The keydir
    /// names it no longer.
    pub fn remove(&self, slot: u32) {
        let (cells, reclaim) = (Arc::clone(&self.cells), Arc::downgrade(&self.reclaim));
        self.reclaim.retire(Box::new(Removed { slot, cells, reclaim }));
    }

    /// The segment in `slot`, for as long as the guard and the table live. If the keydir named the slot
    /// under this guard, it is the segment that was meant.
    ///
    /// # Panics
    /// If the guard is of another [`Reclaim`].
    #[inline]
    pub fn get<'g>(&'g self, slot: u32, guard: &'g Guard<'_>) -> Option<&'g Segment> {
        // SAFETY: the table has a count of the segment while it is in its slot, and gives it back only
        // after every guard is gone that was there when it left (`Reclaim`), or at its own end.
        unsafe { self.pointer(slot, guard)?.as_ref() }
    }

    /// The same, kept alive by a reference of its own.
    ///
    /// # Panics
    /// If the guard is of another [`Reclaim`].
    pub fn share(&self, slot: u32, guard: &Guard<'_>) -> Option<Arc<Segment>> {
        let pointer = self.pointer(slot, guard)?;
        // SAFETY: as in `get`: the table's own count can't be given back while the guard lives.
        (!pointer.is_null()).then(|| unsafe { one_more(pointer) })
    }

    #[inline]
    fn pointer(&self, slot: u32, guard: &Guard<'_>) -> Option<*mut Segment> {
        assert!(guard.belongs_to(&self.reclaim), "a guard of another store");
        Some(self.cells.cell(slot)?.load(Ordering::Acquire))
    }

    /// Visits all segments that a location may name now. The visitor makes no other use of the table.
    pub fn for_each(&self, mut visit: impl FnMut(&Segment)) {
        // SAFETY: the pointer is good as long as the visit lasts.
        self.visit(|pointer| visit(unsafe { &*pointer }));
    }

    /// Live bytes and records of each.
    pub(crate) fn usage(&self) -> HashMap<SegmentId, (u64, u64)> {
        let mut usage = HashMap::new();
        self.for_each(|segment| {
            usage.insert(segment.id, segment.usage.get());
        });
        usage
    }

    /// All of them, each kept alive by a reference of its own.
    pub fn all(&self) -> Vec<Arc<Segment>> {
        let mut all = Vec::new();
        // SAFETY: a pointer's count is there as long as its visit lasts.
        self.visit(|pointer| all.push(unsafe { one_more(pointer) }));
        all
    }

    /// Visits the pointers in all filled slots. Each has the table's own count while it is visited,
    /// for that is given back under the lock.
    fn visit(&self, mut visit: impl FnMut(*const Segment)) {
        let free = self.cells.free();
        for cell in (1..free.next).filter_map(|slot| self.cells.cell(slot)) {
            let pointer = cell.load(Ordering::Acquire);
            if !pointer.is_null() {
                visit(pointer);
            }
        }
    }
}

/// A further reference to a segment.
///
/// # Safety
/// The pointer came from `Arc::into_raw`, and somebody holds a count of it during this call.
unsafe fn one_more(segment: *const Segment) -> Arc<Segment> {
    // SAFETY: says the caller; and the count that is added is the one that is taken over.
    unsafe {
        Arc::increment_strong_count(segment);
        Arc::from_raw(segment)
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        for (block, start) in self.blocks.iter_mut().enumerate() {
            let start = *start.get_mut();
            if start.is_null() {
                continue;
            }
            let slots = ptr::slice_from_raw_parts_mut(start, block_len(block));
            // SAFETY: made by `Box::into_raw` of a slice of this length; nobody else is left.
            let slots = unsafe { Box::from_raw(slots) };
            for mut cell in slots {
                let pointer = *cell.get_mut();
                if !pointer.is_null() {
                    // SAFETY: from `Arc::into_raw`; the table's own count.
                    drop(unsafe { Arc::from_raw(pointer.cast_const()) });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::AtomicBool;

    use caskade_codec::ids::{SegmentId, ShardId};
    use caskade_codec::segment::Role;

    use super::*;
    use crate::location::Location;
    use crate::segment::Identity;
    use crate::storage::sim::SimDisk;
    use crate::storage::{File, MapMode};

    fn file() -> Arc<dyn File> {
        let disk = SimDisk::new(1);
        let file = disk.storage().create(Path::new("/segment")).unwrap();
        file.write_all_at(&[0; 64], 0).unwrap();
        file
    }

    fn segment(file: &dyn File, id: u64, slot: u32) -> Arc<Segment> {
        let map = file.map(64, MapMode::Read).unwrap();
        let (shard, role, path) = (ShardId(0), Role::Log, PathBuf::from(id.to_string()));
        let identity = Identity { shard, id: SegmentId(id), slot, role, salt: 0, path };
        Arc::new(Segment::new(identity, map, 64))
    }

    /// A table of one segment, in which slot that is, and whether it is kept.
    fn table_of_one(reclaim: &Arc<Reclaim>) -> (SegmentTable, u32, Weak<Segment>) {
        let table = SegmentTable::new(Arc::clone(reclaim));
        let slot = table.reserve();
        table.insert(segment(&*file(), 1, slot));
        let kept = Arc::downgrade(&table.all()[0]);
        (table, slot, kept)
    }

    #[test]
    fn who_looks_into_a_slot_by_chance_keeps_what_was_there() {
        let reclaim = Arc::new(Reclaim::new());
        let (table, slot, kept) = table_of_one(&reclaim);
        let before = reclaim.enter();
        table.remove(slot);
        reclaim.collect();
        // No location names the slot any more, but it is not empty yet.
        let by_chance = reclaim.enter();
        assert_eq!(table.get(slot, &by_chance).unwrap().id, SegmentId(1));
        drop(before);
        for _ in 0..5 {
            reclaim.collect();
        }
        assert!(kept.upgrade().is_some());
        drop(by_chance);
        for _ in 0..2 {
            reclaim.collect();
        }
        assert!(kept.upgrade().is_none());
        assert_eq!(table.reserve(), slot);
    }

    #[test]
    fn what_was_removed_goes_with_the_reclaim_too() {
        let reclaim = Arc::new(Reclaim::new());
        let (table, slot, kept) = table_of_one(&reclaim);
        table.remove(slot);
        drop((table, reclaim));
        assert!(kept.upgrade().is_none());
    }

    /// Segments come and go, freed at once, while others go through all that are there.
    #[test]
    fn whoever_lists_segments_keeps_what_it_found() {
        const ROUNDS: u64 = if cfg!(miri) { 20 } else { 20_000 };
        let file = file();
        let reclaim = Arc::new(Reclaim::new());
        let table = SegmentTable::new(Arc::clone(&reclaim));
        let is_over = AtomicBool::new(false);
        let is_whole = |segment: &Segment| {
            assert_eq!(segment.path.to_str(), Some(&*segment.id.0.to_string()));
        };
        std::thread::scope(|scope| {
            let list = || {
                while !is_over.load(Ordering::Relaxed) {
                    table.for_each(|segment| {
                        std::thread::yield_now();
                        is_whole(segment);
                    });
                    let all = table.all();
                    std::thread::yield_now();
                    for segment in &all {
                        is_whole(segment);
                    }
                }
            };
            scope.spawn(list);
            scope.spawn(list);
            for id in 0..ROUNDS {
                let slot = table.reserve();
                table.insert(segment(&*file, id, slot));
                table.remove(slot);
                reclaim.collect();
            }
            is_over.store(true, Ordering::Relaxed);
        });
        reclaim.collect();
        assert!(table.all().is_empty());
    }

    #[test]
    fn places_are_dense_and_distinct() {
        assert_eq!(place(Location::SLOT_MAX).0, BLOCKS - 1);
        let mut expected = (0, 0);
        for slot in 0..10_000 {
            assert_eq!(place(slot), expected);
            expected.1 += 1;
            if expected.1 == block_len(expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
    }
}
