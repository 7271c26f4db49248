//! Merging: what lives in some sealed segments moves to new ones, and the old ones go.
//!
//! Readers and writers go on. The order, and why:
//! 1. Live records are copied, with their sequence numbers, to segments that nobody knows yet.
//!    Outputs and hints are synced, then the directory, or a crash could lose both copies.
//! 2. The log is made durable and its batches settled, since a record was left behind only because
//!    a newer one stands in the log: that one must not be lost.
//! 3. The manifest names the outputs instead of the inputs. From here on a crash finds the outputs.
//! 4. The keydir is pointed at the copies, each only if it still points at the original.
//! 5. The inputs are unlinked. Readers that still use one keep its mapping.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use caskade_codec::hash::keydir_bits;
use caskade_codec::hint::{self, Binding};
use caskade_codec::ids::{SegmentId, Seqno};
use caskade_codec::manifest::{SegmentEntry, State};
use caskade_codec::names;
use caskade_codec::record::{self, Draft, Flags, Frame, Kind, Record};
use caskade_codec::segment::{self, HEADER_LEN, Role, SEGMENT_LEN_MAX, Scanner, Sealed, Tally};

use crate::context::Event;
use crate::error::{At, Result};
use crate::location::Location;
use crate::merge_policy::{self, Plan, SegmentStats, ShardStats};
use crate::read_path::Candidate;
use crate::reclaim::Guard;
use crate::segment::{Segment, Sizes, Tail};
use crate::shard::Shard;

/// Relocations that are done under one hold of the writer lock.
const INSTALL_STEP: usize = 256;
/// So many lookups in the keydir are under way at once.
const LOOKUPS: usize = 16;
/// Of so many bytes of records, so that a merge keeps its pace where they are large.
const LOOKUPS_BYTES_MAX: u64 = 64 << 10;

/// What merging needs from the store around the shard.
pub trait Surroundings {
    /// Makes the shard's log durable up to now, and settles its batches.
    fn settle(&self) -> Result<()>;
    /// Told after some bytes were copied. May sleep; fails to stop the merge.
    fn pace(&self, bytes: u64) -> Result<()>;
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Segments that are gone.
    pub inputs: usize,
    /// Segments that came.
    pub outputs: usize,
    /// Bytes written.
    pub copied_bytes: u64,
    /// Bytes of the files that are gone.
    pub freed_bytes: u64,
}

/// One segment to be merged away.
struct Input {
    segment: Arc<Segment>,
    sealed: Sealed,
}

/// A segment being filled by a merge.
struct Output {
    tail: Tail,
    tally: Tally,
    hint: hint::Builder,
    moves: Vec<Move>,
}

/// One that is full, and durable but for its name. Its file is closed: there may be many.
struct Finished {
    segment: Arc<Segment>,
    sealed: Sealed,
    moves: Vec<Move>,
}

/// A record that goes from one place to another.
struct Move {
    hash: u32,
    from: Location,
    to: Location,
    len: u64,
}

/// What a merge has produced so far.
#[derive(Default)]
struct Product {
    /// All its segments.
    created: Vec<Arc<Segment>>,
    filling: Option<Output>,
    /// Filled, to be finished when no reader's guard is held.
    full: Vec<Output>,
    finished: Vec<Finished>,
    /// Whether those are in the segment table.
    is_shown: bool,
    /// Expired records that nothing replaces: the keydir forgets them.
    expired: Vec<(u32, Location, u64)>,
}

impl Product {
    /// How many records of the inputs were live.
    fn records(&self) -> u64 {
        let open = self.filling.iter().chain(&self.full);
        let open = open.map(|output| output.moves.len());
        let finished = self.finished.iter().map(|output| output.moves.len());
        (open.chain(finished).sum::<usize>() + self.expired.len()) as u64
    }
}

/// A merge's first half.
struct Copying<'m> {
    product: &'m mut Product,
    around: &'m dyn Surroundings,
    now_ms: u64,
    /// The oldest record of the segments that stay.
    oldest_outside: Seqno,
    /// Bytes of the inputs that are still to be gone through.
    remaining: u64,
    /// Bytes since the last rest.
    paced: u64,
}

