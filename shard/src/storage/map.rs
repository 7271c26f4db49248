//! Mapped file memory: a pointer, a length and the owner that keeps both valid.
//!
//! All `unsafe` of the storage boundary stands in this file. Invariants:
//!
//! - `ptr .. ptr + len` is one live allocation for as long as `owner` lives, it never moves, and
//!   the map owns its `owner`;
//! - it is never handed out as a safe reference, since other threads, other maps and other
//!   processes may change the bytes: whoever makes a reference proves that nobody does.
#![expect(unsafe_code, reason = "hands out slices of mapped memory; each block has its proof")]

use std::fmt;
#[cfg(any(test, feature = "sim"))]
use std::sync::Arc;

use memmap2::MmapRaw;

use super::MapMode;

/// How a map is going to be read; see [`Map::advise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// What is near is read with what is needed.
    Normal,
    /// Point reads: reading ahead would be wasted.
    Random,
}

/// The bytes of a file in memory, shared with the file. Made by [`File::map`](super::File::map).
///
/// Reads and writes go through the pointer, with no call in between.
pub struct Map {
    ptr: *mut u8,
    len: usize,
    mode: MapMode,
    owner: Owner,
}

/// Keeps the memory of a [`Map`] in place. Dropped with it.
enum Owner {
    Kernel(MmapRaw),
    #[cfg(any(test, feature = "sim"))]
    Simulated(#[expect(dead_code, reason = "held for its drop")] Arc<Memory>),
}

// SAFETY: a Map is a pointer to shared memory plus its owner, which is Send. Nothing in it belongs
// to the thread that made it, and unmapping may happen in any thread.
unsafe impl Send for Map {}
// SAFETY: the safe methods only read the fields, which never change. Access to the bytes is unsafe
// and its contracts rule out conflicting accesses.
unsafe impl Sync for Map {}

impl Map {
    /// Wraps a mapping by the kernel, which was made for `mode`.
    pub(super) fn from_kernel(raw: MmapRaw, mode: MapMode) -> Map {
        Map { ptr: raw.as_mut_ptr(), len: raw.len(), mode, owner: Owner::Kernel(raw) }
    }

    /// Wraps the first `len` bytes of a simulated file's memory.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn from_memory(memory: Arc<Memory>, len: usize, mode: MapMode) -> Map {
        assert!(len <= memory.capacity, "a map ends inside its memory");
        Map { ptr: memory.ptr, len, mode, owner: Owner::Simulated(memory) }
    }

    /// The length in bytes, as asked for when mapping. The file may be shorter.
    #[must_use]
    #[inline]
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Whether the length is 0.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the map was made for.
    #[must_use]
    #[inline]
    pub fn mode(&self) -> MapMode {
        self.mode
    }

