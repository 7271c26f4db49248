//! How a store is opened: the builder, durability, options of single writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use caskade_codec::names::{JOURNAL_BYTES_MAX, SHARDS_MAX};
use caskade_shard::context::Config;
use caskade_shard::recovery::RecoveryMode;
use caskade_shard::storage::{RealStorage, Storage};

use crate::db::Db;
use crate::slow::{SlowHook, SlowOperation};
use crate::{Error, Result};

/// What `Ok` from a write promises.
///
/// In every mode the write survives the death of the process. Other threads read a write as soon as it
/// is made, before it is durable: who acts on what was read calls
/// [`Db::wait_durable`] with the value's version first, where a power cut must not undo it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// After a power cut each shard keeps a prefix of its acknowledged writes.
    #[default]
    Buffered,
    /// As buffered, and a power cut loses at most this much time, plus one fsync, of writes.
    Interval(Duration),
    /// The write survives a power cut. Concurrent writers share fsyncs.
    Sync,
}

/// How values are compressed before they are stored.
///
/// A value that does not get smaller is stored as it is. Each record says how it is stored, so the
/// option may change from one open to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4: fast.
    #[cfg(feature = "lz4")]
    Lz4,
    /// Zstandard at its level 3: small.
    #[cfg(feature = "zstd")]
    Zstd,
}

/// Who does the background work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Background {
    /// A thread of the store's own.
    #[default]
    Thread,
    /// The caller, through [`Db::run_background`]. For tests, and for programs that schedule all
    /// their work themselves: without it nothing is sealed, merged or synced by time, and the snapshot that an
    /// open read stays in memory beside the index that is made of it.
    Manual,
}

/// Options of a single write.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriteOptions {
    pub(crate) expiry: Option<ExpiryAt>,
    pub(crate) durability: Option<Durability>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum ExpiryAt {
    In(Duration),
    UnixMillis(u64),
}

impl WriteOptions {
    /// The store's defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The record expires this long after it is written.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.expiry = Some(ExpiryAt::In(ttl));
        self
    }

    /// The record expires at this time, in milliseconds since 1970.
    #[must_use]
    pub fn expires_at_unix_ms(mut self, at: u64) -> Self {
        self.expiry = Some(ExpiryAt::UnixMillis(at));
        self
    }

    /// What `Ok` promises for this write. `Interval` has no meaning for a single write and counts
    /// as `Buffered`.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }
}

/// How far an open has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenProgress {
    /// Segments read.
    pub segments_done: u64,
    /// Segments known so far.
    pub segments_total: u64,
}

type ProgressFn = Arc<dyn Fn(OpenProgress) -> bool + Send + Sync>;
type ErrorHook = Arc<dyn Fn(&Error) + Send + Sync>;

/// Opens a store with other options than the defaults.
///
/// ```
/// # fn main() -> caskade::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("data");
/// use caskade::{Db, Durability};
///
/// let db = Db::builder(&path).shards(4).durability(Durability::Sync).open()?;
/// db.put(b"key", b"value")?;
/// # db.close()
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until it is opened"]
pub struct Builder {
    pub(crate) path: PathBuf,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) shards: Option<u16>,
    pub(crate) create: bool,
    pub(crate) read_only: bool,
    pub(crate) durability: Durability,
    pub(crate) compression: Compression,
    pub(crate) recovery: RecoveryMode,
    pub(crate) background: Background,
    pub(crate) config: Config,
    pub(crate) merge_window: Option<(u16, u16)>,
    pub(crate) snapshot_on_close: bool,
    pub(crate) progress: Option<ProgressFn>,
    pub(crate) on_background_error: Option<ErrorHook>,
    pub(crate) slow: Option<SlowHook>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("path", &self.path)
            .field("shards", &self.shards)
            .field("read_only", &self.read_only)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

/// Shards of a store that is created without saying how many.
pub(crate) const SHARDS_DEFAULT: u16 = 16;

