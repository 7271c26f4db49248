//! Appending records and publishing them, under the shard's writer lock.
//!
//! A record is complete in its segment before the keydir names it; an append that fails publishes
//! nothing. Sequence numbers in the log are dense, so an append that fails uses none up.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard};

use caskade_codec::hash::keydir_bits;
use caskade_codec::ids::{SegmentId, Seqno, ShardId};
use caskade_codec::record::{self, BatchPart, Draft, Flags, Kind, Marker};

use crate::context::{Context, Event};
use crate::error::{Error, Result};
use crate::keydir::{Entry, KeydirWriter, Snapshot};
use crate::location::Location;
use crate::log_file::Cut;
use crate::merge_policy;
use crate::read_path::{Candidate, Damage, Found};
use crate::reclaim::Guard;
use crate::segment::Segment;
use crate::shard::{Active, Ended, Log, Shard, Writer};
use crate::shard_set::ShardSet;

/// Changes of a batch whose cache misses overlap.
const OVERLAPPED: usize = 32;

/// How many bytes are written before the share of dead ones is looked at again, where nothing else stops
/// for it.
const LOOK_EVERY: u64 = 64 << 10;

/// A change to one key.
#[derive(Debug, Clone, Copy)]
pub struct Op<'a> {
    /// The key's hash.
    pub hash: u64,
    /// The key.
    pub key: &'a [u8],
    /// What becomes of it.
    pub change: Change<'a>,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// It gets a value.
    Put {
        /// The bytes to store.
        value: &'a [u8],
        /// How they are compressed.
        flags: Flags,
        /// When they expire, in milliseconds since 1970.
        expiry: Option<u64>,
    },
    /// It goes.
    Delete,
}

impl<'a> Op<'a> {
    #[inline]
    fn draft(&self, seqno: Seqno, in_batch: bool) -> Draft<'a> {
        let batch = if in_batch { Flags::IN_BATCH } else { Flags::NONE };
        let (kind, flags, expiry, value) = match self.change {
            Change::Put { value, flags, expiry } => (Kind::Put, flags | batch, expiry, value),
            Change::Delete => (Kind::Tombstone, batch, None, &[][..]),
        };
        Draft { kind, flags, seqno, expiry, key: self.key, value }
    }

    #[inline]
    fn is_delete(&self) -> bool {
        matches!(self.change, Change::Delete)
    }
}

/// The record that a key had before a change.
#[derive(Debug)]
pub enum Old<'g> {
    /// None.
    Absent,
    /// This one; its checksum is not verified yet, and it may be expired.
    Record(Found<'g>),
    /// One that cannot be read.
    Damaged(Location, Damage<'g>),
}

impl Old<'_> {
    /// Counts the record as dead.
    #[inline]
    fn give_up(&self) {
        match self {
            Self::Absent => {}
            Self::Record(_) if planted!("dead-bytes-off") => {}
            Self::Record(found) => found.segment.usage.remove(found.frame.bytes.len() as u64),
            Self::Damaged(location, damage) => {
                damage.segment().usage.remove(location.len_about() as u64);
            }
        }
    }
}

/// The shard's writer lock, held.
#[derive(Debug)]
pub struct Locked<'s> {
    shard: &'s Shard,
    writer: MutexGuard<'s, Writer>,
    // Dropped after the lock.
    news: News<'s>,
}

/// What is announced to the background once the lock is given back: whoever is woken may take the
/// processor over at once, and other writers must not wait for that.
#[derive(Debug)]
struct News<'s> {
    shard: &'s Shard,
    has_rotated: bool,
    has_garbage: bool,
    wants_room: bool,
}

impl<'s> News<'s> {
    fn none(shard: &'s Shard) -> Self {
        Self { shard, has_rotated: false, has_garbage: false, wants_room: false }
    }

    #[cold]
    fn announce(&self) {
        let Shard { id, ctx, .. } = self.shard;
        // Room is needed first.
        if self.wants_room {
            ctx.announce(Event::Extension(*id));
        }
        if self.has_rotated {
            ctx.announce(Event::Rotation(*id));
        }
        if self.has_garbage {
            ctx.announce(Event::Garbage(*id));
        }
    }
}

