//! Background work: makes what the open has left, prepares segments, seals, merges, syncs by time, frees
//! the journal.
//!
//! One thread a store. It sleeps until something is announced, or until the next sync by time or
//! the next expiry of a segment is due: an idle store does nothing at all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caskade_codec::ids::ShardId;
use caskade_shard::context::Event;
use caskade_shard::merge::Surroundings;
use caskade_shard::planted;
use caskade_shard::shard_set::ShardSet;
use crossbeam_channel::{Receiver, RecvTimeoutError, select};
use rayon::prelude::*;

use crate::options::{Background, Durability};
use crate::rate::Rate;
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

/// Leaves of keydirs are made for this long at a time, for other work waits meanwhile.
const SETTLE_FOR: Duration = Duration::from_millis(50);

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
    /// Up to this shard, and hash, all leaves of keydirs are made that the open did not make.
    settle: Option<(usize, u32)>,
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
    /// When a segment expires as a whole, or the merge window opens, on the wall clock.
    look_at: Option<u64>,
    retry_at: Option<Duration>,
    /// When to free what readers may have held, if nobody did meanwhile.
    collect_at: Option<Duration>,
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
            settle: Some((0, 0)),
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
            let live = || if self.step() { Woken::Work } else { self.wait() };
            match catch_unwind(AssertUnwindSafe(live)) {
                Ok(Woken::Work) => {}
                Ok(Woken::Close) => return,
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

    /// How long to wait at most for something to be announced.
    fn next_deadline(&self) -> Option<Duration> {
        if self.is_idle() {
            return None;
        }
        let storage = &self.store.ctx.storage;
        let (now, wall) = (storage.monotonic(), storage.wall_ms());
        let mut todo = self.todo();
        if self.store.ctx.reclaim.pending() > 0 {
            todo.collect_at.get_or_insert(now + RETRY);
        }
        let look = todo.look_at.map(|at| now + Duration::from_millis(at.saturating_sub(wall) + 1));
        let soonest = [
            todo.sync_at,
            todo.seal_at,
            todo.retry_at,
            todo.collect_at,
            todo.merge_at,
            todo.idle_at,
            look,
        ]
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
            Event::Awake(written) => {
                let mut todo = self.todo();
                todo.idle_at = Some(written + REST_AFTER);
                todo.resting = ShardSet::default();
                if let Durability::Interval(period) = self.store.options.durability {
                    // One that is planned is for older writes.
                    todo.sync_at.get_or_insert(written.saturating_add(period));
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
        if self.is_idle() {
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

    /// Whether nothing is to be done any more, whatever is due.
    fn is_idle(&self) -> bool {
        self.store.options.read_only || self.todo().is_closing || self.store.ctx.poison.is_latched()
    }

    fn report(&self, error: &Error) {
        if matches!(error, Error::Stopped) {
            // A merge that made way for closing.
            return;
        }
        self.store.background_errors.fetch_add(1, Ordering::Relaxed);
        if let Some(hook) = &self.store.options.on_background_error {
            hook(error);
        }
    }

    fn do_one(&self) -> Result<bool> {
        self.collect_if_due();
        if self.sync_if_due()? {
            return Ok(true);
        }
        if self.take_due_rest() {
            self.beside(|| self.store.come_to_rest())?;
            // Unless somebody wrote meanwhile.
            if self.todo().idle_at.is_none() {
                self.plan_tidying();
            }
            return Ok(true);
        }
        if std::mem::take(&mut self.todo().journal) {
            self.beside(|| self.store.committer.free_journal())?;
            return Ok(true);
        }
        if self.settle_keydirs() {
            return Ok(true);
        }
        self.take_due_retry();
        self.heal();
        let sealed = self.seal();
        if matches!(sealed, Ok(true)) || self.is_idle() {
            return sealed;
        }
        // Also after a failure: on a full disk a merge may be what makes space.
        let merged = self.merge();
        if let (Err(_), Err(error)) = (&sealed, &merged) {
            self.report(error);
        }
        sealed.and(merged)
    }

    /// Makes some of the keydirs' leaves that the open has left to whoever looks for a key there. Answers
    /// whether there are more.
    fn settle_keydirs(&self) -> bool {
        let Some(begin) = self.todo().settle else { return false };
        let next = self.beside(|| self.settle_from(begin));
        if next.is_none() {
            self.store.ctx.leaf_memory.expect(0);
        }
        self.todo().settle = next;
        next.is_some()
    }

    /// Makes leaves for a while, from this hash in this shard on. Answers where to go on.
    fn settle_from(&self, (mut shard, mut from): (usize, u32)) -> Option<(usize, u32)> {
        let now = || self.store.ctx.storage.monotonic();
        let end = now() + SETTLE_FOR;
        // Who sets the pace goes leaf by leaf.
        let is_slow = self.store.options.background == Background::Manual;
        let is_over = || is_slow || now() >= end || self.is_idle();
        while let Some(keydir) = self.store.shards.get(shard) {
            if !keydir.is_keydir_settled()
                && let Some(next) = keydir.settle_keydir(from, &is_over)
            {
                return Some((shard, next));
            }
            (shard, from) = (shard + 1, 0);
        }
        None
    }

    /// Frees what was retired: a merged segment's space is given back with its memory.
    fn collect_if_due(&self) {
        let now = self.store.ctx.storage.monotonic();
        if self.todo().collect_at.take_if(|at| *at <= now).is_some() {
            self.store.ctx.reclaim.collect();
        }
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

    /// Works in several shards at once, beside this thread.
    fn in_shards<T: Send>(
        &self,
        shards: &[ShardId],
        work: impl Fn(&ShardId) -> T + Send + Sync,
    ) -> Vec<T> {
        if self.store.options.background == Background::Manual || shards.is_empty() {
            // Somebody else sets the pace: in the order of the shards, the same every time.
            return shards.iter().map(work).collect();
        }
        self.beside(|| shards.par_iter().map(&work).collect())
    }

    /// Does what takes long in a thread of its own. This one goes on to take in events meanwhile, for
    /// writers wait for segments and for room that are not ready, and to sync by time.
    fn beside<T: Send>(&self, work: impl Fn() -> T + Sync) -> T {
        if self.store.options.background == Background::Manual {
            return work();
        }
        let (done, is_done) = crossbeam_channel::bounded(1);
        let (work, helper) = (&work, std::thread::Builder::new().name("caskade-work".to_owned()));
        let answer = std::thread::scope(|scope| {
            let send = move || {
                // The other end waits for it.
                let _ = done.send(work());
            };
            if helper.spawn_scoped(scope, send).is_err() {
                // The system has no thread to give.
                return Some(work());
            }
            loop {
                if let Err(error) = self.sync_if_due() {
                    self.report(&error);
                }
                select! {
                    recv(self.events) -> event => match event {
                        Ok(event) => self.take(event),
                        // All handles are gone: nothing more comes.
                        Err(_) => break,
                    },
                    recv(is_done) -> answer => return answer.ok(),
                    default(self.next_sync()) => {}
                }
            }
            is_done.recv().ok()
        });
        answer.expect("the work ends with a send, or with a panic that the scope passes on")
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

    /// Does the sync by time, if it is due. Answers whether it was.
    fn sync_if_due(&self) -> Result<bool> {
        let now = self.store.ctx.storage.monotonic();
        {
            let mut todo = self.todo();
            let is_due = todo.sync_at.is_some_and(|at| at <= now);
            if !is_due || planted!("interval-forgotten") {
                return Ok(false);
            }
            todo.sync_at = None;
        }
        // Cleared first: a write during the sync asks for the next one.
        self.store.is_dirty.store(false, Ordering::Release);
        let outcome = self.store.sync_all();
        if outcome.is_err() && !self.store.ctx.poison.is_latched() {
            self.todo().sync_at.get_or_insert(now + RETRY);
        }
        outcome.map(|()| true)
    }

    /// How long it is to the next sync by time, or until one may have been planned by another thread,
    /// which took the announcement in.
    fn next_sync(&self) -> Duration {
        const UNPLANNED: Duration = Duration::from_millis(20);
        let now = self.store.ctx.storage.monotonic();
        self.todo().sync_at.map_or(UNPLANNED, |at| at.saturating_sub(now))
    }

    fn take_due_retry(&self) {
        let now = self.store.ctx.storage.monotonic();
        let wall = self.store.now_ms();
        let mut todo = self.todo();
        if todo.retry_at.is_some_and(|at| at <= now) {
            todo.retry_at = None;
        }
        if todo.look_at.is_some_and(|at| at <= wall) {
            todo.look_at = None;
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
            let only_drops = !self.store.is_merge_time();
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

    /// When the merge window opens, on the wall clock, if it is not open.
    fn window_opens_at(&self) -> Option<u64> {
        const DAY: u64 = 1440;
        let (from, _) = self.store.options.merge_window?;
        let minute = self.store.now_ms() / 60_000;
        let wait = (u64::from(from) + DAY - minute % DAY - 1) % DAY + 1;
        (!self.store.is_merge_time()).then(|| (minute + wait).saturating_mul(60_000))
    }

    /// Notes when there is to be looked for merges again, whatever is written until then.
    fn look_ahead(&self) {
        let wall = self.store.now_ms();
        let mut look = self.window_opens_at();
        for shard in &self.store.shards {
            let (segments, _) = shard.merge_stats();
            let next = segments.iter().map(|s| s.expiry_max).filter(|at| *at > wall).min();
            look = look.into_iter().chain(next.filter(|at| *at < u64::MAX)).min();
        }
        self.todo().look_at = look;
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
        let now = maintenance.store.ctx.storage.monotonic();
        maintenance.merge_rate.spend(bytes, now, || {
            // What is announced meanwhile does not wait for a slow merge.
            maintenance.absorb();
            maintenance.is_idle()
        });
        if maintenance.todo().is_closing { Err(Error::Stopped) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Db;
    use crate::options::{Builder, WriteOptions};

    fn opened(options: Builder) -> Maintenance {
        let (store, events) = crate::open::open(options).expect("opens");
        Maintenance::new(Arc::new(store), events)
    }

    /// Opens a store of one shard that syncs every so often.
    fn synced_every(period: Duration) -> (tempfile::TempDir, Maintenance) {
        let home = tempfile::tempdir().expect("a directory");
        let options = Db::builder(home.path()).durability(Durability::Interval(period));
        let maintenance = opened(options.shards(1));
        (home, maintenance)
    }

    /// Whether all is durable, soon or in ten seconds at most.
    fn becomes_durable(shard: &caskade_shard::shard::Shard) -> bool {
        (0..2000).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            shard.durable() == shard.last_seqno()
        })
    }

    /// Work of a minute must not keep back a sync by the second.
    #[test]
    fn a_sync_by_time_waits_for_no_merge() {
        let (_home, maintenance) = synced_every(Duration::from_millis(20));
        maintenance.store.put(b"key", b"value", WriteOptions::new()).expect("writes");
        let shard = &maintenance.store.shards[0];
        let is_durable = maintenance.in_shards(&[ShardId(0)], |_| becomes_durable(shard));
        assert_eq!(is_durable, [true]);
    }

    /// Nor must it be forgotten where a merge takes in that there was a write.
    #[test]
    fn a_sync_by_time_is_planned_by_whoever_hears_of_the_write() {
        let (_home, maintenance) = synced_every(Duration::from_millis(20));
        maintenance.store.is_dirty.store(true, Ordering::Release);
        let shard = &maintenance.store.shards[0];
        let is_durable = maintenance.in_shards(&[ShardId(0)], |_| {
            // The other thread waits for announcements by now.
            std::thread::sleep(Duration::from_millis(200));
            maintenance.store.put(b"key", b"value", WriteOptions::new()).expect("writes");
            maintenance.take(Event::Awake(maintenance.store.ctx.storage.monotonic()));
            becomes_durable(shard)
        });
        assert_eq!(is_durable, [true]);
    }

    #[test]
    fn a_planned_sync_is_not_put_off() {
        let (_home, maintenance) = synced_every(RETRY);
        // From the write on, however late it is heard of.
        maintenance.take(Event::Awake(Duration::from_secs(1)));
        assert_eq!(maintenance.todo().sync_at, Some(Duration::from_secs(1) + RETRY));
        maintenance.take(Event::Awake(Duration::from_secs(2)));
        assert_eq!(maintenance.todo().sync_at, Some(Duration::from_secs(1) + RETRY));
    }

    /// An open reads and checks the keydir's leaves, and makes none.
    #[test]
    fn leaves_are_made_after_an_open_and_what_they_are_made_of_goes() {
        let home = tempfile::tempdir().expect("a directory");
        let keys = 0..5000_u32;
        let db = Db::builder(home.path()).shards(2).open().expect("opens");
        for key in keys.clone() {
            db.put(&key.to_le_bytes(), b"value").expect("writes");
        }
        db.close().expect("closes");
        for read_only in [false, true] {
            let maintenance = opened(Db::builder(home.path()).read_only(read_only));
            let store = &maintenance.store;
            let is_settled =
                || store.shards.iter().all(caskade_shard::shard::Shard::is_keydir_settled);
            assert_eq!(is_settled(), read_only);
            let get = |key: u32| store.get(&key.to_le_bytes()).expect("reads");
            assert!(get(77).is_some_and(|value| *value == *b"value"));
            while maintenance.step() {}
            assert!(is_settled());
            assert_eq!(store.ctx.reclaim.pending(), 0, "nothing waits to be freed");
            assert!(keys.clone().all(|key| get(key).is_some()));
        }
    }

    #[test]
    fn a_poisoned_store_waits_for_its_end_alone() {
        let home = tempfile::tempdir().expect("a directory");
        let maintenance = opened(Db::builder(home.path()).shards(1));
        assert!(maintenance.next_deadline().is_some(), "a new store looks around once");
        let _ = maintenance.store.ctx.poison.latch("a test");
        assert_eq!(maintenance.next_deadline(), None);
    }

    #[test]
    fn failures_are_retried_less_and_less_often() {
        let waits: Vec<_> = (1..=4).map(|failures| retry_after(failures).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600]);
        assert_eq!([retry_after(9), retry_after(u32::MAX)], [MERGE_RETRY_MAX; 2]);
    }
}
