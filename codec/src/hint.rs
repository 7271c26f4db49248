//! Hint files: what recovery needs of a sealed segment, without reading its keys and values.
//!
//! Invariants:
//! - a hint names every frame of its segment, in order, so offsets need not be stored;
//! - its header repeats the segment's identity and [`Sealed`] facts, so it serves only a segment
//!   that the manifest describes in the same way;
//! - header and body are checksummed apart.

pub use crate::fault::Fault;

use crate::bytes::{self, Reader, VARINT_LEN_MAX};
use crate::checksum;
use crate::ids::{SegmentId, Seqno, ShardId, StoreUuid};
use crate::record::{ALIGNMENT, FRAME_LEN_MIN, Kind};
use crate::segment::{self, Role, Sealed};
use crate::{FORMAT_VERSION, names};

/// The first bytes of a hint.
pub const MAGIC: [u8; 8] = *b"CSKDHNT1";

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const SHARD_AT: usize = VERSION_AT + 4;
const ROLE_AT: usize = SHARD_AT + 2;
const ZERO_AT: usize = ROLE_AT + 1;
const UUID_AT: usize = ZERO_AT + 1;
const ID_AT: usize = UUID_AT + 16;
const SEALED_AT: usize = ID_AT + 8;
const ENTRIES_AT: usize = SEALED_AT + Sealed::ENCODED_LEN;
const FIRST_SEQNO_AT: usize = ENTRIES_AT + 8;
const BODY_LEN_AT: usize = FIRST_SEQNO_AT + 8;
const BODY_CRC_AT: usize = BODY_LEN_AT + 8;
const CRC_AT: usize = BODY_CRC_AT + 4;
/// Length of a hint's header.
pub const HEADER_LEN: usize = CRC_AT + 4;
const _: () = assert!(HEADER_LEN == 128);

const CLASS_BITS: u32 = 2;
const CLASS_MASK: u64 = 0b11;
const FRAME_UNITS_MAX: u64 = u32::MAX as u64 / ALIGNMENT as u64;
/// The longest entry: frame length and class, hash, seqno.
const ENTRY_LEN_MAX: usize = 5 + 4 + VARINT_LEN_MAX;

/// What a frame means to recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// A put that does not expire.
    Put = 0,
    /// A put that expires.
    ExpiringPut = 1,
    /// A tombstone.
    Tombstone = 2,
    /// A batch head or a marker: no key.
    Other = 3,
}

impl Class {
    /// The class of a frame.
    #[inline]
    #[must_use]
    pub const fn of(kind: Kind, expires: bool) -> Self {
        match kind {
            Kind::Put if expires => Self::ExpiringPut,
            Kind::Put => Self::Put,
            Kind::Tombstone => Self::Tombstone,
            Kind::Batch | Kind::Marker => Self::Other,
        }
    }

    /// Whether the frame is a put.
    #[inline]
    #[must_use]
    pub const fn is_put(self) -> bool {
        matches!(self, Self::Put | Self::ExpiringPut)
    }

    #[inline]
    const fn decode(bits: u64) -> Self {
        match bits & CLASS_MASK {
            0 => Self::Put,
            1 => Self::ExpiringPut,
            2 => Self::Tombstone,
            _ => Self::Other,
        }
    }
}

/// One frame of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where the frame begins in the segment.
    pub offset: u64,
    /// Its length, padding included.
    pub frame_len: u32,
    /// What it is.
    pub class: Class,
    /// The key's hash bits; 0 where there is no key.
    pub hash: u32,
    /// Its sequence number.
    pub seqno: Seqno,
}

/// The segment that a hint is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The store.
    pub uuid: StoreUuid,
    /// The shard.
    pub shard: ShardId,
    /// The segment.
    pub id: SegmentId,
    /// How it came to be.
    pub role: Role,
}

