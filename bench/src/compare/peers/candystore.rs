//! candystore: a log with a hash index in mapped files, the closest relative.

use std::path::{Path, PathBuf};
use std::time::Duration;

use candystore::{CandyStore, Config};

use super::Peer;
use crate::Outcome;
use crate::compare::store::{Mode, Pair, Store, wait_for_still_files};

pub(super) const PEER: Peer = Peer {
    name: "candystore",
    package: "candystore",
    settings: "index made for the keys to come, checkpoints every 5 s (not every 128 KiB: 5 x slower), compaction \
               at up to 64 MiB/s, else defaults (64 MiB files); durable writes wait for a checkpoint; reads \
               verify a checksum of 16 bits; has no batches",
    loads_batched: false,
    is_durable_weaker: false,
    open,
};

fn open(dir: &Path, _mode: Mode, keys: u64) -> Outcome<Box<dyn Store>> {
    let config = Config {
        initial_capacity: keys as usize * 5 / 4,
        checkpoint_interval: Some(Duration::from_secs(5)),
        checkpoint_delta_bytes: None,
        compaction_throughput_bytes_per_sec: 64 << 20,
        ..Config::default()
    };
    Ok(Box::new(Candy { db: CandyStore::open(dir, config)?, dir: dir.to_owned() }))
}

struct Candy {
    db: CandyStore,
    dir: PathBuf,
}

impl Store for Candy {
    fn put(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()> {
        self.db.set(key, value)?;
        Ok(())
    }

    fn put_durable(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()> {
        self.db.set(key, value)?;
        Ok(self.db.checkpoint()?)
    }

    fn batch_durable(&self, _pairs: &[Pair<'_>]) -> Option<Outcome<()>> {
        None
    }

    fn get_into(&self, key: &[u8; 16], out: &mut Vec<u8>) -> Outcome<bool> {
        let Some(value) = self.db.get(key)? else { return Ok(false) };
        // It comes as a vector of the caller's own: no need to copy it.
        *out = value;
        Ok(true)
    }

    fn get_held(&self, key: &[u8; 16], look: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.db.get(key)?.map(|value| look(&value)).is_some())
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Outcome<()> {
        for item in self.db.iter_items() {
            let (key, value) = item?;
            visit(&key, &value);
        }
        Ok(())
    }

    fn settle(&self) -> Outcome<()> {
        wait_for_still_files(&self.dir, 1)
    }

    fn mapped_index_bytes(&self) -> u64 {
        self.db.stats().index_size_bytes
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        Ok(self.db.flush()?)
    }
}
