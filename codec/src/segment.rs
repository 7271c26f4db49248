//! Segment files: a header, then frames without gaps.
//!
//! Invariants:
//! - the header is written once, when the segment is created, and names the salt that every frame's
//!   checksum starts from;
//! - frames follow from offset [`HEADER_LEN`] to the segment's end;
//! - in a [`Role::Log`] segment each frame's seqno is its predecessor's plus one; in a
//!   [`Role::Merged`] one seqnos are arbitrary and no frame is part of a batch.

mod resync;
mod sealed;

pub use crate::fault::Fault;
pub use resync::{Resync, resync};
pub use sealed::{Sealed, Tally};

use crate::bytes;
use crate::checksum;
use crate::ids::{SegmentId, ShardId, StoreUuid};
use crate::record::{self, Frame};
use crate::{FORMAT_VERSION, names};

/// The first bytes of a segment.
pub const MAGIC: [u8; 8] = *b"CSKDSEG1";

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const SHARD_AT: usize = VERSION_AT + 4;
const ROLE_AT: usize = SHARD_AT + 2;
const ZERO_AT: usize = ROLE_AT + 1;
const UUID_AT: usize = ZERO_AT + 1;
const ID_AT: usize = UUID_AT + 16;
const SALT_AT: usize = ID_AT + 8;
const RESERVED_AT: usize = SALT_AT + 4;
const CRC_AT: usize = RESERVED_AT + 16;
/// Length of a segment's header, and the offset of its first frame.
pub const HEADER_LEN: usize = CRC_AT + 4;
const _: () = assert!(HEADER_LEN == 64 && HEADER_LEN.is_multiple_of(record::ALIGNMENT));

/// The longest segment: a location holds an offset's eighth in 32 bits.
pub const SEGMENT_LEN_MAX: u64 = (record::ALIGNMENT as u64) << 32;

/// How a segment came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Written by puts and deletes, in order.
    Log = 1,
    /// Written by a merge.
    Merged = 2,
}

impl Role {
    pub(crate) const fn decode(byte: u8) -> Result<Self, Fault> {
        match byte {
            1 => Ok(Self::Log),
            2 => Ok(Self::Merged),
            _ => Err(Fault::Field("role")),
        }
    }
}

/// A segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The store that the segment belongs to.
    pub uuid: StoreUuid,
    /// The shard that the segment belongs to.
    pub shard: ShardId,
    /// The segment's number in its shard.
    pub id: SegmentId,
    /// How it came to be.
    pub role: Role,
    /// What its frames' checksums start from. Drawn at random.
    pub salt: u32,
}

impl Header {
    /// The file's first bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        bytes::put(&mut out, MAGIC_AT, &MAGIC);
        bytes::put_u32(&mut out, VERSION_AT, FORMAT_VERSION);
        bytes::put_u16(&mut out, SHARD_AT, self.shard.0);
        out[ROLE_AT] = self.role as u8;
        bytes::put(&mut out, UUID_AT, &self.uuid.0);
        bytes::put_u64(&mut out, ID_AT, self.id.0);
        bytes::put_u32(&mut out, SALT_AT, self.salt);
        let crc = checksum::of(&out[..CRC_AT]);
        bytes::put_u32(&mut out, CRC_AT, crc);
        out
    }

    /// Decodes the header at the start of `file`.
    pub fn decode(file: &[u8]) -> Result<Self, Fault> {
        let b = file.first_chunk::<HEADER_LEN>().ok_or(Fault::Length)?;
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
        let shard = bytes::get_u16(b, SHARD_AT);
        if shard >= names::SHARDS_MAX {
            return Err(Fault::Field("shard"));
        }
        if b[ZERO_AT] != 0 || !bytes::all_zero(&b[RESERVED_AT..CRC_AT]) {
            return Err(Fault::Field("reserved"));
        }
        Ok(Self {
            uuid: StoreUuid(bytes::get(b, UUID_AT)),
            shard: ShardId(shard),
            id: SegmentId(bytes::get_u64(b, ID_AT)),
            role: Role::decode(b[ROLE_AT])?,
            salt: bytes::get_u32(b, SALT_AT),
        })
    }
}

/// Walks the frames of a segment: every record, then the one thing that ended the walk.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    salt: u32,
    offset: u64,
    ended: bool,
}

impl<'a> Scanner<'a> {
    /// Walks `bytes`, a segment's readable bytes from its start, from `from_offset` on. That is
    /// [`HEADER_LEN`] or the offset of a later frame.
    #[must_use]
    pub fn new(bytes: &'a [u8], salt: u32, from_offset: u64) -> Self {
        Self { bytes, salt, offset: from_offset, ended: false }
    }

    /// Where the next frame begins; after the walk, where it ended: the segment's good length.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl<'a> Iterator for Scanner<'a> {
    type Item = (u64, Frame<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let offset = self.offset;
        let rest = self.bytes.get(offset as usize..).unwrap_or_default();
        let frame = record::decode(rest, record::seed(self.salt, offset));
        match frame {
            Frame::Record(record) => self.offset += record.frame_len as u64,
            Frame::End | Frame::Torn | Frame::Corrupt(_) => self.ended = true,
        }
        Some((offset, frame))
    }
}

