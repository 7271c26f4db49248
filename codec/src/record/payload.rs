//! The values of frames that are no records of keys: the heads of batch parts, and markers.

#[cfg(doc)]
use super::Kind;
use super::{ALIGNMENT, FRAME_LEN_MIN};
use crate::bytes;
use crate::ids::{Seqno, ShardId};
use crate::names;
use crate::segment::SEGMENT_LEN_MAX;

const COORDINATOR_AT: usize = 0;
pub(super) const PARTS_AT: usize = COORDINATOR_AT + 2;
const OPS_AT: usize = PARTS_AT + 2;
const COORDINATOR_SEQNO_AT: usize = OPS_AT + 4;
const BYTES_AT: usize = COORDINATOR_SEQNO_AT + 8;
const _: () = assert!(BYTES_AT + 8 == BatchPart::LEN);

/// The value of a [`Kind::Batch`] frame: one shard's part of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPart {
    /// The lowest participating shard. Together with its seqno it names the batch.
    pub coordinator: ShardId,
    /// How many shards take part.
    pub parts: u16,
    /// Operations in this part.
    pub ops: u32,
    /// The seqno of the coordinator's batch head.
    pub coordinator_seqno: Seqno,
    /// Length of the operations' frames, which follow directly.
    pub bytes: u64,
}

impl BatchPart {
    /// Length of the encoding.
    pub const LEN: usize = 24;

    /// The frame's value.
    #[inline]
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        bytes::put_u16(&mut out, COORDINATOR_AT, self.coordinator.0);
        bytes::put_u16(&mut out, PARTS_AT, self.parts);
        bytes::put_u32(&mut out, OPS_AT, self.ops);
        bytes::put_u64(&mut out, COORDINATOR_SEQNO_AT, self.coordinator_seqno.0);
        bytes::put_u64(&mut out, BYTES_AT, self.bytes);
        out
    }

    /// Decodes a frame's value. A batch has at least one part and no more than there can be shards,
    /// its name is a real shard and seqno, and its operations fit in a segment.
    #[must_use]
    pub fn decode(value: &[u8]) -> Option<Self> {
        let b: &[u8; Self::LEN] = value.try_into().ok()?;
        let part = Self {
            coordinator: ShardId(bytes::get_u16(b, COORDINATOR_AT)),
            parts: bytes::get_u16(b, PARTS_AT),
            ops: bytes::get_u32(b, OPS_AT),
            coordinator_seqno: Seqno(bytes::get_u64(b, COORDINATOR_SEQNO_AT)),
            bytes: bytes::get_u64(b, BYTES_AT),
        };
        part.is_possible().then_some(part)
    }

    const fn is_possible(&self) -> bool {
        self.coordinator.0 < names::SHARDS_MAX
            && self.parts > 0
            && self.parts <= names::SHARDS_MAX
            && self.coordinator_seqno.0 != Seqno::NONE.0
            && self.bytes.is_multiple_of(ALIGNMENT as u64)
            && self.bytes >= self.ops as u64 * FRAME_LEN_MIN as u64
            && self.bytes <= SEGMENT_LEN_MAX
    }
}

/// The value of a [`Kind::Marker`] frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// Every frame of this shard up to here was known durable when the marker was written.
    pub durable: Seqno,
}

impl Marker {
    /// Length of the encoding.
    pub const LEN: usize = 8;

    /// The frame's value.
    #[inline]
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        self.durable.0.to_le_bytes()
    }

    /// Decodes a frame's value.
    #[must_use]
    pub fn decode(value: &[u8]) -> Option<Self> {
        let durable = Seqno(u64::from_le_bytes(value.try_into().ok()?));
        Some(Self { durable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_round_trip() {
        let part = BatchPart {
            coordinator: ShardId(3),
            parts: 2,
            ops: 4,
            coordinator_seqno: Seqno(8),
            bytes: 96,
        };
        assert_eq!(BatchPart::decode(&part.encode()), Some(part));
        assert_eq!(BatchPart::decode(&part.encode()[1..]), None);
        let impossible = [
            BatchPart { parts: 0, ..part },
            BatchPart { parts: 257, ..part },
            BatchPart { coordinator: ShardId(256), ..part },
            BatchPart { coordinator_seqno: Seqno::NONE, ..part },
            BatchPart { bytes: 97, ..part },
            BatchPart { ops: 5, ..part },
            BatchPart { bytes: SEGMENT_LEN_MAX + 8, ..part },
        ];
        for part in impossible {
            assert_eq!(BatchPart::decode(&part.encode()), None, "{part:?}");
        }
        let marker = Marker { durable: Seqno(11) };
        assert_eq!(Marker::decode(&marker.encode()), Some(marker));
        assert_eq!(Marker::decode(&[0; 7]), None);
    }
}
