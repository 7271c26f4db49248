//! A manifest made from the segment files that are there, in place of a lost one.
//!
//! It is a guess, for a copy of a store that is read once and thrown away. Only the lost manifest
//! knew which files counted: one that a merge or a crash left behind brings back what was deleted,
//! and one that is gone is not missed.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;

use caskade::{Loss, LossKind};
use caskade_codec::ids::{SegmentId, Seqno, ShardId, StoreUuid};
use caskade_codec::journal::{self, Groups};
use caskade_codec::manifest::{Manifest, SegmentEntry, State};
use caskade_codec::meta::StoreMeta;
use caskade_codec::names::{self, FileName};
use caskade_codec::record::Frame;
use caskade_codec::segment::{HEADER_LEN, Header, Sealed, Tally};

use super::beside;
use super::pieces::Pieces;
use crate::fault::{Fault, Outcome};
use crate::interrupt;
use crate::term::Progress;

/// Above every number that a shard reaches: all records that are there are taken as they are.
const HORIZON: Seqno = Seqno(Seqno::MAX.0 / 2);

/// Makes a manifest for a shard of the copy at `store`. Answers what of its files cannot be read.
pub(super) fn rebuild(store: &Path, shard: ShardId) -> Outcome<Vec<Loss>> {
    let uuid = uuid_of(store)?;
    let dir = store.join(names::shard(shard));
    fs::create_dir_all(&dir).map_err(|source| Fault::system("create", &dir, source))?;
    bring_in_journal(store, uuid, shard)?;
    let mut ids = Vec::new();
    for path in beside::list(&dir)? {
        match FileName::parse(path.file_name().unwrap_or_default()) {
            FileName::Segment(id) => ids.push(id),
            // Indexes know of segments that are gone; the records say all that is true.
            _ => fs::remove_file(&path).map_err(|source| Fault::system("remove", &path, source))?,
        }
    }
    ids.sort_unstable();
    let (mut segments, mut losses) = (Vec::new(), Vec::new());
    let progress = Progress::new("reading: segments");
    for (done, id) in (0..).zip(&ids) {
        progress.set(done, ids.len() as u64);
        let mut segment = Found::open(&dir.join(names::segment(*id)), shard, *id)?;
        segments.extend(segment.read(uuid)?);
        losses.append(&mut segment.losses);
    }
    let manifest = Manifest {
        uuid,
        shard,
        generation: 1,
        next_segment: SegmentId(ids.last().map_or(1, |last| last.0.saturating_add(1))),
        next_log_seqno: HORIZON.next(),
        horizon: HORIZON,
        segments,
    };
    let path = dir.join(names::MANIFEST);
    manifest.check().map_err(|fault| Fault::Damaged(format!("{}: {fault}", dir.display())))?;
    fs::write(&path, manifest.encode()).map_err(|source| Fault::system("write", &path, source))?;
    Ok(losses)
}

fn uuid_of(store: &Path) -> Outcome<StoreUuid> {
    let path = store.join(names::STORE);
    let bytes = fs::read(&path).map_err(|source| Fault::system("read", &path, source))?;
    let meta = StoreMeta::decode(&bytes);
    let (meta, _) = meta.map_err(|fault| Fault::Damaged(format!("{}: {fault}", path.display())))?;
    Ok(meta.uuid)
}

/// Writes what the journal holds of a shard's segments to where it belongs, as recovery does.
fn bring_in_journal(store: &Path, uuid: StoreUuid, shard: ShardId) -> Outcome {
    for index in 0..names::JOURNALS {
        let path = store.join(names::journal(index));
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == ErrorKind::NotFound => continue,
            Err(source) => return Err(Fault::system("read", &path, source)),
        };
        let header = journal::Header::decode(&bytes).ok().filter(|header| header.uuid == uuid);
        let Some(header) = header else { continue };
        for group in Groups::new(&bytes, header) {
            for range in group.ranges().filter(|range| range.shard == shard) {
                let name = names::segment(range.segment);
                let path = store.join(names::shard(shard)).join(name);
                let written = match File::options().write(true).open(&path) {
                    Ok(file) => file.write_all_at(range.bytes, range.offset),
                    // It was merged away since.
                    Err(source) if source.kind() == ErrorKind::NotFound => Ok(()),
                    Err(source) => Err(source),
                };
                written.map_err(|source| Fault::system("write", &path, source))?;
            }
        }
    }
    Ok(())
}

/// A segment file that was found.
struct Found {
    pieces: Pieces,
    shard: ShardId,
    id: SegmentId,
    losses: Vec<Loss>,
}

impl Found {
    fn open(path: &Path, shard: ShardId, id: SegmentId) -> Outcome<Self> {
        Ok(Self { pieces: Pieces::new(path)?, shard, id, losses: Vec::new() })
    }

    /// What the manifest says of it. Nothing if it has no record.
    fn read(&mut self, uuid: StoreUuid) -> Outcome<Option<SegmentEntry>> {
        let header = match Header::decode(self.pieces.bytes(0, HEADER_LEN)?) {
            Ok(header) => header,
            Err(fault) => return self.lose_rest(0, &format!("the segment's header: {fault}")),
        };
        if (header.uuid, header.shard, header.id) != (uuid, self.shard, self.id) {
            return self.lose_rest(0, "the file is another segment");
        }
        let (mut at, mut end) = (HEADER_LEN as u64, HEADER_LEN as u64);
        let mut tally = Tally::default();
        loop {
            interrupt::check()?;
            if let Frame::Record(record) = self.pieces.frame(at, header.salt)? {
                tally.push(&record);
                at += record.frame_len as u64;
                end = at;
            } else if at == self.pieces.len()? {
                break;
            } else if let Some(next) = self.pieces.next_behind(at, header.salt)? {
                // Reading the copy tells of what lies between.
                at = next;
            } else {
                self.lose_rest(end, "no record follows")?;
                break;
            }
        }
        if tally.is_empty() {
            return Ok(None);
        }
        let state = State::Sealed(Sealed { len: end, ..tally.finish() });
        Ok(Some(SegmentEntry { id: self.id, role: header.role, salt: header.salt, state }))
    }

    /// Notes that nothing can be read from `offset` on, unless nothing was ever written there.
    fn lose_rest(&mut self, offset: u64, reason: &str) -> Outcome<Option<SegmentEntry>> {
        let bytes = self.pieces.len()? - offset;
        let rest = self.pieces.bytes(offset, bytes as usize)?;
        if rest.iter().any(|byte| *byte != 0) {
            self.losses.push(Loss {
                shard: self.shard.0,
                segment: self.id.0,
                offset,
                bytes,
                kind: LossKind::Corruption,
                reason: reason.to_owned(),
            });
        }
        Ok(None)
    }
}
