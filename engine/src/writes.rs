//! Writes that go through whatever is there: puts, deletes, batches.

use caskade_codec::ids::{Seqno, ShardId};
use caskade_codec::record::{FRAME_LEN_MIN, Flags, KEY_LEN_MAX, VALUE_LEN_MAX};
use caskade_shard::planted;
use caskade_shard::shard::Shard;
use caskade_shard::shard_set::ShardSet;
use caskade_shard::write_path::{BatchName, Change, Locked, Old, Op, Staged};

use crate::batch::Batch;
use crate::compress;
use crate::options::{Durability, ExpiryAt, WriteOptions};
use crate::store::Store;
use crate::version::Version;
use crate::{Error, Result};

/// A value on its way to disk.
pub(crate) struct Stored<'a> {
    pub(crate) value: std::borrow::Cow<'a, [u8]>,
    pub(crate) flags: Flags,
    pub(crate) expiry: Option<u64>,
}

impl Stored<'_> {
    #[inline]
    pub(crate) fn change(&self) -> Change<'_> {
        Change::Put { value: &self.value, flags: self.flags, expiry: self.expiry }
    }
}

#[inline]
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.len() <= KEY_LEN_MAX {
        return Ok(());
    }
    Err(Error::KeyTooLarge { len: key.len(), limit: KEY_LEN_MAX })
}

/// About how much a record takes of the log, for the brake.
#[inline]
pub(crate) fn weight(key: &[u8], value: &[u8]) -> u64 {
    (FRAME_LEN_MIN + key.len() + value.len()) as u64
}

