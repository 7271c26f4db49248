//! `JOURNAL-0` and `JOURNAL-1`: the commit stream, a physical redo log of open segments' bytes.
//!
//! Invariants:
//! - a file begins with one block of 512 bytes that names its turn, and each turn has a fresh salt;
//! - groups follow without gaps, each a multiple of 512 bytes long, numbered without gaps;
//! - a group's checksum covers all of it and starts from the turn's salt and the group's offset, so
//!   what an earlier turn left behind never validates.

pub use crate::fault::Fault;

use crate::bytes::{self, Reader};
use crate::checksum;
use crate::ids::{SegmentId, ShardId, StoreUuid};
use crate::record::ALIGNMENT;
use crate::segment::SEGMENT_LEN_MAX;
use crate::{FORMAT_VERSION, names};

/// The first bytes of a journal.
pub const MAGIC: [u8; 8] = *b"CSKDJRN1";
/// The header's length, and what groups are aligned to.
pub const BLOCK_LEN: usize = 512;
const BLOCK_SHIFT: u32 = BLOCK_LEN.trailing_zeros();
/// The longest group.
pub const GROUP_LEN_MAX: usize = 1 << 30;

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const SALT_AT: usize = VERSION_AT + 4;
const UUID_AT: usize = SALT_AT + 4;
const TURN_AT: usize = UUID_AT + 16;
const ZERO_AT: usize = TURN_AT + 8;
const CRC_AT: usize = BLOCK_LEN - 4;
const _: () = assert!(ZERO_AT == 40);

const GROUP_CRC_AT: usize = 0;
const GROUP_KIND_AT: usize = GROUP_CRC_AT + 4;
const GROUP_TURN_AT: usize = GROUP_KIND_AT + 4;
const GROUP_NUMBER_AT: usize = GROUP_TURN_AT + 8;
const GROUP_RANGES_AT: usize = GROUP_NUMBER_AT + 8;
const GROUP_LEN_AT: usize = GROUP_RANGES_AT + 4;
/// Length of a group's header.
pub const GROUP_HEAD_LEN: usize = GROUP_LEN_AT + 4;
const _: () = assert!(GROUP_HEAD_LEN == 32);

const RANGE_SHARD_AT: usize = 0;
const RANGE_ZERO_AT: usize = RANGE_SHARD_AT + 2;
const RANGE_LEN_AT: usize = RANGE_ZERO_AT + 2;
const RANGE_SEGMENT_AT: usize = RANGE_LEN_AT + 4;
const RANGE_OFFSET_AT: usize = RANGE_SEGMENT_AT + 8;
/// Length of a range's header.
pub const RANGE_HEAD_LEN: usize = RANGE_OFFSET_AT + 8;
const _: () = assert!(RANGE_HEAD_LEN == 24);

/// The one kind of group, `CGRP`.
const GROUP_KIND: [u8; 4] = *b"CGRP";

/// A journal's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The store.
    pub uuid: StoreUuid,
    /// Raised with every reuse of a journal; of two journals the higher turn is the later one.
    pub turn: u64,
    /// What the groups' checksums start from. Drawn at random for every turn.
    pub salt: u32,
}

impl Header {
    /// The file's first block.
    #[must_use]
    pub fn encode(&self) -> [u8; BLOCK_LEN] {
        let mut out = [0; BLOCK_LEN];
        bytes::put(&mut out, MAGIC_AT, &MAGIC);
        bytes::put_u32(&mut out, VERSION_AT, FORMAT_VERSION);
        bytes::put_u32(&mut out, SALT_AT, self.salt);
        bytes::put(&mut out, UUID_AT, &self.uuid.0);
        bytes::put_u64(&mut out, TURN_AT, self.turn);
        let crc = checksum::of(&out[..CRC_AT]);
        bytes::put_u32(&mut out, CRC_AT, crc);
        out
    }

    /// Decodes the block at the start of `file`.
    pub fn decode(file: &[u8]) -> Result<Self, Fault> {
        let b = file.first_chunk::<BLOCK_LEN>().ok_or(Fault::Length)?;
        if bytes::get(b, MAGIC_AT) != MAGIC {
            return Err(Fault::Magic);
        }
        if bytes::get_u32(b, CRC_AT) != checksum::of(&b[..CRC_AT]) {
            return Err(Fault::Checksum);
        }
        let version = bytes::get_u32(b, VERSION_AT);
        if version != FORMAT_VERSION {
            return Err(Fault::Version(version));
        }
        if !bytes::all_zero(&b[ZERO_AT..CRC_AT]) {
            return Err(Fault::Field("reserved"));
        }
        Ok(Self {
            uuid: StoreUuid(bytes::get(b, UUID_AT)),
            turn: bytes::get_u64(b, TURN_AT),
            salt: bytes::get_u32(b, SALT_AT),
        })
    }

    fn seed(&self, offset: u64) -> u32 {
        self.salt ^ (offset >> BLOCK_SHIFT) as u32
    }
}