/// A hint's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The segment that the hint is of.
    pub binding: Binding,
    /// The segment's facts. The hint serves only while the manifest states the same ones.
    pub sealed: Sealed,
    /// Number of frames, which is the number of entries.
    pub entries: u64,
    /// The first frame's seqno, or none.
    pub first_seqno: Seqno,
    body_len: u64,
    body_crc: u32,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        bytes::put(&mut out, MAGIC_AT, &MAGIC);
        bytes::put_u32(&mut out, VERSION_AT, FORMAT_VERSION);
        bytes::put_u16(&mut out, SHARD_AT, self.binding.shard.0);
        out[ROLE_AT] = self.binding.role as u8;
        bytes::put(&mut out, UUID_AT, &self.binding.uuid.0);
        bytes::put_u64(&mut out, ID_AT, self.binding.id.0);
        bytes::put(&mut out, SEALED_AT, &self.sealed.encode());
        bytes::put_u64(&mut out, ENTRIES_AT, self.entries);
        bytes::put_u64(&mut out, FIRST_SEQNO_AT, self.first_seqno.0);
        bytes::put_u64(&mut out, BODY_LEN_AT, self.body_len);
        bytes::put_u32(&mut out, BODY_CRC_AT, self.body_crc);
        let crc = checksum::of(&out[..CRC_AT]);
        bytes::put_u32(&mut out, CRC_AT, crc);
        out
    }

    fn decode(b: &[u8; HEADER_LEN]) -> Result<Self, Fault> {
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
        if b[ZERO_AT] != 0 {
            return Err(Fault::Field("reserved"));
        }
        let binding = Binding {
            uuid: StoreUuid(bytes::get(b, UUID_AT)),
            shard: ShardId(bytes::get_u16(b, SHARD_AT)),
            id: SegmentId(bytes::get_u64(b, ID_AT)),
            role: Role::decode(b[ROLE_AT])?,
        };
        let header = Self {
            binding,
            sealed: Sealed::decode(&bytes::get(b, SEALED_AT))?,
            entries: bytes::get_u64(b, ENTRIES_AT),
            first_seqno: Seqno(bytes::get_u64(b, FIRST_SEQNO_AT)),
            body_len: bytes::get_u64(b, BODY_LEN_AT),
            body_crc: bytes::get_u32(b, BODY_CRC_AT),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), Fault> {
        let Sealed { len, records, min_seqno, max_seqno, .. } = self.sealed;
        if self.binding.shard.0 >= names::SHARDS_MAX {
            return Err(Fault::Field("shard"));
        }
        let entries_max = (len - segment::HEADER_LEN as u64) / FRAME_LEN_MIN as u64;
        if self.entries < records || self.entries > entries_max {
            return Err(Fault::Field("entries"));
        }
        let first_is_possible = match self.binding.role {
            Role::Log => {
                let last = self.first_seqno.0.checked_add(self.entries.saturating_sub(1));
                self.first_seqno == min_seqno && last == Some(max_seqno.0)
            }
            Role::Merged => (min_seqno..=max_seqno).contains(&self.first_seqno),
        };
        if first_is_possible { Ok(()) } else { Err(Fault::Field("first seqno")) }
    }
}

/// Builds a hint, frame by frame.
#[derive(Debug)]
pub struct Builder {
    binding: Binding,
    first_seqno: Seqno,
    entries: u64,
    offset: u64,
    seqno: Seqno,
    /// The header's place, then the body.
    out: Vec<u8>,
}

impl Builder {
    /// A hint of this segment, without entries yet.
    #[must_use]
    pub fn new(binding: Binding) -> Self {
        Self {
            binding,
            first_seqno: Seqno::NONE,
            entries: 0,
            offset: segment::HEADER_LEN as u64,
            seqno: Seqno::NONE,
            out: vec![0; HEADER_LEN],
        }
    }

    /// Number of entries so far.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Takes in the next frame.
    ///
    /// # Panics
    /// If the frame does not follow the one before: a gap in the offsets, or in a log segment's
    /// seqnos. Scans and writers both check that first.
    pub fn push(&mut self, entry: &Entry) {
        assert_eq!(entry.offset, self.offset, "frames follow one another without gaps");
        let units = u64::from(entry.frame_len) / ALIGNMENT as u64;
        assert_eq!(units * ALIGNMENT as u64, u64::from(entry.frame_len), "frames are aligned");
        let is_first = self.entries == 0;
        if is_first {
            self.first_seqno = entry.seqno;
        }
        let previous = if is_first { entry.seqno } else { self.seqno };
        bytes::push_varint(&mut self.out, units << CLASS_BITS | entry.class as u64);
        if entry.class != Class::Other {
            self.out.extend_from_slice(&entry.hash.to_le_bytes());
        }
        match self.binding.role {
            Role::Log => {
                let is_dense = is_first || entry.seqno == previous.next();
                assert!(is_dense, "a log segment's seqnos are dense");
            }
            Role::Merged => {
                let difference = entry.seqno.0.wrapping_sub(previous.0).cast_signed();
                bytes::push_varint(&mut self.out, bytes::zigzag(difference));
            }
        }
        self.seqno = entry.seqno;
        self.offset += u64::from(entry.frame_len);
        self.entries += 1;
    }