impl Store {
    /// Checks a value, compresses it if that pays, and settles its expiry.
    #[inline]
    pub(crate) fn stored<'a>(
        &self,
        value: &'a [u8],
        expiry: Option<ExpiryAt>,
    ) -> Result<Stored<'a>> {
        if value.len() > VALUE_LEN_MAX {
            return Err(Error::ValueTooLarge { len: value.len(), limit: VALUE_LEN_MAX });
        }
        let expiry = expiry.map(|at| self.expiry_at(at));
        let (flags, value) = match compress::compress(self.options.compression, value) {
            Some((flags, packed)) => (flags, packed.into()),
            None => (Flags::NONE, value.into()),
        };
        Ok(Stored { value, flags, expiry })
    }

    /// On the wall clock, in milliseconds since 1970.
    #[inline]
    pub(crate) fn expiry_at(&self, at: ExpiryAt) -> u64 {
        match at {
            ExpiryAt::In(ttl) => {
                let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                self.now_ms().saturating_add(ttl)
            }
            ExpiryAt::UnixMillis(at) => at,
        }
    }

    /// As [`Store::stored`], for bytes that were made on the way.
    pub(crate) fn stored_owned(
        &self,
        value: Vec<u8>,
        expiry: Option<ExpiryAt>,
    ) -> Result<Stored<'static>> {
        let Stored { value: packed, flags, expiry } = self.stored(&value, expiry)?;
        let packed = match packed {
            std::borrow::Cow::Owned(packed) => Some(packed),
            std::borrow::Cow::Borrowed(_) => None,
        };
        Ok(Stored { value: packed.unwrap_or(value).into(), flags, expiry })
    }

    /// Puts a value, whatever was there.
    #[inline]
    pub(crate) fn put(&self, key: &[u8], value: &[u8], options: WriteOptions) -> Result<Version> {
        self.check_writable()?;
        self.check_space()?;
        check_key(key)?;
        let stored = self.stored(value, options.expiry)?;
        let (hash, shard) = self.route(key);
        let op = Op { hash, key, change: stored.change() };
        // What the lookup reads is on its way while the lock is taken and the record is written.
        shard.prefetch_writer();
        shard.prefetch_slot(&self.ctx.reclaim.enter(), hash);
        let seqno = shard.lock()?.apply(&op)?;
        self.acknowledge(&[(shard.id, seqno)], options.durability, weight(key, value))?;
        Ok(Version::new(shard.id, seqno))
    }

    /// Deletes a key. Answers whether it was there.
    pub(crate) fn delete(&self, key: &[u8], durability: Option<Durability>) -> Result<bool> {
        self.check_writable()?;
        check_key(key)?;
        let (hash, shard) = self.route(key);
        let op = Op { hash, key, change: Change::Delete };
        let (applied, was_there) = self.with_reserve(|| {
            let mut was_there = false;
            let applied = shard.lock()?.apply_if(&op, |old| {
                // An expired record is not there; its tombstone saves the next reader the look.
                was_there = match old {
                    Old::Absent => return Ok(false),
                    Old::Record(found) => !found.frame.is_expired(|| self.now_ms()),
                    Old::Damaged(..) => true,
                };
                Ok(true)
            })?;
            Ok((applied, was_there))
        })?;
        match applied {
            Some(seqno) => self.acknowledge(&[(shard.id, seqno)], durability, weight(key, b""))?,
            None => self.acknowledge_what_is(shard, durability)?,
        }
        Ok(was_there)
    }

    /// What a write's durability asks for where there was nothing to write: what it found may not be
    /// durable yet, and whoever repeats a write relies on the answer.
    pub(crate) fn acknowledge_what_is(
        &self,
        shard: &Shard,
        durability: Option<Durability>,
    ) -> Result<()> {
        let is_sync = durability.unwrap_or(self.options.durability) == Durability::Sync;
        if is_sync && !planted!("absence-not-durable") {
            self.committer.wait(&self.shards, &[(shard.id, shard.last_seqno())])?;
        }
        Ok(())
    }

    /// Writes a batch. Answers the version of its last record in its lowest shard.
    pub(crate) fn write(
        &self,
        batch: &Batch,
        durability: Option<Durability>,
    ) -> Result<Option<Version>> {
        self.check_writable()?;
        let only_deletes = batch.changes().all(|change| change.value.is_none());
        if !only_deletes {
            self.check_space()?;
        }
        let mut changes = Vec::with_capacity(batch.len());
        let mut bytes = 0;
        for change in batch.changes() {
            check_key(change.key)?;
            let value = change.value.map(|value| self.stored(value, change.expiry)).transpose()?;
            let (hash, shard) = self.route(change.key);
            bytes += (change.key.len() + change.value.map_or(0, <[u8]>::len)) as u64;
            changes.push((shard.id, hash, change.key, value));
        }
        // Stable: changes to one key stay in their order.
        changes.sort_by_key(|change| change.0);
        let parts: Vec<(ShardId, Vec<Op<'_>>)> = changes
            .chunk_by(|a, b| a.0 == b.0)
            .map(|part| {
                let ops = part.iter().map(|(_, hash, key, value)| Op {
                    hash: *hash,
                    key,
                    change: value.as_ref().map_or(Change::Delete, Stored::change),
                });
                (part[0].0, ops.collect())
            })
            .collect();
        let Some((coordinator, _)) = parts.first() else { return Ok(None) };
        let append = || self.append_batch(*coordinator, &parts);
        let written = if only_deletes { self.with_reserve(append) } else { append() }?;
        self.acknowledge(&written, durability, bytes)?;
        Ok(written.first().map(|(shard, seqno)| Version::new(*shard, *seqno)))
    }

    /// Puts all parts into the logs, then shows them.
    fn append_batch(
        &self,
        coordinator: ShardId,
        parts: &[(ShardId, Vec<Op<'_>>)],
    ) -> Result<Vec<(ShardId, Seqno)>> {
        let participants: ShardSet = parts.iter().map(|(shard, _)| *shard).collect();
        // In shard order, so that two batches never wait for each other.
        let mut locked = parts
            .iter()
            .map(|(shard, _)| self.shards[usize::from(shard.0)].lock())
            .collect::<Result<Vec<Locked<'_>>>>()?;
        let name =
            BatchName { coordinator, seqno: locked[0].next_seqno(), parts: parts.len() as u16 };
        let mut staged: Vec<Staged> = Vec::with_capacity(parts.len());
        for (index, (_, ops)) in parts.iter().enumerate() {
            match locked[index].stage(ops, name) {
                Ok(part) => staged.push(part),
                Err(error) => {
                    for (locked, part) in locked.iter_mut().zip(&staged) {
                        locked.unstage(part)?;
                    }
                    return Err(error);
                }
            }
        }
        let written = locked
            .iter_mut()
            .zip(parts)
            .zip(staged)
            .map(|((locked, (shard, ops)), part)| {
                (*shard, locked.publish(ops, &part, participants))
            })
            .collect();
        Ok(written)
    }
}
