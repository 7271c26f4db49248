//! sled: a lock-free B-tree over a log.

use std::path::{Path, PathBuf};

use sled::{Batch, Config, Db, Mode as SledMode};

use super::{CACHE_BYTES, Peer};
use crate::Outcome;
use crate::compare::store::{Mode, Pair, Store, wait_for_still_files};

pub(super) const PEER: Peer = Peer {
    name: "sled",
    package: "sled",
    settings: "the release 0.34; cache 512 MiB, HighThroughput, flush_every_ms 500 as is the default (a weaker \
               promise than the others': a killed process loses that much), else defaults; flush() after the \
               write where durable, which on Linux is sync_file_range: no flush of the disk, and no equal of \
               an fsync, so it does not count as a best peer there; checksums are verified when pages are read \
               from the file",
    loads_batched: true,
    is_durable_weaker: true,
    open,
};

fn open(dir: &Path, _mode: Mode, _keys: u64) -> Outcome<Box<dyn Store>> {
    let config = Config::new()
        .path(dir)
        .cache_capacity(CACHE_BYTES as u64)
        .mode(SledMode::HighThroughput)
        .flush_every_ms(Some(500));
    Ok(Box::new(Sled { db: config.open()?, dir: dir.to_owned() }))
}

struct Sled {
    db: Db,
    dir: PathBuf,
}

impl Sled {
    fn write(&self, pairs: &[Pair<'_>]) -> Outcome<()> {
        let mut batch = Batch::default();
        for (key, value) in pairs {
            batch.insert(key, *value);
        }
        Ok(self.db.apply_batch(batch)?)
    }
}

impl Store for Sled {
    fn put(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()> {
        self.db.insert(key, value)?;
        Ok(())
    }

    fn put_batch(&self, pairs: &[Pair<'_>]) -> Outcome<()> {
        self.write(pairs)
    }

    fn put_durable(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()> {
        self.db.insert(key, value)?;
        self.db.flush()?;
        Ok(())
    }

    fn batch_durable(&self, pairs: &[Pair<'_>]) -> Option<Outcome<()>> {
        let written = self.write(pairs);
        Some(written.and_then(|()| {
            self.db.flush()?;
            Ok(())
        }))
    }

    fn get_into(&self, key: &[u8; 16], out: &mut Vec<u8>) -> Outcome<bool> {
        let Some(value) = self.db.get(key)? else { return Ok(false) };
        out.clear();
        out.extend_from_slice(&value);
        Ok(true)
    }

    fn get_held(&self, key: &[u8; 16], look: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.db.get(key)?.map(|value| look(&value)).is_some())
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Outcome<()> {
        for entry in &*self.db {
            let (key, value) = entry?;
            visit(&key, &value);
        }
        Ok(())
    }

    fn flush(&self) -> Outcome<()> {
        self.db.flush()?;
        Ok(())
    }

    fn settle(&self) -> Outcome<()> {
        self.db.flush()?;
        wait_for_still_files(&self.dir, 1)
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        self.db.flush()?;
        Ok(())
    }
}
