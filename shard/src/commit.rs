//! Making writes durable: one commit at a time for the whole store.
//!
//! A writer that wants to be durable names its shard and waits. One of those who wait leads
//! ([`Turns`]): it takes all shards that were named, notes where their logs end, makes everything up
//! to there durable, and wakes the others. Meanwhile the next group gathers.
//!
//! Only the leader raises a shard's durable sequence number, and it takes shards that share a batch
//! together, so that no shard is durable past a batch of which another part could still be lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caskade_codec::ids::{SegmentId, Seqno, ShardId};

use crate::catalog::raise_horizon;
use crate::context::{Context, Event};
use crate::error::{Error, Result};
use crate::journal::{Journal, Stretch};
use crate::log_file::{Cut, LogFile};
use crate::shard::Shard;
use crate::shard_set::ShardSet;
use crate::turns::Turns;
use crate::write_path::Locked;

/// The store's one commit stream.
///
/// Lock order: `settling`, `leader`, the shards' writers.
#[derive(Debug)]
pub struct Committer {
    ctx: Arc<Context>,
    turns: Turns,
    leader: Mutex<Leader>,
    /// Whether the names that this life found are known durable.
    settling: Mutex<bool>,
    /// Counters for statistics.
    pub counters: Counters,
}

/// Counts since the store was opened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Commits done.
    pub commits: AtomicU64,
    /// Commits that went through the journal.
    pub journal_commits: AtomicU64,
    /// Writers that waited for a commit.
    pub waiters: AtomicU64,
    /// Bytes written to the journal.
    pub journal_bytes: AtomicU64,
}

