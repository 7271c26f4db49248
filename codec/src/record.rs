//! The record frame: what a segment consists of after its header.
//!
//! Invariants of a valid frame:
//! - it begins at a multiple of 8 and its length is one;
//! - its checksum covers everything but the checksum itself, padding included, and starts from a seed
//!   made of the segment's salt and the frame's own offset, so it validates nowhere else and no byte
//!   of it can change unnoticed;
//! - a batch part's value says what a batch part can say;
//! - zero is no kind, so preallocated space never reads as a frame.

mod payload;

pub use self::payload::{BatchPart, Marker};
use crate::bytes;
use crate::checksum;
use crate::ids::Seqno;
use std::ops::{BitOr, Range};

const CRC_AT: usize = 0;
const TAG_AT: usize = CRC_AT + 4;
const VALUE_LEN_AT: usize = TAG_AT + 4;
const SEQNO_AT: usize = VALUE_LEN_AT + 4;
/// Length of a frame's header without the expiry.
pub const HEADER_LEN: usize = SEQNO_AT + 8;
const EXPIRY_AT: usize = HEADER_LEN;
const EXPIRY_LEN: usize = 8;
const _: () = assert!(HEADER_LEN == 20);

const KIND_MASK: u32 = 0b111;
const FLAGS_SHIFT: u32 = 3;
const FLAGS_MASK: u32 = 0b1_1111;
const KEY_LEN_SHIFT: u32 = 8;
const IN_BATCH_IN_TAG: u32 = (Flags::IN_BATCH.0 as u32) << FLAGS_SHIFT;

/// Frames begin at multiples of this.
pub const ALIGNMENT: usize = 8;
/// Length of the shortest frame, one without key and value.
pub const FRAME_LEN_MIN: usize = HEADER_LEN.next_multiple_of(ALIGNMENT);
/// The longest key.
pub const KEY_LEN_MAX: usize = 65_536;
/// The longest value. Every padded frame's length fits in 32 bits.
pub const VALUE_LEN_MAX: usize = (u32::MAX as usize - KEY_LEN_MAX - 64) / ALIGNMENT * ALIGNMENT;
const _: () = assert!(frame_len(true, KEY_LEN_MAX, VALUE_LEN_MAX) <= u32::MAX as usize);
const _: () = assert!(KEY_LEN_MAX < 1 << (u32::BITS - KEY_LEN_SHIFT));

#[inline]
const fn unpadded_len(has_expiry: bool, key_len: usize, value_len: usize) -> usize {
    HEADER_LEN + if has_expiry { EXPIRY_LEN } else { 0 } + key_len + value_len
}

/// Length of a frame on disk, padding included.
#[inline]
#[must_use]
pub const fn frame_len(has_expiry: bool, key_len: usize, value_len: usize) -> usize {
    padded(unpadded_len(has_expiry, key_len, value_len))
}

/// The next multiple of [`ALIGNMENT`], a power of two.
#[inline]
const fn padded(len: usize) -> usize {
    (len + (ALIGNMENT - 1)) & !(ALIGNMENT - 1)
}

/// What a frame's checksum starts from: a frame validates only in the segment with this salt, at
/// this offset of its file.
#[inline]
#[must_use]
pub const fn seed(salt: u32, offset: u64) -> u32 {
    salt ^ (offset >> 3) as u32
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A key and its value.
    Put = 1,
    /// The key is gone.
    Tombstone = 2,
    /// The head of one shard's part of a batch; its operations follow directly.
    Batch = 3,
    /// States how far the log was known to be durable.
    Marker = 4,
}

impl Kind {
    #[inline]
    const fn decode(bits: u32) -> Option<Self> {
        match bits {
            1 => Some(Self::Put),
            2 => Some(Self::Tombstone),
            3 => Some(Self::Batch),
            4 => Some(Self::Marker),
            _ => None,
        }
    }

    /// Whether frames of this kind hold a key: puts and tombstones do.
    #[inline]
    #[must_use]
    pub const fn has_key(self) -> bool {
        matches!(self, Self::Put | Self::Tombstone)
    }
}

/// Properties of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u8);

impl Flags {
    /// None set.
    pub const NONE: Self = Self(0);
    /// An expiry time follows the header. Derived when encoding.
    pub const EXPIRY: Self = Self(1);
    /// The frame is an operation of the batch whose head came before.
    pub const IN_BATCH: Self = Self(2);
    /// The value is compressed with LZ4.
    pub const LZ4: Self = Self(4);
    /// The value is compressed with Zstandard.
    pub const ZSTD: Self = Self(8);

