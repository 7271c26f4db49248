//! Figures of a store.

use std::sync::atomic::Ordering;
use std::time::Duration;

use caskade_shard::merge::Outcome;
pub use caskade_shard::recovery::ShardReport as ShardOpenReport;
use caskade_shard::shard::Shard;

use crate::store::Store;

/// What opening a store found and did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// How long it took.
    pub elapsed: Duration,
    /// By shard.
    pub shards: Vec<ShardOpenReport>,
    /// Damaged copies of the store's own file that the other copy stood in for.
    pub mended: Vec<String>,
}

impl OpenReport {
    /// Keys found.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.shards.iter().map(|shard| shard.keys).sum()
    }

    /// Everything that could not be kept.
    pub fn losses(&self) -> impl Iterator<Item = &crate::Loss> {
        self.shards.iter().flat_map(|shard| &shard.losses)
    }

    /// Whether nothing was lost, ignored or mended.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let is_whole = self.mended.is_empty();
        is_whole
            && self.shards.iter().all(|shard| {
                shard.losses.is_empty() && shard.ignored.is_empty() && shard.mended.is_empty()
            })
    }
}

/// What [`Db::compact`](crate::Db::compact) did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CompactReport {
    /// Segments that are gone.
    pub segments_removed: u64,
    /// Segments that came.
    pub segments_written: u64,
    /// Bytes copied.
    pub bytes_copied: u64,
    /// Bytes of the files that are gone.
    pub bytes_removed: u64,
}

impl CompactReport {
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        self.segments_removed += outcome.inputs as u64;
        self.segments_written += outcome.outputs as u64;
        self.bytes_copied += outcome.copied_bytes;
        self.bytes_removed += outcome.freed_bytes;
    }
}

/// Figures of a store, summed over its shards, and of each shard.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// Sums over all shards.
    pub total: ShardStats,
    /// By shard.
    pub shards: Vec<ShardStats>,
    /// Commits of durable writes; each is one fsync where the journal took it.
    pub commits: u64,
    /// Commits that went through the journal.
    pub journal_commits: u64,
    /// Bytes that went through the journal.
    pub journal_bytes: u64,
    /// Writers that waited for a commit; over `commits` it is the mean group size.
    pub commit_waiters: u64,
    /// Get calls and keys of `get_many`; approximately, where there are very many threads.
    pub gets: u64,
    /// Puts and deletes, those of batches and conditional writes too.
    pub puts: u64,
    /// How long the open took.
    pub open_millis: u64,
    /// How long writers are made to rest, in microseconds for every 64 KiB, because merging or sealing
    /// is behind; 0 most of the time.
    pub brake_micros: u64,
    /// Errors of background work, which goes on trying; see [`Builder::on_background_error`](crate::Builder::on_background_error).
    pub background_errors: u64,
    /// Whether the store is poisoned.
    pub is_poisoned: bool,
}

/// Figures of one shard.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShardStats {
    /// Keys, expired ones that were not cleaned up included.
    pub keys: u64,
    /// Bytes of the records that are the newest of their keys.
    pub live_bytes: u64,
    /// Bytes of segment files that are not live: old records, tombstones, headers.
    pub dead_bytes: u64,
    /// Length of all segment files, their unused end left out.
    pub total_bytes: u64,
    /// Bytes of tombstones in sealed segments.
    pub tombstone_bytes: u64,
    /// Sealed segments.
    pub segments_sealed: u64,
    /// Segments that are not sealed.
    pub segments_open: u64,
    /// Memory of the keydir, as it is once all of it is made: soon after an open.
    pub keydir_bytes: u64,
    /// Dead bytes above the level at which background merging begins.
    pub merge_debt_bytes: u64,
    /// Merges done since the store was opened.
    pub merges: u64,
    /// Bytes that merges wrote since then.
    pub merged_bytes: u64,
    /// Bytes of files that merges removed since then.
    pub freed_bytes: u64,
    /// Segments sealed since then.
    pub sealed: u64,
}

