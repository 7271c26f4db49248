//! `KEYDIR`: a shard's keydir, as of one position in its log.
//!
//! Invariants:
//! - the header's table names every segment that a location may point into, by slot;
//! - leaves are sorted by their first hash, and each entry's hash lies in its leaf's range;
//! - header and leaves are checksummed apart, and a leaf's checksum starts from its index, so leaves
//!   cannot trade places.
//!
//! A leaf stores its entries in columns, each as narrow as its values allow: a snapshot and the
//! hints together have a budget of 15 bytes a key.

pub use crate::fault::Fault;

use crate::bytes;
use crate::checksum;
use crate::ids::{SegmentId, Seqno, ShardId, StoreUuid};
use crate::{FORMAT_VERSION, names};

/// The first bytes of a keydir snapshot.
pub const MAGIC: [u8; 8] = *b"CSKDKDR1";

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const SHARD_AT: usize = VERSION_AT + 4;
const ZERO_AT: usize = SHARD_AT + 2;
const UUID_AT: usize = ZERO_AT + 2;
const KEYS_AT: usize = UUID_AT + 16;
const SEQNO_AT: usize = KEYS_AT + 8;
const POSITION_SEGMENT_AT: usize = SEQNO_AT + 8;
const POSITION_OFFSET_AT: usize = POSITION_SEGMENT_AT + 8;
const SEGMENTS_AT: usize = POSITION_OFFSET_AT + 8;
const LEAVES_AT: usize = SEGMENTS_AT + 4;
const HEAD_LEN: usize = LEAVES_AT + 4;
const _: () = assert!(HEAD_LEN == 72);

const SLOT_AT: usize = 0;
const ID_AT: usize = SLOT_AT + 4;
const LEN_AT: usize = ID_AT + 8;
const LIVE_BYTES_AT: usize = LEN_AT + 8;
const LIVE_RECORDS_AT: usize = LIVE_BYTES_AT + 8;
const SEGMENT_LEN: usize = LIVE_RECORDS_AT + 8;
const _: () = assert!(SEGMENT_LEN == 36);

const CRC_LEN: usize = 4;

const LEAF_CRC_AT: usize = 0;
const LEAF_COUNT_AT: usize = LEAF_CRC_AT + 4;
const LEAF_FIRST_HASH_AT: usize = LEAF_COUNT_AT + 4;
const LEAF_WIDTHS_AT: usize = LEAF_FIRST_HASH_AT + 4;
const LEAF_HEAD_LEN: usize = LEAF_WIDTHS_AT + 4;
const _: () = assert!(LEAF_HEAD_LEN == 16);

/// A location's low half: the offset in units of 8.
const UNITS_MASK: u64 = u32::MAX as u64;
/// Above it: the size class.
const CLASS_SHIFT: u32 = 32;
/// Above that: the slot.
const SLOT_SHIFT: u32 = CLASS_SHIFT + 8;
/// Slots are 1 to this.
pub const SLOT_MAX: u32 = (1 << (u64::BITS - SLOT_SHIFT)) - 1;

/// A place in a shard's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The segment.
    pub segment: SegmentId,
    /// The offset in it.
    pub offset: u64,
}

/// One segment that locations point into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The number that stands for it in locations, from 1.
    pub slot: u32,
    /// Its id.
    pub id: SegmentId,
    /// How much of it the snapshot covers.
    pub len: u64,
    /// Length of the frames that the keydir points to.
    pub live_bytes: u64,
    /// Number of those frames.
    pub live_records: u64,
}

/// A snapshot's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The store.
    pub uuid: StoreUuid,
    /// The shard.
    pub shard: ShardId,
    /// Number of keys.
    pub keys: u64,
    /// Every frame up to this seqno is covered, none above.
    pub seqno: Seqno,
    /// Where the log goes on.
    pub position: Position,
    /// Number of leaves.
    pub leaves: u32,
    /// The segments, sorted by slot.
    pub segments: Vec<Segment>,
}

