//! The reading half of recovery: decides, and changes nothing but what it puts back from the journal.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use caskade_codec::hint::{Binding, Hint};
use caskade_codec::ids::{SegmentId, Seqno, ShardId};
use caskade_codec::manifest::{self, Manifest, SegmentEntry, State};
use caskade_codec::segment::{self, HEADER_LEN, Role, Sealed};
use caskade_codec::{FORMAT_VERSION, names};
use rayon::prelude::*;

use super::candidates::{self, Candidate};
use super::log_scan::{self, LogScan, Order};
use super::snapshot_load::{Covered, LoadedKeydir};
use super::{BatchHead, Loss, LossKind, RecoveryMode, Request, ShardReport};
use crate::context::Context;
use crate::error::{At, Error, Result};
use crate::journal::JournalScan;
use crate::segment::{Identity, Segment};
use crate::segment_table::SegmentTable;
use crate::storage::{Access, EntryKind, File, MapMode};

/// What was found in a shard's directory.
#[derive(Debug)]
pub struct ShardScan {
    /// The shard.
    pub id: ShardId,
    pub(super) dir: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) manifest_is_whole: bool,
    /// A power cut does not bring an older one back.
    pub(super) manifest_is_durable: bool,
    pub(super) keydir: Option<LoadedKeydir>,
    pub(super) segments: SegmentTable,
    pub(super) sealed: Vec<SealedScan>,
    pub(super) open: Vec<OpenScan>,
    /// The log was cut, so that the disk must be brought in line before anything is written.
    pub(super) is_cut: bool,
    /// Every number ever seen is below this one.
    pub(super) next_seqno: Seqno,
    pub(super) report: ShardReport,
}

/// A sealed segment.
#[derive(Debug)]
pub(super) struct SealedScan {
    pub(super) entry: SegmentEntry,
    pub(super) segment: Arc<Segment>,
    pub(super) source: Source,
    pub(super) file_len: u64,
    /// It lies wholly behind a cut.
    pub(super) is_dropped: bool,
}

/// Where a sealed segment's records come from.
#[derive(Debug)]
pub(super) enum Source {
    /// They are in the keydir snapshot.
    Covered,
    /// Its hint.
    Hint(Vec<Candidate>),
    /// Its records.
    Log(Box<LogScan>),
}

/// A segment that may still have been growing.
#[derive(Debug)]
pub(super) struct OpenScan {
    pub(super) entry: SegmentEntry,
    /// None where no file is there, or an empty one: the id was listed ahead and not used.
    pub(super) found: Option<OpenFound>,
    /// It lies wholly behind a cut.
    pub(super) is_dropped: bool,
}

#[derive(Debug)]
pub(super) struct OpenFound {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<dyn File>,
    pub(super) file_len: u64,
    pub(super) scan: LogScan,
}

/// Reads a whole small file.
pub(crate) fn read_file(ctx: &Context, path: &Path) -> Result<Vec<u8>> {
    let file = ctx.storage.open(path, Access::Read).at("open", path)?;
    file.read_whole(u64::MAX).at("read", path)
}

/// What a shard's manifest says, from which reading the shard begins.
#[derive(Debug)]
pub struct ListedSegments {
    id: ShardId,
    dir: PathBuf,
    manifest: Manifest,
    /// Both copies are as they were written.
    is_whole: bool,
}

impl ListedSegments {
    /// Reads the manifest of a shard.
    pub fn read(ctx: &Context, id: ShardId) -> Result<Self> {
        let dir = ctx.path.join(names::shard(id));
        let (manifest, is_whole) = read_manifest(ctx, id, &dir)?;
        Ok(Self { id, dir, manifest, is_whole })
    }

    /// How many records its sealed segments have.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.manifest.segments.iter().filter_map(|entry| Some(entry.sealed()?.records)).sum()
    }
}