    const KNOWN: u8 = Self::EXPIRY.0 | Self::IN_BATCH.0 | Self::LZ4.0 | Self::ZSTD.0;
    const COMPRESSED: u8 = Self::LZ4.0 | Self::ZSTD.0;

    /// The bits as they stand in the tag.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether every flag of `other` is set.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Without the flags of `other`.
    #[inline]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those that belong to the value alone, whatever frame it stands in.
    #[inline]
    #[must_use]
    pub const fn of_value(self) -> Self {
        Self(self.0 & Self::COMPRESSED)
    }

    /// Known flags only, and at most one compression.
    #[inline]
    const fn are_valid(self) -> bool {
        self.0 & !Self::KNOWN == 0 && self.0 & Self::COMPRESSED != Self::COMPRESSED
    }

    /// The flags that frames of `kind` may carry.
    #[inline]
    const fn fit(self, kind: Kind) -> bool {
        let allowed = match kind {
            Kind::Put => Self::KNOWN,
            Kind::Tombstone => Self::IN_BATCH.0,
            Kind::Batch | Kind::Marker => 0,
        };
        self.0 & !allowed == 0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Why 20 bytes are not a frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// All 20 bytes are zero: nothing was written here.
    #[error("the header is empty")]
    Empty,
    /// Not one of the four kinds.
    #[error("unknown kind")]
    Kind,
    /// An unknown flag, or two compressions at once.
    #[error("impossible flags")]
    Flags,
    /// The key is longer than the limit.
    #[error("key length beyond the limit")]
    KeyLength,
    /// The value is longer than the limit.
    #[error("value length beyond the limit")]
    ValueLength,
    /// Lengths or flags that this kind never has, or sequence number 0.
    #[error("fields that do not fit the kind")]
    Shape,
}

/// A decoded header. Its checksum has not been compared yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The stored checksum.
    pub crc: u32,
    /// What the frame is.
    pub kind: Kind,
    /// Its properties.
    pub flags: Flags,
    /// Length of the key.
    pub key_len: u32,
    /// Length of the value, as stored.
    pub value_len: u32,
    /// The frame's sequence number.
    pub seqno: Seqno,
}

impl Header {
    /// Decodes a header and checks every rule that needs no other bytes.
    #[inline]
    pub fn decode(b: &[u8; HEADER_LEN]) -> Result<Self, HeaderFault> {
        let tag = bytes::get_u32(b, TAG_AT);
        let Some(kind) = Kind::decode(tag & KIND_MASK) else {
            return Err(if bytes::all_zero(b) { HeaderFault::Empty } else { HeaderFault::Kind });
        };
        let flags = Flags((tag >> FLAGS_SHIFT & FLAGS_MASK) as u8);
        let header = Self {
            crc: bytes::get_u32(b, CRC_AT),
            kind,
            flags,
            key_len: tag >> KEY_LEN_SHIFT,
            value_len: bytes::get_u32(b, VALUE_LEN_AT),
            seqno: Seqno(bytes::get_u64(b, SEQNO_AT)),
        };
        header.check()?;
        Ok(header)
    }

    /// The header that [`Header::decode`] would answer, if it is one of a put with a key of this
    /// length. Rules that no writer breaks are left to the checksum.
    ///
    /// Reads are bound by the latency of memory, so the processor must get far ahead of a header
    /// that is still on its way: here it predicts what `decode` would compute.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "results stay in the registers of the read path")]
    #[must_use]
    pub fn of_put(b: &[u8; HEADER_LEN], key_len: usize) -> Option<Self> {
        if key_len > KEY_LEN_MAX {
            return None;
        }
        let key_len = key_len as u32;
        let tag = bytes::get_u32(b, TAG_AT);
        let is_plain = tag == Kind::Put as u32 | key_len << KEY_LEN_SHIFT;
        let flags = if is_plain { Flags::NONE } else { Self::put_flags(tag, key_len)? };
        Some(Self {
            crc: bytes::get_u32(b, CRC_AT),
            kind: Kind::Put,
            flags,
            key_len,
            value_len: bytes::get_u32(b, VALUE_LEN_AT),
            seqno: Seqno(bytes::get_u64(b, SEQNO_AT)),
        })
    }