    /// The whole file. `sealed` are the facts of the segment whose frames were pushed.
    ///
    /// # Panics
    /// If `sealed` cannot belong to these frames.
    #[must_use]
    pub fn finish(mut self, sealed: &Sealed) -> Vec<u8> {
        assert_eq!(sealed.len, self.offset, "a hint names every frame of its segment");
        let body = &self.out[HEADER_LEN..];
        let header = Header {
            binding: self.binding,
            sealed: *sealed,
            entries: self.entries,
            first_seqno: self.first_seqno,
            body_len: body.len() as u64,
            body_crc: checksum::of(body),
        };
        header.sealed.check().expect("a sealed segment's facts are possible");
        header.check().expect("a sealed segment's facts fit its frames");
        bytes::put(&mut self.out, 0, &header.encode());
        self.out
    }
}

/// A hint whose header and checksums are right.
#[derive(Debug, Clone, Copy)]
pub struct Hint<'a> {
    header: Header,
    body: &'a [u8],
}

impl<'a> Hint<'a> {
    /// Checks the header and the body's checksum.
    pub fn open(file: &'a [u8]) -> Result<Self, Fault> {
        let (head, body) = file.split_first_chunk().ok_or(Fault::Length)?;
        let header = Header::decode(head)?;
        if header.body_len != body.len() as u64 {
            return Err(Fault::Length);
        }
        if header.body_crc != checksum::of(body) {
            return Err(Fault::Checksum);
        }
        Ok(Self { header, body })
    }

    /// The header. Compare its binding and facts with the manifest's before using an entry.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The entries in the order of their offsets. A fault, also one that only the end shows, comes
    /// as the last item.
    #[must_use]
    pub fn entries(&self) -> Entries<'a> {
        Entries {
            reader: Reader::new(self.body),
            role: self.header.binding.role,
            min_seqno: self.header.sealed.min_seqno,
            max_seqno: self.header.sealed.max_seqno,
            segment_len: self.header.sealed.len,
            left: self.header.entries,
            offset: segment::HEADER_LEN as u64,
            seqno: self.header.first_seqno.0,
            ended: false,
        }
    }
}

/// Iterates over a hint's entries.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    reader: Reader<'a>,
    role: Role,
    min_seqno: Seqno,
    max_seqno: Seqno,
    segment_len: u64,
    left: u64,
    offset: u64,
    /// The next one in a log segment, the previous one in a merged one.
    seqno: u64,
    ended: bool,
}

impl Entries<'_> {
    #[inline]
    fn read(&mut self) -> Result<Entry, Fault> {
        const SHORT: Fault = Fault::Field("body");
        let head = self.reader.varint().ok_or(SHORT)?;
        let class = Class::decode(head);
        let units = head >> CLASS_BITS;
        let frame_len = units.wrapping_mul(ALIGNMENT as u64);
        let offset = self.offset;
        if units > FRAME_UNITS_MAX
            || frame_len < FRAME_LEN_MIN as u64
            || frame_len > self.segment_len - offset
        {
            return Err(Fault::Field("frame length"));
        }
        let hash = match class {
            Class::Other => 0,
            _ => self.reader.u32().ok_or(SHORT)?,
        };
        let seqno = match self.role {
            Role::Log => {
                let seqno = self.seqno;
                self.seqno = seqno.wrapping_add(1);
                Seqno(seqno)
            }
            Role::Merged => {
                let difference = bytes::unzigzag(self.reader.varint().ok_or(SHORT)?);
                if offset == segment::HEADER_LEN as u64 && difference != 0 {
                    return Err(Fault::Field("first seqno"));
                }
                self.seqno = self.seqno.wrapping_add(difference.cast_unsigned());
                if !(self.min_seqno.0..=self.max_seqno.0).contains(&self.seqno) {
                    return Err(Fault::Field("seqno"));
                }
                Seqno(self.seqno)
            }
        };
        self.offset = offset + frame_len;
        Ok(Entry { offset, frame_len: frame_len as u32, class, hash, seqno })
    }

    /// What only the end shows: that nothing is left over.
    fn check_end(&self) -> Result<(), Fault> {
        if self.reader.is_empty() && self.offset == self.segment_len {
            Ok(())
        } else {
            Err(Fault::Field("entries"))
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, Fault>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.left == 0 {
            self.ended = true;
            return self.check_end().err().map(Err);
        }
        self.left -= 1;
        let entry = self.read();
        self.ended = entry.is_err();
        Some(entry)
    }
}

impl std::iter::FusedIterator for Entries<'_> {}

