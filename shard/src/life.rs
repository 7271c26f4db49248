//! For tests: a shard on a simulated disk, and what should be in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use caskade_codec::ids::{SegmentId, Seqno, ShardId};
use caskade_codec::manifest::Manifest;
use caskade_codec::names;
use caskade_codec::record::Flags;

use crate::catalog;
use crate::commit::Committer;
use crate::context::Context;
use crate::error::Result;
use crate::journal::JournalScan;
use crate::merge::{Outcome, Surroundings};
use crate::recovery::{
    ListedSegments, Progress, RecoveryMode, Request, ShardScan, resolve_batches,
};
use crate::segment::Segment;
use crate::shard::Shard;
use crate::storage::sim::{Pending, SimDisk};
use crate::write_path::{Change, Op};

const HOME: &str = "/store";
pub(crate) const SHARD: &str = "/store/shard-000";

/// A shard that is open, and what should be in it.
pub(crate) struct Life {
    pub(crate) disk: SimDisk,
    pub(crate) ctx: Arc<Context>,
    shards: Vec<Shard>,
    committer: Committer,
    pub(crate) model: BTreeMap<Vec<u8>, Vec<u8>>,
    segment_bytes: u64,
}

/// Does something in the middle of a merge, once.
pub(crate) struct Meddling<'a, F> {
    pub(crate) life: &'a Life,
    pub(crate) before_settle: F,
}

impl<F: Fn()> Surroundings for Meddling<'_, F> {
    fn settle(&self) -> Result<()> {
        (self.before_settle)();
        self.life.settle();
        Ok(())
    }

    fn pace(&self, _bytes: u64) -> Result<()> {
        Ok(())
    }
}

impl Life {
    pub(crate) fn new() -> Self {
        Self::with_segments_of(4096)
    }

    pub(crate) fn with_segments_of(segment_bytes: u64) -> Self {
        let disk = SimDisk::new(5);
        let ctx = Context::for_tests(&disk);
        ctx.storage.create_dir(Path::new(HOME)).unwrap();
        ctx.storage.create_dir(Path::new(SHARD)).unwrap();
        let manifest = Manifest {
            uuid: ctx.uuid,
            shard: ShardId(0),
            generation: 1,
            next_segment: SegmentId(1),
            next_log_seqno: Seqno::FIRST,
            horizon: Seqno::NONE,
            segments: Vec::new(),
        };
        catalog::write(&ctx, Path::new(SHARD), &manifest).unwrap();
        for dir in ["/", HOME] {
            ctx.storage.sync_dir(Path::new(dir)).unwrap();
        }
        Self::open(disk, BTreeMap::new(), segment_bytes)
    }

    pub(crate) fn open(
        disk: SimDisk,
        model: BTreeMap<Vec<u8>, Vec<u8>>,
        segment_bytes: u64,
    ) -> Self {
        let mut ctx = Context::for_tests(&disk);
        let config = &mut Arc::get_mut(&mut ctx).expect("nobody else has it yet").config;
        (config.segment_bytes_min, config.segment_bytes_max) = (segment_bytes, segment_bytes);
        let (stop, progress) = (AtomicBool::new(false), Progress::default());
        let request = Request {
            mode: RecoveryMode::Default,
            read_only: false,
            stop: &stop,
            progress: &progress,
        };
        let journal = JournalScan::read(&ctx).unwrap();
        let listed = ListedSegments::read(&ctx, ShardId(0)).unwrap();
        let mut scans = vec![ShardScan::read(&ctx, listed, &request, &journal).unwrap()];
        resolve_batches(&mut scans);
        let shards: Vec<Shard> =
            scans.into_iter().map(|scan| scan.finish(&ctx, &request).unwrap().0).collect();
        let committer = Committer::new(Arc::clone(&ctx), &shards, journal.next_turn());
        Self { disk, ctx, shards, committer, model, segment_bytes }
    }

    /// The process dies and a new one opens the shard.
    pub(crate) fn reopen(self) -> Self {
        self.disk.kill();
        let (disk, model) = (self.disk.clone(), self.model.clone());
        let segment_bytes = self.segment_bytes;
        drop(self);
        Self::open(disk, model, segment_bytes)
    }

    pub(crate) fn shard(&self) -> &Shard {
        &self.shards[0]
    }

    pub(crate) fn settle(&self) {
        self.committer.settle(&self.shards, [ShardId(0)].into_iter().collect()).unwrap();
    }

    /// Makes durable what was written.
    pub(crate) fn sync(&self) {
        self.try_sync().unwrap();
    }

    pub(crate) fn try_sync(&self) -> Result<()> {
        self.committer.commit(&self.shards, [ShardId(0)].into_iter().collect())
    }

