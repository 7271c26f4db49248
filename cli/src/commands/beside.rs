//! A store that is written beside another one, and takes its place once it is whole.
//!
//! Until the exchange, which is one step of the file system, the old store stays where it is and as
//! it is. A killed command leaves a folder beside it, never half a store in its place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use caskade::{Db, Error, WriteOptions};
use caskade_codec::names::{self, FileName, StoreName};
use caskade_shard::storage::{LockFault, LockGuard, RealStorage, Storage};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::fault::{Fault, Outcome};
use crate::term::Progress;

/// A folder that is removed again unless it is kept.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) path: PathBuf,
    is_kept: bool,
}

impl Draft {
    /// Names a folder that does not exist yet.
    pub(super) fn new(path: PathBuf) -> Outcome<Self> {
        refuse_existing(&path)?;
        Ok(Self { path, is_kept: false })
    }

    /// Takes over a folder that is there.
    pub(super) fn existing(path: PathBuf) -> Self {
        Self { path, is_kept: true }
    }

    /// Leaves the folder under its own name, durably.
    pub(super) fn keep(mut self) -> Outcome {
        self.is_kept = true;
        sync_parent(&self.path)
    }

    /// Gives the folder its final name, durably.
    pub(super) fn rename(mut self, to: &Path) -> Outcome {
        refuse_existing(to)?;
        sync_dir(&self.path)?;
        fs::rename(&self.path, to).map_err(|source| Fault::system("rename to", to, source))?;
        self.is_kept = true;
        sync_parent(to)
    }

    /// Puts the folder in the place of `store`. Answers where the old store is now.
    pub(super) fn exchange(mut self, store: &Path) -> Outcome<PathBuf> {
        sync_dir(&self.path)?;
        sync_parent(store)?;
        let swapped = renameat_with(CWD, &self.path, CWD, store, RenameFlags::EXCHANGE);
        self.is_kept = true;
        if let Err(errno) = swapped {
            return Err(Fault::System {
                action: format!(
                    "exchange {} with {} in one step (the new store is whole; the old one stands \
                     where it stood)",
                    store.display(),
                    self.path.display()
                ),
                source: errno.into(),
            });
        }
        sync_parent(store)?;
        Ok(self.path.clone())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_kept && self.path.exists() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The store's real path with something behind its name.
pub(super) fn sibling(store: &Path, suffix: &str) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The path of a store without symbolic links: what is exchanged is the folder itself.
pub(super) fn real_path(store: &Path) -> Outcome<PathBuf> {
    store.canonicalize().map_err(|source| Fault::system("find", store, source))
}

pub(super) fn refuse_existing(path: &Path) -> Outcome {
    if path.symlink_metadata().is_ok() {
        return Err(Fault::Usage(format!(
            "{} exists; nothing is written over it: name another folder, or move it away",
            path.display()
        )));
    }
    Ok(())
}

/// Refuses a new folder that would lie in a store, where it would be taken for part of it.
pub(super) fn refuse_inside(store: &Path, target: &Path) -> Outcome {
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // What does not exist is somebody else's message.
    let (Ok(store_path), Ok(parent)) = (store.canonicalize(), parent.canonicalize()) else {
        return Ok(());
    };
    if parent.starts_with(store_path) {
        return Err(Fault::Usage(format!(
            "{} lies inside {}; name a folder beside it",
            target.display(),
            store.display()
        )));
    }
    Ok(())
}

/// Refuses a store whose folder holds files of others, which would be removed with it.
pub(super) fn refuse_foreign_files(store: &Path) -> Outcome {
    for path in list(store)? {
        let foreign = match StoreName::parse(path.file_name().unwrap_or_default()) {
            StoreName::Unknown => Some(path),
            StoreName::Shard(_) => list(&path)?.into_iter().find(|file| {
                FileName::parse(file.file_name().unwrap_or_default()) == FileName::Unknown
            }),
            _ => None,
        };
        if let Some(foreign) = foreign {
            return Err(Fault::Usage(format!(
                "{} is no file of the store, and would be removed with the old store; move it away, \
                 or keep the old store with --keep-old",
                foreign.display()
            )));
        }
    }
    Ok(())
}

/// The entries of a folder, by their paths.
pub(super) fn list(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|source| Fault::system("list", dir, source))?;
    Ok(entries.into_iter().map(|entry| entry.path()).collect())
}

/// Keeps writers away from a store while it is held.
pub(super) fn lock(store: &Path) -> Outcome<Box<dyn LockGuard>> {
    let file = store.join(names::LOCK);
    RealStorage::new().lock(&file).map_err(|fault| match fault {
        LockFault::Held { pid } => Error::Locked { path: store.to_owned(), pid }.into(),
        LockFault::Io(source) => Fault::system("lock", &file, source),
    })
}

/// Removes what an earlier run left, if it is nothing but files of a store.
pub(super) fn remove_leftover(path: &Path) -> Outcome {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    for entry in list(path)? {
        if StoreName::parse(entry.file_name().unwrap_or_default()) == StoreName::Unknown {
            return Err(Fault::Usage(format!(
                "{} is in the way and holds other files; move it away",
                path.display()
            )));
        }
    }
    let held = lock(path)?;
    note!("removing {}, left by an interrupted run", path.display());
    fs::remove_dir_all(path).map_err(|source| Fault::system("remove", path, source))?;
    drop(held);
    Ok(())
}

/// How many keys were copied.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Copied {
    pub(super) keys: u64,
    /// Of them, those that expire.
    pub(super) expiring: u64,
}

/// Puts every key that can be read into another store, with its expiry. `damaged` hears of those
/// that cannot.
pub(super) fn copy_records(
    from: &Db,
    to: &Db,
    label: &str,
    mut damaged: impl FnMut(Error) -> Outcome,
) -> Outcome<Copied> {
    let progress = Progress::new(label);
    let entries = from.iter()?;
    let total = entries.keys_total();
    let mut copied = Copied::default();
    for (done, entry) in (0..).zip(entries) {
        progress.step(done, total)?;
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                damaged(error)?;
                continue;
            }
        };
        let options = match entry.value.expires_at_unix_ms() {
            Some(at) => {
                copied.expiring += 1;
                WriteOptions::new().expires_at_unix_ms(at)
            }
            None => WriteOptions::new(),
        };
        to.put_with(&entry.key, &entry.value, options)?;
        copied.keys += 1;
    }
    Ok(copied)
}

pub(super) fn sync_dir(path: &Path) -> Outcome {
    let synced = fs::File::open(path).and_then(|dir| dir.sync_all());
    synced.map_err(|source| Fault::system("sync", path, source))
}

pub(super) fn sync_parent(path: &Path) -> Outcome {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}