impl Header {
    /// The file's first bytes; the leaves follow directly.
    ///
    /// # Panics
    /// If slots are out of order or out of range.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.check().expect("a snapshot's header is valid before it is written");
        let table_end = HEAD_LEN + self.segments.len() * SEGMENT_LEN;
        let mut out = vec![0; table_end + CRC_LEN];
        let (head, table) = out.split_at_mut(HEAD_LEN);
        bytes::put(head, MAGIC_AT, &MAGIC);
        bytes::put_u32(head, VERSION_AT, FORMAT_VERSION);
        bytes::put_u16(head, SHARD_AT, self.shard.0);
        bytes::put(head, UUID_AT, &self.uuid.0);
        bytes::put_u64(head, KEYS_AT, self.keys);
        bytes::put_u64(head, SEQNO_AT, self.seqno.0);
        bytes::put_u64(head, POSITION_SEGMENT_AT, self.position.segment.0);
        bytes::put_u64(head, POSITION_OFFSET_AT, self.position.offset);
        bytes::put_u32(head, SEGMENTS_AT, self.segments.len() as u32);
        bytes::put_u32(head, LEAVES_AT, self.leaves);
        for (row, segment) in table.chunks_exact_mut(SEGMENT_LEN).zip(&self.segments) {
            bytes::put_u32(row, SLOT_AT, segment.slot);
            bytes::put_u64(row, ID_AT, segment.id.0);
            bytes::put_u64(row, LEN_AT, segment.len);
            bytes::put_u64(row, LIVE_BYTES_AT, segment.live_bytes);
            bytes::put_u64(row, LIVE_RECORDS_AT, segment.live_records);
        }
        let crc = checksum::of(&out[..table_end]);
        bytes::put_u32(&mut out, table_end, crc);
        out
    }

    /// Decodes the header at the start of `file`; answers what follows it, too.
    fn decode(file: &[u8]) -> Result<(Self, &[u8]), Fault> {
        let head = file.first_chunk::<HEAD_LEN>().ok_or(Fault::Length)?;
        if bytes::get(head, MAGIC_AT) != MAGIC {
            return Err(Fault::Magic);
        }
        let segments = bytes::get_u32(head, SEGMENTS_AT) as usize;
        let table_end = HEAD_LEN + segments * SEGMENT_LEN;
        let header_len = table_end + CRC_LEN;
        let (header, leaves) = file.split_at_checked(header_len).ok_or(Fault::Length)?;
        if bytes::get_u32(header, table_end) != checksum::of(&header[..table_end]) {
            return Err(Fault::Checksum);
        }
        let version = bytes::get_u32(head, VERSION_AT);
        if version != FORMAT_VERSION {
            return Err(Fault::Version(version));
        }
        if !bytes::all_zero(&head[ZERO_AT..UUID_AT]) {
            return Err(Fault::Field("reserved"));
        }
        let rows = header[HEAD_LEN..table_end].chunks_exact(SEGMENT_LEN);
        let header = Self {
            uuid: StoreUuid(bytes::get(head, UUID_AT)),
            shard: ShardId(bytes::get_u16(head, SHARD_AT)),
            keys: bytes::get_u64(head, KEYS_AT),
            seqno: Seqno(bytes::get_u64(head, SEQNO_AT)),
            position: Position {
                segment: SegmentId(bytes::get_u64(head, POSITION_SEGMENT_AT)),
                offset: bytes::get_u64(head, POSITION_OFFSET_AT),
            },
            leaves: bytes::get_u32(head, LEAVES_AT),
            segments: rows.map(Segment::decode).collect(),
        };
        header.check()?;
        Ok((header, leaves))
    }

    fn check(&self) -> Result<(), Fault> {
        if self.shard.0 >= names::SHARDS_MAX {
            return Err(Fault::Field("shard"));
        }
        if self.seqno > Seqno::MAX {
            return Err(Fault::Field("seqno"));
        }
        let slots_are_possible = self.segments.iter().all(|s| (1..=SLOT_MAX).contains(&s.slot));
        if slots_are_possible && self.segments.is_sorted_by(|a, b| a.slot < b.slot) {
            Ok(())
        } else {
            Err(Fault::Field("slots"))
        }
    }
}

impl Segment {
    fn decode(row: &[u8]) -> Self {
        Self {
            slot: bytes::get_u32(row, SLOT_AT),
            id: SegmentId(bytes::get_u64(row, ID_AT)),
            len: bytes::get_u64(row, LEN_AT),
            live_bytes: bytes::get_u64(row, LIVE_BYTES_AT),
            live_records: bytes::get_u64(row, LIVE_RECORDS_AT),
        }
    }
}

