//! One simulated file: its live bytes and what of them is durable.
//!
//! Invariants:
//!
//! - `memory` holds the live bytes; what lies beyond its capacity is zero. It is replaced by a
//!   larger one only while no map pins it.
//! - `synced` is what the kernel takes to be on the device: a sector is dirty when its live bytes
//!   differ from there. `durable` is what really is on the device, and differs from `synced` only
//!   after a sync that failed and dropped its pages.
//! - `lengths` are the lengths since the last sync, oldest first; the last one is `len`.
//! - Nothing but zeros lies in `memory` beyond `len` and beyond `allocated`, unless a store went
//!   where the kernel would have killed the process.

use std::path::Path;
use std::sync::Arc;

use super::SECTOR_BYTES;
use super::chooser::{Chooser, Pending};
use super::rng::Rng;
use crate::storage::map::Memory;

/// Sectors are compared in blocks of this many bytes first.
const BLOCK_BYTES: usize = 8 * SECTOR_BYTES;

/// What a sync that fails does to the pages it was to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FailedSync {
    /// None of them reaches the device, and all are marked clean: later syncs skip them.
    #[default]
    DropAll,
    /// A random half of them reaches the device; the others are marked clean.
    DropSome,
    /// All stay dirty, and a later sync writes them.
    KeepDirty,
}

/// Contents at one point: what lies beyond `bytes` is zero, up to `len`.
#[derive(Clone, Debug, Default)]
struct Image {
    bytes: Arc<Vec<u8>>,
    len: u64,
}

impl Image {
    fn sector(&self, index: usize) -> [u8; SECTOR_BYTES] {
        let mut sector = [0; SECTOR_BYTES];
        copy_clipped(&self.bytes, index * SECTOR_BYTES, &mut sector);
        sector
    }

    fn set_sector(&mut self, index: usize, sector: &[u8; SECTOR_BYTES]) {
        let end = (index + 1) * SECTOR_BYTES;
        let bytes = Arc::make_mut(&mut self.bytes);
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[end - SECTOR_BYTES..end].copy_from_slice(sector);
    }

    /// Cuts or extends; what is beyond the length is zero from then on.
    fn set_len(&mut self, len: u64) {
        self.len = len;
        if self.bytes.len() as u64 > len {
            Arc::make_mut(&mut self.bytes).truncate(len as usize);
        }
    }
}

#[derive(Debug)]
pub(super) struct FileNode {
    pub(super) label: Arc<Path>,
    /// Live names.
    pub(super) links: u32,
    /// Open handles of the current life.
    pub(super) open: u32,
    memory: Arc<Memory>,
    len: u64,
    allocated: u64,
    synced: Image,
    /// `None` while it is the same as `synced`.
    durable: Option<Image>,
    lengths: Vec<u64>,
    /// Whether anything may have changed since the last sync.
    touched: bool,
    mapped_for_writing: bool,
}

impl FileNode {
    pub(super) fn new(label: Arc<Path>) -> FileNode {
        FileNode {
            label,
            links: 0,
            open: 0,
            memory: Arc::new(Memory::zeroed(0)),
            len: 0,
            allocated: 0,
            synced: Image::default(),
            durable: None,
            lengths: Vec::new(),
            touched: false,
            mapped_for_writing: false,
        }
    }

    /// A copy with memory of its own, and no handle or map.
    pub(super) fn fork(&self) -> FileNode {
        FileNode {
            label: Arc::clone(&self.label),
            links: self.links,
            open: 0,
            memory: Arc::new(self.copy_memory(self.memory.capacity())),
            len: self.len,
            allocated: self.allocated,
            synced: self.synced.clone(),
            durable: self.durable.clone(),
            lengths: self.lengths.clone(),
            touched: self.touched || self.mapped_for_writing,
            mapped_for_writing: false,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Whether a map holds the memory.
    pub(super) fn is_mapped(&self) -> bool {
        Arc::strong_count(&self.memory) > 1
    }

    /// Copies live bytes; the caller has checked the length.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) {
        let capacity = self.memory.capacity();
        let start = (offset as usize).min(capacity);
        let held = (capacity - start).min(out.len());
        self.memory.copy_out(start, &mut out[..held]);
        out[held..].fill(0);
    }

    pub(super) fn contents(&self) -> Vec<u8> {
        let mut out = vec![0; self.len as usize];
        self.read(0, &mut out);
        out
    }

    pub(super) fn durable_contents(&self) -> Vec<u8> {
        let image = self.durable.as_ref().unwrap_or(&self.synced);
        let mut out = vec![0; image.len as usize];
        copy_clipped(&image.bytes, 0, &mut out);
        out
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        self.reserve(end as usize);
        self.memory.copy_in(offset as usize, bytes);
        self.allocated = self.allocated.max(end);
        self.grow(end);
        self.touched = true;
    }

    pub(super) fn allocate(&mut self, end: u64) {
        self.allocated = self.allocated.max(end);
        self.grow(end);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let capacity = self.memory.capacity();
            let start = (len as usize).min(capacity);
            self.memory.zero(start, (self.len as usize).min(capacity) - start);
            self.allocated = self.allocated.min(len);
        }
        if len != self.len {
            self.change_len(len);
        }
    }