impl std::iter::FusedIterator for Scanner<'_> {}

/// The checksum over the checksums of a segment's frames, in order: two segments with the same
/// digest hold the same frames.
///
/// Checksums are gathered and taken in a block at a time: each call costs more than its four bytes.
#[derive(Debug, Clone, Copy)]
pub struct Digest {
    crc: u32,
    pending_len: usize,
    pending: [u8; DIGEST_BLOCK_LEN],
}

const DIGEST_BLOCK_LEN: usize = 64;

impl Default for Digest {
    fn default() -> Self {
        Self { crc: 0, pending_len: 0, pending: [0; DIGEST_BLOCK_LEN] }
    }
}

impl Digest {
    /// Takes in the next frame's checksum.
    #[inline]
    pub fn push(&mut self, crc: u32) {
        bytes::put_u32(&mut self.pending, self.pending_len, crc);
        self.pending_len += 4;
        if self.pending_len == DIGEST_BLOCK_LEN {
            self.crc = checksum::extend(self.crc, &self.pending);
            self.pending_len = 0;
        }
    }

    /// The digest of the frames so far.
    #[inline]
    #[must_use]
    pub fn finish(self) -> u32 {
        checksum::extend(self.crc, &self.pending[..self.pending_len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Seqno;
    use crate::record::{Draft, Flags, Kind, Reason};

    const HEADER: Header = Header {
        uuid: StoreUuid([7; 16]),
        shard: ShardId(3),
        id: SegmentId(42),
        role: Role::Merged,
        salt: 0xDEAD_BEEF,
    };

    fn file(frames: u64) -> Vec<u8> {
        let mut file = HEADER.encode().to_vec();
        for seqno in 1..=frames {
            let draft = Draft {
                kind: Kind::Put,
                flags: Flags::NONE,
                seqno: Seqno(seqno),
                expiry: None,
                key: &seqno.to_le_bytes(),
                value: b"value",
            };
            let at = file.len();
            file.resize(at + draft.frame_len(), 0);
            draft.encode(record::seed(HEADER.salt, at as u64), &mut file[at..]);
        }
        file
    }

    #[test]
    fn header_round_trips() {
        assert_eq!(Header::decode(&HEADER.encode()), Ok(HEADER));
        let mut b = HEADER.encode();
        b[VERSION_AT] = FORMAT_VERSION as u8 + 1;
        assert_eq!(Header::decode(&b), Err(Fault::Checksum));
        let crc = checksum::of(&b[..CRC_AT]);
        bytes::put_u32(&mut b, CRC_AT, crc);
        assert_eq!(Header::decode(&b), Err(Fault::Version(FORMAT_VERSION + 1)));
        b[0] = 0;
        assert_eq!(Header::decode(&b), Err(Fault::Magic));
        assert_eq!(Header::decode(&b[..63]), Err(Fault::Length));
    }

    #[test]
    fn scanner_stops_once_and_says_where() {
        let mut bytes = file(3);
        let len = bytes.len();
        let frame_len = (len - HEADER_LEN) / 3;
        let mut scanner = Scanner::new(&bytes, HEADER.salt, HEADER_LEN as u64);
        let offsets: Vec<_> = scanner.by_ref().map(|(offset, _)| offset as usize).collect();
        assert_eq!(offsets, [64, 64 + frame_len, 64 + 2 * frame_len, len]);
        assert_eq!(scanner.offset() as usize, len);
        assert!(scanner.next().is_none());

        bytes[64 + frame_len + 30] ^= 1;
        let mut scanner = Scanner::new(&bytes, HEADER.salt, HEADER_LEN as u64);
        assert!(matches!(scanner.next(), Some((64, Frame::Record(_)))));
        let corrupt = Frame::Corrupt(Reason::Checksum);
        assert_eq!(scanner.next(), Some((64 + frame_len as u64, corrupt)));
        assert_eq!(scanner.next(), None);
        assert_eq!(scanner.offset() as usize, 64 + frame_len);
    }

    #[test]
    fn scanner_beyond_the_input_is_at_the_end() {
        let bytes = file(1);
        let mut scanner = Scanner::new(&bytes, HEADER.salt, u64::MAX - 7);
        assert_eq!(scanner.next(), Some((u64::MAX - 7, Frame::End)));
    }

    #[test]
    fn digest_depends_on_order() {
        let [forth, back] = [[1, 2], [2, 1]].map(|crcs| {
            let mut digest = Digest::default();
            for crc in crcs {
                digest.push(crc);
            }
            digest.finish()
        });
        assert_ne!(forth, back);
    }

    #[test]
    fn digest_is_the_checksum_of_the_checksums() {
        let mut digest = Digest::default();
        let mut crcs = Vec::new();
        for crc in 0_u32..50 {
            assert_eq!(digest.finish(), checksum::of(&crcs), "{crc} frames");
            digest.push(crc * 0x0101_0107);
            crcs.extend_from_slice(&(crc * 0x0101_0107).to_le_bytes());
        }
    }
}
