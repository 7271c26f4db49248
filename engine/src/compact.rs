//! Merging everything at once, because somebody asked.

use std::cell::RefCell;

use caskade_shard::merge::Surroundings;

use crate::stats::{CompactReport, Stats};
use crate::store::{Around, Store};
use crate::{Error, Result};

/// How far a compaction has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactProgress {
    /// Bytes of segments that were read, or need not be.
    pub bytes_done: u64,
    /// Bytes of all segments as it began.
    pub bytes_total: u64,
}

/// Lets the caller watch a merge and stop it.
struct Watched<'a, F> {
    around: Around<'a>,
    watch: &'a RefCell<Watch<F>>,
}

struct Watch<F> {
    now: CompactProgress,
    progress: F,
}

impl<F: FnMut(CompactProgress) -> bool> Watch<F> {
    fn tell(&mut self) -> Result<()> {
        if (self.progress)(self.now) { Ok(()) } else { Err(Error::Stopped) }
    }
}

impl<F: FnMut(CompactProgress) -> bool> Surroundings for Watched<'_, F> {
    fn settle(&self) -> Result<()> {
        self.around.settle()
    }

    fn pace(&self, bytes: u64) -> Result<()> {
        // Who closes the store waits for this.
        self.around.store.check_open()?;
        let mut watch = self.watch.borrow_mut();
        let now = &mut watch.now;
        now.bytes_done = (now.bytes_done + bytes).min(now.bytes_total);
        watch.tell()
    }
}

pub(crate) fn compact<F>(store: &Store, progress: F) -> Result<CompactReport>
where
    F: FnMut(CompactProgress) -> bool,
{
    store.check_writable()?;
    let before = Stats::gather(store);
    let now = CompactProgress { bytes_done: 0, bytes_total: before.total.total_bytes };
    let watch = RefCell::new(Watch { now, progress });
    let mut report = CompactReport::default();
    let mut done = 0;
    for (shard, stats) in store.shards.iter().zip(&before.shards) {
        store.check_open()?;
        let around = Watched { around: Around { store, shard: shard.id }, watch: &watch };
        report.add(&store.with_reserve(|| shard.merge_all(&around))?);
        // What was not read counts too: a shard that is compact is left as it is.
        done += stats.total_bytes;
        let mut watch = watch.borrow_mut();
        watch.now.bytes_done = done;
        watch.tell()?;
    }
    Ok(report)
}