impl Shard {
    /// Counts for the merge policy.
    pub fn merge_stats(&self) -> (Vec<SegmentStats>, ShardStats) {
        let damaged = self.damaged().clone();
        let manifest = self.catalog.manifest();
        let live = self.segments.usage();
        let segments = manifest
            .segments
            .iter()
            .filter_map(|entry| {
                let sealed = entry.sealed()?;
                let (live_bytes, live_records) = *live.get(&entry.id)?;
                Some(SegmentStats {
                    id: entry.id,
                    len: sealed.len,
                    live_bytes,
                    live_records,
                    tombstone_bytes: sealed.tombstone_bytes,
                    min_seqno: sealed.min_seqno,
                    max_seqno: sealed.max_seqno,
                    expiry_max: sealed.expiry_max,
                    is_damaged: damaged.contains(&entry.id),
                })
            })
            .collect();
        drop(manifest);
        let cut = self.cut();
        let config = &self.ctx.config;
        let segment_bytes = self.ordinary_segment_bytes();
        let shard = ShardStats {
            open_bytes: cut.files.iter().map(|(_, end)| end).sum(),
            open_live_bytes: cut.files.iter().map(|(f, _)| f.segment.usage.get().0).sum(),
            now_ms: self.ctx.storage.wall_ms(),
            max_space_amp: config.max_space_amp,
            trigger: merge_policy::trigger(self.id),
            is_resting: false,
            segment_bytes,
            job_bytes_max: segment_bytes.saturating_mul(4).max(16 << 20),
        };
        (segments, shard)
    }

    /// Does what the policy says is worth most. None if nothing pays, or only what would have to
    /// be read while `only_drops` is set. A shard that rests is merged further.
    pub fn merge_by_policy(
        &self,
        around: &dyn Surroundings,
        only_drops: bool,
        is_resting: bool,
    ) -> Result<Option<Outcome>> {
        let upkeep = self.upkeep()?;
        let (segments, mut stats) = self.merge_stats();
        stats.is_resting = is_resting;
        match merge_policy::plan(&segments, &stats) {
            Plan::Nothing => Ok(None),
            Plan::Drop(ids) => self.drop_segments(&ids, around).map(Some),
            Plan::Merge(_) | Plan::EndActive if only_drops => Ok(None),
            Plan::Merge(ids) => self.merge_segments(&ids, around).map(Some),
            Plan::EndActive => {
                self.lock()?.end_active();
                self.seal_ended_for(&upkeep)?;
                Ok(Some(Outcome::default()))
            }
        }
    }

    /// Merges all segments, the active one included.
    pub fn merge_all(&self, around: &dyn Surroundings) -> Result<Outcome> {
        let upkeep = self.upkeep()?;
        self.lock()?.end_active();
        self.seal_ended_for(&upkeep)?;
        let inputs = self.sealed_inputs(None);
        let now_ms = self.ctx.storage.wall_ms();
        // Where nothing is dead, expired or split into small files, copying would gain nothing.
        let is_dense = |input: &Input| {
            let live = input.segment.usage.get().0;
            live + HEADER_LEN as u64 == input.sealed.len && input.sealed.expiry_max > now_ms
        };
        let bytes: u64 = inputs.iter().map(|input| input.sealed.len).sum();
        let needed = bytes.div_ceil(self.ordinary_segment_bytes()) as usize;
        if inputs.is_empty() || (inputs.len() <= 2 * needed && inputs.iter().all(is_dense)) {
            return Ok(Outcome::default());
        }
        let ids: Vec<_> = inputs.iter().map(|input| input.segment.id).collect();
        self.merge_segments(&ids, around)
    }

    /// Merges the sealed segments that `choose` picks, whether it pays or not. For tests: whatever
    /// the policy may ever choose must be right.
    pub fn merge_chosen(
        &self,
        around: &dyn Surroundings,
        choose: &mut dyn FnMut(SegmentId) -> bool,
    ) -> Result<Outcome> {
        let _upkeep = self.upkeep()?;
        let mut ids: Vec<_> = self.sealed_inputs(None).iter().map(|i| i.segment.id).collect();
        ids.retain(|id| choose(*id));
        if ids.is_empty() { Ok(Outcome::default()) } else { self.merge_segments(&ids, around) }
    }

