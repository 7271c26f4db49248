//! fjall: an LSM tree.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{CACHE_BYTES, Peer};
use crate::Outcome;
use crate::compare::store::{Mode, Pair, Store, wait_for_still_files};

pub(super) const PEER: Peer = Peer {
    name: "fjall",
    package: "fjall",
    settings: "cache 512 MiB, no compression (values do not compress), else defaults (64 MiB memtables, bloom \
               filters; checksums of blocks are verified when they are read from the file); every write reaches the system, PersistMode::SyncData where durable",
    loads_batched: true,
    is_durable_weaker: false,
    open,
};

fn open(dir: &Path, _mode: Mode, _keys: u64) -> Outcome<Box<dyn Store>> {
    let db = Database::builder(dir).cache_size(CACHE_BYTES as u64).open()?;
    let tree = db.keyspace("data", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall { db, tree, dir: dir.to_owned() }))
}

struct Fjall {
    db: Database,
    tree: Keyspace,
    dir: PathBuf,
}

impl Fjall {
    fn write(&self, pairs: &[Pair<'_>], persist: Option<PersistMode>) -> Outcome<()> {
        let mut batch = self.db.batch().durability(persist);
        for (key, value) in pairs {
            batch.insert(&self.tree, &key[..], *value);
        }
        Ok(batch.commit()?)
    }
}

impl Store for Fjall {
    fn put(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()> {
        Ok(self.tree.insert(&key[..], value)?)
    }

    fn put_batch(&self, pairs: &[Pair<'_>]) -> Outcome<()> {
        self.write(pairs, Some(PersistMode::Buffer))
    }

    fn put_durable(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()> {
        self.tree.insert(&key[..], value)?;
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    fn batch_durable(&self, pairs: &[Pair<'_>]) -> Option<Outcome<()>> {
        Some(self.write(pairs, Some(PersistMode::SyncData)))
    }

    fn get_into(&self, key: &[u8; 16], out: &mut Vec<u8>) -> Outcome<bool> {
        let Some(value) = self.tree.get(key)? else { return Ok(false) };
        out.clear();
        out.extend_from_slice(&value);
        Ok(true)
    }

    fn get_held(&self, key: &[u8; 16], look: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.tree.get(key)?.map(|value| look(&value)).is_some())
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Outcome<()> {
        for entry in self.tree.iter() {
            let (key, value) = entry.into_inner()?;
            visit(&key, &value);
        }
        Ok(())
    }

    fn settle(&self) -> Outcome<()> {
        self.tree.rotate_memtable_and_wait()?;
        while self.db.outstanding_flushes() > 0 || self.db.active_compactions() > 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        wait_for_still_files(&self.dir, 1)
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }
}
