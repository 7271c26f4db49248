//! Every file name of a store, formatted and parsed. No other module spells one.
//!
//! Parsing is strict: a name is ours only if formatting what it means gives the same name back, so
//! that `7.seg`, `+000000007.seg` or `0000000007.seg.bak` stay untouched.

use crate::ids::{SegmentId, ShardId};
use std::ffi::OsStr;

/// The store's meta file.
pub const STORE: &str = "STORE";
/// The lock file. Never unlinked.
pub const LOCK: &str = "LOCK";
/// Space set aside for a full disk. Its content means nothing.
pub const RESERVE: &str = "RESERVE";
/// A shard's manifest.
pub const MANIFEST: &str = "MANIFEST";
/// A shard's keydir snapshot.
pub const KEYDIR: &str = "KEYDIR";
/// Number of journal files.
pub const JOURNALS: u8 = 2;
/// The longest that a journal file may be.
pub const JOURNAL_BYTES_MAX: u64 = 1 << 30;
/// The most shards a store may have.
pub const SHARDS_MAX: u16 = 256;

const JOURNAL_PREFIX: &str = "JOURNAL-";
const SHARD_PREFIX: &str = "shard-";
const SEGMENT_SUFFIX: &str = ".seg";
const HINT_SUFFIX: &str = ".hint";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// `JOURNAL-0` or `JOURNAL-1`.
#[must_use]
pub fn journal(index: u8) -> String {
    format!("{JOURNAL_PREFIX}{index}")
}

/// A shard's directory: `shard-007`.
#[must_use]
pub fn shard(shard: ShardId) -> String {
    format!("{SHARD_PREFIX}{:03}", shard.0)
}

/// A segment: `0000000007.seg`.
#[must_use]
pub fn segment(id: SegmentId) -> String {
    format!("{:010}{SEGMENT_SUFFIX}", id.0)
}

/// A segment's hint: `0000000007.hint`.
#[must_use]
pub fn hint(id: SegmentId) -> String {
    format!("{:010}{HINT_SUFFIX}", id.0)
}

/// What a file is called until it replaces `name`: `MANIFEST.tmp`.
#[must_use]
pub fn temporary(name: &str) -> String {
    format!("{name}{TEMPORARY_SUFFIX}")
}

/// What an entry of a store's directory is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreName {
    /// The meta file.
    Store,
    /// The lock file.
    Lock,
    /// Space set aside.
    Reserve,
    /// A journal file, by its index.
    Journal(u8),
    /// A shard's directory.
    Shard(ShardId),
    /// The replacement of one of our files, not yet renamed.
    Temporary,
    /// Not ours.
    Unknown,
}

impl StoreName {
    /// Parses an entry's name.
    #[must_use]
    pub fn parse(name: &OsStr) -> Self {
        name.to_str().map_or(Self::Unknown, |name| match name.strip_suffix(TEMPORARY_SUFFIX) {
            Some(replaced) => match Self::parse_final(replaced) {
                Self::Store | Self::Journal(_) => Self::Temporary,
                _ => Self::Unknown,
            },
            None => Self::parse_final(name),
        })
    }

    fn parse_final(name: &str) -> Self {
        if name == STORE {
            return Self::Store;
        }
        if name == LOCK {
            return Self::Lock;
        }
        if name == RESERVE {
            return Self::Reserve;
        }
        if let Some(index) = (0..JOURNALS).find(|&index| name == journal(index)) {
            return Self::Journal(index);
        }
        name.strip_prefix(SHARD_PREFIX)
            .and_then(|digits| digits.parse().ok())
            .map(ShardId)
            .filter(|&id| id.0 < SHARDS_MAX && name == shard(id))
            .map_or(Self::Unknown, Self::Shard)
    }
}

/// What an entry of a shard's directory is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileName {
    /// A segment.
    Segment(SegmentId),
    /// A segment's hint.
    Hint(SegmentId),
    /// The manifest.
    Manifest,
    /// The keydir snapshot.
    Keydir,
    /// The replacement of one of our files, not yet renamed.
    Temporary,
    /// Not ours.
    Unknown,
}

impl FileName {
    /// Parses an entry's name.
    #[must_use]
    pub fn parse(name: &OsStr) -> Self {
        name.to_str().map_or(Self::Unknown, |name| match name.strip_suffix(TEMPORARY_SUFFIX) {
            Some(replaced) if Self::parse_final(replaced) != Self::Unknown => Self::Temporary,
            _ => Self::parse_final(name),
        })
    }

    fn parse_final(name: &str) -> Self {
        if name == MANIFEST {
            return Self::Manifest;
        }
        if name == KEYDIR {
            return Self::Keydir;
        }
        numbered(name, SEGMENT_SUFFIX, segment)
            .map(Self::Segment)
            .or_else(|| numbered(name, HINT_SUFFIX, hint).map(Self::Hint))
            .unwrap_or(Self::Unknown)
    }
}

fn numbered(name: &str, suffix: &str, format: fn(SegmentId) -> String) -> Option<SegmentId> {
    let id = SegmentId(name.strip_suffix(suffix)?.parse().ok()?);
    (name == format(id)).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_shard(name: &str) -> FileName {
        FileName::parse(name.as_ref())
    }

    fn in_store(name: &str) -> StoreName {
        StoreName::parse(name.as_ref())
    }

    #[test]
    fn shard_names_round_trip() {
        for id in [0, 7, 9_999_999_999, 10_000_000_000, u64::MAX].map(SegmentId) {
            assert_eq!(in_shard(&segment(id)), FileName::Segment(id));
            assert_eq!(in_shard(&hint(id)), FileName::Hint(id));
            assert_eq!(in_shard(&temporary(&hint(id))), FileName::Temporary);
        }
        assert_eq!(segment(SegmentId(7)), "0000000007.seg");
        assert_eq!(in_shard(MANIFEST), FileName::Manifest);
        assert_eq!(in_shard(KEYDIR), FileName::Keydir);
        assert_eq!(in_shard("MANIFEST.tmp"), FileName::Temporary);
    }

    #[test]
    fn store_names_round_trip() {
        for id in [0, 7, 255].map(ShardId) {
            assert_eq!(in_store(&shard(id)), StoreName::Shard(id));
        }
        assert_eq!(shard(ShardId(7)), "shard-007");
        assert_eq!(in_store(STORE), StoreName::Store);
        assert_eq!(in_store(LOCK), StoreName::Lock);
        assert_eq!(in_store(&journal(1)), StoreName::Journal(1));
        assert_eq!(in_store("STORE.tmp"), StoreName::Temporary);
    }

    #[test]
    fn near_misses_are_not_ours() {
        for name in [
            "",
            ".seg",
            "7.seg",
            "0000000007.SEG",
            "0000000007.seg.bak",
            "00000000007.seg",
            "+000000007.seg",
            " 000000007.seg",
            "0000000007",
            "99999999999999999999.seg",
            "MANIFEST.tmp.tmp",
            "7.seg.tmp",
            ".tmp",
            "manifest",
        ] {
            assert_eq!(in_shard(name), FileName::Unknown, "{name:?}");
        }
        for name in [
            "shard-7",
            "shard-0007",
            "shard-256",
            "shard-+07",
            "shard-",
            "JOURNAL-2",
            "JOURNAL-",
            "LOCK.tmp",
            "shard-007.tmp",
            "STORE.bak",
        ] {
            assert_eq!(in_store(name), StoreName::Unknown, "{name:?}");
        }
    }
}