impl ShardScan {
    /// Reads what is in the shard's directory.
    pub fn read(
        ctx: &Context,
        listed: ListedSegments,
        request: &Request<'_>,
        journal: &JournalScan,
    ) -> Result<Self> {
        let ListedSegments { id, dir, manifest, is_whole: manifest_is_whole } = listed;
        span!("recover", shard = id.0);
        let total = manifest.segments.len() as u64;
        request.progress.segments_total.fetch_add(total, Ordering::Relaxed);
        let segments = SegmentTable::new(Arc::clone(&ctx.reclaim));
        let mut report = ShardReport { shard: id.0, ..ShardReport::default() };
        if !manifest_is_whole {
            report
                .mended
                .push(format!("{}: one copy is damaged", dir.join(names::MANIFEST).display()));
        }
        let keydir = match LoadedKeydir::read(ctx, &dir, &manifest) {
            Ok(loaded) => loaded,
            Err(reason) => {
                report.ignored.push(format!("{}: {reason}", dir.join(names::KEYDIR).display()));
                None
            }
        };
        let covered = keydir.as_ref().map(|keydir| &keydir.covered);
        segments.reserve_exactly(
            &covered.iter().flat_map(|all| all.values()).map(|c| c.slot).collect::<Vec<_>>(),
        );
        let next_seqno = manifest.horizon.next().max(manifest.next_log_seqno);
        let mut scan = Self {
            id,
            dir,
            manifest,
            manifest_is_whole,
            manifest_is_durable: false,
            keydir,
            segments,
            sealed: Vec::new(),
            open: Vec::new(),
            is_cut: false,
            next_seqno,
            report,
        };
        scan.read_sealed(ctx, request)?;
        scan.read_open(ctx, request, journal)?;
        if request.read_only {
            scan.refuse_if_overtaken(ctx)?;
        }
        scan.follow_log(request)?;
        Ok(scan)
    }

    fn read_sealed(&mut self, ctx: &Context, request: &Request<'_>) -> Result<()> {
        let none = HashMap::new();
        let covered = self.keydir.as_ref().map_or(&none, |keydir| &keydir.covered);
        let entries: Vec<_> = self
            .manifest
            .segments
            .iter()
            .filter_map(|entry| Some((*entry, *entry.sealed()?)))
            .map(|(entry, sealed)| {
                let known = covered.get(&entry.id).copied();
                let slot = known.map_or_else(|| self.segments.reserve(), |known| known.slot);
                (entry, sealed, slot, known)
            })
            .collect();
        let read: Vec<(SealedScan, SealedNotes)> = entries
            .par_iter()
            .map(|(entry, sealed, slot, known)| {
                request.check_stop()?;
                let read = self.read_one_sealed(ctx, request, entry, sealed, *slot, *known);
                request.progress.segments_done.fetch_add(1, Ordering::Relaxed);
                read
            })
            .collect::<Result<_>>()?;
        for (scan, notes) in read {
            match &scan.source {
                Source::Covered => {}
                Source::Hint(_) => self.report.hints_read += 1,
                Source::Log(log) => {
                    self.report.segments_scanned += 1;
                    self.report.bytes_scanned += log.end;
                }
            }
            self.report.ignored.extend(notes.ignored);
            self.report.losses.extend(notes.losses);
            self.sealed.push(scan);
        }
        Ok(())
    }

    fn read_one_sealed(
        &self,
        ctx: &Context,
        request: &Request<'_>,
        entry: &SegmentEntry,
        sealed: &Sealed,
        slot: u32,
        known: Option<Covered>,
    ) -> Result<(SealedScan, SealedNotes)> {
        let mut notes = SealedNotes::default();
        let path = self.dir.join(names::segment(entry.id));
        let file = ctx.storage.open(&path, Access::Read).map_err(|fault| {
            if fault.kind() == std::io::ErrorKind::NotFound {
                Error::MissingSegment { shard: self.id, segment: entry.id, path: path.clone() }
            } else {
                Error::io("open", &path, fault)
            }
        })?;
        let file_len = file.len().at("measure", &path)?;
        let readable = sealed.len.min(file_len);
        let map = file.map(readable.max(1), MapMode::Read).at("map", &path)?;
        let identity = Identity {
            shard: self.id,
            id: entry.id,
            slot,
            role: entry.role,
            salt: entry.salt,
            path,
        };
        let segment = Arc::new(Segment::new(identity, map, readable));
        if let Err(reason) = check_header(ctx, &segment) {
            let error = segment.corrupt(0, &reason);
            notes.lose(
                request,
                error,
                self.loss(LossKind::Corruption, entry.id, 0, HEADER_LEN as u64, reason),
            )?;
        }
        if file_len < sealed.len {
            let reason = format!("the file has {file_len} of {} bytes", sealed.len);
            let error = segment.corrupt(file_len, &reason);
            notes.lose(
                request,
                error,
                self.loss(LossKind::Corruption, entry.id, file_len, sealed.len - file_len, reason),
            )?;
        }
        let source = if let Some(known) = known {
            segment.usage.set(known.live_bytes, known.live_records);
            Source::Covered
        } else if let Some(found) = self.read_hint(ctx, entry, sealed, &segment, &mut notes) {
            Source::Hint(found)
        } else {
            let log = self.scan_sealed(ctx, request, entry, sealed, &segment, &mut notes)?;
            Source::Log(Box::new(log))
        };
        // Whatever had to be read in order was read.
        segment.expect_gets(sealed.len, sealed.records);
        Ok((SealedScan { entry: *entry, segment, source, file_len, is_dropped: false }, notes))
    }

