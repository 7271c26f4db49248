//! What all shards of one open store share.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use caskade_codec::hash::KeyHasher;
use caskade_codec::ids::{ShardId, StoreUuid};
use crossbeam_channel::Sender;

use crate::error::{At, Error, Result};
use crate::keydir::LeafMemory;
use crate::reclaim::Reclaim;
use crate::storage::Storage;

/// Sizes and bounds, constant while the store is open.
#[derive(Debug, Clone)]
pub struct Config {
    /// Capacity of the largest ordinary segment file.
    pub segment_bytes_max: u64,
    /// Capacity of a shard's first segments.
    pub segment_bytes_min: u64,
    /// Total bytes over live bytes that merging keeps.
    pub max_space_amp: f64,
    /// Length of each of the journal's two files.
    pub journal_bytes: u64,
    /// Bytes a second that background merging may read, over the whole store; `None` is no limit.
    pub merge_bytes_per_sec: Option<u64>,
}

/// What all shards of one open store share.
#[derive(Debug)]
pub struct Context {
    /// The I/O boundary.
    pub storage: Arc<dyn Storage>,
    /// The store's directory.
    pub path: PathBuf,
    /// The store's identity, in every file.
    pub uuid: StoreUuid,
    /// Number of shards.
    pub shards: u16,
    /// The store's keyed hash.
    pub hasher: KeyHasher,
    /// Grace periods of readers.
    pub reclaim: Arc<Reclaim>,
    /// Where the leaves of the keydirs lie.
    pub leaf_memory: Arc<LeafMemory>,
    /// The first failure that made the disk's state unknown.
    pub poison: Poison,
    /// The same for checkpoints: once a sync in the target of one failed, another could take for durable
    /// what is not.
    pub targets: Poison,
    /// Sizes and bounds.
    pub config: Config,
    /// Where work for the background is announced.
    pub events: Sender<Event>,
}

/// Something for the maintenance thread to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The shard's active segment ended and the next was taken: seal the one, prepare another.
    Rotation(ShardId),
    /// The shard's active segment will need more room soon.
    Extension(ShardId),
    /// The journal went over to its other file.
    JournalTurn,
    /// A segment was sealed or got more dead bytes: merging may pay.
    Garbage(ShardId),
    /// The first write after a sync by time or a rest, by the monotonic clock.
    Awake(Duration),
    /// The store closes.
    Close,
}

/// Latches the first failure after which nothing more may be written.
#[derive(Debug, Default)]
pub struct Poison {
    latched: AtomicBool,
    cause: OnceLock<Arc<str>>,
}

impl Poison {
    /// Fails once the store is poisoned.
    #[inline]
    pub fn check(&self) -> Result<()> {
        let is_latched = self.latched.load(Ordering::Acquire) && !planted!("poison-forgotten");
        if is_latched { Err(self.error()) } else { Ok(()) }
    }

    /// Whether the store is poisoned.
    #[inline]
    pub fn is_latched(&self) -> bool {
        self.latched.load(Ordering::Acquire)
    }

    /// Remembers the first cause and answers the error for this caller.
    pub fn latch(&self, cause: impl Display) -> Error {
        let _ = self.cause.set(cause.to_string().into());
        self.latched.store(true, Ordering::Release);
        self.error()
    }

    /// The first cause, if there is one.
    pub fn cause(&self) -> Option<Arc<str>> {
        self.cause.get().cloned()
    }

    #[cold]
    fn error(&self) -> Error {
        let cause = self.cause.get().cloned().unwrap_or_else(|| "unknown".into());
        Error::Poisoned { cause }
    }
}

impl Context {
    /// A random 32-bit salt for a new file.
    pub fn salt(&self) -> Result<u32> {
        let mut bytes = [0; 4];
        self.storage
            .entropy(&mut bytes)
            .map_err(|source| Error::io("read randomness for", &self.path, source))?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Makes the names in a directory durable. A sync that failed poisons the store. One that could
    /// not begin, for want of a file handle or of the directory, changed nothing: the caller may try again.
    pub fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.change_dir_or(&self.poison, dir, || Ok(()))
    }

    /// The same in the target of a checkpoint: what fails there ends checkpoints alone.
    pub fn sync_target(&self, dir: &Path) -> Result<()> {
        self.change_target(dir, || Ok(()))
    }

    /// Changes names in the target of a checkpoint, durably. Without a handle for the sync nothing is
    /// changed.
    pub fn change_target(&self, dir: &Path, change: impl FnOnce() -> Result<()>) -> Result<()> {
        self.change_dir_or(&self.targets, dir, change)
    }

    fn change_dir_or(
        &self,
        poison: &Poison,
        dir: &Path,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let opened = self.storage.open_dir(dir).at("open", dir)?;
        change()?;
        let failed = |fault| poison.latch(format_args!("fsync of {}: {fault}", dir.display()));
        opened.sync().map_err(failed)
    }

    /// Announces work; a store that is closing no longer listens, and that is fine.
    pub fn announce(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

#[cfg(test)]
impl Context {
    /// A store of one shard on a simulated disk.
    pub(crate) fn for_tests(disk: &crate::storage::sim::SimDisk) -> Arc<Self> {
        Arc::new(Self {
            storage: disk.storage(),
            path: "/store".into(),
            uuid: StoreUuid([7; 16]),
            shards: 1,
            hasher: KeyHasher::new(&[3; caskade_codec::hash::SECRET_LEN]),
            reclaim: Arc::new(Reclaim::new()),
            leaf_memory: Arc::default(),
            poison: Poison::default(),
            targets: Poison::default(),
            config: Config {
                segment_bytes_max: 4096,
                segment_bytes_min: 4096,
                max_space_amp: 1.5,
                journal_bytes: 8 << 10,
                merge_bytes_per_sec: None,
            },
            events: crossbeam_channel::unbounded().0,
        })
    }
}
