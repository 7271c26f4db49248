//! LMDB, by way of heed: a copy-on-write B-tree in a memory map.

use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};

use super::Peer;
use crate::Outcome;
use crate::compare::store::{Mode, Pair, Store, Visit};

pub(super) const PEER: Peer = Peer {
    name: "lmdb",
    package: "heed",
    settings: "the version is that of heed, by which it is used; map of 16 GiB, MDB_NOMEMINIT, no MDB_WRITEMAP; MDB_NOSYNC (a killed process loses nothing, \
               a power cut may cost the whole store), without it where durable; no checksums",
    loads_batched: true,
    is_durable_weaker: false,
    open,
};

const MAP_BYTES: usize = 16 << 30;
const READERS: u32 = 64;

fn open(dir: &Path, mode: Mode, _keys: u64) -> Outcome<Box<dyn Store>> {
    std::fs::create_dir_all(dir)?;
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES).max_readers(READERS);
    let mut flags = EnvFlags::NO_MEM_INIT;
    flags.set(EnvFlags::NO_SYNC, mode == Mode::Buffered);
    // SAFETY: of these flags, one gives up durability that the run does without, the other the zeroing
    // of bytes that nobody reads; and nobody else changes the files while they are mapped.
    let env = unsafe { options.flags(flags).open(dir)? };
    let data = env
        .create_databases_and_commit(env.write_txn()?, |opener, transaction| {
            opener.create_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
        })?
        .unwrap_commit();
    Ok(Box::new(Lmdb { env, data }))
}

struct Lmdb {
    env: Env,
    data: Database<'static, Bytes, Bytes>,
}

impl Lmdb {
    fn write(&self, pairs: &[Pair<'_>]) -> Outcome<()> {
        let mut transaction = self.env.write_txn()?;
        for (key, value) in pairs {
            self.data.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }
}

impl Store for Lmdb {
    fn put(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()> {
        self.write(&[(*key, value)])
    }

    fn put_batch(&self, pairs: &[Pair<'_>]) -> Outcome<()> {
        self.write(pairs)
    }

    fn put_durable(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()> {
        self.write(&[(*key, value)])
    }

    fn batch_durable(&self, pairs: &[Pair<'_>]) -> Option<Outcome<()>> {
        Some(self.write(pairs))
    }

    fn get_into(&self, key: &[u8; 16], out: &mut Vec<u8>) -> Outcome<bool> {
        let transaction = self.env.read_txn()?;
        let Some(value) = self.data.get(&transaction, key)? else { return Ok(false) };
        out.clear();
        out.extend_from_slice(value);
        Ok(true)
    }

    fn get_held(&self, key: &[u8; 16], look: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        let transaction = self.env.read_txn()?;
        Ok(self.data.get(&transaction, key)?.map(look).is_some())
    }

    fn get_many(&self, keys: &[[u8; 16]], visit: Visit<'_>) -> Outcome<()> {
        let transaction = self.env.read_txn()?;
        for key in keys {
            visit(self.data.get(&transaction, key)?);
        }
        Ok(())
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Outcome<()> {
        let transaction = self.env.read_txn()?;
        for entry in self.data.iter(&transaction)? {
            let (key, value) = entry?;
            visit(key, value);
        }
        Ok(())
    }

    fn settle(&self) -> Outcome<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        Ok(self.env.force_sync()?)
    }
}
