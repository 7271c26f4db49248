//! This store.

use std::path::Path;

use caskade::{Batch, Db, Durability, WriteOptions};

use super::Peer;
use crate::Outcome;
use crate::child::wait_for_rest;
use crate::compare::store::{Mode, Pair, Store, Visit};

const SHARDS: u16 = 16;

pub(super) const PEER: Peer = Peer {
    name: "caskade",
    package: "caskade",
    settings: "defaults, 16 shards said; Durability::Buffered, durable writes Durability::Sync; every read \
               verifies a checksum of 32 bits",
    loads_batched: false,
    is_durable_weaker: false,
    open,
};

fn open(dir: &Path, _mode: Mode, _keys: u64) -> Outcome<Box<dyn Store>> {
    Ok(Box::new(Caskade(Db::builder(dir).shards(SHARDS).open()?)))
}

struct Caskade(Db);

fn sync() -> WriteOptions {
    WriteOptions::new().durability(Durability::Sync)
}

impl Store for Caskade {
    fn put(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()> {
        self.0.put(key, value)?;
        Ok(())
    }

    fn put_durable(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()> {
        self.0.put_with(key, value, sync())?;
        Ok(())
    }

    fn batch_durable(&self, pairs: &[Pair<'_>]) -> Option<Outcome<()>> {
        let mut batch = Batch::new();
        for (key, value) in pairs {
            batch.put(key, value);
        }
        Some(self.0.write_with(&batch, sync()).map(|_| ()).map_err(Into::into))
    }

    fn get_into(&self, key: &[u8; 16], out: &mut Vec<u8>) -> Outcome<bool> {
        Ok(self.0.get_into(key, out)?)
    }

    fn get_held(&self, key: &[u8; 16], look: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.0.get(key)?.map(|value| look(&value)).is_some())
    }

    fn get_many(&self, keys: &[[u8; 16]], visit: Visit<'_>) -> Outcome<()> {
        self.0.get_many_with(keys, |_, value| visit(value))?;
        Ok(())
    }

    fn get_many_held(&self, keys: &[[u8; 16]]) -> Option<Outcome<usize>> {
        Some(match self.0.get_many(keys) {
            Ok(values) => Ok(values.iter().flatten().count()),
            Err(error) => Err(error.into()),
        })
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Outcome<()> {
        self.0.iter()?.visit(|key, value| {
            visit(key, value);
            true
        })?;
        Ok(())
    }

    fn settle(&self) -> Outcome<()> {
        wait_for_rest(&self.0);
        Ok(())
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        Ok(self.0.close()?)
    }
}
