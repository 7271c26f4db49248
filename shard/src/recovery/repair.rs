//! The writing half of recovery: brings the directory in line with what the scan decided.
//!
//! Order: what is kept is synced; the manifest says where it ends; only then do files get shorter,
//! and those go that it no longer names. A crash in between leaves a directory that recovers to the
//! same.

use std::collections::VecDeque;
use std::sync::Arc;

use caskade_codec::ids::{SegmentId, Seqno};
use caskade_codec::manifest::{Manifest, SegmentEntry, State};
use caskade_codec::names::FileName;
use caskade_codec::segment::{HEADER_LEN, Sealed};

use super::fold::Fold;
use super::scan::{OpenFound, ShardScan, Source};
use super::{Request, ShardReport};
use crate::catalog::{self, Catalog};
use crate::context::Context;
use crate::error::{At, Result};
use crate::keydir;
use crate::log_file::LogFile;
use crate::segment::Segment;
use crate::shard::{Ended, Recovered, Shard};
use crate::storage::{Access, DirEntry, EntryKind};

impl ShardScan {
    /// Builds the shard, and repairs its directory unless the store is opened read-only.
    pub fn finish(
        mut self,
        ctx: &Arc<Context>,
        request: &Request<'_>,
    ) -> Result<(Shard, ShardReport)> {
        request.check_stop()?;
        let (mut ended, mut unused) = (VecDeque::new(), VecDeque::new());
        let mut listed = Vec::new();
        if !request.read_only || planted!("read-only-repairs") {
            if self.is_cut {
                listed = self.apply_cut(ctx)?;
            } else if !self.manifest_is_whole {
                self.replace_manifest(ctx)?;
            }
            self.remove_leftovers(ctx)?;
            self.trim(ctx)?;
        }
        for open in &self.open {
            match &open.found {
                Some(found) if !open.is_dropped && found.scan.end > HEADER_LEN as u64 => {
                    if self.is_cut && !request.read_only {
                        continue;
                    }
                    let (segment, file) = (Arc::clone(&found.segment), Arc::clone(&found.file));
                    let file = Arc::new(LogFile::new(segment, file, false));
                    // The last life may have taken something back and ended before the sync.
                    file.stain();
                    let last = found.scan.last.unwrap_or(Seqno::NONE);
                    ended.push_back(Ended { file, end: found.scan.end, last });
                }
                _ => unused.push_back((open.entry.id, open.entry.salt)),
            }
        }
        if self.is_cut && !request.read_only {
            unused = listed.into();
        } else if let Some(used) = ended.back().map(|ended: &Ended| ended.file.segment.id) {
            // Ids are used in order, so one below a used id stays unused for good.
            unused.retain(|(id, _)| *id > used);
        }
        let snapshot_seqno = self.exact_snapshot();
        let (mut keydir, has_batches) = self.fill_keydir(ctx);
        if request.read_only {
            // There is no background that would do it, and give back what the leaves are made of.
            keydir.settle_all();
        }
        self.report.keys = keydir.shared().len();
        self.report.segments = (self.sealed.len() + ended.len()) as u64;
        let recovered = Recovered {
            id: self.id,
            catalog: Catalog::new(self.dir.clone(), self.manifest.clone()),
            dir: self.dir,
            keydir,
            segments: self.segments,
            ended,
            unused,
            next_seqno: self.next_seqno,
            durable: self.manifest.horizon,
            has_batches,
            snapshot_seqno,
        };
        Ok((Shard::new(Arc::clone(ctx), recovered), self.report))
    }

    /// What the snapshot covers, if nothing has to be added to it.
    fn exact_snapshot(&self) -> Seqno {
        let is_all = self.sealed.iter().all(|scan| matches!(scan.source, Source::Covered))
            && self.open.iter().all(|open| open.found.is_none());
        self.keydir.as_ref().filter(|_| is_all).map_or(Seqno::NONE, |loaded| loaded.seqno)
    }