/// How many bytes a leaf's columns spend on each entry. The class takes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Widths {
    hash: u8,
    slot: u8,
    units: u8,
}

impl Widths {
    const CLASS: u8 = 1;
    const HASH_MAX: u8 = 4;
    const SLOT_MAX: u8 = 3;
    const UNITS_MAX: u8 = 4;

    /// The least that holds every entry.
    fn of(first_hash: u32, entries: &[(u32, u64)]) -> Self {
        let (mut hash, mut slot, mut units) = (0, 0, 0);
        for &(entry_hash, location) in entries {
            hash |= entry_hash.wrapping_sub(first_hash);
            slot |= (location >> SLOT_SHIFT) as u32;
            units |= location as u32;
        }
        Self { hash: byte_len(hash), slot: byte_len(slot), units: byte_len(units) }
    }

    fn encode(self) -> [u8; 4] {
        [self.hash, self.slot, self.units, 0]
    }

    fn decode([hash, slot, units, zero]: [u8; 4]) -> Result<Self, Fault> {
        let widths = Self { hash, slot, units };
        let are_possible = widths.hash <= Self::HASH_MAX
            && widths.slot <= Self::SLOT_MAX
            && widths.units <= Self::UNITS_MAX
            && zero == 0;
        if are_possible { Ok(widths) } else { Err(Fault::Field("widths")) }
    }

    const fn entry_len(self) -> usize {
        (self.hash + self.slot + Self::CLASS + self.units) as usize
    }
}

const fn byte_len(value: u32) -> u8 {
    (u32::BITS - value.leading_zeros()).div_ceil(8) as u8
}

/// Appends leaf number `index`: its first hash, then hash and location of each entry.
///
/// # Panics
/// If a hash is below the first one, or there are 2³² entries or more.
pub fn encode_leaf(index: u32, first_hash: u32, entries: &[(u32, u64)], out: &mut Vec<u8>) {
    let start = out.len();
    let count = u32::try_from(entries.len()).expect("a leaf is far smaller than its counter");
    let widths = Widths::of(first_hash, entries);
    out.reserve(LEAF_HEAD_LEN + entries.len() * widths.entry_len());
    out.resize(start + LEAF_HEAD_LEN, 0);
    let head = &mut out[start..];
    bytes::put_u32(head, LEAF_COUNT_AT, count);
    bytes::put_u32(head, LEAF_FIRST_HASH_AT, first_hash);
    bytes::put(head, LEAF_WIDTHS_AT, &widths.encode());
    for (hash, _) in entries {
        let above = hash.checked_sub(first_hash).expect("a leaf's hashes are in its range");
        out.extend_from_slice(&above.to_le_bytes()[..widths.hash.into()]);
    }
    for (_, location) in entries {
        out.extend_from_slice(&(location >> SLOT_SHIFT).to_le_bytes()[..widths.slot.into()]);
    }
    out.extend(entries.iter().map(|(_, location)| (location >> CLASS_SHIFT) as u8));
    for (_, location) in entries {
        out.extend_from_slice(&(location & UNITS_MASK).to_le_bytes()[..widths.units.into()]);
    }
    let leaf = &mut out[start..];
    let crc = checksum::extend(index, &leaf[LEAF_COUNT_AT..]);
    bytes::put_u32(leaf, LEAF_CRC_AT, crc);
}

/// A snapshot whose header is right.
#[derive(Debug, Clone)]
pub struct Snapshot<'a> {
    header: Header,
    slots: SlotSet,
    file: &'a [u8],
    leaves_at: usize,
}

impl<'a> Snapshot<'a> {
    /// Checks the header.
    pub fn open(file: &'a [u8]) -> Result<Self, Fault> {
        let (header, leaves) = Header::decode(file)?;
        let slots = SlotSet::new(&header.segments);
        Ok(Self { header, slots, file, leaves_at: file.len() - leaves.len() })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The leaves in the order of their hashes, each checked when it is reached. A fault, also one
    /// that only the end shows, comes as the last item.
    #[must_use]
    pub fn leaves(&self) -> Leaves<'_> {
        Leaves {
            at: self.leaves_at,
            snapshot: self,
            index: 0,
            keys: 0,
            previous: None,
            ended: false,
        }
    }
}

