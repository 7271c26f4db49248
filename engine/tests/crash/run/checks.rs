//! What a store holds, by every way to read it, against the model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use caskade::{Db, Expiry, Iter, ScanCursor};

use super::{Key, Model, Outcome, Put, Run, ensure, fault, show};

impl Run {
    /// Every way to read gives what the model has.
    pub(super) fn check(&self) -> Outcome {
        let db = self.db();
        let now = self.now();
        let expected = self.model.state(now);
        let (found, _) = observe(&db, &self.model)?;
        ensure(found == expected, || format!("get: {}", differences(&expected, &found)))?;
        let found = collect(db.iter().map_err(fault("iterating"))?)?;
        ensure(found == expected, || format!("iter: {}", differences(&expected, &found)))?;
        let found = scan(&db)?;
        ensure(found == expected, || format!("scan: {}", differences(&expected, &found)))?;
        for key in self.model.keys() {
            let put = expected.get(key);
            let len = db.value_len(key).map_err(fault("value_len"))?;
            ensure(len == put.map(|put| put.value.len()), || format!("value_len {len:?}"))?;
            let there = db.contains_key(key).map_err(fault("contains_key"))?;
            ensure(there == put.is_some(), || format!("contains_key {there}"))?;
            let ttl = db.ttl(key).map_err(fault("ttl"))?;
            let expected = put.map(|put| match put.expiry {
                None => Expiry::Never,
                Some(at) => Expiry::In(Duration::from_millis(at - now)),
            });
            ensure(ttl == expected, || format!("ttl {ttl:?}, expected {expected:?}"))?;
        }
        self.check_counts(&db, &expected, now)
    }

    /// Counts agree with a recount. Expired records count until they are cleaned up.
    fn check_counts(&self, db: &Db, expected: &BTreeMap<Key, Put>, now: u64) -> Outcome {
        let bytes = |(key, put): (&Key, &Put)| put.frame_len(key);
        let (least, least_bytes) = (expected.len() as u64, expected.iter().map(bytes).sum::<u64>());
        let ghosts = self.model.ghosts.len() as u64;
        let more = self.model.expired(now).count() as u64 + ghosts;
        let more_bytes = self.model.expired(now).map(bytes).sum::<u64>() + ghosts * 5000;
        let stats = db.stats().total;
        ensure((least..=least + more).contains(&db.len()), || {
            format!("len {} is not in {least}..={}", db.len(), least + more)
        })?;
        let live = stats.live_bytes;
        ensure((least_bytes..=least_bytes + more_bytes).contains(&live), || {
            format!("{live} live bytes are not in {least_bytes}..={}", least_bytes + more_bytes)
        })
    }
}

pub(super) fn read(db: &Db, key: &[u8]) -> caskade::Result<Option<Put>> {
    Ok(db.get(key)?.map(|value| Put { value: value.to_vec(), expiry: value.expires_at_unix_ms() }))
}

pub(super) type Observed = (BTreeMap<Key, Put>, Vec<(usize, u64)>);

/// What `get` answers for every key, and the numbers of the versions by shard.
pub(super) fn observe(db: &Db, model: &Model) -> Outcome<Observed> {
    let (mut found, mut versions) = (BTreeMap::new(), Vec::new());
    for key in model.keys() {
        if let Some(value) = db.get(key).map_err(fault("get"))? {
            let version = value.version().to_u64();
            let shard = (version >> 56) as usize;
            ensure(shard == model.shard_of[key], || "a key changed its shard".to_owned())?;
            versions.push((shard, version << 8 >> 8));
            let put = Put { value: value.to_vec(), expiry: value.expires_at_unix_ms() };
            found.insert(key.clone(), put);
        }
    }
    Ok((found, versions))
}

pub(super) fn collect(iter: Iter) -> Outcome<BTreeMap<Key, Put>> {
    let mut found = BTreeMap::new();
    for entry in iter {
        let entry = entry.map_err(fault("iterating"))?;
        let expiry = entry.value.expires_at_unix_ms();
        let put = Put { value: entry.value.to_vec(), expiry };
        let twice = found.insert(entry.key.to_vec(), put);
        ensure(twice.is_none(), || format!("{} came twice", entry.key.escape_ascii()))?;
    }
    Ok(found)
}

fn scan(db: &Db) -> Outcome<BTreeMap<Key, Put>> {
    let mut found = BTreeMap::new();
    let mut cursor = Some(ScanCursor::start());
    while let Some(at) = cursor {
        let page = db.scan(at, 3).map_err(fault("scan"))?;
        for entry in page.entries {
            let expiry = entry.value.expires_at_unix_ms();
            let put = Put { value: entry.value.to_vec(), expiry };
            let twice = found.insert(entry.key.to_vec(), put);
            ensure(twice.is_none(), || format!("{} came twice", entry.key.escape_ascii()))?;
        }
        cursor = page.next;
    }
    Ok(found)
}

pub(super) fn differences(expected: &BTreeMap<Key, Put>, found: &BTreeMap<Key, Put>) -> String {
    let keys: BTreeSet<&Key> = expected.keys().chain(found.keys()).collect();
    keys.into_iter()
        .filter(|key| expected.get(*key) != found.get(*key))
        .map(|key| {
            let (expected, found) = (show(expected.get(key)), show(found.get(key)));
            format!("{}: expected {expected}, found {found}; ", key.escape_ascii())
        })
        .collect()
}
