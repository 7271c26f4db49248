//! Who commits for whom: threads that wait for shards to be durable take turns as leader.
//!
//! The first one that finds no leader leads for all who asked so far: its group. Those who come
//! meanwhile are the next group; they sleep through the end of this one, but for the one that leads
//! next. It knows nothing of logs and disks, so that the model checker can
//! try every interleaving (`shard/tests/loom.rs`).

use crate::shard_set::ShardSet;
use crate::sync::{Condvar, Mutex, lock};

/// The queue for the next turn.
#[derive(Debug)]
pub struct Turns {
    queue: Mutex<Queue>,
    /// By the parity of the group that waits.
    woken: [Condvar; 2],
}

#[derive(Debug, Default)]
struct Queue {
    /// The group that gathers. The one before it is led, or over.
    group: u64,
    /// What it asks for.
    wanted: ShardSet,
    is_led: bool,
    /// Threads that wait, by the parity of their group.
    waiting: [usize; 2],
}

fn parity(group: u64) -> usize {
    (group % 2) as usize
}

impl Default for Turns {
    fn default() -> Self {
        let woken = [Condvar::new(), Condvar::new()];
        Self { queue: Mutex::new(Queue::default()), woken }
    }
}

impl Turns {
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
            let is_under_way = queue.is_led && group.is_some_and(|own| own + 1 == queue.group);
            if !is_under_way {
                queue.wanted = queue.wanted.union(shards);
                group = Some(queue.group);
            }
            if let (true, Some(own)) = (queue.is_led, group) {
                queue.waiting[parity(own)] += 1;
                queue = self.woken[parity(own)]
                    .wait(queue)
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                queue.waiting[parity(own)] -= 1;
                continue;
            }
            queue.is_led = true;
            queue.group += 1;
            let wanted = std::mem::take(&mut queue.wanted);
            drop(queue);
            // Whatever happens to the leader, those who wait must not wait for ever.
            let turn = Turn { turns: self };
            let outcome = lead(wanted);
            drop(turn);
            outcome?;
            queue = lock(&self.queue);
        }
        self.pass_on(&queue, group);
        Ok(())
    }

    /// Who was woken to lead and need not any more wakes another of its group.
    fn pass_on(&self, queue: &Queue, group: Option<u64>) {
        if !queue.is_led && group == Some(queue.group) {
            self.wake_a_leader(queue);
        }
    }

    fn wake_a_leader(&self, queue: &Queue) {
        let gathering = parity(queue.group);
        // Waking is a system call, even where nobody waits.
        if queue.waiting[gathering] > 0 {
            self.woken[gathering].notify_one();
        }
    }
}

/// Ends a leader's turn, also when it panics.
struct Turn<'a> {
    turns: &'a Turns,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.turns.queue);
        queue.is_led = false;
        self.turns.wake_a_leader(&queue);
        let led = parity(queue.group + 1);
        if queue.waiting[led] > 0 {
            self.turns.woken[led].notify_all();
        }
    }
}
