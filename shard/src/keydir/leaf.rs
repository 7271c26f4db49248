//! A leaf: a block of buckets for one range of hashes.
//!
//! # Invariants
//! 1. A leaf's block is a header and then the buckets of its class, 64-byte aligned, allocated by
//!    [`OwnedLeaf::new`] and freed by the drop of the one [`OwnedLeaf`] for it. The low six bits of
//!    a leaf's [`Word`] are its class. The block of a leaf of the class [`DEFERRED`] is the begin of a
//!    [`Deferred`]: its one bucket has no unused lane and no entry, so that a lookup gets to its end.
//! 2. A slot is empty if and only if its location is 0. A hash of 0 marks a lane that was never
//!    used; a lane that was used never goes back to 0. Lanes of a bucket are taken into use in order, so that
//!    one has an unused lane if and only if its last is unused.
//! 3. An entry lies in its home bucket or in a later one (around the end), and every bucket from
//!    its home to the one before its own has no unused lane. So a lookup may stop at the first
//!    bucket with an unused lane; lanes only become used, so this holds for every later reader too.
//! 4. Entries never move inside a leaf. One writer at a time changes a leaf, and only one that is in
//!    the directory and that no snapshot holds.
//! 5. `depth` and `born` are constant once the leaf is published; `count` and `used` are the
//!    writer's alone.
//!
//! # What a reader may see
//! An insertion stores the hash, then the location with release; a lookup loads the hash, then the
//! location with acquire. In a lane that is used again a reader may see the old hash with the new
//! location or the other way round: the key comparison refuses the first, and the second is either
//! an empty slot or an entry whose insertion is not over.
#![expect(unsafe_code, reason = "leaves are allocated by hand and shared as tagged pointers")]

use std::{
    alloc::Layout,
    marker::PhantomData,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32 as Plain, Ordering::Relaxed},
    },
};

use crate::{
    keydir::{
        deferred::Deferred,
        geometry::{BUCKETS, CLASSES, DEFERRED, SLOTS, home, used_max},
        memory::LeafMemory,
        prefetch::prefetch_lines,
        scan::{matching, unused},
    },
    location::Location,
    sync::{AtomicU32, AtomicU64, Ordering, fence},
};

/// A pointer to a leaf with the leaf's class in its low bits, as the directory keeps it.
pub(super) type Word = *mut Header;

#[repr(C, align(64))]
pub(super) struct Header {
    /// The generation in which the leaf was made.
    born: u64,
    /// How many leading bits of the place the leaf stands for.
    depth: u32,
    /// Entries.
    count: Plain,
    /// Lanes that were ever used.
    used: Plain,
    is_deferred: bool,
    /// Where the block goes back to.
    memory: Arc<LeafMemory>,
    /// Read by who uses the leaf and written by who frees it, for the model checker to compare.
    #[cfg(loom)]
    alive: loom::cell::Cell<bool>,
}

impl Header {
    /// The header of a deferred leaf.
    pub(super) fn deferred(memory: Arc<LeafMemory>, count: u32, depth: u32, born: u64) -> Self {
        Self { is_deferred: true, count: Plain::new(count), ..Self::new(memory, depth, born) }
    }

    fn new(memory: Arc<LeafMemory>, depth: u32, born: u64) -> Self {
        Self {
            born,
            depth,
            count: Plain::new(0),
            used: Plain::new(0),
            is_deferred: false,
            memory,
            #[cfg(loom)]
            alive: loom::cell::Cell::new(true),
        }
    }

    pub(super) fn memory(&self) -> &Arc<LeafMemory> {
        &self.memory
    }

    pub(super) fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }

    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    pub(super) fn born(&self) -> u64 {
        self.born
    }
}

#[repr(C, align(64))]
pub(super) struct Bucket {
    hashes: [AtomicU32; SLOTS],
    locations: [AtomicU64; SLOTS],
}

impl Bucket {
    /// Whether every lane was used.
    #[inline]
    fn is_full(&self) -> bool {
        self.hashes[SLOTS - 1].load(Ordering::Relaxed) != 0
    }