    /// What a segment's hint says, if there is one that may be gone by.
    fn read_hint(
        &self,
        ctx: &Context,
        entry: &SegmentEntry,
        sealed: &Sealed,
        segment: &Segment,
        notes: &mut SealedNotes,
    ) -> Option<Vec<Candidate>> {
        // Whether a batch above the horizon is whole can only be seen in the records.
        if sealed.has_batch && sealed.max_seqno > self.manifest.horizon {
            return None;
        }
        read_hint(ctx, &self.dir, entry, sealed, segment).unwrap_or_else(|reason| {
            notes.ignored.push(reason);
            None
        })
    }

    fn scan_sealed(
        &self,
        ctx: &Context,
        request: &Request<'_>,
        entry: &SegmentEntry,
        sealed: &Sealed,
        segment: &Segment,
        notes: &mut SealedNotes,
    ) -> Result<LogScan> {
        let order = match entry.role {
            Role::Log => Order::Dense,
            Role::Merged => Order::Any,
        };
        let mut scan = log_scan::scan(segment, segment.published(sealed.len), order, &ctx.hasher);
        // Everything in a sealed segment was durable, so that whatever is bad here is corruption.
        while scan.end < sealed.len {
            let reason = scan.rest.fault.take().unwrap_or_else(|| "zeros".to_owned());
            let (at, error) = (scan.end, segment.corrupt(scan.end, &reason));
            let next = log_scan::resume(&mut scan, segment, sealed.len, &ctx.hasher);
            let bytes = next - at;
            notes.lose(
                request,
                error,
                self.loss(LossKind::Corruption, entry.id, at, bytes, reason),
            )?;
        }
        if notes.losses.is_empty() && scan.tally.finish() != *sealed {
            let at = HEADER_LEN as u64;
            let reason = "its records are not those that were sealed".to_owned();
            let error = segment.corrupt(at, &reason);
            notes.lose(
                request,
                error,
                self.loss(LossKind::Corruption, entry.id, at, sealed.len - at, reason),
            )?;
        }
        candidates::arrange(&mut scan.candidates);
        Ok(scan)
    }

    pub(super) fn loss(
        &self,
        kind: LossKind,
        id: SegmentId,
        offset: u64,
        bytes: u64,
        reason: String,
    ) -> Loss {
        Loss { shard: self.id.0, segment: id.0, offset, bytes, kind, reason }
    }

    fn read_open(
        &mut self,
        ctx: &Context,
        request: &Request<'_>,
        journal: &JournalScan,
    ) -> Result<()> {
        let access = if request.read_only { Access::Read } else { Access::ReadWrite };
        let open: Vec<SegmentEntry> = self
            .manifest
            .segments
            .iter()
            .filter(|entry| matches!(entry.state, State::Open))
            .copied()
            .collect();
        self.open = open
            .into_par_iter()
            .map(|entry| {
                request.check_stop()?;
                let found = self.read_one_open(ctx, request, &entry, access, journal)?;
                request.progress.segments_done.fetch_add(1, Ordering::Relaxed);
                Ok(OpenScan { entry, found, is_dropped: false })
            })
            .collect::<Result<_>>()?;
        Ok(())
    }

