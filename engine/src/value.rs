//! What a read answers: a handle that owns its bytes, or keeps their segment mapped.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use caskade_codec::ids::ShardId;
use caskade_codec::record::Flags;
use caskade_shard::read_path::Found;
use caskade_shard::segment::Segment;

use crate::buffer::Buffer;
use crate::compress;
use crate::version::Version;
use crate::{Error, Result};

/// Values up to this length are copied: threads that read the same segment would meet at its
/// reference count.
const COPIED_MAX: usize = 1024;

/// A value as it was when it was read.
///
/// It dereferences to its bytes. Small values are copied; a large one borrows the memory map of its
/// segment, which stays valid for as long as any handle to it lives, also when the key is
/// overwritten, the segment is merged away, or the store is closed.
#[derive(Clone)]
pub struct Value {
    repr: Repr,
    version: Version,
    expiry: Option<u64>,
}

#[derive(Clone)]
enum Repr {
    Copied(Buffer),
    Mapped { segment: Arc<Segment>, start: u64, end: u64 },
}

impl Value {
    /// The value of a verified record.
    #[inline]
    pub(crate) fn new(
        found: &Found<'_>,
        shard: ShardId,
        segment: impl FnOnce() -> Arc<Segment>,
    ) -> Result<Self> {
        let header = &found.frame.header;
        let stored = found.frame.value();
        let version = Version::new(shard, header.seqno);
        let expiry = found.frame.expiry();
        let repr = if header.flags.contains(Flags::LZ4) || header.flags.contains(Flags::ZSTD) {
            Repr::Copied(decompress(*found)?.into())
        } else if stored.len() <= COPIED_MAX {
            Repr::Copied(Buffer::copied(stored))
        } else {
            let segment = segment();
            let start = found.location.offset() + header.value_range().start as u64;
            Repr::Mapped { segment, start, end: start + stored.len() as u64 }
        };
        Ok(Self { repr, version, expiry })
    }

    /// What is known of a value without looking at it.
    pub(crate) fn empty(found: &Found<'_>, shard: ShardId) -> Self {
        let version = Version::new(shard, found.frame.header.seqno);
        Self { repr: Repr::Copied(Buffer::copied(&[])), version, expiry: found.frame.expiry() }
    }

    /// The version of the write that stored it; see [`Db::put_if_version`](crate::Db::put_if_version).
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// When it expires, in milliseconds since 1970.
    #[must_use]
    pub fn expires_at_unix_ms(&self) -> Option<u64> {
        self.expiry
    }
}

/// The bytes behind a compressed record.
#[cold]
pub(crate) fn decompress(found: Found<'_>) -> Result<Vec<u8>> {
    let frame = &found.frame;
    compress::decompress(frame.header.flags, frame.value()).map_err(|fault| match fault {
        compress::Fault::NotBuilt(codec) => Error::Compression { codec },
        compress::Fault::Broken(reason) => found.segment.corrupt(found.location.offset(), reason),
    })
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.repr {
            Repr::Copied(bytes) => bytes,
            Repr::Mapped { segment, start, end } => &segment.published(*end)[*start as usize..],
        }
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value(b\"{}\")", self.escape_ascii())
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Value {}

impl PartialEq<[u8]> for Value {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl PartialEq<&[u8]> for Value {
    fn eq(&self, other: &&[u8]) -> bool {
        **self == **other
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Value {
    fn eq(&self, other: &[u8; N]) -> bool {
        **self == other[..]
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Value {
    fn eq(&self, other: &&[u8; N]) -> bool {
        **self == other[..]
    }
}

impl PartialEq<Vec<u8>> for Value {
    fn eq(&self, other: &Vec<u8>) -> bool {
        **self == **other
    }
}

impl From<Value> for Vec<u8> {
    fn from(value: Value) -> Self {
        value.to_vec()
    }
}

#[cfg(feature = "bytes")]
impl From<Value> for bytes::Bytes {
    /// Shares the value's memory; a small one is copied.
    fn from(value: Value) -> Self {
        Self::from_owner(value)
    }
}