    /// The address of the first byte. Valid while the map lives; at least 64-byte aligned.
    #[must_use]
    #[inline]
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr
    }

    /// The bytes `offset .. offset + len`.
    ///
    /// # Panics
    /// When the range is not inside the map.
    ///
    /// # Safety
    /// For as long as the slice lives:
    /// - the file is at least `offset + len` long (nobody truncates it below, in any process), and
    /// - nobody stores to any of these bytes: neither through this or another map, nor by a write,
    ///   nor another process.
    #[must_use]
    #[inline]
    pub unsafe fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        self.check(offset, len);
        // SAFETY: the range is inside the mapping (checked), which lives as long as `self` and so
        // as the slice. The file backs it and nobody stores to it, says the caller.
        unsafe { std::slice::from_raw_parts(self.ptr.add(offset as usize), len) }
    }

    /// The bytes `offset .. offset + len`, to be stored to.
    ///
    /// # Panics
    /// When the range is not inside the map, or the map was made for [`MapMode::Read`].
    ///
    /// # Safety
    /// For as long as the slice lives:
    /// - the file is at least `offset + len` long and the space there is allocated, and
    /// - nobody else loads or stores any of these bytes through a slice or pointer. Syncing the
    ///   file meanwhile is fine: it may catch any of the stores.
    #[must_use]
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "shared memory; the caller proves exclusive use")]
    pub unsafe fn bytes_mut(&self, offset: u64, len: usize) -> &mut [u8] {
        self.check(offset, len);
        assert!(self.mode == MapMode::Write, "stores need a map made for writing");
        // SAFETY: the range is inside the mapping (checked), which lives as long as `self` and so
        // as the slice, and is writable (checked). The file backs it with allocated space and the
        // caller is alone on these bytes, says the caller.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(offset as usize), len) }
    }

    /// Tells the kernel how the map is going to be used. Best effort.
    pub fn advise(&self, advice: Advice) {
        match &self.owner {
            Owner::Kernel(raw) => {
                let advice = match advice {
                    Advice::Normal => memmap2::Advice::Normal,
                    Advice::Random => memmap2::Advice::Random,
                };
                // Advice that the kernel refuses is advice not taken.
                let _ = raw.advise(advice);
            }
            #[cfg(any(test, feature = "sim"))]
            Owner::Simulated(_) => {}
        }
    }

    /// Makes the pages of `offset .. offset + len` present and writable, so that the first stores
    /// take no page fault. Best effort; the range is cut to the map.
    pub fn populate_write(&self, offset: u64, len: u64) {
        if self.mode == MapMode::Write {
            self.advise_range(memmap2::Advice::PopulateWrite, offset, len);
        }
    }

    /// Has the kernel begin to read `offset .. offset + len`, whatever was advised for the whole.
    pub fn will_need(&self, offset: u64, len: u64) {
        self.advise_range(memmap2::Advice::WillNeed, offset, len);
    }

    /// As [`Map::populate_write`], for reading alone.
    pub fn populate_read(&self, offset: u64, len: u64) {
        self.advise_range(memmap2::Advice::PopulateRead, offset, len);
    }

    /// Takes the pages of `offset .. offset + len` out of the process's page table, all at once.
    /// Their bytes stay in the file, and the next access finds them there. Writing dirty pages to
    /// disk is cheaper then: the kernel need not interrupt every processor for every page.
    pub fn detach(&self, offset: u64, len: u64) {
        if let (Owner::Kernel(raw), Some((start, len))) = (&self.owner, self.range(offset, len)) {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the map is a shared one of a file. There the advice takes no byte away: what
            // was stored is in the file's pages, from where an access gets it again.
            let _ = unsafe { raw.unchecked_advise_range(advice, start, len) };
        }
    }

    // A kernel before 5.14 does not know how to populate, and takes the faults later.
    fn advise_range(&self, advice: memmap2::Advice, offset: u64, len: u64) {
        if let (Owner::Kernel(raw), Some((start, len))) = (&self.owner, self.range(offset, len)) {
            let _ = raw.advise_range(advice, start, len);
        }
    }

    /// The part of a range that is inside the map, if there is any.
    fn range(&self, offset: u64, len: u64) -> Option<(usize, usize)> {
        let start = (offset as usize).min(self.len);
        let len = (len as usize).min(self.len - start);
        (len > 0).then_some((start, len))
    }

    /// Copies bytes out, for tests that are alone with the file and stay inside it.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn copy_for_tests(&self, offset: u64, len: usize) -> Vec<u8> {
        // SAFETY: a test that is alone with the file and stays inside it, says the contract.
        unsafe { self.bytes(offset, len) }.to_vec()
    }

    /// Stores bytes, for tests that are alone with the file and stay inside it.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn store_for_tests(&self, offset: u64, bytes: &[u8]) {
        // SAFETY: a test that is alone with the file and stays inside it, says the contract.
        unsafe { self.bytes_mut(offset, bytes.len()) }.copy_from_slice(bytes);
    }

    #[inline]
    fn check(&self, offset: u64, len: usize) {
        let fits = offset.checked_add(len as u64).is_some_and(|end| end <= self.len as u64);
        assert!(fits, "{len} bytes at {offset} are outside a map of {}", self.len);
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("len", &self.len)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// The live bytes of a simulated file: zeroed memory that never moves, shared by the file's maps.
///
/// Its methods copy bytes in and out, as the kernel does on behalf of reads, writes and syncs. A
/// sync may run while another thread stores through a map. What it then copies is either the old or
/// the new byte, which is all that a sync promises, and no decision rests on it. In the language's
/// memory model this is a data race all the same, one the kernel hides from us on a real map. It
/// stays as the known residue of the simulator, which product code never contains.
#[cfg(any(test, feature = "sim"))]
#[derive(Debug)]
pub(super) struct Memory {
    /// Aligned up from `block`, or dangling where the capacity is 0.
    ptr: *mut u8,
    capacity: usize,
    block: *mut u8,
}

#[cfg(any(test, feature = "sim"))]
mod memory {
    use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
    use std::ptr;

    use super::Memory;

    /// What users of a map may expect of its first byte.
    const ALIGN: usize = 64;
    /// The allocator gives large zeroed blocks of this alignment without touching their pages.
    const BLOCK_ALIGN: usize = 16;

    // SAFETY: the block is owned by this value alone and freed once, in any thread.
    unsafe impl Send for Memory {}
    // SAFETY: the fields never change. The bytes are shared as the type's page says.
    unsafe impl Sync for Memory {}

    impl Memory {
        pub(in crate::storage) fn zeroed(capacity: usize) -> Memory {
            if capacity == 0 {
                return Memory {
                    ptr: ptr::without_provenance_mut(ALIGN),
                    capacity,
                    block: ptr::null_mut(),
                };
            }
            let layout = layout(capacity);
            // SAFETY: the layout's size is not 0.
            let block = unsafe { alloc_zeroed(layout) };
            if block.is_null() {
                handle_alloc_error(layout);
            }
            // SAFETY: aligning up moves by less than ALIGN, and the block is that much longer.
            let ptr = unsafe { block.add(block.align_offset(ALIGN)) };
            Memory { ptr, capacity, block }
        }

        pub(in crate::storage) fn capacity(&self) -> usize {
            self.capacity
        }

        pub(in crate::storage) fn copy_out(&self, offset: usize, out: &mut [u8]) {
            self.check(offset, out.len());
            // SAFETY: the source is inside the memory (checked); `out` is exclusive, so the two do
            // not overlap. Racing stores: see the type's page.
            unsafe { ptr::copy_nonoverlapping(self.ptr.add(offset), out.as_mut_ptr(), out.len()) }
        }

        pub(in crate::storage) fn copy_in(&self, offset: usize, bytes: &[u8]) {
            self.check(offset, bytes.len());
            // SAFETY: the target is inside the memory (checked). `bytes` is no slice of a map on
            // the same bytes: its holder promised that nobody stores there.
            unsafe { ptr::copy(bytes.as_ptr(), self.ptr.add(offset), bytes.len()) }
        }

        pub(in crate::storage) fn zero(&self, offset: usize, len: usize) {
            self.check(offset, len);
            // SAFETY: the range is inside the memory (checked).
            unsafe { ptr::write_bytes(self.ptr.add(offset), 0, len) }
        }

        fn check(&self, offset: usize, len: usize) {
            let fits = offset.checked_add(len).is_some_and(|end| end <= self.capacity);
            assert!(fits, "{len} bytes at {offset} are outside {} bytes", self.capacity);
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            if !self.block.is_null() {
                // SAFETY: the block came from the allocator with this layout; this is its only
                // owner, and every map of it holds this owner.
                unsafe { dealloc(self.block, layout(self.capacity)) }
            }
        }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity + ALIGN, BLOCK_ALIGN).expect("a file fits the memory")
    }
}
