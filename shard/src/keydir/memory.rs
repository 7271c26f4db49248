//! Memory for the leaves of all keydirs of a store.
//!
//! Leaves are looked up at random and are most of what a store has in memory. From a general allocator
//! they would come in pages of 4 KB: each a fault while a table is filled, and too many for the
//! processor to remember where they lie. So leaves lie in chunks of the size of a large page, and the
//! system is asked to take large pages for those that an open is going to fill. Chunks of a table that
//! grows have small ones, whatever the system's habit: a large page would be memory that nobody uses yet,
//! and whoever touched it first would wait until 2 MB are zeroed.
//!
//! What an open defers lies in chunks of its own, so that these go back to the system once all leaves are
//! made; a general allocator would keep their pages.
//!
//! # Invariants
//! 1. Each byte of a chunk is in one block that was handed out, or in one free range.
//! 2. Free ranges of a chunk do not touch each other: neighbours are one. None reaches from one chunk
//!    into the next, also where chunks lie side by side.
//! 3. A chunk is mapped from before the first of its blocks is handed out until it is one free range.
//! 4. From `touched` on, a chunk was never handed out, and so is zero.
#![expect(unsafe_code, reason = "hands out parts of mapped memory, and takes them back")]

use std::{
    alloc::{Layout, handle_alloc_error},
    collections::{BTreeMap, BTreeSet},
    fmt,
    ptr::NonNull,
    // Not the model checker's: a leaf's memory is no part of a protocol, and no step is taken inside.
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::storage::pages::{LARGE_PAGE, Pages};

const CHUNK: usize = LARGE_PAGE;

/// What an entry takes of a leaf in the mean.
const BYTES_PER_ENTRY: usize = 15;

/// Memory for leaves.
#[derive(Debug, Default)]
pub struct LeafMemory {
    /// For those that are made.
    pub(super) made: Pool,
    /// For those that an open defers. They are freed within moments, and their chunks go with them.
    pub(super) deferred: Pool,
}

impl LeafMemory {
    /// Says that about so many entries are going to be in all leaves soon. 0 is what is said at first, and
    /// once the leaves of an open are made.
    pub fn expect(&self, entries: u64) {
        self.made.expect(entries);
    }
}

/// Hands out memory.
#[derive(Default)]
pub(super) struct Pool {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes that all leaves together are going to have soon.
    expected: usize,
    /// By address.
    chunks: BTreeMap<usize, Chunk>,
    /// Length by address.
    free: BTreeMap<usize, usize>,
    /// The same: length and address.
    by_len: BTreeSet<(usize, usize)>,
}

struct Chunk {
    pages: Pages,
    /// How much of it was ever handed out.
    touched: usize,
}

impl Pool {
    fn expect(&self, entries: u64) {
        let entries = usize::try_from(entries).unwrap_or(usize::MAX);
        self.lock().expected = entries.saturating_mul(BYTES_PER_ENTRY);
    }

    /// A block of zeros.
    pub(super) fn allocate(&self, layout: Layout) -> NonNull<u8> {
        assert!(layout.align() <= 64 && layout.size() > 0);
        let len = layout.size().next_multiple_of(64);
        let mut state = self.lock();
        let fits = state.by_len.range((len, 0)..).next().copied();
        let (free, at) = fits.unwrap_or_else(|| {
            let is_large = (state.chunks.len() + 1) * CHUNK <= state.expected;
            let chunk = Chunk::map(len, is_large).unwrap_or_else(|_| handle_alloc_error(layout));
            state.add(chunk)
        });
        state.take(at, free);
        if free > len {
            state.put(at + len, free - len);
        }
        let (block, touched) = state.chunk_of(at).hand_out(at, len);
        drop(state);
        // SAFETY: The block lies in its chunk, which is mapped as long as it has blocks (invariant 3), and
        // nobody else has it: it was free (invariant 1).
        unsafe { block.write_bytes(0, touched) };
        block
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// The block came from `allocate` of this pool with this layout, and nobody uses it any more.
    pub(super) unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        let mut state = self.lock();
        let unused = state.give_back(block.addr().get(), layout.size().next_multiple_of(64));
        drop(state);
        // Unmapping takes a while.
        drop(unused);
    }

    #[cfg(test)]
    pub(super) fn chunks(&self) -> usize {
        self.lock().chunks.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes a new chunk one free range, and answers its length and address.
    fn add(&mut self, chunk: Chunk) -> (usize, usize) {
        let (at, len) = (chunk.address(), chunk.pages.len());
        self.chunks.insert(at, chunk);
        self.put(at, len);
        (len, at)
    }

    fn put(&mut self, at: usize, len: usize) {
        self.free.insert(at, len);
        self.by_len.insert((len, at));
    }

    fn take(&mut self, at: usize, len: usize) {
        self.free.remove(&at);
        self.by_len.remove(&(len, at));
    }

    /// How many chunks have large pages, if the system gave any.
    fn large(&self) -> usize {
        self.chunks.values().filter(|chunk| chunk.pages.are_large()).count()
    }

    fn chunk_of(&mut self, at: usize) -> &mut Chunk {
        let found = self.chunks.range_mut(..=at).next_back();
        found.expect("a block lies in a chunk").1
    }

    /// Adds a range to the free ones, and answers its chunk if nothing in it is used any more.
    fn give_back(&mut self, mut at: usize, mut len: usize) -> Option<Chunk> {
        if !self.chunks.contains_key(&(at + len))
            && let Some(&behind) = self.free.get(&(at + len))
        {
            self.take(at + len, behind);
            len += behind;
        }
        if !self.chunks.contains_key(&at)
            && let Some((&before, &free)) = self.free.range(..at).next_back()
            && before + free == at
        {
            self.take(before, free);
            (at, len) = (before, free + len);
        }
        if self.chunks.get(&at).is_some_and(|chunk| chunk.pages.len() == len) {
            return self.chunks.remove(&at);
        }
        self.put(at, len);
        None
    }
}

impl Chunk {
    fn map(bytes: usize, is_large: bool) -> std::io::Result<Self> {
        Ok(Self { pages: Pages::map(bytes.next_multiple_of(CHUNK), is_large)?, touched: 0 })
    }

    fn address(&self) -> usize {
        self.pages.as_mut_ptr().addr()
    }

    /// The memory of a range that was free, and how much of it is to be made zero.
    fn hand_out(&mut self, at: usize, len: usize) -> (NonNull<u8>, usize) {
        let offset = at - self.address();
        assert!(offset + len <= self.pages.len(), "a block lies in its chunk");
        let block = NonNull::new(self.pages.as_mut_ptr().wrapping_add(offset));
        let touched = self.touched.saturating_sub(offset).min(len);
        self.touched = self.touched.max(offset + len);
        (block.expect("nothing is mapped at address 0"), touched)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Pool")
            .field("chunks", &state.chunks.len())
            .field("large", &state.large())
            .field("free_bytes", &state.free.values().sum::<usize>())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The interpreter is slow.
    const LINES: usize = if cfg!(miri) { 9 } else { 400 };

    fn layout(lines: usize) -> Layout {
        Layout::from_size_align(lines * 64, 64).unwrap()
    }

    /// A block that is filled with its mark.
    struct Block<'a> {
        memory: &'a Pool,
        begin: NonNull<u8>,
        layout: Layout,
        mark: u8,
    }

    impl<'a> Block<'a> {
        fn new(memory: &'a Pool, lines: usize, mark: u8) -> Self {
            let layout = layout(lines);
            let block = memory.allocate(layout);
            assert!(block.addr().get().is_multiple_of(64));
            let new = Self { memory, begin: block, layout, mark };
            assert!(new.is_all(0), "a block of zeros");
            // SAFETY: The block is this long, and ours.
            unsafe { block.write_bytes(mark, layout.size()) };
            new
        }

        fn is_all(&self, mark: u8) -> bool {
            let len = self.layout.size();
            // SAFETY: The block is this long, ours, and initialised.
            let bytes = unsafe { std::slice::from_raw_parts(self.begin.as_ptr(), len) };
            bytes == vec![mark; len]
        }
    }

    impl Drop for Block<'_> {
        fn drop(&mut self) {
            assert!(self.is_all(self.mark), "nobody wrote here");
            // SAFETY: It came from there with this layout, and is not used any more.
            unsafe { self.memory.free(self.begin, self.layout) };
        }
    }

    /// The invariants, given how many bytes are handed out.
    fn check(memory: &Pool, used: usize) {
        let state = memory.lock();
        assert!(state.free.iter().map(|(&at, &len)| (len, at)).eq({
            let mut by_address: Vec<_> = state.by_len.iter().copied().collect();
            by_address.sort_by_key(|&(_, at)| at);
            by_address
        }));
        let mut end = 0;
        for (&at, &len) in &state.free {
            assert!(at > end || at == end && state.chunks.contains_key(&at), "neighbours are one");
            end = at + len;
            let (&begin, chunk) = state.chunks.range(..=at).next_back().unwrap();
            assert!(end <= begin + chunk.pages.len(), "in one chunk");
            assert!(len < chunk.pages.len(), "a chunk without a block");
        }
        let all: usize = state.chunks.values().map(|chunk| chunk.pages.len()).sum();
        assert_eq!(all - state.free.values().sum::<usize>(), used);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 2 } else { 64 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Blocks are zeros, nobody else's, and leave nothing behind.
        #[test]
        fn blocks_are_ones_own(
            steps in prop::collection::vec((any::<bool>(), 1..LINES, any::<prop::sample::Index>()),
                if cfg!(miri) { 20 } else { 1000 }),
        ) {
            let memory = Pool::default();
            let (mut blocks, mut used) = (Vec::new(), 0);
            for (number, (is_new, lines, index)) in steps.into_iter().enumerate() {
                if is_new || blocks.is_empty() {
                    // Now and then one that needs more than a chunk.
                    let is_giant = lines == LINES - 1 && !cfg!(miri);
                    let lines = if is_giant { CHUNK / 64 + 1 } else { lines };
                    blocks.push(Block::new(&memory, lines, number as u8 | 1));
                    used += lines * 64;
                } else {
                    used -= blocks.swap_remove(index.index(blocks.len())).layout.size();
                }
                check(&memory, used);
            }
            drop(blocks);
            prop_assert_eq!(memory.chunks(), 0);
        }
    }

    #[test]
    fn a_block_takes_the_smallest_room_that_fits() {
        let memory = Pool::default();
        let mut blocks: Vec<_> =
            [9, 1, 5, 1, 7, 1].map(|lines| Block::new(&memory, lines, 3)).into();
        let five = blocks[2].begin;
        for index in [4, 2, 0] {
            drop(blocks.remove(index));
        }
        assert_eq!(Block::new(&memory, 4, 3).begin, five);
        assert_eq!(Block::new(&memory, 5, 3).begin, five);
    }

    #[test]
    fn chunks_are_used_up() {
        let memory = Pool::default();
        let blocks: Vec<_> = (0..4 * CHUNK / 4096).map(|_| Block::new(&memory, 64, 1)).collect();
        assert_eq!(memory.chunks(), 4);
        drop(blocks);
        assert_eq!(memory.chunks(), 0);
    }

    #[test]
    fn chunks_that_are_going_to_be_filled_have_large_pages() {
        let memory = Pool::default();
        let two_and_a_half = (5 * CHUNK / 2 / BYTES_PER_ENTRY) as u64;
        memory.expect(1);
        memory.expect(two_and_a_half);
        let mut blocks = Vec::new();
        for (chunks, large) in [(1, 1), (2, 2), (3, 2), (4, 2)] {
            blocks.push(Block::new(&memory, CHUNK / 64, 1));
            let state = memory.lock();
            assert_eq!((state.chunks.len(), state.large()), (chunks, large));
        }
    }

    #[test]
    fn what_is_expected_is_counted_without_overflow() {
        let memory = Pool::default();
        memory.expect(u64::MAX);
        drop(Block::new(&memory, 1, 1));
    }
}
