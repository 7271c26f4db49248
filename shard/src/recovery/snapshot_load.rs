//! Loading the keydir snapshot.
//!
//! The snapshot covers whole sealed segments, all of them durable and settled. A segment that was
//! merged away since is in the manifest no longer: entries that point into it are left out, for the
//! merge's outputs are newer than the snapshot and bring what still lived in it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use caskade_codec::ids::{SegmentId, Seqno};
use caskade_codec::manifest::Manifest;
use caskade_codec::names;
use caskade_codec::snapshot::Snapshot;

use super::scan::read_file;
use crate::context::Context;
use crate::keydir::{KeydirWriter, LeafByLeaf, Restore};
use crate::location::Location;

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

fn located((hash, location): (u32, u64)) -> Result<(u32, Location), &'static str> {
    let location = Location::from_raw(location).ok_or("a location is zero")?;
    if hash == 0 { Err("a hash is zero") } else { Ok((hash, location)) }
}

impl LoadedKeydir {
    /// Loads the snapshot, if there is one. The error says why one that is there does not serve.
    pub(super) fn read(
        ctx: &Context,
        dir: &Path,
        manifest: &Manifest,
    ) -> Result<Option<Self>, String> {
        let bytes = match read_file(ctx, &dir.join(names::KEYDIR)) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let snapshot = Snapshot::open(&bytes).map_err(|fault| fault.to_string())?;
        let header = snapshot.header();
        if header.uuid != manifest.uuid || header.shard != manifest.shard {
            return Err("it belongs to another store or shard".to_owned());
        }
        if header.seqno > manifest.horizon {
            return Err("it covers records that are not known to be durable".to_owned());
        }
        let mut covered = HashMap::new();
        let mut gone = Vec::new();
        for segment in &header.segments {
            let entry = manifest.segments.iter().find(|entry| entry.id == segment.id);
            let Some(entry) = entry else {
                gone.push(segment.slot);
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
        let is_gone = |location: Location| {
            gone.contains(&location.slot()) && !planted!("snapshot-keeps-merged")
        };
        // Counted, not believed: a merge trusts these numbers. Pages of the table that no slot needs
        // are never taken.
        let slot_max = header.segments.last().map_or(0, |last| last.slot);
        let mut records = vec![0_u32; slot_max as usize + 1];
        let mut leaves = snapshot.leaves().peekable();
        let (mut restore, mut is_table) = (Restore::new(Arc::clone(&ctx.leaf_memory)), true);
        let (mut entries, mut keys) = (Vec::new(), 0);
        while let Some(leaf) = leaves.next() {
            let leaf = leaf.map_err(|fault| fault.to_string())?;
            entries.clear();
            for entry in leaf.entries {
                let (hash, location) = located(entry)?;
                if !is_gone(location) {
                    entries.push((hash, location));
                    records[location.slot() as usize] += 1;
                }
            }
            keys += entries.len() as u64;
            // If the next one is bad, its turn to say so comes.
            let end = leaves.peek().and_then(|next| next.as_ref().ok()).map(|next| next.first_hash);
            is_table = is_table && restore.push(end, &entries);
        }
        let restored = Some(restore).filter(|_| is_table).and_then(|it| it.finish(&ctx.reclaim));
        let keydir = if let Some(keydir) = restored {
            keydir
        } else {
            // Any leaves are right, but those of a table serve as they are.
            let mut all = Vec::with_capacity(keys as usize);
            for entry in snapshot.leaves().flatten().flat_map(|leaf| leaf.entries) {
                let (hash, location) = located(entry)?;
                if !is_gone(location) {
                    all.push((hash, location));
                }
            }
            all.sort_unstable_by_key(|&(hash, _)| hash);
            let mut table = LeafByLeaf::for_entries(Arc::clone(&ctx.leaf_memory), keys);
            for (hash, location) in all {
                table.push(hash, location);
            }
            table.finish(&ctx.reclaim)
        };
        for segment in covered.values_mut() {
            segment.live_records = records[segment.slot as usize].into();
        }
        Ok(Some(Self { keydir, covered, seqno: header.seqno, keys }))
    }
}