    /// One in which there is neither room nor anything to be found.
    pub(super) fn dead() -> Self {
        Self {
            hashes: std::array::from_fn(|_| AtomicU32::new(u32::MAX)),
            locations: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

const CLASS_MASK: usize = CLASSES - 1;
const _: () = assert!(CLASSES == 64 && align_of::<Header>() == CLASSES);
#[cfg(not(loom))]
const _: () = assert!(size_of::<Header>() == 64);
#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket>() == 192);

fn layout(class: usize) -> Layout {
    let bytes = size_of::<Header>() + BUCKETS[class] as usize * size_of::<Bucket>();
    Layout::from_size_align(bytes, align_of::<Header>()).expect("a leaf is far below isize::MAX")
}

/// A leaf that belongs to its holder.
#[derive(Debug)]
pub(super) struct OwnedLeaf(NonNull<Header>);

// SAFETY: An owned leaf is owned memory that holds atomics, plain integers and a share of a `LeafMemory`,
// or a `Deferred`, which are `Send` and `Sync`; nothing in it is tied to a thread.
unsafe impl Send for OwnedLeaf {}

impl OwnedLeaf {
    /// An empty leaf.
    pub(super) fn new(memory: &Arc<LeafMemory>, class: usize, depth: u32, born: u64) -> Self {
        let block = memory.made.allocate(layout(class)).cast::<Header>();
        // SAFETY: The block is ours, aligned, and begins with room for a header.
        unsafe { block.write(Header::new(Arc::clone(memory), depth, born)) };
        // Zeroed memory is a bucket already; the model checker's atomics are more than their value.
        #[cfg(loom)]
        for bucket in 0..BUCKETS[class] as usize {
            let empty = Bucket {
                hashes: std::array::from_fn(|_| AtomicU32::new(0)),
                locations: std::array::from_fn(|_| AtomicU64::new(0)),
            };
            // SAFETY: The block has room for `BUCKETS[class]` buckets after the header.
            unsafe { block.add(1).cast::<Bucket>().add(bucket).write(empty) };
        }
        Self(block.map_addr(|address| address | class))
    }

    /// A leaf that is made when somebody looks into it.
    pub(super) fn deferred(deferred: Deferred) -> Self {
        let pool = &deferred.header().memory.deferred;
        let block = pool.allocate(Layout::new::<Deferred>()).cast::<Deferred>();
        // SAFETY: The block is ours, and long and aligned enough.
        unsafe { block.write(deferred) };
        Self(block.cast::<Header>().map_addr(|address| address | DEFERRED))
    }

    pub(super) fn is_deferred(&self) -> bool {
        self.leaf().header().is_deferred
    }

    /// The bytes of the leaf, once it is made.
    pub(super) fn bytes(&self) -> u64 {
        let leaf = self.leaf();
        let class = leaf.as_deferred().map_or(leaf.class(), Deferred::class);
        layout(class).size() as u64
    }

    /// Takes the leaf back that [`OwnedLeaf::into_word`] gave away.
    ///
    /// # Safety
    /// The word came from `into_word`, and nobody else takes it back.
    pub(super) unsafe fn from_word(word: Word) -> Self {
        // SAFETY: Words come from `NonNull`s.
        Self(unsafe { NonNull::new_unchecked(word) })
    }

    pub(super) fn into_word(self) -> Word {
        let word = self.0.as_ptr();
        std::mem::forget(self);
        word
    }

    pub(super) fn leaf(&self) -> Leaf<'_> {
        // SAFETY: The leaf lives as long as its owner, which is borrowed.
        unsafe { Leaf::new(self.0.as_ptr()) }
    }
}

impl Drop for OwnedLeaf {
    fn drop(&mut self) {
        #[cfg(loom)]
        self.leaf().header().alive.set(false);
        if self.is_deferred() {
            let memory = Arc::clone(&self.leaf().header().memory);
            let block = self.leaf().block.cast::<Deferred>();
            // SAFETY: `deferred` wrote it, and this is its only owner.
            unsafe { block.drop_in_place() };
            // SAFETY: `deferred` allocated the block from this pool with this layout.
            unsafe { memory.deferred.free(block.cast(), Layout::new::<Deferred>()) };
            return;
        }
        let class = self.leaf().class();
        let block = self.leaf().block;
        #[cfg(loom)]
        for bucket in 0..BUCKETS[class] as usize {
            // SAFETY: All buckets were written by `new`, and nobody else can reach them now.
            unsafe { block.add(1).cast::<Bucket>().add(bucket).drop_in_place() };
        }
        // SAFETY: `new` wrote the header, and this is its last use.
        let header = unsafe { block.read() };
        // SAFETY: `new` allocated the block from this memory with this layout, and this is its only owner.
        unsafe { header.memory.made.free(block.cast(), layout(class)) };
    }
}

/// A leaf that somebody keeps alive for `'a`.
#[derive(Clone, Copy)]
pub(super) struct Leaf<'a> {
    block: NonNull<Header>,
    class: usize,
    alive: PhantomData<&'a Header>,
}

/// One slot of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    bucket: usize,
    lane: usize,
}

