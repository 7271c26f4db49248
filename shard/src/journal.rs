//! The journal: a ring of two files that makes small durable writes cheap.
//!
//! It holds copies of byte ranges of unsealed segments. Its blocks were written before, so that a
//! sync of it changes no metadata, and one sync covers writes of many shards.
//!
//! Invariants:
//! - A file is written anew (a *turn*) only after everything its last turn held is durable in the
//!   segments themselves.
//! - For each shard the ranges continue where its segments are durable or where the last range
//!   ended, so that what the journal restores has no hole.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use caskade_codec::ids::{SegmentId, ShardId};
use caskade_codec::journal::{BLOCK_LEN, GroupBuilder, Groups, Header, Range};
use caskade_codec::names;

use crate::context::Context;
use crate::error::{At, Result};
use crate::log_file::LogFile;
use crate::storage::{Access, File};

/// Files that a turn's ranges lie in, and up to where. Ordered, so that a run can be replayed.
type Pending = BTreeMap<(ShardId, SegmentId), (Arc<LogFile>, u64)>;

/// A stretch of a segment that is not durable yet.
#[derive(Debug, Clone)]
pub(crate) struct Stretch {
    pub(crate) file: Arc<LogFile>,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Stretch {
    pub(crate) fn len(&self) -> u64 {
        self.end - self.start
    }

    fn range(&self) -> Range<'_> {
        let segment = &self.file.segment;
        Range {
            shard: segment.shard,
            segment: segment.id,
            offset: self.start,
            bytes: &segment.published(self.end)[self.start as usize..],
        }
    }
}

/// The ring.
#[derive(Debug)]
pub(crate) struct Journal {
    file_bytes: u64,
    next_turn: u64,
    current: usize,
    files: [Half; 2],
    /// It could not be made or written; segments are synced instead.
    is_out_of_use: bool,
}

#[derive(Debug, Default)]
struct Half {
    turn: Option<Turn>,
    /// What the last turn held that may not be durable in the segments.
    pending: Pending,
}

#[derive(Debug)]
struct Turn {
    file: Arc<dyn File>,
    header: Header,
    position: u64,
    groups: u64,
}

impl Journal {
    /// A journal of two files of `file_bytes`, made at the first use. `recovered` are the unsealed
    /// files of the store's last life, which the ring on disk may still have to restore.
    pub(crate) fn new(
        file_bytes: u64,
        next_turn: u64,
        recovered: Vec<(Arc<LogFile>, u64)>,
    ) -> Self {
        let pending: Pending = recovered
            .into_iter()
            .map(|(file, end)| ((file.segment.shard, file.segment.id), (file, end)))
            .collect();
        let half = || Half { turn: None, pending: pending.clone() };
        let files = [half(), half()];
        Self { file_bytes, next_turn, current: 1, files, is_out_of_use: false }
    }

    /// The most that one group may hold to go through the journal.
    pub(crate) fn group_bytes_max(&self) -> u64 {
        if self.is_out_of_use { 0 } else { self.file_bytes / 8 }
    }

    /// Makes the stretches durable. False if the journal cannot; then nothing is promised.
    pub(crate) fn append(&mut self, ctx: &Context, stretches: &[Stretch]) -> Result<bool> {
        let mut group = GroupBuilder::new();
        for stretch in stretches {
            group.push(&stretch.range());
        }
        let len = group.group_len() as u64;
        if self.is_out_of_use || len > self.file_bytes - BLOCK_LEN as u64 {
            return Ok(false);
        }
        let current = self.files[self.current].turn.as_ref();
        let has_room = current.is_some_and(|turn| turn.position + len <= self.file_bytes);
        if !has_room && !self.start_turn(ctx)? {
            return Ok(false);
        }
        let half = &mut self.files[self.current];
        let turn = half.turn.as_mut().expect("a turn was started");
        let bytes = group.finish(&turn.header, turn.groups, turn.position);
        if turn.file.write_all_at(bytes, turn.position).is_err() {
            self.is_out_of_use = true;
            return Ok(false);
        }
        turn.file
            .sync_data()
            .map_err(|fault| ctx.poison.latch(format_args!("fsync of the journal: {fault}")))?;
        turn.position += len;
        turn.groups += 1;
        for Stretch { file, end, .. } in stretches {
            let key = (file.segment.shard, file.segment.id);
            let known = half.pending.entry(key).or_insert_with(|| (Arc::clone(file), 0));
            known.1 = known.1.max(*end);
        }
        Ok(true)
    }