    /// Puts all segments into the table and all keys into the keydir.
    fn fill_keydir(&mut self, ctx: &Context) -> (keydir::KeydirWriter, bool) {
        let mut candidates = Vec::new();
        let mut has_batches = false;
        for scan in &mut self.sealed {
            if scan.is_dropped {
                self.segments.release(scan.segment.slot);
                continue;
            }
            self.segments.insert(Arc::clone(&scan.segment));
            match &mut scan.source {
                Source::Covered => {}
                Source::Hint(found) => candidates.push(std::mem::take(found)),
                Source::Log(log) => {
                    has_batches |= !log.batches.is_empty();
                    candidates.push(std::mem::take(&mut log.candidates));
                }
            }
        }
        for open in &mut self.open {
            let Some(found) = &mut open.found else { continue };
            if open.is_dropped || found.scan.end <= HEADER_LEN as u64 {
                // Its id may be used again; a second segment of that id must not be in the table.
                if planted!("empty-segment-shadows") {
                    self.segments.insert(Arc::clone(&found.segment));
                    continue;
                }
                self.segments.release(found.segment.slot);
            } else {
                self.segments.insert(Arc::clone(&found.segment));
                // It may have had a part of a batch that was taken back, of which the device still has
                // a copy: the last life may have ended before the sync.
                has_batches = true;
                candidates.push(std::mem::take(&mut found.scan.candidates));
            }
        }
        let (segments, reclaim, memory) = (&self.segments, &ctx.reclaim, &ctx.leaf_memory);
        let fold = Fold { candidates, segments, reclaim, memory };
        let keydir = if let Some(loaded) = self.keydir.take() {
            self.report.keys_from_snapshot = loaded.keys;
            fold.bring_forward(loaded.keydir, loaded.seqno)
        } else {
            fold.fill()
        };
        (keydir, has_batches)
    }

    /// Makes the cut durable: every kept segment is sealed at its new length, and the next record
    /// gets a number above all that were ever seen. Answers the ids that are listed for new segments.
    /// No file changes: until the manifest has changed, a sealed one must have its whole length.
    fn apply_cut(&mut self, ctx: &Context) -> Result<Vec<(SegmentId, u32)>> {
        let mut entries = Vec::new();
        for scan in self.sealed.iter().filter(|scan| !scan.is_dropped) {
            let sealed = match (&scan.source, scan.entry.sealed()) {
                (Source::Log(log), Some(before)) if log.end < before.len => {
                    scan.segment.shrink_readable(log.end);
                    if planted!("cut-before-manifest") {
                        let file = ctx.storage.open(&scan.segment.path, Access::ReadWrite);
                        let _ = file.and_then(|file| file.set_len(log.end));
                    }
                    // With what is damaged in it: that stays, to be found by whoever looks.
                    let intact = log.tally.finish();
                    let numbers = if log.tally.is_empty() { *before } else { intact };
                    let (min_seqno, max_seqno) = (numbers.min_seqno, numbers.max_seqno);
                    Sealed { len: log.end, min_seqno, max_seqno, ..intact }
                }
                (_, Some(sealed)) => *sealed,
                (_, None) => unreachable!("only sealed segments are in this list"),
            };
            entries.push(SegmentEntry { state: State::Sealed(sealed), ..scan.entry });
        }
        for open in &self.open {
            if let (Some(found), false) = (&open.found, open.is_dropped)
                && found.scan.end > HEADER_LEN as u64
            {
                let sealed: Sealed = found.scan.tally.finish();
                found.segment.shrink_readable(sealed.len);
                sync_kept(ctx, found)?;
                entries.push(SegmentEntry { state: State::Sealed(sealed), ..open.entry });
            }
        }
        // Files that the manifest names must not get lost with their directory entries.
        ctx.sync_dir(&self.dir)?;
        entries.sort_by_key(|entry| entry.id);
        self.manifest = Manifest {
            generation: self.manifest.generation + 1,
            next_segment: self.next_free_id(ctx)?,
            next_log_seqno: self.next_seqno,
            segments: entries,
            ..self.manifest.clone()
        };
        let listed = catalog::list_ahead(ctx, &mut self.manifest, 0)?;
        self.replace_manifest(ctx)?;
        Ok(listed)
    }

    fn replace_manifest(&mut self, ctx: &Context) -> Result<()> {
        catalog::write(ctx, &self.dir, &self.manifest)?;
        self.manifest_is_durable = true;
        Ok(())
    }

