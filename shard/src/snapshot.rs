//! Writing the keydir snapshot: the shard's keys as of one point, all of them durable.
//!
//! Once it stands, the hints of the segments that it covers are removed: either alone would do,
//! and both together would cost too much space.

use std::collections::HashMap;

use caskade_codec::ids::{SegmentId, Seqno};
use caskade_codec::names;
use caskade_codec::snapshot::{self, Position, encode_leaf};

use crate::catalog::replace_file;
use crate::error::Result;
use crate::keydir::Snapshot;
use crate::merge::Surroundings;
use crate::shard::Shard;

/// A shard's keydir as of one point, and where that is.
#[derive(Debug)]
pub struct KeydirCut {
    pub(crate) keydir: Snapshot,
    pub(crate) seqno: Seqno,
    /// Live bytes and records of each segment at the same moment.
    usage: HashMap<SegmentId, (u64, u64)>,
}

impl crate::write_path::Locked<'_> {
    /// The keydir as it stands, to be written once everything in it is durable.
    ///
    /// The active segment ends here, so that the snapshot covers whole segments.
    pub fn cut_keydir(&mut self) -> KeydirCut {
        self.end_active();
        let seqno = self.last_seqno();
        KeydirCut { keydir: self.snapshot_keydir(), seqno, usage: self.usage() }
    }
}

impl Shard {
    /// Writes a snapshot of the keydir as it is now, once everything in it is durable and settled.
    pub fn snapshot(&self, around: &dyn Surroundings) -> Result<()> {
        span!("snapshot", shard = self.id.0, keys = self.len());
        let upkeep = self.upkeep()?;
        let cut = self.lock_even_closed().cut_keydir();
        self.seal_ended_for(&upkeep)?;
        around.settle()?;
        self.write_snapshot(&cut)
    }

    /// Writes a snapshot of the keydir as of `cut`.
    ///
    /// Everything up to the cut must be sealed and at or below the horizon, and no merge may have
    /// run since: the caller holds `upkeep` from before the cut.
    fn write_snapshot(&self, cut: &KeydirCut) -> Result<()> {
        let (mut leaf, mut raw) = (Vec::new(), Vec::new());
        let mut body =
            Vec::with_capacity(cut.keydir.len() as usize * 12 + cut.keydir.leaves() * 16);
        for index in 0..cut.keydir.leaves() {
            let first = cut.keydir.leaf(index, &mut leaf);
            raw.clear();
            raw.extend(leaf.iter().map(|(hash, location)| (*hash, location.raw())));
            encode_leaf(index as u32, first, &raw, &mut body);
        }
        let manifest = self.catalog.manifest().clone();
        let mut segments: Vec<_> = self
            .segments
            .all()
            .iter()
            .filter_map(|segment| {
                let entry = manifest.segments.iter().find(|entry| entry.id == segment.id)?;
                let sealed = entry.sealed()?;
                // Segments that came after the cut are not covered.
                let (live_bytes, live_records) = *cut.usage.get(&segment.id)?;
                let (slot, id, len) = (segment.slot, segment.id, sealed.len);
                Some(snapshot::Segment { slot, id, len, live_bytes, live_records })
            })
            .collect();
        segments.sort_by_key(|segment| segment.slot);
        let newest = segments.iter().max_by_key(|segment| segment.id);
        let position = newest.map_or(Position { segment: SegmentId(0), offset: 0 }, |newest| {
            Position { segment: newest.id, offset: newest.len }
        });
        let header = snapshot::Header {
            uuid: self.ctx.uuid,
            shard: self.id,
            keys: cut.keydir.len(),
            seqno: cut.seqno,
            position,
            leaves: cut.keydir.leaves() as u32,
            segments,
        };
        let mut bytes = header.encode();
        bytes.append(&mut body);
        replace_file(&self.ctx, &self.dir, names::KEYDIR, &bytes)?;
        self.set_snapshot_seqno(cut.seqno);
        for segment in &header.segments {
            // A hint that stays costs space, no more.
            let _ = self.ctx.storage.remove(&self.dir.join(names::hint(segment.id)));
        }
        Ok(())
    }
}