    /// The flags in a put's tag. A call, so that the compiler makes no arithmetic of the branch.
    #[inline(never)]
    fn put_flags(tag: u32, key_len: u32) -> Option<Flags> {
        let flags = Flags((tag >> FLAGS_SHIFT & FLAGS_MASK) as u8);
        let is_one = tag & KIND_MASK == Kind::Put as u32
            && tag >> KEY_LEN_SHIFT == key_len
            && flags.are_valid();
        is_one.then_some(flags)
    }

    #[inline]
    fn check(&self) -> Result<(), HeaderFault> {
        if !self.flags.are_valid() {
            return Err(HeaderFault::Flags);
        }
        if self.key_len as usize > KEY_LEN_MAX {
            return Err(HeaderFault::KeyLength);
        }
        if self.value_len as usize > VALUE_LEN_MAX {
            return Err(HeaderFault::ValueLength);
        }
        let lengths_fit = match self.kind {
            Kind::Put => true,
            Kind::Tombstone => self.value_len == 0,
            Kind::Batch => self.key_len == 0 && self.value_len as usize == BatchPart::LEN,
            Kind::Marker => self.key_len == 0 && self.value_len as usize == Marker::LEN,
        };
        let is_numbered = (Seqno::FIRST..=Seqno::MAX).contains(&self.seqno);
        if lengths_fit && self.flags.fit(self.kind) && is_numbered {
            Ok(())
        } else {
            Err(HeaderFault::Shape)
        }
    }

    #[inline]
    fn tag(&self) -> u32 {
        self.kind as u32
            | u32::from(self.flags.bits()) << FLAGS_SHIFT
            | self.key_len << KEY_LEN_SHIFT
    }

    /// Whether an expiry follows the header.
    #[inline]
    #[must_use]
    pub const fn has_expiry(&self) -> bool {
        self.flags.contains(Flags::EXPIRY)
    }

    /// When the record expires, in milliseconds since 1970. `frame` is the whole frame.
    #[inline]
    #[must_use]
    pub fn expiry(&self, frame: &[u8]) -> Option<u64> {
        if self.has_expiry() { Some(bytes::get_u64(frame, HEADER_LEN)) } else { None }
    }

    /// Length of the frame on disk, padding included.
    #[inline]
    #[must_use]
    pub const fn frame_len(&self) -> usize {
        padded(self.unpadded_len())
    }

    /// Length of the frame without its padding.
    #[inline]
    #[must_use]
    pub const fn unpadded_len(&self) -> usize {
        unpadded_len(self.has_expiry(), self.key_len as usize, self.value_len as usize)
    }

    /// Where the key lies in the frame.
    #[inline]
    #[must_use]
    pub const fn key_range(&self) -> Range<usize> {
        let start = unpadded_len(self.has_expiry(), 0, 0);
        start..start + self.key_len as usize
    }

    /// Where the value lies in the frame.
    #[inline]
    #[must_use]
    pub const fn value_range(&self) -> Range<usize> {
        let start = self.key_range().end;
        start..start + self.value_len as usize
    }
}

/// A frame to be written.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// What the frame is.
    pub kind: Kind,
    /// In a batch, compressed; [`Flags::EXPIRY`] follows from `expiry`.
    pub flags: Flags,
    /// The frame's sequence number.
    pub seqno: Seqno,
    /// Unix time in milliseconds.
    pub expiry: Option<u64>,
    /// The key; empty for batch heads and markers.
    pub key: &'a [u8],
    /// The value, or the encoded [`BatchPart`] or [`Marker`].
    pub value: &'a [u8],
}