    /// The first id that no file has. A merge that did not come to its end left files under ids that
    /// were not listed; listed as open ones, they would be damage to the next open, should this one end
    /// before they are removed.
    fn next_free_id(&self, ctx: &Context) -> Result<SegmentId> {
        /// No merge gets so far ahead of the manifest; a file with such a name is none of ours.
        const FAR: u64 = 1 << 20;
        let next = self.manifest.next_segment;
        let entries = ctx.storage.list_dir(&self.dir).at("list", &self.dir)?;
        let ids = entries.iter().filter_map(|entry| match FileName::parse(&entry.name) {
            FileName::Segment(id) if id.0 < next.0 + FAR => Some(SegmentId(id.0 + 1)),
            _ => None,
        });
        Ok(ids.fold(next, SegmentId::max))
    }

    /// The manifest may have got its name just before the last life ended. Were that undone by a power
    /// cut, the older one would miss what is taken away because of this one.
    fn trust_manifest(&mut self, ctx: &Context) -> Result<()> {
        if !self.manifest_is_durable && !planted!("manifest-trusted") {
            ctx.sync_dir(&self.dir)?;
            self.manifest_is_durable = true;
        }
        Ok(())
    }

    /// Gives back what files have beyond their sealed lengths. A power cut may undo that: then the
    /// next open does it again.
    fn trim(&mut self, ctx: &Context) -> Result<()> {
        let sealed = self.sealed.iter().filter(|scan| !scan.is_dropped);
        let sealed = sealed.map(|scan| (&scan.segment, scan.file_len));
        let open = self.open.iter().filter(|open| self.is_cut && !open.is_dropped);
        let open = open.filter_map(|open| open.found.as_ref());
        let open = open.map(|found| (&found.segment, found.file_len));
        let is_long = |(segment, file_len): &(&Arc<Segment>, u64)| *file_len > segment.readable();
        let long = sealed.chain(open).filter(is_long).map(|(segment, _)| Arc::clone(segment));
        for segment in long.collect::<Vec<_>>() {
            self.trust_manifest(ctx)?;
            if let Ok(file) = ctx.storage.open(&segment.path, Access::ReadWrite) {
                let _ = file.set_len(segment.readable());
            }
        }
        Ok(())
    }

    /// Removes files of our own names that the manifest does not know. All others stay.
    fn remove_leftovers(&mut self, ctx: &Context) -> Result<()> {
        let entries = ctx.storage.list_dir(&self.dir).at("list", &self.dir)?;
        let is_listed = |id: SegmentId| self.manifest.segments.iter().any(|e| e.id == id);
        let is_in_use = |id: SegmentId| {
            let is_sealed = self.sealed.iter().any(|scan| scan.entry.id == id && !scan.is_dropped);
            let open = self.open.iter().find(|open| open.entry.id == id);
            is_listed(id)
                && (is_sealed
                    || open.is_some_and(|open| {
                        open.found.as_ref().is_some_and(|f| f.scan.end > HEADER_LEN as u64)
                    }))
        };
        let is_leftover = |entry: &DirEntry| {
            entry.kind == EntryKind::File
                && match FileName::parse(&entry.name) {
                    FileName::Segment(id) => !is_in_use(id),
                    FileName::Hint(id) => !is_listed(id),
                    FileName::Temporary => true,
                    FileName::Unknown => planted!("foreign-files-removed"),
                    FileName::Manifest | FileName::Keydir => false,
                }
        };
        let leftovers: Vec<_> = entries.iter().filter(|entry| is_leftover(entry)).collect();
        for entry in leftovers {
            self.trust_manifest(ctx)?;
            let path = self.dir.join(&entry.name);
            ctx.storage.remove(&path).at("remove", &path)?;
        }
        Ok(())
    }
}

/// Makes durable what a log segment has: after a process that was killed, not all of it need be.
fn sync_kept(ctx: &Context, found: &OpenFound) -> Result<()> {
    if planted!("cut-unsynced") {
        return Ok(());
    }
    found.file.sync_all().map_err(|fault| {
        ctx.poison.latch(format_args!("fsync of {}: {fault}", found.segment.path.display()))
    })
}
