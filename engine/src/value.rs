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
/// It dereferences to its bytes. Values of up to 1 KiB are copied, into up to 4 KiB of memory that
/// the thread used before; a larger one borrows the memory map of its segment, which stays valid, and
/// on disk, for as long as any handle to it lives, also when the key is overwritten, the segment is
/// merged away, or the store is closed. A compressed value is decompressed into memory of its own, and
/// [`Db::get_many`](crate::Db::get_many) copies several into one piece. Who keeps values for long takes `to_vec()`.
#[derive(Clone)]
pub struct Value {
    repr: Repr,
    version: Version,
    /// [`NEVER`] for none.
    expiry: u64,
}

/// The end of a value without one.
const NEVER: u64 = u64::MAX;

#[derive(Clone)]
enum Repr {
    Copied(Buffer),
    /// One of several that were copied together.
    Shared {
        bytes: Arc<[u8]>,
        start: u32,
        end: u32,
    },
    Mapped {
        segment: Arc<Segment>,
        start: u64,
        end: u64,
    },
}

impl Value {
    /// The value of a verified record. `segment` gives the segment that holds it.
    // The record is passed by value, so that a plain one is never put together in memory.
    #[inline]
    pub(crate) fn new(
        found: Found<'_>,
        shard: ShardId,
        segment: impl FnOnce(Found<'_>) -> Arc<Segment>,
    ) -> Result<Self> {
        if is_copied(&found) {
            Ok(Self::copied(found, shard))
        } else {
            Self::other(found, shard, segment)
        }
    }

    /// The value of a verified record, of which [`is_copied`] is true.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "put together where it is answered, without a move")]
    pub(crate) fn copied(found: Found<'_>, shard: ShardId) -> Self {
        Self {
            repr: Repr::Copied(Buffer::copied(found.frame.value())),
            version: Version::new(shard, found.frame.header.seqno),
            expiry: found.frame.expiry().unwrap_or(NEVER),
        }
    }

    /// A value that is not copied as it is.
    #[inline(never)]
    pub(crate) fn other(
        found: Found<'_>,
        shard: ShardId,
        segment: impl FnOnce(Found<'_>) -> Arc<Segment>,
    ) -> Result<Self> {
        let value = Self::empty(&found, shard);
        let repr = if is_compressed(&found) {
            Repr::Copied(decompress(found)?.into())
        } else {
            let range = found.frame.header.value_range();
            let at = |place: usize| found.location.offset() + place as u64;
            Repr::Mapped { segment: segment(found), start: at(range.start), end: at(range.end) }
        };
        Ok(Self { repr, ..value })
    }

    /// What is known of a value without looking at it.
    pub(crate) fn empty(found: &Found<'_>, shard: ShardId) -> Self {
        let version = Version::new(shard, found.frame.header.seqno);
        Self {
            repr: Repr::Copied(Buffer::from(Vec::new())),
            version,
            expiry: found.frame.expiry().unwrap_or(NEVER),
        }
    }

    /// The version of the write that stored it; see [`Db::put_if_version`](crate::Db::put_if_version).
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// When it expires, in milliseconds since 1970.
    #[must_use]
    pub fn expires_at_unix_ms(&self) -> Option<u64> {
        (self.expiry != NEVER).then_some(self.expiry)
    }
}

/// One of the [`Copies`].
struct Placed {
    /// Where it goes.
    at: usize,
    /// Where it ends in the memory.
    end: u32,
    version: Version,
    expiry: u64,
}

/// Small values on their way into one piece of memory: an allocation for all of them.
///
/// Few enough that it does no harm if only one of them is kept.
pub(crate) struct Copies {
    bytes: Vec<u8>,
    values: Vec<Placed>,
}

impl Copies {
    /// None yet, and room for so many at once.
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self { bytes: Vec::new(), values: Vec::with_capacity(count) }
    }

    /// Copies the value, or answers that it is none to be copied as it is.
    #[inline]
    pub(crate) fn take(&mut self, at: usize, found: &Found<'_>, shard: ShardId) -> bool {
        if !is_copied(found) {
            return false;
        }
        let value = found.frame.value();
        if self.values.is_empty() {
            // The others may be about as long.
            self.bytes.reserve(self.values.capacity() * value.len());
        }
        self.bytes.extend_from_slice(value);
        self.values.push(Placed {
            at,
            end: self.bytes.len() as u32,
            version: Version::new(shard, found.frame.header.seqno),
            expiry: found.frame.expiry().unwrap_or(NEVER),
        });
        true
    }

    /// Puts the values where they go, once there are `least` of them.
    #[inline]
    pub(crate) fn give(&mut self, least: usize, to: &mut [Option<Value>]) {
        if self.values.len() < least {
            return;
        }
        let shared: Arc<[u8]> = Arc::from(&*self.bytes);
        self.bytes.clear();
        let mut start = 0;
        for Placed { at, end, version, expiry } in self.values.drain(..) {
            let repr = Repr::Shared { bytes: Arc::clone(&shared), start, end };
            to[at] = Some(Value { repr, version, expiry });
            start = end;
        }
    }
}

/// Whether the value is answered as a copy of what is stored.
#[inline]
pub(crate) fn is_copied(found: &Found<'_>) -> bool {
    !is_compressed(found) && found.frame.value().len() <= COPIED_MAX
}

#[inline]
pub(crate) fn is_compressed(found: &Found<'_>) -> bool {
    let flags = found.frame.header.flags;
    flags.contains(Flags::LZ4) || flags.contains(Flags::ZSTD)
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
            Repr::Shared { bytes, start, end } => &bytes[*start as usize..*end as usize],
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
        match value.repr {
            Repr::Copied(bytes) => bytes.into_vec(),
            _ => value.to_vec(),
        }
    }
}

#[cfg(feature = "bytes")]
impl From<Value> for bytes::Bytes {
    /// Shares the value's memory; nothing is copied.
    fn from(value: Value) -> Self {
        Self::from_owner(value)
    }
}