#[derive(Debug)]
struct Leader {
    journal: Journal,
    /// For each shard, up to where the log is durable, in its segments or through the journal.
    covered: Vec<(SegmentId, u64)>,
    /// The store is closed: the journal and the manifests may be another's.
    is_over: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Committer {
    /// A committer for a store whose journal continues with `next_turn`.
    pub fn new(ctx: Arc<Context>, shards: &[Shard], next_turn: u64) -> Self {
        let recovered = shards.iter().flat_map(|shard| shard.cut().files).collect();
        let journal = Journal::new(ctx.config.journal_bytes, next_turn, recovered);
        let covered = vec![(SegmentId(0), 0); shards.len()];
        Self {
            ctx,
            turns: Turns::default(),
            leader: Mutex::new(Leader { journal, covered, is_over: false }),
            settling: Mutex::default(),
            counters: Counters::default(),
        }
    }

    /// Waits until each of `writes` is durable. Several threads that wait share commits.
    pub fn wait(&self, shards: &[Shard], writes: &[(ShardId, Seqno)]) -> Result<()> {
        let is_durable =
            || writes.iter().all(|(id, seqno)| shards[usize::from(id.0)].durable() >= *seqno);
        if is_durable() {
            return Ok(());
        }
        self.counters.waiters.fetch_add(1, Ordering::Relaxed);
        let check = || match self.ctx.poison.cause() {
            Some(cause) => Err(Error::Indeterminate { cause }),
            None => Ok(()),
        };
        // The write stands in the log, whatever keeps it from being made durable.
        let lead = |wanted| {
            self.commit(shards, wanted).map_err(|error| Error::Indeterminate {
                cause: match error {
                    Error::Poisoned { cause } => cause,
                    error => error.to_string().into(),
                },
            })
        };
        self.turns.wait(writes.iter().map(|(id, _)| *id).collect(), is_durable, check, lead)
    }

    /// Ends all commits. One that is under way is waited for; one that still waits for its turn, because
    /// a closing store could not make everything durable, is refused, for then the files are another's.
    pub fn end(&self) {
        let _turn = lock(&self.settling);
        lock(&self.leader).is_over = true;
    }

    fn check(&self, leader: &Leader) -> Result<()> {
        self.ctx.poison.check()?;
        if leader.is_over { Err(Error::Closed) } else { Ok(()) }
    }

    /// Makes everything that was written to `wanted` so far durable.
    pub fn commit(&self, shards: &[Shard], wanted: ShardSet) -> Result<()> {
        span!("sync");
        let mut leader = lock(&self.leader);
        self.check(&leader)?;
        let cuts = closed_cuts(shards, wanted, Purpose::Sync);
        self.make_durable(&mut leader, &cuts).inspect_err(|_| tie(shards, &cuts))?;
        // Another thread's sync may have failed meanwhile, of a directory that this one relies on.
        self.ctx.poison.check()?;
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        leader.cover(shards, &cuts);
        Ok(())
    }

    fn make_durable(&self, leader: &mut Leader, cuts: &[Cut]) -> Result<()> {
        // A file is where its bytes are looked for, in the journal's redo too. Also one that is durable
        // otherwise: an earlier try may have ended with this.
        let mut files = cuts.iter().flat_map(|cut| &cut.files);
        files.try_for_each(|(file, _)| file.sync_entry(&self.ctx))?;
        let stretches: Vec<Stretch> = cuts.iter().flat_map(|cut| leader.uncovered(cut)).collect();
        let bytes: u64 = stretches.iter().map(Stretch::len).sum();
        // The journal restores what was written, not what was taken back.
        let is_stained = cuts.iter().any(Cut::is_stained);
        if !is_stained && self.journal(leader, &stretches, bytes)? {
            return Ok(());
        }
        cuts.iter().try_for_each(|cut| cut.sync(&self.ctx))
    }

    fn journal(&self, leader: &mut Leader, stretches: &[Stretch], bytes: u64) -> Result<bool> {
        if stretches.is_empty() {
            return Ok(true);
        }
        if bytes > leader.journal.group_bytes_max() {
            return Ok(false);
        }
        let turn = leader.journal.next_turn();
        let is_journaled = leader.journal.append(&self.ctx, stretches)?;
        if is_journaled {
            self.counters.journal_commits.fetch_add(1, Ordering::Relaxed);
            self.counters.journal_bytes.fetch_add(bytes, Ordering::Relaxed);
            if leader.journal.next_turn() != turn {
                self.ctx.announce(Event::JournalTurn);
            }
        }
        Ok(is_journaled)
    }

    /// Makes the files durable that keep the journal's other half from being used again.
    pub fn free_journal(&self) -> Result<()> {
        let pending = lock(&self.leader).journal.idle_pending();
        pending.iter().try_for_each(|(file, end)| file.sync_to(&self.ctx, *end))
    }

    /// Makes the segments of `wanted` durable up to now, and raises their horizons: everything below
    /// is durable, in the segments themselves, and all batches below are whole.
    pub fn settle(&self, shards: &[Shard], wanted: ShardSet) -> Result<Vec<Cut>> {
        span!("settle");
        let mut names_are_durable = lock(&self.settling);
        let cuts = {
            let mut leader = lock(&self.leader);
            self.check(&leader)?;
            let cuts = closed_cuts(shards, wanted, Purpose::Horizon);
            let synced = cuts.iter().try_for_each(|cut| cut.sync(&self.ctx));
            synced.inspect_err(|_| tie(shards, &cuts))?;
            // As in `commit`.
            self.ctx.poison.check()?;
            leader.cover(shards, &cuts);
            cuts
        };
        // In shard order: a batch's coordinator, its lowest shard, rises first. Recovery relies on
        // it: what is at or below the coordinator's horizon is whole.
        let raised = cuts.iter().try_for_each(|cut| {
            let catalog = &shards[usize::from(cut.shard.0)].catalog;
            if catalog.manifest().horizon >= cut.seqno {
                return Ok(());
            }
            if !*names_are_durable && !planted!("manifest-trusted") {
                // The last life may have ended when a manifest had its name, before the sync. A power cut
                // must not undo a horizon, or a cut, of one shard that another's horizon relies on.
                shards.iter().try_for_each(|shard| self.ctx.sync_dir(&shard.dir))?;
                *names_are_durable = true;
            }
            catalog.publish(&self.ctx, |manifest| {
                raise_horizon(manifest, cut.seqno);
                Ok(())
            })
        });
        // Some may have risen and others not: next time they must rise together again.
        raised.inspect_err(|_| tie(shards, &cuts))?;
        Ok(cuts)
    }
}

/// Ties the shards of cuts that came to nothing, so that the next try takes them together too.
fn tie(shards: &[Shard], cuts: &[Cut]) {
    if planted!("failure-unties") {
        return;
    }
    let together: ShardSet = cuts.iter().map(|cut| cut.shard).collect();
    for shard in together.iter() {
        shards[usize::from(shard.0)].lock_even_closed().tie(together);
    }
}

impl Leader {
    /// What of a shard's log is not durable yet.
    fn uncovered(&self, cut: &Cut) -> Vec<Stretch> {
        let (id, offset) = self.covered[usize::from(cut.shard.0)];
        let start = |file: &LogFile| {
            let covered = if file.segment.id == id { offset } else { 0 };
            covered.max(file.durable())
        };
        cut.files
            .iter()
            .filter(|(file, _)| file.segment.id >= id)
            .skip(if planted!("journal-hole") { cut.files.len().max(1) - 1 } else { 0 })
            .map(|(file, end)| Stretch { file: Arc::clone(file), start: start(file), end: *end })
            .filter(|stretch| stretch.start < stretch.end)
            .collect()
    }

    fn cover(&mut self, shards: &[Shard], cuts: &[Cut]) {
        for cut in cuts {
            let index = usize::from(cut.shard.0);
            if let Some(position) = cut.position() {
                self.covered[index] = position;
            }
            shards[index].raise_durable(cut.seqno);
        }
    }
}

/// What a cut is taken for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Sync,
    Horizon,
}

/// Cuts of `wanted` and of all shards that share a batch with them, taken at one moment.
fn closed_cuts(shards: &[Shard], mut wanted: ShardSet, purpose: Purpose) -> Vec<Cut> {
    loop {
        let mut locked: Vec<Locked<'_>> =
            wanted.iter().map(|id| shards[usize::from(id.0)].lock_even_closed()).collect();
        let all = locked.iter().fold(wanted, |all, locked| match purpose {
            Purpose::Sync => all.union(locked.entangled()),
            Purpose::Horizon => all.union(locked.unsettled()),
        });
        if all == wanted || planted!("batch-synced-alone") {
            let cut = |locked: &mut Locked<'_>| match purpose {
                Purpose::Sync => locked.cut_for_sync(),
                Purpose::Horizon => locked.cut_for_horizon(),
            };
            return locked.iter_mut().map(cut).collect();
        }
        wanted = all;
    }
}
