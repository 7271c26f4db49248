//! A shard: one directory, one log, one keydir.
//!
//! The work lies in the paths: `write_path`, `read_path`, `seal`, `merge`, `recovery`, `snapshot`.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caskade_codec::ids::{SegmentId, Seqno, ShardId};

use crate::ahead::Ahead;
use crate::apart::Apart;
use crate::catalog::Catalog;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::extension::Extension;
use crate::keydir::prefetch::prefetch_to_write;
use crate::keydir::{Keydir, KeydirWriter};
use crate::location::Location;
use crate::log_file::{Cut, LogFile};
use crate::merge_policy;
use crate::read_path::Found;
use crate::reclaim::Guard;
use crate::seal;
use crate::segment::{Segment, Tail};
use crate::segment_table::SegmentTable;
use crate::shard_set::ShardSet;

/// One shard of an open store.
///
/// Lock order: `upkeep`, `writer`, `listing`, then `ahead`, the catalog's or `extension`. Writers of several
/// shards are locked in shard order.
#[derive(Debug)]
pub struct Shard {
    // Constant after construction.
    /// Its place in the store.
    pub id: ShardId,
    pub(crate) dir: PathBuf,
    pub(crate) ctx: Arc<Context>,
    // Shared with readers, which take no lock.
    pub(crate) keydir: Arc<Keydir>,
    pub(crate) segments: SegmentTable,
    /// Everything up to this sequence number is durable.
    durable: AtomicU64,
    /// Length of all segment files but the active one.
    total_bytes: AtomicU64,
    /// The last record that the snapshot on disk knows; 0 if it is out of date or missing.
    snapshot_seqno: AtomicU64,
    /// How long writers rest for every stretch that they write, while merging falls behind.
    brake_micros: AtomicU64,
    /// How much of that is for what waits to be sealed.
    backlog_micros: AtomicU64,
    /// Counters for statistics.
    pub counters: Counters,
    // Each guarded by its own lock.
    /// Held by what seals, merges, snapshots or checkpoints: one of them at a time.
    pub(crate) upkeep: Mutex<IsOver>,
    writer: Apart<Mutex<Writer>>,
    /// Held by who lists further segment ids, until they are in the queue: ids are used in order.
    pub(crate) listing: Mutex<()>,
    pub(crate) ahead: Mutex<Ahead>,
    pub(crate) catalog: Catalog,
    pub(crate) extension: Extension,
    /// Sealed segments with a damaged record: never merged, or its last trace would go.
    damaged: Mutex<HashSet<SegmentId>>,
}

/// Held by what seals, merges, snapshots or checkpoints.
#[derive(Debug)]
pub struct Upkeep<'s> {
    _turn: MutexGuard<'s, IsOver>,
}

/// Whether there is no more upkeep, for the store was closed.
#[derive(Debug)]
pub(crate) struct IsOver(bool);

/// Counts since the store was opened. On cache lines of their own, which readers have no use for.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Puts and deletes. Counted under the writer lock.
    pub writes: AtomicU64,
    /// Segments sealed.
    pub sealed: AtomicU64,
    /// Merges finished.
    pub merges: AtomicU64,
    /// Bytes that merges wrote.
    pub merged_bytes: AtomicU64,
    /// Bytes of files that merges removed.
    pub freed_bytes: AtomicU64,
}

impl Counters {
    /// Under the writer lock, so that load and store need not be one step.
    #[inline]
    pub(crate) fn count_writes(&self, count: u64) {
        self.writes.store(self.writes.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }
}

/// What the writer lock guards.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) keydir: KeydirWriter,
    pub(crate) log: Log,
}

/// The growing end of the log.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) next_seqno: Seqno,
    pub(crate) active: Option<Active>,
    /// Full segments that wait to be sealed, oldest first.
    pub(crate) ended: VecDeque<Ended>,
    /// Shards with parts of batches that may not be durable yet.
    pub(crate) entangled: ShardSet,
    /// Shards with parts of batches above the horizon.
    pub(crate) unsettled: ShardSet,
    /// No more writes are taken.
    pub(crate) is_closed: bool,
}

/// The segment that takes records.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) tail: Tail,
    pub(crate) file: Arc<LogFile>,
}

/// A segment that takes no more records.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) file: Arc<LogFile>,
    pub(crate) end: u64,
    pub(crate) last: Seqno,
}

