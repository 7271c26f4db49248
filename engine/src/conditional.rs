//! Writes that depend on what is there: looked at and changed in one step, under the shard's lock.

use std::time::Duration;

use caskade_shard::planted;
use caskade_shard::read_path::Found;
use caskade_shard::write_path::{Change, Old, Op};

use crate::options::{Durability, ExpiryAt, WriteOptions};
use crate::reads::with_value;
use crate::store::Store;
use crate::version::Version;
use crate::writes::{Stored, check_key, weight};
use crate::{Error, Result};

/// What to do after looking at a key's record.
pub(crate) enum Decision<'a> {
    /// Leave it: the caller hears that.
    Keep,
    /// Leave it, for the caller decides anew.
    Again,
    /// Store this value.
    Put(Stored<'a>),
    /// Remove it.
    Delete,
}

impl Store {
    /// Looks at a key's record and changes it, in one step.
    pub(crate) fn modify<'v>(
        &self,
        key: &[u8],
        durability: Option<Durability>,
        decide: impl FnOnce(Option<&Found<'_>>) -> Result<Decision<'v>>,
    ) -> Result<Option<Version>> {
        self.check_writable()?;
        check_key(key)?;
        // Asked before the lock is taken; a delete needs none.
        let space = self.check_space();
        let (hash, shard) = self.route(key);
        let (mut is_answer, mut bytes) = (true, weight(key, b""));
        let applied = {
            let mut locked = shard.lock()?;
            let guard = self.ctx.reclaim.enter();
            let found = self.find_unexpired(shard, &guard, hash, key)?;
            if planted!("look-then-lock") {
                drop(locked);
                locked = shard.lock()?;
            }
            match decide(found.as_ref())? {
                Decision::Keep => None,
                Decision::Again => {
                    is_answer = false;
                    None
                }
                Decision::Put(stored) => {
                    space?;
                    bytes = weight(key, &stored.value);
                    let op = Op { hash, key, change: stored.change() };
                    Some(locked.apply(&op)?)
                }
                Decision::Delete => {
                    let op = Op { hash, key, change: Change::Delete };
                    let is_there = |old: &Old<'_>| Ok(!matches!(old, Old::Absent));
                    self.with_reserve(|| locked.apply_if(&op, is_there))?
                }
            }
        };
        let Some(seqno) = applied else {
            if is_answer {
                self.acknowledge_what_is(shard, durability)?;
            }
            return Ok(None);
        };
        self.acknowledge(&[(shard.id, seqno)], durability, bytes)?;
        Ok(Some(Version::new(shard.id, seqno)))
    }

    /// Stores a value if there is none.
    pub(crate) fn put_if_absent(
        &self,
        key: &[u8],
        value: &[u8],
        options: WriteOptions,
    ) -> Result<Option<Version>> {
        let stored = self.stored(value, options.expiry)?;
        self.modify(key, options.durability, |old| {
            Ok(if old.is_none() { Decision::Put(stored) } else { Decision::Keep })
        })
    }

    /// Replaces the value if it equals `expected`. Answers whether it did.
    pub(crate) fn compare_and_swap(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<bool> {
        let stored = new.map(|value| self.stored(value, options.expiry)).transpose()?;
        let mut swapped = false;
        self.modify(key, options.durability, |old| {
            swapped = match (old, expected) {
                (None, None) => true,
                (Some(found), Some(expected)) => with_value(found, |value| value == expected)?,
                _ => false,
            };
            Ok(match stored {
                _ if !swapped => Decision::Keep,
                Some(stored) => Decision::Put(stored),
                None => Decision::Delete,
            })
        })?;
        Ok(swapped)
    }

    /// Stores a value if the one that is there has this version.
    pub(crate) fn put_if_version(
        &self,
        key: &[u8],
        value: &[u8],
        expected: Version,
        options: WriteOptions,
    ) -> Result<Option<Version>> {
        let stored = self.stored(value, options.expiry)?;
        let shard = self.route(key).1.id;
        self.modify(key, options.durability, |old| {
            let version = old.map(|found| Version::new(shard, found.frame.header.seqno));
            let is_expected = version == Some(expected);
            Ok(if is_expected { Decision::Put(stored) } else { Decision::Keep })
        })
    }

    /// Replaces the value if it still is what its caller has `seen`, a version or none. Answers whether
    /// it is.
    pub(crate) fn replace_if_seen(
        &self,
        key: &[u8],
        seen: Option<Version>,
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<bool> {
        let stored = new.map(|value| self.stored(value, options.expiry)).transpose()?;
        let seen = seen.map(|version| version.parts().1);
        let mut is_unchanged = false;
        self.modify(key, options.durability, |now| {
            is_unchanged = now.map(|found| found.frame.header.seqno) == seen;
            Ok(match stored {
                _ if !is_unchanged => Decision::Again,
                Some(stored) => Decision::Put(stored),
                None => Decision::Delete,
            })
        })?;
        Ok(is_unchanged)
    }

    /// Writes the record of a key anew, with another expiry. Answers whether it is there.
    pub(crate) fn set_expiry(&self, key: &[u8], ttl: Option<Duration>) -> Result<bool> {
        let mut is_there = false;
        self.modify(key, None, |old| {
            let Some(found) = old else { return Ok(Decision::Keep) };
            is_there = true;
            Ok(Decision::Put(Stored {
                // As it is stored: a compressed value stays so.
                value: found.frame.value().to_vec().into(),
                flags: found.frame.header.flags.of_value(),
                expiry: ttl.map(|ttl| self.expiry_at(ExpiryAt::In(ttl))),
            }))
        })?;
        Ok(is_there)
    }

    /// Adds to a counter. Answers the sum.
    pub(crate) fn fetch_add(&self, key: &[u8], delta: i64, options: WriteOptions) -> Result<i64> {
        let mut sum = delta;
        // The sum is known only under the lock, so that the record is made there.
        self.modify(key, options.durability, |old| {
            let mut expiry = options.expiry;
            if let Some(found) = old {
                let count = with_value(found, |value| {
                    let bytes = <[u8; 8]>::try_from(value);
                    bytes.map_err(|_| Error::NotACounter { len: value.len() })
                })??;
                sum = i64::from_le_bytes(count).wrapping_add(delta);
                expiry = found.frame.expiry().map(ExpiryAt::UnixMillis);
            }
            Ok(Decision::Put(self.stored_owned(sum.to_le_bytes().to_vec(), expiry)?))
        })?;
        Ok(sum)
    }
}