    /// The memory for a map of `len` bytes. At least `reserve` bytes are taken when the file is
    /// mapped first, for longer maps to come.
    pub(super) fn map(&mut self, len: usize, reserve: usize, for_writing: bool) -> Arc<Memory> {
        let wanted = if self.is_mapped() { len } else { len.max(reserve) };
        if wanted > self.memory.capacity() {
            self.move_memory(wanted);
        }
        self.mapped_for_writing |= for_writing;
        Arc::clone(&self.memory)
    }

    /// Makes the live bytes and the length durable.
    pub(super) fn sync(&mut self) {
        if !self.touched && !self.mapped_for_writing {
            return;
        }
        for (index, sector) in self.dirty_sectors() {
            if let Some(durable) = &mut self.durable {
                durable.set_sector(index, &sector);
            }
            self.synced.set_sector(index, &sector);
        }
        if self.synced.len != self.len
            && let Some(durable) = &mut self.durable
        {
            durable.set_len(self.len);
        }
        self.mark_clean();
    }

    /// A sync that failed.
    pub(super) fn fail_sync(&mut self, manner: FailedSync, rng: &mut Rng) {
        if manner == FailedSync::KeepDirty {
            return;
        }
        let mut durable = self.durable.take().unwrap_or_else(|| self.synced.clone());
        let mut arrives = || manner == FailedSync::DropSome && rng.chance(1, 2);
        for (index, sector) in self.dirty_sectors() {
            if arrives() {
                durable.set_sector(index, &sector);
            }
            self.synced.set_sector(index, &sector);
        }
        if self.synced.len != self.len && arrives() {
            durable.set_len(self.len);
        }
        self.durable = Some(durable);
        self.mark_clean();
    }

    /// Cuts the maps off: they keep the old memory, and the file gets a copy of it.
    pub(super) fn detach_maps(&mut self) {
        self.open = 0;
        self.touched |= self.mapped_for_writing;
        self.mapped_for_writing = false;
        if self.is_mapped() {
            self.memory = Arc::new(self.copy_memory(self.memory.capacity()));
        }
    }

    /// How many questions a power cut would ask about this file at most.
    pub(super) fn pending_choices(&self) -> usize {
        self.dirty_sectors().len() + self.lengths.len()
    }

    /// The power goes: what was not synced stays or goes as `chooser` says. Maps are detached.
    pub(super) fn cut(&mut self, chooser: &mut dyn Chooser) {
        let label = Arc::clone(&self.label);
        if self.touched || self.durable.is_some() {
            let mut durable = self.durable.take().unwrap_or_else(|| self.synced.clone());
            let old_len = durable.len;
            let kept = |to: &&u64| chooser.keep(&Pending::Length { file: &label, to: **to });
            let len = self.lengths.iter().rev().find(kept).copied().unwrap_or(old_len);
            for (index, sector) in self.dirty_sectors() {
                let start = (index * SECTOR_BYTES) as u64;
                if start >= len {
                    break;
                }
                let mut stale = [0; SECTOR_BYTES];
                if chooser.keep(&Pending::Sector { file: &label, index: index as u64 }) {
                    durable.set_sector(index, &sector);
                } else if start >= old_len && chooser.stale(&mut stale) {
                    durable.set_sector(index, &stale);
                }
            }
            durable.set_len(len);
            self.memory = Arc::new(Memory::zeroed(durable.bytes.len()));
            self.memory.copy_in(0, &durable.bytes);
            self.len = len;
            self.allocated = self.allocated.min(len);
            self.synced = durable;
            self.touched = false;
            self.lengths.clear();
        }
    }

    /// Replaces the contents, durably, as if they had always been these.
    pub(super) fn overwrite(&mut self, bytes: &[u8]) {
        self.set_len(0);
        self.durable = None;
        self.write(bytes, 0);
        self.sync();
    }

