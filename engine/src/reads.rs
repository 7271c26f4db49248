//! Reads of single keys and of many.

use std::time::Duration;

use caskade_shard::location::Location;
use caskade_shard::read_path::{Found, Glimpse};
use caskade_shard::reclaim::Guard;
use caskade_shard::shard::Shard;

use crate::Result;
use crate::compress::original_len;
use crate::db::Expiry;
use crate::store::Store;
use crate::value::{Value, decompress, is_compressed, is_copied};

/// Keys whose cache misses overlap: enough to hide them, few enough to stay in the first cache.
pub(crate) const GROUP: usize = 16;

/// Calls `visit` with the value as the user stored it.
#[inline]
pub(crate) fn with_value<T>(found: &Found<'_>, visit: impl FnOnce(&[u8]) -> T) -> Result<T> {
    if is_compressed(found) {
        // By value, so that a plain record is never put together in memory.
        Ok(visit(&decompress(*found)?))
    } else {
        Ok(visit(found.frame.value()))
    }
}

impl Store {
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.check_open()?;
        let (hash, shard) = self.route(key);
        let guard = self.ctx.reclaim.enter();
        guard.count_reads(1);
        match shard.glimpse(&guard, hash, key) {
            Glimpse::Plain(found) if is_copied(&found) => Ok(Some(Value::copied(found, shard.id))),
            Glimpse::Plain(found) => {
                let share = |found: Found<'_>| shard.share_segment(&found, &guard);
                Value::other(found, shard.id, share).map(Some)
            }
            Glimpse::Nothing => Ok(None),
            Glimpse::Unsure(guess) => self.get_other(shard, guard, hash, key, guess),
        }
    }

    /// The record, where a glimpse at `guess` was not enough, unless it is expired.
    fn find_other<'g>(
        &self,
        shard: &'g Shard,
        guard: &'g Guard<'_>,
        guess: Location,
        hash: u64,
        key: &[u8],
    ) -> Result<Option<Found<'g>>> {
        let found = shard.find_guessed(guard, guess, hash, key)?;
        Ok(found.filter(|found| self.is_unexpired(found)))
    }

    /// What is not answered at a glimpse.
    #[inline(never)]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the caller's guard need not be in memory where a glimpse is enough"
    )]
    fn get_other(
        &self,
        shard: &Shard,
        guard: Guard<'_>,
        hash: u64,
        key: &[u8],
        guess: Location,
    ) -> Result<Option<Value>> {
        let found = self.find_other(shard, &guard, guess, hash, key)?;
        let share = |found: Found<'_>| shard.share_segment(&found, &guard);
        found.map(|found| Value::new(found, shard.id, share)).transpose()
    }

    #[inline]
    pub(crate) fn get_into(&self, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        out.clear();
        self.check_open()?;
        let (hash, shard) = self.route(key);
        let guard = self.ctx.reclaim.enter();
        guard.count_reads(1);
        match shard.glimpse(&guard, hash, key) {
            Glimpse::Plain(found) => {
                out.extend_from_slice(found.frame.value());
                Ok(true)
            }
            Glimpse::Nothing => Ok(false),
            Glimpse::Unsure(guess) => self.get_other_into(shard, guard, hash, key, guess, out),
        }
    }

    /// As [`Store::get_other`].
    #[inline(never)]
    #[expect(clippy::needless_pass_by_value, reason = "as there")]
    fn get_other_into(
        &self,
        shard: &Shard,
        guard: Guard<'_>,
        hash: u64,
        key: &[u8],
        guess: Location,
        out: &mut Vec<u8>,
    ) -> Result<bool> {
        let Some(found) = self.find_other(shard, &guard, guess, hash, key)? else {
            return Ok(false);
        };
        with_value(&found, |value| out.extend_from_slice(value))?;
        Ok(true)
    }

    pub(crate) fn get_many<'s, K: AsRef<[u8]>>(
        &'s self,
        keys: &[K],
        mut visit: impl FnMut(usize, Option<(Found<'_>, &'s Shard, &Guard<'_>)>) -> Result<()>,
    ) -> Result<()> {
        self.check_open()?;
        let mut groups = keys.chunks(GROUP).enumerate().peekable();
        let first = groups.peek().map_or(&[][..], |(_, keys)| keys);
        let mut routes = self.ask_for_slots(&self.ctx.reclaim.enter(), first);
        while let Some((group, keys)) = groups.next() {
            let guard = self.ctx.reclaim.enter();
            guard.count_reads(keys.len() as u64);
            let mut guesses = [None; GROUP];
            for (guess, (hash, shard)) in guesses.iter_mut().zip(&routes[..keys.len()]) {
                *guess = shard.guess(&guard, *hash);
            }
            // While this group's records are on their way.
            let next = groups.peek().map_or(&[][..], |(_, keys)| keys);
            let routes = std::mem::replace(&mut routes, self.ask_for_slots(&guard, next));
            for (index, (key, (hash, shard))) in keys.iter().zip(routes).enumerate() {
                let key = key.as_ref();
                let found = match guesses[index] {
                    Some(guess) => match shard.glimpse_at(&guard, guess, key) {
                        Some(found) => Some(found),
                        None => self.find_other(shard, &guard, guess, hash, key)?,
                    },
                    None => None,
                };
                visit(group * GROUP + index, found.map(|found| (found, shard, &guard)))?;
            }
        }
        Ok(())
    }

    /// Hashes and shards of a group's keys, whose places in the keydir are asked for.
    #[inline]
    fn ask_for_slots<K: AsRef<[u8]>>(
        &self,
        guard: &Guard<'_>,
        keys: &[K],
    ) -> [(u64, &Shard); GROUP] {
        let mut routes = [(0, &self.shards[0]); GROUP];
        for (route, key) in routes.iter_mut().zip(keys) {
            *route = self.route(key.as_ref());
            route.1.prefetch_slot(guard, route.0);
        }
        routes
    }

    pub(crate) fn value_len(&self, key: &[u8]) -> Result<Option<usize>> {
        self.check_open()?;
        let (hash, shard) = self.route(key);
        let guard = self.ctx.reclaim.enter();
        // Verified like any read: a damaged header would answer another length, or an expiry.
        let Some(found) = self.find_unexpired(shard, &guard, hash, key)? else { return Ok(None) };
        let stored = found.frame.value();
        original_len(found.frame.header.flags, stored).map(Some).ok_or_else(|| {
            found.segment.corrupt(found.location.offset(), "a compressed value is cut off")
        })
    }

    pub(crate) fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        self.check_open()?;
        let (hash, shard) = self.route(key);
        let guard = self.ctx.reclaim.enter();
        let Some(found) = self.find_unexpired(shard, &guard, hash, key)? else { return Ok(None) };
        Ok(Some(match found.frame.expiry() {
            None => Expiry::Never,
            Some(at) => Expiry::In(Duration::from_millis(at.saturating_sub(self.now_ms()))),
        }))
    }

    /// The record of a key, unless it is expired.
    #[inline]
    pub(crate) fn find_unexpired<'g>(
        &self,
        shard: &'g Shard,
        guard: &'g Guard<'_>,
        hash: u64,
        key: &[u8],
    ) -> Result<Option<Found<'g>>> {
        Ok(shard.find(guard, hash, key)?.filter(|found| self.is_unexpired(found)))
    }

    #[inline]
    pub(crate) fn is_unexpired(&self, found: &Found<'_>) -> bool {
        !found.frame.is_expired(|| self.now_ms())
    }
}