/// Figures of one segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SegmentStats {
    /// The shard.
    pub shard: u16,
    /// The segment.
    pub segment: u64,
    /// Whether it takes no more records.
    pub is_sealed: bool,
    /// Its length, the unused end left out.
    pub bytes: u64,
    /// Bytes of the records that are the newest of their keys.
    pub live_bytes: u64,
}

impl ShardStats {
    /// Total over live bytes; 1 for an empty shard.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people to read")]
    pub fn space_amp(&self) -> f64 {
        if self.live_bytes == 0 { 1.0 } else { self.total_bytes as f64 / self.live_bytes as f64 }
    }

    fn add(&mut self, other: &Self) {
        self.keys += other.keys;
        self.live_bytes += other.live_bytes;
        self.dead_bytes += other.dead_bytes;
        self.total_bytes += other.total_bytes;
        self.tombstone_bytes += other.tombstone_bytes;
        self.segments_sealed += other.segments_sealed;
        self.segments_open += other.segments_open;
        self.keydir_bytes += other.keydir_bytes;
        self.merge_debt_bytes += other.merge_debt_bytes;
        self.merges += other.merges;
        self.merged_bytes += other.merged_bytes;
        self.freed_bytes += other.freed_bytes;
        self.sealed += other.sealed;
    }
}

impl Stats {
    pub(crate) fn gather(store: &Store) -> Self {
        let shards: Vec<ShardStats> = store.shards.iter().map(shard_stats).collect();
        let mut total = ShardStats::default();
        for shard in &shards {
            total.add(shard);
        }
        let counters = &store.committer.counters;
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            total,
            shards,
            commits: load(&counters.commits),
            journal_commits: load(&counters.journal_commits),
            journal_bytes: load(&counters.journal_bytes),
            commit_waiters: load(&counters.waiters),
            gets: store.ctx.reclaim.reads(),
            puts: store.writes(),
            open_millis: store.report.elapsed.as_millis() as u64,
            brake_micros: store.brake_micros(store.shards.iter()),
            background_errors: load(&store.background_errors),
            is_poisoned: store.ctx.poison.is_latched(),
        }
    }
}

/// The segments of one shard, by their ids.
pub(crate) fn segment_stats(shard: &Shard) -> Vec<SegmentStats> {
    let id = shard.id.0;
    let (sealed, _) = shard.merge_stats();
    let mut all: Vec<SegmentStats> = sealed
        .iter()
        .map(|one| SegmentStats {
            shard: id,
            segment: one.id.0,
            is_sealed: true,
            bytes: one.len,
            live_bytes: one.live_bytes,
        })
        .collect();
    for (file, end) in &shard.cut().files {
        let segment = file.segment.id.0;
        // It may have been sealed just now.
        if all.iter().all(|one| one.segment != segment) {
            let live_bytes = file.segment.usage.get().0;
            all.push(SegmentStats {
                shard: id,
                segment,
                is_sealed: false,
                bytes: *end,
                live_bytes,
            });
        }
    }
    all.sort_unstable_by_key(|one| one.segment);
    all
}

fn shard_stats(shard: &Shard) -> ShardStats {
    let (segments, open) = shard.merge_stats();
    let live_bytes = segments.iter().map(|s| s.live_bytes).sum::<u64>() + open.open_live_bytes;
    let total_bytes = segments.iter().map(|s| s.len).sum::<u64>() + open.open_bytes;
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    ShardStats {
        keys: shard.len(),
        live_bytes,
        dead_bytes: total_bytes.saturating_sub(live_bytes),
        total_bytes,
        tombstone_bytes: segments.iter().map(|s| s.tombstone_bytes).sum(),
        segments_sealed: segments.len() as u64,
        segments_open: shard.cut().files.len() as u64,
        keydir_bytes: shard.keydir_bytes(),
        merge_debt_bytes: caskade_shard::merge_policy::excess_bytes(&segments, &open),
        merges: load(&shard.counters.merges),
        merged_bytes: load(&shard.counters.merged_bytes),
        freed_bytes: load(&shard.counters.freed_bytes),
        sealed: load(&shard.counters.sealed),
    }
}