/// The slots that locations may hold.
#[derive(Debug, Clone)]
struct SlotSet {
    words: Vec<u64>,
}

impl SlotSet {
    fn new(segments: &[Segment]) -> Self {
        let slot_max = segments.last().map_or(0, |last| last.slot as usize);
        let mut words = vec![0; slot_max / 64 + 1];
        for segment in segments {
            words[segment.slot as usize / 64] |= 1 << (segment.slot % 64);
        }
        Self { words }
    }

    #[inline]
    fn has(&self, slot: u32) -> bool {
        let word = self.words.get(slot as usize / 64);
        word.is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }
}

/// One leaf, checked. Its entries stay where they are, in the file, until somebody wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// The lowest hash that the leaf may hold.
    pub first_hash: u32,
    /// How many entries it has.
    pub count: u32,
    widths: Widths,
    /// Where its columns begin.
    at: usize,
}

impl Leaf {
    /// Hash and location of each entry, in the order they were written.
    ///
    /// # Panics
    /// If `file` is shorter than the one that the leaf was found in. Of another one the answer is
    /// nonsense.
    #[must_use]
    pub fn entries(&self, file: &[u8]) -> Vec<(u32, u64)> {
        let Columns { hashes, slots, classes, units } = self.columns(file);
        let mut entries = vec![(self.first_hash, 0); self.count as usize];
        fill(&mut entries, hashes, self.widths.hash, |(hash, _), above| {
            *hash = hash.wrapping_add(above);
        });
        fill(&mut entries, slots, self.widths.slot, |(_, location), slot| {
            *location = u64::from(slot) << SLOT_SHIFT;
        });
        fill(&mut entries, classes, Widths::CLASS, |(_, location), class| {
            *location |= u64::from(class) << CLASS_SHIFT;
        });
        fill(&mut entries, units, self.widths.units, |(_, location), units| {
            *location |= u64::from(units);
        });
        entries
    }

    /// Calls `f` with the slot of each entry's location.
    ///
    /// # Panics
    /// As [`Leaf::entries`].
    pub fn for_each_slot(&self, file: &[u8], f: impl FnMut(u32)) {
        for_each(self.columns(file).slots, self.widths.slot, f);
    }

    fn columns<'a>(&self, file: &'a [u8]) -> Columns<'a> {
        let count = self.count as usize;
        let (hashes, rest) = file[self.at..].split_at(count * usize::from(self.widths.hash));
        let (slots, rest) = rest.split_at(count * usize::from(self.widths.slot));
        let (classes, rest) = rest.split_at(count * usize::from(Widths::CLASS));
        let units = &rest[..count * usize::from(self.widths.units)];
        Columns { hashes, slots, classes, units }
    }
}

/// What a leaf consists of.
struct Columns<'a> {
    hashes: &'a [u8],
    slots: &'a [u8],
    classes: &'a [u8],
    units: &'a [u8],
}

/// The width as a constant makes a value one load or two.
#[inline]
fn values<const WIDTH: usize>(column: &[u8]) -> impl Iterator<Item = u32> {
    column.as_chunks::<WIDTH>().0.iter().map(|value| {
        let mut bytes = [0; 4];
        bytes[..WIDTH].copy_from_slice(value);
        u32::from_le_bytes(bytes)
    })
}

/// Calls `f` with each value of a column. Those of one without a width are all 0, and not visited.
#[inline]
fn for_each(column: &[u8], width: u8, f: impl FnMut(u32)) {
    match width {
        0 => {}
        1 => values::<1>(column).for_each(f),
        2 => values::<2>(column).for_each(f),
        3 => values::<3>(column).for_each(f),
        _ => values::<4>(column).for_each(f),
    }
}

/// Calls `f` with each entry and its value of this column, unless all are 0.
#[inline]
fn fill(
    entries: &mut [(u32, u64)],
    column: &[u8],
    width: u8,
    mut f: impl FnMut(&mut (u32, u64), u32),
) {
    let mut entries = entries.iter_mut();
    for_each(column, width, |value| {
        if let Some(entry) = entries.next() {
            f(entry, value);
        }
    });
}

