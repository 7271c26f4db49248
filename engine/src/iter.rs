//! Iteration: over a consistent snapshot, and by pages that can be resumed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use caskade_codec::ids::ShardId;
use caskade_shard::location::Location;
use caskade_shard::view::View;
use caskade_shard::write_path::Locked;

use crate::reads::with_value;
use crate::store::Store;
use crate::value::Value;
use crate::{Error, Result};

/// Records whose cache misses overlap.
const AHEAD: usize = 12;

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The key.
    pub key: Box<[u8]>,
    /// The value.
    pub value: Value,
}

/// All keys and values as of one moment, in no order. See [`Db::iter`](crate::Db::iter).
///
/// While it lives, it keeps the segments that it still needs from being freed. An item that cannot
/// be read is an error; the iteration goes on behind it.
pub struct Iter {
    /// The shards that are still to come, the next one last.
    views: Vec<(ShardId, View)>,
    leaf: usize,
    entries: Vec<(u32, Location)>,
    next: usize,
    now_ms: u64,
    len: u64,
}

impl fmt::Debug for Iter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Iter {
    pub(crate) fn new(store: &Store) -> Result<Self> {
        store.check_open()?;
        // All writers at once, so that a batch is in every shard's view or in none.
        let mut locked: Vec<Locked<'_>> =
            store.shards.iter().map(caskade_shard::shard::Shard::lock_even_closed).collect();
        let views: Vec<_> = locked
            .iter_mut()
            .zip(&store.shards)
            .map(|(locked, shard)| (shard.id, locked.view()))
            .rev()
            .collect();
        drop(locked);
        let len = views.iter().map(|(_, view)| view.len()).sum();
        let now_ms = store.now_ms();
        Ok(Self { views, leaf: 0, entries: Vec::new(), next: 0, now_ms, len })
    }

    /// Number of keys in the snapshot, expired ones that were not cleaned up included.
    #[must_use]
    pub fn keys_total(&self) -> u64 {
        self.len
    }

    /// Calls `visit` with every key and value, without copying them, until it answers `false`.
    ///
    /// # Errors
    ///
    /// As [any read](crate#errors): a damaged record ends it.
    pub fn visit(mut self, mut visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        while let Some(location) = self.next_location() {
            let (_, view) = self.views.last().expect("a location comes from a view");
            let found = view.record(location)?;
            if found.frame.is_expired(|| self.now_ms) {
                continue;
            }
            let go_on = with_value(&found, |value| visit(found.frame.key(), value))?;
            if !go_on {
                break;
            }
        }
        Ok(())
    }

    /// The next record's place, in the last view.
    fn next_location(&mut self) -> Option<Location> {
        while self.next == self.entries.len() {
            self.entries.clear();
            self.next = 0;
            let (_, view) = self.views.last()?;
            if self.leaf == 0 {
                view.will_need();
            }
            if self.leaf == view.leaves() {
                // Gives back what the shard kept for this iterator.
                self.views.pop();
                self.leaf = 0;
            } else {
                view.leaf(self.leaf, &mut self.entries);
                self.leaf += 1;
                for (_, location) in self.entries.iter().take(AHEAD) {
                    view.prefetch(*location);
                }
            }
        }
        let (_, view) = self.views.last()?;
        if let Some((_, ahead)) = self.entries.get(self.next + AHEAD) {
            view.prefetch(*ahead);
        }
        let (_, location) = self.entries[self.next];
        self.next += 1;
        Some(location)
    }

    fn next_entry(&mut self, wants_value: bool) -> Option<Result<Entry>> {
        loop {
            let location = self.next_location()?;
            let (shard, view) = self.views.last().expect("a location comes from a view");
            let found = match view.record(location) {
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            if found.frame.is_expired(|| self.now_ms) {
                continue;
            }
            let value = if wants_value {
                Value::new(found, *shard, |_| Arc::clone(view.segment(location)))
            } else {
                Ok(Value::empty(&found, *shard))
            };
            return Some(value.map(|value| Entry { key: found.frame.key().into(), value }));
        }
    }
}

impl Iterator for Iter {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry(true)
    }
}

