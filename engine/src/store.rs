//! An open store: shards, the commit stream, and what keeps them together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use caskade_codec::hash::shard_of;
use caskade_codec::ids::{Seqno, ShardId};
use caskade_shard::commit::Committer;
use caskade_shard::context::{Context, Event};
use caskade_shard::merge::Surroundings;
use caskade_shard::shard::Shard;
use caskade_shard::shard_set::ShardSet;
use caskade_shard::storage::LockGuard;

use crate::options::{Background, Builder, Durability};
use crate::reserve::Reserve;
use crate::stats::OpenReport;
use crate::{Error, Result};

/// An open store. Shared by all handles and the maintenance thread.
#[derive(Debug)]
pub(crate) struct Store {
    // Constant after construction.
    pub(crate) ctx: Arc<Context>,
    pub(crate) shards: Box<[Shard]>,
    pub(crate) committer: Committer,
    pub(crate) options: Builder,
    pub(crate) report: OpenReport,
    /// Whether somebody wants to hear of slow operations.
    pub(crate) is_timed: bool,
    // Each guarded by a lock of its own.
    /// Space for a full disk.
    pub(crate) reserve: Reserve,
    /// The lock on the directory; none where the store is read-only.
    pub(crate) lock: std::sync::Mutex<Option<Box<dyn LockGuard>>>,
    // Atomics.
    state: AtomicU8,
    /// Something was written since the last sync by time, or rest.
    pub(crate) is_dirty: AtomicBool,
    /// Bytes written since the last rest.
    unrested_bytes: AtomicU64,
    /// Errors that no caller heard of.
    pub(crate) background_errors: AtomicU64,
}

const OPEN: u8 = 0;
const CLOSING: u8 = 1;
const CLOSED: u8 = 2;

/// Bytes that may be written between two rests.
const BRAKE_STRETCH: u64 = 64 << 10;

impl Store {
    pub(crate) fn new(
        ctx: Arc<Context>,
        shards: Box<[Shard]>,
        committer: Committer,
        options: Builder,
        report: OpenReport,
        reserve: Reserve,
        lock: Option<Box<dyn LockGuard>>,
    ) -> Self {
        Self {
            ctx,
            shards,
            committer,
            is_timed: options.slow.is_some(),
            options,
            report,
            reserve,
            lock: std::sync::Mutex::new(lock),
            state: OPEN.into(),
            is_dirty: false.into(),
            unrested_bytes: 0.into(),
            background_errors: 0.into(),
        }
    }

    /// The hash of a key and the shard that owns it.
    #[inline]
    pub(crate) fn route(&self, key: &[u8]) -> (u64, &Shard) {
        let hash = self.ctx.hasher.hash(key);
        let shard = shard_of(hash, self.shards.len() as u64);
        (hash, &self.shards[usize::from(shard.0)])
    }

