//! Loading the keydir snapshot.
//!
//! The snapshot covers whole sealed segments, all of them durable and settled. A segment that was
//! merged away since is in the manifest no longer: entries that point into it are left out, for the
//! merge's outputs are newer than the snapshot and bring what still lived in it.
//!
//! All of it is read and checked, but a leaf of the keydir is made only when somebody looks into it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use caskade_codec::ids::{SegmentId, Seqno};
use caskade_codec::manifest::Manifest;
use caskade_codec::names;
use caskade_codec::snapshot::{Leaf, Snapshot};

use crate::context::Context;
use crate::error::{At, Result};
use crate::keydir::{KeydirWriter, LeafByLeaf, Restore, Source};
use crate::location::Location;
use crate::storage::Access;
use crate::storage::pages::Buffer;

/// A keydir filled from the snapshot.
#[derive(Debug)]
pub(super) struct LoadedKeydir {
    pub(super) keydir: KeydirWriter,
    /// The segments that the snapshot covers and that still exist.
    pub(super) covered: HashMap<SegmentId, Covered>,
    /// The last record that it takes into account.
    pub(super) seqno: Seqno,
    pub(super) keys: u64,
}

/// What the snapshot says of a segment, and how many of its entries point there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Covered {
    pub(super) slot: u32,
    pub(super) live_bytes: u64,
    pub(super) live_records: u64,
}

/// A snapshot, all of which was checked.
struct Checked {
    file: Buffer,
    leaves: Vec<Leaf>,
    /// By slot: whether its segment is gone, and with it the entries that point there.
    are_gone: Vec<bool>,
}

impl Checked {
    /// How many entries are left in a leaf; counts them for their segments.
    fn count(&self, leaf: &Leaf, records: &mut [u32]) -> u32 {
        let mut left = 0;
        leaf.for_each_slot(&self.file, |slot| {
            let slot = slot as usize;
            if !self.are_gone[slot] {
                records[slot] += 1;
                left += 1;
            }
        });
        left
    }

    fn entries(&self, leaf: &Leaf) -> impl Iterator<Item = (u32, Location)> {
        leaf.entries(&self.file).into_iter().filter_map(|(hash, location)| {
            let location = Location::from_raw(location)?;
            (!self.are_gone[location.slot() as usize]).then_some((hash, location))
        })
    }

    /// The table, whose leaves are made when somebody looks into them. These must be leaves of a table,
    /// and have as many entries as `counts` says.
    fn defer(self: &Arc<Self>, ctx: &Context, counts: &[u32]) -> Option<KeydirWriter> {
        let source: Arc<dyn Source> = Arc::clone(self) as _;
        let mut restore = Restore::new(Arc::clone(&ctx.leaf_memory));
        let ends = self.leaves.iter().skip(1).map(|next| Some(next.first_hash)).chain([None]);
        for ((index, &count), end) in (0..).zip(counts).zip(ends) {
            if !restore.defer(end, &source, index, count) {
                return None;
            }
        }
        restore.finish(&ctx.reclaim)
    }

    /// A table of the entries, however they are divided into leaves.
    fn divide_anew(&self, ctx: &Context, keys: u64) -> KeydirWriter {
        let mut table = LeafByLeaf::for_entries(Arc::clone(&ctx.leaf_memory), keys);
        for leaf in &self.leaves {
            let mut entries: Vec<_> = self.entries(leaf).collect();
            entries.sort_unstable_by_key(|&(hash, _)| hash);
            for (hash, location) in entries {
                table.push(hash, location);
            }
        }
        table.finish(&ctx.reclaim)
    }
}

impl Source for Checked {
    fn entries(&self, leaf: u32) -> Vec<(u32, Location)> {
        self.entries(&self.leaves[leaf as usize]).collect()
    }
}

/// Reads the file.
fn read(ctx: &Context, path: &Path) -> Result<Buffer> {
    let file = ctx.storage.open(path, Access::Read).at("open", path)?;
    let len = usize::try_from(file.len().at("measure", path)?).unwrap_or(usize::MAX);
    let mut bytes = Buffer::zeroed(len).at("read", path)?;
    file.read_exact_at(&mut bytes, 0).at("read", path)?;
    Ok(bytes)
}

impl LoadedKeydir {
    /// Loads the snapshot, if there is one. The error says why one that is there does not serve.
    pub(super) fn read(
        ctx: &Context,
        dir: &Path,
        manifest: &Manifest,
    ) -> std::result::Result<Option<Self>, String> {
        let file = match read(ctx, &dir.join(names::KEYDIR)) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let snapshot = Snapshot::open(&file).map_err(|fault| fault.to_string())?;
        let header = snapshot.header();
        if header.uuid != manifest.uuid || header.shard != manifest.shard {
            return Err("it belongs to another store or shard".to_owned());
        }
        if header.seqno > manifest.horizon {
            return Err("it covers records that are not known to be durable".to_owned());
        }
        let slots = header.segments.last().map_or(0, |last| last.slot) as usize + 1;
        let mut covered = HashMap::new();
        let mut are_gone = vec![false; slots];
        for segment in &header.segments {
            let entry = manifest.segments.iter().find(|entry| entry.id == segment.id);
            let Some(entry) = entry else {
                are_gone[segment.slot as usize] = !planted!("snapshot-keeps-merged");
                continue;
            };
            let sealed = entry
                .sealed()
                .filter(|sealed| sealed.len == segment.len && sealed.max_seqno <= header.seqno);
            if sealed.is_none() {
                return Err(format!("segment {} is not as it was covered", segment.id));
            }
            let (slot, live_bytes) = (segment.slot, segment.live_bytes.min(segment.len));
            let here = Covered { slot, live_bytes, live_records: 0 };
            if covered.insert(segment.id, here).is_some() {
                return Err(format!("segment {} stands there twice", segment.id));
            }
        }
        let leaves = snapshot.leaves().collect::<std::result::Result<_, _>>();
        let (leaves, seqno) = (leaves.map_err(|fault| fault.to_string())?, header.seqno);
        let checked = Arc::new(Checked { file, leaves, are_gone });
        // Counted, not believed: a merge trusts these numbers. Pages of the table that no slot needs
        // are never taken.
        let mut records = vec![0_u32; slots];
        let counts: Vec<_> =
            checked.leaves.iter().map(|leaf| checked.count(leaf, &mut records)).collect();
        let keys = counts.iter().copied().map(u64::from).sum();
        // Any leaves are right, but those of a table serve as they are.
        let keydir = checked.defer(ctx, &counts).unwrap_or_else(|| checked.divide_anew(ctx, keys));
        for segment in covered.values_mut() {
            segment.live_records = records[segment.slot as usize].into();
        }
        Ok(Some(Self { keydir, covered, seqno, keys }))
    }
}