/// All keys as of one moment, in no order. See [`Db::keys`](crate::Db::keys).
#[derive(Debug)]
pub struct Keys {
    iter: Iter,
}

impl Keys {
    pub(crate) fn new(iter: Iter) -> Self {
        Self { iter }
    }
}

impl Iterator for Keys {
    type Item = Result<Box<[u8]>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.iter.next_entry(false).map(|entry| entry.map(|entry| entry.key))
    }
}

/// Where a scan goes on. Valid for the store's whole life, also after reopening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScanCursor {
    shard: u16,
    hash: u32,
}

impl ScanCursor {
    /// The beginning.
    #[must_use]
    pub fn start() -> Self {
        Self { shard: 0, hash: 0 }
    }

    /// As a plain number, to keep elsewhere.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        u64::from(self.shard) << 32 | u64::from(self.hash)
    }

    /// Back from [`ScanCursor::to_u64`].
    #[must_use]
    pub fn from_u64(raw: u64) -> Self {
        Self { shard: (raw >> 32) as u16, hash: raw as u32 }
    }
}

impl fmt::Display for ScanCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_u64().fmt(f)
    }
}

impl FromStr for ScanCursor {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        text.parse().map(Self::from_u64)
    }
}

/// What one step of a scan found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScanPage {
    /// Keys and values.
    pub entries: Vec<Entry>,
    /// Where to go on; None at the end.
    pub next: Option<ScanCursor>,
}

/// Reads about `count` records from `cursor` on, in the order of their hashes. `damaged` says
/// whether one that cannot be read ends it.
pub(crate) fn scan(
    store: &Store,
    cursor: ScanCursor,
    count: usize,
    mut damaged: impl FnMut(Error) -> Result<()>,
) -> Result<ScanPage> {
    store.check_open()?;
    let count = count.max(1);
    let now_ms = store.now_ms();
    let mut entries = Vec::new();
    let mut at = cursor;
    while let Some(shard) = store.shards.get(usize::from(at.shard)) {
        let guard = store.ctx.reclaim.enter();
        let mut places = Vec::new();
        let next_leaf = shard.visit_leaf(&guard, at.hash, &mut |hash, location| {
            places.push((hash, location));
        });
        places.sort_unstable_by_key(|(hash, _)| *hash);
        let mut previous = None;
        for (hash, location) in places {
            // Records with equal hashes are never torn apart: the cursor could not tell them.
            if entries.len() >= count && previous != Some(hash) {
                return Ok(ScanPage { entries, next: Some(ScanCursor { hash, ..at }) });
            }
            previous = Some(hash);
            let entry = shard.record_at(&guard, location).and_then(|found| {
                if found.frame.is_expired(|| now_ms) {
                    return Ok(None);
                }
                let value =
                    Value::new(found, shard.id, |found| shard.share_segment(&found, &guard))?;
                Ok(Some(Entry { key: found.frame.key().into(), value }))
            });
            match entry {
                Ok(entry) => entries.extend(entry),
                Err(error @ Error::Corrupt { .. }) => damaged(error)?,
                Err(error) => return Err(error),
            }
        }
        at = match next_leaf {
            Some(hash) => ScanCursor { hash, ..at },
            None => ScanCursor { shard: at.shard + 1, hash: 0 },
        };
        if entries.len() >= count && usize::from(at.shard) < store.shards.len() {
            return Ok(ScanPage { entries, next: Some(at) });
        }
    }
    Ok(ScanPage { entries, next: None })
}

impl From<ScanCursor> for u64 {
    fn from(cursor: ScanCursor) -> Self {
        cursor.to_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_text_and_numbers() {
        let cursor = ScanCursor { shard: 255, hash: u32::MAX };
        assert_eq!(ScanCursor::from_u64(cursor.to_u64()), cursor);
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert!("x".parse::<ScanCursor>().is_err());
    }
}