    fn sealed_inputs(&self, ids: Option<&[SegmentId]>) -> Vec<Input> {
        let segments = self.segments.all();
        let manifest = self.catalog.manifest();
        let mut inputs: Vec<Input> = manifest
            .segments
            .iter()
            .filter(|entry| ids.is_none_or(|ids| ids.contains(&entry.id)))
            .filter_map(|entry| {
                let segment = segments.iter().find(|segment| segment.id == entry.id)?;
                Some(Input { segment: Arc::clone(segment), sealed: *entry.sealed()? })
            })
            .collect();
        inputs.sort_by_key(|input| input.segment.id);
        inputs
    }

    /// Removes segments in which nothing lives, or everything is expired, without reading them.
    fn drop_segments(&self, ids: &[SegmentId], around: &dyn Surroundings) -> Result<Outcome> {
        let inputs = self.sealed_inputs(Some(ids));
        around.settle()?;
        self.commit(&inputs, &[])?;
        let slots: HashSet<u32> = inputs.iter().map(|input| input.segment.slot).collect();
        if inputs.iter().any(|input| input.segment.usage.get().1 > 0) {
            self.forget_slots(&slots);
        }
        Ok(self.retire(&inputs, 0, 0))
    }

    /// Takes everything that lies in these slots out of the keydir.
    fn forget_slots(&self, slots: &HashSet<u32>) {
        let mut from = Some(0);
        while let Some(first) = from {
            let mut found = Vec::new();
            {
                let guard = self.ctx.reclaim.enter();
                from = self.keydir.visit_leaf(&guard, first, &mut |hash, location| {
                    if slots.contains(&location.slot()) {
                        found.push((hash, location));
                    }
                });
            }
            let mut writer = self.writer();
            for (hash, gone) in found {
                let entry = writer.keydir.entry(hash, |location| location == gone);
                if entry.current().is_some() {
                    entry.remove();
                }
            }
        }
    }

    fn merge_segments(&self, ids: &[SegmentId], around: &dyn Surroundings) -> Result<Outcome> {
        span!("merge", shard = self.id.0, segments = ids.len());
        let inputs = self.sealed_inputs(Some(ids));
        let mut product = Product::default();
        let copied = self.copy(&inputs, &mut product, around).and_then(|()| {
            product.full.extend(product.filling.take());
            self.finish_full(&mut product)?;
            self.ctx.sync_dir(&self.dir)?;
            if !planted!("merge-before-settle") {
                around.settle()?;
            }
            // Whoever finds them in the manifest finds them in the table.
            for output in &product.finished {
                self.segments.insert(Arc::clone(&output.segment));
            }
            product.is_shown = true;
            self.commit(&inputs, &product.finished)
        });
        if let Err(error) = copied {
            self.abandon(product);
            return Err(error);
        }
        let (outputs, copied_bytes) = self.install(&inputs, product);
        self.counters.merges.fetch_add(1, Ordering::Relaxed);
        Ok(self.retire(&inputs, outputs, copied_bytes))
    }

    fn copy(
        &self,
        inputs: &[Input],
        product: &mut Product,
        around: &dyn Surroundings,
    ) -> Result<()> {
        let is_input: HashSet<SegmentId> = inputs.iter().map(|input| input.segment.id).collect();
        let oldest_outside = self
            .sealed_inputs(None)
            .iter()
            .filter(|other| !is_input.contains(&other.segment.id))
            .filter(|other| !planted!("merged-not-older") || other.segment.role == Role::Log)
            .map(|other| other.sealed.min_seqno)
            .min()
            .unwrap_or(Seqno(u64::MAX));
        let mut job = Copying {
            product,
            around,
            now_ms: self.ctx.storage.wall_ms(),
            oldest_outside,
            remaining: inputs.iter().map(|input| input.sealed.len).sum(),
            paced: 0,
        };
        for input in inputs {
            let before = job.product.records();
            let reached = self.copy_segment(input, &mut job)?;
            self.check_whole(input, reached, job.product.records() - before)?;
            job.remaining -= input.sealed.len;
        }
        Ok(())
    }