impl<'a> Leaf<'a> {
    /// # Safety
    /// The word came from [`OwnedLeaf::into_word`], and the leaf is not freed during `'a`.
    #[inline]
    pub(super) unsafe fn new(word: Word) -> Self {
        let class = word.addr() & CLASS_MASK;
        let block = word.map_addr(|address| address & !CLASS_MASK);
        // SAFETY: A word is the address of a block plus a class below the block's alignment.
        Self { block: unsafe { NonNull::new_unchecked(block) }, class, alive: PhantomData }
    }

    /// What it is, if it is a deferred one.
    pub(super) fn as_deferred(self) -> Option<&'a Deferred> {
        // SAFETY: The block of such a leaf is the begin of a `Deferred` (invariant 1), alive during `'a`.
        self.header().is_deferred.then(|| unsafe { self.block.cast::<Deferred>().as_ref() })
    }

    /// The leaf itself or, in place of a deferred one, the one that is made of it, now if need be.
    pub(super) fn made(self) -> Self {
        // SAFETY: The deferred leaf lives during `'a`, and so does the one that it leads to.
        self.as_deferred().map_or(self, |deferred| unsafe { Self::new(deferred.word()) })
    }

    #[inline]
    fn header(self) -> &'a Header {
        // SAFETY: The block is alive during `'a` and begins with a header, which `new` wrote before
        // the word was given to anyone. Its fields are constant or atomic.
        unsafe { self.block.as_ref() }
    }

    #[inline]
    fn buckets(self) -> &'a [Bucket] {
        #[cfg(loom)]
        assert!(self.header().alive.get(), "a leaf that was freed");
        // SAFETY: As for the header; `BUCKETS[class]` buckets follow it, all initialised, and their
        // fields are atomics.
        unsafe {
            std::slice::from_raw_parts(
                self.block.add(1).cast::<Bucket>().as_ptr(),
                BUCKETS[self.class] as usize,
            )
        }
    }

    #[inline]
    pub(super) fn class(self) -> usize {
        self.class
    }

    pub(super) fn depth(self) -> u32 {
        self.header().depth
    }

    #[inline]
    pub(super) fn born(self) -> u64 {
        self.header().born
    }

    #[inline]
    pub(super) fn count(self) -> usize {
        self.header().count.load(Relaxed) as usize
    }

    #[inline]
    fn used(self) -> usize {
        self.header().used.load(Relaxed) as usize
    }

    /// Asks for the lines of the bucket where a lookup of `hash` begins.
    #[inline]
    pub(super) fn prefetch(self, hash: u32) {
        let buckets = self.buckets();
        let bucket = &raw const buckets[home(hash, buckets.len())];
        prefetch_lines(bucket, size_of::<Bucket>() / 64);
    }

    /// Asks for the line that a change of the leaf will need.
    #[inline]
    pub(super) fn prefetch_header(self) {
        prefetch_lines(self.block.as_ptr(), 1);
    }

    /// The entries with this hash.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
    pub(super) fn candidates(self, hash: u32) -> Candidates<'a> {
        let buckets = self.buckets();
        let home = home(hash, buckets.len());
        let bucket = &buckets[home];
        // The locations are on their way while the hashes are compared, and the next bucket's hashes,
        // where many a lookup of an absent key goes on.
        prefetch_lines(&raw const bucket.locations, size_of::<Bucket>() / 64);
        let matching = matching(&bucket.hashes, hash);
        Candidates { leaf: self, buckets, hash, home, index: home, bucket, matching }
    }

    /// The location and place of the entry with this hash that `is_match` accepts.
    #[inline]
    pub(super) fn find(
        self,
        hash: u32,
        mut is_match: impl FnMut(Location) -> bool,
    ) -> Option<(Place, Location)> {
        self.candidates(hash).find(|&(_, location)| is_match(location))
    }

    /// Calls `f` for each entry. Each pair that is seen was an entry at some time during the call.
    pub(super) fn for_each(self, mut f: impl FnMut(u32, Location)) {
        for Bucket { hashes, locations } in self.buckets() {
            for (hash, location) in hashes.iter().zip(locations) {
                if let Some((hash, location)) = read_pair(hash, location) {
                    f(hash, location);
                }
            }
        }
    }

    /// The entries. For the writer alone, or for a leaf that nobody changes.
    pub(super) fn entries(self) -> impl Iterator<Item = (u32, Location)> + 'a {
        self.buckets().iter().flat_map(|Bucket { hashes, locations }| {
            hashes.iter().zip(locations).filter_map(|(hash, location)| {
                let location = Location::from_raw(location.load(Ordering::Relaxed))?;
                Some((hash.load(Ordering::Relaxed), location))
            })
        })
    }

    /// Where an entry with this hash can be put without making the leaf too full.
    /// For the writer alone.
    #[inline]
    pub(super) fn vacancy(self, hash: u32) -> Option<Place> {
        let buckets = self.buckets();
        let has_room = self.used() < used_max(buckets.len() * SLOTS);
        let has_dead = self.used() != self.count();
        let mut bucket = home(hash, buckets.len());
        for _ in 0..buckets.len() {
            let Bucket { hashes, locations } = &buckets[bucket];
            if has_dead {
                let dead = (0..SLOTS).find(|&lane| {
                    locations[lane].load(Ordering::Relaxed) == 0
                        && hashes[lane].load(Ordering::Relaxed) != 0
                });
                if let Some(lane) = dead {
                    return Some(Place { bucket, lane });
                }
            }
            let unused = unused(hashes);
            if unused != 0 {
                let lane = unused.trailing_zeros() as usize;
                return has_room.then_some(Place { bucket, lane });
            }
            bucket = next(bucket, buckets.len());
        }
        None
    }

    /// Puts an entry where [`Leaf::vacancy`] said. For the writer alone.
    #[inline]
    pub(super) fn insert(self, at: Place, hash: u32, location: Location) {
        let Bucket { hashes, locations } = &self.buckets()[at.bucket];
        let header = self.header();
        if hashes[at.lane].load(Ordering::Relaxed) == 0 {
            header.used.store(header.used.load(Relaxed) + 1, Relaxed);
        }
        header.count.store(header.count.load(Relaxed) + 1, Relaxed);
        // Release: who sees this hash also sees that the lane was empty before (`read_pair`).
        hashes[at.lane].store(hash, Ordering::Release);
        // Release: who sees the location sees the record, and the hash.
        locations[at.lane].store(location.raw(), Ordering::Release);
    }

    /// Puts another location in a full slot. For the writer alone.
    #[inline]
    pub(super) fn replace(self, at: Place, location: Location) {
        // Release: who sees the location sees the record.
        self.buckets()[at.bucket].locations[at.lane].store(location.raw(), Ordering::Release);
    }

    /// Empties a full slot. For the writer alone.
    pub(super) fn remove(self, at: Place) {
        let header = self.header();
        header.count.store(header.count.load(Relaxed) - 1, Relaxed);
        // Release: an absence is as good a reason to act as a presence.
        self.buckets()[at.bucket].locations[at.lane].store(0, Ordering::Release);
    }

    /// Puts entries in a leaf that no reader knows yet. `filled` is scratch.
    pub(super) fn fill(self, entries: impl Iterator<Item = (u32, Location)>, filled: &mut Vec<u8>) {
        let buckets = self.buckets();
        filled.clear();
        filled.resize(buckets.len(), 0);
        let mut count = 0;
        for (hash, location) in entries {
            let mut bucket = home(hash, buckets.len());
            while usize::from(filled[bucket]) == SLOTS {
                bucket = next(bucket, buckets.len());
            }
            let lane = usize::from(filled[bucket]);
            filled[bucket] += 1;
            // Relaxed: the directory entry that publishes the leaf is stored with release.
            buckets[bucket].hashes[lane].store(hash, Ordering::Relaxed);
            buckets[bucket].locations[lane].store(location.raw(), Ordering::Relaxed);
            count += 1;
        }
        self.header().count.store(count, Relaxed);
        self.header().used.store(count, Relaxed);
    }
}

