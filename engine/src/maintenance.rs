//! Background work: prepares segments, seals, merges, syncs by time, frees the journal.
//!
//! One thread a store. It sleeps until something is announced, or until the next sync by time or
//! the next expiry of a segment is due: an idle store does nothing at all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caskade_codec::ids::ShardId;
use caskade_shard::context::Event;
use caskade_shard::log_file::ShardSet;
use caskade_shard::merge::Surroundings;
use caskade_shard::planted;
use crossbeam_channel::{Receiver, RecvTimeoutError, select};
use rayon::prelude::*;

use crate::options::{Background, Durability};
use crate::store::{Around, Store};
use crate::{Error, Result};

/// How long work that failed waits before it is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Merges that fail again and again wait this long at most: each try costs as much as a merge.
const MERGE_RETRY_MAX: Duration = Duration::from_secs(30);

/// Full segments wait this long to be sealed, unless they are many, so that a burst of writes is not
/// held up by the disk and one manifest serves several of a shard.
const SEAL_AFTER: Duration = Duration::from_secs(2);

/// A store without writes for this long is brought to rest.
const REST_AFTER: Duration = Duration::from_secs(2);

/// The background worker of a store.
#[derive(Debug)]
pub(crate) struct Maintenance {
    store: Arc<Store>,
    events: Receiver<Event>,
    todo: Mutex<Todo>,
    merge_rate: Rate,
}

#[derive(Debug, Default)]
struct Todo {
    seal: ShardSet,
    /// When the shards of `seal` are due.
    seal_at: Option<Duration>,
    merge: ShardSet,
    /// Shards at rest, to be merged further than their bound asks.
    resting: ShardSet,
    /// Merges that failed, one after another.
    failed_merges: u32,
    /// No merge before this.
    merge_at: Option<Duration>,
    journal: bool,
    /// When to look whether the store has come to rest.
    idle_at: Option<Duration>,
    /// Writes counted at the last look.
    writes_seen: u64,
    /// When the next sync by time is due.
    sync_at: Option<Duration>,
    /// When a segment expires as a whole, on the wall clock.
    expiry_at: Option<u64>,
    retry_at: Option<Duration>,
    is_closing: bool,
}

/// What a wait ended with.
enum Woken {
    Work,
    Close,
}

impl Maintenance {
    pub(crate) fn new(store: Arc<Store>, events: Receiver<Event>) -> Self {
        let shards = store.ctx.shards;
        let merge_rate = Rate::new(store.options.config.merge_bytes_per_sec);
        // Whatever the last life left to do is found by looking once.
        let todo = Todo {
            seal: ShardSet::below(shards),
            seal_at: Some(Duration::ZERO),
            merge: ShardSet::below(shards),
            ..Todo::default()
        };
        Self { store, events, todo: Mutex::new(todo), merge_rate }
    }