impl Drop for News<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.wants_room || self.has_rotated || self.has_garbage {
            self.announce();
        }
    }
}

/// A batch part that is in the log but not yet in the keydir.
#[derive(Debug)]
pub struct Staged {
    position: u64,
    next_seqno: Seqno,
    records: Vec<Appended>,
}

/// A record that is in the log but not yet in the keydir.
#[derive(Debug, Clone, Copy)]
struct Appended {
    seqno: Seqno,
    location: Location,
    len: u64,
}

/// What all parts of a batch carry.
#[derive(Debug, Clone, Copy)]
pub struct BatchName {
    /// The lowest shard that takes part.
    pub coordinator: ShardId,
    /// The sequence number of the coordinator's batch header.
    pub seqno: Seqno,
    /// How many shards take part.
    pub parts: u16,
}

impl Shard {
    /// Takes the writer lock, unless the store takes no more writes.
    #[inline]
    pub fn lock(&self) -> Result<Locked<'_>> {
        let writer = self.writer();
        self.ctx.poison.check()?;
        if writer.log.is_closed {
            return Err(Error::Closed);
        }
        Ok(Locked { shard: self, writer, news: News::none(self) })
    }

    /// Takes the writer lock, to look and to sync; a closed store's too.
    pub fn lock_even_closed(&self) -> Locked<'_> {
        Locked { shard: self, writer: self.writer(), news: News::none(self) }
    }

    /// Where the log ends now.
    pub fn cut(&self) -> Cut {
        self.writer().log.cut(self.id)
    }

    /// Takes no more writes.
    pub fn close_log(&self) {
        self.writer().log.is_closed = true;
    }
}

