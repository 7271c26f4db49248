//! Opening and creating stores.
//!
//! Creating: the shards' directories and manifests come first, the `STORE` file last. Until it
//! stands, durably, there is no store, and a later open may begin anew.

use std::io;
use std::path::Path;
use std::sync::Arc;

use caskade_codec::hash::{KeyHasher, SECRET_LEN};
use caskade_codec::ids::{SegmentId, Seqno, ShardId, StoreUuid};
use caskade_codec::manifest::Manifest;
use caskade_codec::meta::{self, StoreMeta};
use caskade_codec::names::StoreName;
use caskade_codec::{FORMAT_VERSION, names};
use caskade_shard::catalog;
use caskade_shard::commit::Committer;
use caskade_shard::context::{Context, Event, Poison};
use caskade_shard::error::At;
use caskade_shard::planted;
use caskade_shard::reclaim::Reclaim;
use caskade_shard::recovery::RecoveryMode;
use caskade_shard::span;
use caskade_shard::storage::{Access, EntryKind, LockFault, LockGuard, Storage};
use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::options::{Builder, SHARDS_DEFAULT};
use crate::recover::recover;
use crate::reserve::Reserve;
use crate::store::Store;
use crate::{Error, Result};

/// Opens or creates the store, and answers it with the channel of its background events.
pub(crate) fn open(options: Builder) -> Result<(Store, Receiver<Event>)> {
    span!("open", path = options.path.to_string_lossy().as_ref());
    let storage = Arc::clone(&options.storage);
    let begun = storage.monotonic();
    let lock = prepare_directory(&options)?;
    let (events, receiver) = unbounded();
    let (meta, is_whole) = match read_meta(&*storage, &options.path)? {
        Some(found) => found,
        None if options.read_only || !options.create => {
            return Err(no_store(&*storage, &options.path));
        }
        None => (create(&options, &events)?, true),
    };
    if let Some(asked) = options.shards
        && asked != meta.shards
    {
        return Err(Error::ShardCount { stored: meta.shards, asked });
    }
    let ctx = Arc::new(context(&options, &meta, events));
    let store_file = options.path.join(names::STORE);
    if !is_whole && options.recovery == RecoveryMode::Strict {
        return Err(Error::Damaged { path: store_file, reason: "one copy is damaged".to_owned() });
    }
    let reserve = Reserve::default();
    let mut recovered = recover(&ctx, &options);
    if recovered.as_ref().is_err_and(Error::is_no_space)
        && !options.read_only
        && !ctx.poison.is_latched()
    {
        // What has to be repaired needs a little space.
        reserve.give_up(&ctx);
        recovered = recover(&ctx, &options);
    }
    let (shards, mut report, next_turn) = recovered?;
    if !is_whole {
        report.mended.push(format!("{}: one copy is damaged", store_file.display()));
        if !options.read_only {
            catalog::replace_file(&ctx, &options.path, names::STORE, &meta.encode())?;
        }
    }
    report.elapsed = storage.monotonic().saturating_sub(begun);
    let committer = Committer::new(Arc::clone(&ctx), &shards, next_turn);
    let store = Store::new(ctx, shards, committer, options, report, reserve, lock);
    Ok((store, receiver))
}

/// Makes sure that there is a directory, and locks it.
fn prepare_directory(options: &Builder) -> Result<Option<Box<dyn LockGuard>>> {
    let (storage, path) = (&*options.storage, &options.path);
    match storage.list_dir(path) {
        // Without leaving a lock file in a directory that is none of ours.
        Ok(entries) => {
            let mut names = entries.iter().map(|entry| StoreName::parse(&entry.name));
            let is_store = names.clone().any(|name| name == StoreName::Store);
            if !is_store && names.any(|name| name == StoreName::Unknown) {
                return Err(no_store(storage, path));
            }
        }
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
            if options.read_only || !options.create {
                let reason = "there is no such directory";
                return Err(Error::NotAStore { path: path.clone(), reason });
            }
            storage.ensure_dir(path).at("create the directory", path)?;
        }
        Err(fault) if fault.kind() == io::ErrorKind::NotADirectory => {
            let reason = "it is a file, not a directory";
            return Err(Error::NotAStore { path: path.clone(), reason });
        }
        Err(fault) => return Err(Error::io("list", path, fault)),
    }
    if options.read_only {
        return Ok(None);
    }
    if !options.create && read_meta(storage, path)?.is_none() {
        return Err(no_store(storage, path));
    }
    let lock = lock(storage, path)?;
    make_names_durable(storage, path)?;
    Ok(Some(lock))
}

/// Locks a directory against other stores.
pub(crate) fn lock(storage: &dyn Storage, dir: &Path) -> Result<Box<dyn LockGuard>> {
    let file = dir.join(names::LOCK);
    storage.lock(&file).map_err(|fault| match fault {
        LockFault::Held { pid } => Error::Locked { path: dir.to_owned(), pid },
        LockFault::Io(fault) => Error::io("lock", &file, fault),
    })
}