    fn read_one_open(
        &self,
        ctx: &Context,
        request: &Request<'_>,
        entry: &SegmentEntry,
        access: Access,
        journal: &JournalScan,
    ) -> Result<Option<OpenFound>> {
        let path = self.dir.join(names::segment(entry.id));
        let file = match ctx.storage.open(&path, access) {
            Ok(file) => file,
            // Ids are listed ahead of their use. If data was lost, the numbers have a gap.
            Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => {
                let ends =
                    journal.ranges(self.id, entry.id).iter().map(|(at, b)| at + b.len() as u64);
                // A header alone is no loss: a segment without records is removed.
                let least = if planted!("header-counts") { 0 } else { HEADER_LEN as u64 };
                if ends.max().is_none_or(|end| end <= least) || planted!("missing-segment") {
                    return Ok(None);
                }
                return Err(Error::MissingSegment { shard: self.id, segment: entry.id, path });
            }
            Err(_) if planted!("error-as-missing") => return Ok(None),
            // A directory or a link of that name is not ours; the id will not be used.
            Err(_) if is_foreign(ctx, &self.dir, entry.id) => return Ok(None),
            Err(fault) => return Err(Error::io("open", &path, fault)),
        };
        redo(&*file, journal.ranges(self.id, entry.id), &path, access)?;
        let file_len = file.len().at("measure", &path)?;
        if file_len <= HEADER_LEN as u64 {
            return Ok(None);
        }
        let map = file.map(file_len, MapMode::Read).at("map", &path)?;
        let identity = Identity {
            shard: self.id,
            id: entry.id,
            slot: self.segments.reserve(),
            role: entry.role,
            salt: entry.salt,
            path,
        };
        let segment = Arc::new(Segment::new(identity, map, file_len));
        let mut scan = if request.read_only {
            // A writer may cut the file to its records at any moment, and a mapped byte that is no
            // longer in the file is a fatal signal. What is read here stays ours.
            let bytes = read_what_is_there(&*file, file_len).at("read", &segment.path)?;
            let scan = log_scan::scan(&segment, &bytes, Order::Dense, &ctx.hasher);
            segment.shrink_readable(scan.end);
            scan
        } else {
            log_scan::scan(&segment, segment.published(file_len), Order::Dense, &ctx.hasher)
        };
        candidates::arrange(&mut scan.candidates);
        // The header came before the first record, and lies in the same sector.
        if scan.end > HEADER_LEN as u64
            && let Err(reason) = check_header(ctx, &segment)
            && request.mode != RecoveryMode::Salvage
        {
            return Err(segment.corrupt(0, reason));
        }
        segment.expect_gets(scan.end, scan.tally.finish().records);
        Ok(Some(OpenFound { segment, file, file_len, scan }))
    }

    /// Beside a living writer, a segment that was not there may have been written, sealed and merged
    /// away since the manifest was read. The answer tells the opener to begin anew.
    fn refuse_if_overtaken(&self, ctx: &Context) -> Result<()> {
        let (now, _) = read_manifest(ctx, self.id, &self.dir)?;
        let is_open = |id| now.segments.iter().any(|e| e.id == id && e.state == State::Open);
        let overtaken = self.open.iter().find(|o| o.found.is_none() && !is_open(o.entry.id));
        overtaken.map_or(Ok(()), |open| {
            let segment = open.entry.id;
            let path = self.dir.join(names::segment(segment));
            Err(Error::MissingSegment { shard: self.id, segment, path })
        })
    }

    /// What was found lost.
    pub fn losses(&self) -> &[Loss] {
        &self.report.losses
    }

    /// Whether something that should serve was of no use.
    pub fn has_ignored(&self) -> bool {
        !self.report.ignored.is_empty()
    }

    /// Leaves the others out of the report.
    pub fn retain_losses(&mut self, is_one: impl Fn(&Loss) -> bool) {
        self.report.losses.retain(is_one);
    }

    /// An error if anything at all is lost, was ignored or needs mending.
    pub fn refuse_any_doubt(&self) -> Result<()> {
        let doubt = self
            .report
            .losses
            .first()
            .map(|loss| loss.reason.clone())
            .or_else(|| self.report.ignored.first().cloned())
            .or_else(|| self.report.mended.first().cloned());
        match doubt {
            Some(reason) => Err(Error::Damaged { path: self.dir.clone(), reason }),
            None => Ok(()),
        }
    }

    /// Everything up to here is durable, and its batches are settled.
    pub fn horizon(&self) -> Seqno {
        self.manifest.horizon
    }

    pub(super) fn logs(&self) -> impl Iterator<Item = &LogScan> {
        let sealed = self.sealed.iter().filter_map(|scan| match &scan.source {
            Source::Log(log) if !scan.is_dropped => Some(&**log),
            Source::Log(_) | Source::Covered | Source::Hint(_) => None,
        });
        let open = self.open.iter().filter(|open| !open.is_dropped);
        sealed.chain(open.filter_map(|open| open.found.as_ref()).map(|found| &found.scan))
    }

    pub(super) fn batch_heads(&self) -> impl Iterator<Item = &BatchHead> {
        self.logs().flat_map(|log| &log.batches)
    }
}

#[derive(Debug, Default)]
struct SealedNotes {
    ignored: Vec<String>,
    losses: Vec<Loss>,
}

