//! The one error type of the store. It says what happened, where, and with which numbers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caskade_codec::ids::{SegmentId, ShardId};

/// What went wrong.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// The disk, the quota or the inode table is full. Nothing of the write is kept; reads go on,
    /// and writes succeed again once there is space, without reopening.
    #[error("no space left to {action} {}", path.display())]
    NoSpace {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file that could not grow.
        path: PathBuf,
    },
    /// Stored bytes do not match their checksum. From a read, other keys stay readable; from an open,
    /// the damage reaches further than one record.
    #[error("corrupt data in shard {shard}, segment {segment}, offset {offset}: {reason}")]
    Corrupt {
        /// The shard.
        shard: ShardId,
        /// The segment.
        segment: SegmentId,
        /// Where in the segment's file the damaged record begins.
        offset: u64,
        /// What did not fit.
        reason: String,
    },
    /// A file that describes the store is damaged beyond its own redundancy.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What did not fit.
        reason: String,
    },
    /// A segment that the manifest lists is not there.
    #[error("segment {segment} of shard {shard} is missing: {}", path.display())]
    MissingSegment {
        /// The shard.
        shard: ShardId,
        /// The segment.
        segment: SegmentId,
        /// Where it should be.
        path: PathBuf,
    },
    /// Somebody else has the store open for writing.
    #[error("the store {} is in use{}", path.display(), holder(*pid))]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The process that holds it, as far as the lock file tells.
        pid: Option<u32>,
    },
    /// There is no store in this directory, or it is no place for one.
    #[error("no store at {}: {reason}", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// What is there instead.
        reason: &'static str,
    },
    /// The store was made by a version of the format that this library does not know.
    #[error("{} has format version {found}, this library reads up to {supported}", path.display())]
    UnknownFormat {
        /// The file that says so.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version this library reads.
        supported: u32,
    },
    /// The store has another number of shards than the options ask for.
    #[error(
        "the store has {stored} shards, the options ask for {asked}; leave the number out to use the store's"
    )]
    ShardCount {
        /// What the store was created with.
        stored: u16,
        /// What was asked for.
        asked: u16,
    },
    /// A key is longer than the format allows.
    #[error("a key of {len} bytes is over the limit of {limit}")]
    KeyTooLarge {
        /// The key's length.
        len: usize,
        /// The longest legal key.
        limit: usize,
    },
    /// A value is longer than the format allows.
    #[error("a value of {len} bytes is over the limit of {limit}")]
    ValueTooLarge {
        /// The value's length.
        len: usize,
        /// The longest legal value.
        limit: usize,
    },
    /// A batch does not fit in one segment file of the largest legal size.
    #[error("a batch with {bytes} bytes for one shard is over the limit of {limit}")]
    BatchTooLarge {
        /// Bytes that one shard would have to take.
        bytes: u64,
        /// The most a shard takes in one batch.
        limit: u64,
    },
    /// An option has a value that makes no sense.
    #[error("option {name}: {reason}")]
    InvalidOption {
        /// The option.
        name: &'static str,
        /// Why the value is refused, and what would be accepted.
        reason: String,
    },
    /// `fetch_add` met a value that is not an eight byte little-endian integer.
    #[error("the stored value has {len} bytes; a counter has 8")]
    NotACounter {
        /// Length of the value found.
        len: usize,
    },
    /// A read-only open met a store whose last life ended in a power cut: its journal holds writes
    /// that are not in the segments yet.
    #[error("{} lacks writes that the journal holds; open the store for writing once", path.display())]
    NeedsRecovery {
        /// The segment that lacks them.
        path: PathBuf,
    },
    /// A write on a store that was opened read-only.
    #[error("the store was opened read-only")]
    ReadOnly,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// An earlier failure left the disk's state unknown. Reads go on; writes need a reopened store. From a
    /// checkpoint it may mean that only checkpoints are refused until then, which is so while `Db::poisoned`
    /// answers `None`.
    #[error(
        "refused until the store is reopened, after a failure that left the disk's state unknown: {cause}"
    )]
    Poisoned {
        /// The first failure.
        cause: Arc<str>,
    },
    /// This write may or may not survive: making it durable failed.
    #[error("it is unknown whether the write is durable: {cause}")]
    Indeterminate {
        /// The failure.
        cause: Arc<str>,
    },
    /// A progress callback asked to stop.
    #[error("stopped by the progress callback")]
    Stopped,
    /// A stored value was written with a compression that this build does not include.
    #[error("a value is compressed with {codec}; build with the feature `{codec}` to read it")]
    Compression {
        /// The missing feature.
        codec: &'static str,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" by process {pid}"))
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of the operating system while doing `action` to `path`.
    #[must_use]
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::NoSpace { action, path: path.to_owned() }
        } else {
            Self::Io { action, path: path.to_owned(), source: Arc::new(source) }
        }
    }

    /// Whether this is a full disk.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }

    /// Whether this says that a file or directory does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Adds the action and the path to an [`io::Result`].
pub trait At<T> {
    /// Turns an I/O error into one that says what was tried on which file.
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::io(action, path, source))
    }
}
