//! Numbers that must not be confused with one another.

use std::fmt;

/// A shard's place among the shards of its store, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShardId(pub u16);

/// A segment's number within its shard. One that had records is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SegmentId(pub u64);

/// A frame's sequence number within its shard. It alone orders versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seqno(pub u64);

impl Seqno {
    /// The number below every frame's: "none yet".
    pub const NONE: Self = Self(0);
    /// The number of a shard's first frame.
    pub const FIRST: Self = Self(1);
    /// The highest that a file may name, so that a shard and a number fit in 64 bits. A frame a
    /// nanosecond takes two years to come there.
    pub const MAX: Self = Self((1 << 56) - 1);

    /// The number after this one.
    ///
    /// # Panics
    /// At `u64::MAX`, which no shard reaches: a frame a nanosecond takes five centuries.
    #[inline]
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a shard never runs out of sequence numbers"))
    }
}

/// A store's identity, drawn at random when it is created.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StoreUuid(pub [u8; 16]);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Seqno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for StoreUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUuid({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_is_shown_in_hex() {
        let uuid = StoreUuid([0xAB; 16]);
        assert_eq!(uuid.to_string(), "ab".repeat(16));
        assert_eq!(format!("{uuid:?}"), format!("StoreUuid({uuid})"));
    }

    #[test]
    fn seqnos_count_from_one() {
        assert_eq!(Seqno::NONE.next(), Seqno::FIRST);
        assert!(Seqno(9) < Seqno(10));
    }
}