impl Draft<'_> {
    /// Length of the frame on disk, padding included.
    #[inline]
    #[must_use]
    pub fn frame_len(&self) -> usize {
        frame_len(self.expiry.is_some(), self.key.len(), self.value.len())
    }

    /// Writes every byte of `out` and answers the frame's checksum.
    ///
    /// # Panics
    /// If `out` is not [`Self::frame_len`] long, or the draft breaks a rule of its kind: limits are
    /// checked before a draft is made.
    #[inline]
    pub fn encode(&self, seed: u32, out: &mut [u8]) -> u32 {
        let flags = match self.expiry {
            Some(_) => self.flags | Flags::EXPIRY,
            None => self.flags.without(Flags::EXPIRY),
        };
        assert!(
            self.key.len() <= KEY_LEN_MAX && self.value.len() <= VALUE_LEN_MAX,
            "lengths are checked against the limits before a frame is drafted"
        );
        let mut header = Header {
            crc: 0,
            kind: self.kind,
            flags,
            key_len: self.key.len() as u32,
            value_len: self.value.len() as u32,
            seqno: self.seqno,
        };
        header.check().expect("a draft keeps the rules of its kind");
        assert!(
            self.kind != Kind::Batch || BatchPart::decode(self.value).is_some(),
            "a batch part keeps its rules"
        );
        assert_eq!(out.len(), header.frame_len(), "a frame is encoded into exactly its length");

        // Padding lies in the last word; what else is there is overwritten.
        bytes::put_u64(out, out.len() - ALIGNMENT, 0);
        bytes::put_u32(out, TAG_AT, header.tag());
        bytes::put_u32(out, VALUE_LEN_AT, header.value_len);
        bytes::put_u64(out, SEQNO_AT, header.seqno.0);
        if let Some(expiry) = self.expiry {
            bytes::put_u64(out, EXPIRY_AT, expiry);
        }
        out[header.key_range()].copy_from_slice(self.key);
        out[header.value_range()].copy_from_slice(self.value);
        header.crc = checksum_of(out, seed);
        bytes::put_u32(out, CRC_AT, header.crc);
        header.crc
    }
}

/// A frame that validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the frame is.
    pub kind: Kind,
    /// Its properties.
    pub flags: Flags,
    /// The frame's sequence number.
    pub seqno: Seqno,
    /// Unix time in milliseconds.
    pub expiry: Option<u64>,
    /// The key; empty for batch heads and markers.
    pub key: &'a [u8],
    /// The value as stored, or an encoded [`BatchPart`] or [`Marker`].
    pub value: &'a [u8],
    /// Length of the frame on disk, padding included.
    pub frame_len: usize,
    /// The frame's checksum, which the segment's digest is made of.
    pub crc: u32,
}

/// Why bytes are not a valid frame, although a whole one would fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The header makes no sense.
    #[error(transparent)]
    Header(#[from] HeaderFault),
    /// The checksum is another frame's, or bytes changed.
    #[error("checksum mismatch")]
    Checksum,
    /// A batch part whose value breaks a rule.
    #[error("an impossible batch part")]
    BatchPart,
}

/// What stands at a place where a frame may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A valid frame.
    Record(Record<'a>),
    /// Nothing was written here: a header of zeros, or too few bytes for one, all zero.
    End,
    /// The frame runs past the input.
    Torn,
    /// A frame that is none.
    Corrupt(Reason),
}

/// Decodes the frame at the start of `bytes`, which reach to the end of what is readable.
#[inline]
#[must_use]
pub fn decode(bytes: &[u8], seed: u32) -> Frame<'_> {
    let Some(head) = bytes.first_chunk::<HEADER_LEN>() else {
        return if bytes::all_zero(bytes) { Frame::End } else { Frame::Torn };
    };
    let header = match Header::decode(head) {
        Ok(header) => header,
        Err(HeaderFault::Empty) => return Frame::End,
        Err(fault) => return Frame::Corrupt(Reason::Header(fault)),
    };
    let Some(frame) = bytes.get(..header.frame_len()) else {
        return Frame::Torn;
    };
    if let Err(reason) = check_frame(frame, &header, seed) {
        return Frame::Corrupt(reason);
    }
    Frame::Record(Record {
        kind: header.kind,
        flags: header.flags,
        seqno: header.seqno,
        expiry: header.has_expiry().then(|| bytes::get_u64(frame, EXPIRY_AT)),
        key: &frame[header.key_range()],
        value: &frame[header.value_range()],
        frame_len: frame.len(),
        crc: header.crc,
    })
}

/// Whether a frame of exactly `header.frame_len()` bytes, whose header was decoded from them, holds
/// what was written.
#[inline]
#[must_use]
pub fn frame_is_intact(frame: &[u8], header: &Header, seed: u32) -> bool {
    frame.len() == header.frame_len() && check_frame(frame, header, seed).is_ok()
}

/// Whether a frame of exactly `header.frame_len()` bytes holds `key`.
#[inline(always)]
#[expect(clippy::inline_always, reason = "results stay in the registers of the read path")]
#[must_use]
pub fn frame_has_key(frame: &[u8], header: &Header, key: &[u8]) -> bool {
    debug_assert_eq!(frame.len(), header.frame_len());
    bytes::equal(&frame[header.key_range()], key)
}