/// Iterates over a snapshot's leaves.
#[derive(Debug, Clone)]
pub struct Leaves<'a> {
    /// Where the next one begins.
    at: usize,
    snapshot: &'a Snapshot<'a>,
    index: u32,
    keys: u64,
    /// The first hash of the leaf before, and the greatest that is known to be its own.
    previous: Option<(u32, u32)>,
    ended: bool,
}

impl Leaves<'_> {
    fn rest(&self) -> &[u8] {
        &self.snapshot.file[self.at..]
    }

    fn read(&mut self) -> Result<Leaf, Fault> {
        // The widths are refused before the checksum is known: whichever is wrong, so is the leaf.
        let head = self.rest().first_chunk::<LEAF_HEAD_LEN>().ok_or(Fault::Length)?;
        let count = bytes::get_u32(head, LEAF_COUNT_AT);
        let widths = Widths::decode(bytes::get(head, LEAF_WIDTHS_AT))?;
        let len = LEAF_HEAD_LEN + count as usize * widths.entry_len();
        let whole = self.rest().get(..len).ok_or(Fault::Length)?;
        let crc = checksum::extend(self.index, &whole[LEAF_COUNT_AT..]);
        if bytes::get_u32(whole, LEAF_CRC_AT) != crc {
            return Err(Fault::Checksum);
        }
        let first_hash = bytes::get_u32(head, LEAF_FIRST_HASH_AT);
        if let Some((first, greatest)) = self.previous {
            if first >= first_hash {
                return Err(Fault::Field("leaf order"));
            }
            if greatest >= first_hash {
                return Err(Fault::Field("hash"));
            }
        }
        let leaf = Leaf { first_hash, count, widths, at: self.at + LEAF_HEAD_LEN };
        let greatest = self.check(&leaf)?;
        self.at += len;
        self.index += 1;
        self.keys += u64::from(count);
        self.previous = Some((first_hash, greatest));
        Ok(leaf)
    }

    /// Checks the entries, and answers the greatest hash: the leaf's first one if there is no entry.
    fn check(&self, leaf: &Leaf) -> Result<u32, Fault> {
        let mut above = 0;
        let hashes = leaf.columns(self.snapshot.file).hashes;
        for_each(hashes, leaf.widths.hash, |value| above = above.max(value));
        let greatest = leaf.first_hash.checked_add(above).ok_or(Fault::Field("hash"))?;
        // Slots of no width are all 0, which is none.
        let mut are_known = leaf.widths.slot > 0 || leaf.count == 0;
        leaf.for_each_slot(self.snapshot.file, |slot| are_known &= self.snapshot.slots.has(slot));
        if are_known { Ok(greatest) } else { Err(Fault::Field("location")) }
    }
}

impl Iterator for Leaves<'_> {
    type Item = Result<Leaf, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.index == self.snapshot.header.leaves {
            self.ended = true;
            if !self.rest().is_empty() {
                return Some(Err(Fault::Length));
            }
            let adds_up = self.keys == self.snapshot.header.keys;
            return (!adds_up).then_some(Err(Fault::Field("keys")));
        }
        let leaf = self.read();
        self.ended = leaf.is_err();
        Some(leaf)
    }
}