/// Bytes of an open segment, and their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range<'a> {
    /// The shard.
    pub shard: ShardId,
    /// The segment.
    pub segment: SegmentId,
    /// Where the bytes begin in the segment.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// How much a range of this many bytes adds to a group.
#[must_use]
pub const fn range_len(bytes: usize) -> usize {
    RANGE_HEAD_LEN + bytes.next_multiple_of(ALIGNMENT)
}

/// Builds groups, one after the other, in one buffer.
#[derive(Debug, Default)]
pub struct GroupBuilder {
    out: Vec<u8>,
    ranges: u32,
}

impl GroupBuilder {
    /// A builder with an empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the group has no range yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges == 0
    }

    /// Length of the group as it would be written now.
    #[must_use]
    pub fn group_len(&self) -> usize {
        self.out.len().max(GROUP_HEAD_LEN).next_multiple_of(BLOCK_LEN)
    }

    /// Adds a range to the group.
    ///
    /// # Panics
    /// If the group grows beyond [`GROUP_LEN_MAX`].
    pub fn push(&mut self, range: &Range<'_>) {
        if self.ranges == 0 {
            self.out.clear();
            self.out.resize(GROUP_HEAD_LEN, 0);
        }
        let at = self.out.len();
        let end = at + range_len(range.bytes.len());
        assert!(end <= GROUP_LEN_MAX, "a group keeps to its limit");
        let mut head = [0; RANGE_HEAD_LEN];
        bytes::put_u16(&mut head, RANGE_SHARD_AT, range.shard.0);
        bytes::put_u32(&mut head, RANGE_LEN_AT, range.bytes.len() as u32);
        bytes::put_u64(&mut head, RANGE_SEGMENT_AT, range.segment.0);
        bytes::put_u64(&mut head, RANGE_OFFSET_AT, range.offset);
        self.out.extend_from_slice(&head);
        self.out.extend_from_slice(range.bytes);
        self.out.resize(end, 0);
        self.ranges += 1;
    }

    /// The group's bytes, to be written at `offset` of the journal. The next [`Self::push`] begins
    /// another group.
    ///
    /// # Panics
    /// If the group is empty or the offset is not a group's.
    pub fn finish(&mut self, header: &Header, number: u64, offset: u64) -> &[u8] {
        assert!(self.ranges > 0, "an empty group is not written");
        assert!(
            offset >= BLOCK_LEN as u64 && offset.is_multiple_of(BLOCK_LEN as u64),
            "groups begin at whole blocks behind the header"
        );
        let len = self.group_len();
        self.out.resize(len, 0);
        bytes::put(&mut self.out, GROUP_KIND_AT, &GROUP_KIND);
        bytes::put_u64(&mut self.out, GROUP_TURN_AT, header.turn);
        bytes::put_u64(&mut self.out, GROUP_NUMBER_AT, number);
        bytes::put_u32(&mut self.out, GROUP_RANGES_AT, self.ranges);
        bytes::put_u32(&mut self.out, GROUP_LEN_AT, len as u32);
        let crc = checksum::extend(header.seed(offset), &self.out[GROUP_KIND_AT..]);
        bytes::put_u32(&mut self.out, GROUP_CRC_AT, crc);
        self.ranges = 0;
        &self.out
    }
}

/// A valid group.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// Where it begins in the journal.
    pub offset: u64,
    /// Its number within the turn.
    pub number: u64,
    /// Number of its ranges.
    pub ranges: u32,
    body: &'a [u8],
}

impl<'a> Group<'a> {
    fn decode(file: &'a [u8], header: &Header, offset: u64) -> Option<(Self, usize)> {
        let rest = file.get(usize::try_from(offset).ok()?..)?;
        let head = rest.first_chunk::<GROUP_HEAD_LEN>()?;
        let len = bytes::get_u32(head, GROUP_LEN_AT) as usize;
        let is_plausible = bytes::get(head, GROUP_KIND_AT) == GROUP_KIND
            && bytes::get_u64(head, GROUP_TURN_AT) == header.turn
            && (BLOCK_LEN..=GROUP_LEN_MAX).contains(&len)
            && len.is_multiple_of(BLOCK_LEN);
        if !is_plausible {
            return None;
        }
        let bytes = rest.get(..len)?;
        let crc = checksum::extend(header.seed(offset), &bytes[GROUP_KIND_AT..]);
        if bytes::get_u32(head, GROUP_CRC_AT) != crc {
            return None;
        }
        let group = Self {
            offset,
            number: bytes::get_u64(head, GROUP_NUMBER_AT),
            ranges: bytes::get_u32(head, GROUP_RANGES_AT),
            body: &bytes[GROUP_HEAD_LEN..],
        };
        group.adds_up().then_some((group, len))
    }

    /// Whether all ranges are there, and nothing but zeros behind them.
    fn adds_up(&self) -> bool {
        let mut ranges = self.ranges();
        let found = ranges.by_ref().map(|_| 1_u64).sum::<u64>();
        let rest = ranges.reader.rest();
        self.ranges > 0
            && found == u64::from(self.ranges)
            && rest.len() < BLOCK_LEN
            && bytes::all_zero(rest)
    }