impl Builder {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            // The process may go elsewhere while the store is open.
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            storage: Arc::new(RealStorage::new()),
            shards: None,
            create: true,
            read_only: false,
            durability: Durability::default(),
            compression: Compression::default(),
            recovery: RecoveryMode::default(),
            background: Background::default(),
            config: Config {
                segment_bytes_max: 64 << 20,
                segment_bytes_min: 1 << 20,
                max_space_amp: 1.5,
                journal_bytes: 8 << 20,
                merge_bytes_per_sec: None,
            },
            merge_window: None,
            snapshot_on_close: true,
            progress: None,
            on_background_error: None,
            slow: None,
        }
    }

    /// Number of shards, 1 to 256, fixed when the store is created (16 if not said). Opening an
    /// existing store with another number is an error.
    pub fn shards(mut self, shards: u16) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Whether to create the store if there is none (the default).
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Opens without a lock and writes nothing: a stable view as of the open, also while another
    /// process writes. See [`Db::refresh`].
    ///
    /// Damage is told or refused as by an open for writing, and left as it is. Where something is
    /// wrong, the open looks again every 20 ms, up to a second, until two looks agree: what a writer
    /// was only about to write is no damage.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// What `Ok` from a write promises, where the write does not say otherwise.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How values are compressed.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// How much damage the open accepts.
    pub fn recovery_mode(mut self, mode: RecoveryMode) -> Self {
        self.recovery = mode;
        self
    }

    /// Capacity of the largest ordinary segment file, 256 bytes to 8 GiB (64 MiB if not said). A value
    /// that is larger gets a segment of its own.
    pub fn segment_bytes_max(mut self, bytes: u64) -> Self {
        self.config.segment_bytes_max = bytes;
        self.config.segment_bytes_min = self.config.segment_bytes_min.min(bytes);
        self
    }

    /// Bound on the size of the segment files over the size of the live records, above 1.05 and at most
    /// 100 (1.5 if not said). Merging keeps it in steady state by itself, and may lag behind while much is
    /// overwritten; a lower bound costs more copying.
    pub fn max_space_amp(mut self, bound: f64) -> Self {
        self.config.max_space_amp = bound;
        self
    }

    /// Bytes a second that background merging may read, all shards together; no limit if not said.
    /// [`Db::compact`] is not limited.
    pub fn merge_bytes_per_sec(mut self, bytes: Option<u64>) -> Self {
        self.config.merge_bytes_per_sec = bytes;
        self
    }

    /// Merges by itself only between these minutes of the day (UTC), which may wrap around midnight;
    /// [`Db::compact`] does at any time, and segments in which nothing lives are removed at any time.
    /// Until the window opens the store may grow past its bound of space, and writers are not slowed
    /// down for it.
    pub fn merge_window(mut self, from_minute: u16, to_minute: u16) -> Self {
        self.merge_window = Some((from_minute, to_minute));
        self
    }

    /// Length of each of the two files of the commit journal (8 MiB if not said), 8 KiB to 1 GiB.
    /// They are created when something is first made durable at once: by a `Sync` write, [`Db::sync`],
    /// [`Db::wait_durable`], or after an `Interval`.
    pub fn journal_bytes(mut self, bytes: u64) -> Self {
        self.config.journal_bytes = bytes;
        self
    }

    /// Whether closing writes a snapshot of the keydir, which makes the next open fast (the
    /// default).
    pub fn snapshot_on_close(mut self, snapshot: bool) -> Self {
        self.snapshot_on_close = snapshot;
        self
    }

    /// Who does the background work.
    pub fn background(mut self, background: Background) -> Self {
        self.background = background;
        self
    }

    /// Called now and then while the store opens; answering `false` stops the open.
    pub fn on_open_progress(
        mut self,
        progress: impl Fn(OpenProgress) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Called with errors of background work, on the thread that does it, and again whenever a retry
    /// fails. It must not panic: that poisons the store, as any panic there does.
    pub fn on_background_error(mut self, hook: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.on_background_error = Some(Arc::new(hook));
        self
    }

    /// Called with every write, scan and sync for which its caller waited at least `threshold`, on the
    /// caller's thread, when it is done and holds no lock. Gets are not timed: they wait for a page of the
    /// disk at most, and after an open for a small part of the index to be made. Neither are checkpoints, compactions and background
    /// work: nobody waits for them by accident.
    ///
    /// ```
    /// # fn main() -> caskade::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("data");
    /// use std::time::Duration;
    ///
    /// let db = caskade::Db::builder(&path)
    ///     .on_slow_operation(Duration::from_millis(10), |slow| {
    ///         eprintln!("{} took {:?}", slow.operation.name(), slow.elapsed);
    ///     })
    ///     .open()?;
    /// # db.close()
    /// # }
    /// ```
    pub fn on_slow_operation(
        mut self,
        threshold: Duration,
        hook: impl Fn(&SlowOperation<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.slow = Some(SlowHook { threshold, hook: Arc::new(hook) });
        self
    }

    /// Replaces the file system. For tests with the simulator of `caskade-shard`.
    #[doc(hidden)]
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// Capacity of a shard's first segments. For tests on tiny segments.
    #[doc(hidden)]
    pub fn segment_bytes_min(mut self, bytes: u64) -> Self {
        self.config.segment_bytes_min = bytes;
        self
    }

    /// Opens the store.
    ///
    /// # Errors
    ///
    /// As [opening](crate#errors); [`Error::Stopped`] if the progress callback said so.
    pub fn open(self) -> Result<Db> {
        self.check()?;
        Db::open_with(self)
    }

    fn check(&self) -> Result<()> {
        let refuse = |name, reason: &str| -> Result<()> {
            Err(Error::InvalidOption { name, reason: reason.to_owned() })
        };
        if self.shards.is_some_and(|shards| !(1..=SHARDS_MAX).contains(&shards)) {
            return refuse("shards", "a store has 1 to 256 shards");
        }
        let config = &self.config;
        if !(256..=8 << 30).contains(&config.segment_bytes_max)
            || !(256..=config.segment_bytes_max).contains(&config.segment_bytes_min)
        {
            return refuse("segment_bytes_max", "a segment has 256 bytes to 8 GiB");
        }
        if !(config.max_space_amp > 1.05 && config.max_space_amp <= 100.0) {
            return refuse("max_space_amp", "the bound lies above 1.05 and at most at 100");
        }
        if !(8 << 10..=JOURNAL_BYTES_MAX).contains(&config.journal_bytes) {
            return refuse("journal_bytes", "a journal file has 8 KiB to 1 GiB");
        }
        if config.merge_bytes_per_sec == Some(0) {
            return refuse(
                "merge_bytes_per_sec",
                "a rate of nothing would never merge; use a window",
            );
        }
        if self.merge_window.is_some_and(|(from, to)| from >= 1440 || to >= 1440) {
            return refuse("merge_window", "a minute of the day is 0 to 1439");
        }
        if self.merge_window.is_some_and(|(from, to)| from == to) {
            return refuse("merge_window", "it would never be open");
        }
        if matches!(self.durability, Durability::Interval(t) if t.is_zero()) {
            return refuse("durability", "an interval of zero; use Sync");
        }
        Ok(())
    }
}
