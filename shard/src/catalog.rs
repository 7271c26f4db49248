//! The shard's manifest: which segments exist. Changed only by replacing the file whole.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use caskade_codec::ids::{SegmentId, Seqno};
use caskade_codec::manifest::{Manifest, SegmentEntry, State};
use caskade_codec::names;
use caskade_codec::segment::Role;

use crate::context::{Context, Poison};
use crate::error::{Error, Result};
use crate::storage;

/// How many segment ids are listed ahead of use, so that a rotation need not wait for a manifest.
pub(crate) const OPEN_AHEAD: usize = 16;

/// The manifest in memory, equal to the one on disk but for the next id, which runs ahead.
#[derive(Debug)]
pub struct Catalog {
    dir: PathBuf,
    manifest: Mutex<Manifest>,
}

impl Catalog {
    /// Takes over a manifest that is on disk.
    pub fn new(dir: PathBuf, manifest: Manifest) -> Self {
        Self { dir, manifest: Mutex::new(manifest) }
    }

    /// The manifest as it stands.
    pub fn manifest(&self) -> MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next segment id. Should the process end before the manifest is published, the
    /// file of that id is removed by the next open, and the id is free again.
    pub fn take_id(&self) -> SegmentId {
        let mut manifest = self.manifest();
        let id = manifest.next_segment;
        manifest.next_segment = SegmentId(id.0 + 1);
        id
    }

    /// Replaces the manifest by an edited one, durably. On failure, of the edit too, the old one
    /// stays.
    pub fn publish<T>(
        &self,
        ctx: &Context,
        edit: impl FnOnce(&mut Manifest) -> Result<T>,
    ) -> Result<T> {
        let mut current = self.manifest();
        let mut next = current.clone();
        let answer = edit(&mut next)?;
        next.generation += 1;
        write(ctx, &self.dir, &next)?;
        // Another thread's sync of the directory may have failed meanwhile, and lost the new name.
        ctx.poison.check()?;
        *current = next;
        Ok(answer)
    }
}

/// Writes a manifest, durably.
pub fn write(ctx: &Context, dir: &Path, manifest: &Manifest) -> Result<()> {
    ctx.poison.check()?;
    replace_file(ctx, dir, names::MANIFEST, &manifest.encode())
}

/// Writes the manifest of a checkpoint.
pub fn write_in_target(ctx: &Context, dir: &Path, manifest: &Manifest) -> Result<()> {
    replace_in_target(ctx, dir, names::MANIFEST, &manifest.encode())
}

/// Replaces a file of a checkpoint. A failed sync ends checkpoints.
pub fn replace_in_target(ctx: &Context, dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    replace_or(&ctx.targets, ctx, dir, name, bytes)
}

/// Replaces a file of the store. A failed sync poisons the store.
pub fn replace_file(ctx: &Context, dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    replace_or(&ctx.poison, ctx, dir, name, bytes)
}

fn replace_or(poison: &Poison, ctx: &Context, dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    storage::replace(&*ctx.storage, dir, name, bytes).map_err(|fault| {
        let path = dir.join(name);
        if fault.is_sync() {
            poison.latch(format_args!("fsync while replacing {}: {fault}", path.display()))
        } else {
            Error::io("replace", &path, fault.source)
        }
    })
}

/// Lists further segment ids ahead of their use, and answers the new ones with their salts.
pub fn list_ahead(
    ctx: &Context,
    manifest: &mut Manifest,
    unused: usize,
) -> Result<Vec<(SegmentId, u32)>> {
    let mut listed = Vec::new();
    for _ in unused..OPEN_AHEAD {
        let (id, salt) = (manifest.next_segment, ctx.salt()?);
        manifest.next_segment = SegmentId(id.0 + 1);
        manifest.segments.push(SegmentEntry { id, role: Role::Log, salt, state: State::Open });
        listed.push((id, salt));
    }
    Ok(listed)
}

/// Sets the horizon, which never goes back.
pub fn raise_horizon(manifest: &mut Manifest, horizon: Seqno) {
    manifest.horizon = manifest.horizon.max(horizon);
}
