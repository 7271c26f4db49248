//! The on-disk format of Caskade: bytes to meaning and back.
//!
//! No I/O, no threads, and no unsafe code but for what processors do for checksums (in
//! [`checksum`]). Decoding takes any bytes: it never panics, never reads past
//! its input and never allocates from a length that was not checked. `FORMAT.md` beside this crate
//! specifies every layout; the modules follow its order.
//!
//! | module | file |
//! |---|---|
//! | [`record`] | the frame that holds a put, a tombstone, a batch part header or a marker |
//! | [`segment`] | `0000000007.seg`: header, scanner, resynchronisation, digest |
//! | [`hint`] | `0000000007.hint`: what recovery needs of a sealed segment |
//! | [`meta`] | `STORE` |
//! | [`manifest`] | `MANIFEST` |
//! | [`snapshot`] | `KEYDIR` |
//! | [`journal`] | `JOURNAL-0`, `JOURNAL-1` |
//! | [`twin`] | the envelope of `STORE` and `MANIFEST`: the same payload twice |
//! | [`names`] | every file name, formatted and parsed |
//! | [`hash`], [`checksum`] | the key hash and the one checksum |
#![deny(unsafe_code)]

mod bytes;
mod fault;

pub mod checksum;
pub mod hash;
pub mod hint;
pub mod ids;
pub mod journal;
pub mod manifest;
pub mod meta;
pub mod names;
pub mod record;
pub mod segment;
pub mod snapshot;
pub mod twin;

pub use fault::Fault;
pub use ids::{SegmentId, Seqno, ShardId, StoreUuid};

/// The format version that this crate reads and writes.
pub const FORMAT_VERSION: u32 = 2;

// Offsets are `u64` in files and `usize` in memory; the two are the same size here.
const _: () = assert!(usize::BITS == 64);