/// What recovery hands to a shard.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) id: ShardId,
    pub(crate) dir: PathBuf,
    pub(crate) keydir: KeydirWriter,
    pub(crate) segments: SegmentTable,
    pub(crate) catalog: Catalog,
    pub(crate) ended: VecDeque<Ended>,
    pub(crate) unused: VecDeque<(SegmentId, u32)>,
    pub(crate) next_seqno: Seqno,
    pub(crate) durable: Seqno,
    /// The log holds batches that may not be durable in every shard, or may have held some.
    pub(crate) has_batches: bool,
    /// What the snapshot covers, if it is all there is; otherwise none.
    pub(crate) snapshot_seqno: Seqno,
}

impl Shard {
    pub(crate) fn new(ctx: Arc<Context>, recovered: Recovered) -> Self {
        let Recovered { id, dir, keydir, segments, catalog, ended, unused, .. } = recovered;
        let shared = Arc::clone(keydir.shared());
        // With whom the recovered batches are shared is not known any more.
        let entangled =
            if recovered.has_batches { ShardSet::below(ctx.shards) } else { ShardSet::default() };
        let total: u64 = ended.iter().map(|ended| ended.end).sum::<u64>()
            + catalog
                .manifest()
                .segments
                .iter()
                .filter_map(|e| e.sealed())
                .map(|s| s.len)
                .sum::<u64>();
        let (next_seqno, durable) = (recovered.next_seqno, recovered.durable);
        let log = Log {
            next_seqno,
            active: None,
            ended,
            entangled,
            unsettled: entangled,
            is_closed: false,
        };
        Self {
            id,
            dir,
            ctx,
            keydir: shared,
            segments,
            durable: durable.0.into(),
            total_bytes: total.into(),
            snapshot_seqno: recovered.snapshot_seqno.0.into(),
            brake_micros: 0.into(),
            backlog_micros: 0.into(),
            counters: Counters::default(),
            upkeep: Mutex::new(IsOver(false)),
            writer: Apart(Mutex::new(Writer { keydir, log })),
            listing: Mutex::default(),
            ahead: Mutex::new(Ahead { ids: unused, ready: None, is_over: false }),
            catalog,
            extension: Extension::default(),
            damaged: Mutex::default(),
        }
    }