/// Whether a frame of exactly `header.frame_len()` bytes, whose header came from
/// [`Header::of_put`], holds what was written.
#[inline(always)]
#[expect(clippy::inline_always, reason = "results stay in the registers of the read path")]
#[must_use]
pub fn put_is_intact(frame: &[u8], header: &Header, seed: u32) -> bool {
    debug_assert_eq!(frame.len(), header.frame_len());
    checksum_of(frame, seed) == header.crc
}

/// The header of an intact put of `key` without flags that fills `frame`, if that is what it is. It
/// may be one of a batch, which the header that is answered does not say.
///
/// Reads are bound by the latency of memory. Here nothing that is yet to arrive says where to go on:
/// the processor predicts all answers, and begins the next lookup meanwhile.
#[inline(always)]
#[expect(clippy::inline_always, reason = "results stay in the registers of the read path")]
#[must_use]
pub fn plain_put(frame: &[u8], seed: u32, key: &[u8]) -> Option<Header> {
    let head = frame.first_chunk::<HEADER_LEN>()?;
    if key.len() > KEY_LEN_MAX || !bytes::equal(frame.get(HEADER_LEN..HEADER_LEN + key.len())?, key)
    {
        return None;
    }
    let header = Header {
        crc: bytes::get_u32(head, CRC_AT),
        kind: Kind::Put,
        flags: Flags::NONE,
        key_len: key.len() as u32,
        value_len: bytes::get_u32(head, VALUE_LEN_AT),
        seqno: Seqno(bytes::get_u64(head, SEQNO_AT)),
    };
    let is_plain = bytes::get_u32(head, TAG_AT) & !IN_BATCH_IN_TAG == header.tag();
    let is_whole = is_plain && checksum_of(frame, seed) == header.crc;
    (is_whole && header.frame_len() == frame.len()).then_some(header)
}

/// Compares the checksum, and looks at a batch part's value. `frame` is `header.frame_len()` long.
#[inline]
fn check_frame(frame: &[u8], header: &Header, seed: u32) -> Result<(), Reason> {
    if checksum_of(frame, seed) != header.crc {
        return Err(Reason::Checksum);
    }
    if header.kind == Kind::Batch && BatchPart::decode(&frame[header.value_range()]).is_none() {
        return Err(Reason::BatchPart);
    }
    Ok(())
}

/// The checksum of a whole frame. What it covers begins with half a word, and then whole words
/// follow.
#[inline(always)]
#[expect(clippy::inline_always, reason = "results stay in the registers of the read path")]
fn checksum_of(frame: &[u8], seed: u32) -> u32 {
    checksum::extend(seed, &frame[CHECKED_FROM..])
}

/// Where the checksummed bytes of a frame begin.
pub(crate) const CHECKED_FROM: usize = TAG_AT;
/// The byte of a frame whose low bits hold the kind.
pub(crate) const KIND_AT: usize = TAG_AT;

