//! A segment file in memory: bytes that never change once they are published.
//!
//! Invariants:
//! - `[0, readable)` of the file exists, is mapped and may be touched. It only grows while the
//!   segment is the active one, and is cut to the segment's length when it is sealed.
//! - Bytes are written by the segment's only [`Tail`], before the frame's location is published.
//!   Published bytes are immutable.
//! - So a slice of a published frame is valid for as long as the [`Segment`] lives.

use std::fmt::Display;
use std::path::PathBuf;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caskade_codec::ids::{SegmentId, ShardId};
use caskade_codec::record::{self, HEADER_LEN, Header, HeaderFault};
use caskade_codec::segment::{self, Role};

use crate::error::{At, Error, Result};
use crate::extension::Room;
use crate::keydir::prefetch::{prefetch_lines, prefetch_read, prefetch_to_write};
use crate::location::Location;
use crate::storage::{Advice, File, Map};

/// A mapped segment file.
#[derive(Debug)]
pub struct Segment {
    // Constant after construction.
    /// The shard it belongs to.
    pub shard: ShardId,
    /// Its id.
    pub id: SegmentId,
    /// Its place in the shard's segment table.
    pub slot: u32,
    /// Part of the log, or output of a merge.
    pub role: Role,
    /// What its records' checksums start from.
    pub salt: u32,
    /// Its file.
    pub path: PathBuf,
    map: Map,
    // Atomics.
    readable: AtomicU64,
    /// Counts for the merge policy.
    pub usage: Usage,
}

/// How much of a segment is still needed. Changed under the shard's writer lock only, and apart from
/// what readers need of a segment.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Usage {
    /// Bytes of the records that the keydir points to.
    pub live_bytes: AtomicU64,
    /// Number of those records.
    pub live_records: AtomicU64,
}

impl Usage {
    /// A record of `len` bytes came to life.
    #[inline]
    pub fn add(&self, len: u64) {
        // One writer at a time, so that load and store need not be one step.
        self.live_bytes.store(self.live_bytes.load(Ordering::Relaxed) + len, Ordering::Relaxed);
        self.live_records.store(self.live_records.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// A record of `len` bytes died. A keydir snapshot may have said that fewer lived.
    #[inline]
    pub fn remove(&self, len: u64) {
        let bytes = self.live_bytes.load(Ordering::Relaxed);
        self.live_bytes.store(bytes.saturating_sub(len), Ordering::Relaxed);
        let records = self.live_records.load(Ordering::Relaxed);
        self.live_records.store(records.saturating_sub(1), Ordering::Relaxed);
    }

    /// Sets both counts, while the segment is being loaded.
    pub fn set(&self, live_bytes: u64, live_records: u64) {
        self.live_bytes.store(live_bytes, Ordering::Relaxed);
        self.live_records.store(live_records, Ordering::Relaxed);
    }

    /// Live bytes and live records.
    pub fn get(&self) -> (u64, u64) {
        (self.live_bytes.load(Ordering::Relaxed), self.live_records.load(Ordering::Relaxed))
    }
}

/// A frame in a segment whose header made sense; its checksum is not yet verified.
#[derive(Debug, Clone, Copy)]
pub struct FrameRef<'a> {
    /// The decoded header; without the mark of a batch's record, where [`Segment::plain_put`] found it.
    pub header: Header,
    /// The whole frame.
    pub bytes: &'a [u8],
    seed: u32,
}

impl<'a> FrameRef<'a> {
    /// The stored key.
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        &self.bytes[self.header.key_range()]
    }

    /// The stored value.
    #[inline]
    pub fn value(&self) -> &'a [u8] {
        &self.bytes[self.header.value_range()]
    }

    /// When the record expires, in milliseconds since 1970.
    #[inline]
    pub fn expiry(&self) -> Option<u64> {
        self.header.expiry(self.bytes)
    }

    /// Whether the record is past its expiry at `now`.
    #[inline]
    pub fn is_expired(&self, now: impl FnOnce() -> u64) -> bool {
        self.expiry().is_some_and(|at| at <= now())
    }

    /// Whether the bytes match their checksum, for an answer of [`Segment::put_of`].
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
    pub fn is_intact_put(&self) -> bool {
        record::put_is_intact(self.bytes, &self.header, self.seed) || planted!("checksum-unchecked")
    }

    /// Whether the bytes match their checksum.
    #[inline]
    pub fn is_intact(&self) -> bool {
        record::frame_is_intact(self.bytes, &self.header, self.seed)
            || planted!("checksum-unchecked")
    }
}