impl Locked<'_> {
    /// The sequence number that the next record gets.
    pub fn next_seqno(&self) -> Seqno {
        self.writer.log.next_seqno
    }

    /// The one that the last record got.
    pub fn last_seqno(&self) -> Seqno {
        self.writer.log.last_seqno()
    }

    /// Where the log ends now.
    pub fn cut(&self) -> Cut {
        self.writer.log.cut(self.shard.id)
    }

    /// Applies `op`, whatever was there. Answers the new record's sequence number.
    #[inline]
    pub fn apply(&mut self, op: &Op<'_>) -> Result<Seqno> {
        let Writer { keydir, log } = &mut *self.writer;
        // The record first: meanwhile the memory that the lookup needs arrives.
        let record = log.append(&mut self.news, op)?;
        let guard = self.shard.ctx.reclaim.enter();
        let (entry, old) = self.shard.entry(&guard, keydir, op);
        log.publish(self.shard, op, record, entry, &old);
        Ok(record.seqno)
    }

    /// Applies `op` if `decide`, which sees the key's old record, says so. Answers the new
    /// record's sequence number.
    #[inline]
    pub fn apply_if(
        &mut self,
        op: &Op<'_>,
        decide: impl FnOnce(&Old<'_>) -> Result<bool>,
    ) -> Result<Option<Seqno>> {
        let Writer { keydir, log } = &mut *self.writer;
        let guard = self.shard.ctx.reclaim.enter();
        let (entry, old) = self.shard.entry(&guard, keydir, op);
        if !decide(&old)? {
            return Ok(None);
        }
        let record = log.append(&mut self.news, op)?;
        log.publish(self.shard, op, record, entry, &old);
        Ok(Some(record.seqno))
    }

    /// Puts this shard's part of a batch into the log. Nobody sees it until it is published.
    pub fn stage(&mut self, ops: &[Op<'_>], name: BatchName) -> Result<Staged> {
        let log = &mut self.writer.log;
        let first = log.next_seqno;
        let drafts: Vec<_> =
            (1..).zip(ops).map(|(index, op)| op.draft(Seqno(first.0 + index), true)).collect();
        let bytes: u64 = drafts.iter().map(|draft| draft.frame_len() as u64).sum();
        let part = BatchPart {
            coordinator: name.coordinator,
            parts: name.parts,
            ops: ops.len() as u32,
            coordinator_seqno: name.seqno,
            bytes,
        };
        let payload = part.encode();
        let head = plain(Kind::Batch, first, &payload);
        let total = head.frame_len() as u64 + bytes;
        log.make_room(&mut self.news, total, true)?;

        let active = log.active.as_mut().expect("room was made in it");
        let (slot, salt) = (active.tail.segment().slot, active.tail.segment().salt);
        let position = active.tail.position();
        let mut records = Vec::with_capacity(ops.len());
        let written = active.write(&self.shard.ctx, total as usize, |offset, out| {
            let mut at = 0;
            for draft in std::iter::once(&head).chain(&drafts) {
                let (place, len) = (offset + at as u64, draft.frame_len());
                draft.encode(record::seed(salt, place), &mut out[at..at + len]);
                let location = Location::new(slot, place, len);
                records.push(Appended { seqno: draft.seqno, location, len: len as u64 });
                at += len;
            }
        });
        if let Err(error) = written {
            // All of it may have arrived: as in `unstage`.
            active.file.sync_contents(&self.shard.ctx, active.tail.position())?;
            return Err(error);
        }
        // The head is no record of a key.
        records.remove(0);
        log.next_seqno = Seqno(first.0 + 1 + ops.len() as u64);
        Ok(Staged { position, next_seqno: first, records })
    }

    /// Shows a staged part to readers. Answers the sequence number of its last record.
    pub fn publish(&mut self, ops: &[Op<'_>], staged: &Staged, participants: ShardSet) -> Seqno {
        let shard = self.shard;
        let Writer { keydir, log } = &mut *self.writer;
        let guard = shard.ctx.reclaim.enter();
        for (ops, records) in ops.chunks(OVERLAPPED).zip(staged.records.chunks(OVERLAPPED)) {
            // What the old records' lookups need arrives for all of them at once.
            for op in ops {
                shard.prefetch_slot(&guard, op.hash);
            }
            for op in ops {
                shard.guess(&guard, op.hash);
            }
            for (op, record) in ops.iter().zip(records) {
                let (entry, old) = shard.entry(&guard, keydir, op);
                log.publish(shard, op, *record, entry, &old);
            }
        }
        log.entangled = log.entangled.union(participants);
        log.unsettled = log.unsettled.union(participants);
        log.last_seqno()
    }

    /// Takes a staged part back, because another shard could not take its own. The device may have the
    /// part already, and its name is used again: so it is gone there, too, when this returns.
    pub fn unstage(&mut self, staged: &Staged) -> Result<()> {
        self.take_back(staged)?;
        let active = self.writer.log.active.as_mut().expect("the part was staged in it");
        active.file.sync_contents(&self.shard.ctx, active.tail.position())
    }

    pub(crate) fn take_back(&mut self, staged: &Staged) -> Result<()> {
        let log = &mut self.writer.log;
        let active = log.active.as_mut().expect("the part was staged in it");
        active.tail.rewind(staged.position).map_err(|error| self.shard.ctx.poison.latch(error))?;
        active.file.stain();
        if !planted!("failed-batch-counts") {
            log.next_seqno = staged.next_seqno;
        }
        Ok(())
    }

    /// Records in the log itself up to where it is durable, as evidence for recovery.
    pub fn append_marker(&mut self, durable: Seqno) -> Result<()> {
        let log = &mut self.writer.log;
        let payload = Marker { durable }.encode();
        let draft = plain(Kind::Marker, log.next_seqno, &payload);
        let len = draft.frame_len();
        log.make_room(&mut self.news, len as u64, false)?;
        let active = log.active.as_mut().expect("room was made in it");
        let salt = active.tail.segment().salt;
        active.write(&self.shard.ctx, len, |offset, out| {
            draft.encode(record::seed(salt, offset), out);
        })?;
        log.next_seqno = log.next_seqno.next();
        Ok(())
    }

    /// Ends the active segment; the next write begins another.
    pub fn end_active(&mut self) {
        let bytes = self.writer.log.end_active();
        self.shard.add_bytes(bytes);
    }

    pub(crate) fn snapshot_keydir(&mut self) -> Snapshot {
        self.writer.keydir.snapshot()
    }

    /// See [`KeydirWriter::settle`](crate::keydir::KeydirWriter::settle).
    pub(crate) fn settle_leaf(&mut self, from: u32) -> Option<u32> {
        self.writer.keydir.settle(from)
    }

    pub(crate) fn is_keydir_settled(&self) -> bool {
        self.writer.keydir.is_settled()
    }

    /// All segments that a location may name now, by slot.
    pub(crate) fn segments(&self) -> Vec<Option<Arc<Segment>>> {
        let mut by_slot = Vec::new();
        for segment in self.shard.segments.all() {
            let slot = segment.slot as usize;
            by_slot.resize(by_slot.len().max(slot + 1), None);
            by_slot[slot] = Some(segment);
        }
        by_slot
    }

    /// Live bytes and records of each segment.
    pub(crate) fn usage(&self) -> HashMap<SegmentId, (u64, u64)> {
        self.shard.segments.usage()
    }

    /// The shards that must become durable together with this one.
    pub fn entangled(&self) -> ShardSet {
        self.writer.log.entangled
    }

    /// The shards whose horizon must rise together with this one's.
    pub fn unsettled(&self) -> ShardSet {
        self.writer.log.unsettled
    }

    /// Ties this shard's durability and horizon to those of other shards.
    pub(crate) fn tie(&mut self, shards: ShardSet) {
        let log = &mut self.writer.log;
        log.entangled = log.entangled.union(shards);
        log.unsettled = log.unsettled.union(shards);
    }

    /// Where the log ends, for a sync of this shard with all that it is entangled with.
    pub fn cut_for_sync(&mut self) -> Cut {
        self.writer.log.entangled = ShardSet::default();
        self.cut()
    }

    /// Where the log ends, for raising the horizons of this shard and all it is unsettled with.
    pub fn cut_for_horizon(&mut self) -> Cut {
        self.writer.log.unsettled = ShardSet::default();
        self.cut_for_sync()
    }
}

/// A record without key and expiry.
fn plain(kind: Kind, seqno: Seqno, value: &[u8]) -> Draft<'_> {
    Draft { kind, flags: Flags::NONE, seqno, expiry: None, key: &[], value }
}

impl Active {
    /// Stores bytes at the end. A failure that could not be taken back poisons the store: the log
    /// would go on from a record that may be there or not.
    #[inline]
    fn write(
        &mut self,
        ctx: &Context,
        len: usize,
        fill: impl FnOnce(u64, &mut [u8]),
    ) -> Result<u64> {
        self.tail.write(len, fill).map_err(|error| {
            self.file.stain();
            if self.tail.is_unsure() { ctx.poison.latch(error) } else { error }
        })
    }
}

impl Log {
    /// Puts the record of `op` into the log. Nobody sees it until it is published.
    #[inline]
    fn append(&mut self, news: &mut News<'_>, op: &Op<'_>) -> Result<Appended> {
        let seqno = self.next_seqno;
        let draft = op.draft(seqno, false);
        let len = draft.frame_len();
        // The rest of the last headroom is for deletes, which a full disk must still take.
        self.make_room(news, len as u64, !op.is_delete())?;
        let active = self.active.as_mut().expect("room was made in it");
        let (slot, salt) = (active.tail.segment().slot, active.tail.segment().salt);
        let offset = active.write(&news.shard.ctx, len, |offset, out| {
            draft.encode(record::seed(salt, offset), out);
        })?;
        self.next_seqno = seqno.next();
        Ok(Appended { seqno, location: Location::new(slot, offset, len), len: len as u64 })
    }

    /// Shows an appended record to readers in the place of the old one.
    #[inline]
    fn publish(
        &self,
        shard: &Shard,
        op: &Op<'_>,
        record: Appended,
        entry: Entry<'_>,
        old: &Old<'_>,
    ) {
        shard.counters.count_writes(1);
        old.give_up();
        if op.is_delete() {
            entry.remove();
        } else {
            let active = self.active.as_ref().expect("the record was appended to it");
            active.tail.segment().usage.add(record.len);
            entry.set(record.location);
        }
    }

    /// Makes sure that the active segment takes `len` more bytes, rotating if it must.
    #[inline]
    fn make_room(&mut self, news: &mut News<'_>, len: u64, spare: bool) -> Result<()> {
        match &mut self.active {
            Some(active) if active.tail.is_ready(len, spare) => Ok(()),
            _ => self.grow(news, len, spare),
        }
    }

    /// Makes room that is not there yet, and looks at what all the room is used for.
    #[cold]
    fn grow(&mut self, news: &mut News<'_>, len: u64, spare: bool) -> Result<()> {
        let shard = news.shard;
        match &mut self.active {
            Some(active) if active.tail.fits(len, spare) => {
                if let Some(to) = shard.extension.take(active.tail.segment().id) {
                    active.tail.take_over(to);
                }
                active.tail.make_ready(len, spare)?;
                // Where nothing is allocated ahead every write comes by; one in so many looks further.
                if active.tail.is_written() && !active.tail.crosses(len, LOOK_EVERY) {
                    return Ok(());
                }
            }
            _ => self.rotate(news, len, spare)?,
        }
        if let Some(room) = self.active.as_ref().and_then(|active| active.tail.next_room()) {
            shard.extension.want(room);
            news.wants_room = true;
        }
        if merge_policy::is_worth_a_look(shard.weigh(self), shard.id) {
            news.has_garbage = true;
        }
        Ok(())
    }

    fn rotate(&mut self, news: &mut News<'_>, len: u64, spare: bool) -> Result<()> {
        let shard = news.shard;
        span!("rotate", shard = shard.id.0);
        let mut next = shard.take_ahead(len, spare)?;
        if let Err(error) = next.tail.make_ready(len, spare) {
            // Another one may have been made ready meanwhile.
            if let Some(other) = shard.ahead().ready.replace(next) {
                shard.discard(&other);
            }
            return Err(error);
        }
        shard.add_bytes(self.end_active());
        shard.segments.insert(Arc::clone(next.tail.segment()));
        self.active = Some(next);
        news.has_rotated = true;
        Ok(())
    }

    /// Bytes of full segments that wait to be sealed.
    pub(crate) fn ended_bytes(&self) -> u64 {
        self.ended.iter().map(|ended| ended.end).sum()
    }

    /// Lets the active segment take no more records, and answers its length.
    pub(crate) fn end_active(&mut self) -> u64 {
        let Some(Active { tail, file }) = self.active.take() else { return 0 };
        let last = self.last_seqno();
        self.ended.push_back(Ended { file, end: tail.position(), last });
        tail.position()
    }
}

impl Shard {
    /// The entry of a key, and its record.
    #[inline]
    fn entry<'k, 'g>(
        &'g self,
        guard: &'g Guard<'_>,
        keydir: &'k mut KeydirWriter,
        op: &Op<'_>,
    ) -> (Entry<'k>, Old<'g>) {
        let (mut old, mut damaged) = (Old::Absent, None);
        let entry = keydir.entry(keydir_bits(op.hash), |location| {
            match self.look_at(guard, location, op.key) {
                Candidate::Another => false,
                Candidate::Record(found) => {
                    old = Old::Record(found);
                    true
                }
                // The key's own record may stand behind.
                Candidate::Damaged(damage) => {
                    damaged.get_or_insert((location, damage));
                    planted!("damage-taken-first")
                }
            }
        });
        let Some((location, damage)) = damaged else { return (entry, old) };
        if matches!(old, Old::Record(_)) {
            return (entry, old);
        }
        // It has the key's hash bits, and there is no record of the key: the change takes its place.
        (entry.or(|candidate| candidate == location), Old::Damaged(location, damage))
    }

    /// Makes the room that the writer asked for.
    pub fn extend(&self) {
        if !self.ctx.poison.is_latched() {
            self.extension.make();
        }
    }
}
