//! `RocksDB`: an LSM tree in C++.

use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, Options, WriteBatch,
    WriteOptions,
};

use super::{CACHE_BYTES, Peer};
use crate::Outcome;
use crate::compare::store::{Mode, Pair, Store, Visit, wait_for_still_files};

pub(super) const PEER: Peer = Peer {
    name: "rocksdb",
    package: "librocksdb-sys",
    settings: "by rust-rocksdb; block cache 512 MiB, no compression (values do not compress), bloom filters of 10 \
               bits, hash index in data blocks, dynamic level bytes, parallelism as there are cores, else \
               defaults (64 MiB memtables); log without fsync, with it where durable",
    loads_batched: false,
    is_durable_weaker: false,
    open,
};

fn open(dir: &Path, _mode: Mode, _keys: u64) -> Outcome<Box<dyn Store>> {
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
    Ok(Box::new(Rocks { db: DB::open(&options, dir)?, dir: dir.to_owned() }))
}

struct Rocks {
    db: DB,
    dir: PathBuf,
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

    fn get_held(&self, key: &[u8; 16]) -> Outcome<Option<usize>> {
        Ok(self.db.get_pinned(key)?.map(|value| value.len()))
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
        wait_for_still_files(&self.dir, 1)
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        self.db.cancel_all_background_work(true);
        Ok(())
    }
}