/// What a segment is made from.
#[derive(Debug)]
pub struct Identity {
    /// The shard.
    pub shard: ShardId,
    /// The segment's id.
    pub id: SegmentId,
    /// Its place in the segment table.
    pub slot: u32,
    /// Log or merged.
    pub role: Role,
    /// Start value of its checksums.
    pub salt: u32,
    /// Its file.
    pub path: PathBuf,
}

impl Segment {
    /// A segment over `map`, of which the first `readable` bytes exist.
    pub fn new(identity: Identity, map: Map, readable: u64) -> Self {
        assert!(readable <= map.len(), "a segment is mapped whole");
        let Identity { shard, id, slot, role, salt, path } = identity;
        let usage = Usage::default();
        Self { shard, id, slot, role, salt, path, map, readable: readable.into(), usage }
    }

    /// Bytes of the file that may be read.
    #[inline]
    pub fn readable(&self) -> u64 {
        self.readable.load(Ordering::Acquire)
    }

    /// Cuts what may be read, before the file itself is cut.
    pub fn shrink_readable(&self, len: u64) {
        self.readable.fetch_min(len, Ordering::AcqRel);
    }

    /// The first `len` bytes of the file.
    ///
    /// The caller asks only for bytes that were published, or that nobody writes any more.
    pub fn published(&self, len: u64) -> &[u8] {
        let len = len.min(self.readable());
        // SAFETY: the range is inside `readable`, so it exists and is mapped, and published bytes
        // never change (module invariants).
        unsafe { self.map.bytes(0, len as usize) }
    }

    /// The frame at `offset`.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
    pub fn frame(&self, offset: u64) -> std::result::Result<FrameRef<'_>, HeaderFault> {
        let room = self.readable().checked_sub(offset).ok_or(HeaderFault::Empty)?;
        if room < HEADER_LEN as u64 {
            return Err(HeaderFault::Empty);
        }
        // SAFETY: the range is inside `readable`; a location is published after its frame's bytes.
        let head = unsafe { self.map.bytes(offset, HEADER_LEN) };
        let head: &[u8; HEADER_LEN] = head.try_into().expect("asked for this many bytes");
        let header = Header::decode(head)?;
        let len = header.frame_len();
        if len as u64 > room {
            return Err(HeaderFault::Shape);
        }
        // SAFETY: the range is inside `readable`, and the bytes of a frame whose location is known are
        // written no more. Only a header that was damaged after it was written, in a segment that still
        // grows, makes the slice reach what the writer is filling: that is left to the checksum.
        let bytes = unsafe { self.map.bytes(offset, len) };
        Ok(FrameRef { header, bytes, seed: record::seed(self.salt, offset) })
    }

    /// The frame at `offset`, if it is a put of `key`. Its checksum is not looked at.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
    pub fn put_of(&self, offset: u64, key: &[u8]) -> Option<FrameRef<'_>> {
        let room = self.readable().checked_sub(offset)?;
        if room < HEADER_LEN as u64 {
            return None;
        }
        // SAFETY: the range is inside `readable`, which is inside the map; a location is published
        // after its frame's bytes.
        let start = unsafe { self.map.as_ptr().add(offset as usize) };
        // SAFETY: as above.
        let head = unsafe { &*start.cast::<[u8; HEADER_LEN]>() };
        let header = Header::of_put(head, key.len())?;
        let len = header.frame_len();
        if len as u64 > room {
            return None;
        }
        // SAFETY: the range is inside `readable`, and the bytes of a frame whose location is known are
        // written no more. Only a header that was damaged after it was written, in a segment that still
        // grows, makes the slice reach what the writer is filling: that is left to the checksum.
        let bytes = unsafe { slice::from_raw_parts(start, len) };
        let frame = FrameRef { header, bytes, seed: record::seed(self.salt, offset) };
        record::frame_has_key(bytes, &header, key).then_some(frame)
    }

    /// The frame at `location`, if the location says its length and it is an intact put of `key`
    /// without flags: the most frequent answer, in the fewest steps that can wait for memory. Nothing
    /// else follows from a no.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the read path is one function: results stay in registers"
    )]
    pub fn plain_put(&self, location: Location, key: &[u8]) -> Option<FrameRef<'_>> {
        let (offset, len) = (location.offset(), location.short_len()?);
        if self.readable().checked_sub(offset)? < len as u64 {
            return None;
        }
        if planted!("checksum-unchecked") {
            return self.put_of(offset, key);
        }
        // SAFETY: the range is inside `readable`, which is inside the map; a location is published
        // after its frame's bytes. In a segment that still grows it came from the frame itself, and so
        // names no byte behind it; sizes that a file says are of segments that nobody writes to.
        let bytes = unsafe { slice::from_raw_parts(self.map.as_ptr().add(offset as usize), len) };
        let seed = record::seed(self.salt, offset);
        let header = record::plain_put(bytes, seed, key)?;
        Some(FrameRef { header, bytes, seed })
    }

    /// Asks for the cache lines of the frame at `location`.
    #[inline]
    pub fn prefetch(&self, location: Location) {
        const FEW: usize = 3;
        const LINES_MAX: usize = 12;
        const LINES_AT_PAGE: usize = 4;
        let start = self.map.as_ptr().wrapping_add(location.offset() as usize);
        // No line that a short frame does not have: each takes a place in the processor's queue.
        let last = location.short_len().map_or(FEW * 64, |len| len.saturating_sub(1).min(FEW * 64));
        for line in 0..=FEW {
            prefetch_read(start.wrapping_add((line * 64).min(last)));
        }
        if location.short_len().is_none_or(|len| len > FEW * 64) {
            let lines = location.len_about().div_ceil(64);
            let rest = start.wrapping_add((FEW + 1) * 64);
            prefetch_lines(rest, lines.min(LINES_MAX) - FEW);
            // The processor runs ahead by itself, but not over the end of a page.
            for page in (64..lines).step_by(64) {
                let begin = start.wrapping_add(page * 64).map_addr(|address| address & !4095);
                prefetch_lines(begin, LINES_AT_PAGE);
            }
        }
    }

    /// Tells the kernel what gets from this segment are like. A record that fits in a page or two is
    /// read with no more than that, for reading ahead would push others' pages out; a longer one comes
    /// in a piece.
    pub fn expect_gets(&self, bytes: u64, records: u64) {
        let is_short = bytes / records.max(1) <= SHORT_RECORD;
        self.map.advise(if is_short { Advice::Random } else { Advice::Normal });
    }

    /// A reader from the beginning on.
    pub fn in_order(&self) -> InOrder<'_> {
        InOrder { map: &self.map, asked: 0 }
    }

    /// The error for damage at `offset`.
    pub fn corrupt(&self, offset: u64, reason: impl Display) -> Error {
        Error::Corrupt { shard: self.shard, segment: self.id, offset, reason: reason.to_string() }
    }

    /// The map, for advice to the kernel.
    pub fn map(&self) -> &Map {
        &self.map
    }
}