/// Whether the low bits of the byte at [`KIND_AT`] name a kind.
#[inline]
pub(crate) const fn names_a_kind(byte: u8) -> bool {
    (byte & KIND_MASK as u8).wrapping_sub(1) < Kind::Marker as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Draft<'a> {
        Draft { kind: Kind::Put, flags: Flags::NONE, seqno: Seqno(9), expiry: None, key, value }
    }

    fn encode(draft: &Draft<'_>, seed: u32) -> Vec<u8> {
        let mut out = vec![0xEE; draft.frame_len()];
        draft.encode(seed, &mut out);
        out
    }

    fn header_fault(tag: u32, value_len: u32, seqno: u64) -> Option<HeaderFault> {
        let mut b = [0; HEADER_LEN];
        bytes::put_u32(&mut b, TAG_AT, tag);
        bytes::put_u32(&mut b, VALUE_LEN_AT, value_len);
        bytes::put_u64(&mut b, SEQNO_AT, seqno);
        Header::decode(&b).err()
    }

    /// What the quick way says of a frame.
    fn quick(frame: &[u8], key: &[u8], seed: u32) -> bool {
        let head = frame.first_chunk().unwrap();
        Header::of_put(head, key.len()).is_some_and(|header| {
            // It does not look at the sequence number: recovery did, or the checksum does.
            let is_numbered = (Seqno::FIRST..=Seqno::MAX).contains(&header.seqno);
            assert_eq!(Header::decode(head).ok(), is_numbered.then_some(header));
            let frame = frame.get(..header.frame_len());
            frame.is_some_and(|frame| {
                frame_has_key(frame, &header, key) && put_is_intact(frame, &header, seed)
            })
        })
    }

    #[test]
    fn the_quick_way_agrees_with_the_thorough_one() {
        let long = [7; 40];
        for key in [&b""[..], b"k", b"eight by", b"sixteen bytes ok", &long] {
            for expiry in [None, Some(77)] {
                for flags in [Flags::NONE, Flags::LZ4] {
                    let frame = encode(&Draft { flags, expiry, ..put(key, b"some value") }, 5);
                    assert!(quick(&frame, key, 5));
                    let is_plain = expiry.is_none() && flags == Flags::NONE;
                    assert_eq!(plain_put(&frame, 5, key).is_some(), is_plain);
                    assert!(!quick(&frame, key, 4));
                    assert!(!quick(&frame, b"another key here", 5));
                    // Miri takes a thousand times as long.
                    for bit in (0..frame.len() * 8).step_by(if cfg!(miri) { 61 } else { 1 }) {
                        let mut frame = frame.clone();
                        frame[bit / 8] ^= 1 << (bit % 8);
                        assert!(!matches!(decode(&frame, 5), Frame::Record(_)));
                        assert!(!quick(&frame, key, 5), "{bit}");
                        assert_eq!(plain_put(&frame, 5, key), None, "{bit}");
                    }
                }
            }
        }
        let tombstone = Draft { kind: Kind::Tombstone, ..put(b"gone", b"") };
        assert!(!quick(&encode(&tombstone, 5), b"gone", 5));
    }

    #[test]
    fn a_plain_put_is_told_from_all_else() {
        let with_crc = |frame: &mut [u8]| {
            let crc = checksum_of(frame, 5);
            bytes::put_u32(frame, CRC_AT, crc);
        };
        let is_plain = |draft: &Draft<'_>| plain_put(&encode(draft, 5), 5, draft.key).is_some();
        for key in [&b""[..], b"k", b"eight by", b"sixteen bytes ok", &[7; 40]] {
            for value_len in [0, 1, 7, 8, 30, 100, 300] {
                let value = vec![3; value_len];
                let frame = encode(&put(key, &value), 5);
                let header = plain_put(&frame, 5, key).expect("it is one");
                assert_eq!(Ok(header), Header::decode(frame.first_chunk().unwrap()));
                assert_eq!(plain_put(&frame, 4, key), None);
                assert_eq!(plain_put(&frame, 5, b"another key here"), None);
                // Another length is none of the frame's, even if the checksum were right.
                for len in [0, 8, frame.len() - 8] {
                    assert_eq!(plain_put(&frame[..len], 5, key), None);
                }
                let mut longer = [&frame[..], &[0; 8]].concat();
                assert_eq!(plain_put(&longer, 5, key), None);
                with_crc(&mut longer);
                assert_eq!(plain_put(&longer, 5, key), None);
            }
        }
        assert!(is_plain(&put(b"key", b"")));
        assert!(!is_plain(&Draft { kind: Kind::Tombstone, ..put(b"key", b"") }));
        assert!(!is_plain(&Draft { expiry: Some(77), ..put(b"key", b"value") }));
        for (flags, expected) in
            [(Flags::IN_BATCH, true), (Flags::LZ4, false), (Flags::ZSTD, false)]
        {
            assert_eq!(is_plain(&Draft { flags, ..put(b"key", b"value") }), expected);
        }
    }

    #[test]
    fn a_put_round_trips() {
        let draft = Draft { expiry: Some(77), flags: Flags::IN_BATCH, ..put(b"key", b"value") };
        let frame = encode(&draft, 5);
        let Frame::Record(record) = decode(&frame, 5) else { panic!("not a record") };
        assert_eq!((record.key, record.value), (&b"key"[..], &b"value"[..]));
        assert_eq!((record.seqno, record.expiry), (Seqno(9), Some(77)));
        assert_eq!(record.flags, Flags::IN_BATCH | Flags::EXPIRY);
        assert_eq!(record.frame_len, frame.len());
        assert_eq!(record.crc.to_le_bytes(), frame[..4]);
        assert_eq!(decode(&frame, 6), Frame::Corrupt(Reason::Checksum));
    }

    #[test]
    fn nothing_written_is_the_end() {
        for len in 0..40 {
            assert_eq!(decode(&vec![0; len], 1), Frame::End);
        }
        assert_eq!(decode(&[0, 0, 0, 1], 1), Frame::Torn);
    }

    #[test]
    fn padding_is_covered() {
        let mut frame = encode(&put(b"k", b""), 3);
        let header = Header::decode(frame.first_chunk().unwrap()).unwrap();
        assert!(frame.len() > header.unpadded_len());
        *frame.last_mut().unwrap() = 1;
        assert_eq!(decode(&frame, 3), Frame::Corrupt(Reason::Checksum));
        assert!(!frame_is_intact(&frame, &header, 3));
        *frame.last_mut().unwrap() = 0;
        assert!(frame_is_intact(&frame, &header, 3));
        assert!(!frame_is_intact(&frame[..8], &header, 3));
    }

    #[test]
    fn header_rules() {
        let tag = |kind: u32, flags: u32, key_len: u32| kind | flags << 3 | key_len << 8;
        let key_len_max = KEY_LEN_MAX as u32;
        let value_len_max = VALUE_LEN_MAX as u32;
        for kind in [0, 5, 6, 7] {
            assert_eq!(header_fault(tag(kind, 0, 1), 1, 1), Some(HeaderFault::Kind), "{kind}");
        }
        assert_eq!(header_fault(0, 0, 0), Some(HeaderFault::Empty));
        assert_eq!(header_fault(tag(1, 15, 1), 1, 1), Some(HeaderFault::Flags), "two compressions");
        assert_eq!(header_fault(tag(1, 16, 1), 1, 1), Some(HeaderFault::Flags), "reserved");
        assert_eq!(header_fault(tag(1, 7, key_len_max), value_len_max, 1), None);
        assert_eq!(header_fault(tag(1, 0, key_len_max + 1), 1, 1), Some(HeaderFault::KeyLength));
        assert_eq!(
            header_fault(tag(1, 0, 1), value_len_max + 1, 1),
            Some(HeaderFault::ValueLength)
        );
        assert_eq!(header_fault(tag(1, 0, 1), 1, 0), Some(HeaderFault::Shape), "seqno 0");
        assert_eq!(header_fault(tag(2, 2, 1), 0, 1), None);
        assert_eq!(header_fault(tag(2, 0, 1), 1, 1), Some(HeaderFault::Shape), "tombstone's value");
        assert_eq!(header_fault(tag(2, 1, 1), 0, 1), Some(HeaderFault::Shape), "tombstone expires");
        assert_eq!(header_fault(tag(2, 4, 1), 0, 1), Some(HeaderFault::Shape), "compressed");
        assert_eq!(header_fault(tag(3, 0, 0), 24, 1), None);
        assert_eq!(header_fault(tag(3, 2, 0), 24, 1), Some(HeaderFault::Shape), "head in a batch");
        assert_eq!(header_fault(tag(3, 0, 1), 24, 1), Some(HeaderFault::Shape), "head with a key");
        assert_eq!(header_fault(tag(3, 0, 0), 23, 1), Some(HeaderFault::Shape), "short head");
        assert_eq!(header_fault(tag(4, 0, 0), 8, 1), None);
        assert_eq!(header_fault(tag(4, 0, 0), 9, 1), Some(HeaderFault::Shape), "long marker");
        for byte in 0..=255 {
            assert_eq!(names_a_kind(byte), Kind::decode(u32::from(byte) & KIND_MASK).is_some());
        }
    }

    #[test]
    fn an_impossible_batch_part_is_no_frame() {
        let part = BatchPart {
            coordinator: ShardId(1),
            parts: 1,
            ops: 0,
            coordinator_seqno: Seqno(1),
            bytes: 0,
        };
        let head = Draft { kind: Kind::Batch, value: &part.encode(), ..put(b"", b"") };
        let mut frame = encode(&head, 5);
        assert!(matches!(decode(&frame, 5), Frame::Record(_)));
        // No shard takes part; the checksum is right.
        frame[HEADER_LEN + payload::PARTS_AT] = 0;
        assert_eq!(decode(&frame, 5), Frame::Corrupt(Reason::Checksum));
        let crc = checksum_of(&frame, 5);
        bytes::put_u32(&mut frame, CRC_AT, crc);
        assert_eq!(decode(&frame, 5), Frame::Corrupt(Reason::BatchPart));
    }
}
