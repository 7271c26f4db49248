//! What a child does: the same steps for parent and child, from a seed.

use std::path::Path;
use std::time::Duration;

use caskade::{Background, Builder, Db, Durability};
use caskade_shard::storage::sim::Rng;

use crate::model::Key;

/// Every writer changes keys of its own, so that its steps alone decide what they hold.
pub(crate) const KEYS: u64 = 48;

/// What a child is told: everything else follows from it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Decides how the store is set up; the same for all lives of a store.
    pub(crate) store: u64,
    /// Which life this is.
    pub(crate) life: u64,
    pub(crate) writers: u64,
    /// A writer that came so far is done. With one writer the calls are then the same every time.
    pub(crate) steps: u64,
    pub(crate) background: Background,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write { changes: Vec<(Key, Option<Vec<u8>>)>, is_sync: bool },
    Sync,
    Compact,
    Checkpoint,
}

impl Plan {
    pub(crate) fn shards(&self) -> u16 {
        *Rng::new(self.store).pick(&[1, 2, 4])
    }

    pub(crate) fn builder(&self, home: &Path) -> Builder {
        let mut rng = Rng::new(self.store);
        let shards = *rng.pick(&[1, 2, 4]);
        let segment_bytes_min = *rng.pick(&[4 << 10, 16 << 10]);
        Db::builder(home)
            .shards(shards)
            .segment_bytes_min(segment_bytes_min)
            .segment_bytes_max(segment_bytes_min << rng.below(4))
            .journal_bytes(*rng.pick(&[16 << 10, 64 << 10]))
            .max_space_amp(*rng.pick(&[1.2, 1.5, 2.0]))
            .snapshot_on_close(rng.chance(2, 3))
            .durability(
                *rng.pick(&[Durability::Buffered, Durability::Interval(Duration::from_millis(5))]),
            )
            .background(self.background)
    }

    /// The steps of one writer in this life.
    pub(crate) fn steps(&self, writer: u64) -> impl Iterator<Item = Step> + use<> {
        let mut rng = Rng::new(self.store ^ self.life << 20 ^ writer << 40);
        (0..self.steps).map(move |number| step(&mut rng, writer, number))
    }
}

pub(crate) fn keys(writer: u64) -> impl Iterator<Item = Key> {
    (0..KEYS).map(move |index| key(writer, index))
}

fn key(writer: u64, index: u64) -> Key {
    format!("{writer}/{index}/{}", "k".repeat((index * 7 % 23) as usize)).into_bytes()
}

fn step(rng: &mut Rng, writer: u64, number: u64) -> Step {
    let is_sync = rng.chance(1, 12);
    match rng.below(100) {
        0..60 => Step::Write { changes: vec![put(rng, writer, number)], is_sync },
        60..80 => {
            let changes = vec![(key(writer, rng.below(KEYS)), None)];
            Step::Write { changes, is_sync }
        }
        80..97 => {
            let changes = (0..2 + rng.below(6)).map(|_| match rng.below(4) {
                0 => (key(writer, rng.below(KEYS)), None),
                _ => put(rng, writer, number),
            });
            Step::Write { changes: changes.collect(), is_sync }
        }
        97 => Step::Sync,
        98 => Step::Compact,
        _ => Step::Checkpoint,
    }
}

/// No two values of a writer's life are the same.
fn put(rng: &mut Rng, writer: u64, number: u64) -> (Key, Option<Vec<u8>>) {
    let index = rng.below(KEYS);
    let mut value = rng.next_u64().to_le_bytes().to_vec();
    value.resize(8 + rng.below(600) as usize, number as u8);
    (key(writer, index), Some(value))
}