    fn todo(&self) -> std::sync::MutexGuard<'_, Todo> {
        self.todo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's whole life.
    pub(crate) fn run(&self) {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.step())) {
                Ok(true) => {}
                Ok(false) => match self.wait() {
                    Woken::Work => {}
                    Woken::Close => return,
                },
                Err(_) if planted!("panic-unheard") => return,
                Err(_) => {
                    self.store.ctx.poison.latch("the maintenance thread panicked");
                    return;
                }
            }
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&self) -> Woken {
        // The announcement may have been taken in by the last step.
        if self.todo().is_closing {
            return Woken::Close;
        }
        let event = match self.next_deadline() {
            Some(time) => self.events.recv_timeout(time),
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match event {
            Ok(event) => self.take(event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Woken::Close,
        }
        self.absorb();
        if self.todo().is_closing { Woken::Close } else { Woken::Work }
    }

    fn next_deadline(&self) -> Option<Duration> {
        let storage = &self.store.ctx.storage;
        let (now, wall) = (storage.monotonic(), storage.wall_ms());
        let todo = self.todo();
        let expiry =
            todo.expiry_at.map(|at| now + Duration::from_millis(at.saturating_sub(wall) + 1));
        let soonest =
            [todo.sync_at, todo.seal_at, todo.retry_at, todo.merge_at, todo.idle_at, expiry]
                .into_iter()
                .flatten()
                .min()?;
        // Far deadlines are cut, since the wall clock may jump.
        Some(soonest.saturating_sub(now).min(Duration::from_hours(1)))
    }

    /// Takes in what was announced. Segments are prepared at once, since writers need them.
    fn absorb(&self) {
        while let Ok(event) = self.events.try_recv() {
            self.take(event);
        }
    }

    fn take(&self, event: Event) {
        match event {
            Event::Rotation(shard) => {
                self.plan_seal(shard);
                // Should this fail, the writer makes its segment itself, and hears of the failure.
                let _ = self.store.shards[usize::from(shard.0)].prepare_ahead();
            }
            Event::Extension(shard) => self.store.shards[usize::from(shard.0)].extend(),
            Event::Garbage(shard) => self.todo().merge.insert(shard),
            Event::JournalTurn => self.todo().journal = true,
            Event::Awake => {
                let now = self.store.ctx.storage.monotonic();
                self.todo().idle_at = Some(now + REST_AFTER);
                self.todo().resting = ShardSet::default();
                if let Durability::Interval(period) = self.store.options.durability {
                    self.todo().sync_at = Some(self.store.ctx.storage.monotonic() + period);
                }
            }
            Event::Close => self.todo().is_closing = true,
        }
    }

    fn plan_seal(&self, shard: ShardId) {
        let now = self.store.ctx.storage.monotonic();
        let is_due = self.store.options.background == Background::Manual
            || self.store.shards[usize::from(shard.0)].is_sealing_due();
        let at = if is_due { now } else { now + SEAL_AFTER };
        let mut todo = self.todo();
        todo.seal.insert(shard);
        todo.seal_at = Some(todo.seal_at.map_or(at, |planned| planned.min(at)));
    }

    /// Does one piece of work. False if there is none.
    pub(crate) fn step(&self) -> bool {
        self.absorb();
        let is_idle = self.store.options.read_only || self.todo().is_closing;
        if is_idle || self.store.ctx.poison.is_latched() {
            return false;
        }
        match self.do_one() {
            Ok(done) => done,
            Err(error) => {
                self.report(&error);
                self.todo().retry_at = Some(self.store.ctx.storage.monotonic() + RETRY);
                false
            }
        }
    }

    fn report(&self, error: &Error) {
        if let Some(hook) = &self.store.options.on_background_error {
            hook(error);
        }
    }

    fn do_one(&self) -> Result<bool> {
        if self.take_due_sync() {
            // Cleared first: a write during the sync asks for the next one.
            self.store.is_dirty.store(false, Ordering::Release);
            self.store.sync_all()?;
            return Ok(true);
        }
        if self.take_due_rest() {
            self.store.come_to_rest()?;
            self.plan_tidying();
            return Ok(true);
        }
        if std::mem::take(&mut self.todo().journal) {
            self.store.committer.free_journal()?;
            return Ok(true);
        }
        self.take_due_retry();
        self.heal();
        if self.seal()? {
            return Ok(true);
        }
        self.merge()
    }

    /// Whether nothing was written for a while. Then everything is made durable, once, so that the
    /// next open has less to do and damage to the end of the log can be told from a torn tail.
    fn take_due_rest(&self) -> bool {
        let now = self.store.ctx.storage.monotonic();
        let mut todo = self.todo();
        if todo.idle_at.is_none_or(|at| at > now) {
            return false;
        }
        let writes = self.store.writes();
        let is_at_rest = writes == todo.writes_seen;
        todo.writes_seen = writes;
        todo.idle_at = (!is_at_rest).then(|| now + REST_AFTER);
        is_at_rest
    }

    /// A rest is the time to give back space.
    fn plan_tidying(&self) {
        for shard in self.store.shards.iter().filter(|shard| shard.is_untidy()) {
            let mut todo = self.todo();
            todo.resting.insert(shard.id);
            todo.merge.insert(shard.id);
        }
    }

    /// Ends a full disk's time as soon as there is space again, and else looks again soon.
    fn heal(&self) {
        if !self.store.reserve.is_given_up() || self.todo().retry_at.is_some() {
            return;
        }
        if !self.store.reserve.restore(&self.store.ctx) {
            let mut todo = self.todo();
            todo.merge = ShardSet::below(self.store.ctx.shards);
            todo.retry_at = Some(self.store.ctx.storage.monotonic() + RETRY);
        }
    }

    /// Seals in all shards with full segments, in parallel: sealing waits for the disk.
    fn seal(&self) -> Result<bool> {
        let shards: Vec<ShardId> = self.take_due_seals().iter().collect();
        let work = |shard: &ShardId| self.store.shards[usize::from(shard.0)].seal_ended();
        let outcomes = self.in_shards(&shards, work);
        let mut failure = None;
        for (shard, outcome) in shards.iter().zip(outcomes) {
            if let Err(error) = outcome {
                // Tried again after a while.
                let now = self.store.ctx.storage.monotonic();
                let mut todo = self.todo();
                todo.seal.insert(*shard);
                todo.seal_at = Some(match self.store.options.background {
                    Background::Thread => now + RETRY,
                    Background::Manual => now,
                });
                failure = Some(error);
            }
        }
        failure.map_or(Ok(!shards.is_empty()), Err)
    }

    /// Works in several shards at once. This thread goes on to take in events meanwhile: writers
    /// wait for segments and for room that are not ready.
    fn in_shards<T: Send>(
        &self,
        shards: &[ShardId],
        work: impl Fn(&ShardId) -> T + Send + Sync,
    ) -> Vec<T> {
        if self.store.options.background == Background::Manual || shards.is_empty() {
            // Somebody else sets the pace: in the order of the shards, the same every time.
            return shards.iter().map(work).collect();
        }
        let (done, is_done) = crossbeam_channel::bounded(1);
        rayon::in_place_scope(|scope| {
            scope.spawn(move |_| {
                let outcomes = shards.par_iter().map(work).collect();
                // The other end waits for it.
                let _ = done.send(outcomes);
            });
            loop {
                select! {
                    recv(self.events) -> event => match event {
                        Ok(event) => self.take(event),
                        // All handles are gone: nothing more comes.
                        Err(_) => break,
                    },
                    recv(is_done) -> outcomes => return outcomes.ok(),
                }
            }
            is_done.recv().ok()
        })
        .expect("the work ends with a send, or with a panic that the scope passes on")
    }

    fn take_due_seals(&self) -> ShardSet {
        let now = self.store.ctx.storage.monotonic();
        let mut todo = self.todo();
        if todo.seal_at.is_none_or(|at| at > now) {
            return ShardSet::default();
        }
        todo.seal_at = None;
        std::mem::take(&mut todo.seal)
    }

    fn take_due_sync(&self) -> bool {
        let now = self.store.ctx.storage.monotonic();
        let mut todo = self.todo();
        let is_due = todo.sync_at.is_some_and(|at| at <= now) && !planted!("interval-forgotten");
        if is_due {
            todo.sync_at = None;
        }
        is_due
    }

    fn take_due_retry(&self) {
        let now = self.store.ctx.storage.monotonic();
        let wall = self.store.now_ms();
        let mut todo = self.todo();
        if todo.retry_at.is_some_and(|at| at <= now) {
            todo.retry_at = None;
        }
        if todo.expiry_at.is_some_and(|at| at <= wall) {
            todo.expiry_at = None;
            todo.merge = ShardSet::below(self.store.ctx.shards);
        }
    }

    /// Merges in all shards that may need it, in parallel.
    fn merge(&self) -> Result<bool> {
        if self.is_backing_off() {
            return Ok(false);
        }
        let shards: Vec<ShardId> = std::mem::take(&mut self.todo().merge).iter().collect();
        if shards.is_empty() {
            return Ok(false);
        }
        let work = |shard: &ShardId| {
            let around = Paced { around: self.around(*shard), maintenance: self };
            let only_drops = !self.is_merge_time();
            let is_resting = self.todo().resting.contains(*shard);
            let shard = &self.store.shards[usize::from(shard.0)];
            self.store.with_reserve(|| shard.merge_by_policy(&around, only_drops, is_resting))
        };
        let outcomes = self.in_shards(&shards, work);
        let mut failure = None;
        for (shard, outcome) in shards.iter().zip(outcomes) {
            match outcome {
                // What was merged once may need more.
                Ok(Some(_)) => self.todo().merge.insert(*shard),
                Ok(None) => self.todo().resting.remove(*shard),
                Err(error) => {
                    self.todo().merge.insert(*shard);
                    failure = Some(error);
                }
            }
        }
        self.look_ahead();
        self.back_off(failure.is_some());
        match failure {
            Some(error) => Err(error),
            None => Ok(true),
        }
    }

    fn is_backing_off(&self) -> bool {
        let now = self.store.ctx.storage.monotonic();
        let mut todo = self.todo();
        todo.merge_at = todo.merge_at.filter(|at| *at > now);
        todo.merge_at.is_some()
    }

    /// Notes how a merge went. What keeps failing is tried less and less often, but for a full disk,
    /// where a merge may be what makes space.
    fn back_off(&self, has_failed: bool) {
        let mut todo = self.todo();
        todo.failed_merges = if has_failed { todo.failed_merges + 1 } else { 0 };
        if has_failed && !self.store.reserve.is_given_up() {
            let now = self.store.ctx.storage.monotonic();
            todo.merge_at = Some(now + retry_after(todo.failed_merges));
        }
    }

    fn around(&self, shard: ShardId) -> Around<'_> {
        Around { store: &self.store, shard }
    }

    /// Whether the clock stands inside the merge window.
    fn is_merge_time(&self) -> bool {
        let Some((from, to)) = self.store.options.merge_window else { return true };
        let minute = (self.store.now_ms() / 60_000 % 1440) as u16;
        if from <= to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    }

    /// Notes the next expiry.
    fn look_ahead(&self) {
        let wall = self.store.now_ms();
        let mut expiry: Option<u64> = None;
        for shard in &self.store.shards {
            let (segments, _) = shard.merge_stats();
            let next = segments.iter().map(|s| s.expiry_max).filter(|at| *at > wall).min();
            expiry = expiry.into_iter().chain(next.filter(|at| *at < u64::MAX)).min();
        }
        self.todo().expiry_at = expiry;
    }
}

