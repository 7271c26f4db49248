//! redb: a copy-on-write B-tree.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{CACHE_BYTES, Peer};
use crate::Outcome;
use crate::compare::store::{Mode, Pair, Store, Visit, wait_for_still_files};

pub(super) const PEER: Peer = Peer {
    name: "redb",
    package: "redb",
    settings: "cache 512 MiB, else defaults; Durability::None and every 10000th commit Immediate (a weaker promise \
               than the others': a killed process loses commits since then), or all Immediate where durable; checksums \
               are verified when a killed store is opened, not by reads",
    loads_batched: true,
    is_durable_weaker: false,
    open,
};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("data");
/// Space that commits free is used again only after one that is durable.
const DURABLE_EVERY: u64 = 10_000;

fn open(dir: &Path, _mode: Mode, _keys: u64) -> Outcome<Box<dyn Store>> {
    std::fs::create_dir_all(dir)?;
    let db = Database::builder().set_cache_size(CACHE_BYTES).create(dir.join("redb"))?;
    let store = Redb { db, dir: dir.to_owned(), written: AtomicU64::new(0) };
    // The first commit makes the table.
    store.write(&[], Durability::Immediate)?;
    Ok(Box::new(store))
}

struct Redb {
    db: Database,
    dir: PathBuf,
    written: AtomicU64,
}

impl Redb {
    fn write(&self, pairs: &[Pair<'_>], durability: Durability) -> Outcome<()> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in pairs {
                table.insert(&key[..], *value)?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn write_buffered(&self, pairs: &[Pair<'_>]) -> Outcome<()> {
        let before = self.written.fetch_add(pairs.len() as u64, Ordering::Relaxed);
        let after = before + pairs.len() as u64;
        let is_turn = before / DURABLE_EVERY != after / DURABLE_EVERY;
        self.write(pairs, if is_turn { Durability::Immediate } else { Durability::None })
    }
}

impl Store for Redb {
    fn put(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()> {
        self.write_buffered(&[(*key, value)])
    }

    fn put_batch(&self, pairs: &[Pair<'_>]) -> Outcome<()> {
        self.write_buffered(pairs)
    }

    fn put_durable(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()> {
        self.write(&[(*key, value)], Durability::Immediate)
    }

    fn batch_durable(&self, pairs: &[Pair<'_>]) -> Option<Outcome<()>> {
        Some(self.write(pairs, Durability::Immediate))
    }

    fn get_into(&self, key: &[u8; 16], out: &mut Vec<u8>) -> Outcome<bool> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        let Some(value) = table.get(&key[..])? else { return Ok(false) };
        out.clear();
        out.extend_from_slice(value.value());
        Ok(true)
    }

    fn get_held(&self, key: &[u8; 16], look: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        Ok(table.get(&key[..])?.map(|value| look(value.value())).is_some())
    }

    fn get_many(&self, keys: &[[u8; 16]], visit: Visit<'_>) -> Outcome<()> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        for key in keys {
            visit(table.get(&key[..])?.as_ref().map(redb::AccessGuard::value));
        }
        Ok(())
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Outcome<()> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        for entry in table.iter()? {
            let (key, value) = entry?;
            visit(key.value(), value.value());
        }
        Ok(())
    }

    fn flush(&self) -> Outcome<()> {
        self.write(&[], Durability::Immediate)
    }

    fn settle(&self) -> Outcome<()> {
        self.flush()?;
        wait_for_still_files(&self.dir, 1)
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        self.flush()
    }
}
