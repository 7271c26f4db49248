//! The files of a shard's log that are not sealed yet, and making them durable.
//!
//! An fsync that failed may have dropped the very pages it could not write, and the next one would
//! then report success. So each file is synced by one thread at a time, a failure poisons the store
//! before the next thread gets its turn, and a poisoned store never syncs again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use caskade_codec::ids::{SegmentId, Seqno, ShardId};

use crate::context::Context;
use crate::error::Result;
use crate::segment::Segment;
use crate::storage::File;

/// A log segment's file while it is not sealed.
#[derive(Debug)]
pub struct LogFile {
    /// The mapped segment.
    pub segment: Arc<Segment>,
    /// The open file.
    pub file: Arc<dyn File>,
    /// The directory that holds the file's name.
    dir: PathBuf,
    /// Bytes from the start that are known durable.
    durable: AtomicU64,
    /// Whether the file's name is known durable.
    entry_is_durable: AtomicBool,
    /// How often something was taken back from behind the log's end that the device may have.
    stains: AtomicU64,
    /// How many of these a sync has covered.
    stains_synced: AtomicU64,
    syncing: Mutex<()>,
}

impl LogFile {
    /// A file of which nothing is known durable, unless said otherwise.
    pub fn new(segment: Arc<Segment>, file: Arc<dyn File>, entry_is_durable: bool) -> Self {
        let dir = segment.path.parent().expect("a segment lies in a directory").to_owned();
        Self {
            segment,
            file,
            dir,
            durable: 0.into(),
            entry_is_durable: entry_is_durable.into(),
            stains: 0.into(),
            stains_synced: 0.into(),
            syncing: Mutex::new(()),
        }
    }

    /// Whether the first `end` bytes, and the name, are known durable.
    pub fn is_durable_to(&self, end: u64) -> bool {
        self.durable.load(Ordering::Acquire) >= end
            && self.entry_is_durable.load(Ordering::Acquire)
            && !self.is_stained()
    }

    /// Notes that what was written behind the log's end, and may be on the device already, was taken
    /// back. Recovery would take it for the log's next records, so that nothing that is written from
    /// now on is durable before this file is synced.
    pub(crate) fn stain(&self) {
        self.stains.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether that sync has still to come.
    pub(crate) fn is_stained(&self) -> bool {
        self.stains_synced.load(Ordering::Acquire) < self.stains.load(Ordering::Acquire)
    }

    /// Bytes from the start that are known durable.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Makes the first `end` bytes durable, and the file's name.
    pub fn sync_to(&self, ctx: &Context, end: u64) -> Result<()> {
        if self.is_durable_to(end) {
            return Ok(());
        }
        let _turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.sync_contents_in_turn(ctx, end)?;
        self.sync_entry(ctx)
    }

    /// Makes the first `end` bytes durable as far as the file's name is: what was taken back does not
    /// come again. Needs no file handle; whatever fails poisons the store.
    pub fn sync_contents(&self, ctx: &Context, end: u64) -> Result<()> {
        let _turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.sync_contents_in_turn(ctx, end)
    }

    fn sync_contents_in_turn(&self, ctx: &Context, end: u64) -> Result<()> {
        // The thread that had the turn before may have failed, or done this work.
        if !planted!("sync-retried") {
            ctx.poison.check()?;
        }
        // What is taken back during the sync needs another one.
        let stains = self.stains.load(Ordering::Acquire);
        let durable = self.durable.load(Ordering::Acquire);
        if self.is_stained() || durable < end {
            // A dirty page that is mapped costs an interrupt of every processor while it is written.
            self.segment.map().detach(durable, end.saturating_sub(durable));
            self.file.sync_data().map_err(|fault| {
                ctx.poison.latch(format_args!("fsync of {}: {fault}", self.segment.path.display()))
            })?;
            self.durable.fetch_max(end, Ordering::AcqRel);
            self.stains_synced.fetch_max(stains, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Makes the file's name durable.
    pub fn sync_entry(&self, ctx: &Context) -> Result<()> {
        if !self.entry_is_durable.load(Ordering::Acquire) && !planted!("names-unsynced") {
            ctx.sync_dir(&self.dir)?;
            self.entry_is_durable.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// A point in a shard's log, and the unsealed files up to it.
#[derive(Debug, Clone)]
pub struct Cut {
    /// The shard.
    pub shard: ShardId,
    /// The last record below the cut.
    pub seqno: Seqno,
    /// Unsealed files, oldest first, with the length of each that lies below the cut.
    pub files: Vec<(Arc<LogFile>, u64)>,
}

impl Cut {
    /// Makes everything below the cut durable.
    pub fn sync(&self, ctx: &Context) -> Result<()> {
        // Oldest first, so that the durable part of the log never has a hole.
        let first = if planted!("older-file-unsynced") { self.files.len().max(1) - 1 } else { 0 };
        for (file, end) in &self.files[first..] {
            file.sync_to(ctx, *end)?;
        }
        Ok(())
    }

    /// Whether a file of it must be synced itself: see [`LogFile::stain`].
    pub(crate) fn is_stained(&self) -> bool {
        self.files.iter().any(|(file, _)| file.is_stained()) && !planted!("stain-forgotten")
    }

    /// Segment and offset where the log ends at this cut.
    pub fn position(&self) -> Option<(SegmentId, u64)> {
        self.files.last().map(|(file, end)| (file.segment.id, *end))
    }
}

#[cfg(test)]
mod tests {
    use caskade_codec::ids::{SegmentId, StoreUuid};
    use caskade_codec::segment::{Header, Role};

    use super::*;
    use crate::segment::{Sizes, Tail};
    use crate::storage::sim::{Repeat, SimDisk};

    /// Two threads want to sync: the second one had looked at the poison before the first failed.
    #[test]
    fn a_file_whose_sync_failed_is_never_synced_again() {
        let disk = SimDisk::new(1);
        let ctx = Context::for_tests(&disk);
        let path = PathBuf::from("/1.seg");
        let file = ctx.storage.create(&path).unwrap();
        let (shard, id) = (ShardId(0), SegmentId(1));
        let header = Header { uuid: StoreUuid([7; 16]), shard, id, role: Role::Log, salt: 1 };
        let sizes = Sizes { capacity: 4096, chunk: 4096, headroom: 0 };
        let mut tail = Tail::create(Arc::clone(&file), &header, 0, path, sizes).unwrap();
        tail.write(8, |_, out| out.fill(1)).unwrap();
        let log = LogFile::new(Arc::clone(tail.segment()), file, false);
        disk.faults().clear();
        disk.faults().fail_call(1, Repeat::Once, 5);
        assert!(log.sync_to(&ctx, tail.position()).is_err());
        assert_eq!(disk.faults().calls(), 1);
        assert!(log.sync_to(&ctx, tail.position()).is_err(), "the pages may be gone by now");
        assert_eq!(disk.faults().calls(), 1, "not one call more");
        assert!(!log.is_durable_to(1));
    }
}