/// Syncs the names of the store's directory and of what is in it. An earlier life may have created
/// them and died before it could: what is built on them must not lose its ground.
fn make_names_durable(storage: &dyn Storage, path: &Path) -> Result<()> {
    if planted!("store-name-unsynced") {
        return Ok(());
    }
    sync_name(path, |parent| storage.sync_dir(parent).at("sync", parent))?;
    storage.sync_dir(path).at("sync", path)
}

/// Makes the name of a store's directory durable by `sync`, which is given the directory above.
pub(crate) fn sync_name(path: &Path, sync: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match sync(parent) {
        // A store may lie in a directory that its user must not read.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        answer => answer,
    }
}

/// What the store's file says, and whether both of its copies are as they were written.
fn read_meta(storage: &dyn Storage, dir: &Path) -> Result<Option<(StoreMeta, bool)>> {
    let path = dir.join(names::STORE);
    let file = match storage.open(&path, Access::Read) {
        Ok(file) => file,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(fault) => return Err(Error::io("open", &path, fault)),
    };
    let len = file.len().at("measure", &path)?;
    // Both copies are small; a giant file is none of ours.
    let mut bytes = vec![0; len.min(1 << 20) as usize];
    file.read_exact_at(&mut bytes, 0).at("read", &path)?;
    match StoreMeta::decode(&bytes) {
        Ok((meta, copies)) => Ok(Some((meta, copies.are_intact()))),
        Err(meta::Fault::Version(found)) => {
            Err(Error::UnknownFormat { path, found, supported: FORMAT_VERSION })
        }
        Err(fault) => Err(Error::Damaged { path, reason: fault.to_string() }),
    }
}

/// Makes an empty store in a directory that has none.
fn create(options: &Builder, events: &Sender<Event>) -> Result<StoreMeta> {
    let (storage, path) = (&*options.storage, &options.path);
    refuse_foreign_directory(storage, path)?;
    let mut uuid = [0; 16];
    let mut secret = [0; SECRET_LEN];
    storage.entropy(&mut uuid).at("read randomness for", path)?;
    storage.entropy(&mut secret).at("read randomness for", path)?;
    let meta = StoreMeta {
        uuid: StoreUuid(uuid),
        shards: options.shards.unwrap_or(SHARDS_DEFAULT),
        secret,
        created_ms: storage.wall_ms(),
    };
    let ctx = context(options, &meta, events.clone());
    for shard in (0..meta.shards).map(ShardId) {
        let dir = path.join(names::shard(shard));
        storage.ensure_dir(&dir).at("create the directory", &dir)?;
        let mut manifest = Manifest {
            uuid: meta.uuid,
            shard,
            generation: 1,
            next_segment: SegmentId(1),
            next_log_seqno: Seqno::FIRST,
            horizon: Seqno::NONE,
            segments: Vec::new(),
        };
        // So that the first writes, which touch many shards at once, wait for no manifest.
        catalog::list_ahead(&ctx, &mut manifest, 0)?;
        catalog::write(&ctx, &dir, &manifest)?;
    }
    // The shards' names are durable before the file that says how many there are.
    storage.sync_dir(path).at("sync", path)?;
    catalog::replace_file(&ctx, path, names::STORE, &meta.encode())?;
    Ok(meta)
}

/// Why a directory without `STORE` is not opened.
fn no_store(storage: &dyn Storage, path: &Path) -> Error {
    refuse_foreign_directory(storage, path).err().unwrap_or_else(|| Error::NotAStore {
        path: path.to_owned(),
        reason: "the STORE file is missing",
    })
}

/// A directory with things that are not ours is no place for a new store, and one with segments but
/// without `STORE` is a damaged store, not an empty one.
fn refuse_foreign_directory(storage: &dyn Storage, path: &Path) -> Result<()> {
    for entry in storage.list_dir(path).at("list", path)? {
        match StoreName::parse(&entry.name) {
            StoreName::Lock | StoreName::Reserve | StoreName::Temporary => {}
            StoreName::Shard(_) if entry.kind == EntryKind::Dir => {
                let dir = path.join(&entry.name);
                let has_segments = storage.list_dir(&dir).at("list", &dir)?.iter().any(|entry| {
                    matches!(names::FileName::parse(&entry.name), names::FileName::Segment(_))
                });
                if has_segments {
                    let reason = "there are segments but no STORE file: it was lost, or a checkpoint \
                                  was not finished";
                    let reason = reason.to_owned();
                    return Err(Error::Damaged { path: path.to_owned(), reason });
                }
            }
            _ => {
                let reason = "the directory is not empty and holds no store";
                return Err(Error::NotAStore { path: path.to_owned(), reason });
            }
        }
    }
    Ok(())
}

fn context(options: &Builder, meta: &StoreMeta, events: Sender<Event>) -> Context {
    Context {
        storage: Arc::clone(&options.storage),
        path: options.path.clone(),
        uuid: meta.uuid,
        shards: meta.shards,
        hasher: KeyHasher::new(&meta.secret),
        reclaim: Arc::new(Reclaim::new()),
        leaf_memory: Arc::default(),
        poison: Poison::default(),
        targets: Poison::default(),
        config: options.config.clone(),
        events,
    }
}