    /// Copies what lives in a segment. Answers how far its records go.
    fn copy_segment(&self, input: &Input, job: &mut Copying<'_>) -> Result<u64> {
        let segment = &input.segment;
        let bytes = segment.published(input.sealed.len);
        let mut way = segment.in_order();
        let mut reached = HEADER_LEN as u64;
        let mut group = Vec::with_capacity(LOOKUPS);
        let mut frames = Scanner::new(bytes, segment.salt, HEADER_LEN as u64);
        loop {
            if job.paced > 256 << 10 {
                job.around.pace(std::mem::take(&mut job.paced))?;
                self.ctx.poison.check()?;
            }
            self.finish_full(job.product)?;
            let guard = self.ctx.reclaim.enter();
            // Their lookups wait for memory together.
            group.clear();
            while group.len() < LOOKUPS
                && frames.offset() - reached < LOOKUPS_BYTES_MAX
                && let Some((offset, Frame::Record(record))) = frames.next()
            {
                let hash = self.ctx.hasher.hash(record.key);
                self.prefetch_slot(&guard, hash);
                group.push((offset, hash, record));
            }
            let Some((last, _, record)) = group.last() else { return Ok(reached) };
            let end = last + record.frame_len as u64;
            way.reach(end);
            job.paced += end - reached;
            reached = end;
            for (offset, hash, record) in &group {
                self.copy_record(job, segment, *offset, *hash, record, &guard)?;
            }
        }
    }

    /// Refuses to replace a segment of which not all that counts was found.
    fn check_whole(&self, input: &Input, reached: u64, found: u64) -> Result<()> {
        let segment = &input.segment;
        let (place, reason) = if reached != input.sealed.len {
            // Merging would lose the only trace of what was here.
            (reached, "a record is damaged; the segment is kept")
        } else if self.names_more(segment, found) {
            // The keydir would be left pointing at what is gone.
            let reason = "the keydir names records that it does not hold; the segment is kept";
            (HEADER_LEN as u64, reason)
        } else {
            return Ok(());
        };
        if planted!("damage-merged-away") {
            return Ok(());
        }
        self.damaged().insert(segment.id);
        Err(segment.corrupt(place, reason))
    }

    /// Whether the keydir points at more of a segment than the records that were found to be live in
    /// it. What was found may have died since, but nothing comes to life in a sealed segment: then
    /// the hint or the snapshot that the keydir was made from had other hashes than the records' keys.
    fn names_more(&self, segment: &Segment, found: u64) -> bool {
        let _writer = self.writer();
        segment.usage.get().1 > found
    }

    fn copy_record(
        &self,
        job: &mut Copying<'_>,
        segment: &Segment,
        offset: u64,
        hash: u64,
        record: &Record<'_>,
        guard: &Guard<'_>,
    ) -> Result<()> {
        // Older records of the key may hide behind this one, unless nothing outside is older.
        let hides_something = job.oldest_outside < record.seqno;
        match record.kind {
            Kind::Batch | Kind::Marker => Ok(()),
            Kind::Tombstone => {
                // A newer put of the key hides the older ones as well.
                if hides_something
                    && !planted!("tombstone-dropped")
                    && !self.has_key(guard, hash, record.key)
                {
                    self.append(job, record, None)?;
                }
                Ok(())
            }
            Kind::Put => {
                let hash = keydir_bits(hash);
                // By its place alone: what it says of the length is a hint.
                let here = |location: Location| {
                    location.slot() == segment.slot && location.offset() == offset
                };
                let Some(here) = self.keydir.find(guard, hash, here) else { return Ok(()) };
                if record.expiry.is_some_and(|at| at <= job.now_ms) {
                    job.product.expired.push((hash, here, record.frame_len as u64));
                    if hides_something && !planted!("expiry-uncovers") {
                        let tombstone = Record {
                            kind: Kind::Tombstone,
                            flags: Flags::NONE,
                            expiry: None,
                            value: &[],
                            ..*record
                        };
                        self.append(job, &tombstone, None)?;
                    }
                    return Ok(());
                }
                self.append(job, record, Some((hash, here)))
            }
        }
    }

