//! Replacing a small file whole, so that a crash leaves the old contents or the new ones.

use std::io;
use std::path::Path;

use super::Storage;

/// Ends the name under which a replacement is written before it takes its place.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// The steps of a replacement, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReplaceStep {
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
    /// Whether the target surely has its old contents. After a failed directory sync it shows the
    /// new ones, and which of the two a power cut leaves is unknown.
    #[must_use]
    pub fn target_is_unchanged(&self) -> bool {
        self.step < ReplaceStep::SyncDir
    }

    /// Whether a sync failed, of the file or of the directory.
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
    replace_without_dir_sync(storage, dir, name, bytes)?;
    storage.sync_dir(dir).map_err(at(ReplaceStep::SyncDir))
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
    let temporary = dir.join(format!("{name}{TEMPORARY_SUFFIX}"));
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
    // Synced before the rename, or the target's name may stand for bytes that never arrived.
    file.sync_data().map_err(at(ReplaceStep::Sync))
}

fn at(step: ReplaceStep) -> impl Fn(io::Error) -> ReplaceFault {
    move |source| ReplaceFault { step, source }
}
