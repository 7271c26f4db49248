//! How the store of one seed is set up, and what is done to it how often.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use caskade::{Background, Builder, Db, Durability};
use caskade_shard::storage::Storage;
use caskade_shard::storage::sim::Rng;

/// The operations, each with a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Put,
    PutTtl,
    Delete,
    Batch,
    PutIfAbsent,
    Swap,
    PutIfVersion,
    Update,
    Add,
    Expire,
    Persist,
    Sync,
    WaitDurable,
    Background,
    BackgroundAll,
    Interval,
    Advance,
    MergeSome,
    Compact,
    Checkpoint,
    Reopen,
    Check,
    Hold,
    Space,
    Fault,
}

const OPS: [(Op, u64); 25] = [
    (Op::Put, 60),
    (Op::PutTtl, 15),
    (Op::Delete, 25),
    (Op::Batch, 20),
    (Op::PutIfAbsent, 5),
    (Op::Swap, 5),
    (Op::PutIfVersion, 5),
    (Op::Update, 5),
    (Op::Add, 5),
    (Op::Expire, 5),
    (Op::Persist, 3),
    (Op::Sync, 4),
    (Op::WaitDurable, 3),
    (Op::Background, 20),
    (Op::BackgroundAll, 3),
    (Op::Interval, 2),
    (Op::Advance, 8),
    (Op::MergeSome, 6),
    (Op::Compact, 1),
    (Op::Checkpoint, 1),
    (Op::Reopen, 2),
    (Op::Check, 1),
    (Op::Hold, 2),
    (Op::Space, 0),
    (Op::Fault, 0),
];

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) shards: u16,
    pub(crate) keys: u64,
    pub(crate) value_bytes_max: u64,
    pub(crate) ops_max: u64,
    pub(crate) rounds: u64,
    /// Out of ten writes, so many ask for `Sync`.
    pub(crate) sync_share: u64,
    pub(crate) no_allocate: bool,
    weights: Vec<(Op, u64)>,
    segment_bytes_min: u64,
    segment_bytes_max: u64,
    journal_bytes: u64,
    max_space_amp: f64,
    durability: Durability,
    snapshot_on_close: bool,
}

/// How long after the last write an interval store syncs.
pub(crate) const INTERVAL_MS: u64 = 100;

impl Config {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let segment_bytes_min = *rng.pick(&[400, 512, 1000, 2048, 4096, 16 << 10]);
        let grown = segment_bytes_min << rng.below(5);
        let mut weights: Vec<(Op, u64)> =
            OPS.iter().map(|(op, weight)| (*op, weight * *rng.pick(&[0, 1, 1, 2, 5]))).collect();
        weights[0].1 += 20;
        if rng.chance(1, 6) {
            weights.push((Op::Space, 1 + rng.below(10)));
        }
        if rng.chance(1, 6) {
            weights.push((Op::Fault, 1 + rng.below(3)));
        }
        let mut config = Self {
            shards: *rng.pick(&[1, 1, 2, 2, 3, 4, 8]),
            keys: *rng.pick(&[2, 4, 8, 16, 40]),
            value_bytes_max: *rng.pick(&[10, 60, 200, 600, 3000]),
            ops_max: *rng.pick(&[10, 40, 100, 300]),
            rounds: 2 + rng.below(4),
            sync_share: *rng.pick(&[0, 0, 1, 3, 9]),
            no_allocate: rng.chance(1, 12),
            weights,
            segment_bytes_min,
            segment_bytes_max: grown.min(64 << 10),
            journal_bytes: *rng.pick(&[8 << 10, 16 << 10, 64 << 10]),
            max_space_amp: *rng.pick(&[1.1, 1.5, 2.0, 4.0]),
            durability: *rng.pick(&[
                Durability::Buffered,
                Durability::Buffered,
                Durability::Interval(Duration::from_millis(INTERVAL_MS)),
                Durability::Sync,
            ]),
            snapshot_on_close: rng.chance(2, 3),
        };
        if config.shards > 1 && config.sync_share == 0 && segment_bytes_min <= 1000 {
            config.break_batches();
        }
        config
    }

    /// Batches over shards of which some seal what others have not yet made durable: most power
    /// cuts then undo what is sealed.
    fn break_batches(&mut self) {
        self.durability = Durability::Buffered;
        self.max_space_amp = 4.0;
        for (op, weight) in &mut self.weights {
            match op {
                Op::Batch | Op::Background => *weight = 100,
                Op::Sync | Op::WaitDurable | Op::MergeSome | Op::Compact | Op::Checkpoint => {
                    *weight = (*weight).min(1);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn op(&self, rng: &mut Rng) -> Op {
        let mut at = rng.below(self.weights.iter().map(|(_, weight)| weight).sum());
        for (op, weight) in &self.weights {
            if at < *weight {
                return *op;
            }
            at -= weight;
        }
        unreachable!("the weights add up to their total")
    }

    pub(crate) fn is_interval(&self) -> bool {
        matches!(self.durability, Durability::Interval(_))
    }

    pub(crate) fn is_sync(&self) -> bool {
        self.durability == Durability::Sync
    }

    pub(crate) fn builder(&self, path: &Path, storage: Arc<dyn Storage>) -> Builder {
        Db::builder(path)
            .storage(storage)
            .background(Background::Manual)
            .shards(self.shards)
            .segment_bytes_max(self.segment_bytes_max)
            .segment_bytes_min(self.segment_bytes_min)
            .journal_bytes(self.journal_bytes)
            .max_space_amp(self.max_space_amp)
            .durability(self.durability)
            .snapshot_on_close(self.snapshot_on_close)
    }
}