/// Up to this length, the records of a segment are short on average.
const SHORT_RECORD: u64 = 8 << 10;

/// A way through a segment of which the kernel is told a stretch ahead.
#[derive(Debug)]
pub struct InOrder<'a> {
    map: &'a Map,
    asked: u64,
}

impl InOrder<'_> {
    const STRETCH: u64 = 1 << 20;

    /// The reader is at `offset`.
    #[inline]
    pub fn reach(&mut self, offset: u64) {
        while offset + Self::STRETCH > self.asked {
            self.map.will_need(self.asked, Self::STRETCH);
            self.asked += Self::STRETCH;
        }
    }
}

/// Cache lines behind the last record that are asked for, for the next one.
const LINES_AHEAD: usize = 4;

/// How frames reach the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Stored through the mapping, into space that was allocated before.
    Mapped,
    /// Written by system call, where the file system cannot allocate ahead.
    Written,
}

/// The end of a growing segment: the only place that writes to it.
#[derive(Debug)]
pub struct Tail {
    segment: Arc<Segment>,
    file: Arc<dyn File>,
    mode: Mode,
    position: u64,
    allocated: u64,
    capacity: u64,
    chunk: u64,
    /// Kept free for tombstones, so that a full disk can still be emptied.
    headroom: u64,
    scratch: Vec<u8>,
    /// A write failed and could not be taken back.
    is_unsure: bool,
}

/// Sizes of a new segment.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// The longest that the file may get.
    pub capacity: u64,
    /// By how much the allocated part grows at a time.
    pub chunk: u64,
    /// What is kept free for tombstones.
    pub headroom: u64,
}