impl SealedNotes {
    fn lose(&mut self, request: &Request<'_>, error: Error, loss: Loss) -> Result<()> {
        self.losses.push(loss);
        if request.mode == RecoveryMode::Salvage { Ok(()) } else { Err(error) }
    }
}

/// The first `len` bytes of a file, or fewer if it was cut meanwhile.
fn read_what_is_there(file: &dyn File, len: u64) -> std::io::Result<Vec<u8>> {
    loop {
        let mut bytes = vec![0; len.min(file.len()?) as usize];
        match file.read_exact_at(&mut bytes, 0) {
            Err(fault) if fault.kind() == std::io::ErrorKind::UnexpectedEof => {}
            answer => return answer.map(|()| bytes),
        }
    }
}

/// Whether the file is the segment that the manifest means.
fn check_header(ctx: &Context, segment: &Segment) -> std::result::Result<(), String> {
    let header = segment::Header::decode(segment.published(HEADER_LEN as u64))
        .map_err(|fault| format!("the segment's header: {fault}"))?;
    let expected = segment::Header {
        uuid: ctx.uuid,
        shard: segment.shard,
        id: segment.id,
        role: segment.role,
        salt: segment.salt,
    };
    if header == expected { Ok(()) } else { Err("the file is another segment".to_owned()) }
}

/// Writes what the journal holds of a segment to where it belongs, where it is missing.
fn redo(file: &dyn File, ranges: &[(u64, Vec<u8>)], path: &Path, access: Access) -> Result<()> {
    for (offset, bytes) in ranges {
        let len = file.len().at("measure", path)?;
        let mut found = vec![0; bytes.len()];
        let is_there = offset + bytes.len() as u64 <= len && {
            file.read_exact_at(&mut found, *offset).at("read", path)?;
            found == *bytes
        };
        if is_there {
            continue;
        }
        if access == Access::Read {
            return Err(Error::NeedsRecovery { path: path.to_owned() });
        }
        file.write_all_at(bytes, *offset).at("write", path)?;
    }
    Ok(())
}

/// Whether a segment's name surely stands for something that is no file. If the directory cannot be
/// listed, for want of a handle, say, a file whose records count may be behind it.
fn is_foreign(ctx: &Context, dir: &Path, id: SegmentId) -> bool {
    let name = names::segment(id);
    ctx.storage.list_dir(dir).is_ok_and(|entries| {
        entries.iter().any(|entry| entry.name == *name && entry.kind != EntryKind::File)
    })
}

fn read_manifest(ctx: &Context, id: ShardId, dir: &Path) -> Result<(Manifest, bool)> {
    let path = dir.join(names::MANIFEST);
    let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
    let bytes = read_file(ctx, &path).map_err(|error| {
        // It is written before the store's own file, and only ever replaced.
        if error.is_not_found() { damaged("it is missing".to_owned()) } else { error }
    })?;
    let (manifest, copies) = Manifest::decode(&bytes).map_err(|fault| match fault {
        manifest::Fault::Version(found) => {
            Error::UnknownFormat { path: path.clone(), found, supported: FORMAT_VERSION }
        }
        fault => damaged(fault.to_string()),
    })?;
    if manifest.uuid != ctx.uuid || manifest.shard != id {
        return Err(damaged("it belongs to another store or shard".to_owned()));
    }
    Ok((manifest, copies.are_intact()))
}

/// The records of a sealed segment by its hint; None where there is none.
fn read_hint(
    ctx: &Context,
    dir: &Path,
    entry: &SegmentEntry,
    sealed: &Sealed,
    segment: &Segment,
) -> std::result::Result<Option<Vec<Candidate>>, String> {
    let path = dir.join(names::hint(entry.id));
    let refuse = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    let bytes = match read_file(ctx, &path) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let hint = Hint::open(&bytes).map_err(|fault| refuse(&fault))?;
    let binding = Binding { uuid: ctx.uuid, shard: segment.shard, id: entry.id, role: entry.role };
    if (hint.header().binding != binding || hint.header().sealed != *sealed)
        && !planted!("hint-unbound")
    {
        return Err(refuse(&"it is of another segment"));
    }
    let mut candidates = Vec::with_capacity(sealed.records as usize);
    for item in hint.entries() {
        let item = item.map_err(|fault| refuse(&fault))?;
        if let Some(candidate) = Candidate::from_hint(segment.slot, &item) {
            candidates.push(candidate);
        }
    }
    candidates::arrange(&mut candidates);
    Ok(Some(candidates))
}
