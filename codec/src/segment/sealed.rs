//! What is known of a segment once it is sealed: the manifest and the hint both state it, in one
//! layout.

use super::{Digest, Fault, HEADER_LEN, SEGMENT_LEN_MAX};
use crate::bytes;
use crate::ids::Seqno;
use crate::record::{ALIGNMENT, FRAME_LEN_MIN, Flags, Kind, Record};

const LEN_AT: usize = 0;
const DIGEST_AT: usize = LEN_AT + 8;
const FLAGS_AT: usize = DIGEST_AT + 4;
const ZERO_AT: usize = FLAGS_AT + 1;
const RECORDS_AT: usize = ZERO_AT + 3;
const MIN_SEQNO_AT: usize = RECORDS_AT + 8;
const MAX_SEQNO_AT: usize = MIN_SEQNO_AT + 8;
const EXPIRY_MAX_AT: usize = MAX_SEQNO_AT + 8;
const TOMBSTONE_BYTES_AT: usize = EXPIRY_MAX_AT + 8;
const _: () = assert!(TOMBSTONE_BYTES_AT + 8 == Sealed::ENCODED_LEN);

const HAS_BATCH: u8 = 1;

/// The facts of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// The file's length.
    pub len: u64,
    /// The [`Digest`] of its frames.
    pub digest: u32,
    /// Its puts and tombstones.
    pub records: u64,
    /// The lowest seqno of its frames, or none.
    pub min_seqno: Seqno,
    /// The highest seqno of its frames, or none.
    pub max_seqno: Seqno,
    /// The greatest expiry if every put expires (0 without puts), else `u64::MAX`.
    pub expiry_max: u64,
    /// Length of its tombstones' frames.
    pub tombstone_bytes: u64,
    /// Whether it holds a frame of a batch.
    pub has_batch: bool,
}

impl Sealed {
    /// Length of the encoding.
    pub const ENCODED_LEN: usize = 56;

    pub(crate) fn encode(&self) -> [u8; Self::ENCODED_LEN] {
        let mut out = [0; Self::ENCODED_LEN];
        bytes::put_u64(&mut out, LEN_AT, self.len);
        bytes::put_u32(&mut out, DIGEST_AT, self.digest);
        out[FLAGS_AT] = if self.has_batch { HAS_BATCH } else { 0 };
        bytes::put_u64(&mut out, RECORDS_AT, self.records);
        bytes::put_u64(&mut out, MIN_SEQNO_AT, self.min_seqno.0);
        bytes::put_u64(&mut out, MAX_SEQNO_AT, self.max_seqno.0);
        bytes::put_u64(&mut out, EXPIRY_MAX_AT, self.expiry_max);
        bytes::put_u64(&mut out, TOMBSTONE_BYTES_AT, self.tombstone_bytes);
        out
    }

    pub(crate) fn decode(b: &[u8; Self::ENCODED_LEN]) -> Result<Self, Fault> {
        if !bytes::all_zero(&b[ZERO_AT..RECORDS_AT]) || b[FLAGS_AT] & !HAS_BATCH != 0 {
            return Err(Fault::Field("flags"));
        }
        let sealed = Self {
            len: bytes::get_u64(b, LEN_AT),
            digest: bytes::get_u32(b, DIGEST_AT),
            records: bytes::get_u64(b, RECORDS_AT),
            min_seqno: Seqno(bytes::get_u64(b, MIN_SEQNO_AT)),
            max_seqno: Seqno(bytes::get_u64(b, MAX_SEQNO_AT)),
            expiry_max: bytes::get_u64(b, EXPIRY_MAX_AT),
            tombstone_bytes: bytes::get_u64(b, TOMBSTONE_BYTES_AT),
            has_batch: b[FLAGS_AT] == HAS_BATCH,
        };
        sealed.check()?;
        Ok(sealed)
    }

    /// Whether the numbers can be those of a segment.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let len_is_possible = self.len >= HEADER_LEN as u64
            && self.len <= SEGMENT_LEN_MAX
            && self.len.is_multiple_of(ALIGNMENT as u64);
        if !len_is_possible {
            return Err(Fault::Field("segment length"));
        }
        let frame_bytes = self.len - HEADER_LEN as u64;
        if self.records > frame_bytes / FRAME_LEN_MIN as u64 {
            return Err(Fault::Field("records"));
        }
        if self.tombstone_bytes > frame_bytes {
            return Err(Fault::Field("tombstone bytes"));
        }
        let is_empty = self.min_seqno == Seqno::NONE;
        if self.min_seqno > self.max_seqno
            || self.max_seqno > Seqno::MAX
            || is_empty != (self.max_seqno == Seqno::NONE)
            || is_empty != (frame_bytes == 0)
        {
            return Err(Fault::Field("seqno range"));
        }
        Ok(())
    }
}

/// Gathers the facts of a segment, frame by frame, whether it is being written or scanned.
#[derive(Debug, Clone)]
pub struct Tally {
    len: u64,
    digest: Digest,
    records: u64,
    min_seqno: Seqno,
    max_seqno: Seqno,
    expiry_max: u64,
    tombstone_bytes: u64,
    has_batch: bool,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            len: HEADER_LEN as u64,
            digest: Digest::default(),
            records: 0,
            min_seqno: Seqno::NONE,
            max_seqno: Seqno::NONE,
            expiry_max: 0,
            tombstone_bytes: 0,
            has_batch: false,
        }
    }
}

impl Tally {
    /// Takes in the next frame.
    #[inline]
    pub fn push(&mut self, record: &Record<'_>) {
        self.len += record.frame_len as u64;
        self.digest.push(record.crc);
        self.max_seqno = self.max_seqno.max(record.seqno);
        if self.min_seqno == Seqno::NONE || record.seqno < self.min_seqno {
            self.min_seqno = record.seqno;
        }
        match record.kind {
            Kind::Put => {
                self.records += 1;
                self.expiry_max = self.expiry_max.max(record.expiry.unwrap_or(u64::MAX));
            }
            Kind::Tombstone => {
                self.records += 1;
                self.tombstone_bytes += record.frame_len as u64;
            }
            Kind::Batch => self.has_batch = true,
            Kind::Marker => {}
        }
        self.has_batch |= record.flags.contains(Flags::IN_BATCH);
    }

    /// Length of the segment so far, its header included.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no frame was taken in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.min_seqno == Seqno::NONE
    }

    /// The facts of the frames so far.
    #[must_use]
    pub fn finish(&self) -> Sealed {
        Sealed {
            len: self.len,
            digest: self.digest.finish(),
            records: self.records,
            min_seqno: self.min_seqno,
            max_seqno: self.max_seqno,
            expiry_max: self.expiry_max,
            tombstone_bytes: self.tombstone_bytes,
            has_batch: self.has_batch,
        }
    }
}