impl Tail {
    /// Makes the empty file `file` a segment and answers its writing end.
    pub fn create(
        file: Arc<dyn File>,
        header: &segment::Header,
        slot: u32,
        path: PathBuf,
        sizes: Sizes,
    ) -> Result<Self> {
        let Sizes { capacity, chunk, headroom } = sizes;
        let (first, least) = (chunk.min(capacity), capacity.min(4096));
        let allocated = match file.allocate_ahead(0, first) {
            Err(fault) if fault.kind() == std::io::ErrorKind::StorageFull && least < first => {
                file.allocate_ahead(0, least).map(|()| least)
            }
            answer => answer.map(|()| first),
        };
        let (mode, allocated) = match allocated {
            Ok(allocated) => (Mode::Mapped, allocated),
            Err(fault) if fault.kind() == std::io::ErrorKind::Unsupported => {
                (Mode::Written, segment::HEADER_LEN as u64)
            }
            Err(fault) => return Err(Error::io("allocate", &path, fault)),
        };
        file.write_all_at(&header.encode(), 0).at("write", &path)?;
        let map_mode = match mode {
            Mode::Mapped => crate::storage::MapMode::Write,
            Mode::Written => crate::storage::MapMode::Read,
        };
        let map = file.map(capacity, map_mode).at("map", &path)?;
        let identity = Identity {
            shard: header.shard,
            id: header.id,
            slot,
            role: header.role,
            salt: header.salt,
            path,
        };
        map.advise(Advice::Random);
        let segment = Arc::new(Segment::new(identity, map, allocated));
        let position = segment::HEADER_LEN as u64;
        let scratch = Vec::new();
        Ok(Self {
            segment,
            file,
            mode,
            position,
            allocated,
            capacity,
            chunk,
            headroom,
            scratch,
            is_unsure: false,
        })
    }

    /// The segment being written.
    #[inline]
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Its file.
    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// Where the next frame goes.
    #[inline]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the file that are allocated.
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Whether `len` more bytes fit below the capacity, leaving the headroom when `spare` is set.
    pub fn fits(&self, len: u64, spare: bool) -> bool {
        self.end_with(len, spare) <= self.capacity
    }

    /// Whether frames are written by system call.
    pub fn is_written(&self) -> bool {
        self.mode == Mode::Written
    }

    /// Whether `len` more bytes reach into another of the stretches of this length.
    pub fn crosses(&self, len: u64, stretch: u64) -> bool {
        self.position / stretch != (self.position + len) / stretch
    }

    /// Whether a frame of `len` bytes can be stored without asking the file system for anything.
    #[inline]
    pub fn is_ready(&self, len: u64, spare: bool) -> bool {
        self.mode == Mode::Mapped && self.end_with(len, spare) <= self.allocated
    }

    /// Where `len` more bytes end, and the headroom behind them when `spare` is set.
    #[inline]
    fn end_with(&self, len: u64, spare: bool) -> u64 {
        self.position + len + if spare { self.headroom } else { 0 }
    }

    /// Allocates until `len` more bytes have a place. Call only when they fit the capacity.
    pub fn make_ready(&mut self, len: u64, spare: bool) -> Result<()> {
        debug_assert!(self.fits(len, spare), "the caller rotates first");
        if self.mode == Mode::Written || self.is_ready(len, spare) {
            return Ok(());
        }
        let wanted = self.end_with(len, spare);
        let grown = wanted.max(self.allocated + self.chunk).min(self.capacity);
        let grow_to = |to: u64| self.file.allocate_ahead(self.allocated, to - self.allocated);
        let reached = match grow_to(grown) {
            // A nearly full disk may still have room for less than a whole chunk.
            Err(_) if wanted < grown => grow_to(wanted).map(|()| wanted),
            _ if planted!("space-unchecked") => Ok(grown),
            answer => answer.map(|()| grown),
        };
        let reached = reached.at("allocate", &self.segment.path)?;
        // One call instead of a page fault for every few records.
        self.segment.map.populate_write(self.allocated, reached - self.allocated);
        self.take_over(reached);
        Ok(())
    }

    /// The file is allocated up to `to` now.
    pub(crate) fn take_over(&mut self, to: u64) {
        debug_assert!(to >= self.allocated && to <= self.capacity, "room only grows");
        self.allocated = to;
        self.segment.readable.store(to, Ordering::Release);
    }

    /// What should be allocated next, if anything.
    pub(crate) fn next_room(&self) -> Option<Room> {
        let (from, to) = (self.allocated, (self.allocated + self.chunk).min(self.capacity));
        (self.mode == Mode::Mapped && from < to).then(|| Room {
            segment: Arc::clone(&self.segment),
            file: Arc::clone(&self.file),
            from,
            to,
        })
    }

