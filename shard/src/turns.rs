//! Who commits for whom: threads that wait for shards to be durable take turns as leader.
//!
//! The first one that finds no leader leads for all who asked so far: its group. Those who come
//! meanwhile are the next group; they sleep through the end of this one, but for the one that leads
//! next. A leader waits a moment for those who were just served, if they are used to come back
//! (`docs/decisions/0019-a-leader-waits-for-those-just-served.md`).
//!
//! It knows nothing of logs and disks, so that the model checker can try every interleaving
//! (`shard/tests/loom.rs`).

use std::time::Duration;

use crate::shard_set::ShardSet;
use crate::sync::{AtomicU32, Condvar, Mutex, MutexGuard, Ordering, Stopwatch, lock, yield_until};

/// A leader waits half as long as the last turn took for those who may be on their way, and no longer
/// than this.
const PATIENCE_MAX: Duration = Duration::from_micros(100);
/// So many turns go without waiting at most, when it was in vain again and again.
const REST_MAX: u32 = 64;

/// The queue for the next turn.
#[derive(Debug)]
pub struct Turns {
    queue: Mutex<Queue>,
    /// By the parity of the group that waits.
    woken: [Condvar; 2],
    /// Threads of the group that gathers; written under the lock.
    asked: AtomicU32,
}

#[derive(Debug, Default)]
struct Queue {
    /// The group that gathers. The one before it is led, or over.
    group: u64,
    /// What it asks for.
    wanted: ShardSet,
    leader: Leader,
    /// Threads that wait, by the parity of their group.
    waiting: [usize; 2],
    hope: Hope,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Leader {
    #[default]
    Nobody,
    /// Waits for more of the group that gathers.
    Waits,
    /// Leads the group before.
    Leads,
}

/// Whether those who were just served come back soon. If they do, one turn serves all threads; a leader
/// that begins without them lets two groups alternate, each of which waits for the other's turn.
#[derive(Debug, Default)]
struct Hope {
    /// The threads of the last group, and those that waited when it was done.
    expected: u32,
    /// How long the last turn took.
    took: Duration,
    /// Turns to go without waiting, and how many it will be the next time.
    rest: u32,
    next_rest: u32,
}

impl Hope {
    /// How long a leader waits for more than those who asked.
    fn patience(&mut self, asked: u32) -> Option<Duration> {
        if asked >= self.expected {
            return None;
        }
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        Some((self.took / 2).min(PATIENCE_MAX))
    }

    fn came(&mut self, is_all: bool) {
        self.next_rest = if is_all { 0 } else { (2 * self.next_rest + 1).min(REST_MAX) };
        self.rest = self.next_rest;
    }
}

fn parity(group: u64) -> usize {
    (group % 2) as usize
}

impl Default for Turns {
    fn default() -> Self {
        let woken = [Condvar::new(), Condvar::new()];
        Self { queue: Mutex::new(Queue::default()), woken, asked: AtomicU32::new(0) }
    }
}

impl Turns {
    /// As if so many threads had been served just now, for the model checker.
    #[cfg(loom)]
    pub fn expecting(threads: u32) -> Self {
        let turns = Self::default();
        lock(&turns.queue).hope.expected = threads;
        turns
    }

    /// Returns once `is_done`. Until then `shards` are asked for, and `lead` is called with all that
    /// were asked for whenever it is this thread's turn; its error ends this thread's wait, and
    /// nobody else's. `check` is asked before each turn, and its error ends the wait too.
    pub fn wait<E>(
        &self,
        shards: ShardSet,
        is_done: impl Fn() -> bool,
        check: impl Fn() -> Result<(), E>,
        lead: impl Fn(ShardSet) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut queue = lock(&self.queue);
        let mut group = None;
        while !is_done() {
            if let Err(error) = check() {
                self.pass_on(&queue, group);
                return Err(error);
            }
            // Who is woken while its group is led has asked already.
            let is_led = |own: u64| queue.leader == Leader::Leads && own + 1 == queue.group;
            let is_under_way = group.is_some_and(is_led);
            if !is_under_way {
                queue.wanted = queue.wanted.union(shards);
                if group.replace(queue.group) != Some(queue.group) {
                    self.asked.fetch_add(1, Ordering::Relaxed);
                }
            }
            if let (Leader::Waits | Leader::Leads, Some(own)) = (&queue.leader, group) {
                queue.waiting[parity(own)] += 1;
                queue = self.woken[parity(own)]
                    .wait(queue)
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                queue.waiting[parity(own)] -= 1;
                continue;
            }
            queue.leader = Leader::Waits;
            queue = self.gather(queue);
            queue.leader = Leader::Leads;
            queue.group += 1;
            let wanted = std::mem::take(&mut queue.wanted);
            let size = self.asked.swap(0, Ordering::Relaxed);
            drop(queue);
            // Whatever happens to the leader, those who wait must not wait for ever.
            let turn = Turn { turns: self, size, watch: Stopwatch::start() };
            let outcome = lead(wanted);
            drop(turn);
            outcome?;
            queue = lock(&self.queue);
        }
        self.pass_on(&queue, group);
        Ok(())
    }