    /// The group's ranges, in the order they were pushed.
    #[must_use]
    pub fn ranges(&self) -> Ranges<'a> {
        Ranges { reader: Reader::new(self.body), left: self.ranges }
    }
}

/// Iterates over a group's ranges.
#[derive(Debug, Clone)]
pub struct Ranges<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> Ranges<'a> {
    fn read(&mut self) -> Option<Range<'a>> {
        let head: &[u8; RANGE_HEAD_LEN] = self.reader.array()?;
        let len = bytes::get_u32(head, RANGE_LEN_AT) as usize;
        let padded = self.reader.take(len.next_multiple_of(ALIGNMENT))?;
        let (bytes, padding) = padded.split_at(len);
        let range = Range {
            shard: ShardId(bytes::get_u16(head, RANGE_SHARD_AT)),
            segment: SegmentId(bytes::get_u64(head, RANGE_SEGMENT_AT)),
            offset: bytes::get_u64(head, RANGE_OFFSET_AT),
            bytes,
        };
        let end = range.offset.checked_add(len as u64);
        let is_possible = range.shard.0 < names::SHARDS_MAX
            && end.is_some_and(|end| end <= SEGMENT_LEN_MAX)
            && bytes::all_zero(&head[RANGE_ZERO_AT..RANGE_LEN_AT])
            && bytes::all_zero(padding);
        is_possible.then_some(range)
    }
}

impl<'a> Iterator for Ranges<'a> {
    type Item = Range<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.read()
    }
}

/// Walks a journal's groups up to the first invalid one.
#[derive(Debug, Clone)]
pub struct Groups<'a> {
    file: &'a [u8],
    header: Header,
    offset: u64,
    next_number: Option<u64>,
    ended: bool,
}

impl<'a> Groups<'a> {
    /// Walks `file`, whose header was decoded already.
    #[must_use]
    pub fn new(file: &'a [u8], header: Header) -> Self {
        Self { file, header, offset: BLOCK_LEN as u64, next_number: None, ended: false }
    }

    /// Where the next group begins.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl<'a> Iterator for Groups<'a> {
    type Item = Group<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let found = Group::decode(self.file, &self.header, self.offset)
            .filter(|(group, _)| self.next_number.is_none_or(|number| number == group.number));
        let Some((group, len)) = found else {
            self.ended = true;
            return None;
        };
        self.offset += len as u64;
        self.next_number = Some(group.number.wrapping_add(1));
        Some(group)
    }
}

impl std::iter::FusedIterator for Groups<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { uuid: StoreUuid([5; 16]), turn: 12, salt: 0xFEED_F00D };

    fn range(segment: u64, bytes: &[u8]) -> Range<'_> {
        Range { shard: ShardId(1), segment: SegmentId(segment), offset: 64, bytes }
    }

    fn append(file: &mut Vec<u8>, header: &Header, number: u64, ranges: &[Range<'_>]) {
        let mut builder = GroupBuilder::new();
        for range in ranges {
            builder.push(range);
        }
        let group = builder.finish(header, number, file.len() as u64);
        file.extend_from_slice(group);
    }

    fn numbers(file: &[u8], header: Header) -> Vec<u64> {
        Groups::new(file, header).map(|group| group.number).collect()
    }

    #[test]
    fn groups_round_trip() {
        let long = vec![7; 1000];
        let ranges = [range(3, b"odd"), range(4, &long), range(5, b"")];
        let mut file = HEADER.encode().to_vec();
        append(&mut file, &HEADER, 0, &ranges);
        append(&mut file, &HEADER, 1, &ranges[..1]);
        file.resize(file.len() + 4096, 0);
        assert_eq!(Header::decode(&file), Ok(HEADER));
        let groups: Vec<_> = Groups::new(&file, HEADER).collect();
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].ranges().collect::<Vec<_>>(), ranges);
        assert_eq!(groups[1].ranges().collect::<Vec<_>>(), ranges[..1]);
        assert_eq!((groups[0].offset, groups[1].offset), (512, 512 + 1536));
    }

    #[test]
    fn the_walk_ends_at_what_does_not_belong() {
        let ranges = [range(3, b"bytes")];
        let mut file = HEADER.encode().to_vec();
        append(&mut file, &HEADER, 7, &ranges);
        let one = file.clone();
        append(&mut file, &HEADER, 8, &ranges);
        assert_eq!(numbers(&file, HEADER), [7, 8]);

        let mut gap = one.clone();
        append(&mut gap, &HEADER, 9, &ranges);
        assert_eq!(numbers(&gap, HEADER), [7], "a number was skipped");
        let mut repeated = one.clone();
        repeated.extend_from_slice(&one[512..]);
        assert_eq!(numbers(&repeated, HEADER), [7], "a copy of the first group");
        for stale in [Header { turn: 11, ..HEADER }, Header { salt: 1, ..HEADER }] {
            let mut file = one.clone();
            append(&mut file, &stale, 8, &ranges);
            assert_eq!(numbers(&file, HEADER), [7], "an earlier turn's group");
        }
    }
}
