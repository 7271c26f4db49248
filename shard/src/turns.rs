//! Who commits for whom: threads that wait for shards to be durable take turns as leader.
//!
//! The first one that finds no leader leads for all who asked so far. Those who come meanwhile ask and
//! wait, and one of them leads next. It knows nothing of logs and disks, so that the model checker can
//! try every interleaving (`shard/tests/loom.rs`).

use crate::log_file::ShardSet;
use crate::sync::{Condvar, Mutex, lock};

/// The queue for the next turn.
#[derive(Debug)]
pub struct Turns {
    queue: Mutex<Queue>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    wanted: ShardSet,
    is_led: bool,
    /// Threads that wait for the leader.
    waiting: usize,
}

impl Default for Turns {
    fn default() -> Self {
        Self { queue: Mutex::new(Queue::default()), woken: Condvar::new() }
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
        while !is_done() {
            check()?;
            queue.wanted = queue.wanted.union(shards);
            if queue.is_led {
                queue.waiting += 1;
                queue = self.woken.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
                queue.waiting -= 1;
                continue;
            }
            queue.is_led = true;
            let wanted = std::mem::take(&mut queue.wanted);
            drop(queue);
            // Whatever happens to the leader, those who wait must not wait for ever.
            let turn = Turn { turns: self };
            let outcome = lead(wanted);
            drop(turn);
            outcome?;
            queue = lock(&self.queue);
        }
        Ok(())
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
        // Waking is a system call, even where nobody waits.
        if queue.waiting > 0 {
            self.turns.woken.notify_all();
        }
    }
}
