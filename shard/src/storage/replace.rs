//! Replacing a small file whole, so that a crash leaves the old contents or the new ones.

use std::io;
use std::path::Path;

use caskade_codec::names;

use super::Storage;

/// The steps of a replacement, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReplaceStep {
    /// Opening the directory.
    OpenDir,
    /// Creating the temporary file.
    Create,
    /// Writing it.
    Write,
    /// Syncing it.
    Sync,
    /// Renaming it over the target.
    Rename,
    /// Syncing the directory.
    SyncDir,
}

/// A replacement failed.
#[derive(Debug, thiserror::Error)]
#[error("{step:?}: {source}")]
pub struct ReplaceFault {
    /// The step that failed.
    pub step: ReplaceStep,
    /// Why.
    pub source: io::Error,
}

impl ReplaceFault {
    /// Whether a sync failed, of the file or of the directory. After the latter the target shows its new
    /// contents, and which of the two a power cut leaves is unknown; after any other step it has the old ones.
    #[must_use]
    pub fn is_sync(&self) -> bool {
        matches!(self.step, ReplaceStep::Sync | ReplaceStep::SyncDir)
    }
}

impl From<ReplaceFault> for io::Error {
    fn from(fault: ReplaceFault) -> io::Error {
        fault.source
    }
}

/// Makes `bytes` the contents of the file `name` in `dir`, durably and in one step.
///
/// The file is created or replaced. After a crash at any moment it holds the old contents (or is
/// still missing) or the new ones; after `Ok`, the new ones.
pub fn replace(
    storage: &dyn Storage,
    dir: &Path,
    name: &str,
    bytes: &[u8],
) -> Result<(), ReplaceFault> {
    // First, for want of a handle must not come between the rename and the sync.
    let parent = storage.open_dir(dir).map_err(at(ReplaceStep::OpenDir))?;
    replace_without_dir_sync(storage, dir, name, bytes)?;
    if planted!("rename-unsynced") {
        return Ok(());
    }
    parent.sync().map_err(at(ReplaceStep::SyncDir))
}

/// As [`replace`], but a power cut after `Ok` may still bring the old contents back, until the
/// caller has synced the directory. It never shows anything but the one or the other.
pub fn replace_without_dir_sync(
    storage: &dyn Storage,
    dir: &Path,
    name: &str,
    bytes: &[u8],
) -> Result<(), ReplaceFault> {
    let target = dir.join(name);
    let temporary = dir.join(names::temporary(name));
    let written = write_temporary(storage, &temporary, bytes)
        .and_then(|()| storage.rename(&temporary, &target).map_err(at(ReplaceStep::Rename)));
    if written.is_err() {
        // Recovery would remove it too; here it only gives its space back sooner.
        let _ = storage.remove(&temporary);
    }
    written
}

/// Leaves `bytes` durable in the file `path`, whose name is not durable yet.
fn write_temporary(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> Result<(), ReplaceFault> {
    let file = match storage.create(path) {
        // An earlier life left it behind, unfinished.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            storage.remove(path).and_then(|()| storage.create(path))
        }
        answer => answer,
    }
    .map_err(at(ReplaceStep::Create))?;
    file.write_all_at(bytes, 0).map_err(at(ReplaceStep::Write))?;
    if planted!("contents-unsynced") {
        return Ok(());
    }
    // Synced before the rename, or the target's name may stand for bytes that never arrived.
    file.sync_data().map_err(at(ReplaceStep::Sync))
}

fn at(step: ReplaceStep) -> impl Fn(io::Error) -> ReplaceFault {
    move |source| ReplaceFault { step, source }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rustix::io::Errno;

    use super::super::sim::{CrashEffect, Exhaustive, Repeat, SimDisk};
    use super::*;

    const OLD: &[u8] = b"old";

    type Replace = fn(&dyn Storage, &Path, &str, &[u8]) -> Result<(), ReplaceFault>;

    fn disk() -> SimDisk {
        let disk = SimDisk::new(1);
        disk.write_file("/META", OLD).unwrap();
        disk
    }

    /// What META may hold after a power cut now.
    fn outcomes(disk: &SimDisk) -> BTreeSet<Vec<u8>> {
        let mut all = Exhaustive::new();
        let mut seen = BTreeSet::new();
        while all.next_run() {
            let fork = disk.fork();
            fork.power_cut_with(&mut all);
            seen.insert(fork.read_file("/META").expect("META is always there"));
        }
        seen
    }

    #[test]
    fn a_crash_in_any_call_leaves_the_old_or_the_new_contents() {
        let new = vec![7; 1500];
        for run in [replace as Replace, replace_without_dir_sync] {
            for effect in [CrashEffect::Nothing, CrashEffect::Whole] {
                for call in 1.. {
                    let disk = disk();
                    disk.faults().crash_at_call(call, effect);
                    let done = run(&*disk.storage(), Path::new("/"), "META", &new).is_ok();
                    let seen = outcomes(&disk);
                    assert!(seen.iter().all(|bytes| *bytes == OLD || *bytes == new), "{seen:?}");
                    if done {
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn the_directory_sync_is_what_makes_it_durable() {
        let (first, second) = (disk(), disk());
        replace(&*first.storage(), Path::new("/"), "META", b"new").unwrap();
        replace_without_dir_sync(&*second.storage(), Path::new("/"), "META", b"new").unwrap();
        assert_eq!(outcomes(&first), BTreeSet::from([b"new".to_vec()]));
        assert_eq!(outcomes(&second), BTreeSet::from([OLD.to_vec(), b"new".to_vec()]));
    }

    #[test]
    fn a_failure_says_what_became_of_the_target_and_leaves_no_rubbish() {
        use ReplaceStep::{Create, OpenDir, Rename, Sync, SyncDir, Write};
        let steps = [OpenDir, Create, Write, Sync, Rename, SyncDir];
        for (call, step) in steps.into_iter().enumerate() {
            let disk = disk();
            disk.faults().fail_call(call as u64 + 1, Repeat::Once, Errno::IO.raw_os_error());
            let fault = replace(&*disk.storage(), Path::new("/"), "META", b"new").unwrap_err();
            assert_eq!(fault.step, step);
            assert_eq!(fault.is_sync(), matches!(step, Sync | SyncDir));
            assert!(!disk.exists("/META.tmp"));
            let unchanged = disk.read_file("/META").unwrap() == OLD;
            assert_eq!(step < SyncDir, unchanged);
        }
    }
}