impl std::iter::FusedIterator for Leaves<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(leaves: u32, keys: u64) -> Header {
        let segment =
            Segment { slot: 1, id: SegmentId(5), len: 4096, live_bytes: 48, live_records: 2 };
        Header {
            uuid: StoreUuid([8; 16]),
            shard: ShardId(4),
            keys,
            seqno: Seqno(77),
            position: Position { segment: SegmentId(6), offset: 640 },
            leaves,
            segments: vec![segment, Segment { slot: 70, id: SegmentId(6), ..segment }],
        }
    }

    fn location(slot: u64) -> u64 {
        slot << SLOT_SHIFT | 2 << 32 | 8
    }

    fn file(header: &Header, leaves: &[(u32, &[(u32, u64)])]) -> Vec<u8> {
        let mut out = header.encode();
        for (index, (first_hash, entries)) in (0..).zip(leaves) {
            encode_leaf(index, *first_hash, entries, &mut out);
        }
        out
    }

    type OwnedLeaf = (u32, Vec<(u32, u64)>);

    fn read(file: &[u8]) -> Result<Vec<OwnedLeaf>, Fault> {
        let snapshot = Snapshot::open(file)?;
        let leaves = snapshot.leaves();
        leaves.map(|leaf| leaf.map(|leaf| (leaf.first_hash, leaf.entries(file)))).collect()
    }

    #[test]
    fn round_trips() {
        let leaves: [(u32, &[(u32, u64)]); 3] = [
            (0, &[(3, location(1)), (2, location(70))]),
            (100, &[]),
            (1 << 31, &[(u32::MAX, location(1))]),
        ];
        let file = file(&header(3, 3), &leaves);
        assert_eq!(Snapshot::open(&file).unwrap().header(), &header(3, 3));
        let expected: Vec<_> = leaves.map(|(first, entries)| (first, entries.to_vec())).to_vec();
        assert_eq!(read(&file), Ok(expected));
        assert_eq!(read(&header(0, 0).encode()), Ok(vec![]));
    }

    #[test]
    fn leaves_that_do_not_fit_are_refused() {
        let here = location(1);
        let refused = |header: Header, leaves: &[(u32, &[(u32, u64)])]| {
            read(&file(&header, leaves)).expect_err("must be refused")
        };
        assert_eq!(refused(header(1, 2), &[(0, &[(1, here)])]), Fault::Field("keys"));
        for slot in [0, 2, 69, 71, u64::from(SLOT_MAX)] {
            let entry = (1, location(slot));
            assert_eq!(refused(header(1, 1), &[(0, &[entry])]), Fault::Field("location"));
        }
        let twice: [(u32, &[(u32, u64)]); 2] = [(5, &[]), (5, &[])];
        assert_eq!(refused(header(2, 0), &twice), Fault::Field("leaf order"));
        let beyond: [(u32, &[(u32, u64)]); 2] = [(0, &[(7, here), (5, here)]), (7, &[])];
        assert_eq!(refused(header(2, 2), &beyond), Fault::Field("hash"));
        assert_eq!(refused(header(1, 0), &twice), Fault::Length, "one leaf too many");
        assert_eq!(refused(header(3, 0), &[(0, &[]), (1, &[])]), Fault::Length, "one too few");
    }

    #[test]
    fn columns_are_as_narrow_as_their_values() {
        let cost = |entries: &[(u32, u64)]| {
            let mut out = Vec::new();
            encode_leaf(0, 1000, entries, &mut out);
            out.len() - LEAF_HEAD_LEN
        };
        assert_eq!(cost(&[(1000, 0)]), 1, "only the class");
        assert_eq!(cost(&[(1255, location(1))]), 1 + 1 + 1 + 1);
        assert_eq!(cost(&[(1256, location(256))]), 2 + 2 + 1 + 1);
        assert_eq!(cost(&[(u32::MAX, u64::MAX)]), 4 + 3 + 1 + 4);
    }

    #[test]
    fn impossible_leaves_are_refused() {
        let refused = |change: &dyn Fn(&mut [u8])| {
            let header = header(1, 1).encode();
            let mut leaf = Vec::new();
            encode_leaf(0, 0, &[(u32::MAX, location(1))], &mut leaf);
            change(&mut leaf);
            let crc = checksum::of(&leaf[LEAF_COUNT_AT..]);
            bytes::put_u32(&mut leaf, LEAF_CRC_AT, crc);
            read(&[header, leaf].concat()).expect_err("must be refused")
        };
        assert_eq!(refused(&|leaf| leaf[LEAF_FIRST_HASH_AT] = 2), Fault::Field("hash"));
        for column in 0..4 {
            assert_eq!(refused(&|leaf| leaf[LEAF_WIDTHS_AT + column] = 5), Fault::Field("widths"));
        }
        assert_eq!(refused(&|leaf| leaf[LEAF_COUNT_AT + 3] = 0xFF), Fault::Length);
    }

    #[test]
    fn a_leaf_serves_at_its_own_place_only() {
        let entries = [(200, location(1))];
        let mut out = header(1, 1).encode();
        encode_leaf(1, 0, &entries, &mut out);
        assert_eq!(read(&out), Err(Fault::Checksum));
    }
}
