//! Opening a shard: what is on disk becomes a keydir.
//!
//! Three steps. [`scan`](ShardScan::read) reads and decides, and changes nothing but what it puts back
//! from the journal. The store then settles which batches are whole, over all shards
//! ([`resolve_batches`]). [`ShardScan::finish`] builds the keydir and applies the repairs.

mod batches;
mod candidates;
mod fold;
mod log_end;
mod log_scan;
mod repair;
mod scan;
mod snapshot_load;
#[cfg(test)]
mod tests;

pub use batches::resolve_batches;
pub(crate) use scan::read_file;
pub use scan::{ListedSegments, ShardScan};

use std::sync::atomic::{AtomicBool, Ordering};

use caskade_codec::ids::{SegmentId, Seqno, ShardId};

/// How much damage an open accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecoveryMode {
    /// Drops what a crash explains and reports it; refuses to open when data that was known to be
    /// durable is damaged.
    #[default]
    Default,
    /// Opens whatever can be read, and lists every loss. Where the newest record of a key is lost,
    /// an older one may come to light again: the list says which stretches to distrust.
    Salvage,
    /// Refuses to open if anything at all had to be dropped or rebuilt.
    Strict,
}

/// How recovery is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// How much damage is accepted.
    pub mode: RecoveryMode,
    /// Write nothing, not even repairs.
    pub read_only: bool,
    /// Set to stop early.
    pub stop: &'a AtomicBool,
    /// Where progress is counted.
    pub progress: &'a Progress,
}

impl Request<'_> {
    fn check_stop(&self) -> crate::Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(crate::Error::Stopped) } else { Ok(()) }
    }
}

/// Counts of a recovery under way.
#[derive(Debug, Default)]
pub struct Progress {
    /// Segments done.
    pub segments_done: std::sync::atomic::AtomicU64,
    /// Segments known so far.
    pub segments_total: std::sync::atomic::AtomicU64,
}

impl Progress {
    /// Counts from the start.
    pub fn begin(&self) {
        self.segments_done.store(0, Ordering::Relaxed);
        self.segments_total.store(0, Ordering::Relaxed);
    }
}

/// What recovery did to one shard.
#[derive(Debug, Clone, Default)]
pub struct ShardReport {
    /// The shard.
    pub shard: u16,
    /// Keys found.
    pub keys: u64,
    /// Segments in use.
    pub segments: u64,
    /// Keys that came from the keydir snapshot.
    pub keys_from_snapshot: u64,
    /// Segments read through their hints.
    pub hints_read: u64,
    /// Segments read record by record.
    pub segments_scanned: u64,
    /// Bytes read record by record.
    pub bytes_scanned: u64,
    /// What was cut off or could not be read.
    pub losses: Vec<Loss>,
    /// Index files that were ignored because they did not fit, with the reason.
    pub ignored: Vec<String>,
    /// Redundant copies that were damaged and are served by the other copy.
    pub mended: Vec<String>,
}

/// Bytes that recovery could not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The shard.
    pub shard: u16,
    /// The segment.
    pub segment: u64,
    /// Where the loss begins.
    pub offset: u64,
    /// How many bytes it spans.
    pub bytes: u64,
    /// Whether a crash explains it, or data that had been durable is damaged.
    pub kind: LossKind,
    /// What was found there.
    pub reason: String,
}

/// Why bytes were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LossKind {
    /// The end of the log, never known to be durable: what a crash leaves.
    Tail,
    /// A batch of which not all parts survived.
    Batch,
    /// Damage to data that was durable.
    Corruption,
}

/// The head of a batch part above the horizon.
#[derive(Debug, Clone, Copy)]
struct BatchHead {
    coordinator: ShardId,
    coordinator_seqno: Seqno,
    parts: u16,
    seqno: Seqno,
    segment: SegmentId,
    offset: u64,
    /// Where the part's last record ends.
    end: u64,
}