/// A bound on a hint's length, for its reader's buffer.
#[must_use]
pub const fn file_len_max(segment_len: u64) -> u64 {
    HEADER_LEN as u64 + segment_len / FRAME_LEN_MIN as u64 * ENTRY_LEN_MAX as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(role: Role) -> Binding {
        Binding { uuid: StoreUuid([4; 16]), shard: ShardId(1), id: SegmentId(6), role }
    }

    fn sealed(entries: &[Entry]) -> Sealed {
        let seqnos = || entries.iter().map(|entry| entry.seqno);
        Sealed {
            len: 64 + entries.iter().map(|entry| u64::from(entry.frame_len)).sum::<u64>(),
            digest: 1,
            records: entries.iter().filter(|entry| entry.class != Class::Other).count() as u64,
            min_seqno: seqnos().min().unwrap_or_default(),
            max_seqno: seqnos().max().unwrap_or_default(),
            expiry_max: 2,
            tombstone_bytes: 0,
            has_batch: false,
        }
    }

    fn build(role: Role, entries: &[Entry]) -> Vec<u8> {
        let mut builder = Builder::new(binding(role));
        for entry in entries {
            builder.push(entry);
        }
        builder.finish(&sealed(entries))
    }

    fn log_entries() -> Vec<Entry> {
        let mut offset = 64;
        [(Class::Other, 48), (Class::Put, 136), (Class::ExpiringPut, 4096), (Class::Tombstone, 24)]
            .into_iter()
            .zip(100..)
            .map(|((class, frame_len), seqno)| {
                let hash = if class == Class::Other { 0 } else { seqno as u32 * 0x0101_0101 };
                let at = offset;
                offset += u64::from(frame_len);
                Entry { offset: at, frame_len, class, hash, seqno: Seqno(seqno) }
            })
            .collect()
    }

    fn merged_entries() -> Vec<Entry> {
        let seqnos = [500, 7, Seqno::MAX.0 - 1, 9];
        let mut entries = log_entries();
        for (entry, seqno) in entries.iter_mut().zip(seqnos) {
            entry.seqno = Seqno(seqno);
        }
        entries
    }

    #[test]
    fn both_roles_round_trip() {
        for (role, entries) in [
            (Role::Log, log_entries()),
            (Role::Merged, merged_entries()),
            (Role::Log, vec![]),
            (Role::Merged, vec![]),
        ] {
            let file = build(role, &entries);
            let hint = Hint::open(&file).unwrap();
            assert_eq!(hint.header().binding, binding(role));
            assert_eq!(hint.header().sealed, sealed(&entries));
            assert_eq!(hint.entries().collect::<Result<Vec<_>, _>>(), Ok(entries));
        }
    }

    #[test]
    fn a_log_put_costs_five_bytes() {
        let entry = log_entries()[1];
        let entries: Vec<_> = (0..1000)
            .map(|i| Entry { offset: 64 + i * 136, seqno: Seqno(i + 1), ..entry })
            .collect();
        assert_eq!(build(Role::Log, &entries).len(), HEADER_LEN + 5 * 1000);
    }

    #[test]
    fn bodies_that_do_not_add_up_are_refused() {
        let file = build(Role::Log, &log_entries());
        let rebuilt = |change: &dyn Fn(&mut Header, &mut Vec<u8>)| {
            let hint = Hint::open(&file).unwrap();
            let (mut header, mut body) = (*hint.header(), hint.body.to_vec());
            change(&mut header, &mut body);
            header.body_len = body.len() as u64;
            header.body_crc = checksum::of(&body);
            let mut out = header.encode().to_vec();
            out.extend_from_slice(&body);
            Hint::open(&out).and_then(|hint| hint.entries().collect::<Result<Vec<_>, _>>())
        };
        assert_eq!(rebuilt(&|_, _| ()), Ok(log_entries()));
        assert_eq!(rebuilt(&|_, body| body.push(0)), Err(Fault::Field("entries")));
        assert_eq!(rebuilt(&|_, body| _ = body.pop()), Err(Fault::Field("body")));
        assert_eq!(rebuilt(&|header, _| header.entries += 1), Err(Fault::Field("first seqno")));
        assert_eq!(rebuilt(&|header, _| header.sealed.len += 8), Err(Fault::Field("entries")));
        assert_eq!(rebuilt(&|header, _| header.sealed.len -= 8), Err(Fault::Field("frame length")));
        assert_eq!(rebuilt(&|_, body| body[0] = 2 << 2 | 3), Err(Fault::Field("frame length")));
    }

    #[test]
    #[should_panic(expected = "dense")]
    fn a_gap_in_a_logs_seqnos_is_a_bug() {
        let mut entries = log_entries();
        entries[1].seqno = Seqno(102);
        let _ = build(Role::Log, &entries);
    }
}