    /// Goes over to the other file.
    fn start_turn(&mut self, ctx: &Context) -> Result<bool> {
        let next = 1 - self.current;
        // What the file held so far must stand in the segments before it is written over.
        for (file, end) in self.files[next].pending.values() {
            if !planted!("journal-reused-early") {
                file.sync_to(ctx, *end)?;
            }
        }
        self.files[next].pending.clear();
        let file = match self.files[next].turn.take() {
            Some(turn) => turn.file,
            None => match open_or_create(ctx, next as u8, self.file_bytes) {
                Ok(file) => {
                    file.expect_synced_blocks();
                    file
                }
                Err(error) if ctx.poison.is_latched() => return Err(error),
                Err(_) => {
                    self.is_out_of_use = true;
                    return Ok(false);
                }
            },
        };
        let header = ctx
            .salt()
            .ok()
            .map(|salt| Header { uuid: ctx.uuid, turn: self.next_turn, salt })
            .filter(|header| file.write_all_at(&header.encode(), 0).is_ok());
        let Some(header) = header else {
            self.is_out_of_use = true;
            return Ok(false);
        };
        self.next_turn += 1;
        self.current = next;
        self.files[next].turn = Some(Turn { file, header, position: BLOCK_LEN as u64, groups: 0 });
        Ok(true)
    }

    /// The turn that begins when the current file is full.
    pub(crate) fn next_turn(&self) -> u64 {
        self.next_turn
    }

    /// What keeps the other file from being written over.
    pub(crate) fn idle_pending(&self) -> Vec<(Arc<LogFile>, u64)> {
        self.files[1 - self.current].pending.values().cloned().collect()
    }
}

/// The ring's file, its blocks written.
fn open_or_create(ctx: &Context, index: u8, len: u64) -> Result<Arc<dyn File>> {
    let path = ctx.path.join(names::journal(index));
    if let Ok(file) = ctx.storage.open(&path, Access::ReadWrite)
        && file.len().at("measure", &path)? == len
    {
        // The life that made it may have ended before its name was durable.
        ctx.sync_dir(&ctx.path)?;
        return Ok(file);
    }
    let temporary = ctx.path.join(names::temporary(&names::journal(index)));
    let _ = ctx.storage.remove(&temporary);
    let made = write_zeros(ctx, &temporary, len).and_then(|file| {
        ctx.storage.rename(&temporary, &path).at("rename", &temporary)?;
        Ok(file)
    });
    if made.is_err() {
        // On a full disk its space is wanted.
        let _ = ctx.storage.remove(&temporary);
    }
    let file = made?;
    ctx.sync_dir(&ctx.path)?;
    Ok(file)
}

fn write_zeros(ctx: &Context, path: &Path, len: u64) -> Result<Arc<dyn File>> {
    let file = ctx.storage.create(path).at("create", path)?;
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let step = (len - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..step as usize], at).at("write", path)?;
        at += step;
    }
    file.sync_all()
        .map_err(|fault| ctx.poison.latch(format_args!("fsync of the journal: {fault}")))?;
    Ok(file)
}

/// An offset in a segment, and the bytes that belong there.
pub(crate) type Restored = (u64, Vec<u8>);

/// What the journal on disk holds.
#[derive(Debug, Default)]
pub struct JournalScan {
    ranges: HashMap<(ShardId, SegmentId), Vec<Restored>>,
    turn_max: u64,
}

impl JournalScan {
    /// Reads both files, the older turn first.
    pub fn read(ctx: &Context) -> Result<Self> {
        let mut turns = Vec::new();
        for index in 0..names::JOURNALS {
            let path = ctx.path.join(names::journal(index));
            let file = match ctx.storage.open(&path, Access::Read) {
                Ok(file) => file,
                Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => continue,
                Err(fault) => return Err(crate::Error::io("open", &path, fault)),
            };
            let bytes = file.read_whole(names::JOURNAL_BYTES_MAX).at("read", &path)?;
            // A header that is not whole belongs to a turn that never held anything acknowledged.
            if let Ok(header) = Header::decode(&bytes)
                && header.uuid == ctx.uuid
            {
                turns.push((header, bytes));
            }
        }
        turns.sort_by_key(|(header, _)| header.turn);
        let mut scan = Self::default();
        for (header, bytes) in turns {
            scan.turn_max = scan.turn_max.max(header.turn);
            for group in Groups::new(&bytes, header) {
                for range in group.ranges() {
                    let place = scan.ranges.entry((range.shard, range.segment)).or_default();
                    place.push((range.offset, range.bytes.to_vec()));
                }
            }
        }
        Ok(scan)
    }

    /// The turn that the next life of the store begins with.
    #[must_use]
    pub fn next_turn(&self) -> u64 {
        self.turn_max + 1
    }

    /// Stretches of a segment, in the order in which they were written.
    pub(crate) fn ranges(&self, shard: ShardId, segment: SegmentId) -> &[Restored] {
        self.ranges.get(&(shard, segment)).map_or(&[], Vec::as_slice)
    }
}