    /// Stores `len` bytes that `fill` produces from their offset, and answers that offset.
    ///
    /// Nobody sees them until their location is published. On failure nothing is kept.
    #[inline]
    pub fn write(&mut self, len: usize, fill: impl FnOnce(u64, &mut [u8])) -> Result<u64> {
        let offset = self.position;
        match self.mode {
            Mode::Mapped => {
                assert!(offset + len as u64 <= self.allocated, "room was made before");
                // SAFETY: the range is allocated and mapped for writing. It lies behind every
                // published frame, and `&mut self` is the only writer of this segment.
                fill(offset, unsafe { self.segment.map.bytes_mut(offset, len) });
                // The next record is stored where nobody looked for long.
                let next = self.segment.map.as_ptr().wrapping_add(offset as usize + len);
                prefetch_to_write(next, LINES_AHEAD);
            }
            Mode::Written => self.write_by_call(offset, len, fill)?,
        }
        self.position += len as u64;
        Ok(offset)
    }

    #[cold]
    fn write_by_call(
        &mut self,
        offset: u64,
        len: usize,
        fill: impl FnOnce(u64, &mut [u8]),
    ) -> Result<()> {
        self.scratch.clear();
        self.scratch.resize(len, 0);
        fill(offset, &mut self.scratch);
        let outcome = self.file.write_all_at(&self.scratch, offset);
        self.scratch.shrink_to(1 << 16);
        if let Err(fault) = outcome {
            if planted!("failed-write-stays") {
                return Err(Error::io("write", &self.segment.path, fault));
            }
            // A part of the frame may stand there, or all of it: it must not come back.
            self.is_unsure = self.file.set_len(offset).is_err();
            return Err(Error::io("write", &self.segment.path, fault));
        }
        self.allocated = offset + len as u64;
        self.segment.readable.store(self.allocated, Ordering::Release);
        Ok(())
    }

    /// Whether a frame may stand in the file whose write failed.
    pub fn is_unsure(&self) -> bool {
        self.is_unsure
    }

    /// Takes back everything from `position` on, which was never published.
    pub fn rewind(&mut self, position: u64) -> Result<()> {
        assert!(position <= self.position, "only backwards");
        match self.mode {
            Mode::Mapped => {
                let len = (self.position - position) as usize;
                // SAFETY: as in `write`; these bytes were written by this tail and not published.
                unsafe { self.segment.map.bytes_mut(position, len) }.fill(0);
            }
            Mode::Written => {
                self.segment.shrink_readable(position);
                self.allocated = position;
                self.file.set_len(position).at("truncate", &self.segment.path)?;
            }
        }
        self.position = position;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::life::Life;

    /// A segment with one put of `k`, whose frame has this length.
    fn with_frame_of(len: usize) -> Arc<Segment> {
        let mut life = Life::with_segments_of(1 << 16);
        life.put("k", &"v".repeat(len - HEADER_LEN - 1));
        let segments = life.shard().segments.all();
        segments.into_iter().find(|segment| segment.frame(FIRST).is_ok()).expect("it was put there")
    }

    const FIRST: u64 = caskade_codec::segment::HEADER_LEN as u64;

    fn first_of_class(segment: &Segment, class: u64) -> Location {
        let raw = u64::from(segment.slot) << 40 | class << 32 | (FIRST / 8);
        Location::from_raw(raw).expect("a slot is not 0")
    }

    #[test]
    fn a_plain_put_is_seen_where_its_location_says_its_length() {
        for len in [24, 144, 1520, 1528, 1536, 5000] {
            let segment = with_frame_of(len);
            for class in 0..256 {
                let location = first_of_class(&segment, class);
                let found = segment.plain_put(location, b"k").map(|frame| frame.bytes.len());
                let is_its_own = location.short_len() == Some(len);
                assert_eq!(found, is_its_own.then_some(len), "{len} as {class}");
                assert_eq!(segment.plain_put(location, b"l").map(|_| ()), None);
                // Whatever the location says of the length.
                assert_eq!(
                    segment.put_of(location.offset(), b"k").map(|f| f.bytes.len()),
                    Some(len)
                );
            }
        }
    }

    #[test]
    fn nothing_is_seen_beyond_what_may_be_read() {
        let segment = with_frame_of(144);
        let location = first_of_class(&segment, 144 / 8);
        assert!(segment.plain_put(location, b"k").is_some());
        for cut in [8, 120, 144] {
            segment.shrink_readable(FIRST + 144 - cut);
            assert!(segment.plain_put(location, b"k").is_none());
            assert!(segment.put_of(FIRST, b"k").is_none());
            assert!(segment.frame(FIRST).is_err());
        }
    }
}
