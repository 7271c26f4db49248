//! Sealing: a full log segment becomes an immutable one, with a hint.
//!
//! Order: the segment's bytes are synced, its file is cut to its length, and only then does the
//! manifest call it sealed. The hint's name needs no sync: where it is lost, recovery reads the records.

#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;

use caskade_codec::hash::keydir_bits;
use caskade_codec::hint::{self, Binding, Class};
use caskade_codec::ids::SegmentId;
use caskade_codec::manifest::{Manifest, SegmentEntry, State};
use caskade_codec::names;
use caskade_codec::record::{Frame, Record};
use caskade_codec::segment::{HEADER_LEN, Scanner, Sealed, Tally};

use crate::catalog::{OPEN_AHEAD, list_ahead};
use crate::context::Event;
use crate::error::{At, Result};
use crate::segment::Segment;
use crate::shard::{Ended, Shard, Upkeep};
use crate::storage;

/// So many full segments, over all shards, may wait until sealing is due: each holds a file open.
const FILES_MAX: usize = 256;
/// The bounds of a shard's share of them.
const FILES_MAX_EACH: (usize, usize) = (16, 64);
/// So many bytes of full segments, over all shards, may wait: after a crash they are read whole.
const BYTES_MAX: u64 = 256 << 20;

fn files_max(shards: u16) -> usize {
    (FILES_MAX / usize::from(shards)).clamp(FILES_MAX_EACH.0, FILES_MAX_EACH.1)
}

/// Whether so many full segments of one of `shards` shards wait that they must not wait for more.
pub(crate) fn is_due(files: usize, bytes: u64, shards: u16) -> bool {
    files >= files_max(shards) || bytes >= BYTES_MAX / u64::from(shards)
}

/// How long that shard's writers rest for every stretch, in microseconds: sealing has long been due.
pub(crate) fn backlog_micros(files: usize, bytes: u64, shards: u16) -> u64 {
    let is_much = bytes > 4 * BYTES_MAX / u64::from(shards);
    let free = if is_much { FILES_MAX_EACH.0 } else { 2 * files_max(shards) };
    (files.saturating_sub(free) as u64 * 1_000).min(20_000)
}

impl Shard {
    /// Seals what waits for it. Answers how many segments that were.
    pub fn seal_ended(&self) -> Result<usize> {
        self.seal_ended_for(&self.upkeep()?)
    }

    /// As [`Shard::seal_ended`], for somebody who holds the upkeep.
    pub fn seal_ended_for(&self, _upkeep: &Upkeep<'_>) -> Result<usize> {
        self.ctx.poison.check()?;
        let ended: Vec<Ended> = self.writer().log.ended.iter().cloned().collect();
        if ended.is_empty() {
            return Ok(0);
        }
        span!("seal", shard = self.id.0, segments = ended.len());
        let mut sealed = Vec::with_capacity(ended.len());
        for ended in &ended {
            sealed.push((ended.file.segment.id, self.seal(ended)?));
        }
        let last = ended.last().expect("not empty");
        let publish = |unused| {
            self.catalog.publish(&self.ctx, |manifest| {
                mark_sealed(manifest, &sealed);
                manifest.next_log_seqno = last.last.next();
                list_ahead(&self.ctx, manifest, unused)
            })
        };
        // A rotation meanwhile takes an id that is listed already, and does not wait for this manifest.
        let listing = self.listing();
        let unused = self.ahead().ids.len();
        let listed = publish(if unused < OPEN_AHEAD / 2 { unused } else { OPEN_AHEAD })?;
        self.ahead().ids.extend(listed);
        drop(listing);
        let mut writer = self.writer();
        for _ in &ended {
            writer.log.ended.pop_front();
        }
        self.weigh(&writer.log);
        drop(writer);
        self.counters.sealed.fetch_add(ended.len() as u64, Ordering::Relaxed);
        self.ctx.announce(Event::Garbage(self.id));
        Ok(ended.len())
    }

    fn seal(&self, ended: &Ended) -> Result<Sealed> {
        let Ended { file, end, .. } = ended;
        let segment = &file.segment;
        if !planted!("seal-unsynced") {
            file.sync_to(&self.ctx, *end)?;
        }
        segment.map().will_need(0, *end);
        segment.map().populate_read(0, *end);
        let (sealed, hint) = describe(segment, *end, &self.ctx);
        if sealed.len != *end {
            // Never cut off what was acknowledged: the file stays as it is, and unsealed.
            let error = segment.corrupt(sealed.len, "a record was damaged before it was sealed");
            return Err(self.ctx.poison.latch(error));
        }
        segment.shrink_readable(*end);
        segment.expect_gets(sealed.len, sealed.records);
        self.extension.take(segment.id);
        file.file.set_len(*end).at("truncate", &segment.path)?;
        self.write_hint(segment.id, &hint);
        Ok(sealed)
    }

    /// Writes a hint. Recovery does without one, so that a failure is no error.
    pub(crate) fn write_hint(&self, id: SegmentId, bytes: &[u8]) {
        let name = names::hint(id);
        let _ = storage::replace_without_dir_sync(&*self.ctx.storage, &self.dir, &name, bytes);
    }
}

fn mark_sealed(manifest: &mut Manifest, sealed: &[(SegmentId, Sealed)]) {
    let newest = sealed.last().expect("not empty").0;
    manifest.segments.retain_mut(|entry: &mut SegmentEntry| {
        if let Some((_, facts)) = sealed.iter().find(|(id, _)| *id == entry.id) {
            entry.state = State::Sealed(*facts);
        }
        // An open id below a sealed one was skipped and stays unused.
        entry.sealed().is_some() || entry.id > newest
    });
    manifest.segments.retain(|e| e.sealed().is_none_or(|s| s.len > HEADER_LEN as u64));
}

/// Reads a whole segment once, for its manifest entry and its hint.
fn describe(segment: &Segment, end: u64, ctx: &crate::context::Context) -> (Sealed, Vec<u8>) {
    let binding =
        Binding { uuid: ctx.uuid, shard: segment.shard, id: segment.id, role: segment.role };
    let mut builder = hint::Builder::new(binding);
    let mut tally = Tally::default();
    for (offset, frame) in Scanner::new(segment.published(end), segment.salt, HEADER_LEN as u64) {
        if let Frame::Record(record) = frame {
            tally.push(&record);
            builder.push(&hint_entry(ctx, offset, &record));
        }
    }
    let sealed = tally.finish();
    (sealed, builder.finish(&sealed))
}

/// What a hint says of a record.
pub(crate) fn hint_entry(
    ctx: &crate::context::Context,
    offset: u64,
    record: &Record<'_>,
) -> hint::Entry {
    let class = Class::of(record.kind, record.expiry.is_some());
    let has_key = class != Class::Other;
    hint::Entry {
        offset,
        frame_len: record.frame_len as u32,
        class,
        hash: if has_key { keydir_bits(ctx.hasher.hash(record.key)) } else { 0 },
        seqno: record.seqno,
    }
}