/// How long to wait after so many failures in a row.
fn retry_after(failures: u32) -> Duration {
    (RETRY * (1 << failures.clamp(1, 10) >> 1)).min(MERGE_RETRY_MAX)
}

/// Lets a merge make way for what writers wait for.
struct Paced<'a> {
    around: Around<'a>,
    maintenance: &'a Maintenance,
}

impl Surroundings for Paced<'_> {
    fn settle(&self) -> Result<()> {
        self.around.settle()
    }

    fn pace(&self, bytes: u64) -> Result<()> {
        let maintenance = self.maintenance;
        maintenance.absorb();
        if maintenance.todo().is_closing {
            return Err(Error::Stopped);
        }
        maintenance.merge_rate.spend(bytes);
        Ok(())
    }
}

/// A rate that is kept by sleeping.
#[derive(Debug)]
struct Rate {
    bytes_per_sec: Option<u64>,
    owed_micros: AtomicU64,
}

impl Rate {
    fn new(bytes_per_sec: Option<u64>) -> Self {
        Self { bytes_per_sec, owed_micros: AtomicU64::new(0) }
    }

    fn spend(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_sec else { return };
        let cost = bytes.saturating_mul(1_000_000) / rate;
        let owed = self.owed_micros.fetch_add(cost, Ordering::Relaxed) + cost;
        // Short debts are collected, since short sleeps are never exact.
        if owed > 5_000 {
            self.owed_micros.fetch_sub(owed, Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(owed.min(1_000_000)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_retried_less_and_less_often() {
        let waits: Vec<_> = (1..=4).map(|failures| retry_after(failures).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600]);
        assert_eq!([retry_after(9), retry_after(u32::MAX)], [MERGE_RETRY_MAX; 2]);
    }
}
