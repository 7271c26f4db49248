//! Hot checkpoints: a directory of hard links that opens as a store.
//!
//! All shards are cut at one moment, so that batches are in it whole or not at all. While the
//! files are being linked, the target has no `STORE` file: an interrupted checkpoint is no store.

use std::path::Path;

use caskade_codec::names::{self, StoreName};
use caskade_shard::catalog;
use caskade_shard::error::At;
use caskade_shard::shard::Shard;
use caskade_shard::shard_set::ShardSet;
use caskade_shard::storage::{Access, LockGuard, Storage};
use caskade_shard::write_path::Locked;

use crate::open::{lock, sync_name};
use crate::store::Store;
use crate::{Error, Result};

/// What a checkpoint consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CheckpointReport {
    /// Segments that were linked.
    pub segments_linked: u64,
    /// Segments that an earlier checkpoint had brought.
    pub segments_kept: u64,
    /// Length of all its segments.
    pub bytes: u64,
}

/// How far a checkpoint has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointProgress {
    /// Shards that are in the target.
    pub shards_done: u64,
    /// Shards of the store.
    pub shards_total: u64,
}

pub(crate) fn checkpoint(
    store: &Store,
    target: &Path,
    mut progress: impl FnMut(CheckpointProgress) -> bool,
) -> Result<CheckpointReport> {
    store.check_writable()?;
    store.ctx.poison.check()?;
    store.ctx.targets.check()?;
    let meta = read_store_file(store, &store.ctx.path)?;
    // Nobody opens the target, or makes another checkpoint there, before this one is whole.
    let _lock = prepare_target(store, target, &meta)?;

    let upkeep = store.shards.iter().map(Shard::upkeep).collect::<Result<Vec<_>>>()?;
    let cuts: Vec<_> = {
        let mut locked =
            store.shards.iter().map(Shard::lock).collect::<Result<Vec<Locked<'_>>>>()?;
        locked.iter_mut().map(Locked::end_active).for_each(drop);
        locked.iter().map(|locked| locked.cut().seqno).collect()
    };
    for (shard, upkeep) in store.shards.iter().zip(&upkeep) {
        shard.seal_ended_for(upkeep)?;
    }
    store.committer.settle(&store.shards, ShardSet::below(store.ctx.shards))?;
    // From here on the checkpoint that is there is none any more.
    unname(store, target)?;
    let mut report = CheckpointReport::default();
    let mut now = CheckpointProgress { shards_done: 0, shards_total: store.shards.len() as u64 };
    for ((shard, upkeep), cut) in store.shards.iter().zip(&upkeep).zip(cuts) {
        let linked = shard.link_into(&target.join(names::shard(shard.id)), cut, upkeep)?;
        report.segments_linked += linked.linked;
        report.segments_kept += linked.kept;
        report.bytes += linked.bytes;
        now.shards_done += 1;
        if !progress(now) {
            return Err(Error::Stopped);
        }
    }
    drop(upkeep);
    store.ctx.sync_target(target)?;
    catalog::replace_in_target(&store.ctx, target, names::STORE, &meta)?;
    // A sync that failed for another checkpoint may have lost a name of this one.
    store.ctx.targets.check()?;
    Ok(report)
}

fn read_store_file(store: &Store, dir: &Path) -> Result<Vec<u8>> {
    let path = dir.join(names::STORE);
    let file = store.ctx.storage.open(&path, Access::Read).at("open", &path)?;
    file.read_whole(1 << 20).at("read", &path)
}

/// Makes the target a directory that is empty or has an earlier checkpoint of this very store. It is
/// locked until the answer is dropped.
fn prepare_target(store: &Store, target: &Path, meta: &[u8]) -> Result<Box<dyn LockGuard>> {
    let storage = &*store.ctx.storage;
    if target.starts_with(&store.ctx.path) {
        return refuse(target, "the target of a checkpoint is the store itself, or lies in it");
    }
    storage.ensure_dir(target).at("create the directory", target)?;
    // Also where it was there: an earlier try may have ended before its name was durable.
    sync_name(target, |parent| store.ctx.sync_target(parent))?;
    // Nothing is left behind in a directory of somebody else.
    has_checkpoint(storage, target)?;
    let lock = lock(storage, target)?;
    if has_checkpoint(storage, target)? {
        // A copy of the directory at the same place would share its files with the store itself.
        if read_store_file(store, target)? != meta {
            return refuse(target, "the target of a checkpoint holds another store");
        }
        // Before anything is done: the target may lie on another file system.
        let probe = target.join(names::temporary(names::STORE));
        let _ = storage.remove(&probe);
        storage.hard_link(&store.ctx.path.join(names::STORE), &probe).at("link", &probe)?;
        storage.remove(&probe).at("remove", &probe)?;
    }
    // Without STORE it may be another's unfinished checkpoint, or what is left of another store.
    if store.shards.iter().any(|shard| shard.is_anothers(&target.join(names::shard(shard.id)))) {
        return refuse(target, "the target of a checkpoint holds files of another store");
    }
    Ok(lock)
}

/// Makes an earlier checkpoint an unfinished one, durably.
fn unname(store: &Store, target: &Path) -> Result<()> {
    let path = target.join(names::STORE);
    // An earlier try may have removed it and ended before the sync.
    store.ctx.change_target(target, || store.ctx.storage.ensure_removed(&path).at("remove", &path))
}

/// Whether a directory holds a whole checkpoint. An error if it holds what is in none.
fn has_checkpoint(storage: &dyn Storage, target: &Path) -> Result<bool> {
    let mut is_whole = false;
    for entry in storage.list_dir(target).at("list", target)? {
        match StoreName::parse(&entry.name) {
            StoreName::Unknown | StoreName::Journal(_) => {
                let reason =
                    "the target of a checkpoint holds other files, or was opened for writing";
                return refuse(target, reason);
            }
            StoreName::Store => is_whole = true,
            _ => {}
        }
    }
    Ok(is_whole)
}

fn refuse<T>(target: &Path, reason: &'static str) -> Result<T> {
    Err(Error::NotAStore { path: target.to_owned(), reason })
}