    /// Flips a bit of the byte at `offset`, in memory and on the device.
    pub(super) fn flip_bit(&mut self, offset: u64, bit: u32) {
        let index = offset as usize;
        let mut byte = [0];
        self.read(offset, &mut byte);
        self.reserve(index + 1);
        self.memory.copy_in(index, &[byte[0] ^ (1 << bit)]);
        for image in std::iter::once(&mut self.synced).chain(&mut self.durable) {
            if offset < image.len {
                let mut sector = image.sector(index / SECTOR_BYTES);
                sector[index % SECTOR_BYTES] ^= 1 << bit;
                image.set_sector(index / SECTOR_BYTES, &sector);
                image.set_len(image.len);
            }
        }
    }

    /// Where a store through a map went that the kernel would not have allowed.
    pub(super) fn stray_store(&self) -> Option<String> {
        if !self.mapped_for_writing {
            return None;
        }
        let mut offset = self.len.min(self.allocated) as usize;
        let mut block = [0; BLOCK_BYTES];
        while offset < self.memory.capacity() {
            let len = BLOCK_BYTES.min(self.memory.capacity() - offset);
            self.memory.copy_out(offset, &mut block[..len]);
            if let Some(place) = block[..len].iter().position(|byte| *byte != 0) {
                return Some(format!(
                    "{}: a store through a map at {} hit no allocated space (length {}, allocated {})",
                    self.label.display(),
                    offset + place,
                    self.len,
                    self.allocated
                ));
            }
            offset += len;
        }
        None
    }

    fn mark_clean(&mut self) {
        self.synced.set_len(self.len);
        self.lengths.clear();
        self.touched = false;
    }

    fn grow(&mut self, end: u64) {
        if end > self.len {
            self.change_len(end);
        }
    }

    fn change_len(&mut self, len: u64) {
        self.len = len;
        self.lengths.push(len);
        self.touched = true;
    }

    fn reserve(&mut self, end: usize) {
        if end > self.memory.capacity() {
            self.move_memory(end.next_power_of_two().max(SECTOR_BYTES));
        }
    }

    fn move_memory(&mut self, capacity: usize) {
        assert!(
            !self.is_mapped(),
            "{}: the simulator cannot grow a file beyond its mapped memory ({} bytes, {} needed): \
             give SimDisk::set_map_reserve a larger number",
            self.label.display(),
            self.memory.capacity(),
            capacity
        );
        self.memory = Arc::new(self.copy_memory(capacity));
    }

    /// The live bytes in new memory. What lies beyond the length is left behind.
    fn copy_memory(&self, capacity: usize) -> Memory {
        let copy = Memory::zeroed(capacity);
        let mut block = [0; BLOCK_BYTES];
        let end = self.memory.capacity().min(capacity).min(self.len as usize);
        for offset in (0..end).step_by(BLOCK_BYTES) {
            let len = BLOCK_BYTES.min(end - offset);
            self.memory.copy_out(offset, &mut block[..len]);
            copy.copy_in(offset, &block[..len]);
        }
        copy
    }

    /// The sectors whose live bytes the kernel knows to write, with those bytes.
    fn dirty_sectors(&self) -> Vec<(usize, [u8; SECTOR_BYTES])> {
        let mut dirty = Vec::new();
        // Stores beyond the end of the file never reach it.
        let end = self.memory.capacity().min(self.len as usize).max(self.synced.bytes.len());
        let mut live = [0; BLOCK_BYTES];
        let mut clean = [0; BLOCK_BYTES];
        for start in (0..end).step_by(BLOCK_BYTES) {
            let len = BLOCK_BYTES.min((self.len as usize).saturating_sub(start));
            self.read(start as u64, &mut live[..len]);
            live[len..].fill(0);
            copy_clipped(&self.synced.bytes, start, &mut clean);
            if live == clean {
                continue;
            }
            let pairs = live.as_chunks::<SECTOR_BYTES>().0.iter().zip(clean.as_chunks().0);
            for (number, (live, clean)) in pairs.enumerate() {
                if live != clean {
                    dirty.push((start / SECTOR_BYTES + number, *live));
                }
            }
        }
        dirty
    }
}

/// Copies from `offset` on as far as there is something, and zeros after that.
fn copy_clipped(from: &[u8], offset: usize, out: &mut [u8]) {
    let start = offset.min(from.len());
    let len = (from.len() - start).min(out.len());
    out[..len].copy_from_slice(&from[start..start + len]);
    out[len..].fill(0);
}
