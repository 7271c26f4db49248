//! Linking a shard's files into another directory, where they make a shard of their own.

use std::path::Path;

use caskade_codec::ids::Seqno;
use caskade_codec::manifest::{Manifest, SegmentEntry};
use caskade_codec::names::{self, FileName};

use crate::catalog;
use crate::error::{At, Error, Result};
use crate::recovery::read_file;
use crate::shard::{Shard, Upkeep};
use crate::storage::EntryKind;

/// What was done for one shard.
#[derive(Debug, Clone, Copy, Default)]
pub struct Linked {
    /// Segments that were linked now.
    pub linked: u64,
    /// Segments that were there from an earlier checkpoint.
    pub kept: u64,
    /// Length of all of them.
    pub bytes: u64,
}

impl Shard {
    /// Whether `target` was made for another store.
    pub fn is_anothers(&self, target: &Path) -> bool {
        let owner = self.earlier(target).map(|earlier| (earlier.uuid, earlier.shard));
        owner.is_some_and(|owner| owner != (self.ctx.uuid, self.id))
    }

    /// What an earlier checkpoint left in `target`, if it got that far.
    fn earlier(&self, target: &Path) -> Option<Manifest> {
        let bytes = read_file(&self.ctx, &target.join(names::MANIFEST)).ok()?;
        Manifest::decode(&bytes).ok().map(|(manifest, _)| manifest)
    }

    /// Makes `target` a copy of this shard up to `cut`. The active segment ended at the cut, and
    /// everything up to it is sealed and settled.
    pub fn link_into(&self, target: &Path, cut: Seqno, _upkeep: &Upkeep<'_>) -> Result<Linked> {
        let storage = &*self.ctx.storage;
        storage.ensure_dir(target).at("create the directory", target)?;
        let mut manifest = self.catalog.manifest().clone();
        manifest.segments.retain(|entry| entry.sealed().is_some_and(|s| s.min_seqno <= cut));
        manifest.next_log_seqno = cut.next();
        manifest.horizon = cut;
        let earlier = self.earlier(target).map(|earlier| earlier.segments).unwrap_or_default();
        self.remove_strangers(target, &manifest, &earlier)?;
        let mut linked = Linked::default();
        for entry in &manifest.segments {
            let name = names::segment(entry.id);
            linked.bytes += entry.sealed().map_or(0, |sealed| sealed.len);
            match storage.hard_link(&self.dir.join(&name), &target.join(&name)) {
                Ok(()) => linked.linked += 1,
                Err(fault) if fault.kind() == std::io::ErrorKind::AlreadyExists => linked.kept += 1,
                Err(fault) => return Err(Error::io("link", &target.join(&name), fault)),
            }
            let hint = names::hint(entry.id);
            // Index files only make the copy open faster.
            let _ = storage.hard_link(&self.dir.join(&hint), &target.join(&hint));
        }
        let keydir = target.join(names::KEYDIR);
        storage.ensure_removed(&keydir).at("remove", &keydir)?;
        let _ = storage.hard_link(&self.dir.join(names::KEYDIR), &keydir);
        self.ctx.sync_target(target)?;
        catalog::write_in_target(&self.ctx, target, &manifest)?;
        Ok(linked)
    }

    /// Removes files of an earlier checkpoint that are not in this one, or not the same.
    fn remove_strangers(
        &self,
        target: &Path,
        manifest: &Manifest,
        earlier: &[SegmentEntry],
    ) -> Result<()> {
        let storage = &*self.ctx.storage;
        for entry in storage.list_dir(target).at("list", target)? {
            let keep = match FileName::parse(&entry.name) {
                FileName::Segment(id) | FileName::Hint(id) => {
                    let wanted = manifest.segments.iter().find(|entry| entry.id == id);
                    // The same facts, checksums included, under the same id and salt.
                    wanted.is_some() && wanted == earlier.iter().find(|entry| entry.id == id)
                }
                FileName::Temporary => false,
                FileName::Manifest | FileName::Keydir | FileName::Unknown => true,
            };
            if !keep && entry.kind == EntryKind::File {
                let path = target.join(&entry.name);
                storage.remove(&path).at("remove", &path)?;
            }
        }
        Ok(())
    }
}