    /// Waits a moment for those who may be on their way.
    fn gather<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let asked = || self.asked.load(Ordering::Relaxed);
        let Some(patience) = queue.hope.patience(asked()) else { return queue };
        let expected = queue.hope.expected;
        drop(queue);
        yield_until(|| asked() >= expected, patience);
        queue = lock(&self.queue);
        queue.hope.came(asked() >= expected);
        queue
    }

    /// Who was woken to lead and need not any more wakes another of its group.
    fn pass_on(&self, queue: &Queue, group: Option<u64>) {
        let gathering = parity(queue.group);
        // Waking is a system call, even where nobody waits.
        if queue.leader == Leader::Nobody
            && group == Some(queue.group)
            && queue.waiting[gathering] > 0
        {
            self.woken[gathering].notify_one();
        }
    }
}

/// Ends a leader's turn, also when it panics.
struct Turn<'a> {
    turns: &'a Turns,
    /// Threads that are served.
    size: u32,
    watch: Stopwatch,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.turns.queue);
        queue.leader = Leader::Nobody;
        queue.hope.expected = self.size + self.turns.asked.load(Ordering::Relaxed);
        queue.hope.took = self.watch.elapsed();
        let next = parity(queue.group);
        let waiting = queue.waiting;
        // Whoever is woken needs the lock at once.
        drop(queue);
        if waiting[1 - next] > 0 {
            self.turns.woken[1 - next].notify_all();
        }
        if waiting[next] > 0 {
            self.turns.woken[next].notify_one();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::AtomicU64;

    #[test]
    fn a_leader_waits_for_as_many_as_there_are_and_less_and_less_in_vain() {
        let mut hope = Hope { expected: 4, took: Duration::from_micros(120), ..Hope::default() };
        assert_eq!(hope.patience(4), None, "all are there");
        let mut waits = 0;
        for _ in 0..1000 {
            if let Some(patience) = hope.patience(3) {
                assert_eq!(patience, Duration::from_micros(60));
                waits += 1;
                hope.came(false);
            }
        }
        assert!((15..25).contains(&waits), "{waits} of 1000");
        let rested = std::iter::from_fn(|| hope.patience(3).is_none().then_some(())).count();
        assert!(rested <= REST_MAX as usize);
        hope.came(true);
        assert!(hope.patience(3).is_some(), "once they came, they are waited for again");
        hope.took = Duration::from_secs(1);
        assert_eq!(hope.patience(3), Some(PATIENCE_MAX));
    }

    /// Threads that come back at once share their turns; without waiting, two groups would alternate.
    #[test]
    fn threads_that_come_back_at_once_share_a_turn() {
        const THREADS: u64 = 4;
        const ROUNDS: u64 = 200;
        let turns = Turns::default();
        let (written, durable, led) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let write = || {
            let own = written.fetch_add(1, Ordering::AcqRel) + 1;
            let lead = |_| {
                let end = written.load(Ordering::Acquire);
                std::thread::sleep(Duration::from_micros(200));
                durable.store(end, Ordering::Release);
                led.fetch_add(1, Ordering::Relaxed);
                Ok::<_, ()>(())
            };
            let is_done = || durable.load(Ordering::Acquire) >= own;
            turns.wait(ShardSet::default(), is_done, || Ok(()), lead).expect("nothing fails");
        };
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..ROUNDS).for_each(|_| write()));
            }
        });
        let each = (THREADS * ROUNDS) as f64 / led.into_inner() as f64;
        assert!(each > 0.75 * THREADS as f64, "{each:.2} writes a turn");
    }
}