    #[inline]
    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn listing(&self) -> MutexGuard<'_, ()> {
        self.listing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn damaged(&self) -> MutexGuard<'_, HashSet<SegmentId>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps merges, seals and snapshots of this shard away while it is held. Fails once that is over, or
    /// nothing may be written any more.
    pub fn upkeep(&self) -> Result<Upkeep<'_>> {
        self.ctx.poison.check()?;
        let turn = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        if turn.0 { Err(Error::Closed) } else { Ok(Upkeep { _turn: turn }) }
    }

    /// Waits for whoever holds the upkeep, and lets nobody have it any more: the files may belong to
    /// somebody else from now on.
    pub fn end_upkeep(&self) {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).0 = true;
    }

    /// Everything up to this sequence number is durable.
    pub fn durable(&self) -> Seqno {
        Seqno(self.durable.load(Ordering::Acquire))
    }

    /// Everything up to this sequence number is durable, and its batches are settled.
    pub fn horizon(&self) -> Seqno {
        self.catalog.manifest().horizon
    }

    /// Notes that the log is durable up to `seqno`.
    pub(crate) fn raise_durable(&self, seqno: Seqno) {
        self.durable.fetch_max(seqno.0, Ordering::AcqRel);
    }

    /// Length of all segment files but the active one.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn subtract_bytes(&self, bytes: u64) {
        let _ = self.total_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |total| {
            Some(total.saturating_sub(bytes))
        });
    }

    /// How long writers should rest for every stretch that they write, in microseconds.
    #[inline]
    pub fn brake_micros(&self) -> u64 {
        self.brake_micros.load(Ordering::Relaxed)
    }

    /// How much of that is for segments that wait to be sealed, where nothing is to be merged.
    pub fn backlog_micros(&self) -> u64 {
        self.backlog_micros.load(Ordering::Relaxed)
    }

    /// Looks at the share of dead bytes, and sets the writers' brake by it. Answers the pressure.
    pub(crate) fn weigh(&self, log: &Log) -> f64 {
        // Damaged segments are merged no more: what is dead in them is no reason to rest.
        let damaged = self.damaged().clone();
        let (mut live, mut left_out) = (0, 0);
        self.segments.for_each(|segment| {
            if damaged.contains(&segment.id) {
                left_out += segment.readable();
            } else {
                live += segment.usage.get().0;
            }
        });
        let active = log.active.as_ref().map_or(0, |active| active.tail.position());
        let total = self.total_bytes().saturating_sub(left_out) + active;
        let pressure = merge_policy::pressure(total, live, self.ctx.config.max_space_amp);
        // Sealing may be behind as well.
        let backlog = seal::backlog_micros(log.ended.len(), log.ended_bytes(), self.ctx.shards);
        let micros = merge_policy::brake_micros(pressure).max(backlog);
        self.brake_micros.store(micros, Ordering::Relaxed);
        self.backlog_micros.store(backlog, Ordering::Relaxed);
        pressure
    }

    /// Whether so much is dead that a rest is worth a merge.
    pub fn is_untidy(&self) -> bool {
        merge_policy::is_worth_tidying(self.weigh(&self.writer().log))
    }

    /// Whether so much waits to be sealed that it must not wait for more.
    pub fn is_sealing_due(&self) -> bool {
        let log = &self.writer().log;
        seal::is_due(log.ended.len(), log.ended_bytes(), self.ctx.shards)
    }

    /// Asks for the memory that a put needs before anything else: the writer's own, which another
    /// thread may have changed last.
    #[inline]
    pub fn prefetch_writer(&self) {
        prefetch_to_write(&raw const self.writer, size_of_val(&self.writer).div_ceil(64));
    }

    /// The last record of the log.
    pub fn last_seqno(&self) -> Seqno {
        self.writer().log.last_seqno()
    }

    /// Whether the snapshot on disk is the keydir, and nothing waits to be sealed.
    pub fn is_at_rest(&self) -> bool {
        let log = &self.writer().log;
        log.active.is_none()
            && log.ended.is_empty()
            && self.snapshot_seqno.load(Ordering::Acquire) == log.last_seqno().0
    }

    /// Notes what the snapshot on disk covers; 0 if it is out of date.
    pub(crate) fn set_snapshot_seqno(&self, seqno: Seqno) {
        self.snapshot_seqno.store(seqno.0, Ordering::Release);
    }

    /// The segment of a record that was found, kept alive.
    pub fn share_segment(&self, found: &Found<'_>, guard: &Guard<'_>) -> Arc<Segment> {
        self.segments.share(found.segment.slot, guard).expect("the guard keeps it in the table")
    }

    /// Memory of the keydir.
    pub fn keydir_bytes(&self) -> u64 {
        self.keydir.memory_bytes()
    }

    /// Visits the keydir's entries with `from` or a greater hash in the leaf that holds `from`.
    /// Answers the first hash of the next leaf.
    pub fn visit_leaf(
        &self,
        guard: &Guard<'_>,
        from: u32,
        visit: &mut dyn FnMut(u32, Location),
    ) -> Option<u32> {
        self.keydir.visit_leaf(guard, from, visit)
    }

    /// Makes the leaves that the open has left to whoever looks into them, from the one for this hash on,
    /// until `is_over`, which is asked after each. Answers where to go on.
    pub fn settle_keydir(&self, from: u32, is_over: &dyn Fn() -> bool) -> Option<u32> {
        let (mut next, mut source) = (Some(from), None);
        while let Some(from) = next {
            // Writers need not wait for this, nor for the end of what the leaves were made of.
            source = self.keydir.make_leaf(&self.ctx.reclaim.enter(), from).or(source);
            next = self.lock_even_closed().settle_leaf(from);
            if is_over() {
                break;
            }
        }
        drop(source);
        self.ctx.reclaim.collect();
        next
    }

    /// Whether all leaves are made and in their place.
    pub fn is_keydir_settled(&self) -> bool {
        self.lock_even_closed().is_keydir_settled()
    }

    /// Number of keys, expired ones that were not removed yet included.
    pub fn len(&self) -> u64 {
        self.keydir.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Log {
    /// The sequence number that the last record got.
    pub(crate) fn last_seqno(&self) -> Seqno {
        Seqno(self.next_seqno.0 - 1)
    }

    /// Where the log ends now. The caller may sync up to there without the lock.
    pub(crate) fn cut(&self, shard: ShardId) -> Cut {
        let mut files: Vec<_> =
            self.ended.iter().map(|ended| (Arc::clone(&ended.file), ended.end)).collect();
        if let Some(active) = &self.active {
            files.push((Arc::clone(&active.file), active.tail.position()));
        }
        Cut { shard, seqno: self.last_seqno(), files }
    }
}