    fn has_key(&self, guard: &Guard<'_>, hash: u64, key: &[u8]) -> bool {
        self.keydir
            .find(guard, keydir_bits(hash), |location| {
                matches!(self.look_at(guard, location, key), Candidate::Record(_))
            })
            .is_some()
    }

    /// Adds a record to the outputs.
    fn append(
        &self,
        job: &mut Copying<'_>,
        record: &Record<'_>,
        origin: Option<(u32, Location)>,
    ) -> Result<()> {
        let product = &mut *job.product;
        let draft = Draft {
            kind: record.kind,
            flags: record.flags.of_value(),
            seqno: record.seqno,
            expiry: record.expiry,
            key: record.key,
            value: record.value,
        };
        let len = draft.frame_len();
        let is_full = |output: &mut Output| !output.tail.fits(len as u64, false);
        product.full.extend(product.filling.take_if(is_full));
        let output = match &mut product.filling {
            Some(output) => output,
            none => {
                let output = self.new_output(len as u64, job.remaining)?;
                product.created.push(Arc::clone(output.tail.segment()));
                none.insert(output)
            }
        };
        output.tail.make_ready(len as u64, false)?;
        let salt = output.tail.segment().salt;
        let mut crc = 0;
        let offset = output
            .tail
            .write(len, |offset, out| crc = draft.encode(record::seed(salt, offset), out))?;
        let copy = Record { frame_len: len, crc, flags: draft.flags, ..*record };
        output.tally.push(&copy);
        let entry = crate::seal::hint_entry(&self.ctx, offset, &copy);
        if let Some((hash, from)) = origin {
            let to = Location::new(output.tail.segment().slot, offset, len);
            output.moves.push(Move { hash, from, to, len: len as u64 });
        }
        output.hint.push(&entry);
        Ok(())
    }

    fn new_output(&self, len: u64, remaining: u64) -> Result<Output> {
        let id = self.catalog.take_id();
        let salt = self.ctx.salt()?;
        let path = self.dir.join(names::segment(id));
        let file = self.ctx.storage.create(&path).at("create", &path)?;
        let header =
            segment::Header { uuid: self.ctx.uuid, shard: self.id, id, role: Role::Merged, salt };
        let wanted = (HEADER_LEN as u64 + remaining).min(self.ordinary_segment_bytes());
        let capacity = wanted.max(HEADER_LEN as u64 + len).min(SEGMENT_LEN_MAX);
        let sizes = Sizes { capacity, chunk: capacity.min(1 << 20), headroom: 0 };
        let slot = self.segments.reserve();
        let tail = Tail::create(file, &header, slot, path.clone(), sizes).inspect_err(|_| {
            self.segments.release(slot);
            let _ = self.ctx.storage.remove(&path);
        })?;
        let binding = Binding { uuid: self.ctx.uuid, shard: self.id, id, role: Role::Merged };
        let (tally, hint) = (Tally::default(), hint::Builder::new(binding));
        Ok(Output { tail, tally, hint, moves: Vec::new() })
    }

    /// Makes full outputs durable, but for their names, and closes their files.
    fn finish_full(&self, product: &mut Product) -> Result<()> {
        for output in std::mem::take(&mut product.full) {
            product.finished.push(self.finish(output)?);
        }
        Ok(())
    }

    fn finish(&self, output: Output) -> Result<Finished> {
        let Output { tail, tally, hint, moves } = output;
        let (segment, sealed) = (Arc::clone(tail.segment()), tally.finish());
        segment.shrink_readable(sealed.len);
        segment.expect_gets(sealed.len, sealed.records);
        tail.file().set_len(sealed.len).at("truncate", &segment.path)?;
        // As for `LogFile::sync_to`.
        segment.map().detach(0, sealed.len);
        if !planted!("outputs-unsynced") {
            tail.file().sync_all().map_err(|fault| {
                let path = segment.path.display();
                self.ctx.poison.latch(format_args!("fsync of {path}: {fault}"))
            })?;
        }
        self.write_hint(segment.id, &hint.finish(&sealed));
        Ok(Finished { segment, sealed, moves })
    }

