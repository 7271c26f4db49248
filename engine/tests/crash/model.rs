//! What the store may hold after a crash, by what it promised.
//!
//! Each shard is a list of events in the order of their sequence numbers, on top of a base that is
//! durable for good. A crash leaves a prefix of each list. It is at least as long as what was
//! promised, and the prefixes of all shards together hold each batch whole or not at all.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Key = Vec<u8>;

/// A value as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) value: Vec<u8>,
    pub(crate) expiry: Option<u64>,
}

impl Put {
    pub(crate) fn is_visible(&self, now: u64) -> bool {
        self.expiry.is_none_or(|at| at > now)
    }

    /// Length of its record in a log: the header, the fields and padding to eight bytes.
    pub(crate) fn frame_len(&self, key: &[u8]) -> u64 {
        let expiry = if self.expiry.is_some() { 8 } else { 0 };
        ((20 + expiry + key.len() + self.value.len()) as u64).next_multiple_of(8)
    }
}

/// Changes of one shard that stand or fall together.
#[derive(Clone, Debug)]
struct Event {
    changes: Vec<(Key, Option<Put>)>,
    /// Events of several shards with one number are one batch.
    batch: Option<u64>,
    is_acknowledged: bool,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    base: BTreeMap<Key, Put>,
    events: Vec<Event>,
    /// So many events are promised to survive a power cut.
    durable: usize,
    /// The state after all events.
    now: BTreeMap<Key, Put>,
}

/// How hard a crash was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// The process died; the kernel lives.
    Kill,
    /// Everything that was not synced may be gone.
    PowerCut,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    shards: Vec<Shard>,
    pub(crate) shard_of: BTreeMap<Key, usize>,
    batches: u64,
    /// Keys of which an expired record may be there or not, since that makes no difference.
    pub(crate) ghosts: BTreeSet<Key>,
}

/// A point in the logs of all shards.
pub(crate) type Mark = Vec<usize>;

fn apply(state: &mut BTreeMap<Key, Put>, event: &Event) {
    for (key, put) in &event.changes {
        match put {
            Some(put) => state.insert(key.clone(), put.clone()),
            None => state.remove(key),
        };
    }
}

impl Model {
    pub(crate) fn new(shards: usize, shard_of: BTreeMap<Key, usize>) -> Self {
        Self {
            shards: vec![Shard::default(); shards],
            shard_of,
            batches: 0,
            ghosts: BTreeSet::new(),
        }
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.shard_of.keys()
    }

    /// The last record of a key that was not deleted; it may be expired.
    pub(crate) fn latest(&self, key: &[u8]) -> Option<&Put> {
        self.shards[self.shard_of[key]].now.get(key)
    }

    pub(crate) fn visible(&self, key: &[u8], now: u64) -> Option<&Put> {
        self.latest(key).filter(|put| put.is_visible(now))
    }

    pub(crate) fn state(&self, now: u64) -> BTreeMap<Key, Put> {
        let all = self.shards.iter().flat_map(|shard| &shard.now);
        all.filter(|(_, put)| put.is_visible(now)).map(|(k, p)| (k.clone(), p.clone())).collect()
    }

    /// Keys whose record is expired but may still be counted.
    pub(crate) fn expired(&self, now: u64) -> impl Iterator<Item = (&Key, &Put)> {
        self.shards.iter().flat_map(|s| &s.now).filter(move |(_, put)| !put.is_visible(now))
    }

    /// Adds a write, and answers the shards that it touched. Of several changes to one key the last
    /// wins, as in the store.
    pub(crate) fn write(
        &mut self,
        changes: Vec<(Key, Option<Put>)>,
        is_acknowledged: bool,
    ) -> Vec<usize> {
        let mut parts: BTreeMap<usize, Vec<(Key, Option<Put>)>> = BTreeMap::new();
        for change in changes {
            parts.entry(self.shard_of[&change.0]).or_default().push(change);
        }
        self.batches += 1;
        let batch = (parts.len() > 1).then_some(self.batches);
        let touched = parts.keys().copied().collect();
        for (shard, changes) in parts {
            let event = Event { changes, batch, is_acknowledged };
            apply(&mut self.shards[shard].now, &event);
            self.shards[shard].events.push(event);
        }
        touched
    }

    /// Where the logs end now.
    pub(crate) fn mark(&self) -> Mark {
        self.shards.iter().map(|shard| shard.events.len()).collect()
    }

    /// Everything up to a mark was promised to be durable.
    pub(crate) fn durable_to(&mut self, mark: &Mark) {
        for (shard, mark) in self.shards.iter_mut().zip(mark) {
            shard.durable = shard.durable.max(*mark);
        }
    }

    /// As [`Model::durable_to`], in one shard.
    pub(crate) fn shard_durable_to(&mut self, shard: usize, mark: usize) {
        self.shards[shard].durable = self.shards[shard].durable.max(mark);
    }

    pub(crate) fn shard_mark(&self, shard: usize) -> usize {
        self.shards[shard].events.len()
    }

    /// After a failed sync a kill promises no more than a power cut.
    pub(crate) fn withdraw(&mut self) {
        for shard in &mut self.shards {
            let durable = shard.durable;
            shard.events[durable..].iter_mut().for_each(|event| event.is_acknowledged = false);
        }
    }

