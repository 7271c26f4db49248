//! Values drawn from a harness's input.

use caskade_codec::ids::{SegmentId, Seqno, ShardId, StoreUuid};
use caskade_codec::segment::{Role, SEGMENT_LEN_MAX, Sealed};

/// What the bytes after the first one mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They are the file.
    Raw,
    /// They are the file once its checksums are set right.
    Mended,
    /// They say how to build a valid file.
    Built,
}

/// Reads values off the input; behind its end everything is zero.
#[derive(Debug, Clone)]
pub(crate) struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that was not read yet.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let head = self.take(N);
        out[..head.len()].copy_from_slice(head);
        out
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        head
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A number from 1 on that is often small and may be any.
    pub(crate) fn positive(&mut self) -> u64 {
        let value = if self.bool() { self.u64() } else { u64::from(self.u8()) };
        value.max(1)
    }

    /// As many bytes as the next byte says.
    pub(crate) fn short(&mut self) -> &'a [u8] {
        let len = self.u8().into();
        self.take(len)
    }

    /// Bytes at no cost to the input: a few that repeat, up to `len_max` of them.
    pub(crate) fn long(&mut self, len_max: usize) -> Vec<u8> {
        let len = usize::from(self.u16()) % (len_max + 1);
        let pattern: [u8; 3] = self.array();
        pattern.into_iter().cycle().take(len).collect()
    }

    pub(crate) fn mode(&mut self) -> Mode {
        match self.u8() % 3 {
            0 => Mode::Raw,
            1 => Mode::Mended,
            _ => Mode::Built,
        }
    }

    pub(crate) fn uuid(&mut self) -> StoreUuid {
        StoreUuid([self.u8(); 16])
    }

    pub(crate) fn shard(&mut self) -> ShardId {
        ShardId(self.u8().into())
    }

    pub(crate) fn role(&mut self) -> Role {
        if self.bool() { Role::Merged } else { Role::Log }
    }

    /// Possible facts of a sealed segment, with frames or without.
    pub(crate) fn sealed(&mut self) -> Sealed {
        let units = u64::from(self.u32()) % (SEGMENT_LEN_MAX / 8 - 10);
        let len = if units < 3 { 64 } else { 64 + 8 * units };
        let (a, b) = (self.seqno().0, self.seqno().0);
        let (min, max) = if len == 64 { (0, 0) } else { (a.min(b), a.max(b)) };
        Sealed {
            len,
            digest: self.u32(),
            records: self.positive() % ((len - 64) / 24 + 1),
            min_seqno: Seqno(min),
            max_seqno: Seqno(max),
            expiry_max: self.u64(),
            tombstone_bytes: self.positive() % (len - 63),
            has_batch: self.bool(),
        }
    }

    pub(crate) fn seqno(&mut self) -> Seqno {
        Seqno(self.positive().min(Seqno::MAX.0))
    }

    pub(crate) fn segment_id(&mut self) -> SegmentId {
        SegmentId(self.positive())
    }
}