    /// The manifest names `outputs` instead of `inputs`.
    fn commit(&self, inputs: &[Input], outputs: &[Finished]) -> Result<()> {
        let entries = outputs.iter().map(|Finished { segment, sealed, .. }| SegmentEntry {
            id: segment.id,
            role: segment.role,
            salt: segment.salt,
            state: State::Sealed(*sealed),
        });
        self.catalog.publish(&self.ctx, |manifest| {
            let is_input = |id| inputs.iter().any(|input| input.segment.id == id);
            manifest.segments.retain(|entry| !is_input(entry.id));
            manifest.segments.extend(entries);
            manifest.segments.sort_by_key(|entry| entry.id);
            if planted!("ids-reused") {
                let last = manifest.segments.last().map_or(0, |entry| entry.id.0);
                manifest.next_segment = SegmentId(last + 1);
            }
            Ok(())
        })
    }

    fn abandon(&self, product: Product) {
        for segment in &product.created {
            if product.is_shown {
                self.segments.remove(segment.slot);
            } else {
                self.segments.release(segment.slot);
            }
            // A sync that failed may have come after the manifest was renamed: then the one on disk
            // names the outputs. The next open knows, and removes them if they are not needed.
            if !self.ctx.poison.is_latched() {
                let _ = self.ctx.storage.remove(&segment.path);
                let _ = self.ctx.storage.remove(&self.dir.join(names::hint(segment.id)));
            }
        }
        if product.is_shown {
            drop(product);
            // Who tries again on a full disk needs their space.
            self.ctx.reclaim.collect();
        }
    }

    /// Points the keydir at the copies.
    fn install(&self, inputs: &[Input], product: Product) -> (usize, u64) {
        let by_slot = |slot: u32| inputs.iter().find(|input| input.segment.slot == slot);
        let outputs = product.finished.len();
        let mut bytes = 0;
        for Finished { segment, sealed, moves } in product.finished {
            bytes += sealed.len;
            for step in moves.chunks(INSTALL_STEP) {
                let mut writer = self.writer();
                let guard = self.ctx.reclaim.enter();
                for group in step.chunks(LOOKUPS) {
                    for Move { hash, .. } in group {
                        self.keydir.prefetch(&guard, *hash);
                    }
                    for Move { hash, from, to, len } in group {
                        if writer.keydir.relocate(*hash, *from, *to) {
                            segment.usage.add(*len);
                            if let Some(input) = by_slot(from.slot()) {
                                input.segment.usage.remove(*len);
                            }
                        } else if planted!("merge-revives") {
                            writer.keydir.insert_unique(*hash, *to);
                        }
                    }
                }
            }
        }
        for step in product.expired.chunks(INSTALL_STEP) {
            let mut writer = self.writer();
            for (hash, gone, len) in step {
                let entry = writer
                    .keydir
                    .entry(*hash, |location| location == *gone || planted!("expiry-removes-newer"));
                if entry.current().is_some() {
                    entry.remove();
                    if let Some(input) = by_slot(gone.slot()) {
                        input.segment.usage.remove(*len);
                    }
                }
            }
        }
        (outputs, bytes)
    }

    /// Removes the files of segments that nothing names any more.
    fn retire(&self, inputs: &[Input], outputs: usize, copied_bytes: u64) -> Outcome {
        let mut freed_bytes = 0;
        for input in inputs {
            freed_bytes += input.sealed.len;
            self.segments.remove(input.segment.slot);
            // What stays is removed by the next open.
            let _ = self.ctx.storage.remove(&input.segment.path);
            let _ = self.ctx.storage.remove(&self.dir.join(names::hint(input.segment.id)));
        }
        if self.ctx.reclaim.collect() > 0 {
            // A reader is in the way: the background tries again.
            self.ctx.announce(Event::Garbage(self.id));
        }
        self.set_snapshot_seqno(Seqno::NONE);
        self.add_bytes(copied_bytes);
        self.subtract_bytes(freed_bytes);
        self.weigh(&self.writer().log);
        self.counters.merged_bytes.fetch_add(copied_bytes, Ordering::Relaxed);
        self.counters.freed_bytes.fetch_add(freed_bytes, Ordering::Relaxed);
        Outcome { inputs: inputs.len(), outputs, copied_bytes, freed_bytes }
    }
}
