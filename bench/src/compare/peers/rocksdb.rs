//! `RocksDB`: an LSM tree in C++.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, Options,
    WaitForCompactOptions, WriteBatch, WriteOptions,
};

use super::{CACHE_BYTES, Peer};
use crate::Outcome;
use crate::compare::store::{Mode, Pair, Store, Visit};

pub(super) const PEER: Peer = Peer {
    name: "rocksdb",
    package: "librocksdb-sys",
    settings: "by rust-rocksdb; block cache 512 MiB, no compression (values do not compress), bloom filters of 10 \
               bits, hash index in data blocks, dynamic level bytes, parallelism as there are cores, two \
               files of the log used again (three were written before durable writes are measured), else \
               defaults (64 MiB memtables; checksums of blocks are verified when they are read from the \
               file); log without fsync, with it where durable",
    loads_batched: true,
    is_durable_weaker: false,
    open,
};

fn open(dir: &Path, mode: Mode, _keys: u64) -> Outcome<Box<dyn Store>> {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    blocks.set_bloom_filter(10.0, false);
    blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::None);
    options.set_level_compaction_dynamic_level_bytes(true);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    options.increase_parallelism(i32::try_from(cores)?);
    // Files of the log are used again: the next syncs change no metadata.
    options.set_recycle_log_file_num(2);
    let store = Rocks { db: DB::open(&options, dir)? };
    if mode == Mode::Durable {
        store.fill_logs()?;
    }
    Ok(Box::new(store))
}

/// Written to each file of the log that is to be used again.
const LOG_BYTES: usize = 32 << 20;

struct Rocks {
    db: DB,
}

impl Rocks {
    /// What a store that has been in use has: files of the log that were written before.
    fn fill_logs(&self) -> Outcome<()> {
        let value = vec![0; 1 << 20];
        for _ in 0..3 {
            for _ in 0..LOG_BYTES / value.len() {
                self.db.put(b"log", &value)?;
            }
            self.db.delete(b"log")?;
            self.settle()?;
        }
        Ok(())
    }
}

fn sync() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

fn batch(pairs: &[Pair<'_>]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for (key, value) in pairs {
        batch.put(key, value);
    }
    batch
}

impl Store for Rocks {
    fn put(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()> {
        Ok(self.db.put(key, value)?)
    }

    fn put_batch(&self, pairs: &[Pair<'_>]) -> Outcome<()> {
        Ok(self.db.write(batch(pairs))?)
    }

    fn put_durable(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()> {
        Ok(self.db.put_opt(key, value, &sync())?)
    }

    fn batch_durable(&self, pairs: &[Pair<'_>]) -> Option<Outcome<()>> {
        Some(self.db.write_opt(batch(pairs), &sync()).map_err(Into::into))
    }

    fn get_into(&self, key: &[u8; 16], out: &mut Vec<u8>) -> Outcome<bool> {
        let Some(value) = self.db.get_pinned(key)? else { return Ok(false) };
        out.clear();
        out.extend_from_slice(&value);
        Ok(true)
    }

    fn get_held(&self, key: &[u8; 16], look: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.db.get_pinned(key)?.map(|value| look(&value)).is_some())
    }

    fn get_many(&self, keys: &[[u8; 16]], visit: Visit<'_>) -> Outcome<()> {
        for value in self.db.multi_get(keys) {
            visit(value?.as_deref());
        }
        Ok(())
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Outcome<()> {
        let mut cursor = self.db.raw_iterator();
        cursor.seek_to_first();
        while let Some((key, value)) = cursor.item() {
            visit(key, value);
            cursor.next();
        }
        Ok(cursor.status()?)
    }

    fn settle(&self) -> Outcome<()> {
        self.db.flush()?;
        Ok(self.db.wait_for_compact(&WaitForCompactOptions::default())?)
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        self.db.cancel_all_background_work(true);
        Ok(())
    }
}