    /// Puts and deletes since the open.
    pub(crate) fn writes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.counters.writes.load(Ordering::Relaxed)).sum()
    }

    /// Fails once the store is closed.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.state.load(Ordering::Acquire) == OPEN { Ok(()) } else { Err(Error::Closed) }
    }

    /// Fails unless writes are taken.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.options.read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// The wall clock, in milliseconds since 1970.
    #[inline]
    pub(crate) fn now_ms(&self) -> u64 {
        self.ctx.storage.wall_ms()
    }

    /// Does what a write's durability asks for after it was applied.
    #[inline]
    pub(crate) fn acknowledge(
        &self,
        writes: &[(ShardId, Seqno)],
        durability: Option<Durability>,
        bytes: u64,
    ) -> Result<()> {
        // One load of a line that hardly ever changes; the rest is for the first write after a sync.
        if !self.is_dirty.load(Ordering::Relaxed) && !self.is_dirty.swap(true, Ordering::AcqRel) {
            self.wake_up();
        }
        if durability.unwrap_or(self.options.durability) == Durability::Sync {
            self.committer.wait(&self.shards, writes)?;
        }
        let brakes = writes.iter().map(|(id, _)| self.shards[usize::from(id.0)].brake_micros());
        // Where the caller does the background work, resting would help nobody.
        if brakes.max().unwrap_or(0) > 0 && self.options.background == Background::Thread {
            self.rest(writes, bytes);
        }
        Ok(())
    }

    #[cold]
    fn wake_up(&self) {
        self.ctx.announce(Event::Awake(self.ctx.storage.monotonic()));
    }

    /// Slows a writer down while merging falls behind, so that the space bound holds.
    #[cold]
    fn rest(&self, writes: &[(ShardId, Seqno)], bytes: u64) {
        let shards = writes.iter().map(|(id, _)| &self.shards[usize::from(id.0)]);
        let micros = self.brake_micros(shards);
        if micros == 0 {
            return;
        }
        let unrested = self.unrested_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if unrested >= BRAKE_STRETCH {
            self.unrested_bytes.store(0, Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(micros));
        }
    }

    /// How long writers of these shards rest for every stretch that they write, in microseconds.
    pub(crate) fn brake_micros<'s>(&self, shards: impl Iterator<Item = &'s Shard>) -> u64 {
        // Nobody waits for merges that wait for their time themselves.
        let brake = if self.is_merge_time() { Shard::brake_micros } else { Shard::backlog_micros };
        shards.map(brake).max().unwrap_or(0)
    }

    /// Whether the clock stands inside the merge window.
    pub(crate) fn is_merge_time(&self) -> bool {
        let Some((from, to)) = self.options.merge_window else { return true };
        let minute = (self.now_ms() / 60_000 % 1440) as u16;
        if from <= to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync_all(&self) -> Result<()> {
        let outcome = self.committer.commit(&self.shards, ShardSet::below(self.ctx.shards));
        outcome.map_err(|error| match error {
            Error::Poisoned { cause } => Error::Indeterminate { cause },
            error => error,
        })
    }

    /// Marks and makes durable what was written, after a time without writes.
    pub(crate) fn come_to_rest(&self) -> Result<()> {
        // Cleared first: a write from now on asks for the next rest.
        self.is_dirty.store(false, Ordering::Release);
        let mark = |shard: &Shard| {
            let mut locked = shard.lock()?;
            let last = locked.last_seqno();
            if shard.durable() < last || shard.horizon() < last {
                locked.append_marker(shard.durable())?;
            }
            Ok(())
        };
        // A mark for which there is no room keeps nothing from becoming durable.
        let marked = self.shards.iter().map(mark).fold(Ok(()), Result::and);
        self.committer.settle(&self.shards, ShardSet::below(self.ctx.shards))?;
        marked
    }

    /// Takes no more operations. True for the one caller that has to do the closing.
    pub(crate) fn begin_closing(&self) -> bool {
        self.state.compare_exchange(OPEN, CLOSING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Brings the store to rest on disk and lets go of the lock.
    pub(crate) fn finish_closing(&self) -> Result<()> {
        let outcome = if self.options.read_only { Ok(()) } else { self.rest_on_disk() };
        for shard in &self.shards {
            shard.close_log();
            shard.discard_ahead();
        }
        // Somebody may still merge, or make a checkpoint: whoever takes the lock then has the files alone.
        self.shards.iter().for_each(Shard::end_upkeep);
        self.committer.end();
        self.ctx.reclaim.collect();
        *self.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        self.state.store(CLOSED, Ordering::Release);
        outcome
    }

    fn rest_on_disk(&self) -> Result<()> {
        self.ctx.poison.check()?;
        for shard in &self.shards {
            shard.close_log();
        }
        match self.write_indexes() {
            // A full disk only makes the next open slower: what was written is durable all the same.
            Err(error) if error.is_no_space() => self.sync_all(),
            answer => answer,
        }
    }

    /// Settles everything, and writes what the next open is fast by.
    fn write_indexes(&self) -> Result<()> {
        let all = ShardSet::below(self.ctx.shards);
        self.committer.settle(&self.shards, all)?;
        for shard in &self.shards {
            let around = Around { store: self, shard: shard.id };
            if shard.is_at_rest() {
                continue;
            }
            if self.options.snapshot_on_close {
                shard.snapshot(&around)?;
            } else {
                shard.lock_even_closed().end_active();
                shard.seal_ended()?;
            }
        }
        Ok(())
    }
}

/// What a shard's upkeep needs of the store.
pub(crate) struct Around<'a> {
    pub(crate) store: &'a Store,
    pub(crate) shard: ShardId,
}

impl Surroundings for Around<'_> {
    fn settle(&self) -> Result<()> {
        let wanted = [self.shard].into_iter().collect();
        self.store.committer.settle(&self.store.shards, wanted).map(|_| ())
    }

    fn pace(&self, _bytes: u64) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use caskade_shard::storage::sim::{Call, Op, SimDisk, Verdict};

    use super::*;
    use crate::conditional::Decision;
    use crate::options::WriteOptions;

    /// What writes weigh decides how often they rest: all kinds of them weigh something.
    #[test]
    fn every_write_feels_the_brake() {
        let home = tempfile::tempdir().expect("a directory");
        let builder = crate::Db::builder(home.path()).shards(1);
        // Nobody does the background's work.
        let (store, _events) = crate::open::open(builder).expect("opens");
        let put = |value: &[u8]| {
            store.put(b"key", value, WriteOptions::new()).expect("writes");
        };
        for _ in 0..150 {
            put(b"value");
            store.shards[0].lock().expect("is open").end_active();
        }
        let weight_of = |write: &dyn Fn()| {
            let before = store.unrested_bytes.load(Ordering::Relaxed);
            write();
            store.unrested_bytes.load(Ordering::Relaxed) - before
        };
        assert!(weight_of(&|| put(b"")) > 0);
        let replacement = [7; 1000];
        let modify = || {
            let decide = || store.stored(&replacement, None).map(Decision::Put);
            store.modify(b"key", None, |_| decide()).expect("writes");
        };
        assert!(weight_of(&modify) > 1000);
        let delete = || {
            store.delete(b"key", None).expect("deletes");
        };
        assert!(weight_of(&delete) > 0);
    }

    /// A writer may still wait to be made durable when a store closes that could not do so.
    #[test]
    fn nothing_is_committed_behind_a_close() {
        let disk = SimDisk::new(1);
        let builder = crate::Db::builder("/db").shards(2).storage(disk.storage());
        let builder = builder.background(crate::Background::Manual);
        let (store, _events) = crate::open::open(builder.clone()).expect("opens");
        for key in 0..10 {
            store.put(&[key], b"value", WriteOptions::new()).expect("writes");
        }
        // The process is out of handles.
        disk.faults().set_rule(|call: &Call| match call.op {
            Op::OpenDir | Op::Open | Op::Create => Verdict::Fail(24),
            _ => Verdict::Proceed,
        });
        assert!(store.begin_closing());
        store.finish_closing().expect_err("no handle is left");
        disk.faults().clear();
        let (other, _events) = crate::open::open(builder).expect("is open to the next");
        let all = ShardSet::below(2);
        assert!(matches!(store.committer.commit(&store.shards, all), Err(Error::Closed)));
        assert!(matches!(store.committer.settle(&store.shards, all), Err(Error::Closed)));
        drop(other);
    }
}