    /// Takes over what was found after a crash, or says why it cannot be.
    pub(crate) fn recover(
        &mut self,
        blow: Blow,
        found: &BTreeMap<Key, Put>,
        now: u64,
    ) -> Result<(), String> {
        let fits: Vec<Vec<usize>> =
            self.shards.iter().map(|shard| shard.prefixes_like(found, now, self)).collect();
        let least: Vec<usize> = self.shards.iter().map(|shard| shard.promised(blow)).collect();
        let mut chosen = Vec::new();
        for (index, lengths) in fits.iter().enumerate() {
            match lengths.last() {
                Some(last) if *last >= least[index] => chosen.push(*last),
                _ => return Err(self.explain(index, lengths, least[index], found, now)),
            }
        }
        // The constraints only ever say "if this much, then that much", so that lowering from the
        // top finds the greatest solution.
        while let Some((shard, below, batch)) = self.broken_batch(&chosen) {
            match fits[shard].iter().rev().find(|fit| **fit <= below) {
                Some(fit) if *fit >= least[shard] => chosen[shard] = *fit,
                _ => {
                    return Err(format!(
                        "batch {batch} is there in shard {shard} and not in every shard: {chosen:?} \
                         of {fits:?}, at least {least:?}"
                    ));
                }
            }
        }
        for ((shard, kept), fits) in self.shards.iter_mut().zip(chosen).zip(fits) {
            for event in &shard.events[fits[0].min(kept)..] {
                self.ghosts.extend(event.changes.iter().map(|(key, _)| key.clone()));
            }
            shard.settle(blow, kept);
        }
        self.ghosts.retain(|key| !found.contains_key(key));
        Ok(())
    }

    /// A shard that holds a part of a batch of which another shard lacks one, and before where.
    fn broken_batch(&self, chosen: &[usize]) -> Option<(usize, usize, u64)> {
        let mut missing = BTreeSet::new();
        for (shard, kept) in self.shards.iter().zip(chosen) {
            for event in &shard.events[*kept..] {
                if let Some(batch) = event.batch {
                    missing.insert(batch);
                }
            }
        }
        self.shards.iter().zip(chosen).enumerate().find_map(|(index, (shard, kept))| {
            shard.events[..*kept].iter().enumerate().find_map(|(place, event)| {
                let batch = event.batch.filter(|batch| missing.contains(batch))?;
                Some((index, place, batch))
            })
        })
    }

    fn explain(
        &self,
        index: usize,
        fits: &[usize],
        least: usize,
        found: &BTreeMap<Key, Put>,
        now: u64,
    ) -> String {
        let shard = &self.shards[index];
        let mut text = format!(
            "shard {index}: found no prefix of at least {least} of {} events; fitting: {fits:?}",
            shard.events.len()
        );
        for key in self.shard_of.iter().filter(|(_, s)| **s == index).map(|(key, _)| key) {
            let expected = shard.now.get(key).filter(|put| put.is_visible(now));
            if found.get(key) != expected {
                text += &format!(
                    "\n  {}: found {}, last written {}",
                    key.escape_ascii(),
                    show(found.get(key)),
                    show(shard.now.get(key))
                );
                for (place, event) in shard.events.iter().enumerate() {
                    for (_, put) in event.changes.iter().filter(|(changed, _)| changed == key) {
                        text += &format!("\n    event {place}: {}", show(put.as_ref()));
                    }
                }
            }
        }
        text
    }
}

impl Shard {
    /// How many events at least are there after a crash.
    fn promised(&self, blow: Blow) -> usize {
        match blow {
            Blow::PowerCut => self.durable,
            Blow::Kill => {
                let last = self.events.iter().rposition(|event| event.is_acknowledged);
                last.map_or(0, |last| last + 1).max(self.durable)
            }
        }
    }

    /// The lengths of prefixes after which the shard looks like this.
    fn prefixes_like(&self, found: &BTreeMap<Key, Put>, now: u64, model: &Model) -> Vec<usize> {
        let keys: Vec<&Key> = model
            .shard_of
            .iter()
            .filter(|(_, shard)| std::ptr::eq(&raw const model.shards[**shard], self))
            .map(|(key, _)| key)
            .collect();
        let mut state = self.base.clone();
        let mut fits = Vec::new();
        for length in 0..=self.events.len() {
            if length > 0 {
                apply(&mut state, &self.events[length - 1]);
            }
            let is_like = keys
                .iter()
                .all(|key| found.get(*key) == state.get(*key).filter(|put| put.is_visible(now)));
            if is_like {
                fits.push(length);
            }
        }
        fits
    }

    fn settle(&mut self, blow: Blow, kept: usize) {
        self.events.truncate(kept);
        self.events.iter_mut().for_each(|event| event.is_acknowledged = true);
        // What is read after a power cut was on the disk.
        self.durable = match blow {
            Blow::PowerCut => kept,
            Blow::Kill => self.durable.min(kept),
        };
        for event in self.events.drain(..self.durable) {
            apply(&mut self.base, &event);
        }
        self.durable = 0;
        self.now = self.base.clone();
        for event in &self.events {
            apply(&mut self.now, event);
        }
    }
}

pub(crate) fn show(put: Option<&Put>) -> String {
    put.map_or("nothing".to_owned(), |put| {
        let head = put.value.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
        let expiry = put.expiry.map_or(String::new(), |at| format!(" until {at}"));
        format!("{head} ({} bytes){expiry}", put.value.len())
    })
}