    /// As [`Life::reopen`], but the power is cut, and `keep` says what of the rest stays.
    pub(crate) fn power_cut(self, mut keep: impl FnMut(&Pending<'_>) -> bool) -> Self {
        self.disk.power_cut_with(&mut keep);
        self.reopen()
    }

    pub(crate) fn op<'a>(&self, key: &'a str, change: Change<'a>) -> Op<'a> {
        Op { hash: self.ctx.hasher.hash(key.as_bytes()), key: key.as_bytes(), change }
    }

    pub(crate) fn apply(&self, key: &str, change: Change<'_>) {
        self.shard().lock().unwrap().apply(&self.op(key, change)).unwrap();
    }

    pub(crate) fn put_raw(&self, key: &str, value: &str, expiry: Option<u64>) {
        let value = value.as_bytes();
        self.apply(key, Change::Put { value, flags: Flags::NONE, expiry });
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) {
        self.put_raw(key, value, None);
        self.model.insert(key.into(), value.into());
    }

    pub(crate) fn put_until(&mut self, key: &str, value: &str, expiry: u64) {
        self.put_raw(key, value, Some(expiry));
        self.model.insert(key.into(), value.into());
    }

    pub(crate) fn delete(&mut self, key: &str) {
        self.apply(key, Change::Delete);
        self.model.remove(key.as_bytes());
    }

    /// Seals what was written since the last call as one segment, and answers its id.
    pub(crate) fn seal(&self) -> SegmentId {
        let id = self.shard().cut().files.last().expect("something was written").0.segment.id;
        self.shard().lock().unwrap().end_active();
        self.shard().seal_ended().unwrap();
        id
    }

    /// Writes a snapshot of the keydir.
    pub(crate) fn snapshot(&self) {
        self.shard().snapshot(&Meddling { life: self, before_settle: || {} }).unwrap();
    }

    pub(crate) fn merge(&self, ids: &[SegmentId]) -> Outcome {
        self.merge_while(ids, || {})
    }

    /// Merges `ids`, and calls `meddle` when everything is copied but nothing is decided.
    pub(crate) fn merge_while(&self, ids: &[SegmentId], meddle: impl Fn()) -> Outcome {
        let around = Meddling { life: self, before_settle: meddle };
        self.shard().merge_chosen(&around, &mut |id| ids.contains(&id)).unwrap()
    }

    pub(crate) fn sealed(&self) -> Vec<SegmentId> {
        let manifest = self.shard().catalog.manifest();
        manifest.segments.iter().filter(|it| it.sealed().is_some()).map(|it| it.id).collect()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let guard = self.ctx.reclaim.enter();
        let found = self.shard().find(&guard, self.ctx.hasher.hash(key), key).unwrap()?;
        let now = self.ctx.storage.wall_ms();
        (!found.frame.is_expired(|| now)).then(|| found.frame.value().to_vec())
    }

    pub(crate) fn compare(&self) {
        for key in [b"k", b"l", b"m", b"n"] {
            let expected = self.model.get(&key[..]).map(Vec::as_slice);
            assert_eq!(self.get(key).as_deref(), expected, "{}", key.escape_ascii());
        }
    }

    /// The live bytes of each sealed segment, as counted on the way and as counted anew.
    pub(crate) fn recount(&self) -> Vec<(SegmentId, (u64, u64))> {
        let guard = self.ctx.reclaim.enter();
        let mut counted: Vec<_> =
            self.sealed_inputs().iter().map(|segment| (segment.id, segment.usage.get())).collect();
        counted.sort_by_key(|(id, _)| *id);
        drop(guard);
        counted
    }

    /// The length of all segments, as counted on the way and as counted anew.
    pub(crate) fn check_total(&self) {
        self.shard().lock().unwrap().end_active();
        let (sealed, open) = self.shard().merge_stats();
        let total = sealed.iter().map(|segment| segment.len).sum::<u64>() + open.open_bytes;
        assert_eq!(self.shard().total_bytes(), total);
    }

    pub(crate) fn sealed_inputs(&self) -> Vec<Arc<Segment>> {
        let sealed = self.sealed();
        let all = self.shard().segments.all().into_iter();
        all.filter(|segment| sealed.contains(&segment.id)).collect()
    }

    /// Compares with the model, reopened and without hints and snapshot too.
    pub(crate) fn prove(self) {
        self.compare();
        self.check_total();
        let counted = self.recount();
        let life = self.reopen();
        life.compare();
        life.check_total();
        assert_eq!(life.recount(), counted);
        for entry in life.disk.list(SHARD).unwrap() {
            let name = entry.name.to_str().unwrap();
            if Path::new(&name).extension().is_some_and(|it| it == "hint") || name == names::KEYDIR
            {
                life.disk.remove_file(Path::new(SHARD).join(name)).unwrap();
            }
        }
        let life = life.reopen();
        life.compare();
        assert_eq!(life.recount(), counted);
    }
}