/// The entries of a leaf that have one hash.
pub(super) struct Candidates<'a> {
    leaf: Leaf<'a>,
    buckets: &'a [Bucket],
    hash: u32,
    /// The bucket that was looked at first.
    home: usize,
    /// The bucket that is looked at.
    index: usize,
    bucket: &'a Bucket,
    /// Its lanes that are still to be answered.
    matching: u32,
}

/// The entries with this hash of the leaf that a deferred one leads to.
#[cold]
#[inline(never)]
fn elsewhere(leaf: Leaf<'_>, hash: u32) -> Option<Candidates<'_>> {
    leaf.header().is_deferred.then(|| leaf.made().candidates(hash))
}

impl Iterator for Candidates<'_> {
    type Item = (Place, Location);

    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
    fn next(&mut self) -> Option<(Place, Location)> {
        loop {
            while self.matching != 0 {
                let lane = self.matching.trailing_zeros() as usize;
                self.matching &= self.matching - 1;
                // Acquire: the record was written before its location was stored.
                let raw = self.bucket.locations[lane].load(Ordering::Acquire);
                if let Some(location) = Location::from_raw(raw) {
                    return Some((Place { bucket: self.index, lane }, location));
                }
            }
            // Later than the lanes were compared. One that is unused now was so then, too: stopping is
            // right. And if the bucket was filled in between, going on is.
            if !self.bucket.is_full() {
                return None;
            }
            (self.index, self.bucket) = match self.buckets.get(self.index + 1) {
                Some(bucket) => (self.index + 1, bucket),
                None => (0, &self.buckets[0]),
            };
            if self.index == self.home {
                *self = elsewhere(self.leaf, self.hash)?;
                continue;
            }
            self.matching = matching(&self.bucket.hashes, self.hash);
        }
    }
}

#[inline]
fn next(bucket: usize, buckets: usize) -> usize {
    if bucket + 1 == buckets { 0 } else { bucket + 1 }
}

/// A hash and a location that were an entry together.
fn read_pair(hash: &AtomicU32, location: &AtomicU64) -> Option<(u32, Location)> {
    let mut raw = location.load(Ordering::Acquire);
    loop {
        let found = Location::from_raw(raw)?;
        let hash = hash.load(Ordering::Relaxed);
        // If this hash is newer than the location, its store released the emptying of the slot,
        // which the second look then sees.
        fence(Ordering::Acquire);
        let again = location.load(Ordering::Acquire);
        if again == raw {
            return Some((hash, found));
        }
        raw = again;
    }
}
