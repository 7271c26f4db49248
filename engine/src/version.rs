//! Versions: which write a value comes from.

use std::fmt;

use caskade_codec::ids::{Seqno, ShardId};

/// Names one write. Of two versions of one key the greater is the newer.
///
/// Versions of different keys say nothing about each other. A write that a power cut took leaves its
/// version to a later write of the same shard: before a version is kept for longer than the process
/// lives, [`Db::wait_durable`](crate::Db::wait_durable) should have answered `Ok` for it. A restored
/// backup goes back to older versions; `reshard` and `repair --into` write all records anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

const SEQNO_BITS: u32 = 56;

impl Version {
    /// Recovery accepts no number that reaches into the shard's bits.
    pub(crate) fn new(shard: ShardId, seqno: Seqno) -> Self {
        Self(u64::from(shard.0) << SEQNO_BITS | seqno.0 & Seqno::MAX.0)
    }

    pub(crate) fn parts(self) -> (ShardId, Seqno) {
        (ShardId((self.0 >> SEQNO_BITS) as u16), Seqno(self.0 & ((1 << SEQNO_BITS) - 1)))
    }

    /// As a plain number, to keep elsewhere.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// Back from [`Version::to_u64`].
    #[must_use]
    pub fn from_u64(raw: u64) -> Self {
        Self(raw)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shard, seqno) = self.parts();
        write!(f, "{shard}:{seqno}")
    }
}
