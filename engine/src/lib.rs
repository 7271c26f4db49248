//! Caskade: an embedded key-value store that reads like a hash map.
//!
//! ```
//! # fn main() -> caskade::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("data");
//! let db = caskade::Db::open(&path)?;
//! db.put(b"greeting", b"hello")?;
//! assert_eq!(db.get(b"greeting")?.unwrap(), b"hello");
//! db.delete(b"greeting")?;
//! assert!(db.get(b"greeting")?.is_none());
//! db.close()
//! # }
//! ```
//!
//! # Concepts
//!
//! - A store is a directory. Keys are hashed to **shards**; each shard has a **log** of append-only
//!   **segments** and a **keydir** in memory, about 16 bytes a key whatever the keys' length.
//! - Gets and [`Db::scan`] take no lock and make no system call, unless they are the first to look into a part of
//!   the index after an open, and make it; [`Db::iter`] stops all writers for the moment
//!   in which it takes its snapshot. Every read verifies the record's checksum.
//! - Writes go to memory-mapped, really allocated space, hardly ever with a system call. What `Ok` promises
//!   is the [`Durability`]; [`Db::sync`] and [`Db::wait_durable`] ask for more.
//! - A [`Batch`] is all or nothing after a crash, over any number of shards.
//! - Space comes back by **merging** in the background; [`Builder::max_space_amp`] is the bound.
//! - Nothing is ordered: there are no range scans. [`Db::iter`] is a consistent snapshot,
//!   [`Db::scan`] can be resumed.
//!
//! # Errors
//!
//! There is one type, [`Error`]; it says what happened, where, and with which numbers.
//!
//! - **Opening**: [`Error::Locked`] if this or another process has the store, [`Error::NotAStore`] if the
//!   directory is none, [`Error::UnknownFormat`] if a newer version made it, [`Error::Corrupt`],
//!   [`Error::Damaged`] or [`Error::MissingSegment`] if data that had been durable is damaged
//!   ([`RecoveryMode::Salvage`] opens what is left),
//!   [`Error::InvalidOption`] and [`Error::ShardCount`] for options that do not fit, and
//!   [`Error::NeedsRecovery`] if a store opened read-only must be opened for writing first.
//! - **Any read**: [`Error::Corrupt`] if the record is damaged; other keys stay readable.
//!   [`Error::Compression`] if this build lacks the feature that the value needs.
//! - **Any write**: [`Error::KeyTooLarge`] and its like for what is too large; [`Error::NoSpace`] if the
//!   disk is full: nothing of the write is kept, and writes go on once there is space.
//!   [`Error::Poisoned`] after a failure that left the disk's state unknown: reads go on, writes need
//!   the store to be opened again (from a checkpoint it may be about checkpoints alone). [`Error::ReadOnly`] if the store was opened so.
//!   [`Error::Indeterminate`] if the write was made, and reads see it, but it is unknown whether it
//!   survives a power cut. [`Db::poisoned`] tells whether the store still takes writes; if so,
//!   [`Db::sync`] may be tried again. After a failed fsync the system may take pages for clean that
//!   never reached the device: restart the machine before you rely on what a reopened store shows.
//! - **Any call**: [`Error::Closed`] once the store is closed, and [`Error::Io`] if the system refuses a
//!   file operation.
//!
//! # Limits
//!
//! A key has up to 65,536 bytes, and may be empty. A value has up to 4,294,901,688 bytes, a little under
//! 4 GiB less 64 KiB. What one shard gets of a batch must fit a segment of at most 32 GiB. A store has 1 to
//! 256 shards, as many as it was made with.
//!
//! # Threads
//!
//! [`Db`] is a handle: clones share one store, from any number of threads. One process has a store
//! open for writing; others may open it with [`Builder::read_only`] meanwhile. The core is no async
//! code: on an async runtime, call `get` in place and writes through `spawn_blocking` (see the example
//! `service`).
//!
//! A store open for writing has one thread of its own, `caskade`, and another while that has something to
//! wait for, `caskade-work`. Opening, sealing and merging run on rayon's global pool: a program that blocks that pool holds them up, and `RAYON_NUM_THREADS` or
//! `rayon::ThreadPoolBuilder::build_global` bounds it. [`Db::close`], and so the drop of the last handle,
//! waits for that thread and for fsyncs.
//!
//! # Platforms
//!
//! Linux with 64 bits, and Rust 1.95 or later.
//!
//! # Features
//!
//! All off by default: `bytes` (`Value` into `Bytes`), `serde` (statistics), `tracing` (spans),
//! `metrics` (statistics through the facade of that name), `lz4` and `zstd` (compressed values).
//!
//! # Watching it
//!
//! [`Db::stats`] has what to graph. [`Builder::on_slow_operation`] tells of callers that had to wait,
//! [`Builder::on_background_error`] of trouble that no caller hears of.
#![forbid(unsafe_code)]
#![warn(clippy::missing_errors_doc)]

mod batch;
mod buffer;
mod checkpoint;
mod compact;
mod compress;
mod conditional;
mod db;
mod iter;
mod maintenance;
#[cfg(feature = "metrics")]
mod metrics;
mod open;
mod options;
mod rate;
mod reads;
mod recover;
mod reserve;
mod slow;
mod stats;
mod store;
mod value;
mod verify;
mod version;
mod writes;

pub use batch::Batch;
pub use caskade_codec::ids::{SegmentId, ShardId};
pub use caskade_shard::recovery::{Loss, LossKind, RecoveryMode};
pub use caskade_shard::{Error, Result};
pub use checkpoint::{CheckpointProgress, CheckpointReport};
pub use compact::CompactProgress;
pub use db::{Db, Expiry};
pub use iter::{Entry, Iter, Keys, ScanCursor, ScanPage};
pub use options::{Background, Builder, Compression, Durability, OpenProgress, WriteOptions};
pub use slow::{Operation, SlowOperation};
pub use stats::{CompactReport, OpenReport, SegmentStats, ShardOpenReport, ShardStats, Stats};
pub use value::Value;
pub use verify::{Damage, VerifyProgress, VerifyReport};
pub use version::Version;

/// The README's code is compiled by `cargo test`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
